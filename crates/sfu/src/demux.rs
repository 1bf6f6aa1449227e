//! Whose a datagram is: by 5-tuple once it is known, by the ICE ufrag of a STUN check before.

use crate::limits::TUPLES_PER_TRANSPORT_MAX;
use crate::media::TransportId;
use fanlight_base::Addresses;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};

/// A room's place in the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RoomIndex(pub(crate) u32);

/// A transport of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) room: RoomIndex,
    pub(crate) transport: TransportId,
}

/// The way from an address or a ufrag to a transport.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    tuples: FxHashMap<Addresses, Owner>,
    ufrags: FxHashMap<String, Owner>,
    /// What there is to forget about each transport.
    known: BTreeMap<Owner, Known>,
}

#[derive(Debug, Default)]
struct Known {
    tuples: VecDeque<Addresses>,
    ufrag: String,
}

impl Demux {
    /// The transport that has learnt this 5-tuple.
    pub(crate) fn by_tuple(&self, addresses: Addresses) -> Option<Owner> {
        self.tuples.get(&addresses).copied()
    }

    /// The transport with this local ufrag.
    pub(crate) fn by_ufrag(&self, ufrag: &str) -> Option<Owner> {
        self.ufrags.get(ufrag).copied()
    }

    /// Announces a transport's local ufrag; a former one of it is forgotten.
    pub(crate) fn set_ufrag(&mut self, owner: Owner, ufrag: &str) {
        let known = self.known.entry(owner).or_default();
        if known.ufrag == ufrag {
            return;
        }
        self.ufrags.remove(&known.ufrag);
        known.ufrag = ufrag.to_owned();
        self.ufrags.insert(ufrag.to_owned(), owner);
    }

    /// A transport has authenticated a check from this 5-tuple: what comes from there is its own from now on.
    pub(crate) fn learn(&mut self, owner: Owner, addresses: Addresses) {
        match self.tuples.insert(addresses, owner) {
            Some(former) if former == owner => return,
            Some(former) => self.forget_tuple(former, addresses),
            None => {}
        }
        let known = self.known.entry(owner).or_default();
        known.tuples.push_back(addresses);
        if known.tuples.len() > TUPLES_PER_TRANSPORT_MAX
            && let Some(oldest) = known.tuples.pop_front()
        {
            self.tuples.remove(&oldest);
        }
    }

    /// Forgets a 5-tuple of a transport.
    pub(crate) fn unlearn(&mut self, owner: Owner, addresses: Addresses) {
        self.tuples.remove(&addresses);
        self.forget_tuple(owner, addresses);
    }

    /// Forgets a transport.
    pub(crate) fn forget(&mut self, owner: Owner) {
        let Some(known) = self.known.remove(&owner) else { return };
        for addresses in &known.tuples {
            self.tuples.remove(addresses);
        }
        self.ufrags.remove(&known.ufrag);
    }

    /// Forgets all transports of a room.
    pub(crate) fn forget_room(&mut self, room: RoomIndex) {
        let owners: Vec<Owner> = self.known.keys().filter(|owner| owner.room == room).copied().collect();
        for owner in owners {
            self.forget(owner);
        }
    }

    fn forget_tuple(&mut self, owner: Owner, addresses: Addresses) {
        if let Some(known) = self.known.get_mut(&owner) {
            known.tuples.retain(|tuple| *tuple != addresses);
        }
    }
}
