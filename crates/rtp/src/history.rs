//! What was sent to one subscriber on one stream, so that its NACKs can be answered.

use crate::sequence::extend_sequence;
use crate::slab::SlotRef;
use fanlight_base::Mono;
use std::time::Duration;

/// Packets remembered of a video stream, rounded up to a power of two (LiveKit: 500).
pub const HISTORY_VIDEO_PACKETS: usize = 512;
/// Packets remembered of an audio stream (LiveKit: 200).
pub const HISTORY_AUDIO_PACKETS: usize = 256;
/// How often one packet is sent again (LiveKit: 3); what is lost four times is better asked for as a key frame.
pub const RESENDS_MAX: u8 = 3;
/// Longest time between two sendings of a packet, whatever the round-trip time (LiveKit: 100 ms).
pub const RESEND_SPACING_MAX: Duration = Duration::from_millis(100);
/// A ring whose oldest packet is younger than this when it is overwritten grows: NACKs come within a second.
const WORTH_KEEPING_MS: u32 = 1_000;
/// Packets of room a history begins with.
const INITIAL_PACKETS: usize = 32;

/// One packet as it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Extended sequence number as sent.
    pub sequence: u64,
    /// Where the payload lies.
    pub payload: SlotRef,
    /// Timestamp as sent.
    pub timestamp: u32,
    /// The forwarder's own: what it wrote into the payload (a VP8 picture id, say) or where it finds the extensions.
    pub rewrite: u32,
    /// When it was sent last, in milliseconds of the monotonic clock, wrapping every 49 days.
    last_sent_ms: u32,
    /// Marker bit and payload type as in the header's second byte.
    marker_and_type: u8,
    resends: u8,
}

// The design's limit for the state of a (packet, subscriber) pair.
const _: () = assert!(size_of::<HistoryEntry>() <= 32);

impl HistoryEntry {
    /// A packet sent now for the first time.
    pub const fn new(
        now: Mono,
        sequence: u64,
        timestamp: u32,
        marker: bool,
        payload_type: u8,
        payload: SlotRef,
    ) -> Self {
        Self {
            sequence,
            payload,
            timestamp,
            rewrite: 0,
            last_sent_ms: wrapping_ms(now),
            marker_and_type: ((marker as u8) << 7) | (payload_type & 0x7f),
            resends: 0,
        }
    }

    /// The same with the forwarder's own word.
    pub const fn with_rewrite(self, rewrite: u32) -> Self {
        Self { rewrite, ..self }
    }

    /// Marker bit.
    pub const fn marker(&self) -> bool {
        self.marker_and_type & 0x80 != 0
    }

    /// Payload type.
    pub const fn payload_type(&self) -> u8 {
        self.marker_and_type & 0x7f
    }

    /// How often it was sent again.
    pub const fn resends(&self) -> u8 {
        self.resends
    }
}

/// A place without a packet: no stream comes as far as this number.
const FREE: HistoryEntry = HistoryEntry {
    sequence: u64::MAX,
    payload: SlotRef::NONE,
    timestamp: 0,
    rewrite: 0,
    last_sent_ms: 0,
    marker_and_type: 0,
    resends: 0,
};

const fn wrapping_ms(now: Mono) -> u32 {
    (now.ns / 1_000_000) as u32
}

/// The answer to a NACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// Send it again; the sending is counted already.
    Packet(HistoryEntry),
    /// It left a moment ago, the NACK crossed it.
    TooSoon,
    /// It was sent again [`RESENDS_MAX`] times.
    Exhausted,
    /// Never sent, or forgotten.
    Unknown,
}

/// A ring of sent packets, found by sequence number.
#[derive(Debug, Clone)]
pub struct History {
    /// Entry of sequence number `n` at `n % len`; a power of two.
    entries: Vec<HistoryEntry>,
    packets_max: usize,
    highest: Option<u64>,
}

impl History {
    /// An empty history of at most `packets_max` packets, rounded up to a power of two. It takes memory as the
    /// stream's rate asks for it.
    pub fn new(packets_max: usize) -> Self {
        Self { entries: Vec::new(), packets_max: packets_max.next_power_of_two(), highest: None }
    }

    /// Remembers a packet that leaves.
    pub fn push(&mut self, now: Mono, entry: HistoryEntry) {
        if self.entries.is_empty() {
            self.entries.resize(INITIAL_PACKETS.min(self.packets_max), FREE);
        }
        while self.entries.len() < self.packets_max && self.would_lose_a_young_one(now, entry.sequence) {
            self.grow();
        }
        self.highest = Some(self.highest.map_or(entry.sequence, |highest| highest.max(entry.sequence)));
        if let Some(slot) = self.slot_mut(entry.sequence) {
            *slot = entry;
        }
    }

