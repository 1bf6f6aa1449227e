//! Which packets of a received stream to ask for again (RFC 4585 §6.2.1), and when.

use fanlight_base::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// Missing packets tracked at once (LiveKit: 100): a longer gap is a burst that only a key frame mends.
pub const NACK_MISSING_MAX: usize = 100;
/// How often a packet is asked for (LiveKit: 5).
pub const NACK_TRIES_MAX: u8 = 5;
/// Wait before the first request, so that reordering does not look like loss (LiveKit: 20 ms).
pub const NACK_FIRST_AFTER: Duration = Duration::from_millis(20);
/// Bounds of the wait between requests (LiveKit: 20 and 400 ms).
const NACK_INTERVAL_MIN: Duration = Duration::from_millis(20);
const NACK_INTERVAL_MAX: Duration = Duration::from_millis(400);
/// Round-trip time assumed until one is measured (LiveKit: 70 ms).
pub const NACK_RTT_DEFAULT: Duration = Duration::from_millis(70);

#[derive(Debug, Clone, Copy)]
struct Missing {
    sequence: u64,
    next: Mono,
    tries: u8,
}

/// What a generator has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NackCounters {
    /// Sequence numbers put into requests, repeated requests included.
    pub requested: u64,
    /// Missing packets that arrived after they were asked for.
    pub recovered: u64,
    /// Missing packets given up: asked for too often, or pushed out by newer gaps.
    pub given_up: u64,
}

/// Generates the NACKs for one received stream.
#[derive(Debug, Clone)]
pub struct NackGenerator {
    highest: Option<u64>,
    /// In order of sequence number.
    missing: VecDeque<Missing>,
    rtt: Duration,
    counters: NackCounters,
}

impl Default for NackGenerator {
    fn default() -> Self {
        Self::new()
    }
}

impl NackGenerator {
    /// A generator for a stream of which nothing has arrived.
    pub const fn new() -> Self {
        Self {
            highest: None,
            missing: VecDeque::new(),
            rtt: NACK_RTT_DEFAULT,
            counters: NackCounters { requested: 0, recovered: 0, given_up: 0 },
        }
    }

    /// Sets the round-trip time that spaces repeated requests.
    pub const fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Notes an arrived packet, retransmissions by RTX (with their original number) included.
    pub fn handle_packet(&mut self, now: Mono, extended_sequence: u64) {
        let Some(highest) = self.highest else {
            self.highest = Some(extended_sequence);
            return;
        };
        if extended_sequence <= highest {
            if let Ok(index) =
                self.missing.binary_search_by_key(&extended_sequence, |missing| missing.sequence)
                && let Some(missing) = self.missing.remove(index)
            {
                self.counters.recovered += u64::from(missing.tries > 0);
            }
            return;
        }
        self.highest = Some(extended_sequence);
        let gap = extended_sequence - highest - 1;
        let tracked = gap.min(NACK_MISSING_MAX as u64);
        self.counters.given_up += gap - tracked;
        for sequence in extended_sequence - tracked..extended_sequence {
            if self.missing.len() >= NACK_MISSING_MAX {
                self.missing.pop_front();
                self.counters.given_up += 1;
            }
            self.missing.push_back(Missing { sequence, next: now + NACK_FIRST_AFTER, tries: 0 });
        }
    }

    /// Appends the sequence numbers to ask for now, in ascending order.
    pub fn poll(&mut self, now: Mono, requests: &mut Vec<u16>) {
        let (rtt, counters) = (self.rtt, &mut self.counters);
        self.missing.retain_mut(|missing| {
            if missing.next > now {
                return true;
            }
            // The last request gets its wait too: an answer to it counts as recovered.
            if missing.tries >= NACK_TRIES_MAX {
                counters.given_up += 1;
                return false;
            }
            missing.tries += 1;
            missing.next = now + interval(rtt, missing.tries);
            counters.requested += 1;
            requests.push(missing.sequence as u16);
            true
        });
    }

    /// When [`NackGenerator::poll`] next has something to do, if ever.
    pub fn deadline(&self) -> Option<Mono> {
        self.missing.iter().map(|missing| missing.next).min()
    }

