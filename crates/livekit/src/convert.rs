//! Rooms, participants and tracks between the SFU's words and LiveKit's messages.

use fanlight_base::{Identity, TrackSid};
use fanlight_sfu::input::{AddTrack, AddTrackCodec};
use fanlight_sfu::model;
use livekit_protocol as proto;
use prost::Message;
use proto::participant_info::State;
use proto::request_response::{Reason, Request as Echoed};

/// Most encodings taken from one announcement; three are used.
const LAYERS_MAX: usize = 16;
/// Most codecs taken from one announcement; two are used.
const CODECS_MAX: usize = 16;
/// Most audio features taken from one announcement; LiveKit names seven.
const FEATURES_MAX: usize = 32;

/// `AudioTrackFeature`: stereo.
const TF_STEREO: i32 = 0;
/// `AudioTrackFeature`: DTX stays off.
const TF_NO_DTX: i32 = 1;

/// Why an `add_track` is refused before the SFU sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddTrackRefusal {
    /// Neither audio nor video.
    UnsupportedType,
    /// More layers, codecs or tracks than are taken.
    TooMany,
}

impl AddTrackRefusal {
    /// The answer, with the request echoed.
    pub fn response(self, request: proto::AddTrackRequest) -> proto::RequestResponse {
        let (reason, message) = match self {
            Self::UnsupportedType => (Reason::UnsupportedType, ""),
            Self::TooMany => (Reason::LimitExceeded, "too many tracks, layers or codecs"),
        };
        proto::RequestResponse {
            request_id: 0,
            reason: reason as i32,
            message: message.to_owned(),
            request: Some(Echoed::AddTrack(request)),
        }
    }
}

/// A track that a client announces.
pub fn add_track(request: &proto::AddTrackRequest) -> Result<AddTrack, AddTrackRefusal> {
    let kind = match proto::TrackType::try_from(request.r#type) {
        Ok(proto::TrackType::Audio) => model::Kind::Audio,
        Ok(proto::TrackType::Video) => model::Kind::Video,
        _ => return Err(AddTrackRefusal::UnsupportedType),
    };
    let layers_fit = |layers: &[proto::VideoLayer]| layers.len() <= LAYERS_MAX;
    let codecs_fit = request.simulcast_codecs.len() <= CODECS_MAX
        && request.simulcast_codecs.iter().all(|codec| layers_fit(&codec.layers));
    if !codecs_fit || !layers_fit(&request.layers) || request.audio_features.len() > FEATURES_MAX {
        return Err(AddTrackRefusal::TooMany);
    }
    let mut audio_features = request.audio_features.clone();
    // The old flags and the features say the same thing twice.
    let mut feature = |flag: bool, number: i32| {
        if flag && !audio_features.contains(&number) {
            audio_features.push(number);
        }
        audio_features.contains(&number)
    };
    #[expect(deprecated, reason = "old clients send these")]
    let (stereo, disable_dtx) = (feature(request.stereo, TF_STEREO), feature(request.disable_dtx, TF_NO_DTX));
    Ok(AddTrack {
        cid: request.cid.clone(),
        name: request.name.clone(),
        kind,
        source: model::Source(request.source),
        muted: request.muted,
        width: request.width,
        height: request.height,
        disable_dtx,
        stereo,
        disable_red: request.disable_red,
        layers: request.layers.iter().map(layer_from).collect(),
        simulcast_codecs: request.simulcast_codecs.iter().map(add_track_codec).collect(),
        sid: TrackSid::from(&request.sid),
        encryption: request.encryption,
        stream: request.stream.clone(),
        backup_codec_policy: request.backup_codec_policy,
        audio_features,
    })
}

