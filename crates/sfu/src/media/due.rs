//! What time brings: retransmission requests, feedback, reports, key frame requests, silent layers.

use super::forward::select::LayerSet;
use super::limits::{KEY_FRAME_RETRY, LAYER_PERIOD, LAYERS_MAX};
use super::timers::Timers;
use super::track::{Track, key_frame_interval};
use super::{RoomMedia, Task, TrackKey, TransportId, Transports};
use fanlight_base::{Mono, Now, SendBatch};
use fanlight_rtp::rtcp::RtcpWriter;

impl RoomMedia {
    pub(super) fn run(
        &mut self,
        now: Now,
        transports: &mut Transports,
        when: Mono,
        task: Task,
        batch: &mut SendBatch,
    ) {
        match task {
            Task::Nack(track, layer) => self.request_missing(now, transports, when, (track, layer), batch),
            Task::Feedback(id) => self.send_feedback(now, transports, when, id, batch),
            Task::Reports(id) => self.send_reports(now, transports, when, id, batch),
            Task::KeyFrame(key) => {
                let Some(track) = self.tracks.get_mut(key.0) else { return };
                if Timers::<Task>::take(&mut track.key_frame_alarm, when) {
                    self.ask_key_frames(now, transports, key, batch);
                }
            }
            Task::Layers(key) => self.watch_layers(now, transports, when, key, batch),
        }
    }

    /// Has the key frames that a track's subscriptions need asked for when the room is next driven.
    pub(super) fn want_key_frames(&mut self, now: Now, key: TrackKey) {
        if let Some(track) = self.tracks.get_mut(key.0) {
            self.timers.arm(&mut track.key_frame_alarm, now.mono(), Task::KeyFrame(key));
        }
    }

    /// Asks the publisher for the key frames that subscriptions wait for, merged and throttled by layer.
    pub(super) fn ask_key_frames(
        &mut self,
        now: Now,
        transports: &mut Transports,
        key: TrackKey,
        batch: &mut SendBatch,
    ) {
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        let connected = |id| transports.get(id).is_some_and(|transport| transport.is_connected());
        let wanted = track.wanted(connected).union(std::mem::take(&mut track.lost_pictures));
        let mut again = now.mono() + KEY_FRAME_RETRY;
        if wanted == LayerSet::default() {
            return;
        }
        self.rtcp.clear();
        let mut writer = RtcpWriter::new(&mut self.rtcp);
        let layers = track.layers.iter_mut().filter(|layer| wanted.contains(layer.spatial));
        for layer in layers {
            let Some(stream) = &layer.stream else { continue };
            let interval = key_frame_interval(layer.spatial);
            if layer.requests.ask(now.mono(), interval) {
                writer.pli(self.our_ssrc, stream.ssrc);
                track.counters.plis += 1;
            } else if let Some(due) = layer.requests.waits_until(interval) {
                again = again.min(due);
                track.lost_pictures = track.lost_pictures.with(layer.spatial);
            }
        }
        self.timers.arm(&mut track.key_frame_alarm, again, Task::KeyFrame(key));
        send(transports, track.transport, &self.rtcp, batch);
    }

    fn request_missing(
        &mut self,
        now: Now,
        transports: &mut Transports,
        when: Mono,
        (key, layer): (TrackKey, u8),
        batch: &mut SendBatch,
    ) {
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        let stream = track.layers.get_mut(usize::from(layer)).and_then(|layer| layer.stream.as_mut());
        let Some(stream) = stream else { return };
        if !Timers::<Task>::take(&mut stream.nack_alarm, when) {
            return;
        }
        let Some(nack) = &mut stream.nack else { return };
        if let Some(rtt) = transports.get(track.transport).and_then(|transport| transport.round_trip()) {
            nack.set_rtt(rtt);
        }
        self.sequences.clear();
        nack.poll(now.mono(), &mut self.sequences);
        if let Some(deadline) = nack.deadline() {
            self.timers.arm(&mut stream.nack_alarm, deadline, Task::Nack(key, layer));
        }
        if self.sequences.is_empty() {
            return;
        }
        self.rtcp.clear();
        RtcpWriter::new(&mut self.rtcp).nack(self.our_ssrc, stream.ssrc, &self.sequences);
        send(transports, track.transport, &self.rtcp, batch);
    }

    fn send_feedback(
        &mut self,
        now: Now,
        transports: &mut Transports,
        when: Mono,
        id: TransportId,
        batch: &mut SendBatch,
    ) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !Timers::<Task>::take(&mut peer.feedback_alarm, when) {
            return;
        }
        loop {
            self.rtcp.clear();
            if !peer.feedback.poll(now, self.our_ssrc, peer.feedback_ssrc, &mut self.rtcp) {
                break;
            }
            send(transports, id, &self.rtcp, batch);
        }
        if let Some(deadline) = peer.feedback.deadline() {
            self.timers.arm(&mut peer.feedback_alarm, deadline, Task::Feedback(id));
        }
    }

    fn watch_layers(
        &mut self,
        now: Now,
        transports: &mut Transports,
        when: Mono,
        key: TrackKey,
        batch: &mut SendBatch,
    ) {
        // They came before the layers change.
        self.flush_track(now, transports, key, batch);
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        if !Timers::<Task>::take(&mut track.layers_alarm, when) {
            return;
        }
        let changed = track.watch_layers(now.mono());
        if still_moving(track, now.mono()) {
            self.timers.arm(&mut track.layers_alarm, now.mono() + LAYER_PERIOD, Task::Layers(key));
        }
        if changed {
            self.ask_key_frames(now, transports, key, batch);
        }
    }
}

/// Whether some layer can still fall silent; a track without packets needs no watching, the next one begins it again.
fn still_moving(track: &Track, now: Mono) -> bool {
    let recent =
        |layer: &super::layer::Layer| now.since(layer.last_packet) < 2 * super::limits::LAYER_SILENCE;
    track.layers.iter().any(recent)
}

/// Seals a compound packet, unless it is empty.
pub(super) fn send(transports: &mut Transports, id: TransportId, compound: &[u8], batch: &mut SendBatch) {
    if compound.is_empty() {
        return;
    }
    if let Some(transport) = transports.get_mut(id) {
        transport.send_rtcp(batch, compound);
    }
}

const _: () = assert!(LAYERS_MAX <= 8, "a layer is a bit of a LayerSet");
