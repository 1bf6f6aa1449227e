//! Data Channel Establishment Protocol (RFC 8832).

use crate::limits::LABEL_BYTES_MAX;

const TYPE_OPEN: u8 = 3;
const TYPE_ACK: u8 = 2;
/// The only content of a DATA_CHANNEL_ACK.
pub(crate) const ACK: [u8; 1] = [TYPE_ACK];
const UNORDERED: u8 = 0x80;

/// How hard a channel tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reliability {
    /// Until it arrives.
    Reliable,
    /// At most so many retransmissions.
    Retransmits(u32),
    /// For so many milliseconds.
    LifetimeMs(u32),
}

/// A DATA_CHANNEL_OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    /// Messages arrive in order.
    pub(crate) ordered: bool,
    /// Reliability of messages.
    pub(crate) reliability: Reliability,
    /// Label, at most [`LABEL_BYTES_MAX`] bytes.
    pub(crate) label: String,
    /// Subprotocol, at most [`LABEL_BYTES_MAX`] bytes.
    pub(crate) protocol: String,
}

/// A DCEP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Opens the channel of its stream.
    Open(Open),
    /// Confirms it.
    Ack,
}

/// Why a DCEP message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DcepError {
    /// Shorter than its fields.
    #[error("truncated")]
    Truncated,
    /// Neither OPEN nor ACK, or a channel type that is not defined.
    #[error("unknown type")]
    UnknownType,
    /// Label or protocol longer than [`LABEL_BYTES_MAX`].
    #[error("label or protocol too long")]
    TooLong,
    /// Label or protocol is not UTF-8.
    #[error("label or protocol is not UTF-8")]
    NotText,
}

impl Message {
    /// Reads a message.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DcepError> {
        match bytes.first() {
            Some(&TYPE_ACK) => Ok(Self::Ack),
            Some(&TYPE_OPEN) => Open::parse(bytes).map(Self::Open),
            Some(_) => Err(DcepError::UnknownType),
            None => Err(DcepError::Truncated),
        }
    }
}

impl Open {
    fn parse(bytes: &[u8]) -> Result<Self, DcepError> {
        let (header, rest) = bytes.split_at_checked(12).ok_or(DcepError::Truncated)?;
        let &[_, kind, _, _, p0, p1, p2, p3, l0, l1, q0, q1] = header else {
            return Err(DcepError::Truncated);
        };
        let parameter = u32::from_be_bytes([p0, p1, p2, p3]);
        let reliability = match kind & !UNORDERED {
            0 => Reliability::Reliable,
            1 => Reliability::Retransmits(parameter),
            2 => Reliability::LifetimeMs(parameter),
            _ => return Err(DcepError::UnknownType),
        };
        let (label, rest) = text(rest, u16::from_be_bytes([l0, l1]))?;
        let (protocol, _) = text(rest, u16::from_be_bytes([q0, q1]))?;
        Ok(Self { ordered: kind & UNORDERED == 0, reliability, label, protocol })
    }

    /// Writes the message; label and protocol are cut to [`LABEL_BYTES_MAX`].
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (kind, parameter) = match self.reliability {
            Reliability::Reliable => (0, 0),
            Reliability::Retransmits(count) => (1, count),
            Reliability::LifetimeMs(ms) => (2, ms),
        };
        let label = cut(&self.label);
        let protocol = cut(&self.protocol);
        let mut bytes = vec![TYPE_OPEN, if self.ordered { kind } else { kind | UNORDERED }, 0, 0];
        bytes.extend(parameter.to_be_bytes());
        bytes.extend((label.len() as u16).to_be_bytes());
        bytes.extend((protocol.len() as u16).to_be_bytes());
        bytes.extend(label);
        bytes.extend(protocol);
        bytes
    }
}

fn text(bytes: &[u8], len: u16) -> Result<(String, &[u8]), DcepError> {
    let len = usize::from(len);
    if len > LABEL_BYTES_MAX {
        return Err(DcepError::TooLong);
    }
    let (head, tail) = bytes.split_at_checked(len).ok_or(DcepError::Truncated)?;
    let text = std::str::from_utf8(head).map_err(|_| DcepError::NotText)?;
    Ok((text.to_owned(), tail))
}

fn cut(text: &str) -> &[u8] {
    let end = text.floor_char_boundary(LABEL_BYTES_MAX);
    text.get(..end).unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_of_livekits_lossy_channel_is_read() {
        let mut bytes = vec![3, 0x81, 1, 0, 0, 0, 0, 0, 0, 6, 0, 0];
        bytes.extend(b"_lossy");
        let open = Open {
            ordered: false,
            reliability: Reliability::Retransmits(0),
            label: "_lossy".into(),
            protocol: String::new(),
        };
        assert_eq!(Message::parse(&bytes), Ok(Message::Open(open)));
        for len in 0..bytes.len() {
            assert_eq!(Message::parse(&bytes[..len]), Err(DcepError::Truncated));
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for reliability in [Reliability::Reliable, Reliability::Retransmits(3), Reliability::LifetimeMs(250)]
        {
            for ordered in [true, false] {
                let open = Open { ordered, reliability, label: "läbel".into(), protocol: "p".into() };
                assert_eq!(Message::parse(&open.to_bytes()), Ok(Message::Open(open)));
            }
        }
    }

    #[test]
    fn long_and_broken_labels_are_refused() {
        let open = |label: &[u8]| {
            let mut bytes = vec![3, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend((label.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(label);
            Message::parse(&bytes)
        };
        assert_eq!(open(&[b'a'; 257]), Err(DcepError::TooLong));
        assert_eq!(open(&[0xff]), Err(DcepError::NotText));
        assert!(open(&[b'a'; 256]).is_ok());
        assert_eq!(Message::parse(&[7]), Err(DcepError::UnknownType));
        assert_eq!(Message::parse(&[3, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DcepError::UnknownType));
        assert_eq!(Message::parse(&[2]), Ok(Message::Ack));
    }

    #[test]
    fn a_label_that_is_too_long_is_cut_between_characters() {
        let open = Open {
            ordered: true,
            reliability: Reliability::Reliable,
            label: "ä".repeat(200),
            protocol: String::new(),
        };
        let Ok(Message::Open(read)) = Message::parse(&open.to_bytes()) else { panic!("readable") };
        assert_eq!(read.label, "ä".repeat(128));
    }
}
