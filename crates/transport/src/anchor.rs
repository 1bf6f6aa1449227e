//! The one place where our time becomes the libraries' `Instant`.

use fanlight_base::{Mono, Now};
use std::time::{Duration, Instant};

/// Ties a reading of our monotonic clock to an `Instant`.
///
/// A core cannot make an `Instant` by itself, so the shell (or a simulator) makes one anchor per process and every
/// transport computes from it.
#[derive(Debug, Clone, Copy)]
pub struct ClockAnchor {
    instant: Instant,
    mono: Mono,
}

impl ClockAnchor {
    /// `instant` and `mono` were read at the same moment.
    pub const fn new(instant: Instant, mono: Mono) -> Self {
        Self { instant, mono }
    }

    /// The `Instant` of `now`.
    pub fn instant(self, now: Now) -> Instant {
        self.instant_of(now.mono())
    }

    /// The `Instant` of a point of our monotonic clock; points before the anchor become the anchor.
    pub fn instant_of(self, mono: Mono) -> Instant {
        let since = mono.since(self.mono);
        self.instant.checked_add(since).unwrap_or(self.instant)
    }

    /// The point of our monotonic clock at `instant`.
    pub fn mono(self, instant: Instant) -> Mono {
        self.mono + instant.checked_duration_since(self.instant).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "an Instant cannot be made without the clock; its value is arbitrary"
    )]
    fn time_goes_there_and_back() {
        let anchor = ClockAnchor::new(Instant::now(), Mono { ns: 7_000 });
        let later = Mono { ns: 5_007_000 };
        assert_eq!(anchor.mono(anchor.instant_of(later)), later);
        assert_eq!(anchor.mono(anchor.instant_of(Mono { ns: 1 })), Mono { ns: 7_000 });
    }
}
