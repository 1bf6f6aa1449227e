//! Key frame requests to a publisher, one layer: many receivers ask, few requests leave.

use fanlight_base::Mono;
use std::time::Duration;

/// Merges and throttles the requests for one layer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyFrameRequests {
    last: Option<Mono>,
    pending: bool,
}

impl KeyFrameRequests {
    /// Somebody needs a key frame: `true` when a request is to be sent now, otherwise it waits.
    pub(super) fn ask(&mut self, now: Mono, interval: Duration) -> bool {
        if self.due(interval).is_some_and(|due| due > now) {
            self.pending = true;
            return false;
        }
        self.last = Some(now);
        self.pending = false;
        true
    }

    /// A key frame began, which answers whatever was asked.
    pub(super) fn answered(&mut self) {
        self.pending = false;
    }

    /// When a request that waits may leave.
    pub(super) fn waits_until(&self, interval: Duration) -> Option<Mono> {
        if self.pending { self.due(interval) } else { None }
    }

    fn due(&self, interval: Duration) -> Option<Mono> {
        self.last.map(|last| last + interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Mono {
        Mono { ns: ms * 1_000_000 }
    }

    #[test]
    fn the_first_request_leaves_at_once_and_the_next_ones_become_one() {
        let mut requests = KeyFrameRequests::default();
        assert!(requests.ask(at(1000), INTERVAL));
        assert!(!requests.ask(at(1100), INTERVAL));
        assert!(!requests.ask(at(1200), INTERVAL));
        assert_eq!(requests.waits_until(INTERVAL), Some(at(1500)));
        assert!(requests.ask(at(1500), INTERVAL));
        assert_eq!(requests.waits_until(INTERVAL), None);
    }

    #[test]
    fn a_key_frame_answers_the_request_that_waits() {
        let mut requests = KeyFrameRequests::default();
        assert!(requests.ask(at(0), INTERVAL));
        assert!(!requests.ask(at(1), INTERVAL));
        requests.answered();
        assert_eq!(requests.waits_until(INTERVAL), None);
    }
}
