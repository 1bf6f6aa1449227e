//! Requests of participants that are not about tracks or connections: dispatch, metadata, leave.

use crate::ctx::Ctx;
use crate::input::Request;
use crate::model::DisconnectReason;
use crate::output::{EchoedRequest, LeaveAction, RequestReason, Signal};
use crate::room::Room;
use fanlight_base::{PeerKey, TrackSid};
use fanlight_events::{TrackMuted, TrackUnmuted};
use std::collections::BTreeMap;

/// From this protocol on a client is told that a request succeeded.
const PROTOCOL_RESPONSE_OK: u32 = 15;

impl Room {
    /// A request of a participant.
    pub(crate) fn handle_request(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, request: Request) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match request {
            Request::Offer { id, sdp } => self.handle_offer(ctx, key, id, &sdp),
            Request::Answer { id, sdp } => self.handle_answer(ctx, key, id, &sdp),
            Request::BadDescription => self.mismatch(ctx, key, "unusable"),
            Request::Trickle { target, candidate } => self.trickle(ctx, key, target, candidate),
            Request::AddTrack(request) => self.add_track(ctx, key, *request),
            Request::Mute { track, muted, request_id } => self.mute(ctx, key, &track, muted, request_id),
            Request::Subscribe { tracks, subscribe } => self.update_subscription(ctx, key, tracks, subscribe),
            Request::TrackSettings { tracks, settings } => self.update_settings(ctx, key, &tracks, settings),
            Request::SubscriptionPermission { all_participants, permissions } => {
                self.update_allow_list(ctx, key, all_participants, permissions);
            }
            Request::UpdateMetadata { request_id, name, metadata, attributes } => {
                self.update_metadata(ctx, key, request_id, name, metadata, attributes);
            }
            Request::UpdateAudioTrack { track, features } => {
                self.update_track(ctx, key, &track, |info| info.audio_features = features);
            }
            Request::UpdateVideoTrack { track, width, height } => {
                self.update_track(ctx, key, &track, |info| (info.width, info.height) = (width, height));
            }
            Request::SignalRtt { rtt_ms } => peer.signal_rtt_ms = rtt_ms,
            Request::Leave { reason } => self.end_peer(ctx, key, reason, LeaveAction::Disconnect),
        }
    }

    /// A description that cannot be used: only a new session helps.
    pub(crate) fn mismatch(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, why: &'static str) {
        self.refuse(ctx, key, "description", why);
        self.end_peer(ctx, key, DisconnectReason::StateMismatch, LeaveAction::Reconnect);
    }

    fn mute(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid, muted: bool, request_id: u32) {
        let track = self.peers.get_mut(&key).and_then(|peer| peer.track_mut(sid));
        let Some(track) = track else {
            let request = EchoedRequest::Mute { track: sid.clone(), muted };
            self.respond(ctx, key, request_id, RequestReason::NotFound, "", request);
            return;
        };
        if track.info.muted == muted {
            return;
        }
        track.info.muted = muted;
        let flowing = track.is_flowing();
        for line in &track.lines {
            self.media.set_publisher_muted(ctx.now, line.key, muted);
        }
        if !flowing {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&key).filter(|_| !muted) {
            peer.telling.unmuted(sid.clone());
        }
        self.changed_now(ctx, key);
        let participant = self.peers.get(&key).map(|peer| &peer.sid);
        let place = self.place(participant, Some(sid));
        if muted {
            ctx.fact(place, TrackMuted {});
        } else {
            ctx.fact(place, TrackUnmuted {});
        }
    }

    fn update_track(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        sid: &TrackSid,
        update: impl FnOnce(&mut crate::model::TrackInfo),
    ) {
        let track = self.peers.get_mut(&key).and_then(|peer| peer.track_mut(sid));
        let Some(track) = track else {
            self.respond(ctx, key, 0, RequestReason::NotFound, "", EchoedRequest::None);
            return;
        };
        update(&mut track.info);
        track.info.audio_features.truncate(crate::limits::AUDIO_FEATURES_MAX);
        if track.is_flowing() {
            self.changed_now(ctx, key);
        }
    }

    fn update_metadata(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        request_id: u32,
        name: String,
        metadata: String,
        attributes: BTreeMap<String, String>,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let mut merged = peer.attributes.clone();
        for (attribute, value) in &attributes {
            if value.is_empty() {
                merged.remove(attribute);
            } else {
                merged.insert(attribute.clone(), value.clone());
            }
        }
        let attribute_bytes: usize = merged.iter().map(|(name, value)| name.len() + value.len()).sum();
        let texts = ctx.config.texts;
        let over = |bytes: usize, limit: usize| limit > 0 && bytes > limit;
        let refusal = if !peer.permission.can_update_metadata {
            Some((RequestReason::NotAllowed, "does not have permission to update own metadata"))
        } else if over(name.len(), texts.name_bytes) {
            Some((RequestReason::LimitExceeded, "name exceeds limit"))
        } else if over(metadata.len(), texts.metadata_bytes) {
            Some((RequestReason::LimitExceeded, "metadata exceeds limit"))
        } else if over(attribute_bytes, texts.attributes_bytes) {
            Some((RequestReason::LimitExceeded, "attributes exceed limit"))
        } else {
            None
        };
        let request = EchoedRequest::UpdateMetadata {
            name: name.clone(),
            metadata: metadata.clone(),
            attributes: attributes.clone(),
        };
        if let Some((reason, why)) = refusal {
            self.refuse(ctx, key, "update_metadata", why);
            self.respond(ctx, key, request_id, reason, why, request);
            return;
        }
        if !name.is_empty() {
            peer.name = name;
        }
        if !metadata.is_empty() {
            peer.metadata = metadata;
        }
        peer.attributes = merged;
        let says_ok = peer.protocol >= PROTOCOL_RESPONSE_OK;
        self.changed_now(ctx, key);
        self.refresh_token(ctx, key);
        if says_ok {
            self.respond(ctx, key, request_id, RequestReason::Ok, "", request);
        }
    }

    /// Answers a request.
    pub(crate) fn respond(
        &self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        request_id: u32,
        reason: RequestReason,
        message: &str,
        request: EchoedRequest,
    ) {
        let message = message.to_owned();
        self.signal(ctx, key, Signal::RequestResponse { request_id, reason, message, request });
    }
}
