//! What is written: full rows, so that writing one twice changes nothing.

use crate::turn_account::{AllocationRecord, SessionRecord};
use fanlight_base::{Identity, ParticipantSid, RoomName, RoomSid, TrackSid};
use fanlight_events::{ClientFacts, Direction, Kind, TrackCounters};

/// Rows of one transaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// When the batch was handed out, milliseconds since the Unix epoch: *last seen*.
    pub seen_ms: u64,
    /// Rooms as they stand, to insert or to replace.
    pub rooms: Vec<RoomRow>,
    /// Participants as they stand, to insert or to replace.
    pub participants: Vec<ParticipantRow>,
    /// Track sessions as they stand, to insert or to replace.
    pub tracks: Vec<TrackRow>,
    /// Timeline rows to append.
    pub timeline: Vec<TimelineRow>,
    /// Counters to append.
    pub counters: Vec<CountersRow>,
    /// TURN allocations as they stand, to insert or to replace.
    pub turn_allocations: Vec<AllocationRecord>,
    /// TURN user sessions as they stand, to insert or to replace.
    pub turn_sessions: Vec<SessionRecord>,
}

impl Batch {
    /// Number of rows, the heartbeat not counted.
    pub fn rows(&self) -> usize {
        self.rooms.len()
            + self.participants.len()
            + self.tracks.len()
            + self.timeline.len()
            + self.counters.len()
            + self.turn_allocations.len()
            + self.turn_sessions.len()
    }
}

/// One life of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRow {
    /// Its id, the key.
    pub sid: RoomSid,
    /// Its name; empty when the fact that said it was lost.
    pub name: RoomName,
    /// Begin, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// End, milliseconds since the Unix epoch.
    pub ended_ms: Option<u64>,
    /// Why it ended.
    pub reason: Option<String>,
}

/// One session of a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantRow {
    /// Its id, the key.
    pub sid: ParticipantSid,
    /// Its room.
    pub room: RoomSid,
    /// Identity from its token; empty when the fact that said it was lost.
    pub identity: Identity,
    /// Display name.
    pub name: String,
    /// Kind from its token.
    pub kind: String,
    /// Whether others may not see it.
    pub hidden: bool,
    /// Signalling version.
    pub signal_version: u8,
    /// What the client said of itself.
    pub client: ClientFacts,
    /// Join, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// First connected transport, milliseconds since the Unix epoch.
    pub active_ms: Option<u64>,
    /// From join to connected transport, milliseconds.
    pub connect_ms: Option<u64>,
    /// `udp` or `tcp`, as last chosen; empty before.
    pub connection_type: String,
    /// SRTP profile of the transport; empty before.
    pub srtp_profile: String,
    /// Remote address and port, as last chosen; empty before.
    pub remote: String,
    /// End, milliseconds since the Unix epoch.
    pub left_ms: Option<u64>,
    /// Why it ended.
    pub reason: Option<String>,
}

/// One publication, or one subscription to it: from its begin to its end. Who subscribes again makes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackRow {
    /// Number of the session in this database, the key.
    pub id: u64,
    /// The track.
    pub sid: TrackSid,
    /// Its room.
    pub room: RoomSid,
    /// Who publishes, or who subscribes.
    pub participant: ParticipantSid,
    /// Which of the two.
    pub direction: Direction,
    /// Who publishes the track; empty when not known.
    pub publisher: ParticipantSid,
    /// Audio or video; unknown when the fact that said it was lost.
    pub kind: Option<Kind>,
    /// Source, lower case.
    pub source: String,
    /// MIME type of the codec.
    pub codec: String,
    /// Name given by the publisher.
    pub name: String,
    /// Width as announced, pixels.
    pub width: u32,
    /// Height as announced, pixels.
    pub height: u32,
    /// Whether several encodings are sent.
    pub simulcast: bool,
    /// RIDs or spatial layers seen so far.
    pub layers: Vec<String>,
    /// Begin, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// End, milliseconds since the Unix epoch.
    pub ended_ms: Option<u64>,
    /// Why it ended.
    pub reason: Option<String>,
    /// The latest counters.
    pub counters: TrackCounters,
    /// When they were taken, milliseconds since the Unix epoch.
    pub counters_ms: Option<u64>,
    /// Highest media bitrate of a window between two samples, bits per second.
    pub peak_bps: u64,
}

/// Counters of one track session at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersRow {
    /// [`TrackRow::id`].
    pub track_id: u64,
    /// Number of the sample in its session, from 1; with `track_id` the key. Gaps are samples that were refused.
    pub number: u64,
    /// When, milliseconds since the Unix epoch.
    pub t_ms: u64,
    /// Cumulative counters; they never fall from number to number.
    pub counters: TrackCounters,
}

/// One event of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineRow {
    /// Number of the event in this database, the key; the order of arrival.
    pub id: u64,
    /// When, milliseconds since the Unix epoch.
    pub t_ms: u64,
    /// Room; empty when it belongs to none.
    pub room: RoomSid,
    /// Participant; empty when it belongs to none.
    pub participant: ParticipantSid,
    /// Track; empty when it belongs to none.
    pub track: TrackSid,
    /// Name of the event.
    pub event: &'static str,
    /// Its fields, a JSON object.
    pub fields: String,
}

/// The name of a direction in the record.
pub const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Publish => "publish",
        Direction::Subscribe => "subscribe",
    }
}

/// The name of a kind in the record; empty when it is not known.
pub const fn kind_name(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Audio) => "audio",
        Some(Kind::Video) => "video",
        None => "",
    }
}
