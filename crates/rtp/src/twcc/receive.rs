//! The receiver's end: arrivals in, feedback out.

use crate::rtcp::RtcpWriter;
use crate::rtcp::status::{LARGE_DELTA, NOT_RECEIVED, RUN_MAX, SMALL_DELTA};
use crate::sequence::SequenceExtender;
use fanlight_base::{Mono, Now};
use std::collections::VecDeque;
use std::time::Duration;

/// Longest time between two feedback messages while packets arrive (LiveKit: 100 ms).
const INTERVAL: Duration = Duration::from_millis(100);
/// Shortest time; the end of a frame sends what has gathered since (LiveKit: 50 ms).
const INTERVAL_AFTER_FRAME: Duration = Duration::from_millis(50);
/// Arrivals are kept this long after they were reported: a late packet is reported together with its neighbours.
const KEEP: Duration = Duration::from_millis(500);
/// Numbers tracked at once: 500 ms at 16,000 packets per second. A jump by more starts anew.
const WINDOW_MAX: u64 = 8192;
/// Packets reported on in one message: at two bytes of delta and 2 bits of status each, 900 bytes.
const STATUSES_MAX: u64 = 400;
/// One tick of a delta in nanoseconds (§3.1.5: 250 µs).
const TICK_NS: u64 = 250_000;
/// Ticks in one unit of the reference time (64 ms).
const TICKS_PER_REFERENCE: i64 = 256;

/// Gathers arrivals on one transport and writes feedback messages about them.
#[derive(Debug, Clone, Default)]
pub struct FeedbackBuilder {
    extender: SequenceExtender,
    /// Arrival in ticks of the numbers from `start` on.
    arrivals: VecDeque<Option<i64>>,
    start: u64,
    /// First number not yet reported.
    next: u64,
    feedback_count: u8,
    last_feedback: Option<Mono>,
    /// When the oldest unreported packet arrived.
    first_pending: Option<Mono>,
    frame_ended: bool,
    late: u64,
    scratch: Vec<u8>,
}

impl FeedbackBuilder {
    /// A builder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the arrival of a packet with this transport-wide number; `marker` says that it ends a frame.
    pub fn handle_packet(&mut self, now: Now, number: u16, marker: bool) {
        let ticks = (now.mono_ns / TICK_NS) as i64;
        let number = self.extender.extend(number);
        if self.arrivals.is_empty() || number >= self.start + WINDOW_MAX {
            self.arrivals.clear();
            self.start = number;
            self.next = number;
        }
        let Some(index) = number.checked_sub(self.start) else {
            self.late += 1;
            return;
        };
        let index = index as usize;
        if self.arrivals.len() <= index {
            self.arrivals.resize(index + 1, None);
        }
        match self.arrivals.get_mut(index) {
            Some(slot @ None) => *slot = Some(ticks),
            // A duplicate: the first arrival counts.
            _ => return,
        }
        self.next = self.next.min(number);
        self.first_pending.get_or_insert(now.mono());
        self.frame_ended |= marker;
    }

    /// When [`FeedbackBuilder::poll`] next has something to write, if ever.
    pub fn deadline(&self) -> Option<Mono> {
        let first_pending = self.first_pending?;
        // After a silence the first packet is reported at once.
        let silent_since = first_pending - INTERVAL;
        let since = self.last_feedback.map_or(silent_since, |last| last.max(silent_since));
        Some(since + if self.frame_ended { INTERVAL_AFTER_FRAME } else { INTERVAL })
    }

    /// Appends one feedback message when it is due; call again until it returns `false`.
    ///
    /// `media_ssrc` is any stream of the transport.
    pub fn poll(&mut self, now: Now, sender_ssrc: u32, media_ssrc: u32, out: &mut Vec<u8>) -> bool {
        if self.deadline().is_none_or(|deadline| deadline > now.mono()) {
            return false;
        }
        let written = self.write(sender_ssrc, media_ssrc, out);
        if !written || self.next >= self.end() {
            self.first_pending = None;
            self.frame_ended = false;
            self.last_feedback = Some(now.mono());
            self.forget(now);
        }
        written
    }

    /// Packets that came too late to be reported.
    pub const fn late(&self) -> u64 {
        self.late
    }

    fn end(&self) -> u64 {
        self.start + self.arrivals.len() as u64
    }

    fn arrival(&self, number: u64) -> Option<i64> {
        let index = number.checked_sub(self.start)?;
        *self.arrivals.get(index as usize)?
    }

