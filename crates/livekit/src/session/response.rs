//! Signals of the SFU to `SignalResponse`.

use super::reply::{Reply, entry_bytes};
use super::{OWN_TRACKS_MAX, Session, UPDATE_BYTES_MAX};
use crate::client;
use crate::convert;
use crate::server::{PING_INTERVAL_S, PING_TIMEOUT_S, SERVER_VERSION, Server};
use crate::token;
use fanlight_base::{Now, TrackSid};
use fanlight_sfu::input::Target;
use fanlight_sfu::model::{DisconnectReason, ParticipantInfo, SharedInfo};
use fanlight_sfu::output::{EchoedRequest, Joined, LeaveAction, RequestReason, Signal};
use fanlight_transport::negotiate::LocalDescription;
use livekit_protocol as proto;
use proto::request_response::Request as Echoed;
use proto::signal_response::Message as Said;

impl Session {
    /// The messages a signal becomes: usually one, none for what the client's protocol does not know.
    pub(super) fn responses(&mut self, server: &Server, now: Now, signal: Signal) -> Vec<Reply> {
        let said = match signal {
            Signal::Joined(joined) => {
                return vec![Reply::join(self.join(server, now, &joined), joined.others)];
            }
            Signal::Answer { id, sdp, mid_to_track } => {
                Said::Answer(description("answer", id, &sdp, mid_to_track))
            }
            Signal::Offer { id, sdp, mid_to_track } => {
                Said::Offer(description("offer", id, &sdp, mid_to_track))
            }
            Signal::Trickle { target, candidate, last } => Said::Trickle(trickle(target, &candidate, last)),
            Signal::Participants(infos) => return updates(infos),
            Signal::Room(info) => Said::RoomUpdate(proto::RoomUpdate { room: Some(convert::room(&info)) }),
            Signal::TrackPublished { cid, track } => {
                self.remember(track.sid.clone());
                let track = Some(convert::track(&track));
                Said::TrackPublished(proto::TrackPublishedResponse { cid, track })
            }
            Signal::TrackUnpublished(sid) => self.unpublished(&sid),
            Signal::TrackSubscribed(_) if self.setup.old_rust => return Vec::new(),
            Signal::TrackSubscribed(sid) => {
                Said::TrackSubscribed(proto::TrackSubscribed { track_sid: text(&sid) })
            }
            Signal::SubscriptionPermission { participant, track, allowed } => {
                Said::SubscriptionPermissionUpdate(proto::SubscriptionPermissionUpdate {
                    participant_sid: participant.as_str().to_owned(),
                    track_sid: text(&track),
                    allowed,
                })
            }
            Signal::SubscriptionFailed { track, codec_unsupported } => {
                let unsupported = proto::SubscriptionError::SeCodecUnsupported;
                let missing = proto::SubscriptionError::SeTrackNotfound;
                let err = if codec_unsupported { unsupported } else { missing };
                let track_sid = text(&track);
                Said::SubscriptionResponse(proto::SubscriptionResponse { track_sid, err: err as i32 })
            }
            Signal::MediaSections { audios, videos } => {
                let message = proto::MediaSectionsRequirement { num_audios: audios, num_videos: videos };
                Said::MediaSectionsRequirement(message)
            }
            Signal::StreamState { streams } => Said::StreamStateUpdate(stream_states(&streams)),
            Signal::RequestResponse { request_id, reason, message, request } => {
                let old = self.setup.old_rust || (reason == RequestReason::Ok && self.setup.protocol < 15);
                if old {
                    return Vec::new();
                }
                let request = echoed(request, request_id);
                let reason = reason as i32;
                Said::RequestResponse(proto::RequestResponse { request_id, reason, message, request })
            }
            Signal::RefreshToken(info) => match self.refresh_token(server, now, &info) {
                Some(token) => Said::RefreshToken(token),
                None => return Vec::new(),
            },
            Signal::Leave { reason, action } => self.leave(reason, action),
        };
        vec![said.into()]
    }

    /// Protocol 13 brought actions; before it the client only learns whether to come back.
    pub(super) fn leave(&self, reason: DisconnectReason, action: LeaveAction) -> Said {
        use proto::leave_request::Action;
        let reason = reason as i32;
        if self.setup.protocol < 13 {
            let can_reconnect = action != LeaveAction::Disconnect;
            return Said::Leave(proto::LeaveRequest { can_reconnect, reason, ..Default::default() });
        }
        let action = match action {
            LeaveAction::Disconnect => Action::Disconnect,
            LeaveAction::Resume => Action::Resume,
            LeaveAction::Reconnect => Action::Reconnect,
        };
        Said::Leave(proto::LeaveRequest { reason, action: action as i32, ..Default::default() })
    }

    fn join(&mut self, server: &Server, now: Now, joined: &Joined) -> proto::JoinResponse {
        let config = &joined.room.config;
        let no_h264 = self.setup.quirks.no_h264;
        self.can_update_metadata = joined.participant.permission.can_update_metadata;
        proto::JoinResponse {
            room: Some(convert::room(&joined.room)),
            participant: Some(convert::participant(&joined.participant)),
            server_version: SERVER_VERSION.to_owned(),
            ice_servers: server.ice_servers(now, &joined.participant.sid),
            subscriber_primary: joined.subscriber_primary,
            client_configuration: client::configuration(self.setup.quirks),
            ping_timeout: PING_TIMEOUT_S,
            ping_interval: PING_INTERVAL_S,
            server_info: Some(server.info()),
            sif_trailer: config.sif_trailer.as_bytes().to_vec(),
            enabled_publish_codecs: publish_codecs(&config.enabled_codecs, no_h264),
            fast_publish: joined.participant.permission.can_publish,
            ..Default::default()
        }
    }

