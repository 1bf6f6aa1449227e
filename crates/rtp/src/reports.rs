//! What sender and receiver reports say: loss and jitter of a received stream (RFC 3550 A.3, A.8), round trips, and the
//! clock that ties a stream's timestamps to wall time (§6.4.1).

use crate::rtcp::{ReportBlock, SenderInfo};
use fanlight_base::{Mono, Now};
use std::time::Duration;

/// A transit time that differs by more than this from the one before is a new time line and not jitter.
const JITTER_DISCONTINUITY_S: u64 = 5;

/// The middle 32 bits of a 32.32 NTP timestamp: 16.16 seconds, as reports echo them.
pub const fn middle_32(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A duration in 1/65,536 s, saturating at 18 hours.
pub fn in_65536ths(duration: Duration) -> u32 {
    u32::try_from((duration.as_nanos() << 16) / 1_000_000_000).unwrap_or(u32::MAX)
}

/// The round-trip time that a report block of our sender report gives (RFC 3550 §6.4.1), or a DLRR entry of our
/// receiver reference time (RFC 3611 §4.5).
///
/// `None` without a report echoed, or when the result is negative: the wall clock jumped, or the peer errs.
pub fn round_trip(now: Now, last_sr: u32, delay_since_last_sr: u32) -> Option<Duration> {
    if last_sr == 0 {
        return None;
    }
    let units = middle_32(now.ntp()).wrapping_sub(last_sr).wrapping_sub(delay_since_last_sr) as i32;
    // Both ends round to 15 µs: a little below zero is zero.
    let units = if (-66..0).contains(&units) { 0 } else { u64::try_from(units).ok()? };
    Some(Duration::from_nanos((units * 1_000_000_000) >> 16))
}

/// Statistics of one received stream.
#[derive(Debug, Clone)]
pub struct ReceiveStatistics {
    clock_rate_hz: u32,
    first: Option<u64>,
    highest: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Jitter in timestamp units times 16 (A.8).
    jitter_times_16: u64,
    last_transit: Option<(u32, u32)>,
    last_sender_report: Option<(u64, Mono)>,
    fraction_lost: u8,
}

impl ReceiveStatistics {
    /// Statistics of a stream of which nothing has arrived.
    pub const fn new(clock_rate_hz: u32) -> Self {
        Self {
            clock_rate_hz,
            first: None,
            highest: 0,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            jitter_times_16: 0,
            last_transit: None,
            last_sender_report: None,
            fraction_lost: 0,
        }
    }

    /// Notes a packet that arrived on the stream's own SSRC. Packets recovered by RTX are not to be told: the network
    /// did lose them.
    pub fn handle_packet(&mut self, now: Mono, extended_sequence: u64, timestamp: u32) {
        self.received += 1;
        let first = *self.first.get_or_insert(extended_sequence);
        self.first = Some(first.min(extended_sequence));
        if extended_sequence > self.highest || self.received == 1 {
            self.highest = extended_sequence;
            self.update_jitter(now, timestamp);
        }
    }

    /// Notes a sender report of the stream, to be echoed.
    pub fn handle_sender_report(&mut self, now: Mono, info: &SenderInfo) {
        self.last_sender_report = Some((info.ntp, now));
    }

    /// The report block to send now; begins the next interval of `fraction_lost`.
    pub fn report_block(&mut self, now: Mono, ssrc: u32) -> ReportBlock {
        let expected_interval = self.expected() - self.expected_prior;
        let received_interval = self.received - self.received_prior;
        self.expected_prior = self.expected();
        self.received_prior = self.received;
        let lost_interval = expected_interval.saturating_sub(received_interval);
        self.fraction_lost = (lost_interval * 256).checked_div(expected_interval).unwrap_or(0).min(255) as u8;
        let (last_sr, delay_since_last_sr) = self
            .last_sender_report
            .map_or((0, 0), |(ntp, received)| (middle_32(ntp), in_65536ths(now.since(received))));
        ReportBlock {
            ssrc,
            fraction_lost: self.fraction_lost,
            cumulative_lost: self.lost().clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
            highest_sequence: self.highest_sequence(),
            jitter: self.jitter(),
            last_sr,
            delay_since_last_sr,
        }
    }

    /// Packets that should have arrived.
    pub fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }

    /// Packets that arrived.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Packets lost so far; duplicates make it negative.
    pub fn lost(&self) -> i64 {
        self.expected() as i64 - self.received as i64
    }

    /// Share lost in the last reported interval, in 1/256.
    pub const fn fraction_lost(&self) -> u8 {
        self.fraction_lost
    }

    /// Interarrival jitter in timestamp units.
    pub const fn jitter(&self) -> u32 {
        (self.jitter_times_16 >> 4) as u32
    }

    /// Interarrival jitter in microseconds.
    pub const fn jitter_us(&self) -> u64 {
        match (self.jitter_times_16 * 1_000_000 / 16).checked_div(self.clock_rate_hz as u64) {
            Some(us) => us,
            None => 0,
        }
    }

    /// Highest sequence number with the wrap-arounds since the first packet in its upper half.
    fn highest_sequence(&self) -> u32 {
        let first_cycle = self.first.unwrap_or(0) & !0xffff;
        (self.highest - first_cycle) as u32
    }

    fn update_jitter(&mut self, now: Mono, timestamp: u32) {
        let arrival = in_clock_units(now.ns, self.clock_rate_hz) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        if let Some((last_transit, last_timestamp)) = self.last_transit {
            // The packets of one frame are paced by the sender; only its first says something about the network.
            if last_timestamp == timestamp {
                return;
            }
            let difference = u64::from((transit.wrapping_sub(last_transit) as i32).unsigned_abs());
            if difference < u64::from(self.clock_rate_hz) * JITTER_DISCONTINUITY_S {
                self.jitter_times_16 = self.jitter_times_16 + difference - ((self.jitter_times_16 + 8) >> 4);
            }
        }
        self.last_transit = Some((transit, timestamp));
    }
}