    /// Writes a message about the numbers from `next` on, as many as fit.
    fn write(&mut self, sender_ssrc: u32, media_ssrc: u32, out: &mut Vec<u8>) -> bool {
        let end = self.end().min(self.next + STATUSES_MAX);
        let Some(first) = (self.next..end).find_map(|number| self.arrival(number)) else {
            self.next = end;
            return self.next < self.end() && self.write(sender_ssrc, media_ssrc, out);
        };
        let reference = first.div_euclid(TICKS_PER_REFERENCE);
        let mut symbols = [NOT_RECEIVED; STATUSES_MAX as usize];
        let mut count = 0;
        let mut previous = reference * TICKS_PER_REFERENCE;
        let mut deltas = std::mem::take(&mut self.scratch);
        deltas.clear();
        for (number, symbol) in (self.next..end).zip(&mut symbols) {
            if let Some(ticks) = self.arrival(number) {
                let delta = ticks - previous;
                // A delta beyond 8 s ends the message: the next one has its own reference time.
                let Ok(delta) = i16::try_from(delta) else { break };
                previous = ticks;
                match u8::try_from(delta) {
                    Ok(small) => {
                        *symbol = SMALL_DELTA;
                        deltas.push(small);
                    }
                    Err(_) => {
                        *symbol = LARGE_DELTA;
                        deltas.extend(delta.to_be_bytes());
                    }
                }
            }
            count += 1;
        }
        let symbols = symbols.get(..count).unwrap_or_default();
        let (base, feedback_count) = (self.next as u16, self.feedback_count);
        RtcpWriter::new(out).transport_feedback(sender_ssrc, media_ssrc, |out| {
            out.extend(base.to_be_bytes());
            out.extend((count as u16).to_be_bytes());
            let [_, .., a, b, c] = reference.to_be_bytes();
            out.extend([a, b, c, feedback_count]);
            write_chunks(out, symbols);
            out.extend(&deltas);
        });
        self.scratch = deltas;
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.next += count as u64;
        true
    }

    /// Drops reported arrivals that are too old to be reported again.
    fn forget(&mut self, now: Now) {
        let oldest = ((now.mono_ns / TICK_NS) as i64) - (KEEP.as_nanos() as u64 / TICK_NS) as i64;
        while self.start < self.next
            && self.arrivals.front().is_some_and(|arrival| arrival.is_none_or(|ticks| ticks < oldest))
        {
            self.arrivals.pop_front();
            self.start += 1;
        }
    }
}

