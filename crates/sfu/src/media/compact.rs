//! Sequence numbers of a stream without its padding-only packets.

/// Places of padding remembered for packets that come late; libwebrtc sends padding in bursts of a few packets.
const HOLES_MAX: usize = 32;

/// Removes padding-only packets from an extended sequence.
#[derive(Debug, Clone)]
pub(super) struct Compact {
    removed: u64,
    holes: [u64; HOLES_MAX],
}

impl Default for Compact {
    fn default() -> Self {
        Self { removed: 0, holes: [u64::MAX; HOLES_MAX] }
    }
}

impl Compact {
    /// Takes the place of a padding-only packet out. It has to be later than every packet before; the place of a late
    /// one is already known to subscribers and has to be filled.
    pub(super) fn remove(&mut self, sequence: u64) {
        let place = usize::try_from(self.removed % HOLES_MAX as u64).unwrap_or(0);
        if let Some(hole) = self.holes.get_mut(place) {
            *hole = sequence;
        }
        self.removed = self.removed.wrapping_add(1);
    }

    /// The number of a packet when padding does not count; `None` when so much padding followed it that its place is
    /// not known any more. A guess could be another packet's number, and that would seal two packets with one nonce.
    #[inline]
    pub(super) fn map(&self, sequence: u64) -> Option<u64> {
        if self.removed == 0 {
            return Some(sequence);
        }
        let later = self.holes.iter().filter(|&&hole| hole != u64::MAX && hole > sequence).count();
        if later == HOLES_MAX && self.removed > HOLES_MAX as u64 {
            return None;
        }
        Some(sequence.wrapping_sub(self.removed).wrapping_add(later as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_around_padding_are_numbered_without_it_in_any_order() {
        let mut compact = Compact::default();
        assert_eq!(compact.map(10), Some(10));
        compact.remove(11);
        compact.remove(13);
        let mapped: Vec<u64> =
            [14, 12, 10, 15].iter().filter_map(|&sequence| compact.map(sequence)).collect();
        assert_eq!(mapped, [12, 11, 10, 13]);
    }

    #[test]
    fn a_long_run_of_padding_leaves_no_gap() {
        let mut compact = Compact::default();
        (100..1100).for_each(|sequence| compact.remove(sequence));
        assert_eq!((compact.map(1100), compact.map(1101)), (Some(100), Some(101)));
        assert_eq!(compact.map(99), None);
    }
}
