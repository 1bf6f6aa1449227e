//! Readers over bytes from the wire that cannot run past their end.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

/// Reads big-endian integers from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24(&mut self) -> Option<u32> {
        self.array::<3>().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Reads bit fields, most significant bit first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.position >> 3)?;
        let shift = 7_usize.saturating_sub(self.position & 7);
        self.position = self.position.saturating_add(1);
        Some((byte >> shift) & 1 == 1)
    }

    /// At most 32 bits as a number.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0_u32;
        for _ in 0..count {
            value = (value << 1) | u32::from(self.bit()?);
        }
        Some(value)
    }

    /// A number in `0..count`, where the small values take one bit less (AV1's `ns(n)`).
    pub(crate) fn non_symmetric(&mut self, count: u32) -> Option<u32> {
        let width = u32::BITS.saturating_sub(count.leading_zeros());
        if width == 0 {
            return Some(0);
        }
        let short_values = (1_u32.checked_shl(width)?).saturating_sub(count);
        let value = self.bits(width.saturating_sub(1))?;
        if value < short_values {
            return Some(value);
        }
        let low = u32::from(self.bit()?);
        Some((value << 1).saturating_sub(short_values).saturating_add(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_stops_at_the_end() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16(), Some(0x0102));
        assert_eq!(reader.u16(), None);
        assert_eq!(reader.u8(), Some(3));
        assert!(reader.is_empty());
    }

    #[test]
    fn non_symmetric_numbers_use_the_short_form_first() {
        // n = 5: 0, 1 and 2 take two bits, 3 and 4 take three (110, 111).
        let mut bits = BitReader::new(&[0b0001_1011, 0b0111_0000]);
        let values: Vec<u32> = (0..5).filter_map(|_| bits.non_symmetric(5)).collect();
        assert_eq!(values, [0, 1, 2, 3, 4]);
    }
}