/// Nanoseconds as clock units, without overflow.
fn in_clock_units(ns: u64, clock_rate_hz: u32) -> u64 {
    let (seconds, fraction) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let rate = u64::from(clock_rate_hz);
    seconds.wrapping_mul(rate).wrapping_add(fraction * rate / 1_000_000_000)
}

/// One moment on both of a stream's clocks: which timestamp was when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpClock {
    /// Timestamp units per second.
    pub clock_rate_hz: u32,
    /// A timestamp of the stream,
    pub timestamp: u32,
    /// and when that was, as a 32.32 NTP timestamp.
    pub ntp: u64,
}

impl RtpClock {
    /// The moment a sender report names.
    pub const fn from_sender_info(info: &SenderInfo, clock_rate_hz: u32) -> Self {
        Self { clock_rate_hz, timestamp: info.rtp_timestamp, ntp: info.ntp }
    }

    /// The timestamp at a moment at most 2^31 units away.
    pub const fn timestamp_at(&self, ntp: u64) -> u32 {
        let elapsed = ntp.wrapping_sub(self.ntp) as i64 as i128;
        let units = (elapsed * self.clock_rate_hz as i128) >> 32;
        self.timestamp.wrapping_add(units as u32)
    }

    /// The moment of a timestamp at most 2^31 units away.
    pub const fn ntp_at(&self, timestamp: u32) -> u64 {
        let units = timestamp.wrapping_sub(self.timestamp) as i32 as i128;
        match (units << 32).checked_div(self.clock_rate_hz as i128) {
            Some(elapsed) => self.ntp.wrapping_add(elapsed as u64),
            None => self.ntp,
        }
    }
}

/// Statistics of one sent stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct SendStatistics {
    /// Packets sent, retransmissions on this SSRC included.
    pub packets: u64,
    /// Bytes of payload sent, without headers and padding.
    pub octets: u64,
    clock: Option<RtpClock>,
}

impl SendStatistics {
    /// Statistics of a stream of which nothing was sent.
    pub const fn new() -> Self {
        Self { packets: 0, octets: 0, clock: None }
    }

    /// Notes a packet that left.
    pub const fn handle_packet(&mut self, payload_bytes: usize) {
        self.packets += 1;
        self.octets += payload_bytes as u64;
    }

    /// Sets which timestamp of the outgoing stream is when: from the publisher's sender report with the timestamp
    /// rewritten as packets' are, or from the arrival of a packet until there is one.
    pub const fn set_clock(&mut self, clock: RtpClock) {
        self.clock = Some(clock);
    }

    /// The clock set last.
    pub const fn clock(&self) -> Option<RtpClock> {
        self.clock
    }

