//! The sender's end: numbers out, results in.

use crate::rtcp::TransportFeedback;
use crate::sequence::extend_sequence;
use fanlight_base::Mono;
use std::time::Duration;

/// Packets remembered at most: a second at 8,000 packets per second.
pub const SEND_LOG_PACKETS_MAX: usize = 8192;
const INITIAL_PACKETS: usize = 64;
/// A ring whose oldest packet is unreported and younger than this when it is overwritten grows.
const FEEDBACK_WITHIN: Duration = Duration::from_secs(1);
/// The reference time wraps after 2^24 × 64 ms: in ticks of 250 µs, 2^32.
const REFERENCE_WRAP_TICKS: i64 = 1 << 32;
const TICK_US: i64 = 250;

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketResult {
    /// Its transport-wide number, extended.
    pub number: u64,
    /// When it was sent.
    pub sent: Mono,
    /// Its size as given to [`SendLog::record`], in bytes.
    pub size_bytes: u32,
    /// When it arrived, in µs of the receiver's clock (of unknown origin, unwrapped); `None`: not received.
    pub arrival_us: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Sent,
    Lost,
    Received,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    sent: Mono,
    /// Low half of the extended number.
    number: u32,
    size_bytes: u16,
    state: State,
}

// One per packet in flight and transport.
const _: () = assert!(size_of::<Entry>() <= 16);

const FREE: Entry = Entry { sent: Mono { ns: 0 }, number: 0, size_bytes: 0, state: State::Free };

/// Numbers the packets of one transport and remembers when they left.
#[derive(Debug, Clone)]
pub struct SendLog {
    /// Entry of number `n` at `n % len`; a power of two.
    entries: Vec<Entry>,
    next: u64,
    /// Latest reference time seen, unwrapped, in ticks.
    reference_ticks: Option<i64>,
    unknown: u64,
}

impl Default for SendLog {
    fn default() -> Self {
        Self::new()
    }
}

