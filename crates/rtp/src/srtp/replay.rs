//! Which packets were received already (RFC 3711 §3.3.2).

use super::SrtpError;

/// A sliding window over packet indices: a ring of bits, one per index.
#[derive(Debug, Clone)]
pub(super) struct ReplayWindow {
    highest: u64,
    /// Bit `index % size` is set when `index` was received; a power of two of words.
    words: Box<[u64]>,
}

impl ReplayWindow {
    /// A window whose first packet is `index`. The size is rounded up to 64 times a power of two.
    pub(super) fn new(size_packets: usize, index: u64) -> Self {
        let words = size_packets.div_ceil(64).next_power_of_two();
        let mut window = Self { highest: index, words: vec![0; words].into_boxed_slice() };
        window.set(index, true);
        window
    }

    pub(super) const fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a packet is new; nothing is remembered.
    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        if index > self.highest {
            return Ok(());
        }
        if self.highest - index >= self.size() {
            return Err(SrtpError::TooOld);
        }
        if self.get(index) { Err(SrtpError::Replayed) } else { Ok(()) }
    }

    /// Remembers an authentic packet that passed [`ReplayWindow::check`].
    pub(super) fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= self.size() {
                self.words.fill(0);
            } else {
                for skipped in self.highest + 1..index {
                    self.set(skipped, false);
                }
            }
            self.highest = index;
        }
        self.set(index, true);
    }

    fn size(&self) -> u64 {
        self.words.len() as u64 * 64
    }

    fn word_and_bit(&self, index: u64) -> (usize, u64) {
        let position = index & (self.size() - 1);
        ((position / 64) as usize, 1 << (position % 64))
    }

    fn get(&self, index: u64) -> bool {
        let (word, bit) = self.word_and_bit(index);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    fn set(&mut self, index: u64, received: bool) {
        let (word, bit) = self.word_and_bit(index);
        if let Some(word) = self.words.get_mut(word) {
            *word = if received { *word | bit } else { *word & !bit };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_packet_is_new_once() {
        let mut window = ReplayWindow::new(128, 1000);
        assert_eq!(window.check(1000), Err(SrtpError::Replayed));
        assert_eq!(window.check(999), Ok(()));
        window.accept(1127);
        assert_eq!(window.check(1000), Err(SrtpError::Replayed));
        assert_eq!(window.check(999), Err(SrtpError::TooOld));
        window.accept(1128);
        assert_eq!(window.check(1000), Err(SrtpError::TooOld));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_all_indices(steps in prop::collection::vec(-150_i64..180, 1..400)) {
            let mut index = 100_000_u64;
            let mut window = ReplayWindow::new(128, index);
            let mut seen = BTreeSet::from([index]);
            for step in steps {
                index = index.checked_add_signed(step).unwrap();
                let highest = *seen.last().unwrap();
                let expected = if index + 128 <= highest {
                    Err(SrtpError::TooOld)
                } else if seen.contains(&index) {
                    Err(SrtpError::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(index), expected);
                if expected.is_ok() {
                    window.accept(index);
                    seen.insert(index);
                }
            }
        }
    }
}