/// Packs status symbols: long runs as such, else 14 one-bit or 7 two-bit symbols (§3.1.2 to §3.1.4).
fn write_chunks(out: &mut Vec<u8>, mut symbols: &[u8]) {
    while let Some(first) = symbols.first() {
        let run = symbols.iter().take(RUN_MAX).take_while(|symbol| *symbol == first).count();
        let one_bit = symbols.iter().take(14).take_while(|symbol| **symbol != LARGE_DELTA).count();
        let fits_one_bit = one_bit == symbols.len().min(14);
        let (width, capacity) = if fits_one_bit { (1, 14) } else { (2, 7) };
        let covered = symbols.len().min(capacity);
        let (word, taken) = if run >= covered {
            ((u16::from(*first) << 13) | run as u16, run)
        } else {
            let vector = (0..capacity).fold(0_u16, |bits, position| {
                let symbol = symbols.get(position).copied().unwrap_or(NOT_RECEIVED);
                (bits << width) | u16::from(symbol)
            });
            (0x8000 | (u16::from(width == 2) << 14) | vector, covered)
        };
        out.extend(word.to_be_bytes());
        symbols = symbols.get(taken..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{RtcpPacket, RtcpPackets};
    use proptest::prelude::*;

    fn at_us(us: u64) -> Now {
        Now { mono_ns: us * 1000, unix_ns: 0 }
    }

    fn at(ms: u64) -> Now {
        at_us(ms * 1000)
    }

    /// All that is due: (number, arrival in ticks).
    fn poll(builder: &mut FeedbackBuilder, now: Now) -> Vec<(u16, Option<i64>)> {
        let mut out = Vec::new();
        while builder.poll(now, 1, 2, &mut out) {}
        let mut packets = RtcpPackets::new(&out);
        let mut statuses = Vec::new();
        for packet in packets.by_ref() {
            let RtcpPacket::TransportFeedback(feedback) = packet else { panic!("{packet:?}") };
            statuses.extend(feedback.statuses());
        }
        assert_eq!(packets.malformed(), 0);
        statuses
    }

    #[test]
    fn feedback_comes_every_100_ms_and_50_ms_after_a_frame() {
        let mut builder = FeedbackBuilder::new();
        assert_eq!(builder.deadline(), None);
        builder.handle_packet(at(1000), 1, false);
        assert_eq!(builder.deadline(), Some(at(1000).mono()), "the first packet is reported at once");
        poll(&mut builder, at(1000));
        builder.handle_packet(at(1010), 2, false);
        assert_eq!(builder.deadline(), Some(at(1100).mono()));
        builder.handle_packet(at(1020), 3, true);
        assert_eq!(builder.deadline(), Some(at(1050).mono()));
        assert!(poll(&mut builder, at(1049)).is_empty());
        assert_eq!(poll(&mut builder, at(1050)).len(), 2);
        assert_eq!(builder.deadline(), None);
    }

    #[test]
    fn gaps_and_times_are_reported_across_the_wrap() {
        let mut builder = FeedbackBuilder::new();
        for (us, number) in [(1_000_000, 65_534), (1_010_000, 65_535), (1_010_300, 2), (1_009_900, 1)] {
            builder.handle_packet(at_us(us), number, false);
        }
        let expected =
            [(65_534, Some(4000)), (65_535, Some(4040)), (0, None), (1, Some(4039)), (2, Some(4041))];
        assert_eq!(poll(&mut builder, at(1200)), expected);
    }

    #[test]
    fn a_late_packet_is_reported_with_its_neighbours() {
        let mut builder = FeedbackBuilder::new();
        for number in [1, 2, 4, 5] {
            builder.handle_packet(at(1000), number, false);
        }
        assert_eq!(poll(&mut builder, at(1100)).len(), 5);
        builder.handle_packet(at(1120), 3, false);
        let again = poll(&mut builder, at(1300));
        assert_eq!(again.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(again.iter().all(|(_, ticks)| ticks.is_some()));
        builder.handle_packet(at(3000), 6, false);
        poll(&mut builder, at(3000));
        builder.handle_packet(at(3001), 2, false);
        assert_eq!(builder.late(), 1);
    }

    #[test]
    fn a_long_silence_starts_a_new_message() {
        let mut builder = FeedbackBuilder::new();
        builder.handle_packet(at(1000), 1, false);
        builder.handle_packet(at(21_000), 2, false);
        assert_eq!(poll(&mut builder, at(21_000)), [(1, Some(4000)), (2, Some(84_000))]);
    }

    #[test]
    fn messages_stay_below_an_mtu_and_memory_is_bounded() {
        let mut builder = FeedbackBuilder::new();
        for number in 0..2000_u16 {
            builder.handle_packet(at(1000 + u64::from(number % 3) * 100), number, false);
        }
        let mut out = Vec::new();
        let mut messages = 0;
        loop {
            out.clear();
            if !builder.poll(at(2000), 1, 2, &mut out) {
                break;
            }
            messages += 1;
            assert!(out.len() < 1100, "{}", out.len());
        }
        assert_eq!(messages, 5);
        builder.handle_packet(at(2000), 30_000, false);
        assert_eq!(builder.arrivals.len(), 1);
    }

    #[test]
    fn a_duplicate_keeps_the_first_time() {
        let mut builder = FeedbackBuilder::new();
        builder.handle_packet(at(1000), 1, false);
        builder.handle_packet(at(1050), 1, false);
        assert_eq!(poll(&mut builder, at(1100)), [(1, Some(4000))]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            start in any::<u16>(),
            packets in prop::collection::vec((1_u16..30, 0_u64..90_000), 1..300),
        ) {
            let mut builder = FeedbackBuilder::new();
            let (mut number, mut us) = (start, 5_000_000_u64);
            let mut expected = Vec::new();
            for (step, delay_us) in packets {
                builder.handle_packet(at_us(us), number, false);
                expected.push((number, Some((us / 250) as i64)));
                number = number.wrapping_add(step);
                us += delay_us;
            }
            let mut read = poll(&mut builder, at_us(us + 1_000_000));
            read.retain(|(_, ticks)| ticks.is_some());
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_symbols_pack_and_unpack(symbols in prop::collection::vec(0_u8..3, 1..400)) {
            let deltas = symbols.iter().map(|symbol| match *symbol { SMALL_DELTA => 1, LARGE_DELTA => 2, _ => 0 }).sum();
            let mut out = Vec::new();
            RtcpWriter::new(&mut out).transport_feedback(1, 2, |out| {
                out.extend([0, 0]);
                out.extend((symbols.len() as u16).to_be_bytes());
                out.extend([0, 0, 0, 0]);
                write_chunks(out, &symbols);
                out.extend(std::iter::repeat_n(1, deltas));
            });
            let Some(RtcpPacket::TransportFeedback(feedback)) = RtcpPackets::new(&out).next() else {
                return Err(TestCaseError::fail("unreadable"));
            };
            let received: Vec<bool> = feedback.statuses().map(|(_, ticks)| ticks.is_some()).collect();
            let expected: Vec<bool> = symbols.iter().map(|symbol| *symbol != NOT_RECEIVED).collect();
            prop_assert_eq!(received, expected);
        }
    }
}
