//! What the accounting says: allocations and user sessions with all that an invoice needs to be defended.

use super::identity::Who;
use super::limits::{CHECKS_BPS, CHECKS_BYTES, CONTROL_BYTES, CONTROL_EVERY_MS, CONTROL_OPENING};
use super::participant::{self, Participant};
use fanlight_events::turn::{AllocationName, LegCounters, Path};
use serde::Serialize;
use smol_str::SmolStr;

/// How an allocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The client released it.
    Released,
    /// Its lifetime was over.
    Expired,
    /// Its connection closed, or the server ended it.
    Closed,
    /// The TURN server started anew.
    NodeRestart,
    /// The TURN server went away.
    NodeDisconnect,
    /// The server gave its name to another allocation.
    Superseded,
    /// Nobody said its end, and its lifetime is long over.
    Lost,
    /// It ended while we were not told.
    Unseen,
}

impl EndReason {
    const ALL: &[Self] = &[
        Self::Released,
        Self::Expired,
        Self::Closed,
        Self::NodeRestart,
        Self::NodeDisconnect,
        Self::Superseded,
        Self::Lost,
        Self::Unseen,
    ];

    /// What [`Self::as_str`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == text)
    }

    /// As it stands in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::NodeRestart => "node-restart",
            Self::NodeDisconnect => "node-disconnect",
            Self::Superseded => "superseded",
            Self::Lost => "lost",
            Self::Unseen => "unseen",
        }
    }
}

/// How far byte counts can be trusted, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quality {
    /// The server's own totals.
    #[default]
    Exact,
    /// The sum of its traffic messages, all of which may have come.
    Deltas,
    /// The sum of those that came.
    LowerBound,
}

impl Quality {
    const ALL: &[Self] = &[Self::Exact, Self::Deltas, Self::LowerBound];

    /// What [`Self::as_str`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == text)
    }

    /// As it stands in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Deltas => "deltas",
            Self::LowerBound => "lower-bound",
        }
    }
}

/// What the relay was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing was relayed.
    Unused,
    /// Connectivity checks: the media found another way.
    ChecksOnly,
    /// Media.
    Relayed,
}

impl Class {
    const ALL: &[Self] = &[Self::Unused, Self::ChecksOnly, Self::Relayed];

    /// What [`Self::as_str`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == text)
    }

    /// As it stands in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::ChecksOnly => "checks-only",
            Self::Relayed => "relayed",
        }
    }

    /// By payload bytes in both directions and time.
    pub(super) fn of(peer_bytes: u64, duration_ms: u64) -> Self {
        // Without a duration the rate is beyond any bound.
        let slow = u128::from(peer_bytes) * 1000 < u128::from(CHECKS_BPS) * u128::from(duration_ms);
        match peer_bytes {
            0 => Self::Unused,
            bytes if bytes < CHECKS_BYTES || slow => Self::ChecksOnly,
            _ => Self::Relayed,
        }
    }
}

/// About how many bytes of the client leg are payload, where the server does not tell of peers (coturn before 4.5.1.2):
/// what is left without the control messages. They are some for the opening, two for a refresh, and now and then one for
/// permissions and channels.
pub(super) fn payload_of_client_leg(client: &LegCounters, refreshes: u64, duration_ms: u64) -> u64 {
    let control = CONTROL_OPENING + 2 * refreshes + duration_ms.div_ceil(CONTROL_EVERY_MS);
    if client.rx_packets.max(client.tx_packets) <= control {
        return 0;
    }
    client.bytes().saturating_sub(2 * control * CONTROL_BYTES).max(1)
}

/// When something ended, as far as it is known. Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct End {
    /// Not before.
    pub low_ms: u64,
    /// Not after.
    pub high_ms: u64,
}

impl End {
    /// A known end.
    pub const fn at(ms: u64) -> Self {
        Self { low_ms: ms, high_ms: ms }
    }
}

