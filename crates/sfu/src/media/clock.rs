//! The publisher's clock against ours, and its media time against its clock.

use fanlight_base::Now;
use fanlight_rtp::reports::RtpClock;

/// A jump of this size is a clock that was set, not a path that changed.
const JUMP_NS: i64 = 1_000_000_000;

/// What has to be added to timestamps of the stream with clock `new` to get those of the one with clock `old`; both are
/// of one publisher.
pub(super) const fn delta(new: &RtpClock, old: &RtpClock) -> u32 {
    old.timestamp_at(new.ntp).wrapping_sub(new.timestamp)
}

/// How far our wall clock is ahead of a publisher's, the shortest way of a report included.
///
/// One estimate for all streams of a transport: an error is then the same for sound and picture, and lips stay with
/// the voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PeerClock {
    offset_ns: Option<i64>,
}

impl PeerClock {
    /// Takes a sender report that came now. The least delay counts; a drifting clock is followed slowly.
    pub(super) fn sample(&mut self, now: Now, ntp: u64) {
        let sample = ntp_ns(now.ntp()).wrapping_sub(ntp_ns(ntp));
        self.offset_ns = Some(match self.offset_ns {
            Some(offset) if sample.abs_diff(offset) > JUMP_NS.unsigned_abs() => sample,
            Some(offset) if sample > offset => offset.saturating_add(sample.saturating_sub(offset) / 64),
            _ => sample,
        });
    }

    /// The publisher's clock now, as 32.32 NTP.
    pub(super) fn ntp(self, now: Now) -> Option<u64> {
        let theirs = ntp_ns(now.ntp()).wrapping_sub(self.offset_ns?);
        Some(ns_ntp(theirs))
    }
}

fn ntp_ns(ntp: u64) -> i64 {
    let seconds = (ntp >> 32) as i64;
    let fraction = ((ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
    seconds.wrapping_mul(1_000_000_000).wrapping_add(fraction as i64)
}

fn ns_ntp(ns: i64) -> u64 {
    let seconds = ns.div_euclid(1_000_000_000) as u64;
    let fraction = ((ns.rem_euclid(1_000_000_000) as u64) << 32) / 1_000_000_000;
    (seconds << 32) | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;

    #[test]
    fn two_streams_of_one_clock_are_aligned_by_their_reports() {
        let old = RtpClock { clock_rate_hz: 90_000, ntp: 1_000 * SECOND, timestamp: 500 };
        let new = RtpClock { clock_rate_hz: 90_000, ntp: 1_001 * SECOND, timestamp: 4_000_000_000 };
        assert_eq!(4_000_000_000u32.wrapping_add(delta(&new, &old)), 500 + 90_000);
    }

    #[test]
    fn the_quickest_report_sets_the_offset() {
        let mut clock = PeerClock::default();
        let now = |ms: u64| Now { mono_ns: 0, unix_ns: 1_000_000_000_000_000_000 + ms * 1_000_000 };
        assert_eq!(clock.ntp(now(0)), None);
        // Their clock is 5 s behind ours; reports take 80, 20 and 70 ms.
        for (sent, delay) in [(0, 80), (1000, 20), (2000, 70)] {
            clock.sample(now(sent + delay), now(sent).ntp() - 5 * SECOND);
        }
        let error_ns = ntp_ns(clock.ntp(now(3000)).unwrap()) - (ntp_ns(now(3000).ntp()) - 5_000_000_000);
        assert!((-22_000_000..-19_000_000).contains(&error_ns), "{error_ns}");
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let mut clock = PeerClock::default();
        let now = Now { mono_ns: 0, unix_ns: 1_000_000_000_000_000_000 };
        clock.sample(now, now.ntp() - 50 * SECOND);
        clock.sample(now, now.ntp() - 3 * SECOND);
        assert_eq!(ntp_ns(clock.ntp(now).unwrap()), ntp_ns(now.ntp()) - 3_000_000_000);
    }
}
