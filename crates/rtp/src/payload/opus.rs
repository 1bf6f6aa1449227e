//! Opus payloads (RFC 6716 §3.1, RFC 7587 §3.1.3).

/// The table-of-contents byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusToc {
    /// Mode, bandwidth and frame size, 0..=31.
    pub configuration: u8,
    /// Two channels.
    pub stereo: bool,
    /// How many frames the packet holds: 0 one, 1 two of a size, 2 two, 3 any number.
    pub frame_code: u8,
}

impl OpusToc {
    /// Reads the first byte of a payload.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let byte = *payload.first()?;
        Some(Self { configuration: byte >> 3, stereo: byte & 0x04 != 0, frame_code: byte & 0x03 })
    }
}

/// Whether a payload is one of discontinuous transmission: a table of contents and no sound to speak of (RFC 6716
/// §2.1.9: frames of at most two bytes need not be sent).
pub const fn is_dtx(payload: &[u8]) -> bool {
    payload.len() <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_taken_apart() {
        let toc = OpusToc::parse(&[0xfc, 1, 2]).unwrap();
        assert_eq!((toc.configuration, toc.stereo, toc.frame_code), (31, true, 0));
        assert_eq!(OpusToc::parse(&[]), None);
    }

    #[test]
    fn silence_is_at_most_two_bytes() {
        assert!(is_dtx(&[0xfc]) && is_dtx(&[0xfc, 0xff]));
        assert!(!is_dtx(&[0xfc, 0xff, 0xfe]));
    }
}