impl SendLog {
    /// A log that begins with number 1, as libwebrtc does.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), next: 65_537, reference_ticks: None, unknown: 0 }
    }

    /// Takes the next number for a packet that leaves now. `size_bytes` is what the estimate shall count, at most
    /// 65,535.
    pub fn record(&mut self, now: Mono, size_bytes: usize) -> u16 {
        if self.entries.is_empty() {
            self.entries.resize(INITIAL_PACKETS, FREE);
        }
        let number = self.next;
        self.next += 1;
        while self.entries.len() < SEND_LOG_PACKETS_MAX && self.would_lose_one_in_flight(now, number) {
            self.grow();
        }
        let index = self.index(number);
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = Entry {
                sent: now,
                number: number as u32,
                size_bytes: size_bytes.min(usize::from(u16::MAX)) as u16,
                state: State::Sent,
            };
        }
        number as u16
    }

    /// The number [`SendLog::record`] gives next.
    pub const fn next_number(&self) -> u16 {
        self.next as u16
    }

    /// Appends what a feedback message says, in order of number. A packet is reported lost at most once and received
    /// at most once, received after lost included; packets no longer remembered are only counted.
    pub fn handle_feedback(&mut self, feedback: &TransportFeedback<'_>, results: &mut Vec<PacketResult>) {
        let wire_ticks = i64::from(feedback.reference_time) * 256;
        let reference = self.unwrap_reference(wire_ticks);
        for (number, ticks) in feedback.statuses() {
            let number = extend_sequence(self.next - 1, number);
            let index = self.index(number);
            let Some(entry) = self.entries.get_mut(index) else { return };
            if number >= self.next || entry.number != number as u32 || entry.state == State::Free {
                self.unknown += 1;
                continue;
            }
            let state = if ticks.is_some() { State::Received } else { State::Lost };
            if entry.state == State::Received || entry.state == state {
                continue;
            }
            entry.state = state;
            results.push(PacketResult {
                number,
                sent: entry.sent,
                size_bytes: u32::from(entry.size_bytes),
                arrival_us: ticks
                    .map(|ticks| (reference.saturating_add(ticks - wire_ticks)).saturating_mul(TICK_US)),
            });
        }
    }

    /// Statuses about packets never sent or no longer remembered.
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }

    fn unwrap_reference(&mut self, wire_ticks: i64) -> i64 {
        let unwrapped = match self.reference_ticks {
            Some(latest) => {
                let step = wire_ticks.wrapping_sub(latest).rem_euclid(REFERENCE_WRAP_TICKS);
                let back = if step >= REFERENCE_WRAP_TICKS / 2 { REFERENCE_WRAP_TICKS } else { 0 };
                // A peer that leaps half a wrap with every message must not overflow it.
                latest.saturating_add(step - back)
            }
            None => wire_ticks,
        };
        self.reference_ticks = Some(self.reference_ticks.map_or(unwrapped, |latest| latest.max(unwrapped)));
        unwrapped
    }

    fn index(&self, number: u64) -> usize {
        (number & (self.entries.len() as u64).saturating_sub(1)) as usize
    }

    fn would_lose_one_in_flight(&self, now: Mono, number: u64) -> bool {
        self.entries
            .get(self.index(number))
            .is_some_and(|lost| lost.state == State::Sent && now.since(lost.sent) < FEEDBACK_WITHIN)
    }

    fn grow(&mut self) {
        let doubled = vec![FREE; self.entries.len() * 2];
        for entry in std::mem::replace(&mut self.entries, doubled) {
            let index = self.index(u64::from(entry.number));
            if let Some(slot) = self.entries.get_mut(index)
                && entry.state != State::Free
            {
                *slot = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};
    use crate::twcc::FeedbackBuilder;
    use fanlight_base::Now;

    fn at(ms: u64) -> Now {
        Now { mono_ns: ms * 1_000_000, unix_ns: 0 }
    }

    fn feed(log: &mut SendLog, feedback: &[u8]) -> Vec<PacketResult> {
        let mut results = Vec::new();
        for packet in RtcpPackets::new(feedback) {
            let RtcpPacket::TransportFeedback(feedback) = packet else { panic!() };
            log.handle_feedback(&feedback, &mut results);
        }
        results
    }

    #[test]
    fn feedback_finds_the_packets_it_is_about() {
        let (mut log, mut builder) = (SendLog::new(), FeedbackBuilder::new());
        let mut out = Vec::new();
        for ms in 0..5 {
            let number = log.record(at(ms).mono(), 1200);
            if ms != 2 {
                builder.handle_packet(at(500 + 2 * ms), number, false);
            }
        }
        assert!(builder.poll(at(600), 1, 2, &mut out));
        let results = feed(&mut log, &out);
        let arrivals: Vec<_> = results.iter().map(|result| result.arrival_us).collect();
        let expected = [Some(500_000), Some(502_000), None, Some(506_000), Some(508_000)];
        assert_eq!(arrivals, expected);
        assert_eq!((results[3].sent, results[3].size_bytes, results[3].number), (at(3).mono(), 1200, 65_540));
        assert!(feed(&mut log, &out).is_empty(), "the same message again says nothing new");
        builder.handle_packet(at(650), 3, false);
        out.clear();
        assert!(builder.poll(at(800), 1, 2, &mut out));
        let results = feed(&mut log, &out);
        assert_eq!(results.len(), 1, "received after it was reported lost");
        assert_eq!((results[0].number, results[0].arrival_us), (65_539, Some(650_000)));
    }

    #[test]
    fn feedback_about_packets_never_sent_is_counted_only() {
        let (mut log, mut builder) = (SendLog::new(), FeedbackBuilder::new());
        let mut out = Vec::new();
        builder.handle_packet(at(1), 9, false);
        builder.poll(at(200), 1, 2, &mut out);
        assert!(feed(&mut log, &out).is_empty());
        log.record(at(1).mono(), 100);
        assert!(feed(&mut log, &out).is_empty());
        assert!(log.unknown() > 0);
    }

    #[test]
    fn the_log_grows_while_feedback_is_awaited_and_stays_bounded() {
        let (mut idle, mut busy) = (SendLog::new(), SendLog::new());
        for n in 0..20_000 {
            idle.record(at(n * 100).mono(), 100);
            busy.record(at(n / 100).mono(), 100);
        }
        assert_eq!((idle.entries.len(), busy.entries.len()), (INITIAL_PACKETS, SEND_LOG_PACKETS_MAX));
    }

    #[test]
    fn the_reference_time_goes_on_across_its_wrap() {
        let mut log = SendLog::new();
        // 24 bits signed: the largest is followed by the smallest.
        let top = i64::from((1 << 23) - 1) * 256;
        let first = log.unwrap_reference(top);
        assert_eq!(log.unwrap_reference(-(1 << 23) * 256), first + 256);
        assert_eq!(log.unwrap_reference(top), first);
    }
}