/// An allocation as it stands. One with the same number replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AllocationRecord {
    /// Ours, in the order of opening.
    pub number: u64,
    /// The session it belongs to.
    pub session: u64,
    /// The TURN server; its address where it has no name, empty when not known.
    pub node: SmolStr,
    /// The server's name for it.
    pub name: AllocationName,
    /// Whose it was, as the user name says.
    pub who: Who,
    /// The participant that the person is; `None` when it is none of ours, or not known yet.
    pub participant: Option<Box<Participant>>,
    /// How the client came.
    pub path: Path,
    /// Other client addresses it had, after a move.
    pub moved_from: Vec<SmolStr>,
    /// Opening, or the first we heard of it.
    pub started_ms: u64,
    /// The opening was heard.
    pub start_known: bool,
    /// The last time the server spoke of its status.
    pub last_status_ms: u64,
    /// Lifetime granted last.
    pub lifetime_s: u32,
    /// The client released it.
    pub released_ms: Option<u64>,
    /// When and why it ended; `None` while it is open.
    pub ended: Option<(End, EndReason)>,
    /// The last moment of traffic; the rest was waiting for expiry.
    pub active_until_ms: u64,
    /// Refreshes, the releasing one included.
    pub refreshes: u64,
    /// Between client and server.
    pub client: LegCounters,
    /// Between server and peers.
    pub peer: LegCounters,
    /// The sum of traffic messages is what the totals say; `None` without totals.
    pub deltas_match: Option<bool>,
    /// How far the counters can be trusted.
    pub quality: Quality,
    /// Highest rate of payload, both directions.
    pub peak_bps: u64,
    /// It expired beside a younger one of its session.
    pub leftover: bool,
    /// What it was used for.
    pub class: Class,
}

impl AllocationRecord {
    /// Name of the room: the participant's, else what the user name says; empty without.
    pub fn room(&self) -> &str {
        participant::room(self.participant.as_deref(), &self.who.room)
    }

    /// How long it was held, as far as is certain.
    pub fn held_ms(&self) -> u64 {
        self.ended.map_or(self.last_status_ms, |(end, _)| end.low_ms).saturating_sub(self.started_ms)
    }
}

/// A user's time on the relay: from the first allocation until all are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionRecord {
    /// Ours, in the order of opening.
    pub number: u64,
    /// Realm of the credentials.
    pub realm: SmolStr,
    /// Whose it was, as the user name says.
    pub who: Who,
    /// The participant that the person is; `None` when it is none of ours, or not known yet.
    pub participant: Option<Box<Participant>>,
    /// First allocation.
    pub started_ms: u64,
    /// The first opening was heard.
    pub start_known: bool,
    /// End of the last allocation and its reason; `None` while one is open, or may follow within the merge gap.
    pub ended: Option<(End, EndReason)>,
    /// End of the allocations that have ended.
    pub end: End,
    /// The last moment of traffic of an allocation that was no leftover.
    pub effective_end_ms: u64,
    /// Allocations that have ended; the counters below are theirs.
    pub allocations: u64,
    /// The most at one time.
    pub max_concurrent: u64,
    /// Of these, leftovers.
    pub leftovers: u64,
    /// Between client and server.
    pub client: LegCounters,
    /// Between server and peers.
    pub peer: LegCounters,
    /// Of the worst allocation.
    pub quality: Quality,
    /// Payload of the busiest ten seconds, both directions, per second.
    pub peak_bps: u64,
    /// What the relay was used for.
    pub class: Class,
}

impl SessionRecord {
    /// Who is to be billed: a participant's identity, else the person.
    pub fn user(&self) -> &str {
        let identity = self.participant.as_deref().map(|one| one.identity.as_str());
        identity.filter(|identity| !identity.is_empty()).unwrap_or(&self.who.person)
    }

    /// Name of the room: the participant's, else what the user name says; empty without.
    pub fn room(&self) -> &str {
        participant::room(self.participant.as_deref(), &self.who.room)
    }

    /// How long the session lasted, as far as is certain.
    pub fn held_ms(&self) -> u64 {
        self.end.low_ms.saturating_sub(self.started_ms)
    }

    /// How long it was used.
    pub fn active_ms(&self) -> u64 {
        self.effective_end_ms.saturating_sub(self.started_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_needs_bytes_and_a_rate() {
        assert_eq!(Class::of(0, 1_000), Class::Unused);
        assert_eq!(Class::of(63_999, 1), Class::ChecksOnly);
        assert_eq!(Class::of(64_000, 128_000), Class::Relayed);
        assert_eq!(Class::of(64_000, 128_001), Class::ChecksOnly);
        assert_eq!(Class::of(2_000_000, 0), Class::Relayed);
    }
}
