//! Token buckets: for the bandwidth of an allocation, and for unauthenticated errors to a source prefix.

use crate::limits::{BURST_BYTES_MIN, ERROR_BUCKETS, ERRORS_BURST, ERRORS_PER_S};
use fanlight_base::{Mono, Random};
use std::net::IpAddr;

/// Tokens that come at a steady rate up to a burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    per_s: u64,
    burst: u64,
    tokens: u64,
    at: Mono,
}

impl Bucket {
    /// A full bucket.
    pub(crate) const fn new(now: Mono, per_s: u64, burst: u64) -> Self {
        Self { per_s, burst, tokens: burst, at: now }
    }

    /// For one direction of an allocation: a second's worth may come at once.
    pub(crate) fn bandwidth(now: Mono, bps: u64) -> Self {
        let bytes_per_s = (bps / 8).max(1);
        Self::new(now, bytes_per_s, bytes_per_s.max(BURST_BYTES_MIN))
    }

    /// Takes `cost` tokens, or none when there are not so many.
    pub(crate) fn take(&mut self, now: Mono, cost: u64) -> bool {
        let elapsed = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let gained = u128::from(elapsed) * u128::from(self.per_s) / 1_000_000_000;
        // Time that made no whole token is kept for the next call.
        if gained > 0 {
            self.at = now;
            self.tokens = u64::try_from(u128::from(self.tokens) + gained).unwrap_or(u64::MAX).min(self.burst);
        }
        match self.tokens.checked_sub(cost) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// Limits unauthenticated error responses to each source prefix, in a table of fixed size.
#[derive(Debug)]
pub(crate) struct ErrorLimiter {
    buckets: Vec<Bucket>,
    key: u64,
}

impl ErrorLimiter {
    /// With a key of this process, so that nobody can choose whose counter is shared.
    pub(crate) fn new(random: &mut Random) -> Self {
        let full = Bucket::new(Mono::default(), ERRORS_PER_S, ERRORS_BURST);
        Self { buckets: vec![full; ERROR_BUCKETS], key: random.u64() | 1 }
    }

    /// Whether one more may be sent to this source.
    pub(crate) fn allow(&mut self, now: Mono, source: IpAddr) -> bool {
        let prefix = match source.to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
            IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
        };
        let mixed = mix(mix(prefix ^ self.key).wrapping_mul(self.key));
        let index = (mixed % ERROR_BUCKETS as u64) as usize;
        self.buckets.get_mut(index).is_some_and(|bucket| bucket.take(now, 1))
    }
}

/// The finalizer of SplitMix64: every bit of the input moves half of the output's.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono { ns: ms * 1_000_000 }
    }

    #[test]
    fn a_bucket_lets_its_burst_and_then_its_rate_through() {
        let mut bucket = Bucket::new(at(0), 1000, 2000);
        assert!(bucket.take(at(0), 2000) && !bucket.take(at(0), 1));
        assert!(bucket.take(at(500), 500) && !bucket.take(at(500), 1));
        assert!(!bucket.take(at(10_000), 2001) && bucket.take(at(10_000), 2000));
    }

    #[test]
    fn many_short_steps_gain_as_much_as_a_long_one() {
        let mut bucket = Bucket::new(at(0), 10, 100);
        assert!(bucket.take(at(0), 100));
        let taken = (1..=10_000).filter(|ms| bucket.take(at(*ms), 1)).count();
        assert_eq!(taken, 100);
    }

    #[test]
    fn one_prefix_runs_dry_and_another_does_not() {
        let mut limiter = ErrorLimiter::new(&mut Random::from_seed([1; 32]));
        let allowed = |limiter: &mut ErrorLimiter, ip: [u8; 4]| {
            (0..1000).filter(|_| limiter.allow(at(0), IpAddr::from(ip))).count() as u64
        };
        assert_eq!(allowed(&mut limiter, [198, 51, 100, 1]), ERRORS_BURST);
        assert_eq!(allowed(&mut limiter, [198, 51, 100, 200]), 0, "the same /24");
        assert_eq!(allowed(&mut limiter, [203, 0, 113, 1]), ERRORS_BURST);
    }
}
