//! Tracks a participant publishes: announced, negotiated, flowing, ended.

use super::announce::{self, TF_NO_DTX, TF_STEREO};
use crate::codec;
use crate::ctx::Ctx;
use crate::input::AddTrack;
use crate::limits::{PENDING_TRACKS_MAX, PUBLISHED_TRACKS_MAX, QUEUED_PER_CID_MAX};
use crate::media::TrackKey;
use crate::model::{CodecInfo, Kind, TrackInfo, VideoLayerMode};
use crate::output::{EchoedRequest, RequestReason, Signal};
use crate::room::Room;
use crate::spec::publish_spec;
use crate::tracks::Removed;
use fanlight_base::{PeerKey, TrackSid};
use fanlight_events::{
    Direction, SampleBody, TrackChanged, TrackCounters, TrackPublishRequested, TrackPublished, TrackSample,
    TrackUnpublished,
};
use fanlight_transport::negotiate::{Codec, PublishDecision, PublishedSection};
use fanlight_transport::sdp::MediaKind;
use std::collections::BTreeSet;

/// How far a track is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Announced; media may be negotiated, none has come.
    Pending,
    /// Media has come: others know of it.
    Flowing,
}

/// A track of its publisher.
#[derive(Debug)]
pub(crate) struct LocalTrack {
    pub(crate) info: TrackInfo,
    pub(crate) cid: String,
    pub(crate) stage: Stage,
    /// The m-lines it comes on: one for each codec.
    pub(crate) lines: Vec<Line>,
    /// Its publisher knows that somebody subscribes.
    pub(crate) heard: bool,
    /// Counters of m-lines that ended.
    past: TrackCounters,
}

/// An m-line on which a track is sent.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) key: TrackKey,
    pub(crate) section: PublishedSection,
    /// Codec of what comes, once it does.
    pub(crate) mime: String,
}

/// A layer of a track, as its packets show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenLayer {
    pub(crate) rid: String,
    pub(crate) spatial: u8,
    pub(crate) ssrc: u32,
    pub(crate) repair_ssrc: u32,
}

impl LocalTrack {
    fn new(info: TrackInfo, cid: String) -> Self {
        let past = TrackCounters::default();
        Self { info, cid, stage: Stage::Pending, lines: Vec::new(), heard: false, past }
    }

    /// Whether others know of it.
    pub(crate) fn is_flowing(&self) -> bool {
        self.stage == Stage::Flowing
    }

    /// Of its m-lines.
    fn mids(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.section.mid.clone()).collect()
    }

    /// What its announcement means for the answer.
    pub(crate) fn decision(&self) -> PublishDecision {
        let info = &self.info;
        let has = |feature| info.audio_features.contains(&feature);
        let asked = info.codecs.iter().find(|codec| !codec.mime_type.is_empty());
        PublishDecision {
            requested_codec: asked.and_then(|codec| Codec::parse(&codec.mime_type)),
            red: info.kind == Kind::Audio && !info.disable_red,
            stereo: info.stereo || has(TF_STEREO),
            dtx: !info.disable_dtx && !has(TF_NO_DTX),
        }
    }

    fn has_cid(&self, cid: &str) -> bool {
        self.cid == cid || self.info.codecs.iter().any(|codec| codec.cid == cid || codec.sdp_cid == cid)
    }

    /// Layers as they are known, by RID or number.
    fn layers(&self) -> Vec<String> {
        let seen = self.info.layers.iter().filter(|layer| layer.ssrc != 0);
        seen.map(
            |layer| {
                if layer.rid.is_empty() { layer.spatial_layer.to_string() } else { layer.rid.clone() }
            },
        )
        .collect()
    }
}

/// The track that an offered section carries: the one it carried before, else the one with that client id, else the
/// first of the kind that has no section. Tracks in `claimed` have found theirs.
pub(crate) fn find(
    tracks: &[LocalTrack],
    claimed: &BTreeSet<usize>,
    mid: &str,
    kind: MediaKind,
    msid: Option<&str>,
) -> Option<usize> {
    let of_kind = |track: &LocalTrack| media_kind(track.info.kind) == kind;
    let carried = tracks.iter().position(|track| {
        track.lines.iter().any(|line| line.section.mid == mid && line.section.track_id.as_deref() == msid)
    });
    let named = || {
        let cid = msid.filter(|cid| !cid.is_empty())?;
        tracks.iter().position(|track| of_kind(track) && track.has_cid(cid) && !carries(track, cid))
    };
    let first = || {
        let mut candidates = tracks.iter().enumerate();
        let found = candidates
            .find(|(index, track)| of_kind(track) && track.lines.is_empty() && !claimed.contains(index));
        found.map(|(index, _)| index)
    };
    carried.or_else(named).or_else(first)
}

