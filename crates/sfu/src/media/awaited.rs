//! Packets that came while a subscription waited for a key frame of their layer.
//!
//! The first packet of a key frame can be overtaken by the others, or be lost and come again. What came since is held
//! until then, or every such key frame would have to be asked for anew.

use super::limits::AWAITED_PACKETS_MAX;
use fanlight_rtp::SlotRef;
use std::collections::BTreeMap;

/// A packet as it has to be known to be forwarded later; its payload stands in the room's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) slot: SlotRef,
}

/// The held packets of one layer, by sequence number (without padding).
#[derive(Debug, Default)]
pub(super) struct Awaited {
    held: BTreeMap<u64, Held>,
    /// Everything that came from here on is held.
    since: u64,
}

impl Awaited {
    /// Holds a packet; the oldest one goes when there are too many.
    pub(super) fn hold(&mut self, sequence: u64, held: Held) {
        if held.slot == SlotRef::NONE {
            return self.clear();
        }
        if self.held.is_empty() {
            self.since = sequence;
        }
        self.held.insert(sequence, held);
        if self.held.len() > AWAITED_PACKETS_MAX
            && let Some((oldest, _)) = self.held.pop_first()
        {
            self.since = self.since.max(oldest + 1);
        }
    }

    /// Nobody waits any more.
    #[inline]
    pub(super) fn clear(&mut self) {
        if !self.held.is_empty() {
            self.held = BTreeMap::new();
        }
    }

    /// Whether everything that came after this packet is held.
    pub(super) fn covers(&self, sequence: u64) -> bool {
        !self.held.is_empty() && sequence.saturating_add(1) >= self.since
    }

    /// What is held of later packets, in order.
    pub(super) fn after(&self, sequence: u64) -> impl Iterator<Item = (u64, Held)> {
        self.held.range(sequence.saturating_add(1)..).map(|(sequence, held)| (*sequence, *held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_rtp::Slab;

    fn held(slab: &mut Slab) -> Held {
        Held { timestamp: 0, marker: false, payload_type: 96, slot: slab.insert(&[1]) }
    }

    #[test]
    fn a_latecomer_is_covered_when_all_that_overtook_it_is_held() {
        let mut slab = Slab::new(4096);
        let mut awaited = Awaited::default();
        assert!(!awaited.covers(10));
        for sequence in [10, 12, 13] {
            awaited.hold(sequence, held(&mut slab));
        }
        assert!(awaited.covers(11) && awaited.covers(9) && !awaited.covers(8));
        assert_eq!(awaited.after(11).map(|(sequence, _)| sequence).collect::<Vec<_>>(), [12, 13]);
        awaited.clear();
        assert!(!awaited.covers(11));
    }

    #[test]
    fn what_had_to_be_let_go_is_not_covered() {
        let mut slab = Slab::new(1 << 16);
        let mut awaited = Awaited::default();
        for sequence in 0..=AWAITED_PACKETS_MAX as u64 + 1 {
            awaited.hold(sequence, held(&mut slab));
        }
        assert!(!awaited.covers(0) && awaited.covers(1));
        awaited.hold(1_000, Held { slot: SlotRef::NONE, ..held(&mut slab) });
        assert!(!awaited.covers(999));
    }
}
