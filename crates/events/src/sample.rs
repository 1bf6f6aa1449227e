//! Samples: cumulative counters, taken every five seconds and once at the end.

use crate::catalog::{EventDoc, FieldDoc, Lane};
use crate::counters::TrackCounters;
use crate::fact::Direction;
use fanlight_base::{ParticipantSid, RoomSid, TrackSid};
use serde::{Deserialize, Serialize};

/// A sample with its stamp and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When, by the wall clock of the node, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Room it belongs to.
    pub room: RoomSid,
    /// Participant it belongs to: the publisher, or the subscriber.
    pub participant: ParticipantSid,
    /// The counters.
    pub body: SampleBody,
}

/// The counters of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "sample", rename_all = "snake_case")]
pub enum SampleBody {
    /// One track in one direction.
    Track(TrackSample),
}

/// Counters of one track in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackSample {
    /// The track.
    pub track: TrackSid,
    /// Published by the participant, or subscribed to by it.
    pub direction: Direction,
    /// Whether these are the last ones.
    pub last: bool,
    /// The counters.
    pub counters: TrackCounters,
}

pub(crate) const SAMPLES: &[EventDoc] = &[EventDoc {
    name: "track",
    lane: Lane::Sample,
    doc: "Cumulative counters of one track in one direction, every 5 s and once at its end.",
    fields: &[
        FieldDoc { name: "track", kind: "TrackSid", doc: "The track." },
        FieldDoc {
            name: "direction",
            kind: "Direction",
            doc: "`publish` or `subscribe`, seen from the participant.",
        },
        FieldDoc { name: "last", kind: "bool", doc: "Whether these are the last ones." },
        FieldDoc {
            name: "counters",
            kind: "TrackCounters",
            doc: "Packets, bytes, loss, feedback, frames, jitter, round-trip time and layers.",
        },
    ],
}];
