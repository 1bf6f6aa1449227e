//! AV1 payloads (RTP Payload Format For AV1 v1.0, §4): the aggregation header and OBU elements.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::bytes::Reader;

/// OBU types (AV1 bitstream specification §6.2.2) that matter here.
pub const OBU_SEQUENCE_HEADER: u8 = 1;

/// The byte in front of the OBU elements (§4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AggregationHeader {
    /// Z: the first element continues one of the packet before.
    pub continues_first: bool,
    /// Y: the last element continues in the next packet.
    pub continues_last: bool,
    /// W: number of elements, 0 when each has a length field.
    pub elements: u8,
    /// N: the packet starts a coded video sequence.
    pub starts_sequence: bool,
}

impl AggregationHeader {
    /// Reads the first byte of a payload.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let byte = *payload.first()?;
        Some(Self {
            continues_first: byte & 0x80 != 0,
            continues_last: byte & 0x40 != 0,
            elements: (byte >> 4) & 0x03,
            starts_sequence: byte & 0x08 != 0,
        })
    }
}

/// The OBU elements of a payload; ends at the first that is cut off.
pub fn elements(payload: &[u8]) -> Elements<'_> {
    let mut reader = Reader::new(payload);
    let count = reader.u8().map_or(0, |byte| (byte >> 4) & 0x03);
    Elements { reader, left: (count != 0).then_some(count) }
}

/// Iterator over OBU elements.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    reader: Reader<'a>,
    /// Elements left where the header counts them.
    left: Option<u8>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.reader.is_empty() {
            return None;
        }
        let is_last = match &mut self.left {
            Some(left) => {
                *left = left.checked_sub(1)?;
                *left == 0
            }
            None => false,
        };
        let len = if is_last { self.reader.rest().len() } else { read_leb128(&mut self.reader)? };
        self.reader.take(len)
    }
}

/// The type of the OBU that starts an element.
pub fn obu_type(element: &[u8]) -> Option<u8> {
    element.first().map(|header| (header >> 3) & 0x0f)
}

/// Whether the packet starts a key frame: its N bit says that a coded video sequence starts, or a sequence header comes
/// in it, which precedes every key frame that decoding may start from.
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let Some(header) = AggregationHeader::parse(payload) else { return false };
    header.starts_sequence
        || elements(payload)
            .skip(usize::from(header.continues_first))
            .any(|element| obu_type(element) == Some(OBU_SEQUENCE_HEADER))
}

/// A variable-length number (AV1 §4.10.5), at most 32 bits.
fn read_leb128(reader: &mut Reader<'_>) -> Option<usize> {
    let mut value = 0_u64;
    for shift in [0_u32, 7, 14, 21, 28] {
        let byte = reader.u8()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok().map(|value| value as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_with_and_without_lengths_are_separated() {
        let with_lengths = [0x00, 1, 0x08, 2, 0x30, 0xaa];
        assert_eq!(elements(&with_lengths).collect::<Vec<_>>(), [&[0x08][..], &[0x30, 0xaa]]);
        let counted = [0x20, 1, 0x08, 0x30, 0xaa];
        assert_eq!(elements(&counted).collect::<Vec<_>>(), [&[0x08][..], &[0x30, 0xaa]]);
        assert_eq!(elements(&[0x00, 9, 0x08]).count(), 0);
        assert_eq!(elements(&[]).count(), 0);
    }

    #[test]
    fn a_sequence_header_or_the_n_bit_starts_a_key_frame() {
        assert!(starts_key_frame(&[0x08]));
        assert!(starts_key_frame(&[0x20, 1, 0x08, 0x30, 0xaa]));
        assert!(!starts_key_frame(&[0x10, 0x30, 0xaa]));
        // A continued element's first byte is no OBU header.
        assert!(!starts_key_frame(&[0x90, 0x08]));
        assert!(!starts_key_frame(&[]));
    }

    #[test]
    fn lengths_of_several_bytes_are_read() {
        let mut payload = vec![0x00, 0x80, 0x01];
        payload.extend([7; 128]);
        assert_eq!(elements(&payload).collect::<Vec<_>>(), [&[7; 128][..]]);
        assert_eq!(elements(&[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0]).count(), 0);
    }
}
