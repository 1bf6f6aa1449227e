//! What is told of a room afterwards, or while it lasts: the shape of `fanlight report --json`, and its text.

mod table;
mod text;
mod trouble;
mod words;

pub use table::{Align, Table, printable};
pub use words::{duration, size};

use crate::collector::measured::ClientMetric;
use crate::collector::sides::ClientTrack;
use fanlight_base::{Identity, ParticipantSid, RoomName, RoomSid, TrackSid};
use fanlight_events::{ClientFacts, Direction, Kind, TrackCounters};
use serde::Serialize;

/// All rooms that were asked for, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// One entry for each life of a room.
    pub rooms: Vec<RoomReport>,
    /// When the server last wrote to the record, milliseconds since the Unix epoch.
    #[serde(skip)]
    pub seen_ms: Option<u64>,
}

/// One life of a room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoomReport {
    /// Its id.
    pub sid: RoomSid,
    /// Its name.
    pub name: RoomName,
    /// Begin, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// End, milliseconds since the Unix epoch; null while it is open.
    pub ended_ms: Option<u64>,
    /// Why it ended; null while it is open.
    pub reason: Option<String>,
    /// Who was there, in the order of joining.
    pub participants: Vec<ParticipantReport>,
    /// What happened, in its order; events of the whole node are among them.
    pub timeline: Vec<TimelineReport>,
}

/// One session of a participant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParticipantReport {
    /// Its id.
    pub sid: ParticipantSid,
    /// Identity from its token.
    pub identity: Identity,
    /// Join, milliseconds since the Unix epoch.
    pub joined_ms: u64,
    /// End, milliseconds since the Unix epoch; null while it is there.
    pub left_ms: Option<u64>,
    /// Why it left; null while it is there.
    pub reason: Option<String>,
    /// What the client said of itself.
    pub client: ClientFacts,
    /// What it published and received, in the order of beginning.
    pub tracks: Vec<TrackReport>,
    /// Its time on a TURN relay; left out when it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayReport>,
    /// What its client has measured, the latest of each series; left out when that is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<ClientMetric>,
    /// From join to connected transport, milliseconds.
    #[serde(skip)]
    pub connect_ms: Option<u64>,
    /// `udp` or `tcp`; empty when it never connected.
    #[serde(skip)]
    pub connection_type: String,
}

/// A participant's time on a TURN relay, open allocations included as far as they have been heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RelayReport {
    /// Times on the relay: from a first allocation until all were gone.
    pub sessions: u64,
    /// How long they were held, milliseconds.
    pub held_ms: u64,
    /// Payload that the relay took from the participant to its peers, bytes.
    pub sent_bytes: u64,
    /// Payload that the relay brought it from its peers, bytes.
    pub received_bytes: u64,
}

/// One publication or subscription.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrackReport {
    /// The track.
    pub sid: TrackSid,
    /// Published by the participant, or subscribed to by it.
    pub direction: Direction,
    /// Audio or video; null when not known.
    pub kind: Option<Kind>,
    /// Source, lower case.
    pub source: String,
    /// MIME type of the codec.
    pub codec: String,
    /// Begin, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// End, milliseconds since the Unix epoch; null while it lasts.
    pub ended_ms: Option<u64>,
    /// The latest counters.
    pub counters: TrackCounters,
    /// When the counters were taken, milliseconds since the Unix epoch.
    #[serde(skip)]
    pub counters_ms: Option<u64>,
    /// Highest media bitrate between two samples, bits per second.
    #[serde(skip)]
    pub peak_bps: u64,
    /// Who publishes it.
    #[serde(skip)]
    pub publisher: ParticipantSid,
    /// The same as the participant's client counted it; left out when the client reported nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientTrack>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimelineReport {
    /// When, milliseconds since the Unix epoch.
    pub t_ms: u64,
    /// Its name, as docs/events.md lists it.
    pub event: String,
    /// Whom it belongs to.
    #[serde(skip_serializing_if = "ParticipantSid::is_empty")]
    pub participant: ParticipantSid,
    /// What it belongs to.
    #[serde(skip_serializing_if = "TrackSid::is_empty")]
    pub track: TrackSid,
    /// Its fields, as docs/events.md lists them.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl Report {
    /// The report as indented JSON, without a line end.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The report for people: who was there, what went wrong, one table per participant, a timeline; times are UTC. `now_ms` is the wall clock, milliseconds since the
    /// Unix epoch: what is open is told as lasting until then, or until the server was last seen.
    pub fn to_text(&self, now_ms: u64) -> String {
        text::render(self, now_ms)
    }
}
