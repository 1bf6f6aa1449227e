//! What was refused, by queue, and how much of that the record already says.

use crate::limits::REFUSALS_EVERY;
use fanlight_base::Mono;
use std::collections::BTreeMap;

/// Timeline rows refused because the disk did not keep up.
pub const QUEUE_STORE_FACTS: &str = "store_facts";
/// Counters rows refused because the disk did not keep up.
pub const QUEUE_STORE_SAMPLES: &str = "store_samples";
/// Rooms, participants and tracks that did not fit into the pipeline.
pub const QUEUE_SESSIONS: &str = "store_sessions";
/// TURN allocations and sessions refused because the disk did not keep up.
pub const QUEUE_STORE_TURN: &str = "store_turn";
/// Rows the database would not take at all.
pub const QUEUE_STORE_LOST: &str = "store_lost";

/// Cumulative counts of refusals. Queue names are constants, so their number is bounded.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    queues: BTreeMap<&'static str, Count>,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    told: u64,
    told_at: Option<Mono>,
}

impl Refusals {
    /// `queue` refused one more, or several.
    pub(crate) fn add(&mut self, queue: &'static str, more: u64) {
        let count = self.queues.entry(queue).or_default();
        count.total = count.total.saturating_add(more);
    }

    /// `queue` has refused `total` so far, by its own count.
    pub(crate) fn set(&mut self, queue: &'static str, total: u64) {
        if total > 0 {
            let count = self.queues.entry(queue).or_default();
            count.total = count.total.max(total);
        }
    }

    /// How many `queue` refused so far.
    pub(crate) fn total(&self, queue: &str) -> u64 {
        self.queues.get(queue).map_or(0, |count| count.total)
    }

    /// Whether something was refused that [`Refusals::tell`] has not said.
    pub(crate) fn untold(&self) -> bool {
        self.queues.values().any(|count| count.total > count.told)
    }

    /// Queues with news, each at most once per second unless `at_once`, and their totals.
    pub(crate) fn tell(&mut self, now: Mono, at_once: bool) -> Vec<(&'static str, u64)> {
        let mut news = Vec::new();
        for (queue, count) in &mut self.queues {
            let rested = count.told_at.is_none_or(|at| now.since(at) >= REFUSALS_EVERY);
            if count.total > count.told && (rested || at_once) {
                count.told = count.total;
                count.told_at = Some(now);
                news.push((*queue, count.total));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_and_at_most_each_second() {
        let mut refusals = Refusals::default();
        let start = Mono { ns: 0 };
        refusals.add("a", 2);
        refusals.set("b", 0);
        assert_eq!(refusals.tell(start, false), [("a", 2)]);
        refusals.add("a", 1);
        assert_eq!(refusals.tell(start, false), []);
        assert!(refusals.untold());
        assert_eq!(refusals.tell(start + REFUSALS_EVERY, false), [("a", 3)]);
        assert!(!refusals.untold());
    }
}
