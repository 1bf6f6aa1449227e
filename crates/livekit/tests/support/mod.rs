//! What several test files share: a node, recorded tokens, and the join that `control` makes of an admission.

#![allow(dead_code, reason = "each test file uses a part of it")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanlight_base::{NodeId, Now, Random};
use fanlight_control::{Control, ControlConfig, Limits, Output, RoomDefaults, RoomOptions};
use fanlight_livekit::server::{IceCredential, IceServer, Server};
use fanlight_livekit::token::Keys;
use fanlight_sfu::input::{Command, Join, Layout};
use fanlight_sfu::model::{ParticipantInfo, ParticipantState, RoomConfig, RoomInfo};
use fanlight_sfu::output::Joined;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Value;

pub(crate) const SECRET: &str = "secretsecretsecretsecretsecretsecret";
pub(crate) const NOW: Now = Now { mono_ns: 100_000_000_000, unix_ns: 1_795_241_055_552_000_000 };

/// `limit.*` of the recorded configuration `limits`.
pub(crate) fn small_limits() -> Limits {
    Limits {
        metadata_bytes: 64,
        attributes_bytes: 64,
        room_name_bytes: 32,
        identity_bytes: 32,
        name_bytes: 32,
        ..Limits::default()
    }
}

pub(crate) fn server(limits: Limits) -> Server {
    Server {
        node: NodeId::from("ND_test"),
        keys: Keys::new([("devkey", SECRET)]),
        limits,
        ice_lite: false,
        ice_servers: vec![IceServer {
            urls: vec!["stun:127.0.0.1:17878".to_owned()],
            credential: IceCredential::None,
        }],
    }
}

pub(crate) fn control(limits: Limits, room: RoomDefaults) -> Control {
    Control::new(ControlConfig {
        node: NodeId::from("ND_test"),
        shards: 1,
        limits,
        room,
        random: Random::from_seed([5; 32]),
    })
}

/// The recorded `room_configurations`.
pub(crate) fn preset() -> RoomOptions {
    RoomOptions {
        empty_timeout_s: Some(11),
        departure_timeout_s: Some(12),
        max_participants: Some(13),
        metadata: Some("presetmeta".to_owned()),
    }
}

/// A token as the recordings describe it: `raw`, or `claims` with `header` and `signed_with`.
pub(crate) fn token(recorded: &Value) -> String {
    if let Some(raw) = recorded["raw"].as_str() {
        return raw.to_owned();
    }
    let mut claims = recorded["claims"].clone();
    for value in claims.as_object_mut().unwrap().values_mut() {
        let offset =
            value.as_str().and_then(|text| text.strip_prefix("now")).and_then(|n| n.parse::<i64>().ok());
        if let Some(offset) = offset {
            *value = (i64::try_from(NOW.unix_s()).unwrap() + offset).into();
        }
    }
    let header = match &recorded["header"] {
        Value::Null => r#"{"alg":"HS256","typ":"JWT"}"#.to_owned(),
        header => header.to_string(),
    };
    let secret = recorded["signed_with"].as_str().unwrap_or(SECRET);
    let segment = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", segment(&header), segment(&claims.to_string()));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    if recorded["note"] == "payload changed after signing" {
        claims["name"] = "changed".into();
        return format!("{}.{}.{signature}", segment(&header), segment(&claims.to_string()));
    }
    format!("{signed}.{signature}")
}

/// What a shard would say first to a participant whose join `control` has just admitted, and the room's
/// configuration if the join made the room.
pub(crate) fn joined(control: &mut Control, rooms: &mut Vec<RoomConfig>) -> Joined {
    let mut join = None;
    loop {
        match control.poll_output() {
            Output::ToShard { command, .. } => match *command {
                Command::CreateRoom(room) => rooms.push(*room),
                Command::Join(admitted) => join = Some(admitted),
                Command::Disconnect { peer, .. } => control.handle_left(NOW, peer),
                Command::CloseRoom { room, .. } => control.handle_room_closed(NOW, &room),
                _ => {}
            },
            Output::Timeout(..) => break,
            _ => {}
        }
    }
    let join = join.expect("a join");
    let config = rooms.iter().find(|room| room.sid == join.room).expect("its room").clone();
    let room = RoomInfo { config, num_participants: 0, num_publishers: 0, active_recording: false };
    let subscriber_primary = join.layout == Layout::Dual { subscriber_primary: true };
    Joined { room, participant: participant(&join), others: Vec::new(), subscriber_primary }
}

fn participant(join: &Join) -> ParticipantInfo {
    ParticipantInfo {
        sid: join.sid.clone(),
        identity: join.identity.clone(),
        state: ParticipantState::Joining,
        tracks: Vec::new(),
        metadata: join.metadata.clone(),
        joined_ms: NOW.unix_ms(),
        name: join.name.clone(),
        version: 0,
        permission: join.permission.clone(),
        is_publisher: false,
        kind: join.kind,
        kind_details: join.kind_details.clone(),
        attributes: join.attributes.clone(),
        disconnect_reason: None,
        client_protocol: join.client_protocol,
        capabilities: join.capabilities.clone(),
    }
}
