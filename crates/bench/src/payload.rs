//! Payloads that say which packet they are, so that a receiver can tell what it got.

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// VP8, 1172 bytes of payload.
    Video,
    /// Opus, 100 bytes of payload.
    Audio,
}

/// VP8 payload descriptor with a 15-bit picture id and TL0PICIDX (RFC 7741 §4.2), and the first byte of the frame.
const VP8_BYTES: usize = 6;
/// The table of contents of a 20 ms frame (RFC 6716 §3.1).
const OPUS_TOC: u8 = 0xf8;
/// Packets of a video frame.
pub(crate) const FRAME_PACKETS: u64 = 8;

impl Medium {
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Video => 1172,
            Self::Audio => 100,
        }
    }

    /// Whether this packet ends what is played at once.
    pub(crate) const fn marker(self, number: u64) -> bool {
        matches!(self, Self::Video) && number % FRAME_PACKETS == FRAME_PACKETS - 1
    }

    /// The RTP timestamp of a packet: 30 frames per second, or 20 ms of sound.
    pub(crate) const fn timestamp(self, number: u64) -> u32 {
        match self {
            Self::Video => (number / FRAME_PACKETS).wrapping_mul(3_000) as u32,
            Self::Audio => number.wrapping_mul(960) as u32,
        }
    }

    /// Virtual time from one packet of a track to the next, on average.
    pub(crate) const fn spacing_ns(self) -> u64 {
        match self {
            Self::Video => 33_333_333 / FRAME_PACKETS,
            Self::Audio => 20_000_000,
        }
    }

    /// Packet `number` of a track.
    pub(crate) fn payload(self, track: u32, number: u64, key_frame: bool) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.bytes());
        match self {
            Self::Video => {
                let start = number.is_multiple_of(FRAME_PACKETS);
                let picture = (number / FRAME_PACKETS) as u16;
                payload.extend([0x80 | if start { 0x10 } else { 0 }, 0xc0]);
                payload.extend((0x8000 | picture).to_be_bytes());
                payload.push(picture as u8);
                // A set bit is a delta frame (RFC 6386 §9.1); it counts in a frame's first packet only.
                payload.push(if start && key_frame { 0x10 } else { 0x11 });
            }
            Self::Audio => payload.push(OPUS_TOC),
        }
        payload.extend(track.to_be_bytes());
        payload.extend(number.to_be_bytes());
        let fill = (number as u8) ^ (track as u8);
        payload.resize(self.bytes(), fill);
        payload
    }

    /// Track and number of a received payload, when every byte of it is as it was sent; the server may have written
    /// the descriptor anew.
    pub(crate) fn read(payload: &[u8]) -> Option<(u32, u64)> {
        let medium = [Self::Video, Self::Audio].into_iter().find(|medium| medium.bytes() == payload.len())?;
        let descriptor = match medium {
            Self::Video => VP8_BYTES,
            Self::Audio => 1,
        };
        let rest = payload.get(descriptor..)?;
        let (track, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (track, number) = (u32::from_be_bytes(*track), u64::from_be_bytes(*number));
        let fill = (number as u8) ^ (track as u8);
        rest.iter().all(|byte| *byte == fill).then_some((track, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_which_packet_it_is_and_a_changed_one_does_not() {
        for medium in [Medium::Video, Medium::Audio] {
            let mut payload = medium.payload(3, 1_234_567, false);
            assert_eq!((payload.len(), Medium::read(&payload)), (medium.bytes(), Some((3, 1_234_567))));
            *payload.last_mut().unwrap() ^= 1;
            assert_eq!(Medium::read(&payload), None);
        }
    }
}
