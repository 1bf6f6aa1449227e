//! The rooms of this node and who is in them.

use crate::output::ShardIndex;
use fanlight_base::{Identity, Mono, ParticipantSid, PeerKey, RoomName, RoomSid};
use std::collections::BTreeMap;
use std::time::Duration;

/// A room as others may ask of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    /// Session id.
    pub sid: RoomSid,
    /// Name.
    pub name: RoomName,
    /// Where it lives.
    pub shard: ShardIndex,
    /// Most participants that count; 0 is no limit.
    pub max_participants: u32,
    /// Participants that count towards `max_participants`.
    pub participants: u32,
    /// Everybody in it, hidden ones and dependents too.
    pub occupants: u32,
}

/// How much of everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rooms, those that are closing too.
    pub rooms: u32,
    /// Sessions.
    pub participants: u32,
    /// Sessions whose transport is connected.
    pub active: u32,
    /// Sessions of each shard.
    pub participants_by_shard: Vec<u32>,
    /// Joins admitted so far.
    pub joins_admitted: u64,
    /// Joins refused so far.
    pub joins_refused: u64,
    /// Inputs that named a peer which is no longer here, so far.
    pub unknown_peers: u64,
}

/// One session.
#[derive(Debug, Clone)]
pub(crate) struct Occupant {
    pub(crate) room: RoomSid,
    pub(crate) identity: Identity,
    pub(crate) sid: ParticipantSid,
    /// Agent, egress or recorder: neither counted nor holding the room.
    pub(crate) dependent: bool,
    /// Counts towards `max_participants`.
    pub(crate) counted: bool,
    pub(crate) active: bool,
    /// Told to leave; no requests are passed on.
    pub(crate) ending: bool,
}

/// One room.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: RoomName,
    pub(crate) shard: ShardIndex,
    pub(crate) max_participants: u32,
    empty_timeout: Duration,
    departure_timeout: Duration,
    /// By key, so in order of joining.
    pub(crate) occupants: BTreeMap<PeerKey, Identity>,
    /// Those of them that hold the room.
    holders: u32,
    ever_held: bool,
    empty_since: Mono,
    pub(crate) closing: bool,
}

impl Room {
    pub(crate) fn new(
        now: Mono,
        name: RoomName,
        shard: ShardIndex,
        max_participants: u32,
        timeouts_s: (u32, u32),
    ) -> Self {
        Self {
            name,
            shard,
            max_participants,
            empty_timeout: Duration::from_secs(timeouts_s.0.into()),
            departure_timeout: Duration::from_secs(timeouts_s.1.into()),
            occupants: BTreeMap::new(),
            holders: 0,
            ever_held: false,
            empty_since: now,
            closing: false,
        }
    }

    pub(crate) fn enter(&mut self, peer: PeerKey, occupant: &Occupant) {
        self.occupants.insert(peer, occupant.identity.clone());
        if !occupant.dependent {
            self.holders = self.holders.saturating_add(1);
            self.ever_held = true;
        }
    }

    pub(crate) fn leave(&mut self, now: Mono, peer: PeerKey, occupant: &Occupant) {
        if self.occupants.remove(&peer).is_some() && !occupant.dependent {
            self.holders = self.holders.saturating_sub(1);
            self.empty_since = now;
        }
    }

    /// When the room ends unless somebody who holds it comes; none while it is held or closing.
    pub(crate) fn ends_at(&self) -> Option<Mono> {
        let timeout = if self.ever_held { self.departure_timeout } else { self.empty_timeout };
        (self.holders == 0 && !self.closing).then(|| self.empty_since + timeout)
    }

    /// What the record says when [`Room::ends_at`] has come.
    pub(crate) fn end_reason(&self) -> &'static str {
        if self.ever_held { "departed" } else { "empty" }
    }
}
