//! Whose a datagram is: by 5-tuple once a check has proved it, by the ICE ufrag of a STUN check and the transaction of its
//! answer always.

use crate::media::TransportId;
use fanlight_base::Addresses;
use fanlight_transport::demux::TransactionId;
use fanlight_transport::limits::CHECKS_WAITING_MAX;
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

/// The way from an address, a ufrag or a transaction to a transport.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    tuples: FxHashMap<Addresses, Owner>,
    ufrags: FxHashMap<String, Owner>,
    /// Checks of ours that wait for an answer.
    checks: FxHashMap<TransactionId, Owner>,
    /// What there is to forget about each transport.
    known: BTreeMap<Owner, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// As many as the transport knows (`fanlight_transport::limits::REMOTES_MAX`): it says which it forgets.
    tuples: Vec<Addresses>,
    /// Oldest first.
    checks: VecDeque<TransactionId>,
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

    /// The transport whose check this transaction is.
    pub(crate) fn by_transaction(&self, transaction: &TransactionId) -> Option<Owner> {
        self.checks.get(transaction).copied()
    }

    /// A transport has sent a check.
    pub(crate) fn expect(&mut self, owner: Owner, transaction: TransactionId) {
        let known = self.known.entry(owner).or_default();
        if known.checks.len() >= CHECKS_WAITING_MAX
            && let Some(oldest) = known.checks.pop_front()
        {
            self.checks.remove(&oldest);
        }
        known.checks.push_back(transaction);
        self.checks.insert(transaction, owner);
    }

    /// A check is answered.
    pub(crate) fn answered(&mut self, transaction: &TransactionId) {
        let Some(owner) = self.checks.remove(transaction) else { return };
        if let Some(known) = self.known.get_mut(&owner) {
            known.checks.retain(|waiting| waiting != transaction);
        }
    }

    /// A transport has proved that its peer is at this 5-tuple: what comes from there is its own from now on. Whether it
    /// may be taken from a former owner is for the caller to know.
    pub(crate) fn learn(&mut self, owner: Owner, addresses: Addresses) {
        match self.tuples.insert(addresses, owner) {
            Some(former) if former == owner => return,
            Some(former) => {
                if let Some(known) = self.known.get_mut(&former) {
                    known.tuples.retain(|tuple| *tuple != addresses);
                }
            }
            None => {}
        }
        self.known.entry(owner).or_default().tuples.push(addresses);
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
        for transaction in &known.checks {
            self.checks.remove(transaction);
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
    fn a_tuple_has_one_owner_and_is_free_when_that_is_gone() {
        let [a, b, _] = owners();
        let mut demux = Demux::default();
        demux.learn(a, from(1));
        demux.learn(a, from(1));
        demux.learn(b, from(1));
        assert_eq!(demux.by_tuple(from(1)), Some(b));
        demux.unlearn(a, from(1));
        demux.forget(a);
        assert_eq!(demux.by_tuple(from(1)), Some(b), "the former owner has nothing to forget");
        demux.forget(b);
        assert_eq!(demux.by_tuple(from(1)), None);
    }

    #[test]
    fn checks_that_nobody_answers_are_forgotten_oldest_first() {
        let [a, ..] = owners();
        let mut demux = Demux::default();
        let transaction = |number: usize| [u8::try_from(number).expect("a small number"); 12];
        for number in 0..=CHECKS_WAITING_MAX {
            demux.expect(a, transaction(number));
        }
        assert_eq!(demux.by_transaction(&transaction(0)), None);
        assert_eq!(demux.by_transaction(&transaction(1)), Some(a));
        demux.answered(&transaction(1));
        assert_eq!(demux.by_transaction(&transaction(1)), None);
        demux.forget(a);
        assert!(demux.checks.is_empty());
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
