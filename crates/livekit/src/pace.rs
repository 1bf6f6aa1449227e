//! How fast a client may signal: a bucket of cost for each connection, held by the task that reads it.
//!
//! A message is handled when it is read; a connection whose bucket is in debt is not read until the debt is refilled, so
//! that who floods waits alone, by TCP's own back-pressure.

use fanlight_base::Mono;
use std::time::Duration;

/// Cost of the smallest message: parsing, a queue, a turn of the shard.
const MESSAGE_COST: u32 = 2 << 10;
/// Cost of the smallest description: it is negotiated, and answered with another.
pub const DESCRIPTION_COST: u32 = 32 << 10;
/// How much dearer the bytes of a description are than others.
const DESCRIPTION_FACTOR: u32 = 4;
/// A section costs at least what so many bytes do. Clients write 1,000 to 8,000 bytes about one; 30 suffice.
const SECTION_BYTES: usize = 512;
/// What a connection may spend at once: four thousand small messages, or the descriptions of a join into a large room, which
/// are some dozens of up to 100 kB.
const BURST: u32 = 8 << 20;
/// What comes back in a second: 512 small messages, or 32 small descriptions.
const REFILL_PER_S: u32 = 1 << 20;

/// What a message of so many bytes costs.
pub fn cost(bytes: usize, description: bool) -> u32 {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    if description {
        bytes.saturating_mul(DESCRIPTION_FACTOR).saturating_add(DESCRIPTION_COST)
    } else {
        bytes.max(MESSAGE_COST)
    }
}

/// What a description of so many bytes costs beyond [`cost`] when it is in so many sections that these are the dearer part.
pub fn sections_cost(sections: usize, bytes: usize) -> u32 {
    let more = sections.saturating_mul(SECTION_BYTES).saturating_sub(bytes);
    u32::try_from(more).unwrap_or(u32::MAX).saturating_mul(DESCRIPTION_FACTOR)
}

/// What one connection may still spend; it begins full.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// When everything spent so far is refilled.
    full_at: Mono,
}

impl Pace {
    /// Takes the cost of a message.
    pub fn charge(&mut self, now: Mono, cost: u32) {
        self.full_at = self.full_at.max(now) + refill_time(cost);
    }

    /// How long until the connection may be read again.
    pub fn wait(&self, now: Mono) -> Duration {
        self.full_at.since(now).saturating_sub(refill_time(BURST))
    }
}

fn refill_time(cost: u32) -> Duration {
    Duration::from_secs(1).saturating_mul(cost) / REFILL_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono { ns: 5_000_000_000 };

    fn charged(messages: u32, cost: u32) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..messages {
            pace.charge(START, cost);
        }
        pace
    }

    #[test]
    fn a_client_that_joins_a_room_of_fifty_never_waits() {
        let mut pace = charged(200, cost(300, false));
        for second in 0..10_u64 {
            let now = Mono { ns: START.ns + second * 1_000_000_000 };
            for _ in 0..50 {
                pace.charge(now, cost(120, false));
            }
            for section in 0..5_usize {
                pace.charge(now, cost(1_000 * (section + 5 * second as usize), true));
            }
            assert_eq!(pace.wait(now), Duration::ZERO, "second {second}");
        }
    }

    #[test]
    fn who_floods_waits_as_long_as_the_refill_takes() {
        let pace = charged(4096 + 512, cost(0, false));
        assert_eq!(pace.wait(START), Duration::from_secs(1));
        assert_eq!(pace.wait(START + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn descriptions_are_dearest() {
        let small = charged(320, cost(100, false)).wait(START);
        let descriptions = charged(320, cost(100, true)).wait(START);
        assert_eq!(small, Duration::ZERO);
        assert!(descriptions > Duration::from_secs(2), "{descriptions:?}");
    }

    #[test]
    fn sections_are_paid_for_like_bytes() {
        let chromium = 50;
        assert_eq!(sections_cost(chromium, chromium * 2_600), 0);
        let (sections, bytes) = (150, 150 * 35);
        let tiny = cost(bytes, true) + sections_cost(sections, bytes);
        assert_eq!(tiny, cost(sections * SECTION_BYTES, true));
        assert!(charged(100, tiny).wait(START) > Duration::from_secs(20));
    }

    #[test]
    fn a_pause_saves_no_more_than_the_bucket_holds() {
        let later = START + Duration::from_secs(3600);
        let mut pace = charged(1, cost(0, false));
        for _ in 0..4097 {
            pace.charge(later, cost(0, false));
        }
        assert!(pace.wait(later) > Duration::ZERO);
    }
}
