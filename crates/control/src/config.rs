//! What the node is told about rooms and limits.

use fanlight_base::{NodeId, Random};
use std::collections::BTreeMap;

/// Codecs this server plays, in the order in which clients are told of them (VP8 first, then H264, other video, audio).
pub const PLAYABLE_CODECS: [&str; 6] =
    ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"];

/// What [`Control`](crate::Control) is made with.
#[derive(Debug)]
pub struct ControlConfig {
    /// This node.
    pub node: NodeId,
    /// Number of shards; 0 is read as 1.
    pub shards: u16,
    /// `limit.*`.
    pub limits: Limits,
    /// `room.*`.
    pub room: RoomDefaults,
    /// Draws sids, passwords and trailers.
    pub random: Random,
}

/// `limit.*` of the configuration; sizes are in bytes, 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Tracks on this node before joins are refused.
    pub num_tracks: u32,
    /// Bytes per second through this node before joins are refused.
    pub bytes_per_s: u64,
    /// Metadata of a participant.
    pub metadata_bytes: usize,
    /// Keys and values of a participant's attributes together.
    pub attributes_bytes: usize,
    /// Name of a room.
    pub room_name_bytes: usize,
    /// Identity of a participant.
    pub identity_bytes: usize,
    /// Display name of a participant.
    pub name_bytes: usize,
}

impl Limits {
    /// Whether a participant may have this metadata and these attributes.
    pub fn take(&self, metadata: &str, attributes: &BTreeMap<String, String>) -> bool {
        let attribute_bytes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
        let within = |bytes: usize, limit: usize| limit == 0 || bytes <= limit;
        within(metadata.len(), self.metadata_bytes) && within(attribute_bytes, self.attributes_bytes)
    }
}

impl Default for Limits {
    /// LiveKit's defaults.
    fn default() -> Self {
        Self {
            num_tracks: 0,
            bytes_per_s: 0,
            metadata_bytes: 512 << 10,
            attributes_bytes: 64 << 10,
            room_name_bytes: 256,
            identity_bytes: 256,
            name_bytes: 256,
        }
    }
}

/// `room.*` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomDefaults {
    /// Joins make rooms, whatever the token grants.
    pub auto_create: bool,
    /// Seconds a room is kept that nobody ever joined.
    pub empty_timeout_s: u32,
    /// Seconds a room is kept after the last participant that holds it left.
    pub departure_timeout_s: u32,
    /// Most participants that count; 0 is no limit.
    pub max_participants: u32,
    /// MIME types that may be published, in the order in which clients are told.
    pub enabled_codecs: Vec<String>,
    /// `room_configurations`, by the name a token's `roomPreset` gives.
    pub presets: BTreeMap<String, RoomOptions>,
}

impl Default for RoomDefaults {
    /// LiveKit's defaults, with the codecs that play here.
    fn default() -> Self {
        Self {
            auto_create: true,
            empty_timeout_s: 300,
            departure_timeout_s: 20,
            max_participants: 0,
            enabled_codecs: PLAYABLE_CODECS.map(String::from).to_vec(),
            presets: BTreeMap::new(),
        }
    }
}

/// What a token or a preset asks of a room that is made; `None` leaves the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomOptions {
    /// Seconds a room is kept that nobody ever joined.
    pub empty_timeout_s: Option<u32>,
    /// Seconds a room is kept after the last participant left.
    pub departure_timeout_s: Option<u32>,
    /// Most participants that count.
    pub max_participants: Option<u32>,
    /// Application metadata.
    pub metadata: Option<String>,
}

impl RoomOptions {
    /// These options, and `weaker` where they say nothing.
    #[must_use]
    pub fn or(&self, weaker: &Self) -> Self {
        Self {
            empty_timeout_s: self.empty_timeout_s.or(weaker.empty_timeout_s),
            departure_timeout_s: self.departure_timeout_s.or(weaker.departure_timeout_s),
            max_participants: self.max_participants.or(weaker.max_participants),
            metadata: self.metadata.clone().or_else(|| weaker.metadata.clone()),
        }
    }
}