    fn refresh_token(&mut self, server: &Server, now: Now, info: &ParticipantInfo) -> Option<String> {
        self.can_update_metadata = info.permission.can_update_metadata;
        let mut grants = self.setup.grants.clone();
        grants.name.clone_from(&info.name);
        grants.metadata.clone_from(&info.metadata);
        grants.attributes.clone_from(&info.attributes);
        grants.kind_details.clear();
        grants.sip_admin = false;
        grants.sip_call = false;
        grants.agent_admin = false;
        if let Some(video) = grants.video.as_mut() {
            video.set_permission(&info.permission);
        }
        let (key, secret) = server.keys.first()?;
        let lifetime_s = token::refresh_lifetime_s(now, self.setup.expires_s);
        token::create(key, secret, &grants, now, lifetime_s).map(|token| token.reveal().clone())
    }

    /// Below protocol 7 a client only knows that its track was muted.
    fn unpublished(&mut self, sid: &TrackSid) -> Said {
        self.own_tracks.retain(|own| own != sid);
        let sid = text(sid);
        if self.setup.protocol < 7 {
            return Said::Mute(proto::MuteTrackRequest { sid, muted: true });
        }
        Said::TrackUnpublished(proto::TrackUnpublishedResponse { track_sid: sid })
    }

    fn remember(&mut self, sid: TrackSid) {
        if self.own_tracks.len() >= OWN_TRACKS_MAX {
            self.own_tracks.pop_front();
        }
        self.own_tracks.push_back(sid);
    }
}

/// VP8 first, then H264, other video, audio: clients take the first one they can.
fn publish_codecs(enabled: &[String], no_h264: bool) -> Vec<proto::Codec> {
    let rank = |mime: &str| match mime.to_ascii_lowercase().as_str() {
        "video/vp8" => Some(0),
        "video/h264" if no_h264 => None,
        "video/h264" => Some(1),
        "video/rtx" => None,
        mime if mime.starts_with("video/") => Some(2),
        _ => Some(3),
    };
    let mut ranked: Vec<(i32, &String)> =
        enabled.iter().filter_map(|mime| Some((rank(mime)?, mime))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, mime)| convert::codec(mime)).collect()
}

fn updates(infos: Vec<SharedInfo>) -> Vec<Reply> {
    let mut replies = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0usize);
    for info in infos {
        let size = entry_bytes(&info);
        if !chunk.is_empty() && bytes.saturating_add(size) > UPDATE_BYTES_MAX {
            replies.push(Reply::update(std::mem::take(&mut chunk)));
            bytes = 0;
        }
        bytes = bytes.saturating_add(size);
        chunk.push(info);
    }
    if !chunk.is_empty() {
        replies.push(Reply::update(chunk));
    }
    replies
}

fn description(
    kind: &str,
    id: u32,
    sdp: &LocalDescription,
    mid_to_track: Vec<(String, TrackSid)>,
) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: kind.to_owned(),
        sdp: sdp.to_string(),
        id,
        mid_to_track_id: mid_to_track.into_iter().map(|(mid, track)| (mid, text(&track))).collect(),
    }
}

fn trickle(target: Target, candidate: &str, last: bool) -> proto::TrickleRequest {
    let init = serde_json::json!({
        "candidate": candidate,
        "sdpMid": "0",
        "sdpMLineIndex": 0,
        "usernameFragment": null,
    });
    proto::TrickleRequest { candidate_init: init.to_string(), target: signal_target(target), r#final: last }
}

const fn signal_target(target: Target) -> i32 {
    match target {
        Target::Publisher => proto::SignalTarget::Publisher as i32,
        Target::Subscriber => proto::SignalTarget::Subscriber as i32,
    }
}

fn stream_states(streams: &[(fanlight_base::ParticipantSid, TrackSid, bool)]) -> proto::StreamStateUpdate {
    let state = |(participant, track, active): &(fanlight_base::ParticipantSid, TrackSid, bool)| {
        let state = if *active { proto::StreamState::Active } else { proto::StreamState::Paused };
        proto::StreamStateInfo {
            participant_sid: participant.as_str().to_owned(),
            track_sid: text(track),
            state: state as i32,
        }
    };
    proto::StreamStateUpdate { stream_states: streams.iter().map(state).collect() }
}

fn echoed(request: EchoedRequest, request_id: u32) -> Option<Echoed> {
    Some(match request {
        EchoedRequest::None => return None,
        EchoedRequest::AddTrack(track) => Echoed::AddTrack(convert::add_track_request(&track)),
        EchoedRequest::Mute { track, muted } => {
            Echoed::Mute(proto::MuteTrackRequest { sid: text(&track), muted })
        }
        EchoedRequest::UpdateMetadata { name, metadata, attributes } => {
            let attributes = attributes.into_iter().collect();
            Echoed::UpdateMetadata(proto::UpdateParticipantMetadata {
                metadata,
                name,
                attributes,
                request_id,
            })
        }
        EchoedRequest::Trickle { target } => {
            Echoed::Trickle(proto::TrickleRequest { target: signal_target(target), ..Default::default() })
        }
    })
}

fn text(sid: &TrackSid) -> String {
    sid.as_str().to_owned()
}
