//! The peer's addresses: those it named, and those a message of it came from that passed its integrity.

use crate::limits::{REMOTES_MAX, TUPLE_IN_USE};
use fanlight_base::{Addresses, Mono, Protocol};
use std::net::SocketAddr;

/// At most [`REMOTES_MAX`] addresses; the least recently used that is not in use makes room.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    known: Vec<Remote>,
    selected: Option<Addresses>,
}

#[derive(Debug, Clone, Copy)]
struct Remote {
    protocol: Protocol,
    remote: SocketAddr,
    proven: Option<Proven>,
}

/// What an address has that the peer was heard from.
#[derive(Debug, Clone, Copy)]
struct Proven {
    local: SocketAddr,
    heard: Mono,
    /// In this ICE generation.
    current: bool,
    /// A pair of it works, or did in an earlier generation.
    valid: bool,
}

impl Remote {
    fn tuple(&self) -> Option<Addresses> {
        let Proven { local, .. } = self.proven?;
        Some(Addresses { local, remote: self.remote, protocol: self.protocol })
    }

    fn is_at(&self, protocol: Protocol, remote: SocketAddr) -> bool {
        self.remote == remote && self.protocol == protocol
    }
}

impl Remotes {
    /// Whether the address is among them, named or proven.
    pub(crate) fn contains(&self, protocol: Protocol, remote: SocketAddr) -> bool {
        self.known.iter().any(|known| known.is_at(protocol, remote))
    }

    /// Whether one more fits without another having to go.
    pub(crate) fn has_room(&self) -> bool {
        self.known.len() < REMOTES_MAX
    }

    /// Adds an address that the peer named; ask [`Remotes::has_room`] first.
    pub(crate) fn name(&mut self, protocol: Protocol, remote: SocketAddr) {
        if !self.contains(protocol, remote) {
            self.known.push(Remote { protocol, remote, proven: None });
        }
    }

    /// Which address would make room for another: none when there is room, `Err` when all are in use.
    pub(crate) fn displaced(&self, now: Mono) -> Result<Option<(Protocol, SocketAddr)>, AllInUse> {
        if self.has_room() {
            return Ok(None);
        }
        let idle = self.known.iter().filter(|known| !self.is_in_use(known, now));
        let oldest = idle.min_by_key(|known| known.proven.map(|proven| proven.heard)).ok_or(AllInUse)?;
        Ok(Some((oldest.protocol, oldest.remote)))
    }

    /// A message of this generation passed its integrity. False when there is no room for the tuple.
    pub(crate) fn prove(&mut self, addresses: Addresses, now: Mono) -> bool {
        let heard = Proven { local: addresses.local, heard: now, current: true, valid: false };
        if let Some(known) = self.find(addresses) {
            known.proven = Some(Proven { valid: known.proven.is_some_and(|proven| proven.valid), ..heard });
            return true;
        }
        let named =
            |known: &&mut Remote| known.proven.is_none() && known.is_at(addresses.protocol, addresses.remote);
        if let Some(known) = self.known.iter_mut().find(named) {
            known.proven = Some(heard);
            return true;
        }
        if !self.has_room() {
            return false;
        }
        let Addresses { remote, protocol, .. } = addresses;
        self.known.push(Remote { protocol, remote, proven: Some(heard) });
        true
    }

    /// Something from there was authenticated or decrypted.
    pub(crate) fn hear(&mut self, addresses: Addresses, at: Mono) {
        if let Some(proven) = self.find(addresses).and_then(|known| known.proven.as_mut()) {
            proven.heard = proven.heard.max(at);
        }
    }

    /// When something from there was last authenticated or decrypted.
    pub(crate) fn heard(&self, addresses: Addresses) -> Option<Mono> {
        Some(self.proven(addresses)?.heard)
    }

    /// Whether a message of this generation from there passed its integrity.
    pub(crate) fn is_current(&self, addresses: Addresses) -> bool {
        self.proven(addresses).is_some_and(|proven| proven.current)
    }

    /// Whether a pair of it works.
    pub(crate) fn is_valid(&self, addresses: Addresses) -> bool {
        self.proven(addresses).is_some_and(|proven| proven.valid)
    }

    /// A pair of it works.
    pub(crate) fn set_valid(&mut self, addresses: Addresses) {
        if let Some(proven) = self.find(addresses).and_then(|known| known.proven.as_mut()) {
            proven.valid = true;
        }
    }

    /// Packets leave over it, so that it never makes room.
    pub(crate) const fn select(&mut self, addresses: Addresses) {
        self.selected = Some(addresses);
    }

