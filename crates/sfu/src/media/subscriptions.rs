//! Subscriptions as the room makes and ends them.

use super::down::{Down, DownCounters, Dropped};
use super::forward::rewrite::{Numbers, Vp8Numbers};
use super::limits::SENDER_REPORT_PERIOD_EARLY;
use super::peer::Outgoing;
use super::spec::{DownKey, Subscribe};
use super::track::Track;
use super::{DownPlace, RoomMedia, Task, TransportId};
use crate::model::Kind;
use fanlight_base::Now;
use fanlight_events::{LayerCounters, TrackCounters};

/// First sequence numbers stay below this: a receiver that misses the packets around a wrap before it has seen any
/// other could not know that there was one (RFC 3711 §3.3.1).
const FIRST_SEQUENCE_MAX: u64 = 1 << 15;
/// RTX begins in 2^15..2^15 + 2^14, as LiveKit's does.
const FIRST_RTX_SEQUENCE: u64 = 1 << 15;
const FIRST_RTX_SEQUENCES: u64 = 1 << 14;

impl RoomMedia {
    /// Begins to send a track to a subscriber; `None` when the track is gone or an SSRC is in use on the transport.
    pub(crate) fn subscribe(&mut self, now: Now, subscribe: Subscribe) -> Option<DownKey> {
        let track = self.tracks.get_mut(subscribe.track.0)?;
        let place = DownPlace { track: subscribe.track, index: track.downs.len() };
        let key = DownKey(self.downs.insert(place));
        let peer = self.peers.entry(subscribe.transport);
        let Some(used) = peer.claim(subscribe.ssrc, Outgoing::Media(key)) else {
            self.downs.remove(key.0);
            return None;
        };
        let rtx_used = match subscribe.rtx_ssrc.map(|ssrc| peer.claim(ssrc, Outgoing::Repair(key))) {
            Some(Some(used)) => used,
            None => None,
            Some(None) => {
                peer.unclaim(subscribe.ssrc);
                self.downs.remove(key.0);
                return None;
            }
        };
        peer.downs.push(key);
        let random = &mut self.random;
        let before = Numbers {
            sequence: used.unwrap_or_else(|| random.below(FIRST_SEQUENCE_MAX)),
            timestamp: random.u32(),
            vp8: Vp8Numbers {
                picture_id: random.below(1 << 15) as u16,
                tl0_pic_idx: random.below(1 << 8) as u8,
                key_idx: random.below(1 << 5) as u8,
            },
        };
        let rtx_next =
            rtx_used.map_or_else(|| FIRST_RTX_SEQUENCE + random.below(FIRST_RTX_SEQUENCES), |last| last + 1);
        track.downs.push(Down::new(key, &subscribe, track.active(), before, rtx_next));
        track.note_downs();
        let when = now.mono() + SENDER_REPORT_PERIOD_EARLY;
        self.timers.arm(&mut peer.reports_alarm, when, Task::Reports(subscribe.transport));
        self.want_key_frames(now, subscribe.track);
        Some(key)
    }

    /// The m-line was negotiated anew: codecs, ids and mid are taken over; SSRCs and the layer wanted stay.
    pub(crate) fn update_subscribe(&mut self, _now: Now, down: DownKey, subscribe: Subscribe) {
        let Some(place) = self.downs.get(down.0) else { return };
        let Some(track) = self.tracks.get_mut(place.track.0) else { return };
        if let Some(down) = track.downs.get_mut(place.index) {
            down.update(&subscribe);
        }
        track.note_downs();
    }

    /// What the subscriber wants now.
    pub(crate) fn set_settings(&mut self, now: Now, down: DownKey, enabled: bool, max_spatial: u8) {
        let Some(place) = self.downs.get(down.0).copied() else { return };
        let Some(track) = self.tracks.get_mut(place.track.0) else { return };
        let active = track.active();
        if let Some(down) = track.downs.get_mut(place.index) {
            down.select.set(enabled, max_spatial, active);
        }
        self.want_key_frames(now, place.track);
    }

