//! Somebody on the path who sees what goes to the server and sends it again, changed or not.

use crate::network::Datagram;
use fanlight_base::Random;
use std::net::SocketAddr;

/// Content types of DTLS handshakes, which nothing protects: whoever is on the path can end them.
const UNPROTECTED: std::ops::RangeInclusive<u8> = 20..=22;

/// Draws what to do about each datagram.
#[derive(Debug)]
pub(crate) struct Attacker {
    random: Random,
    active: bool,
    /// Datagrams sent.
    pub(crate) sent: u64,
}

impl Attacker {
    pub(crate) const fn new(random: Random, active: bool) -> Self {
        Self { random, active, sent: 0 }
    }

    /// What follows this datagram: its source and its bytes.
    pub(crate) fn after(&mut self, datagram: &Datagram) -> Option<(SocketAddr, Vec<u8>)> {
        let first = *datagram.bytes.first()?;
        if !self.active || UNPROTECTED.contains(&first) || self.random.below(3) > 0 {
            return None;
        }
        self.sent += 1;
        let (mut from, mut bytes) = (datagram.from, datagram.bytes.clone());
        let at = self.random.below(bytes.len() as u64) as usize;
        match self.random.below(4) {
            0 => {}
            1 => bytes.truncate(at),
            // A check that is whole may come from anywhere: that is how a client's address is learned.
            2 if first >= 20 => from.set_port(from.port() ^ 0x4000),
            _ => bytes[at] ^= 1 << self.random.below(8),
        }
        Some((from, bytes))
    }
}