    /// Forgets an address; its proven tuples go to `forgotten`.
    pub(crate) fn forget(&mut self, protocol: Protocol, remote: SocketAddr, forgotten: &mut Vec<Addresses>) {
        let gone = |known: &Remote| known.is_at(protocol, remote);
        forgotten.extend(self.known.iter().filter(|known| gone(known)).filter_map(Remote::tuple));
        self.known.retain(|known| !gone(known));
    }

    /// Forgets one tuple. Whether its address is still among them comes back.
    pub(crate) fn forget_tuple(&mut self, addresses: Addresses) -> bool {
        self.known.retain(|known| known.tuple() != Some(addresses));
        if self.selected == Some(addresses) {
            self.selected = None;
        }
        self.contains(addresses.protocol, addresses.remote)
    }

    /// A new ICE generation: media goes on over the pairs that work, and every address has to prove itself again.
    pub(crate) fn restart(&mut self, forgotten: &mut Vec<Addresses>) {
        for known in std::mem::take(&mut self.known) {
            match known.proven {
                Some(proven) if proven.valid => {
                    self.known.push(Remote { proven: Some(Proven { current: false, ..proven }), ..known });
                }
                _ => forgotten.extend(known.tuple()),
            }
        }
    }

    /// All addresses, each once.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (Protocol, SocketAddr)> + '_ {
        self.known.iter().enumerate().filter_map(|(index, known)| {
            let earlier = self.known.iter().take(index).any(|it| it.is_at(known.protocol, known.remote));
            (!earlier).then_some((known.protocol, known.remote))
        })
    }

    fn is_in_use(&self, known: &Remote, now: Mono) -> bool {
        let selected = self.selected.is_some_and(|tuple| known.is_at(tuple.protocol, tuple.remote));
        selected || known.proven.is_some_and(|proven| now.since(proven.heard) < TUPLE_IN_USE)
    }

    fn proven(&self, addresses: Addresses) -> Option<Proven> {
        self.known.iter().find(|known| known.tuple() == Some(addresses))?.proven
    }

    fn find(&mut self, addresses: Addresses) -> Option<&mut Remote> {
        self.known.iter_mut().find(|known| known.tuple() == Some(addresses))
    }
}

/// No address can make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AllInUse;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Addresses {
        let (local, remote) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], port).into());
        Addresses { local, remote, protocol: Protocol::Udp }
    }

    fn after(time: std::time::Duration) -> Mono {
        Mono::default() + time
    }

    fn full() -> Remotes {
        let mut remotes = Remotes::default();
        for port in 1..=REMOTES_MAX as u16 {
            assert!(remotes.prove(at(port), Mono::default()));
        }
        remotes
    }

    #[test]
    fn what_is_in_use_makes_no_room() {
        let mut remotes = full();
        assert!(!remotes.prove(at(1000), Mono::default()));
        assert_eq!(remotes.displaced(Mono::default()), Err(AllInUse));
        remotes.select(at(1));
        remotes.hear(at(2), after(TUPLE_IN_USE));
        assert_eq!(remotes.displaced(after(TUPLE_IN_USE)), Ok(Some((Protocol::Udp, at(3).remote))));
        let mut forgotten = Vec::new();
        remotes.forget(Protocol::Udp, at(3).remote, &mut forgotten);
        assert_eq!((forgotten, remotes.prove(at(1000), after(TUPLE_IN_USE))), (vec![at(3)], true));
    }

    #[test]
    fn an_address_that_was_only_named_goes_first_and_proves_nothing() {
        let mut remotes = full();
        let mut forgotten = Vec::new();
        remotes.forget(Protocol::Udp, at(5).remote, &mut forgotten);
        remotes.name(Protocol::Udp, at(1000).remote);
        assert!(!remotes.is_current(at(1000)) && remotes.heard(at(1000)).is_none());
        let displaced = remotes.displaced(after(TUPLE_IN_USE));
        assert_eq!(displaced, Ok(Some((Protocol::Udp, at(1000).remote))));
        assert!(remotes.prove(at(1000), Mono::default()) && remotes.is_current(at(1000)));
    }

    #[test]
    fn a_restart_keeps_what_works_until_it_has_proved_itself_again() {
        let mut remotes = Remotes::default();
        remotes.name(Protocol::Udp, at(9).remote);
        assert!(remotes.prove(at(1), Mono::default()) && remotes.prove(at(2), Mono::default()));
        remotes.set_valid(at(1));
        let mut forgotten = Vec::new();
        remotes.restart(&mut forgotten);
        assert_eq!(forgotten, [at(2)]);
        assert!(remotes.is_valid(at(1)) && !remotes.is_current(at(1)));
        assert_eq!(remotes.addresses().count(), 1);
    }
}
