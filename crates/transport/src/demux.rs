//! What a datagram is, from its first bytes (RFC 7983), and whose, from its STUN USERNAME.

/// Transaction id of a STUN message (RFC 8489 §5).
pub type TransactionId = [u8; 12];

/// The protocols that share one 5-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketClass {
    /// A STUN message.
    Stun,
    /// TURN ChannelData (RFC 8656 §12.4).
    TurnChannel,
    /// One or more DTLS records.
    Dtls,
    /// RTP.
    Rtp,
    /// RTCP (RFC 5761 §4).
    Rtcp,
    /// None of these.
    Unknown,
}

/// Shortest RTP header (RFC 3550 §5.1).
const RTP_HEADER_BYTES: usize = 12;
/// Shortest RTCP packet that SRTCP can carry: header and sender SSRC.
const RTCP_HEADER_BYTES: usize = 8;
/// DTLS record header (RFC 6347 §4.1); a DTLS 1.3 unified header is never below 3, its records never below 19.
const DTLS_RECORD_BYTES: usize = 13;
/// STUN header (RFC 8489 §5).
const STUN_HEADER_BYTES: usize = 20;
const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_BINDING_REQUEST: u16 = 0x0001;
const STUN_BINDING_SUCCESS: u16 = 0x0101;
const STUN_BINDING_ERROR: u16 = 0x0111;
const ATTRIBUTE_USERNAME: u16 = 0x0006;

/// Classifies a datagram by its first byte, and by length where a shorter one cannot be valid.
pub fn classify(datagram: &[u8]) -> PacketClass {
    let Some(&first) = datagram.first() else { return PacketClass::Unknown };
    let len = datagram.len();
    match first {
        0..=3 if len >= STUN_HEADER_BYTES => PacketClass::Stun,
        20..=63 if len >= DTLS_RECORD_BYTES => PacketClass::Dtls,
        64..=79 if len >= 4 => PacketClass::TurnChannel,
        128..=191 => match datagram.get(1) {
            Some(192..=223) if len >= RTCP_HEADER_BYTES => PacketClass::Rtcp,
            Some(_) if len >= RTP_HEADER_BYTES => PacketClass::Rtp,
            _ => PacketClass::Unknown,
        },
        _ => PacketClass::Unknown,
    }
}

/// The receiver's ufrag of a STUN binding request: the part of USERNAME before the colon (RFC 8445 §7.2.2).
///
/// Nothing is authenticated here; the ICE agent checks the message's integrity afterwards.
pub fn stun_local_ufrag(datagram: &[u8]) -> Option<&str> {
    let (header, mut rest) = datagram.split_at_checked(STUN_HEADER_BYTES)?;
    if be16(header, 0)? != STUN_BINDING_REQUEST || header.get(4..8)? != STUN_MAGIC_COOKIE {
        return None;
    }
    if usize::from(be16(header, 2)?) != rest.len() {
        return None;
    }
    while let Some((head, tail)) = rest.split_at_checked(4) {
        let len = usize::from(be16(head, 2)?);
        let value = tail.get(..len)?;
        if be16(head, 0)? == ATTRIBUTE_USERNAME {
            let colon = value.iter().position(|byte| *byte == b':')?;
            return std::str::from_utf8(value.get(..colon)?).ok();
        }
        rest = tail.get(len.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// The transaction that a STUN binding response answers. Nothing is authenticated here.
pub fn stun_response_transaction(datagram: &[u8]) -> Option<TransactionId> {
    match be16(datagram, 0)? {
        STUN_BINDING_SUCCESS | STUN_BINDING_ERROR => transaction(datagram),
        _ => None,
    }
}

/// The transaction of a STUN binding request.
pub(crate) fn stun_request_transaction(datagram: &[u8]) -> Option<TransactionId> {
    (be16(datagram, 0)? == STUN_BINDING_REQUEST).then(|| transaction(datagram))?
}

fn transaction(datagram: &[u8]) -> Option<TransactionId> {
    let (header, _) = datagram.split_first_chunk::<STUN_HEADER_BYTES>()?;
    let (prefix, transaction) = header.split_last_chunk()?;
    prefix.ends_with(&STUN_MAGIC_COOKIE).then_some(*transaction)
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at.checked_add(1)?)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend(attributes);
        message[3] = attributes.len() as u8;
        message
    }

    #[test]
    fn every_protocol_is_told_by_its_first_bytes() {
        let with = |first: u8, second: u8| [&[first, second][..], &[0; 30]].concat();
        assert_eq!(classify(&with(0, 1)), PacketClass::Stun);
        assert_eq!(classify(&with(22, 254)), PacketClass::Dtls);
        assert_eq!(classify(&with(0x2f, 0)), PacketClass::Dtls);
        assert_eq!(classify(&with(64, 0)), PacketClass::TurnChannel);
        assert_eq!(classify(&with(128, 96)), PacketClass::Rtp);
        assert_eq!(classify(&with(128, 224)), PacketClass::Rtp);
        assert_eq!(classify(&with(128, 200)), PacketClass::Rtcp);
        assert_eq!(classify(&with(4, 0)), PacketClass::Unknown);
        assert_eq!(classify(&with(200, 0)), PacketClass::Unknown);
    }

    #[test]
    fn what_is_too_short_is_nothing() {
        assert_eq!(classify(&[]), PacketClass::Unknown);
        assert_eq!(classify(&[0; 19]), PacketClass::Unknown);
        assert_eq!(classify(&[22; 12]), PacketClass::Unknown);
        assert_eq!(classify(&[128]), PacketClass::Unknown);
        assert_eq!(classify(&[128, 96, 0]), PacketClass::Unknown);
    }

    #[test]
    fn the_local_ufrag_stands_before_the_colon() {
        let mut attributes = vec![0x80, 0x22, 0, 3, b'x', b'y', b'z', 0];
        attributes.extend([0, 6, 0, 9]);
        attributes.extend(b"abcd:efgh\0\0\0");
        let message = request(&attributes);
        assert_eq!(stun_local_ufrag(&message), Some("abcd"));
        for len in 0..message.len() {
            assert_eq!(stun_local_ufrag(&message[..len]), None);
        }
    }

    #[test]
    fn responses_and_foreign_cookies_have_no_ufrag() {
        let mut message = request(&[0, 6, 0, 4, b'a', b':', b'b', b'c']);
        assert_eq!(stun_local_ufrag(&message), Some("a"));
        assert_eq!(
            (stun_request_transaction(&message), stun_response_transaction(&message)),
            (Some([7; 12]), None)
        );
        message[0] = 1;
        assert_eq!(stun_local_ufrag(&message), None);
        assert_eq!(
            (stun_request_transaction(&message), stun_response_transaction(&message)),
            (None, Some([7; 12]))
        );
        message[0] = 0;
        message[4] = 0;
        assert_eq!(stun_local_ufrag(&message), None);
    }
}
