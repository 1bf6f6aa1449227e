//! Recorded messages of a LiveKit server against ours: read into the SFU's words, written again, compared field by field.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::{Now, Redacted};
use fanlight_livekit::convert;
use fanlight_livekit::session::{Action, Frame, Session, SessionSetup};
use fanlight_livekit::token::{self, Grants};
use fanlight_sfu::input::{Quirks, Target};
use fanlight_sfu::model;
use fanlight_sfu::output::{Joined, LeaveAction, Signal};
use livekit_protocol as proto;
use prost::Message;
use proto::signal_response::Message as Said;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const RESPONSES: &str = include_str!("data/responses.jsonl");

/// Members that differ, in LiveKit's JSON names, and why. An entry ends the comparison below it.
const DIFFERENT: [(&str, &str); 7] = [
    ("join.room.enabledCodecs", "PCMU, PCMA and H265 do not play here"),
    ("roomUpdate.room.enabledCodecs", "PCMU, PCMA and H265 do not play here"),
    ("join.enabledPublishCodecs", "PCMU, PCMA and H265 do not play here"),
    ("join.iceServers", "no public STUN server is named"),
    ("join.serverInfo.nodeId", "the node"),
    ("join.otherParticipants[].dataTracks", "data tracks are not built"),
    ("update.participants[].dataTracks", "data tracks are not built"),
];

/// Takes out what only features bring about that are not built: the answer to a forced switch of protocols, and the list
/// of the departed after a resume, whose entries have no permission. Candidates are compared as JSON where they are read.
fn without_unbuilt(message: &mut proto::SignalResponse) {
    match message.message.as_mut() {
        Some(Said::Join(join)) => {
            let forced = join.client_configuration.as_ref().is_some_and(|c| c.disabled_codecs.is_none());
            if forced {
                join.client_configuration = None;
                join.fast_publish = true;
            }
        }
        Some(Said::Update(update)) => update.participants.retain(|info| info.permission.is_some()),
        Some(Said::Trickle(trickle)) => {
            let init: Value = serde_json::from_str(&trickle.candidate_init).unwrap();
            trickle.candidate_init = init.to_string();
        }
        _ => {}
    }
}

fn setup(protocol: u32) -> SessionSetup {
    SessionSetup {
        protocol,
        single: false,
        old_rust: false,
        quirks: Quirks::default(),
        grants: Grants::default(),
        expires_s: None,
        resumes: false,
        refused_tracks: Vec::new(),
        bad_offer: false,
    }
}

/// Says a signal to a session and reads the messages it sends.
fn say(setup: SessionSetup, now: Now, signal: Signal) -> Vec<Value> {
    let server = support::server(Default::default());
    let actions = Session::new(setup).handle_signal(&server, now, signal);
    let read = |action| match action {
        Action::Send(Frame::Binary(bytes)) => {
            let response = proto::SignalResponse::decode(bytes.as_slice()).unwrap();
            Some(serde_json::to_value(response).unwrap())
        }
        Action::Close => None,
        other => panic!("unexpected {other:?}"),
    };
    actions.into_iter().filter_map(read).collect()
}

fn shared(info: model::ParticipantInfo) -> model::SharedInfo {
    model::SharedInfo::new(info, convert::encode_participant)
}

fn participant(info: &proto::ParticipantInfo) -> model::ParticipantInfo {
    use model::ParticipantState as State;
    let reason = |number: i32| match proto::DisconnectReason::try_from(number).unwrap() {
        proto::DisconnectReason::UnknownReason => None,
        proto::DisconnectReason::ClientInitiated => Some(model::DisconnectReason::ClientInitiated),
        proto::DisconnectReason::DuplicateIdentity => Some(model::DisconnectReason::DuplicateIdentity),
        proto::DisconnectReason::ServerShutdown => Some(model::DisconnectReason::ServerShutdown),
        proto::DisconnectReason::ParticipantRemoved => Some(model::DisconnectReason::ParticipantRemoved),
        proto::DisconnectReason::RoomDeleted => Some(model::DisconnectReason::RoomDeleted),
        proto::DisconnectReason::StateMismatch => Some(model::DisconnectReason::StateMismatch),
        proto::DisconnectReason::JoinFailure => Some(model::DisconnectReason::JoinFailure),
        proto::DisconnectReason::Migration => Some(model::DisconnectReason::Migration),
        proto::DisconnectReason::SignalClose => Some(model::DisconnectReason::SignalClose),
        proto::DisconnectReason::UserUnavailable => Some(model::DisconnectReason::UserUnavailable),
        proto::DisconnectReason::UserRejected => Some(model::DisconnectReason::UserRejected),
        proto::DisconnectReason::ConnectionTimeout => Some(model::DisconnectReason::ConnectionTimeout),
        proto::DisconnectReason::AgentError => Some(model::DisconnectReason::AgentError),
        other => panic!("unexpected {other:?}"),
    };
    model::ParticipantInfo {
        sid: (&info.sid).into(),
        identity: (&info.identity).into(),
        state: match info.state() {
            proto::participant_info::State::Joining => State::Joining,
            proto::participant_info::State::Joined => State::Joined,
            proto::participant_info::State::Active => State::Active,
            proto::participant_info::State::Disconnected => State::Disconnected,
        },
        tracks: info.tracks.iter().map(track).collect(),
        metadata: info.metadata.clone(),
        joined_ms: info.joined_at_ms.try_into().unwrap(),
        name: info.name.clone(),
        version: info.version,
        permission: info.permission.as_ref().map(permission).unwrap_or_default(),
        is_publisher: info.is_publisher,
        kind: kind(info.kind()),
        kind_details: info.kind_details.clone(),
        attributes: info.attributes.clone().into_iter().collect(),
        disconnect_reason: reason(info.disconnect_reason),
        client_protocol: info.client_protocol,
        capabilities: info.capabilities.clone(),
    }
}

