//! H.264 payloads (RFC 6184 §5): which NAL units a packet carries.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::bytes::Reader;

const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// What a packet carries, as far as a forwarder cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct H264Payload {
    /// A sequence parameter set (begins).
    pub has_sps: bool,
    /// A picture parameter set (begins).
    pub has_pps: bool,
    /// A slice of an instantaneous decoding refresh (begins).
    pub has_idr: bool,
}

impl H264Payload {
    /// Looks into single NAL units, STAP-A and the start of FU-A; `None` for an empty payload.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        let mut reader = Reader::new(payload);
        match reader.u8()? & 0x1f {
            STAP_A => {
                while let Some(len) = reader.u16() {
                    let Some(unit) = reader.take(usize::from(len)) else { break };
                    found.note(unit.first().copied().unwrap_or(0));
                }
            }
            FU_A => match reader.u8() {
                Some(header) if header & 0x80 != 0 => found.note(header),
                _ => {}
            },
            single => found.note(single),
        }
        Some(found)
    }

    /// Whether a key frame begins with this packet or its first slice does.
    ///
    /// A subscriber that joins or switches needs the parameter sets too: it waits for [`H264Payload::has_sps`], which
    /// WebRTC encoders send in front of every IDR picture.
    pub const fn starts_key_frame(&self) -> bool {
        self.has_sps || self.has_idr
    }

    const fn note(&mut self, header: u8) {
        match header & 0x1f {
            NAL_IDR => self.has_idr = true,
            NAL_SPS => self.has_sps = true,
            NAL_PPS => self.has_pps = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts_key_frame(payload: &[u8]) -> bool {
        H264Payload::parse(payload).is_some_and(|payload| payload.starts_key_frame())
    }

    #[test]
    fn single_units_are_looked_at() {
        assert!(starts_key_frame(&[0x67, 0x42]));
        assert!(starts_key_frame(&[0x65, 0x88]));
        assert!(!starts_key_frame(&[0x41, 0x9a]));
        assert!(!starts_key_frame(&[]));
    }

    #[test]
    fn an_aggregate_is_looked_through() {
        let payload = [0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce, 0, 1, 0x65];
        let found = H264Payload::parse(&payload).unwrap();
        assert_eq!(found, H264Payload { has_sps: true, has_pps: true, has_idr: true });
        assert!(!starts_key_frame(&[0x78, 0, 2, 0x41, 0, 0, 9, 0x67]), "cut off units do not count");
    }

    #[test]
    fn only_the_first_fragment_starts_a_frame() {
        assert!(starts_key_frame(&[0x7c, 0x85, 0]));
        assert!(!starts_key_frame(&[0x7c, 0x05, 0]));
        assert!(!starts_key_frame(&[0x7c, 0x45, 0]));
        assert!(!starts_key_frame(&[0x7c, 0x81, 0]));
        assert!(!starts_key_frame(&[0x7c]));
    }
}
