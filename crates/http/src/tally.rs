//! Lines of the log that a stranger can cause: one a second, with how many there were.

use std::time::{Duration, Instant};

const LOG_EVERY: Duration = Duration::from_secs(1);

/// Counts what is not worth a line each time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    since: u64,
    logged: Option<Instant>,
}

impl Tally {
    /// Counts one; gives back how many a line is to speak of when it is time for one.
    pub(crate) fn count(&mut self, at: Instant) -> Option<u64> {
        self.since += 1;
        if self.logged.is_some_and(|logged| at.saturating_duration_since(logged) < LOG_EVERY) {
            return None;
        }
        self.logged = Some(at);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_and_every_one_is_in_its_number() {
        let begin = Instant::now();
        let mut tally = Tally::default();
        let mut at = |ms| tally.count(begin + Duration::from_millis(ms));
        assert_eq!(at(0), Some(1));
        assert!((1..1000).all(|ms| at(ms).is_none()));
        assert_eq!(at(1000), Some(1000));
        assert_eq!(at(1001), None);
    }
}
