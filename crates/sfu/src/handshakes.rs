//! Handshakes take turns: a crowd that joins at once must not make everybody's media wait.

use crate::limits::{HANDSHAKE_DATAGRAM_BYTES_MAX, HANDSHAKES_PER_TURN, HANDSHAKES_WAITING_MAX};
use fanlight_base::Addresses;
use std::collections::VecDeque;

/// The handshake datagrams of one shard.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// Beyond the turn's budget, oldest first.
    waiting: VecDeque<(Addresses, Vec<u8>)>,
    /// Taken in this turn.
    taken: usize,
    pub(crate) waited: u64,
    pub(crate) dropped: u64,
}

impl Handshakes {
    /// Whether a datagram may be taken now; else it waits, or is dropped, and DTLS sends it again.
    pub(crate) fn admit(&mut self, addresses: Addresses, bytes: &[u8]) -> bool {
        if self.waiting.is_empty() && self.taken < HANDSHAKES_PER_TURN {
            self.taken += 1;
            return true;
        }
        if self.waiting.len() < HANDSHAKES_WAITING_MAX && bytes.len() <= HANDSHAKE_DATAGRAM_BYTES_MAX {
            self.waiting.push_back((addresses, bytes.to_vec()));
            self.waited += 1;
        } else {
            self.dropped += 1;
        }
        false
    }

    /// The next one that waits, as long as the turn's budget lasts.
    pub(crate) fn next(&mut self) -> Option<(Addresses, Vec<u8>)> {
        if self.taken >= HANDSHAKES_PER_TURN {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.taken += 1;
        Some(next)
    }

    /// A turn is over.
    pub(crate) const fn end_turn(&mut self) {
        self.taken = 0;
    }

    /// Whether the next turn has something to do.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_base::Protocol;

    fn from(port: u16) -> Addresses {
        let (local, remote) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], port).into());
        Addresses { local, remote, protocol: Protocol::Udp }
    }

    #[test]
    fn what_is_over_the_budget_comes_in_later_turns_in_order() {
        let mut handshakes = Handshakes::default();
        let admitted = (0..20).filter(|port| handshakes.admit(from(*port), &[22])).count();
        assert_eq!((admitted, handshakes.waited), (HANDSHAKES_PER_TURN, 20 - HANDSHAKES_PER_TURN as u64));
        assert!(handshakes.next().is_none(), "the budget is spent");
        let mut ports = Vec::new();
        while handshakes.is_waiting() {
            handshakes.end_turn();
            let before = ports.len();
            ports.extend(std::iter::from_fn(|| handshakes.next()).map(|(from, _)| from.remote.port()));
            assert!(ports.len() - before <= HANDSHAKES_PER_TURN);
        }
        let first = HANDSHAKES_PER_TURN as u16;
        assert_eq!(ports, (first..20).collect::<Vec<_>>());
    }

    #[test]
    fn nobody_overtakes_those_who_wait() {
        let mut handshakes = Handshakes::default();
        for port in 0..=HANDSHAKES_PER_TURN as u16 {
            handshakes.admit(from(port), &[22]);
        }
        handshakes.end_turn();
        assert!(!handshakes.admit(from(99), &[22]));
        assert_eq!(handshakes.next().map(|(from, _)| from.remote.port()), Some(HANDSHAKES_PER_TURN as u16));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut handshakes = Handshakes::default();
        for _ in 0..HANDSHAKES_PER_TURN + HANDSHAKES_WAITING_MAX {
            handshakes.admit(from(1), &[22]);
        }
        assert_eq!(handshakes.dropped, 0);
        handshakes.admit(from(1), &[22]);
        handshakes.next();
        handshakes.admit(from(1), &[0; HANDSHAKE_DATAGRAM_BYTES_MAX + 1]);
        assert_eq!((handshakes.dropped, handshakes.waiting.len()), (2, HANDSHAKES_WAITING_MAX));
    }
}
