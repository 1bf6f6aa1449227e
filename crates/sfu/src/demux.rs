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

    /// A transport has authenticated a check from this 5-tuple: what comes from there is its own from now on. False when
    /// it is another transport's: a source address is easily forged, so nobody's is taken away while it lives.
    pub(crate) fn learn(&mut self, owner: Owner, addresses: Addresses) -> bool {
        match self.tuples.get(&addresses) {
            Some(former) => return *former == owner,
            None => self.tuples.insert(addresses, owner),
        };
        let known = self.known.entry(owner).or_default();
        known.tuples.push_back(addresses);
        if known.tuples.len() > TUPLES_PER_TRANSPORT_MAX
            && let Some(oldest) = known.tuples.pop_front()
        {
            self.tuples.remove(&oldest);
        }
        true
    }

    /// Forgets a 5-tuple of a transport.
    pub(crate) fn unlearn(&mut self, owner: Owner, addresses: Addresses) {
        if self.tuples.get(&addresses) == Some(&owner)
            && let Some(known) = self.known.get_mut(&owner)
        {
            self.tuples.remove(&addresses);
            known.tuples.retain(|tuple| *tuple != addresses);
        }
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
        let of_room = self.known.keys().filter(|owner| owner.room == room);
        let owners: Vec<Owner> = of_room.copied().collect();
        for owner in owners {
            self.forget(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::transport_ids;
    use fanlight_base::Protocol;

    fn from(port: u16) -> Addresses {
        let (local, remote) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], port).into());
        Addresses { local, remote, protocol: Protocol::Udp }
    }

    fn owners() -> [Owner; 3] {
        let ids = transport_ids(2);
        [(0, ids[0]), (0, ids[1]), (1, ids[0])]
            .map(|(room, transport)| Owner { room: RoomIndex(room), transport })
    }

    #[test]
    fn a_tuple_belongs_to_who_had_it_first_until_that_is_gone() {
        let [a, b, _] = owners();
        let mut demux = Demux::default();
        assert!(demux.learn(a, from(1)) && demux.learn(a, from(1)));
        assert!(!demux.learn(b, from(1)), "a forged address takes nothing away");
        assert_eq!(demux.by_tuple(from(1)), Some(a));
        demux.unlearn(b, from(1));
        assert_eq!(demux.by_tuple(from(1)), Some(a));
        demux.forget(a);
        assert!(demux.by_tuple(from(1)).is_none() && demux.learn(b, from(1)));
    }

    #[test]
    fn a_transport_keeps_its_newest_tuples() {
        let [a, ..] = owners();
        let mut demux = Demux::default();
        let count = u16::try_from(TUPLES_PER_TRANSPORT_MAX).expect("a small number");
        for port in 0..=count {
            demux.learn(a, from(port));
        }
        assert_eq!((demux.by_tuple(from(0)), demux.by_tuple(from(1))), (None, Some(a)));
    }

    #[test]
    fn a_new_ufrag_replaces_the_old_one_and_a_room_takes_all_of_its_own_along() {
        let [a, b, other] = owners();
        let mut demux = Demux::default();
        demux.set_ufrag(a, "old");
        demux.set_ufrag(a, "new");
        demux.set_ufrag(b, "second");
        demux.set_ufrag(other, "other");
        demux.learn(other, from(9));
        assert_eq!((demux.by_ufrag("old"), demux.by_ufrag("new")), (None, Some(a)));
        demux.forget_room(RoomIndex(0));
        assert_eq!((demux.by_ufrag("new"), demux.by_ufrag("second")), (None, None));
        assert_eq!((demux.by_ufrag("other"), demux.by_tuple(from(9))), (Some(other), Some(other)));
    }
}