    /// The sender's part of a report that leaves now; `None` until a clock is set.
    pub fn sender_info(&self, now: Now) -> Option<SenderInfo> {
        let clock = self.clock?;
        let ntp = now.ntp();
        Some(SenderInfo {
            ntp,
            rtp_timestamp: clock.timestamp_at(ntp),
            // The fields are 32 bits wide and wrap around (RFC 3550 §6.4.1).
            packets: self.packets as u32,
            octets: self.octets as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono { ns: ms * 1_000_000 }
    }

    fn now(unix_ms: u64) -> Now {
        Now { mono_ns: 0, unix_ns: unix_ms * 1_000_000 }
    }

    #[test]
    fn loss_is_counted_as_rfc_3550_a3_does() {
        let mut statistics = ReceiveStatistics::new(90_000);
        for sequence in [131_070, 131_071, 131_074, 131_073] {
            statistics.handle_packet(at(0), sequence, 0);
        }
        let block = statistics.report_block(at(0), 7);
        assert_eq!((block.ssrc, block.cumulative_lost, block.fraction_lost), (7, 1, 51));
        assert_eq!(block.highest_sequence, (1 << 16) + 2);
        statistics.handle_packet(at(0), 131_075, 0);
        statistics.handle_packet(at(0), 131_072, 0);
        let block = statistics.report_block(at(0), 7);
        assert_eq!((block.cumulative_lost, block.fraction_lost), (0, 0));
        statistics.handle_packet(at(0), 131_075, 0);
        assert_eq!(statistics.report_block(at(0), 7).cumulative_lost, -1);
        assert_eq!((statistics.expected(), statistics.received()), (6, 7));
    }

    #[test]
    fn a_packet_from_before_the_first_extends_what_was_expected() {
        let mut statistics = ReceiveStatistics::new(90_000);
        statistics.handle_packet(at(0), 65_537, 0);
        statistics.handle_packet(at(0), 65_535, 0);
        assert_eq!((statistics.expected(), statistics.lost()), (3, 1));
        assert_eq!(statistics.report_block(at(0), 1).highest_sequence, 65_537);
    }

    #[test]
    fn steady_arrival_has_no_jitter_and_a_swing_has() {
        let mut statistics = ReceiveStatistics::new(90_000);
        for n in 0..100_u64 {
            statistics.handle_packet(at(n * 20), n, (n * 1800) as u32);
        }
        assert_eq!(statistics.jitter(), 0);
        for n in 100..300_u64 {
            statistics.handle_packet(at(n * 20 + n % 2 * 10), n, (n * 1800) as u32);
        }
        // The estimate runs towards the mean difference: 10 ms, 900 units.
        assert!((890..=900).contains(&statistics.jitter()), "{}", statistics.jitter());
        assert!((9_890..=10_000).contains(&statistics.jitter_us()), "{}", statistics.jitter_us());
        let before = statistics.jitter();
        statistics.handle_packet(at(6000), 300, 0x8000_0000);
        assert_eq!(statistics.jitter(), before, "a new time line is not jitter");
    }

    #[test]
    fn packets_of_one_frame_do_not_count_as_jitter() {
        let mut statistics = ReceiveStatistics::new(90_000);
        for n in 0..100_u64 {
            statistics.handle_packet(at(n / 2 * 20 + n % 2 * 5), n, (n / 2 * 1800) as u32);
        }
        assert_eq!(statistics.jitter(), 0);
    }

    #[test]
    fn a_sender_report_is_echoed_with_the_delay() {
        let mut statistics = ReceiveStatistics::new(48_000);
        statistics.handle_packet(at(0), 1, 0);
        let info = SenderInfo { ntp: 0x1111_2222_3333_4444, ..SenderInfo::default() };
        statistics.handle_sender_report(at(100), &info);
        let block = statistics.report_block(at(600), 1);
        assert_eq!((block.last_sr, block.delay_since_last_sr), (0x2222_3333, 32_768));
    }

    #[test]
    fn the_round_trip_is_what_neither_end_held() {
        let sent = now(1_700_000_000_000);
        let received = now(1_700_000_000_640);
        let rtt = round_trip(received, middle_32(sent.ntp()), in_65536ths(Duration::from_millis(500)));
        let rtt_us = rtt.unwrap().as_micros();
        assert!((139_950..140_050).contains(&rtt_us), "{rtt_us}");
        assert_eq!(round_trip(received, 0, 0), None);
        assert_eq!(round_trip(sent, middle_32(received.ntp()), 0), None);
        assert_eq!(round_trip(sent, middle_32(sent.ntp()), 3), Some(Duration::ZERO));
    }

    #[test]
    fn timestamps_and_wall_time_map_both_ways_across_the_wrap() {
        let clock = RtpClock { clock_rate_hz: 90_000, timestamp: u32::MAX - 44_999, ntp: now(1_000).ntp() };
        assert_eq!(clock.timestamp_at(now(2_000).ntp()), 45_000);
        assert_eq!(clock.timestamp_at(now(500).ntp()), u32::MAX - 89_999);
        let back = clock.ntp_at(45_000);
        assert!(back.abs_diff(now(2_000).ntp()) < 1 << 16);
        assert!(clock.ntp_at(u32::MAX - 89_999).abs_diff(now(500).ntp()) < 1 << 16);
    }

    #[test]
    fn a_sender_report_says_when_now_is_on_the_streams_clock() {
        let mut statistics = SendStatistics::new();
        assert_eq!(statistics.sender_info(now(1_000)), None);
        statistics.set_clock(RtpClock { clock_rate_hz: 48_000, timestamp: 1000, ntp: now(1_000).ntp() });
        statistics.handle_packet(100);
        statistics.handle_packet(50);
        let info = statistics.sender_info(now(1_500)).unwrap();
        assert_eq!((info.ntp, info.rtp_timestamp), (now(1_500).ntp(), 25_000));
        assert_eq!((info.packets, info.octets), (2, 150));
    }
}
