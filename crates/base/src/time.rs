//! Time as an argument: one [`Now`] per loop turn, taken by the shell.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Both clocks, read together once per loop turn.
///
/// The monotonic clock drives timers; the wall clock goes into sender reports, token expiry and event stamps. They
/// travel together so that a simulator can make both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds since an arbitrary start, never falling.
    pub mono_ns: u64,
    /// Nanoseconds since the Unix epoch; may jump.
    pub unix_ns: u64,
}

impl Now {
    /// The monotonic part, for deadlines.
    pub const fn mono(self) -> Mono {
        Mono { ns: self.mono_ns }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.unix_ns / 1_000_000
    }

    /// Seconds since the Unix epoch.
    pub const fn unix_s(self) -> u64 {
        self.unix_ns / 1_000_000_000
    }

    /// The wall clock as a 32.32 NTP timestamp (RFC 3550 §4), as sender reports carry it.
    pub const fn ntp(self) -> u64 {
        const NTP_UNIX_OFFSET_S: u64 = 2_208_988_800;
        let seconds = (self.unix_ns / 1_000_000_000).wrapping_add(NTP_UNIX_OFFSET_S) & 0xffff_ffff;
        let fraction = ((self.unix_ns % 1_000_000_000) << 32) / 1_000_000_000;
        (seconds << 32) | fraction
    }
}

/// A point on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono {
    /// Nanoseconds since the clock's start.
    pub ns: u64,
}

impl Mono {
    /// A deadline that never comes.
    pub const NEVER: Self = Self { ns: u64::MAX };

    /// Time since `earlier`, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self { ns: self.ns.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self { ns: self.ns.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unix_epoch_is_the_known_ntp_second() {
        let now = Now { mono_ns: 0, unix_ns: 500_000_000 };
        assert_eq!(now.ntp() >> 32, 2_208_988_800);
        assert_eq!(now.ntp() & 0xffff_ffff, 0x8000_0000);
    }

    #[test]
    fn adding_to_never_stays_never() {
        assert_eq!(Mono::NEVER + Duration::from_secs(1), Mono::NEVER);
    }
}
