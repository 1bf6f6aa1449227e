//! `SignalRequest` to requests of the SFU and immediate answers.

use super::{Action, Description, Session, description};
use crate::convert;
use crate::pace;
use crate::server::Server;
use fanlight_base::{Now, TrackSid};
use fanlight_sfu::input::{Request, Target, TrackSettings};
use fanlight_sfu::model::DisconnectReason;
use fanlight_transport::negotiate::RemoteDescription;
use livekit_protocol as proto;
use proto::request_response::{Reason, Request as Echoed};
use proto::signal_request::Message as Asked;
use proto::signal_response::Message as Said;
use std::collections::BTreeMap;

/// The JSON of an ICE candidate (`RTCIceCandidateInit`), as far as it matters.
#[derive(serde::Deserialize)]
struct CandidateInit {
    #[serde(default)]
    candidate: Option<String>,
}

impl Session {
    pub(super) fn handle_message(&mut self, server: &Server, now: Now, message: Asked) -> Vec<Action> {
        match message {
            Asked::Offer(offer) => self.offer(now, &offer),
            Asked::Answer(answer) => self.answer(now, &answer),
            Asked::Trickle(trickle) => self.trickle(trickle),
            Asked::AddTrack(track) => match convert::add_track(&track) {
                Ok(track) => request(Request::AddTrack(Box::new(track))),
                Err(refusal) => self.refuse(refusal.response(track)),
            },
            Asked::Mute(mute) => {
                request(Request::Mute { track: mute.sid.into(), muted: mute.muted, request_id: 0 })
            }
            Asked::Subscription(update) => request(subscribe(update)),
            Asked::TrackSetting(settings) => request(track_settings(settings)),
            Asked::Leave(leave) => request(Request::Leave { reason: honoured(leave.reason) }),
            Asked::SubscriptionPermission(permission) => request(Request::SubscriptionPermission {
                all_participants: permission.all_participants,
                permissions: permission.track_permissions.iter().map(convert::track_permission).collect(),
            }),
            Asked::SyncState(state) => self.sync_state(state),
            Asked::Ping(_) => vec![self.send(Said::Pong(milliseconds(now)))],
            Asked::PingReq(ping) => self.ping(now, ping),
            Asked::UpdateMetadata(update) => self.update_metadata(server, update),
            Asked::UpdateAudioTrack(update) => request(Request::UpdateAudioTrack {
                track: update.track_sid.into(),
                features: update.features,
            }),
            Asked::UpdateVideoTrack(update) => request(Request::UpdateVideoTrack {
                track: update.track_sid.into(),
                width: update.width,
                height: update.height,
            }),
            other => self.not_built(other),
        }
    }

    fn offer(&mut self, now: Now, offer: &proto::SessionDescription) -> Vec<Action> {
        match description(offer, "offer") {
            Description::Good(sdp) => {
                self.charge_sections(now, &sdp);
                request(Request::Offer { id: offer.id, sdp })
            }
            Description::Bad => request(Request::BadDescription),
            // The next offer may be better: LiveKit says nothing either.
            Description::Unreadable => self.ignore(),
        }
    }

    fn answer(&mut self, now: Now, answer: &proto::SessionDescription) -> Vec<Action> {
        if self.setup.single {
            return self.ignore();
        }
        match description(answer, "answer") {
            Description::Good(sdp) => {
                self.charge_sections(now, &sdp);
                request(Request::Answer { id: answer.id, sdp })
            }
            Description::Bad | Description::Unreadable => request(Request::BadDescription),
        }
    }

    fn charge_sections(&mut self, now: Now, sdp: &RemoteDescription) {
        self.pace.charge(now.mono(), pace::sections_cost(sdp.sections(), sdp.bytes()));
    }

    fn trickle(&mut self, trickle: proto::TrickleRequest) -> Vec<Action> {
        let target = match proto::SignalTarget::try_from(trickle.target) {
            Ok(proto::SignalTarget::Subscriber) => Target::Subscriber,
            _ => Target::Publisher,
        };
        match serde_json::from_str::<CandidateInit>(&trickle.candidate_init) {
            Ok(init) => match init.candidate.filter(|candidate| !candidate.is_empty()) {
                Some(candidate) => request(Request::Trickle { target, candidate }),
                // The end of candidates: nothing waits for it.
                None => Vec::new(),
            },
            Err(error) => {
                let empty = trickle.candidate_init.is_empty();
                let message =
                    if empty { "unexpected end of JSON input".to_owned() } else { error.to_string() };
                self.refuse(proto::RequestResponse {
                    request_id: 0,
                    reason: Reason::UnclassifiedError as i32,
                    message,
                    request: Some(Echoed::Trickle(trickle)),
                })
            }
        }
    }

    fn ping(&mut self, now: Now, ping: proto::Ping) -> Vec<Action> {
        let timestamp = milliseconds(now);
        let pong = proto::Pong { last_ping_timestamp: ping.timestamp, timestamp };
        let mut actions = vec![self.send(Said::PongResp(pong))];
        if let Some(rtt_ms) = u32::try_from(ping.rtt).ok().filter(|rtt| *rtt > 0) {
            actions.extend(request(Request::SignalRtt { rtt_ms }));
        }
        actions
    }