fn kind(kind: proto::participant_info::Kind) -> model::ParticipantKind {
    use proto::participant_info::Kind;
    match kind {
        Kind::Standard => model::ParticipantKind::Standard,
        Kind::Ingress => model::ParticipantKind::Ingress,
        Kind::Egress => model::ParticipantKind::Egress,
        Kind::Sip => model::ParticipantKind::Sip,
        Kind::Agent => model::ParticipantKind::Agent,
        Kind::Connector => model::ParticipantKind::Connector,
        Kind::Bridge => model::ParticipantKind::Bridge,
    }
}

#[expect(deprecated, reason = "recorded servers fill them")]
fn permission(permission: &proto::ParticipantPermission) -> model::Permission {
    model::Permission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission.can_publish_sources.iter().map(|n| model::Source(*n)).collect(),
        hidden: permission.hidden,
        recorder: permission.recorder,
        can_update_metadata: permission.can_update_metadata,
        agent: permission.agent,
        can_subscribe_metrics: permission.can_subscribe_metrics,
    }
}

#[expect(deprecated, reason = "recorded servers fill them")]
fn track(info: &proto::TrackInfo) -> model::TrackInfo {
    let mode = |mode: i32| match mode {
        1 => model::VideoLayerMode::OneSpatialLayerPerStream,
        2 => model::VideoLayerMode::MultipleSpatialLayersPerStream,
        _ => model::VideoLayerMode::Unused,
    };
    let codec = |codec: &proto::SimulcastCodecInfo| model::CodecInfo {
        mime_type: codec.mime_type.clone(),
        mid: codec.mid.clone(),
        cid: codec.cid.clone(),
        sdp_cid: codec.sdp_cid.clone(),
        layers: codec.layers.iter().map(layer).collect(),
        video_layer_mode: mode(codec.video_layer_mode),
    };
    let video = info.r#type() == proto::TrackType::Video;
    model::TrackInfo {
        sid: (&info.sid).into(),
        kind: if video { model::Kind::Video } else { model::Kind::Audio },
        name: info.name.clone(),
        muted: info.muted,
        width: info.width,
        height: info.height,
        simulcast: info.simulcast,
        source: model::Source(info.source),
        layers: info.layers.iter().map(layer).collect(),
        mime_type: info.mime_type.clone(),
        mid: info.mid.clone(),
        codecs: info.codecs.iter().map(codec).collect(),
        stream: info.stream.clone(),
        disable_dtx: info.disable_dtx,
        stereo: info.stereo,
        disable_red: info.disable_red,
        encryption: info.encryption,
        version_unix_us: info.version.as_ref().map_or(0, |version| version.unix_micro),
        audio_features: info.audio_features.clone(),
        backup_codec_policy: info.backup_codec_policy,
    }
}

fn layer(layer: &proto::VideoLayer) -> model::VideoLayer {
    model::VideoLayer {
        quality: layer.quality,
        width: layer.width,
        height: layer.height,
        bitrate_bps: layer.bitrate,
        ssrc: layer.ssrc,
        spatial_layer: layer.spatial_layer,
        rid: layer.rid.clone(),
        repair_ssrc: layer.repair_ssrc,
    }
}

