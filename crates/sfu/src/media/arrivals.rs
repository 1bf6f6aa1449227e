//! Which packets of a received stream were there already.

/// Packets looked back at; libwebrtc's own replay window. What is later has no use for any subscriber.
const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// What a packet is among those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Later than all before.
    Newest,
    /// Earlier than the latest, and missing until now.
    Late,
    /// There already.
    Duplicate,
    /// Too long ago to know.
    Forgotten,
}

/// A window over the extended sequence numbers of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals {
    first: u64,
    highest: Option<u64>,
    /// Bit n of the ring says that a number with this remainder was seen.
    seen: [u64; WORDS],
    received: u64,
}

impl Arrivals {
    /// The highest number so far.
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Numbers up to the highest that never came, those before the first packet left out.
    pub(super) fn missing(&self) -> u64 {
        let Some(highest) = self.highest else { return 0 };
        (highest - self.first + 1).saturating_sub(self.received)
    }

    /// Takes note of a packet.
    pub(super) fn note(&mut self, sequence: u64) -> Arrival {
        let Some(highest) = self.highest else {
            self.first = sequence;
            self.highest = Some(sequence);
            self.received = 1;
            self.set(sequence);
            return Arrival::Newest;
        };
        if sequence > highest {
            for skipped in highest + 1..sequence.min(highest.saturating_add(WINDOW) + 1) {
                self.unset(skipped);
            }
            self.highest = Some(sequence);
            self.received += 1;
            self.set(sequence);
            return Arrival::Newest;
        }
        if highest - sequence >= WINDOW || sequence < self.first {
            return Arrival::Forgotten;
        }
        if self.set(sequence) {
            return Arrival::Duplicate;
        }
        self.received += 1;
        Arrival::Late
    }

    fn set(&mut self, sequence: u64) -> bool {
        let (word, bit) = place(sequence);
        let Some(word) = self.seen.get_mut(word) else { return false };
        let before = *word & bit != 0;
        *word |= bit;
        before
    }

    fn unset(&mut self, sequence: u64) {
        let (word, bit) = place(sequence);
        if let Some(word) = self.seen.get_mut(word) {
            *word &= !bit;
        }
    }
}

const fn place(sequence: u64) -> (usize, u64) {
    (((sequence % WINDOW) / 64) as usize, 1 << (sequence % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_base::Random;
    use std::collections::BTreeSet;

    #[test]
    fn no_packet_is_taken_twice_whatever_the_order() {
        for seed in 0..20 {
            let mut random = Random::from_seed([seed; 32]);
            let (mut arrivals, mut taken) = (Arrivals::default(), BTreeSet::new());
            let mut head = 5_000;
            for _ in 0..5_000 {
                head += random.below(3) * random.below(400) / 100;
                let sequence = head - random.below(1_500).min(head);
                match arrivals.note(sequence) {
                    Arrival::Newest | Arrival::Late => assert!(taken.insert(sequence)),
                    Arrival::Duplicate => assert!(taken.contains(&sequence)),
                    Arrival::Forgotten => {}
                }
            }
            let (first, highest) = (arrivals.first, arrivals.highest().unwrap());
            assert_eq!(arrivals.missing(), highest - first + 1 - taken.len() as u64);
        }
    }

    #[test]
    fn a_jump_beyond_the_window_forgets_what_was_seen() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.note(10), Arrival::Newest);
        assert_eq!(arrivals.note(10 + WINDOW), Arrival::Newest);
        assert_eq!(arrivals.note(10), Arrival::Forgotten);
        assert_eq!(arrivals.note(11), Arrival::Late);
        assert_eq!(arrivals.note(9), Arrival::Forgotten);
        assert_eq!(arrivals.missing(), WINDOW - 2);
    }
}
