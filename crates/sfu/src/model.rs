//! Rooms, participants and tracks as signalling tells of them: plain values, converted to LiveKit's messages only in
//! `livekit`.
//!
//! Numbers that are LiveKit enums on the wire and mean nothing to the SFU (capabilities, audio features, …) are kept as
//! the `i32` that came, so that unknown values survive.

use crate::envelope::EncodeInfo;
use fanlight_base::{Identity, ParticipantSid, Redacted, RoomName, RoomSid, TrackSid};
use std::collections::BTreeMap;

pub use fanlight_events::Kind;

/// What a room is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomConfig {
    /// Session id, made by `control`.
    pub sid: RoomSid,
    /// Name.
    pub name: RoomName,
    /// Seconds an unvisited room is kept.
    pub empty_timeout_s: u32,
    /// Seconds a room is kept after the last participant left.
    pub departure_timeout_s: u32,
    /// Most participants that count; 0 is no limit.
    pub max_participants: u32,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Told to every client, as LiveKit does; 43 alphanumeric characters.
    pub turn_password: Redacted<String>,
    /// Ends frames that E2EE decoders let through; 43 alphanumeric characters.
    pub sif_trailer: String,
    /// MIME types clients may publish, in the order in which they are told (`video/VP8` first).
    pub enabled_codecs: Vec<String>,
    /// Application metadata.
    pub metadata: String,
}

/// A room as it is told to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// What it was made with; `metadata` is the current one.
    pub config: RoomConfig,
    /// Participants that count, as of the last 5 s tick.
    pub num_participants: u32,
    /// Those of them that publish.
    pub num_publishers: u32,
    /// Whether a recorder is present.
    pub active_recording: bool,
}

/// Where a participant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParticipantState {
    /// Accepted, the join not yet written.
    Joining,
    /// The join is written, no transport yet.
    Joined,
    /// The primary transport is connected.
    Active,
    /// Gone.
    Disconnected,
}

/// Kind of a participant, from its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ParticipantKind {
    /// A person's client.
    #[default]
    Standard,
    /// Ingress worker.
    Ingress,
    /// Egress worker.
    Egress,
    /// SIP bridge.
    Sip,
    /// Agent.
    Agent,
    /// Connector.
    Connector,
    /// Bridge.
    Bridge,
}

/// Why a session ended; the numbers are LiveKit's `DisconnectReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are LiveKit's and say it all")]
pub enum DisconnectReason {
    Unknown = 0,
    ClientInitiated = 1,
    DuplicateIdentity = 2,
    ServerShutdown = 3,
    ParticipantRemoved = 4,
    RoomDeleted = 5,
    StateMismatch = 6,
    JoinFailure = 7,
    Migration = 8,
    SignalClose = 9,
    RoomClosed = 10,
    UserUnavailable = 11,
    UserRejected = 12,
    SipTrunkFailure = 13,
    ConnectionTimeout = 14,
    MediaFailure = 15,
    AgentError = 16,
}

impl DisconnectReason {
    /// Lower-case name for the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::ClientInitiated => "client_initiated",
            Self::DuplicateIdentity => "duplicate_identity",
            Self::ServerShutdown => "server_shutdown",
            Self::ParticipantRemoved => "participant_removed",
            Self::RoomDeleted => "room_deleted",
            Self::StateMismatch => "state_mismatch",
            Self::JoinFailure => "join_failure",
            Self::Migration => "migration",
            Self::SignalClose => "signal_close",
            Self::RoomClosed => "room_closed",
            Self::UserUnavailable => "user_unavailable",
            Self::UserRejected => "user_rejected",
            Self::SipTrunkFailure => "sip_trunk_failure",
            Self::ConnectionTimeout => "connection_timeout",
            Self::MediaFailure => "media_failure",
            Self::AgentError => "agent_error",
        }
    }
}

/// Source of a track; the numbers are LiveKit's `TrackSource`, others are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Source(pub i32);

impl Source {
    /// Not said.
    pub const UNKNOWN: Self = Self(0);
    /// Camera.
    pub const CAMERA: Self = Self(1);
    /// Microphone.
    pub const MICROPHONE: Self = Self(2);
    /// A shared screen.
    pub const SCREEN_SHARE: Self = Self(3);
    /// Sound of a shared screen.
    pub const SCREEN_SHARE_AUDIO: Self = Self(4);

    /// Lower-case name for the record.
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            1 => "camera",
            2 => "microphone",
            3 => "screen_share",
            4 => "screen_share_audio",
            _ => "unknown",
        }
    }

    /// Letter in the track's sid after `TR_A` or `TR_V`; none when unknown.
    pub const fn sid_letter(self) -> &'static str {
        match self.0 {
            1 => "C",
            2 => "M",
            3 => "S",
            4 => "s",
            _ => "",
        }
    }
}

/// What a participant may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permission {
    /// Receive tracks.
    pub can_subscribe: bool,
    /// Publish tracks.
    pub can_publish: bool,
    /// Send data.
    pub can_publish_data: bool,
    /// Sources it may publish; empty means all.
    pub can_publish_sources: Vec<Source>,
    /// Not shown to others.
    pub hidden: bool,
    /// Records the room.
    pub recorder: bool,
    /// May change its own name, metadata and attributes.
    pub can_update_metadata: bool,
    /// Is an agent.
    pub agent: bool,
    /// May subscribe to metrics.
    pub can_subscribe_metrics: bool,
}

/// A participant as it is told: made and encoded once for each change, and shared by all who hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedInfo(Shared<Encoded>);

/// The payload of an update.
#[expect(clippy::disallowed_types, reason = "it has as many receivers as the room has participants")]
type Shared<T> = std::sync::Arc<T>;