/// The announcement again, for an answer that echoes it.
pub fn add_track_request(track: &AddTrack) -> proto::AddTrackRequest {
    let codec = |codec: &AddTrackCodec| proto::SimulcastCodec {
        codec: codec.codec.clone(),
        cid: codec.cid.clone(),
        layers: codec.layers.iter().map(layer).collect(),
        ..Default::default()
    };
    let mut request = proto::AddTrackRequest {
        cid: track.cid.clone(),
        name: track.name.clone(),
        r#type: track_type(track.kind) as i32,
        width: track.width,
        height: track.height,
        muted: track.muted,
        source: track.source.0,
        layers: track.layers.iter().map(layer).collect(),
        simulcast_codecs: track.simulcast_codecs.iter().map(codec).collect(),
        sid: track.sid.as_str().to_owned(),
        disable_red: track.disable_red,
        encryption: track.encryption,
        stream: track.stream.clone(),
        backup_codec_policy: track.backup_codec_policy,
        audio_features: track.audio_features.clone(),
        ..Default::default()
    };
    #[expect(deprecated, reason = "old clients read these")]
    {
        request.disable_dtx = track.disable_dtx;
        request.stereo = track.stereo;
    }
    request
}

/// A room.
pub fn room(info: &model::RoomInfo) -> proto::Room {
    let config = &info.config;
    let video = |mime: &&String| mime.starts_with("video/");
    let (video, audio): (Vec<&String>, Vec<&String>) = config.enabled_codecs.iter().partition(video);
    let rtx = "video/rtx".to_owned();
    let enabled = audio.into_iter().chain(video).filter(|mime| **mime != rtx).chain([&rtx]);
    proto::Room {
        sid: config.sid.as_str().to_owned(),
        name: config.name.as_str().to_owned(),
        empty_timeout: config.empty_timeout_s,
        departure_timeout: config.departure_timeout_s,
        max_participants: config.max_participants,
        creation_time: signed(config.created_ms / 1000),
        creation_time_ms: signed(config.created_ms),
        turn_password: config.turn_password.reveal().clone(),
        enabled_codecs: enabled.map(|mime| codec(mime)).collect(),
        metadata: config.metadata.clone(),
        num_participants: info.num_participants,
        num_publishers: info.num_publishers,
        active_recording: info.active_recording,
        version: None,
    }
}

/// A participant.
pub fn participant(info: &model::ParticipantInfo) -> proto::ParticipantInfo {
    proto::ParticipantInfo {
        sid: info.sid.as_str().to_owned(),
        identity: info.identity.as_str().to_owned(),
        state: state(info.state) as i32,
        tracks: info.tracks.iter().map(track).collect(),
        metadata: info.metadata.clone(),
        joined_at: signed(info.joined_ms / 1000),
        joined_at_ms: signed(info.joined_ms),
        name: info.name.clone(),
        version: info.version,
        permission: Some(permission(&info.permission)),
        is_publisher: info.is_publisher,
        kind: kind(info.kind) as i32,
        attributes: info.attributes.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        disconnect_reason: info.disconnect_reason.map_or(0, |reason| reason as i32),
        kind_details: info.kind_details.clone(),
        client_protocol: info.client_protocol,
        capabilities: info.capabilities.clone(),
        ..Default::default()
    }
}

/// A participant, encoded as it stands in messages.
pub fn encode_participant(info: &model::ParticipantInfo) -> Vec<u8> {
    participant(info).encode_to_vec()
}

/// A track.
pub fn track(info: &model::TrackInfo) -> proto::TrackInfo {
    let version = (info.version_unix_us != 0)
        .then_some(proto::TimedVersion { unix_micro: info.version_unix_us, ticks: 0 });
    let mut track = proto::TrackInfo {
        sid: info.sid.as_str().to_owned(),
        r#type: track_type(info.kind) as i32,
        name: info.name.clone(),
        muted: info.muted,
        width: info.width,
        height: info.height,
        source: info.source.0,
        mime_type: info.mime_type.clone(),
        mid: info.mid.clone(),
        codecs: info.codecs.iter().map(codec_info).collect(),
        disable_red: info.disable_red,
        encryption: info.encryption,
        stream: info.stream.clone(),
        version,
        audio_features: info.audio_features.clone(),
        backup_codec_policy: info.backup_codec_policy,
        ..Default::default()
    };
    #[expect(deprecated, reason = "old clients read these")]
    {
        track.simulcast = info.simulcast;
        track.disable_dtx = info.disable_dtx;
        track.stereo = info.stereo;
        track.layers = info.layers.iter().map(layer).collect();
    }
    track
}

