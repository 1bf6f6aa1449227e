//! Payloads live once: a ring of bytes into which every packet is written a single time.

/// Longest payload a slab takes: what fits the length field of a [`SlotRef`], more than any UDP datagram holds.
pub const PAYLOAD_MAX_BYTES: usize = 0xffff;
const LEN_BITS: u32 = 16;
/// A position that no slab reaches: 2^48 bytes are a year at 70 Gbit/s.
const POSITION_NONE: u64 = (1 << 48) - 1;

/// Names a payload in a [`Slab`]; outlives it harmlessly.
///
/// The position counts every byte ever written, so that it says by itself whether the payload has been overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRef(u64);

impl SlotRef {
    /// Names nothing: [`Slab::get`] answers `None`.
    pub const NONE: Self = Self(POSITION_NONE << LEN_BITS);

    /// Length of the payload in bytes.
    pub const fn len(self) -> usize {
        (self.0 & PAYLOAD_MAX_BYTES as u64) as usize
    }

    /// Whether the payload is empty.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    const fn position(self) -> u64 {
        self.0 >> LEN_BITS
    }
}

/// The last so many bytes of payload of one or several streams.
///
/// Memory is taken as it is first written, up to the capacity.
#[derive(Debug, Clone)]
pub struct Slab {
    bytes: Vec<u8>,
    /// A power of two.
    capacity: u64,
    /// Bytes ever written, those skipped at the ring's end included.
    written: u64,
    /// What stood before this was overwritten when the ring last grew.
    oldest: u64,
}

impl Slab {
    /// An empty slab; the capacity is rounded up to a power of two.
    pub fn new(capacity_bytes: usize) -> Self {
        Self { bytes: Vec::new(), capacity: capacity_bytes.next_power_of_two() as u64, written: 0, oldest: 0 }
    }

    /// Keeps a copy of a payload, in place of the oldest ones. A payload longer than the capacity or
    /// [`PAYLOAD_MAX_BYTES`] is not kept.
    pub fn insert(&mut self, payload: &[u8]) -> SlotRef {
        self.insert_with(payload.len(), |target| target.copy_from_slice(payload))
    }

    /// As [`Slab::insert`], with a payload of `len` bytes that `write` puts where it belongs; it finds there what stood
    /// there before.
    pub fn insert_with(&mut self, payload_len: usize, write: impl FnOnce(&mut [u8])) -> SlotRef {
        let len = payload_len as u64;
        if len > self.capacity || payload_len > PAYLOAD_MAX_BYTES {
            return SlotRef::NONE;
        }
        let to_end = self.capacity - self.offset(self.written) as u64;
        if len > to_end {
            self.written += to_end;
        }
        let (position, start) = (self.written, self.offset(self.written));
        let end = start + payload_len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(target) = self.bytes.get_mut(start..end) {
            write(target);
        }
        self.written += len;
        SlotRef((position << LEN_BITS) | len)
    }

    /// The payload, or `None` when it has been overwritten.
    pub fn get(&self, slot: SlotRef) -> Option<&[u8]> {
        let position = slot.position();
        let intact = position >= self.oldest
            && position.checked_add(self.capacity)? >= self.written
            && position.checked_add(slot.len() as u64)? <= self.written;
        if !intact {
            return None;
        }
        let start = self.offset(position);
        self.bytes.get(start..start.checked_add(slot.len())?)
    }

    /// Doubles the capacity; what is kept stays, and so do its references.
    pub fn grow(&mut self) {
        let before = self.capacity;
        self.oldest = self.oldest.max(self.written.saturating_sub(before));
        // The ring's end lies on a multiple of its capacity: on either side of the last one the bytes are in one piece.
        let turn = self.written & !(before - 1);
        self.capacity = before * 2;
        // The last bytes of the ring may never have been written.
        self.bytes.resize(before as usize, 0);
        let mut bytes = vec![0; usize::try_from(self.capacity).unwrap_or(usize::MAX)];
        for (start, end) in [(self.oldest.min(turn), turn), (turn.max(self.oldest), self.written)] {
            let len = end.saturating_sub(start) as usize;
            let (from, to) = ((start & (before - 1)) as usize, self.offset(start));
            if let (Some(kept), Some(target)) =
                (self.bytes.get(from..from + len), bytes.get_mut(to..to + len))
            {
                target.copy_from_slice(kept);
            }
        }
        self.bytes = bytes;
    }

    /// Bytes there is room for.
    pub const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Bytes of memory in use.
    pub fn allocated_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    const fn offset(&self, position: u64) -> usize {
        (position & (self.capacity - 1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_payload_is_found_until_it_is_overwritten() {
        let mut slab = Slab::new(16);
        let first = slab.insert(b"0123456");
        let second = slab.insert(b"abcdefg");
        assert_eq!(slab.get(first), Some(&b"0123456"[..]));
        // Two bytes are left at the end: the third goes to the front and takes the first one's place.
        let third = slab.insert(b"XYZ");
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&b"abcdefg"[..])));
        assert_eq!(slab.get(third), Some(&b"XYZ"[..]));
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let mut slab = Slab::new(16);
        assert_eq!(slab.insert(&[0; 17]), SlotRef::NONE);
        assert_eq!(Slab::new(1 << 20).insert(&[0; 65_536]), SlotRef::NONE);
        assert_eq!(slab.get(SlotRef::NONE), None);
        let empty = slab.insert(&[]);
        assert_eq!(slab.get(empty), Some(&[][..]));
    }

    #[test]
    fn memory_grows_with_use() {
        let mut slab = Slab::new(1 << 20);
        assert_eq!(slab.allocated_bytes(), 0);
        slab.insert(&[1; 100]);
        assert!(slab.allocated_bytes() < 1000);
    }

    #[test]
    fn growing_loses_nothing_that_was_kept_and_finds_nothing_that_was_not() {
        for grow_at in 1..40_u8 {
            let mut slab = Slab::new(64);
            let mut kept = Vec::new();
            for n in 0..80_u8 {
                kept.push((slab.insert(&[n; 7]), n));
                let before: Vec<bool> = kept.iter().map(|(slot, _)| slab.get(*slot).is_some()).collect();
                if n == grow_at {
                    slab.grow();
                    assert!(
                        kept.iter().zip(before).all(|((slot, _), found)| slab.get(*slot).is_some() == found)
                    );
                }
                assert!(kept.iter().all(|(slot, n)| slab.get(*slot).is_none_or(|bytes| bytes == [*n; 7])));
            }
            assert!(kept.iter().rev().take(16).all(|(slot, _)| slab.get(*slot).is_some()));
        }
    }

    proptest! {
        #[test]
        fn a_reference_yields_its_payload_or_nothing(lengths in prop::collection::vec(0_usize..200, 1..200)) {
            let mut slab = Slab::new(1024);
            let mut kept: Vec<(SlotRef, Vec<u8>)> = Vec::new();
            for (index, len) in lengths.into_iter().enumerate() {
                let payload = vec![index as u8; len];
                kept.push((slab.insert(&payload), payload));
                let found = kept.iter().rev().take_while(|(slot, _)| slab.get(*slot).is_some()).count();
                for (slot, payload) in &kept {
                    if let Some(bytes) = slab.get(*slot) {
                        prop_assert_eq!(bytes, &payload[..]);
                    }
                }
                let recent: usize = kept.iter().rev().take(found).map(|(_, payload)| payload.len()).sum();
                prop_assert!(found == kept.len() || recent + 400 > 1024, "kept only {}", recent);
            }
        }
    }
}
