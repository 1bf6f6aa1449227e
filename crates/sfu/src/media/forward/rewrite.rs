//! The numbers a subscriber sees: one continuous stream, whatever layers it is made of.
//!
//! Every source (one SSRC of the publisher while it is being forwarded) has fixed offsets from its own numbers to the
//! subscriber's. Gaps of the source stay gaps, so that a packet that comes late finds its place free. The source before
//! the last switch is remembered for its latecomers.

use fanlight_base::Mono;

/// A timestamp further than this from what the clock says is not believed (a wrong sender report, or a publisher whose
/// media clock stood still while it was muted); LiveKit's bound for resuming.
const TIMESTAMP_DOUBT_S: u32 = 2;

/// Numbers of a VP8 payload descriptor (RFC 7741 §4.2) that have to go on over a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::media) struct Vp8Numbers {
    /// Picture id, 15 bits; a 7-bit one is cut when written.
    pub(in crate::media) picture_id: u16,
    /// TL0PICIDX.
    pub(in crate::media) tl0_pic_idx: u8,
    /// KEYIDX, 5 bits.
    pub(in crate::media) key_idx: u8,
}

/// Numbers of a packet, the source's or the subscriber's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) struct Numbers {
    /// Extended sequence number.
    pub(in crate::media) sequence: u64,
    /// RTP timestamp.
    pub(in crate::media) timestamp: u32,
    /// Of VP8; zeros otherwise.
    pub(in crate::media) vp8: Vp8Numbers,
}

/// How the timeline of a new source lies to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) enum Align {
    /// It is the same stream as before, after a pause.
    Same,
    /// Sender reports of both are known: add this to the new source's timestamps to get the old one's.
    Delta(u32),
    /// Not known.
    Unknown,
}

/// The packet is older than what the subscriber's stream began with, or than the last two switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) struct Stale;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    id: u32,
    first: u64,
    sequence_offset: u64,
    timestamp_offset: u32,
    /// Offset without what had to be added so that timestamps rise over a switch: the next switch starts from here.
    true_offset: u32,
    vp8_offset: Vp8Numbers,
}

/// The numbering of one subscriber's stream.
#[derive(Debug, Clone)]
pub(in crate::media) struct Rewrite {
    current: Option<Source>,
    previous: Option<(Source, u64)>,
    last: Numbers,
    last_at: Mono,
}

impl Rewrite {
    /// A stream that begins after these numbers.
    pub(in crate::media) fn new(before: Numbers) -> Self {
        Self { current: None, previous: None, last: before, last_at: Mono::default() }
    }

    /// Numbers of the latest packet.
    pub(in crate::media) fn last(&self) -> Numbers {
        self.last
    }

    /// The current source, what is added to its timestamps, and when its latest packet came.
    pub(in crate::media) fn source(&self) -> Option<(u32, u32, Mono)> {
        self.current.map(|source| (source.id, source.timestamp_offset, self.last_at))
    }

    /// Whether the current source began with this packet.
    pub(in crate::media) fn began_with(&self, source_id: u32, sequence: u64) -> bool {
        self.current.is_some_and(|source| source.id == source_id && source.first == sequence)
    }

    /// Begins to forward another source, or the same one after a pause, with this packet.
    pub(in crate::media) fn switch(
        &mut self,
        now: Mono,
        source_id: u32,
        packet: &Numbers,
        align: Align,
        clock_rate: u32,
    ) {
        let next = Numbers {
            sequence: self.last.sequence.wrapping_add(1),
            timestamp: self.next_timestamp(now, packet, align, clock_rate),
            vp8: Vp8Numbers {
                picture_id: self.last.vp8.picture_id.wrapping_add(1),
                tl0_pic_idx: self.last.vp8.tl0_pic_idx.wrapping_add(1),
                key_idx: self.last.vp8.key_idx.wrapping_add(1),
            },
        };
        let timestamp_offset = next.timestamp.wrapping_sub(packet.timestamp);
        let true_offset = match (align, self.current) {
            (Align::Same, Some(source)) if self.doubted(now, packet, align, clock_rate).is_none() => {
                source.true_offset
            }
            (Align::Delta(delta), Some(source)) if self.doubted(now, packet, align, clock_rate).is_none() => {
                source.true_offset.wrapping_add(delta)
            }
            _ => timestamp_offset,
        };
        self.previous = self.current.map(|source| (source, self.last.sequence));
        self.current = Some(Source {
            id: source_id,
            first: packet.sequence,
            sequence_offset: next.sequence.wrapping_sub(packet.sequence),
            timestamp_offset,
            true_offset,
            vp8_offset: Vp8Numbers {
                picture_id: next.vp8.picture_id.wrapping_sub(packet.vp8.picture_id),
                tl0_pic_idx: next.vp8.tl0_pic_idx.wrapping_sub(packet.vp8.tl0_pic_idx),
                key_idx: next.vp8.key_idx.wrapping_sub(packet.vp8.key_idx),
            },
        });
    }