    /// Forgets what is missing (a key frame was asked for, or the stream paused).
    pub fn clear(&mut self) {
        self.counters.given_up += self.missing.len() as u64;
        self.missing.clear();
    }

    /// How many packets are missing and still hoped for.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// What was done so far.
    pub const fn counters(&self) -> NackCounters {
        self.counters
    }
}

/// The wait after the n-th request: RTT × 1.25^n between the bounds.
fn interval(rtt: Duration, tries: u8) -> Duration {
    let mut interval = rtt.min(NACK_INTERVAL_MAX);
    for _ in 0..tries {
        interval = interval * 5 / 4;
    }
    interval.clamp(NACK_INTERVAL_MIN, NACK_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono { ns: ms * 1_000_000 }
    }

    fn poll(generator: &mut NackGenerator, ms: u64) -> Vec<u16> {
        let mut requests = Vec::new();
        generator.poll(at(ms), &mut requests);
        requests
    }

    #[test]
    fn a_gap_is_asked_for_after_20_ms() {
        let mut generator = NackGenerator::new();
        generator.handle_packet(at(0), 65_534);
        generator.handle_packet(at(5), 65_538);
        assert_eq!(generator.deadline(), Some(at(25)));
        assert!(poll(&mut generator, 24).is_empty());
        assert_eq!(poll(&mut generator, 25), [65_535, 0, 1]);
        assert!(poll(&mut generator, 26).is_empty());
    }

    #[test]
    fn reordering_asks_for_nothing() {
        let mut generator = NackGenerator::new();
        for (ms, sequence) in [(0, 100), (1, 102), (2, 101), (3, 99)] {
            generator.handle_packet(at(ms), sequence);
        }
        assert_eq!(generator.deadline(), None);
        assert_eq!(generator.counters(), NackCounters::default());
    }

    #[test]
    fn requests_repeat_with_growing_waits_and_end_after_five() {
        let mut generator = NackGenerator::new();
        generator.handle_packet(at(0), 1);
        generator.handle_packet(at(0), 3);
        let mut times = Vec::new();
        while let Some(deadline) = generator.deadline() {
            let mut requests = Vec::new();
            generator.poll(deadline, &mut requests);
            if !requests.is_empty() {
                times.push(deadline.ns / 1_000_000);
            }
        }
        // 70 ms × 1.25, 1.25², …
        assert_eq!(times, [20, 107, 216, 353, 524]);
        assert_eq!(generator.counters(), NackCounters { requested: 5, recovered: 0, given_up: 1 });
    }

    #[test]
    fn waits_stay_between_20_and_400_ms() {
        assert_eq!(interval(Duration::from_millis(1), 1), NACK_INTERVAL_MIN);
        assert_eq!(interval(Duration::from_secs(9), 1), NACK_INTERVAL_MAX);
        assert_eq!(interval(Duration::from_millis(100), 1), Duration::from_millis(125));
    }

    #[test]
    fn an_answer_ends_the_asking() {
        let mut generator = NackGenerator::new();
        generator.handle_packet(at(0), 1);
        generator.handle_packet(at(0), 4);
        poll(&mut generator, 20);
        generator.handle_packet(at(30), 2);
        assert_eq!(poll(&mut generator, 1000), [3]);
        assert_eq!(generator.counters().recovered, 1);
        generator.clear();
        assert_eq!((generator.missing(), generator.counters().given_up), (0, 1));
    }

    #[test]
    fn only_the_newest_hundred_are_tracked() {
        let mut generator = NackGenerator::new();
        generator.handle_packet(at(0), 1000);
        generator.handle_packet(at(0), 1_000_000);
        generator.handle_packet(at(0), 1_000_003);
        assert_eq!(generator.missing(), NACK_MISSING_MAX);
        let requests = poll(&mut generator, 20);
        assert_eq!(requests.last(), Some(&(1_000_002_u64 as u16)));
        assert_eq!(generator.counters().given_up, 1_000_000 - 1000 - 1 - 100 + 2);
    }
}
