//! One report of one client, whoever brought it.

use super::{Reason, StatsObject};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// How a report came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Sora's stats exporter, `connection.user-agent`.
    SoraUserAgent,
    /// Sora's stats webhook, `connection.rtc`.
    SoraWebhook,
    /// Sora's stats exporter, `node.erlang-vm`.
    SoraNode,
    /// Our snippet in a page, with an access token: room and identity are those of the token.
    Browser,
    /// Our snippet in a page, with a collector key: anybody who reads the page may say anything.
    BrowserByKey,
    /// `metrics_batch` of a LiveKit client.
    LiveKitMetrics,
    /// rtcstats in a page, with an access token: room and user are those of the token.
    RtcStats,
    /// rtcstats in a page, with a collector key: anybody who reads the page may say anything.
    RtcStatsByKey,
}

impl Source {
    /// Families whose room and identity are proven, so that they belong to participants of ours.
    pub const PROVEN: [&'static str; 3] =
        [Self::Browser.family(), Self::LiveKitMetrics.family(), Self::RtcStats.family()];

    /// Who gives out the connection's id. Sora's two ways of telling are one family: they tell of the same connections.
    pub const fn family(self) -> &'static str {
        match self {
            Self::SoraUserAgent | Self::SoraWebhook => "sora",
            Self::SoraNode => "sora-node",
            Self::Browser => "browser",
            Self::BrowserByKey => "browser-key",
            Self::LiveKitMetrics => "livekit",
            Self::RtcStats => "rtcstats",
            Self::RtcStatsByKey => "rtcstats-key",
        }
    }
}

/// What a Sora connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sends and receives.
    Sendrecv,
    /// Sends.
    Sendonly,
    /// Receives.
    Recvonly,
}

impl Role {
    /// As Sora and Kohaku's tables have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sendrecv => "sendrecv",
            Self::Sendonly => "sendonly",
            Self::Recvonly => "recvonly",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sendrecv, Self::Sendonly, Self::Recvonly].into_iter().find(|role| role.name() == name)
    }
}

/// Whose stats these are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionEnvelope {
    /// One peer connection, or what the client takes for one.
    pub connection_id: SmolStr,
    /// Sora's session; of a browser the page's life; may be empty.
    pub session_id: SmolStr,
    /// Sora's channel, or the room's name.
    pub channel_id: SmolStr,
    /// Sora's client, or the user: the identity, where a token says it.
    pub client_id: SmolStr,
    /// Only Sora says it, and the following three.
    pub role: Option<Role>,
    /// Whether Sora's multistream is on.
    pub multistream: Option<bool>,
    /// Whether simulcast is on.
    pub simulcast: Option<bool>,
    /// Whether Sora's spotlight is on.
    pub spotlight: Option<bool>,
    /// The room session's sid, when it is a room of ours; else empty.
    pub room_sid: SmolStr,
    /// The participant's sid, when it is in a room of ours; else empty.
    pub participant_sid: SmolStr,
}

/// By what a connection is told from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// See [`Source::family`].
    pub family: &'static str,
    /// See [`ConnectionEnvelope::connection_id`]; the name of the node, for a report of a node.
    pub connection_id: SmolStr,
    /// See [`ConnectionEnvelope::session_id`].
    pub session_id: SmolStr,
    /// See [`ConnectionEnvelope::channel_id`].
    pub channel_id: SmolStr,
    /// See [`ConnectionEnvelope::client_id`].
    pub client_id: SmolStr,
}

/// What one client, or one node of Sora, said at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientReport {
    /// How it came.
    pub source: Source,
    /// The time it is of, as it says itself, in nanoseconds since the Unix epoch. The same connection at the same time is the
    /// same report. At most `i64::MAX`, because databases count so far.
    pub at_ns: u64,
    /// Whose it is; `None` for a node.
    pub connection: Option<ConnectionEnvelope>,
    /// The server's product, or the client's library.
    pub label: SmolStr,
    /// Its version.
    pub version: SmolStr,
    /// The server's name; empty when a browser reports.
    pub node_name: SmolStr,
    /// Members that are not ours to interpret: a JSON object.
    pub extra: String,
    /// What it says.
    pub objects: Vec<StatsObject>,
    /// What could not be taken, by reason.
    pub rejected: BTreeMap<Reason, u64>,
}

impl ClientReport {
    /// By what its connection is told from others.
    pub fn key(&self) -> ConnectionKey {
        let family = self.source.family();
        match &self.connection {
            Some(connection) => ConnectionKey {
                family,
                connection_id: connection.connection_id.clone(),
                session_id: connection.session_id.clone(),
                channel_id: connection.channel_id.clone(),
                client_id: connection.client_id.clone(),
            },
            None => ConnectionKey {
                family,
                connection_id: self.node_name.clone(),
                session_id: SmolStr::default(),
                channel_id: SmolStr::default(),
                client_id: self.label.clone(),
            },
        }
    }

    /// Takes one object, or counts why not.
    pub fn take(&mut self, object: Result<StatsObject, Reason>) {
        match object {
            Ok(object) if self.objects.len() < super::limits::OBJECTS_MAX => self.objects.push(object),
            Ok(_) => self.reject(Reason::TooMany, 1),
            Err(reason) => self.reject(reason, 1),
        }
    }

    /// Counts objects that were not taken.
    pub fn reject(&mut self, reason: Reason, objects: u64) {
        let count = self.rejected.entry(reason).or_default();
        *count = count.saturating_add(objects);
    }

    /// Objects that were not taken.
    pub fn rejected_objects(&self) -> u64 {
        self.rejected.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Roughly what it takes in memory.
    pub fn size_bytes(&self) -> usize {
        let objects: usize = self.objects.iter().map(|object| object.json.len().saturating_add(128)).sum();
        objects.saturating_add(self.extra.len()).saturating_add(1_024)
    }
}
