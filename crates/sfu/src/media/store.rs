//! The room's payloads, kept as long as a retransmission may ask for them.

use super::limits::{SLAB_BYTES_MAX, SLAB_BYTES_MIN, SLAB_KEEP};
use super::packet::Record;
use fanlight_base::Mono;
use fanlight_rtp::{Slab, SlotRef};

/// A slab that grows while it would forget payloads too soon.
#[derive(Debug)]
pub(super) struct Store {
    slab: Slab,
    /// Bytes written since `began`: one turn of the ring.
    written: usize,
    began: Mono,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { slab: Slab::new(SLAB_BYTES_MIN), written: 0, began: Mono::default() }
    }

    pub(super) fn slab(&self) -> &Slab {
        &self.slab
    }

    /// Keeps a packet as a [`Record`].
    pub(super) fn insert(&mut self, now: Mono, passed: &[u8], payload: &[u8]) -> SlotRef {
        let len = Record::len(passed, payload);
        self.written += len;
        if self.written > self.slab.capacity() {
            if now.since(self.began) < SLAB_KEEP && self.slab.capacity() < SLAB_BYTES_MAX {
                self.slab.grow();
            }
            self.written = len;
            self.began = now;
        }
        self.slab.insert_with(len, |record| Record::write(record, passed, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_room_gets_more_room_than_a_slow_one_and_not_without_bound() {
        for (gap_ms, capacity) in [(100, SLAB_BYTES_MIN), (5, SLAB_BYTES_MIN * 2), (0, SLAB_BYTES_MAX)] {
            let mut store = Store::new();
            for n in 0..40_000 {
                store.insert(Mono { ns: n * gap_ms * 1_000_000 }, &[], &[0; 998]);
            }
            assert_eq!(store.slab.capacity(), capacity);
        }
    }
}
