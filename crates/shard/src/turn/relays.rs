//! The sockets of relays.

use crate::udp::{self, Udp};
use fanlight_turn::RelayKey;
use mio::{Interest, Registry, Token};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Open relays, by everything they are asked for by.
#[derive(Default)]
pub(super) struct Relays {
    by_token: FxHashMap<usize, (RelayKey, Udp)>,
    by_key: BTreeMap<RelayKey, usize>,
    by_address: FxHashMap<SocketAddr, usize>,
}

impl Relays {
    /// Opens a socket; `false` when it cannot be had.
    pub(super) fn open(
        &mut self,
        registry: &Registry,
        token: usize,
        key: RelayKey,
        address: SocketAddr,
    ) -> bool {
        let Ok(mut socket) = udp::bind(address, "turn.relay_range_start").and_then(Udp::plain) else {
            return false;
        };
        if registry.register(&mut socket.socket, Token(token), Interest::READABLE).is_err() {
            return false;
        }
        self.by_address.insert(socket.bound, token);
        self.by_key.insert(key, token);
        self.by_token.insert(token, (key, socket));
        true
    }

    /// Closes a relay, if it was ever opened.
    pub(super) fn close(&mut self, registry: &Registry, key: RelayKey) {
        let Some(token) = self.by_key.remove(&key) else { return };
        let Some((_, mut socket)) = self.by_token.remove(&token) else { return };
        self.by_address.remove(&socket.bound);
        // The socket closes with its value; a failed deregistration changes nothing.
        let _ = registry.deregister(&mut socket.socket);
    }

    pub(super) fn get(&self, token: usize) -> Option<&(RelayKey, Udp)> {
        self.by_token.get(&token)
    }

    pub(super) fn by_address(&self, address: SocketAddr) -> Option<&Udp> {
        let token = self.by_address.get(&address)?;
        self.by_token.get(token).map(|(_, socket)| socket)
    }
}