    /// A transport can send from now on: its subscriptions get their key frames.
    pub(crate) fn transport_connected(&mut self, now: Now, id: TransportId) {
        let Some(peer) = self.peers.get(id) else { return };
        let mut tracks: Vec<_> =
            peer.downs.iter().filter_map(|down| self.downs.get(down.0)).map(|place| place.track).collect();
        tracks.sort_unstable();
        tracks.dedup();
        for track in tracks {
            self.want_key_frames(now, track);
        }
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, down: DownKey) -> TrackCounters {
        let Some(place) = self.downs.remove(down.0) else { return TrackCounters::default() };
        let Some(track) = self.tracks.get_mut(place.track.0) else { return TrackCounters::default() };
        if place.index >= track.downs.len() {
            return TrackCounters::default();
        }
        let mut down = track.downs.swap_remove(place.index);
        track.note_downs();
        down.counters.settle();
        let totals = totals(&down.counters, track);
        if let Some(moved) = track.downs.get(place.index)
            && let Some(moved_place) = self.downs.get_mut(moved.key.0)
        {
            moved_place.index = place.index;
        }
        self.release(&down);
        totals
    }

    /// Counters of a subscription so far.
    pub(crate) fn subscribe_counters(&self, down: DownKey) -> Option<TrackCounters> {
        let place = self.downs.get(down.0)?;
        let track = self.tracks.get(place.track.0)?;
        Some(totals(&track.downs.get(place.index)?.counters, track))
    }

    /// Packets of the track that did not go to a subscriber, by reason.
    #[cfg(test)]
    pub(super) fn drops(&self, down: DownKey) -> Vec<(&'static str, u64)> {
        let down =
            self.downs.get(down.0).and_then(|place| self.tracks.get(place.track.0)?.downs.get(place.index));
        down.map_or_else(Vec::new, |down| down.counters.drops())
    }

    /// Gives the SSRCs of a subscription back to its transport.
    pub(super) fn release(&mut self, down: &Down) {
        let Some(peer) = self.peers.get_mut(down.transport) else { return };
        peer.retire(down.ssrc(), down.last().sequence);
        if let Some(rtx) = down.rtx() {
            peer.retire(rtx.ssrc, rtx.next);
        }
        peer.forget_down(down.key);
    }
}

impl DownCounters {
    /// Notes a packet that was not forwarded.
    pub(super) fn count(&mut self, dropped: Dropped) {
        if dropped == Dropped::NoKeyFrame {
            self.waiting += 1;
        } else if let Some(count) = self.dropped.get_mut(dropped as usize) {
            *count += 1;
        }
    }

    /// What waited for a key frame is dropped.
    pub(super) fn settle(&mut self) {
        self.waited = std::mem::take(&mut self.waiting);
        if let Some(count) = self.dropped.get_mut(Dropped::NoKeyFrame as usize) {
            *count += self.waited;
        }
    }

    /// One of those that waited for the latest key frame was forwarded after all. The counter has not been told yet with
    /// it: both happen in one call.
    pub(super) fn caught_up(&mut self) {
        if let Some(waited) = self.waited.checked_sub(1)
            && let Some(count) = self.dropped.get_mut(Dropped::NoKeyFrame as usize)
        {
            self.waited = waited;
            *count -= 1;
        }
    }

    #[cfg(test)]
    fn drops(&self) -> Vec<(&'static str, u64)> {
        Dropped::ALL.iter().zip(self.dropped).map(|(reason, count)| (reason.as_str(), count)).collect()
    }
}

fn totals(counters: &DownCounters, track: &Track) -> TrackCounters {
    let unasked =
        |reason: &Dropped| matches!(reason, Dropped::Disabled | Dropped::OtherLayer | Dropped::NextLayer);
    let reasons = Dropped::ALL.iter().zip(counters.dropped);
    let mut all = TrackCounters {
        header_bytes: counters.header_bytes,
        lost: counters.lost,
        dropped: reasons.filter(|(reason, _)| !unasked(reason)).map(|(_, count)| count).sum(),
        nacks: counters.nacks,
        plis: counters.plis,
        firs: counters.firs,
        key_frames: counters.key_frames,
        jitter_us: counters.jitter_us,
        rtt_us: counters.rtt_us,
        ..TrackCounters::default()
    };
    for (forwarded, layer) in counters.layers.iter().zip(&track.layers) {
        all.packets += forwarded.packets;
        all.bytes += forwarded.bytes;
        all.retransmitted += forwarded.retransmitted;
        all.retransmitted_bytes += forwarded.retransmitted_bytes;
        all.frames += forwarded.frames;
        if track.kind == Kind::Video && forwarded.packets > 0 {
            all.layers.push(LayerCounters {
                rid: layer.rid.clone(),
                spatial: layer.spatial,
                packets: forwarded.packets,
                bytes: forwarded.bytes,
                retransmitted: forwarded.retransmitted,
                frames: forwarded.frames,
            });
        }
    }
    all
}
