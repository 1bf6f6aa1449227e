//! How long to wait before the next attempt.

use fanlight_base::Random;
use std::time::Duration;

/// After the first failure; it doubles with each one.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause: a Redis server that comes back is heard again within this.
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses that grow with every failure, and that many who wait do not have together.
#[derive(Debug)]
pub(super) struct Backoff {
    random: Random,
    failures: u32,
}

impl Backoff {
    pub(super) const fn new(random: Random) -> Self {
        Self { random, failures: 0 }
    }

    /// It went well.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: between half of the pause and all of it.
    pub(super) fn pause(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        half + Duration::from_millis(self.random.below(u64::try_from(half.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_again_after_success() {
        let mut backoff = Backoff::new(Random::from_seed([3; 32]));
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST, "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| (LONGEST / 2..=LONGEST).contains(pause)), "{pauses:?}");
        assert!(pauses[10..].windows(2).any(|two| two[0] != two[1]), "{pauses:?}");
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