#[derive(Debug, PartialEq, Eq)]
struct Encoded {
    info: ParticipantInfo,
    encoded: Box<[u8]>,
}

impl SharedInfo {
    /// Encodes it.
    pub fn new(info: ParticipantInfo, encode: EncodeInfo) -> Self {
        let encoded = encode(&info).into_boxed_slice();
        Self(Encoded { info, encoded }.into())
    }

    /// As it stands in messages to clients.
    pub fn encoded(&self) -> &[u8] {
        &self.0.encoded
    }

    /// About how many bytes of a message it takes.
    pub fn bytes(&self) -> usize {
        self.0.encoded.len() + ENTRY_BYTES
    }
}

impl std::ops::Deref for SharedInfo {
    type Target = ParticipantInfo;

    fn deref(&self) -> &ParticipantInfo {
        &self.0.info
    }
}

/// The room as it is told, shared by all who hear of it.
pub type SharedRoomInfo = Shared<RoomInfo>;

/// A participant as it is told to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantInfo {
    /// Session id.
    pub sid: ParticipantSid,
    /// Identity.
    pub identity: Identity,
    /// State.
    pub state: ParticipantState,
    /// Published tracks; empty once disconnected.
    pub tracks: Vec<TrackInfo>,
    /// Application metadata.
    pub metadata: String,
    /// When it joined, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// Display name.
    pub name: String,
    /// Never falls; clients drop older ones.
    pub version: u32,
    /// Rights.
    pub permission: Permission,
    /// Whether it ever published.
    pub is_publisher: bool,
    /// Kind.
    pub kind: ParticipantKind,
    /// LiveKit `KindDetail` numbers from the token.
    pub kind_details: Vec<i32>,
    /// Application attributes.
    pub attributes: BTreeMap<String, String>,
    /// Set when disconnected.
    pub disconnect_reason: Option<DisconnectReason>,
    /// Client-to-client features number, echoed.
    pub client_protocol: i32,
    /// LiveKit `ClientInfo.Capability` numbers, echoed.
    pub capabilities: Vec<i32>,
}

impl ParticipantInfo {
    /// About how much memory it takes, bytes.
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(key, value)| key.len() + value.len() + ENTRY_BYTES);
        let tracks = self.tracks.iter().map(TrackInfo::bytes);
        let texts = self.name.len() + self.metadata.len();
        size_of::<Self>() + texts + attributes.sum::<usize>() + tracks.sum::<usize>()
    }
}

/// One encoding of a video track.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VideoLayer {
    /// LiveKit `VideoQuality`: 0 low, 1 medium, 2 high, 3 off.
    pub quality: i32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// As announced, bits per second.
    pub bitrate_bps: u32,
    /// 0 until seen.
    pub ssrc: u32,
    /// 0 is the lowest.
    pub spatial_layer: i32,
    /// Empty until seen.
    pub rid: String,
    /// SSRC of its RTX; 0 until seen.
    pub repair_ssrc: u32,
}

/// How spatial layers travel; the numbers are LiveKit's `VideoLayer.Mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VideoLayerMode {
    /// Not used.
    #[default]
    Unused = 0,
    /// One stream for each layer: simulcast.
    OneSpatialLayerPerStream = 1,
    /// All layers in one stream: SVC.
    MultipleSpatialLayersPerStream = 2,
}

/// One codec of a track.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CodecInfo {
    /// MIME type.
    pub mime_type: String,
    /// The publisher's m-line.
    pub mid: String,
    /// The client's id for the track.
    pub cid: String,
    /// Set where the msid in the SDP differs from `cid`.
    pub sdp_cid: String,
    /// Its encodings.
    pub layers: Vec<VideoLayer>,
    /// How they travel.
    pub video_layer_mode: VideoLayerMode,
}

/// A track as it is told to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackInfo {
    /// Id.
    pub sid: TrackSid,
    /// Audio or video.
    pub kind: Kind,
    /// Name given by the publisher.
    pub name: String,
    /// Muted by the publisher.
    pub muted: bool,
    /// Pixels, as announced.
    pub width: u32,
    /// Pixels, as announced.
    pub height: u32,
    /// Several encodings, one stream each.
    pub simulcast: bool,
    /// Source.
    pub source: Source,
    /// Encodings of the first codec.
    pub layers: Vec<VideoLayer>,
    /// MIME type once known.
    pub mime_type: String,
    /// The publisher's m-line once known.
    pub mid: String,
    /// Codecs asked for or seen.
    pub codecs: Vec<CodecInfo>,
    /// Groups tracks for lip sync (`camera`, `screen`, or what the client gave).
    pub stream: String,
    /// DTX must stay off.
    pub disable_dtx: bool,
    /// Stereo audio.
    pub stereo: bool,
    /// RED must stay off.
    pub disable_red: bool,
    /// LiveKit `Encryption.Type`: 0 none, 1 GCM, 2 custom.
    pub encryption: i32,
    /// Set once when the track starts, microseconds since the Unix epoch; 0 before.
    pub version_unix_us: i64,
    /// LiveKit `AudioTrackFeature` numbers.
    pub audio_features: Vec<i32>,
    /// LiveKit `BackupCodecPolicy`.
    pub backup_codec_policy: i32,
}

impl TrackInfo {
    /// About how much memory it takes, bytes.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.len() + self.codecs.iter().map(|codec| codec.layers.len()).sum::<usize>();
        let texts = self.name.len() + self.stream.len() + self.mid.len();
        let codecs = self.codecs.len() * (size_of::<CodecInfo>() + ENTRY_BYTES);
        size_of::<Self>() + texts + codecs + layers * (size_of::<VideoLayer>() + ENTRY_BYTES)
    }
}

/// What a small text or an entry of a map takes beside its content, about.
const ENTRY_BYTES: usize = 48;
