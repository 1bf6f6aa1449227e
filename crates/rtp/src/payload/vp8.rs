//! The VP8 payload descriptor (RFC 7741 §4.2).

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::bytes::Reader;

/// A picture id and how wide it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    /// The number: 7 or 15 bits.
    pub value: u16,
    /// 15 bits wide (M bit).
    pub is_long: bool,
}

/// A parsed descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// N: no other frame depends on this one.
    pub non_reference: bool,
    /// S: the packet starts a partition.
    pub start_of_partition: bool,
    /// PID: partition index.
    pub partition: u8,
    /// Running index of frames.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX: running index of frames of the base temporal layer.
    pub tl0_picture_index: Option<u8>,
    /// TID: temporal layer.
    pub temporal_id: Option<u8>,
    /// Y: the frame depends on the base layer only, so its layer may be joined here.
    pub layer_sync: bool,
    /// KEYIDX: which key frame it depends on, 5 bits.
    pub key_index: Option<u8>,
    /// Length of the descriptor in bytes.
    pub len: usize,
    tl0_offset: u8,
    layer_offset: u8,
}

/// Offset of a picture id in any descriptor that has one.
const PICTURE_ID_OFFSET: usize = 2;

impl Vp8Descriptor {
    /// Reads the descriptor at the front of a payload; `None` when it is cut off.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let mut descriptor = Self {
            non_reference: first & 0x20 != 0,
            start_of_partition: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id: None,
            tl0_picture_index: None,
            temporal_id: None,
            layer_sync: false,
            key_index: None,
            len: 0,
            tl0_offset: 0,
            layer_offset: 0,
        };
        let consumed = |reader: &Reader<'_>| payload.len().saturating_sub(reader.rest().len());
        let extensions = if first & 0x80 != 0 { reader.u8()? } else { 0 };
        if extensions & 0x80 != 0 {
            let high = reader.u8()?;
            descriptor.picture_id = Some(if high & 0x80 != 0 {
                let value = u16::from_be_bytes([high & 0x7f, reader.u8()?]);
                PictureId { value, is_long: true }
            } else {
                PictureId { value: u16::from(high), is_long: false }
            });
        }
        if extensions & 0x40 != 0 {
            descriptor.tl0_offset = consumed(&reader) as u8;
            descriptor.tl0_picture_index = Some(reader.u8()?);
        }
        if extensions & 0x30 != 0 {
            descriptor.layer_offset = consumed(&reader) as u8;
            let layers = reader.u8()?;
            if extensions & 0x20 != 0 {
                descriptor.temporal_id = Some(layers >> 6);
                descriptor.layer_sync = layers & 0x20 != 0;
            }
            if extensions & 0x10 != 0 {
                descriptor.key_index = Some(layers & 0x1f);
            }
        }
        descriptor.len = consumed(&reader);
        Some(descriptor)
    }

    /// Whether the packet starts a frame.
    pub const fn starts_frame(&self) -> bool {
        self.start_of_partition && self.partition == 0
    }

    /// Whether the packet starts a key frame (RFC 7741 §4.3: P bit of the payload header unset).
    pub fn starts_key_frame(&self, payload: &[u8]) -> bool {
        self.starts_frame() && payload.get(self.len).is_some_and(|header| header & 1 == 0)
    }

    /// Width and height in pixels, where the packet starts a key frame (RFC 6386 §9.1).
    pub fn dimensions(&self, payload: &[u8]) -> Option<(u16, u16)> {
        if !self.starts_key_frame(payload) {
            return None;
        }
        let mut reader = Reader::new(payload.get(self.len..)?);
        let _frame_tag = reader.u24()?;
        if reader.array()? != [0x9d, 0x01, 0x2a] {
            return None;
        }
        // Little-endian, the upper two bits are a scaling hint.
        let mut next = || reader.array().map(|bytes| u16::from_le_bytes(bytes) & 0x3fff);
        Some((next()?, next()?))
    }

    /// Overwrites picture id, TL0PICIDX and KEYIDX of the payload this descriptor was read from, those it has; numbers
    /// are cut to the width the descriptor gives them.
    pub fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_picture_index: u8, key_index: u8) {
        match (self.picture_id, payload.get_mut(PICTURE_ID_OFFSET..)) {
            (Some(PictureId { is_long: true, .. }), Some([high, low, ..])) => {
                [*high, *low] = (picture_id | 0x8000).to_be_bytes();
            }
            (Some(PictureId { is_long: false, .. }), Some([byte, ..])) => *byte = (picture_id & 0x7f) as u8,
            _ => {}
        }
        if self.tl0_picture_index.is_some()
            && let Some(byte) = payload.get_mut(usize::from(self.tl0_offset))
        {
            *byte = tl0_picture_index;
        }
        if self.key_index.is_some()
            && let Some(byte) = payload.get_mut(usize::from(self.layer_offset))
        {
            *byte = (*byte & 0xe0) | (key_index & 0x1f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libwebrtc sends it: 15-bit picture id, TL0PICIDX, TID 1 with Y, KEYIDX 3; a key frame of 640×360.
    const FULL: [u8; 16] =
        [0x90, 0xf0, 0x92, 0x34, 0x56, 0x63, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01];

    #[test]
    fn a_full_descriptor_is_read() {
        let descriptor = Vp8Descriptor::parse(&FULL).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x1234, is_long: true }));
        assert_eq!(descriptor.tl0_picture_index, Some(0x56));
        assert_eq!(
            (descriptor.temporal_id, descriptor.layer_sync, descriptor.key_index),
            (Some(1), true, Some(3))
        );
        assert_eq!(descriptor.len, 6);
        assert!(descriptor.starts_key_frame(&FULL));
        assert_eq!(descriptor.dimensions(&FULL), Some((640, 360)));
    }

    #[test]
    fn a_minimal_descriptor_is_one_byte() {
        let descriptor = Vp8Descriptor::parse(&[0x10, 0x01]).unwrap();
        assert_eq!((descriptor.len, descriptor.picture_id, descriptor.temporal_id), (1, None, None));
        assert!(descriptor.starts_frame());
        assert!(!descriptor.starts_key_frame(&[0x10, 0x01]));
        let continued = Vp8Descriptor::parse(&[0x00, 0x00]).unwrap();
        assert!(!continued.starts_key_frame(&[0x00, 0x00]));
    }

    #[test]
    fn rewriting_keeps_the_length_and_all_other_bits() {
        let mut payload = FULL;
        let before = Vp8Descriptor::parse(&payload).unwrap();
        before.rewrite(&mut payload, 0x7fff, 9, 31);
        let after = Vp8Descriptor::parse(&payload).unwrap();
        assert_eq!(after.picture_id, Some(PictureId { value: 0x7fff, is_long: true }));
        assert_eq!((after.tl0_picture_index, after.key_index), (Some(9), Some(31)));
        assert_eq!((after.temporal_id, after.layer_sync, after.len), (Some(1), true, 6));
        assert_eq!(payload[6..], FULL[6..]);
    }

    #[test]
    fn a_short_picture_id_stays_short() {
        let mut payload = [0x90, 0x80, 0x05, 0xaa];
        let descriptor = Vp8Descriptor::parse(&payload).unwrap();
        descriptor.rewrite(&mut payload, 0x1ff, 1, 1);
        assert_eq!(payload, [0x90, 0x80, 0x7f, 0xaa]);
    }

    #[test]
    fn cut_off_descriptors_are_refused() {
        for len in 0..6 {
            assert_eq!(Vp8Descriptor::parse(&FULL[..len]), None, "{len}");
        }
    }
}