    /// The subscriber's numbers of a packet of the current source.
    #[inline]
    pub(in crate::media) fn next(
        &mut self,
        now: Mono,
        source_id: u32,
        packet: &Numbers,
    ) -> Result<Numbers, Stale> {
        let Some(source) = &self.current else { return Err(Stale) };
        if packet.sequence < source.first || source_id != source.id {
            return self.late(source_id, packet);
        }
        let out = source.apply(packet);
        if out.sequence > self.last.sequence {
            self.last = out;
            self.last_at = now;
        }
        Ok(out)
    }

    /// The subscriber's numbers of a packet from before the last switch, when it was within the stream then.
    pub(in crate::media) fn late(&self, source_id: u32, packet: &Numbers) -> Result<Numbers, Stale> {
        let (source, end) = self.previous.as_ref().ok_or(Stale)?;
        if source_id != source.id || packet.sequence < source.first {
            return Err(Stale);
        }
        let out = source.apply(packet);
        if out.sequence > *end { Err(Stale) } else { Ok(out) }
    }

    fn next_timestamp(&self, now: Mono, packet: &Numbers, align: Align, clock_rate: u32) -> u32 {
        let Some(source) = self.current else { return self.last.timestamp.wrapping_add(1) };
        if let Some(expected) = self.doubted(now, packet, align, clock_rate) {
            return expected;
        }
        let delta = if let Align::Delta(delta) = align { delta } else { 0 };
        let aligned = packet.timestamp.wrapping_add(delta).wrapping_add(source.true_offset);
        let ahead = aligned.wrapping_sub(self.last.timestamp);
        if ahead == 0 || ahead > u32::MAX / 2 { self.last.timestamp.wrapping_add(1) } else { aligned }
    }

    /// What the clock says, where the packet's own timestamp cannot be used.
    fn doubted(&self, now: Mono, packet: &Numbers, align: Align, clock_rate: u32) -> Option<u32> {
        let source = self.current?;
        let elapsed = now.since(self.last_at).as_millis().min(u128::from(u32::MAX)) as u64;
        // Wrapping like the timestamp itself.
        let ticks = (elapsed * u64::from(clock_rate) / 1000) as u32;
        let expected = self.last.timestamp.wrapping_add(ticks.max(1));
        let delta = match align {
            Align::Same => 0,
            Align::Delta(delta) => delta,
            Align::Unknown => return Some(expected),
        };
        let aligned = packet.timestamp.wrapping_add(delta).wrapping_add(source.true_offset);
        let off = aligned.wrapping_sub(expected).cast_signed();
        let doubt = clock_rate.saturating_mul(TIMESTAMP_DOUBT_S).cast_signed();
        let wrong = off < -doubt || (off > doubt && align != Align::Same);
        wrong.then_some(expected)
    }
}

