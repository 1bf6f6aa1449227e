//! The publisher's clock against ours, and its media time against its clock.

use fanlight_base::Now;

/// A jump of this size is a clock that was set, not a path that changed.
const JUMP_NS: i64 = 1_000_000_000;

/// A point that a sender report gives: media time and wall clock of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MediaTime {
    /// 32.32 NTP, the publisher's clock.
    pub(super) ntp: u64,
    /// RTP timestamp at that time.
    pub(super) timestamp: u32,
}

impl MediaTime {
    /// The RTP timestamp at another time of the publisher's clock.
    pub(super) fn at(self, ntp: u64, clock_rate: u32) -> u32 {
        let passed = i128::from(ntp.wrapping_sub(self.ntp).cast_signed());
        // Wrapping like the timestamp itself.
        self.timestamp.wrapping_add(((passed * i128::from(clock_rate)) >> 32) as u32)
    }

    /// What has to be added to timestamps of this stream to get those of `other`, which has the same clock rate.
    pub(super) fn delta_to(self, other: Self, clock_rate: u32) -> u32 {
        other.at(self.ntp, clock_rate).wrapping_sub(self.timestamp)
    }
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
        let old = MediaTime { ntp: 1_000 * SECOND, timestamp: 500 };
        let new = MediaTime { ntp: 1_001 * SECOND, timestamp: 4_000_000_000 };
        let delta = new.delta_to(old, 90_000);
        assert_eq!(4_000_000_000u32.wrapping_add(delta), 500 + 90_000);
        assert_eq!(new.at(1_000 * SECOND, 90_000), 4_000_000_000 - 90_000);
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