    /// What to do about a NACK for this sequence number. `rtt` is the subscriber's round-trip time: one packet leaves
    /// at most every min(100 ms, 2 × RTT).
    pub fn resend(&mut self, now: Mono, sequence: u16, rtt: Duration) -> Resend {
        let Some(highest) = self.highest else { return Resend::Unknown };
        let sequence = extend_sequence(highest, sequence);
        let spacing_ms = RESEND_SPACING_MAX.min(rtt.saturating_mul(2)).as_millis() as u32;
        let Some(entry) = self.slot_mut(sequence) else { return Resend::Unknown };
        if entry.sequence != sequence {
            return Resend::Unknown;
        }
        if entry.resends >= RESENDS_MAX {
            return Resend::Exhausted;
        }
        // The spacing is between two resends: a first NACK is believed, or a lost packet would wait for a second one.
        if entry.resends > 0 && wrapping_ms(now).wrapping_sub(entry.last_sent_ms) < spacing_ms {
            return Resend::TooSoon;
        }
        entry.resends += 1;
        entry.last_sent_ms = wrapping_ms(now);
        Resend::Packet(*entry)
    }

    /// The packet with this sequence number, without counting a sending.
    pub fn get(&self, sequence: u16) -> Option<&HistoryEntry> {
        let sequence = extend_sequence(self.highest?, sequence);
        let index = self.index(sequence);
        self.entries.get(index).filter(|entry| entry.sequence == sequence)
    }

    /// Forgets all packets (the stream was switched to another source that must not be mixed up with this one).
    pub fn clear(&mut self) {
        self.entries.fill(FREE);
        self.highest = None;
    }

    /// Packets there is room for now.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    fn index(&self, sequence: u64) -> usize {
        (sequence & (self.entries.len() as u64).saturating_sub(1)) as usize
    }

    fn slot_mut(&mut self, sequence: u64) -> Option<&mut HistoryEntry> {
        let index = self.index(sequence);
        self.entries.get_mut(index)
    }

    fn would_lose_a_young_one(&self, now: Mono, sequence: u64) -> bool {
        self.entries.get(self.index(sequence)).is_some_and(|lost| {
            let age_ms = wrapping_ms(now).wrapping_sub(lost.last_sent_ms);
            let is_other = lost.sequence != sequence && lost.sequence != FREE.sequence;
            is_other && age_ms < WORTH_KEEPING_MS
        })
    }

    fn grow(&mut self) {
        let doubled = vec![FREE; self.entries.len() * 2];
        for entry in std::mem::replace(&mut self.entries, doubled) {
            if entry.sequence != FREE.sequence
                && let Some(slot) = self.slot_mut(entry.sequence)
            {
                *slot = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(30);

    fn at(ms: u64) -> Mono {
        Mono { ns: ms * 1_000_000 }
    }

    fn sent(history: &mut History, ms: u64, sequence: u64) {
        let entry = HistoryEntry::new(at(ms), sequence, 90, true, 96, SlotRef::NONE).with_rewrite(7);
        history.push(at(ms), entry);
    }

    #[test]
    fn a_packet_is_sent_again_three_times_and_not_too_often() {
        let mut history = History::new(512);
        sent(&mut history, 0, 65_536);
        let Resend::Packet(entry) = history.resend(at(10), 0, RTT) else { panic!() };
        assert_eq!(
            (entry.sequence, entry.marker(), entry.payload_type(), entry.rewrite),
            (65_536, true, 96, 7)
        );
        assert_eq!(history.resend(at(69), 0, RTT), Resend::TooSoon);
        assert!(matches!(history.resend(at(70), 0, RTT), Resend::Packet(_)));
        // A long round trip does not keep a packet back longer than 100 ms.
        assert_eq!(history.resend(at(169), 0, RTT * 100), Resend::TooSoon);
        assert!(matches!(history.resend(at(170), 0, RTT * 100), Resend::Packet(_)));
        assert_eq!(history.resend(at(900), 0, RTT), Resend::Exhausted);
        assert_eq!(history.resend(at(900), 1, RTT), Resend::Unknown);
    }

    #[test]
    fn numbers_are_found_across_the_wrap() {
        let mut history = History::new(512);
        for sequence in 65_530..65_545 {
            sent(&mut history, 0, sequence);
        }
        assert_eq!(history.get(65_535).unwrap().sequence, 65_535);
        assert_eq!(history.get(3).unwrap().sequence, 65_539);
        assert_eq!(history.get(65_529), None);
    }

    #[test]
    fn a_ring_grows_with_the_rate_up_to_its_bound() {
        let (mut slow, mut fast) = (History::new(512), History::new(512));
        for sequence in 0..2000 {
            sent(&mut slow, sequence * 50, sequence);
            sent(&mut fast, sequence, sequence);
        }
        assert_eq!((slow.capacity(), fast.capacity()), (32, 512));
        assert!(fast.get(2000 - 512).is_some());
        assert!(fast.get(2000 - 513).is_none());
        assert!(slow.get(1999).is_some());
    }

    #[test]
    fn a_cleared_history_knows_nothing() {
        let mut history = History::new(512);
        sent(&mut history, 0, 9);
        history.clear();
        assert_eq!(history.resend(at(1), 9, RTT), Resend::Unknown);
        assert_eq!(History::new(4).resend(at(1), 9, RTT), Resend::Unknown);
    }
}
