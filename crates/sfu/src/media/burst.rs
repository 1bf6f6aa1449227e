//! Packets of one track that are forwarded together.
//!
//! A frame arrives as several packets in one turn. Each of them meets every subscription, whose state, keys and send
//! buffer are cold by the time the next packet comes when there are hundreds. So plain packets wait until the turn is
//! drained, and each subscription takes all of them at once. Whatever else happens to the track is preceded by what
//! waits, so that every subscription sees the same packets in the same order.

use super::awaited::Held;
use super::down::{Outbound, SourceTimes};
use super::forward::rewrite::Numbers;
use super::limits::SLAB_BYTES_MIN;
use super::packet::{Packet, Record};
use super::spec::{MediaEvent, TrackKey};
use super::{RoomMedia, Transports};
use fanlight_base::{Now, SendBatch};
use fanlight_rtp::payload::vp8::Vp8Descriptor;
use fanlight_rtp::{Slab, SlotRef};
use std::collections::VecDeque;

/// Packets of one track that wait; a subscription's part of the cost is spread well over so many.
pub(super) const BURST_PACKETS_MAX: usize = 16;

/// Packets that are forwarded before the batch is sent: 1.2 MB, about what the cache of a core keeps until the kernel has
/// them. Fewer would cut runs to one subscriber short where frames of several tracks come in one turn.
const PART_PACKETS_MAX: usize = 1024;

/// A packet in the middle of a stream, whose payload stands in the room's store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) layer: u8,
    pub(super) source: u32,
    pub(super) numbers: Numbers,
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) vp8: Option<Vp8Descriptor>,
    pub(super) slot: SlotRef,
    /// Some subscription waits for a key frame of its layer.
    pub(super) awaited: bool,
}

impl Waiting {
    /// As subscriptions meet it; `None` when the store has let go of it.
    pub(super) fn packet<'a>(&self, slab: &'a Slab) -> Option<Packet<'a>> {
        let Record { passed, payload } = slab.get(self.slot).and_then(Record::read)?;
        Some(Packet {
            layer: self.layer,
            source: self.source,
            numbers: self.numbers,
            late: false,
            marker: self.marker,
            payload_type: self.payload_type,
            entry: false,
            key_frame: false,
            // Only video waits.
            frame_end: self.marker,
            vp8: self.vp8,
            passed,
            payload,
            slot: self.slot,
        })
    }
}

/// Tracks with packets that wait, and how much of the store these may take before it comes around.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    /// In the order of their first packets.
    tracks: VecDeque<TrackKey>,
    stored_bytes: usize,
}

impl Bursts {
    /// So many bytes went into the store.
    pub(super) fn stored(&mut self, bytes: usize) {
        self.stored_bytes += bytes;
    }

    /// Whether the store could overwrite what waits.
    fn is_full(&self) -> bool {
        self.stored_bytes > SLAB_BYTES_MIN / 2
    }
}

impl RoomMedia {
    /// Has a packet wait.
    pub(super) fn wait(
        &mut self,
        now: Now,
        transports: &mut Transports,
        key: TrackKey,
        waiting: Waiting,
        batch: &mut SendBatch,
    ) {
        if self.tracks.get(key.0).is_some_and(|track| track.served > 0) {
            self.flush_track(now, transports, key, batch);
        }
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        if track.burst.is_empty() {
            self.bursts.tracks.push_back(key);
        }
        track.burst.push(waiting);
        if track.burst.len() >= BURST_PACKETS_MAX {
            self.flush_track(now, transports, key, batch);
        }
        if self.bursts.is_full() {
            self.flush(now, transports, batch);
        }
    }

    /// Forwards everything that waits.
    pub(super) fn flush(&mut self, now: Now, transports: &mut Transports, batch: &mut SendBatch) {
        let mut budget = usize::MAX;
        self.flush_within(now, transports, &mut budget, batch);
    }

    /// Forwards as much of what waits as should be sent before there is more; true when that was all.
    pub(crate) fn flush_part(
        &mut self,
        now: Now,
        transports: &mut Transports,
        batch: &mut SendBatch,
    ) -> bool {
        let mut budget = PART_PACKETS_MAX;
        self.flush_within(now, transports, &mut budget, batch)
    }

    /// Forwards what waits of one track.
    pub(super) fn flush_track(
        &mut self,
        now: Now,
        transports: &mut Transports,
        key: TrackKey,
        batch: &mut SendBatch,
    ) {
        let mut budget = usize::MAX;
        self.flush_track_within(now, transports, key, &mut budget, batch);
    }

    fn flush_within(
        &mut self,
        now: Now,
        transports: &mut Transports,
        budget: &mut usize,
        batch: &mut SendBatch,
    ) -> bool {
        while let Some(key) = self.bursts.tracks.front().copied() {
            if *budget == 0 || !self.flush_track_within(now, transports, key, budget, batch) {
                return false;
            }
            self.bursts.tracks.pop_front();
        }
        self.bursts.stored_bytes = 0;
        true
    }

    /// Serves subscriptions with what waits until about `budget` packets have left; true when all have it.
    fn flush_track_within(
        &mut self,
        now: Now,
        transports: &mut Transports,
        key: TrackKey,
        budget: &mut usize,
        batch: &mut SendBatch,
    ) -> bool {
        let Some(track) = self.tracks.get_mut(key.0).filter(|track| !track.burst.is_empty()) else {
            return true;
        };
        let mut burst = std::mem::take(&mut track.burst);
        let slab = self.store.slab();
        let packets: [Option<Packet<'_>>; BURST_PACKETS_MAX] =
            std::array::from_fn(|place| burst.get(place)?.packet(slab));
        let mut out = Outbound { now, transports, batch, header: &mut self.header };
        for down in track.downs.iter_mut().skip(track.served) {
            if *budget == 0 {
                track.burst = burst;
                return false;
            }
            *budget = budget.saturating_sub(burst.len());
            track.served += 1;
            for (waiting, packet) in burst.iter_mut().zip(&packets) {
                let Some(packet) = packet else { continue };
                match down.forward(&mut out, packet, &SourceTimes::NONE) {
                    Ok(false) => {}
                    Ok(true) => self.events.push(MediaEvent::FirstForwarded { down: down.key }),
                    Err(dropped) => {
                        waiting.awaited |= dropped.awaits_key_frame();
                        down.counters.count(dropped);
                    }
                }
            }
        }
        track.served = 0;
        for waiting in &burst {
            let (timestamp, marker) = (waiting.numbers.timestamp, waiting.marker);
            let held = Held { timestamp, marker, payload_type: waiting.payload_type, slot: waiting.slot };
            track.hold(waiting.layer, waiting.numbers.sequence, held, waiting.awaited);
        }
        burst.clear();
        track.burst = burst;
        true
    }
}