impl Source {
    #[inline]
    fn apply(&self, packet: &Numbers) -> Numbers {
        Numbers {
            sequence: packet.sequence.wrapping_add(self.sequence_offset),
            timestamp: packet.timestamp.wrapping_add(self.timestamp_offset),
            vp8: Vp8Numbers {
                picture_id: packet.vp8.picture_id.wrapping_add(self.vp8_offset.picture_id) & 0x7fff,
                tl0_pic_idx: packet.vp8.tl0_pic_idx.wrapping_add(self.vp8_offset.tl0_pic_idx),
                key_idx: packet.vp8.key_idx.wrapping_add(self.vp8_offset.key_idx) & 0x1f,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_base::Random;
    use std::collections::{BTreeMap, BTreeSet};

    const RATE: u32 = 90_000;

    fn at(ms: u64) -> Mono {
        Mono { ns: ms * 1_000_000 }
    }

    fn numbers(sequence: u64, timestamp: u32, picture_id: u16) -> Numbers {
        let vp8 = Vp8Numbers { picture_id, tl0_pic_idx: picture_id as u8, key_idx: 3 };
        Numbers { sequence, timestamp, vp8 }
    }

    fn stream() -> Rewrite {
        Rewrite::new(numbers(100, 5_000, 40))
    }

    #[test]
    fn the_first_packet_follows_what_the_stream_was_made_with() {
        let mut rewrite = stream();
        let first = numbers(7_000_000, 99, 0x7fff);
        rewrite.switch(at(0), 0, &first, Align::Unknown, RATE);
        let out = rewrite.next(at(0), 0, &first).unwrap();
        assert_eq!((out.sequence, out.timestamp, out.vp8.picture_id), (101, 5_001, 41));
        let second = rewrite.next(at(33), 0, &numbers(7_000_001, 3_069, 0)).unwrap();
        assert_eq!((second.sequence, second.timestamp, second.vp8.picture_id), (102, 7_971, 42));
    }

    #[test]
    fn a_gap_stays_a_gap_and_a_latecomer_finds_its_place() {
        let mut rewrite = stream();
        rewrite.switch(at(0), 0, &numbers(10, 0, 0), Align::Unknown, RATE);
        let sequences: Vec<u64> = [10, 12, 13, 11]
            .iter()
            .map(|&sequence| rewrite.next(at(0), 0, &numbers(sequence, 0, 0)).unwrap().sequence)
            .collect();
        assert_eq!(sequences, [101, 103, 104, 102]);
        assert_eq!(rewrite.last().sequence, 104);
    }

    #[test]
    fn latecomers_of_the_source_before_the_switch_fill_its_gaps_and_others_are_stale() {
        let mut rewrite = stream();
        rewrite.switch(at(0), 1, &numbers(10, 0, 0), Align::Unknown, RATE);
        rewrite.next(at(0), 1, &numbers(10, 0, 0)).unwrap();
        rewrite.next(at(33), 1, &numbers(12, 3_000, 1)).unwrap();
        rewrite.switch(at(66), 0, &numbers(900, 777, 9), Align::Delta(6_000 - 777), RATE);
        let out = rewrite.next(at(66), 0, &numbers(900, 777, 9)).unwrap();
        assert_eq!((out.sequence, out.timestamp), (104, 5_001 + 6_000));
        assert_eq!(rewrite.next(at(67), 1, &numbers(11, 0, 0)).unwrap().sequence, 102);
        assert_eq!(rewrite.next(at(67), 1, &numbers(13, 0, 0)), Err(Stale));
        assert_eq!(rewrite.next(at(67), 1, &numbers(9, 0, 0)), Err(Stale));
        assert_eq!(rewrite.next(at(67), 0, &numbers(899, 0, 0)), Err(Stale));
        assert_eq!(rewrite.last().sequence, 104);
    }

    #[test]
    fn a_layer_that_lags_is_pushed_forward_once_and_the_next_switch_forgets_it() {
        let mut rewrite = stream();
        rewrite.switch(at(0), 0, &numbers(1, 0, 0), Align::Unknown, RATE);
        rewrite.next(at(0), 0, &numbers(1, 0, 0)).unwrap();
        rewrite.next(at(100), 0, &numbers(2, 9_000, 1)).unwrap();
        // Captured 33 ms before the last one that was sent.
        rewrite.switch(at(101), 1, &numbers(50, 6_000, 8), Align::Delta(0), RATE);
        let pushed = rewrite.next(at(101), 1, &numbers(50, 6_000, 8)).unwrap();
        assert_eq!(pushed.timestamp, 5_001 + 9_001);
        rewrite.switch(at(200), 0, &numbers(5, 18_000, 3), Align::Delta(0), RATE);
        assert_eq!(rewrite.next(at(200), 0, &numbers(5, 18_000, 3)).unwrap().timestamp, 5_001 + 18_000);
    }

    #[test]
    fn without_sender_reports_the_clock_gives_the_step() {
        let mut rewrite = stream();
        rewrite.switch(at(0), 0, &numbers(1, 0, 0), Align::Unknown, RATE);
        rewrite.next(at(0), 0, &numbers(1, 0, 0)).unwrap();
        rewrite.switch(at(500), 1, &numbers(1, 123_456_789, 0), Align::Unknown, RATE);
        let out = rewrite.next(at(500), 1, &numbers(1, 123_456_789, 0)).unwrap();
        assert_eq!(out.timestamp, 5_001 + 45_000);
    }

    #[test]
    fn a_sender_report_that_is_seconds_off_is_not_believed() {
        for delta in [10 * RATE, (10 * RATE).wrapping_neg()] {
            let mut rewrite = stream();
            rewrite.switch(at(0), 0, &numbers(1, 0, 0), Align::Unknown, RATE);
            rewrite.next(at(0), 0, &numbers(1, 0, 0)).unwrap();
            rewrite.switch(at(100), 1, &numbers(1, 9_000, 0), Align::Delta(delta), RATE);
            assert_eq!(rewrite.next(at(100), 1, &numbers(1, 9_000, 0)).unwrap().timestamp, 5_001 + 9_000);
        }
    }

    #[test]
    fn after_a_pause_the_same_stream_keeps_its_timeline_unless_its_clock_stood_still() {
        for (resumed_at, timestamp, expected) in [(60_000, 5_400_000, 5_400_000), (60_000, 3_000, 5_400_000)]
        {
            let mut rewrite = stream();
            rewrite.switch(at(0), 0, &numbers(1, 0, 0), Align::Unknown, RATE);
            rewrite.next(at(0), 0, &numbers(1, 0, 0)).unwrap();
            let packet = numbers(5_000, timestamp, 0);
            rewrite.switch(at(resumed_at), 0, &packet, Align::Same, RATE);
            let out = rewrite.next(at(resumed_at), 0, &packet).unwrap();
            assert_eq!((out.sequence, out.timestamp), (102, 5_001 + expected));
        }
    }

    /// Layers with random numbers, losses and reordering; switches at random times.
    #[test]
    fn whatever_comes_each_number_is_used_once_and_the_stream_has_no_gap_but_those_of_its_sources() {
        for seed in 0..200u8 {
            let mut random = Random::from_seed([seed; 32]);
            let mut rewrite = stream();
            let mut used = BTreeMap::new();
            let mut next = [random.below(1 << 40), random.below(1 << 40), 5];
            let mut lost: BTreeSet<(u8, u64)> = BTreeSet::new();
            let mut holes = BTreeSet::new();
            let mut layer = 0u8;
            let mut begun = false;
            for step in 0..400u64 {
                if !begun || random.below(40) == 0 {
                    layer = random.below(3) as u8;
                    let packet = numbers(next[usize::from(layer)], random.u32(), random.u32() as u16);
                    let before = rewrite.last();
                    rewrite.switch(at(step), u32::from(layer), &packet, Align::Unknown, RATE);
                    let out = rewrite.next(at(step), u32::from(layer), &packet).unwrap();
                    assert_eq!(out.sequence, before.sequence + 1);
                    let ahead = out.timestamp.wrapping_sub(before.timestamp);
                    assert!((1..u32::MAX / 2).contains(&ahead));
                    assert_eq!(out.vp8.picture_id, before.vp8.picture_id.wrapping_add(1) & 0x7fff);
                    assert!(used.insert(out.sequence, (layer, packet.sequence)).is_none());
                    next[usize::from(layer)] += 1;
                    begun = true;
                    continue;
                }
                let sequence = next[usize::from(layer)];
                next[usize::from(layer)] += 1;
                if random.below(5) == 0 {
                    lost.insert((layer, sequence));
                    continue;
                }
                let out = rewrite.next(at(step), u32::from(layer), &numbers(sequence, 0, 0)).unwrap();
                assert!(used.insert(out.sequence, (layer, sequence)).is_none());
                if random.below(3) == 0
                    && let Some((layer, sequence)) = lost.pop_first()
                    && let Ok(out) = rewrite.next(at(step), u32::from(layer), &numbers(sequence, 0, 0))
                {
                    assert!(used.insert(out.sequence, (layer, sequence)).is_none());
                }
            }
            for number in 101..=rewrite.last().sequence {
                if !used.contains_key(&number) {
                    holes.insert(number);
                }
            }
            assert!(holes.len() <= lost.len() + 400 / 5 * 2);
        }
    }
}