    /// Who may change itself is told here when it asks for too much; who may not is told by the SFU, which knows the
    /// rights of this moment.
    fn update_metadata(&mut self, server: &Server, update: proto::UpdateParticipantMetadata) -> Vec<Action> {
        let attributes: BTreeMap<String, String> = update.attributes.clone().into_iter().collect();
        let attributes_bytes =
            attributes.iter().map(|(key, value)| key.len().saturating_add(value.len())).sum();
        let limits = &server.limits;
        let over = |bytes: usize, limit: usize| limit > 0 && bytes > limit;
        let too_long = if over(update.name.len(), limits.name_bytes) {
            Some("exceeds name length limit")
        } else if over(update.metadata.len(), limits.metadata_bytes) {
            Some("exceeds metadata size limit")
        } else if over(attributes_bytes, limits.attributes_bytes) {
            Some("exceeds attributes size limit")
        } else {
            None
        };
        if let Some(message) = too_long.filter(|_| self.can_update_metadata) {
            return self.refuse(proto::RequestResponse {
                request_id: update.request_id,
                reason: Reason::LimitExceeded as i32,
                message: message.to_owned(),
                request: Some(Echoed::UpdateMetadata(update)),
            });
        }
        request(Request::UpdateMetadata {
            request_id: update.request_id,
            name: update.name,
            metadata: update.metadata,
            attributes,
        })
    }

    /// Outside a resume this repeats what the server knows; a track it does not know means that client and server have
    /// drifted apart, and only a new join helps.
    fn sync_state(&mut self, state: proto::SyncState) -> Vec<Action> {
        let known = |published: &proto::TrackPublishedResponse| {
            let sid = published.track.as_ref().map(|track| track.sid.as_str());
            self.own_tracks.iter().any(|own| Some(own.as_str()) == sid)
        };
        if !state.publish_data_tracks.is_empty() || !state.publish_tracks.iter().all(known) {
            return request(Request::BadDescription);
        }
        let mut actions = Vec::new();
        if let Some(subscription) = state.subscription {
            actions.extend(request(subscribe(subscription)));
        }
        if !state.track_sids_disabled.is_empty() {
            let tracks = state.track_sids_disabled.into_iter().map(TrackSid::from).collect();
            let settings = TrackSettings { disabled: true, ..TrackSettings::default() };
            actions.extend(request(Request::TrackSettings { tracks, settings }));
        }
        actions
    }

    /// Features that are not there yet. What has an answer in the protocol is refused so that the client's promise
    /// fails; the rest LiveKit passes over in silence too when it names unknown tracks.
    fn not_built(&mut self, message: Asked) -> Vec<Action> {
        let (request_id, reason, text, echoed) = match message {
            Asked::PublishDataTrackRequest(wanted) => {
                let text = "data tracks are not supported by this server";
                (0, Reason::NotAllowed, text, Some(Echoed::PublishDataTrack(wanted)))
            }
            Asked::UnpublishDataTrackRequest(wanted) => {
                (0, Reason::NotFound, "no such data track", Some(Echoed::UnpublishDataTrack(wanted)))
            }
            Asked::StoreDataBlobRequest(wanted) => {
                let (reason, text) = blob_refusal(wanted.blob.and_then(|blob| blob.key).as_ref());
                (wanted.request_id, reason, text, None)
            }
            Asked::GetDataBlobRequest(wanted) => {
                let (reason, text) = blob_refusal(wanted.key.as_ref());
                (wanted.request_id, reason, text, None)
            }
            Asked::Simulate(_) => {
                (0, Reason::UnsupportedType, "scenarios are not simulated by this server", None)
            }
            _ => return self.ignore(),
        };
        self.refuse(proto::RequestResponse {
            request_id,
            reason: reason as i32,
            message: text.to_owned(),
            request: echoed,
        })
    }

    fn refuse(&mut self, response: proto::RequestResponse) -> Vec<Action> {
        self.counters.refused += 1;
        if self.setup.old_rust {
            return Vec::new();
        }
        vec![self.send(Said::RequestResponse(response))]
    }
}

fn request(request: Request) -> Vec<Action> {
    vec![Action::Request(Box::new(request))]
}

/// As LiveKit answers with `enable_participant_data_blob` off.
const fn blob_refusal(key: Option<&proto::DataBlobKey>) -> (Reason, &'static str) {
    match key {
        Some(_) => (Reason::NotAllowed, "data blob not enabled"),
        None => (Reason::InvalidRequest, "data blob key is required"),
    }
}

fn subscribe(update: proto::UpdateSubscription) -> Request {
    let of_participants = update.participant_tracks.into_iter().flat_map(|tracks| tracks.track_sids);
    Request::Subscribe {
        tracks: update.track_sids.into_iter().chain(of_participants).map(TrackSid::from).collect(),
        subscribe: update.subscribe,
    }
}

fn track_settings(settings: proto::UpdateTrackSettings) -> Request {
    Request::TrackSettings {
        tracks: settings.track_sids.into_iter().map(TrackSid::from).collect(),
        settings: TrackSettings {
            disabled: settings.disabled,
            quality: settings.quality,
            width: settings.width,
            height: settings.height,
            fps: settings.fps,
            priority: settings.priority,
        },
    }
}

/// The reasons of a client that LiveKit passes on; all others mean that it left by itself.
fn honoured(reason: i32) -> DisconnectReason {
    match proto::DisconnectReason::try_from(reason) {
        Ok(proto::DisconnectReason::UserUnavailable) => DisconnectReason::UserUnavailable,
        Ok(proto::DisconnectReason::UserRejected) => DisconnectReason::UserRejected,
        Ok(proto::DisconnectReason::AgentError) => DisconnectReason::AgentError,
        _ => DisconnectReason::ClientInitiated,
    }
}

fn milliseconds(now: Now) -> i64 {
    i64::try_from(now.unix_ms()).unwrap_or(i64::MAX)
}
