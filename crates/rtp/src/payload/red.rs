//! Redundant audio (RFC 2198): earlier payloads in front of the packet's own.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::bytes::Reader;

/// Blocks read of one packet; libwebrtc sends at most 10.
pub const BLOCKS_MAX: usize = 32;

/// One block of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedBlock<'a> {
    /// What the block holds.
    pub payload_type: u8,
    /// How much earlier than the packet's timestamp it plays; 0 for the primary block.
    pub timestamp_offset: u16,
    /// The payload.
    pub payload: &'a [u8],
}

/// The blocks of a payload, redundant ones first, primary last.
#[derive(Debug, Clone)]
pub struct RedBlocks<'a> {
    headers: Reader<'a>,
    bodies: Reader<'a>,
    done: bool,
}

/// Reads the block headers; `None` when the payload is cut off or has more than [`BLOCKS_MAX`] blocks.
pub fn blocks(payload: &[u8]) -> Option<RedBlocks<'_>> {
    let mut bodies = Reader::new(payload);
    let mut redundant_len = 0_usize;
    for _ in 0..BLOCKS_MAX {
        if bodies.u8()? & 0x80 == 0 {
            if bodies.rest().len() < redundant_len {
                return None;
            }
            return Some(RedBlocks { headers: Reader::new(payload), bodies, done: false });
        }
        redundant_len = redundant_len.saturating_add((bodies.u24()? & 0x3ff) as usize);
    }
    None
}

/// The packet's own payload, without the redundant ones.
pub fn primary(payload: &[u8]) -> Option<RedBlock<'_>> {
    blocks(payload)?.last()
}

impl<'a> Iterator for RedBlocks<'a> {
    type Item = RedBlock<'a>;

    fn next(&mut self) -> Option<RedBlock<'a>> {
        if self.done {
            return None;
        }
        let first = self.headers.u8()?;
        let payload_type = first & 0x7f;
        if first & 0x80 == 0 {
            self.done = true;
            return Some(RedBlock { payload_type, timestamp_offset: 0, payload: self.bodies.rest() });
        }
        let rest = self.headers.u24()?;
        let payload = self.bodies.take((rest & 0x3ff) as usize)?;
        Some(RedBlock { payload_type, timestamp_offset: (rest >> 10) as u16, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [u8; 10] = [0xef, 0x0f, 0x00, 0x03, 0x6f, 1, 2, 3, 4, 5];

    #[test]
    fn redundant_and_primary_blocks_are_separated() {
        let found: Vec<_> = blocks(&TWO).unwrap().collect();
        assert_eq!(found[0], RedBlock { payload_type: 111, timestamp_offset: 960, payload: &[1, 2, 3] });
        assert_eq!(found[1], RedBlock { payload_type: 111, timestamp_offset: 0, payload: &[4, 5] });
        assert_eq!(primary(&TWO), Some(found[1]));
    }

    #[test]
    fn a_packet_without_redundancy_is_one_byte_longer_than_its_payload() {
        assert_eq!(primary(&[0x6f, 7]).unwrap().payload, [7]);
        assert_eq!(primary(&[0x6f]).unwrap().payload, []);
    }

    #[test]
    fn cut_off_and_endless_packets_are_refused() {
        for len in 0..8 {
            assert!(blocks(&TWO[..len]).is_none(), "{len}");
        }
        assert!(blocks(&[0x80; 400]).is_none());
    }
}