/// Rights.
pub fn permission(permission: &model::Permission) -> proto::ParticipantPermission {
    let mut message = proto::ParticipantPermission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission.can_publish_sources.iter().map(|source| source.0).collect(),
        hidden: permission.hidden,
        can_update_metadata: permission.can_update_metadata,
        can_subscribe_metrics: permission.can_subscribe_metrics,
        ..Default::default()
    };
    #[expect(deprecated, reason = "old clients read these")]
    {
        message.recorder = permission.recorder;
        message.agent = permission.agent;
    }
    message
}

/// One line of a publisher's allow list.
pub(crate) fn track_permission(permission: &proto::TrackPermission) -> fanlight_sfu::input::TrackPermission {
    fanlight_sfu::input::TrackPermission {
        participant_sid: (&permission.participant_sid).into(),
        identity: Identity::from(&permission.participant_identity),
        all_tracks: permission.all_tracks,
        tracks: permission.track_sids.iter().map(TrackSid::from).collect(),
    }
}

pub(crate) fn codec(mime: &str) -> proto::Codec {
    proto::Codec { mime: mime.to_owned(), fmtp_line: String::new() }
}

fn add_track_codec(codec: &proto::SimulcastCodec) -> AddTrackCodec {
    AddTrackCodec {
        codec: codec.codec.clone(),
        cid: codec.cid.clone(),
        layers: codec.layers.iter().map(layer_from).collect(),
    }
}

fn codec_info(info: &model::CodecInfo) -> proto::SimulcastCodecInfo {
    proto::SimulcastCodecInfo {
        mime_type: info.mime_type.clone(),
        mid: info.mid.clone(),
        cid: info.cid.clone(),
        layers: info.layers.iter().map(layer).collect(),
        video_layer_mode: info.video_layer_mode as i32,
        sdp_cid: info.sdp_cid.clone(),
    }
}

fn layer(layer: &model::VideoLayer) -> proto::VideoLayer {
    proto::VideoLayer {
        quality: layer.quality,
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate_bps,
        ssrc: layer.ssrc,
        spatial_layer: layer.spatial_layer,
        rid: layer.rid.clone(),
        repair_ssrc: layer.repair_ssrc,
    }
}

fn layer_from(layer: &proto::VideoLayer) -> model::VideoLayer {
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

const fn track_type(kind: model::Kind) -> proto::TrackType {
    match kind {
        model::Kind::Audio => proto::TrackType::Audio,
        model::Kind::Video => proto::TrackType::Video,
    }
}

const fn state(state: model::ParticipantState) -> State {
    match state {
        model::ParticipantState::Joining => State::Joining,
        model::ParticipantState::Joined => State::Joined,
        model::ParticipantState::Active => State::Active,
        model::ParticipantState::Disconnected => State::Disconnected,
    }
}

const fn kind(kind: model::ParticipantKind) -> proto::participant_info::Kind {
    use proto::participant_info::Kind;
    match kind {
        model::ParticipantKind::Standard => Kind::Standard,
        model::ParticipantKind::Ingress => Kind::Ingress,
        model::ParticipantKind::Egress => Kind::Egress,
        model::ParticipantKind::Sip => Kind::Sip,
        model::ParticipantKind::Agent => Kind::Agent,
        model::ParticipantKind::Connector => Kind::Connector,
        model::ParticipantKind::Bridge => Kind::Bridge,
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