/// Whether a line with this client id is there already: one id names one section.
fn carries(track: &LocalTrack, cid: &str) -> bool {
    track.lines.iter().any(|line| line.section.track_id.as_deref() == Some(cid))
}

const fn media_kind(kind: Kind) -> MediaKind {
    match kind {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

impl Room {
    /// A track is announced.
    pub(crate) fn add_track(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, request: AddTrack) {
        let Some(peer) = self.peers.get(&key) else { return };
        if let Err(refusal) = announce::check(&peer.permission, &request) {
            self.refuse_track(ctx, key, refusal.reason, refusal.why, request);
            return;
        }
        if !request.sid.is_empty() {
            self.add_codec(ctx, key, request);
            return;
        }
        if peer.tracks.iter().any(|track| track.cid == request.cid) {
            self.queue_track(ctx, key, request);
            return;
        }
        let pending = peer.tracks.iter().filter(|track| track.stage == Stage::Pending).count();
        if pending >= PENDING_TRACKS_MAX {
            self.refuse_track(ctx, key, RequestReason::LimitExceeded, "PENDING_TRACKS_MAX 20", request);
            return;
        }
        if peer.tracks.len() >= PUBLISHED_TRACKS_MAX {
            self.refuse_track(ctx, key, RequestReason::LimitExceeded, "PUBLISHED_TRACKS_MAX 100", request);
            return;
        }
        let sid = announce::track_sid(&mut self.random, request.kind, request.source);
        let info = announce::track_info(&request, sid.clone(), &self.config.enabled_codecs);
        let fact = TrackPublishRequested { kind: info.kind, source: info.source.as_str().to_owned() };
        ctx.fact(self.place(Some(&peer.sid), Some(&sid)), fact);
        let track = Box::new(info.clone());
        self.signal(ctx, key, Signal::TrackPublished { cid: request.cid.clone(), track });
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.tracks.push(LocalTrack::new(info, request.cid));
        }
        // The offer may have come before the announcement.
        self.bind_published(ctx, key);
    }

    fn add_codec(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, request: AddTrack) {
        let enabled = &self.config.enabled_codecs;
        let track = self.peers.get_mut(&key).and_then(|peer| peer.track_mut(&request.sid));
        let Some(track) = track else {
            self.refuse_track(ctx, key, RequestReason::NotFound, "no track with this sid", request);
            return;
        };
        announce::add_codecs(&mut track.info, &request, enabled);
        let info = Box::new(track.info.clone());
        self.signal(ctx, key, Signal::TrackPublished { cid: request.cid, track: info });
        self.bind_published(ctx, key);
    }

    fn queue_track(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, request: AddTrack) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let same = peer.queued.iter().filter(|queued| queued.cid == request.cid).count();
        if same >= QUEUED_PER_CID_MAX || peer.queued.len() >= PENDING_TRACKS_MAX {
            self.refuse_track(ctx, key, RequestReason::LimitExceeded, "QUEUED_PER_CID_MAX 3", request);
            return;
        }
        peer.queued.push_back(request.clone());
        self.respond(ctx, key, 0, RequestReason::Queued, "", EchoedRequest::AddTrack(Box::new(request)));
    }

    fn refuse_track(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        reason: RequestReason,
        why: &'static str,
        request: AddTrack,
    ) {
        self.refuse(ctx, key, "add_track", why);
        self.respond(ctx, key, 0, reason, "", EchoedRequest::AddTrack(Box::new(request)));
    }

    /// Matches the sections on which a participant sends to its tracks, after each offer and announcement.
    pub(crate) fn bind_published(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        self.end_lines(ctx, key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(side) = peer.publisher.as_ref() else { return };
        let transport = side.transport;
        let mut claimed = BTreeSet::new();
        for section in side.sections.iter().filter(|section| section.direction.sends()) {
            let msid = section.track_id.as_deref();
            let Some(index) = find(&peer.tracks, &claimed, &section.mid, section.kind, msid) else {
                continue;
            };
            claimed.insert(index);
            let Some(track) = peer.tracks.get_mut(index) else { continue };
            let spec = publish_spec(transport, track.info.kind, section);
            match track.lines.iter_mut().find(|line| line.section.mid == section.mid) {
                Some(line) if line.section == *section => {}
                Some(line) => {
                    line.section = section.clone();
                    self.media.update_publish(ctx.now, line.key, spec);
                }
                None => {
                    let line = self.media.publish(ctx.now, spec);
                    self.media.set_publisher_muted(ctx.now, line, track.info.muted);
                    self.published.insert(line, (key, track.info.sid.clone()));
                    track.lines.push(Line { key: line, section: section.clone(), mime: String::new() });
                }
            }
        }
    }

    /// Ends the lines whose section stopped or carries another track, and tracks that lost their last line.
    fn end_lines(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let sections = peer.publisher.as_ref().map(|side| side.sections.as_slice()).unwrap_or_default();
        let goes_on = |line: &Line| {
            sections.iter().any(|section| {
                section.mid == line.section.mid
                    && section.direction.sends()
                    && section.track_id == line.section.track_id
            })
        };
        let mut ended: Vec<TrackSid> = Vec::new();
        let mut lines: Vec<(TrackSid, TrackKey)> = Vec::new();
        for track in &peer.tracks {
            let stopped = track.lines.iter().filter(|line| !goes_on(line));
            let stopped: Vec<TrackKey> = stopped.map(|line| line.key).collect();
            if !stopped.is_empty() && stopped.len() == track.lines.len() {
                ended.push(track.info.sid.clone());
            } else {
                lines.extend(stopped.into_iter().map(|line| (track.info.sid.clone(), line)));
            }
        }
        for (sid, line) in lines {
            self.end_line(ctx, key, &sid, line);
        }
        for sid in ended {
            self.unpublish(ctx, key, &sid, "unpublished");
        }
    }

    /// Ends one codec of a track that goes on with another.
    fn end_line(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid, line: TrackKey) {
        self.unsubscribe_line(ctx, sid, line);
        let counters = self.media.unpublish(line);
        self.published.remove(&line);
        let track = self.peers.get_mut(&key).and_then(|peer| peer.track_mut(sid));
        if let Some(track) = track {
            add(&mut track.past, &counters);
            track.lines.retain(|other| other.key != line);
        }
        self.track_available(ctx, sid);
    }

    /// Media of a line has begun.
    pub(crate) fn first_packet(&mut self, ctx: &mut Ctx<'_>, line: TrackKey, mime: &str, layer: SeenLayer) {
        let Some((key, sid)) = self.published.get(&line).cloned() else { return };
        let unix_us = i64::try_from(ctx.now.unix_ns / 1_000).unwrap_or(i64::MAX);
        let track = self.peers.get_mut(&key).and_then(|peer| peer.track_mut(&sid));
        let Some(track) = track else { return };
        describe_codec(track, line, mime);
        describe_layer(track, line, &layer);
        if track.is_flowing() {
            self.track_changed(ctx, key, &sid);
            self.track_available(ctx, &sid);
            return;
        }
        track.stage = Stage::Flowing;
        track.info.version_unix_us = unix_us;
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.is_publisher = true;
            peer.telling.begun(sid.clone());
        }
        self.tell_published(ctx, key, &sid);
        self.tracks_changed(ctx, key);
        self.count(ctx, false);
    }

    fn tell_published(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid) {
        let Some(peer) = self.peers.get(&key) else { return };
        let Some(track) = peer.track(sid) else { return };
        let info = &track.info;
        let fact = TrackPublished {
            name: info.name.clone(),
            kind: info.kind,
            source: info.source.as_str().to_owned(),
            codec: info.mime_type.clone(),
            width: info.width,
            height: info.height,
            simulcast: info.simulcast,
            cid: track.cid.clone(),
            mids: track.mids(),
        };
        ctx.fact(self.place(Some(&peer.sid), Some(sid)), fact);
    }

    /// A layer became known.
    pub(crate) fn layer_seen(&mut self, ctx: &mut Ctx<'_>, line: TrackKey, layer: &SeenLayer) {
        let Some((key, sid)) = self.published.get(&line).cloned() else { return };
        let track = self.peers.get_mut(&key).and_then(|peer| peer.track_mut(&sid));
        let Some(track) = track else { return };
        let before = track.layers();
        if describe_layer(track, line, layer) && track.is_flowing() {
            // The SSRC of a layer's retransmissions is news for the others, and none for the record.
            if track.layers() == before {
                self.changed_now(ctx, key);
            } else {
                self.track_changed(ctx, key, &sid);
            }
        }
    }

    /// The publisher sends another codec on a line.
    pub(crate) fn codec_changed(&mut self, ctx: &mut Ctx<'_>, line: TrackKey, mime: &str) {
        let Some((key, sid)) = self.published.get(&line).cloned() else { return };
        let track = self.peers.get_mut(&key).and_then(|peer| peer.track_mut(&sid));
        let Some(track) = track else { return };
        describe_codec(track, line, mime);
        if track.is_flowing() {
            self.track_changed(ctx, key, &sid);
        }
    }

    fn track_changed(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid) {
        self.changed_now(ctx, key);
        let Some(peer) = self.peers.get(&key) else { return };
        let Some(track) = peer.track(sid) else { return };
        let codec = track.info.mime_type.clone();
        let fact = TrackChanged { codec, layers: track.layers(), mids: track.mids() };
        ctx.fact(self.place(Some(&peer.sid), Some(sid)), fact);
    }

    /// Ends all tracks of a participant that leaves; its own end tells the others.
    pub(crate) fn unpublish_all(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, reason: &'static str) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.queued.clear();
        let sids: Vec<TrackSid> = peer.tracks.iter().map(|track| track.info.sid.clone()).collect();
        for sid in sids {
            self.end_track(ctx, key, &sid, reason);
        }
    }

    /// Ends a track and lets the next announcement of its client id take its place.
    fn unpublish(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid, reason: &'static str) {
        let Some(track) = self.end_track(ctx, key, sid, reason) else { return };
        if track.is_flowing() {
            self.tracks_changed(ctx, key);
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let next = peer.queued.iter().position(|queued| queued.cid == track.cid);
        let next = next.and_then(|next| peer.queued.remove(next));
        if let Some(request) = next {
            self.add_track(ctx, key, request);
        }
    }

    fn end_track(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        sid: &TrackSid,
        reason: &'static str,
    ) -> Option<LocalTrack> {
        let was_meant = self.tracks.publisher(sid) == Some(key);
        if was_meant {
            self.unsubscribe_everybody(ctx, sid, "unpublished");
        }
        let peer = self.peers.get_mut(&key)?;
        let index = peer.tracks.iter().position(|track| track.info.sid == *sid)?;
        let track = peer.tracks.remove(index);
        let mut counters = track.past.clone();
        for line in &track.lines {
            self.published.remove(&line.key);
            add(&mut counters, &self.media.unpublish(line.key));
        }
        let removed = self.tracks.remove(sid, key);
        if let Some(peer) = self.peers.get(&key).filter(|_| track.is_flowing()) {
            let sample =
                TrackSample { track: sid.clone(), direction: Direction::Publish, last: true, counters };
            ctx.sample(&self.config.sid, &peer.sid, SampleBody::Track(sample));
            let fact = TrackUnpublished { reason: reason.to_owned() };
            ctx.fact(self.place(Some(&peer.sid), Some(sid)), fact);
        }
        if let Removed::HandedTo(_) = removed {
            self.track_available(ctx, sid);
        }
        Some(track)
    }

    /// How a track of a participant stands, by the line it came on first; `None` while nothing flows on it.
    pub(crate) fn published_sample(
        &self,
        key: PeerKey,
        sid: &TrackSid,
        line: TrackKey,
    ) -> Option<TrackSample> {
        let track = self.peers.get(&key)?.track(sid)?;
        if !track.is_flowing() || track.lines.first()?.key != line {
            return None;
        }
        let mut counters = track.past.clone();
        for now in track.lines.iter().filter_map(|line| self.media.publish_counters(line.key)) {
            add(&mut counters, &now);
        }
        Some(TrackSample { track: sid.clone(), direction: Direction::Publish, last: false, counters })
    }
}

/// Writes what a line's packets show of its codec into the track's info.
fn describe_codec(track: &mut LocalTrack, key: TrackKey, mime: &str) {
    let Some(position) = track.lines.iter().position(|line| line.key == key) else { return };
    let Some(line) = track.lines.get_mut(position) else { return };
    let mime = codec::canonical(mime).map_or_else(|| mime.to_owned(), str::to_owned);
    line.mime.clone_from(&mime);
    let (mid, msid) = (line.section.mid.clone(), line.section.track_id.clone().unwrap_or_default());
    let index = codec_of_line(&track.info.codecs, &msid, &mime, position);
    if position == 0 {
        track.info.mime_type.clone_from(&mime);
        track.info.mid.clone_from(&mid);
    }
    let Some(entry) = track.info.codecs.get_mut(index) else { return };
    entry.video_layer_mode = announce::layer_mode(&mime);
    entry.mime_type = mime;
    entry.mid = mid;
    if !msid.is_empty() && msid != entry.cid {
        entry.sdp_cid = msid;
    }
}

/// Which codec of the announcement a line is: by its client id, else by its MIME type, else the first one.
fn codec_of_line(codecs: &[CodecInfo], msid: &str, mime: &str, position: usize) -> usize {
    let by_cid =
        codecs.iter().position(|codec| !msid.is_empty() && (codec.cid == msid || codec.sdp_cid == msid));
    let by_mime = || codecs.iter().position(|codec| codec.mime_type.eq_ignore_ascii_case(mime));
    by_cid.or_else(by_mime).unwrap_or(position.min(codecs.len().saturating_sub(1)))
}

/// Writes a layer into the track's info; whether anything changed.
fn describe_layer(track: &mut LocalTrack, key: TrackKey, layer: &SeenLayer) -> bool {
    if track.info.kind == Kind::Audio {
        return false;
    }
    let Some(position) = track.lines.iter().position(|line| line.key == key) else { return false };
    let Some(line) = track.lines.get(position) else { return false };
    let msid = line.section.track_id.clone().unwrap_or_default();
    let index = codec_of_line(&track.info.codecs, &msid, &line.mime, position);
    let Some(entry) = track.info.codecs.get_mut(index) else { return false };
    let before = entry.layers.clone();
    if entry.video_layer_mode == VideoLayerMode::MultipleSpatialLayersPerStream {
        for (spatial, known) in (0..).zip(&mut entry.layers) {
            known.spatial_layer = spatial;
        }
    }
    if let Some(known) = entry.layers.get_mut(usize::from(layer.spatial)) {
        known.spatial_layer = i32::from(layer.spatial);
        known.ssrc = layer.ssrc;
        known.rid.clone_from(&layer.rid);
        if layer.repair_ssrc != 0 {
            known.repair_ssrc = layer.repair_ssrc;
        }
    }
    let changed = before != entry.layers;
    if index == 0 && changed {
        track.info.layers = entry.layers.clone();
    }
    changed
}

/// Adds the counters of another line of the same track.
fn add(sum: &mut TrackCounters, other: &TrackCounters) {
    let pairs = [
        (&mut sum.packets, other.packets),
        (&mut sum.bytes, other.bytes),
        (&mut sum.header_bytes, other.header_bytes),
        (&mut sum.retransmitted, other.retransmitted),
        (&mut sum.retransmitted_bytes, other.retransmitted_bytes),
        (&mut sum.padding, other.padding),
        (&mut sum.padding_bytes, other.padding_bytes),
        (&mut sum.lost, other.lost),
        (&mut sum.out_of_order, other.out_of_order),
        (&mut sum.duplicates, other.duplicates),
        (&mut sum.dropped, other.dropped),
        (&mut sum.nacks, other.nacks),
        (&mut sum.plis, other.plis),
        (&mut sum.firs, other.firs),
        (&mut sum.frames, other.frames),
        (&mut sum.key_frames, other.key_frames),
    ];
    for (sum, more) in pairs {
        *sum = sum.saturating_add(more);
    }
    sum.jitter_us = sum.jitter_us.max(other.jitter_us);
    sum.rtt_us = sum.rtt_us.max(other.rtt_us);
    for layer in &other.layers {
        match sum.layers.iter_mut().find(|known| (&known.rid, known.spatial) == (&layer.rid, layer.spatial)) {
            Some(known) => {
                known.packets = known.packets.saturating_add(layer.packets);
                known.bytes = known.bytes.saturating_add(layer.bytes);
                known.retransmitted = known.retransmitted.saturating_add(layer.retransmitted);
                known.frames = known.frames.saturating_add(layer.frames);
            }
            None => sum.layers.push(layer.clone()),
        }
    }
}
