//! RFC 4571: packets over TCP, each behind its 16-bit length.

use crate::limits::TCP_FRAME_BYTES_MAX;

/// The stream announced a packet longer than [`TCP_FRAME_BYTES_MAX`]; it cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a framed packet of {bytes} bytes is too long")]
pub struct FrameTooLong {
    /// The length it announced.
    pub bytes: usize,
}

/// Splits a byte stream into packets. Holds at most one incomplete packet beyond what was pushed and not yet taken.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameReader {
    /// An empty reader.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0 }
    }

    /// Appends bytes of the stream. Take all frames after each push, so that no more than one incomplete packet waits.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete packet, to be opened in place; empty packets are skipped.
    pub fn next_frame(&mut self) -> Result<Option<&mut [u8]>, FrameTooLong> {
        loop {
            let Some([high, low]) = self.buffer.get(self.start..).and_then(|rest| rest.first_chunk::<2>())
            else {
                return Ok(None);
            };
            let bytes = usize::from(u16::from_be_bytes([*high, *low]));
            if bytes > TCP_FRAME_BYTES_MAX {
                return Err(FrameTooLong { bytes });
            }
            let begin = self.start.saturating_add(2);
            let end = begin.saturating_add(bytes);
            if end > self.buffer.len() {
                return Ok(None);
            }
            self.start = end;
            if bytes > 0 {
                return Ok(self.buffer.get_mut(begin..end));
            }
        }
    }

    /// Bytes waiting for the rest of their packet.
    pub fn waiting_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }
}

/// The length prefix of a packet; `None` when it is too long to be framed.
pub fn frame_header(packet_bytes: usize) -> Option<[u8; 2]> {
    u16::try_from(packet_bytes).ok().map(u16::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(reader: &mut FrameReader) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame().expect("short frames") {
            frames.push(frame.to_vec());
        }
        frames
    }

    #[test]
    fn packets_come_out_whole_however_the_stream_is_cut() {
        let stream = [0, 3, 1, 2, 3, 0, 0, 0, 1, 9, 0, 2, 7, 7];
        for cut in 1..stream.len() {
            let mut reader = FrameReader::new();
            let mut seen = Vec::new();
            for part in stream.chunks(cut) {
                reader.push(part);
                seen.extend(frames(&mut reader));
            }
            assert_eq!(seen, [vec![1, 2, 3], vec![9], vec![7, 7]], "cut at {cut}");
            assert_eq!(reader.waiting_bytes(), 0);
        }
    }

    #[test]
    fn a_packet_that_is_too_long_ends_the_stream() {
        let mut reader = FrameReader::new();
        reader.push(&[0xff, 0xff, 0]);
        assert_eq!(reader.next_frame(), Err(FrameTooLong { bytes: 65_535 }));
    }

    #[test]
    fn the_header_is_the_length_in_network_order() {
        assert_eq!(frame_header(258), Some([1, 2]));
        assert_eq!(frame_header(70_000), None);
    }
}
