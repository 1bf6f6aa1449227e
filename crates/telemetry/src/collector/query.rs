//! How stored reports are asked for, and told.

use serde::Serialize;

/// Which connections; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientQuery {
    /// The number that the store gave it.
    pub number: Option<u64>,
    /// The connection's own id.
    pub connection_id: Option<String>,
    /// Sora's channel, or the room's name.
    pub channel_id: Option<String>,
    /// Sora's client, or the user.
    pub client_id: Option<String>,
    /// The sid of a room of ours.
    pub room_sid: Option<String>,
    /// The sid of a participant of ours.
    pub participant_sid: Option<String>,
    /// See [`super::Source::family`].
    pub source: Option<String>,
    /// Only sources that prove room and identity: [`super::Source::PROVEN`].
    pub proven: bool,
    /// That reported at this time or later, in nanoseconds since the Unix epoch.
    pub from_ns: Option<u64>,
    /// That reported before this time, in nanoseconds since the Unix epoch.
    pub to_ns: Option<u64>,
    /// At most so many, the newest first.
    pub limit: u64,
    /// After so many others.
    pub offset: u64,
}

/// A connection that has reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClientConnection {
    /// The number that the store gave it.
    pub number: u64,
    /// See [`super::Source::family`].
    pub source: String,
    /// See [`super::ConnectionEnvelope`], as all that follow.
    pub connection_id: String,
    /// Sora's session, or the page's life.
    pub session_id: String,
    /// Sora's channel, or the room's name.
    pub channel_id: String,
    /// Sora's client, or the user.
    pub client_id: String,
    /// Sora's role.
    pub role: Option<String>,
    /// Sora's multistream.
    pub multistream: Option<bool>,
    /// Simulcast.
    pub simulcast: Option<bool>,
    /// Sora's spotlight.
    pub spotlight: Option<bool>,
    /// The sid of a room of ours, or empty.
    pub room_sid: String,
    /// The sid of a participant of ours, or empty.
    pub participant_sid: String,
    /// The server's product, or the client's library.
    pub label: String,
    /// Its version.
    pub version: String,
    /// The server's name.
    pub node_name: String,
    /// Time of its first report, in nanoseconds since the Unix epoch.
    pub first_ns: u64,
    /// Time of its last report.
    pub last_ns: u64,
    /// Reports so far.
    pub reports: u64,
    /// Objects that were stored.
    pub stored: u64,
    /// Objects that were as before.
    pub unchanged: u64,
    /// Objects that could not be taken.
    pub rejected: u64,
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredObject {
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its `id`.
    pub id: String,
    /// Time of its report, in nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// Its own `timestamp`, in milliseconds.
    pub stats_ms: f64,
    /// All of it, as it came.
    pub json: String,
}

/// A stored report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredReport {
    /// The time it is of, in nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// When it came, in milliseconds since the Unix epoch.
    pub received_ms: u64,
    /// Objects that were stored of it.
    pub stored: u64,
    /// Objects that were as before.
    pub unchanged: u64,
    /// Objects that could not be taken.
    pub rejected: u64,
    /// What it said beyond its known members, a JSON object.
    pub extra: String,
}
