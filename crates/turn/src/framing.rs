//! Frames of a stream between client and server: STUN messages and padded ChannelData (RFC 8656 §12.5).

use crate::limits::FRAME_BYTES_MAX;

/// A stream that holds something else than STUN messages and ChannelData: it is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is neither a STUN message's nor a channel number's.
    #[error("neither a STUN message nor ChannelData")]
    Unknown,
    /// A STUN message without its magic cookie or of a length that is no multiple of four.
    #[error("no STUN message")]
    NotStun,
}

/// Bytes of the first frame, padding included; `None`: its header is not there yet.
///
/// The frame itself may not be there yet either.
pub fn frame_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    match first {
        0..=3 => stun_len(bytes),
        0x40..=0x7f => {
            let Some([_, _, high, low]) = bytes.first_chunk::<4>() else { return Ok(None) };
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            Ok(Some(4 + len.next_multiple_of(4)))
        }
        _ => Err(FrameError::Unknown),
    }
}

fn stun_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some([_, _, high, low, cookie @ ..]) = bytes.first_chunk::<8>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if *cookie != stun_types::message::MAGIC_COOKIE.to_be_bytes() || len % 4 != 0 {
        return Err(FrameError::NotStun);
    }
    Ok(Some(20 + len))
}

/// Cuts a stream into frames; holds at most one unfinished frame and what was pushed last.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    taken: usize,
    /// Whether a frame was taken. The first one is a STUN message: there is no channel before there is an allocation,
    /// and `GET /` would read as ChannelData of 21 kB.
    begun: bool,
}

impl Deframer {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was read. Take all frames before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken.min(self.buffer.len()));
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, padding included. After an error the stream is lost.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        if !self.begun && rest.first().is_some_and(|first| *first > 3) {
            return Err(FrameError::Unknown);
        }
        let Some(len) = frame_len(rest)? else { return Ok(None) };
        debug_assert!(len <= FRAME_BYTES_MAX);
        let end = self.taken.saturating_add(len);
        let frame = self.buffer.get(self.taken..end);
        if frame.is_some() {
            self.taken = end;
            self.begun = true;
        }
        Ok(frame)
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.buffer.len().saturating_sub(self.taken)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const CHANNEL: [u8; 8] = [0x40, 0, 0, 1, 0xaa, 0, 0, 0];

    fn frames(deframer: &mut Deframer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| deframer.next_frame().unwrap().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let stream = [&BINDING[..], &CHANNEL, &[0x4f, 0xff, 0, 0], &BINDING].concat();
        for size in 1..=stream.len() {
            let mut deframer = Deframer::new();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                deframer.push(piece);
                found.extend(frames(&mut deframer));
            }
            assert_eq!(found, [&BINDING[..], &CHANNEL, &[0x4f, 0xff, 0, 0], &BINDING], "pieces of {size}");
            assert!(deframer.is_empty());
        }
    }

    #[test]
    fn channel_data_is_padded_to_four_bytes() {
        assert_eq!(frame_len(&[0x40, 0, 0, 5]), Ok(Some(12)));
        assert_eq!(frame_len(&[0x40, 0, 0xff, 0xff]), Ok(Some(65_540)));
        assert_eq!(frame_len(&[0x40, 0, 0]), Ok(None));
        assert_eq!(frame_len(&[]), Ok(None));
    }

    #[test]
    fn a_foreign_stream_is_refused_at_once() {
        for stream in
            [&b"GET / HTTP/1.1\r\n"[..], b"POST /", &[22, 3, 1, 0], &[0x50, 0, 0, 0], &[0xff], &CHANNEL]
        {
            let mut deframer = Deframer::new();
            deframer.push(stream);
            assert_eq!(deframer.next_frame(), Err(FrameError::Unknown));
        }
        assert_eq!(frame_len(&[0, 1, 0, 0, 1, 2, 3, 4]), Err(FrameError::NotStun));
        assert_eq!(frame_len(&[0, 1, 0, 1, 0x21, 0x12, 0xa4, 0x42]), Err(FrameError::NotStun));
    }
}