fn room(room: &proto::Room, sif_trailer: String) -> model::RoomInfo {
    let codecs = room.enabled_codecs.iter().map(|codec| codec.mime.clone());
    let played = fanlight_control::PLAYABLE_CODECS;
    let config = model::RoomConfig {
        sid: (&room.sid).into(),
        name: (&room.name).into(),
        empty_timeout_s: room.empty_timeout,
        departure_timeout_s: room.departure_timeout,
        max_participants: room.max_participants,
        created_ms: room.creation_time_ms.try_into().unwrap(),
        turn_password: Redacted::new(room.turn_password.clone()),
        sif_trailer,
        enabled_codecs: codecs.filter(|mime| played.contains(&mime.as_str())).collect(),
        metadata: room.metadata.clone(),
    };
    model::RoomInfo {
        config,
        num_participants: room.num_participants,
        num_publishers: room.num_publishers,
        active_recording: room.active_recording,
    }
}

/// What a session says when told what the recorded message tells; `None` for messages that are compared elsewhere.
fn ours(recorded: &Said) -> Option<Vec<Value>> {
    let now = support::NOW;
    Some(match recorded {
        Said::Join(join) => {
            let mut setup = setup(17);
            let configuration = join.client_configuration.as_ref();
            setup.quirks.no_h264 = configuration.is_some_and(|c| c.disabled_codecs.is_some());
            let trailer = String::from_utf8(join.sif_trailer.clone()).unwrap();
            let joined = Joined {
                room: room(join.room.as_ref().unwrap(), trailer),
                participant: participant(join.participant.as_ref().unwrap()),
                others: join.other_participants.iter().map(participant).map(shared).collect(),
                subscriber_primary: join.subscriber_primary,
            };
            say(setup, now, Signal::Joined(Box::new(joined)))
        }
        Said::Update(update) => {
            let infos = update.participants.iter().map(participant).map(shared).collect();
            say(setup(17), now, Signal::Participants(infos))
        }
        Said::RoomUpdate(update) => {
            let info = room(update.room.as_ref().unwrap(), String::new());
            say(setup(17), now, Signal::Room(info.into()))
        }
        Said::TrackPublished(published) => {
            let track = Box::new(track(published.track.as_ref().unwrap()));
            say(setup(17), now, Signal::TrackPublished { cid: published.cid.clone(), track })
        }
        Said::Leave(leave) => {
            let recorded = participant(&proto::ParticipantInfo {
                disconnect_reason: leave.reason,
                ..Default::default()
            });
            let action = match (leave.action(), leave.can_reconnect) {
                (proto::leave_request::Action::Resume, _) => LeaveAction::Resume,
                (proto::leave_request::Action::Reconnect, _) | (_, true) => LeaveAction::Reconnect,
                _ => LeaveAction::Disconnect,
            };
            let protocol = if leave.can_reconnect { 12 } else { 17 };
            let reason = recorded.disconnect_reason.unwrap_or(model::DisconnectReason::Unknown);
            say(setup(protocol), now, Signal::Leave { reason, action })
        }
        Said::Trickle(trickle) => {
            let init: Value = serde_json::from_str(&trickle.candidate_init).unwrap();
            let target = match trickle.target() {
                proto::SignalTarget::Publisher => Target::Publisher,
                proto::SignalTarget::Subscriber => Target::Subscriber,
            };
            let candidate = init["candidate"].as_str().unwrap().to_owned();
            say(setup(17), now, Signal::Trickle { target, candidate, last: trickle.r#final })
        }
        Said::TrackUnpublished(m) => say(setup(17), now, Signal::TrackUnpublished((&m.track_sid).into())),
        Said::TrackSubscribed(m) => say(setup(17), now, Signal::TrackSubscribed((&m.track_sid).into())),
        Said::MediaSectionsRequirement(m) => {
            say(setup(17), now, Signal::MediaSections { audios: m.num_audios, videos: m.num_videos })
        }
        Said::SubscriptionPermissionUpdate(m) => {
            let participant = (&m.participant_sid).into();
            let signal = Signal::SubscriptionPermission {
                participant,
                track: (&m.track_sid).into(),
                allowed: m.allowed,
            };
            say(setup(17), now, signal)
        }
        Said::SubscriptionResponse(m) => {
            let codec_unsupported = m.err() == proto::SubscriptionError::SeCodecUnsupported;
            say(
                setup(17),
                now,
                Signal::SubscriptionFailed { track: (&m.track_sid).into(), codec_unsupported },
            )
        }
        Said::StreamStateUpdate(m) => {
            let stream = |info: &proto::StreamStateInfo| {
                let active = info.state() == proto::StreamState::Active;
                ((&info.participant_sid).into(), (&info.track_sid).into(), active)
            };
            say(setup(17), now, Signal::StreamState { streams: m.stream_states.iter().map(stream).collect() })
        }
        _ => return None,
    })
}

fn differences(path: &str, recorded: &Value, ours: &Value, found: &mut Vec<String>) {
    if recorded == ours {
        return;
    }
    match (recorded, ours) {
        (Value::Object(theirs), Value::Object(mine)) => {
            let keys: BTreeSet<&String> = theirs.keys().chain(mine.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let get =
                    |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                differences(&path, &get(theirs), &get(mine), found);
            }
        }
        (Value::Array(theirs), Value::Array(mine)) if theirs.len() == mine.len() => {
            for (theirs, mine) in theirs.iter().zip(mine) {
                differences(&format!("{path}[]"), theirs, mine, found);
            }
        }
        _ => found.push(format!("{path}: recorded {recorded}, ours {ours}")),
    }
}

fn listed(difference: &str) -> Option<usize> {
    DIFFERENT.iter().position(|(path, _)| {
        difference.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', ':', '[']))
    })
}

#[test]
fn every_recorded_message_is_said_as_recorded_but_for_the_listed_differences() {
    let (mut compared, mut failures) = (0, Vec::new());
    let mut used = BTreeSet::new();
    for line in RESPONSES.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        if case["msg"].get("refresh_token").is_some() {
            continue;
        }
        let mut recorded: proto::SignalResponse = serde_json::from_value(case["msg"].clone()).unwrap();
        without_unbuilt(&mut recorded);
        let canonical = serde_json::to_value(&recorded).unwrap();
        let Some(said) = ours(recorded.message.as_ref().unwrap()) else { continue };
        compared += 1;
        let mut found = Vec::new();
        let nothing =
            matches!(&recorded.message, Some(Said::Update(update)) if update.participants.is_empty());
        if !nothing {
            differences("", &canonical, said.first().unwrap_or(&Value::Null), &mut found);
        }
        for difference in found {
            match listed(&difference) {
                Some(index) => {
                    used.insert(index);
                }
                None => failures.push(format!("{}: {difference}", case["from"])),
            }
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 200, "only {compared} messages");
    let unused: Vec<_> =
        (0..DIFFERENT.len()).filter(|index| !used.contains(index)).map(|i| DIFFERENT[i]).collect();
    assert!(unused.is_empty(), "no longer different: {unused:?}");
}

#[test]
fn publish_codecs_come_in_livekits_order_without_those_that_do_not_play_here() {
    let mut joins = 0;
    for line in RESPONSES.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let Some(recorded) = case["msg"]["join"]["enabled_publish_codecs"].as_array() else { continue };
        let message: proto::SignalResponse = serde_json::from_value(case["msg"].clone()).unwrap();
        let said = ours(&message.message.unwrap()).unwrap();
        let played = fanlight_control::PLAYABLE_CODECS;
        let expected: Vec<&Value> =
            recorded.iter().filter(|codec| played.contains(&codec["mime"].as_str().unwrap())).collect();
        let mine: Vec<&Value> = said[0]["join"]["enabledPublishCodecs"].as_array().unwrap().iter().collect();
        assert_eq!(mine, expected);
        joins += 1;
    }
    assert!(joins > 30);
}

#[test]
fn refreshed_tokens_carry_the_recorded_claims() {
    let mut compared = 0;
    for line in RESPONSES.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let recorded = &case["msg"]["refresh_token"]["claims"];
        if recorded.is_null() {
            continue;
        }
        let (iat, exp) = (recorded["iat"].as_u64().unwrap(), recorded["exp"].as_u64().unwrap());
        let now = Now { mono_ns: 0, unix_ns: iat * 1_000_000_000 };
        let server = support::server(Default::default());
        let original =
            token::verify(&server.keys, now, &support::token(&json!({ "claims": recorded }))).unwrap();
        let grants = original.grants;
        let info = model::ParticipantInfo {
            name: grants.name.clone(),
            metadata: grants.metadata.clone(),
            attributes: grants.attributes.clone(),
            permission: grants.video.as_ref().unwrap().permission(),
            ..participant(&proto::ParticipantInfo::default())
        };
        let setup = SessionSetup { grants, expires_s: (exp - iat > 600).then_some(exp), ..setup(17) };
        let said = say(setup, now, Signal::RefreshToken(shared(info)));
        let token = said[0]["refreshToken"].as_str().unwrap();
        assert_eq!(claims(token), *recorded, "{}", case["from"]);
        compared += 1;
    }
    assert!(compared > 30);
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    let segment = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(segment).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
