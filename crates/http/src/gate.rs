//! What all connections of a kind of listener may hold together, and what one host may hold of it.
//!
//! A share is given back when it is dropped. Who asks for more than its host's share is refused and nobody else is.

use crate::tally::Tally;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections, WebSockets among them for as long as they live.
    Connections,
    /// Bytes of heads beyond [`SMALL_HEAD_BYTES`].
    HeadBytes,
    /// Bytes of bodies.
    BodyBytes,
    /// Bytes of long messages on their way to WebSockets.
    SentBytes,
}

/// Bytes of a head that need no share: what nearly all requests need.
pub(crate) const SMALL_HEAD_BYTES: usize = 8 * 1024;

const KINDS: usize = 4;

/// Of each kind at most so much in all; half of it by one host.
///
/// Connections: one address has 28,232 ports to come from (Linux' `ip_local_port_range`), so that no honest NAT or balancer
/// comes near half of these. Heads: thirty tokens with 500 kB of metadata that arrive at one time. Bodies: a thousand pages
/// that report at one time, with the most that a report may have. Long messages: joins of a dozen clients into the largest
/// room, which a client that does not read holds for some seconds.
const MOST: [usize; KINDS] = [65_536, 24 << 20, 64 << 20, 64 << 20];

/// What was counted of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldSnapshot {
    /// Held now.
    pub now: usize,
    /// Most that was held at one time.
    pub most: usize,
    /// How often more was asked for than may be held.
    pub refused: u64,
}

/// What was counted at the gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateSnapshot {
    /// Connections, WebSockets among them.
    pub connections: HeldSnapshot,
    /// Bytes of long heads.
    pub head_bytes: HeldSnapshot,
    /// Bytes of bodies.
    pub body_bytes: HeldSnapshot,
    /// Bytes of long messages on their way to WebSockets.
    pub sent_bytes: HeldSnapshot,
    /// Answers from 400 on, by status.
    pub refusals: Vec<(u16, u64)>,
}

/// Counts what connections hold. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: [usize; KINDS],
    held: Mutex<Held>,
    refusals: Mutex<Refusals>,
}

#[derive(Debug, Default)]
struct Held {
    kinds: [HeldSnapshot; KINDS],
    hosts: HashMap<IpAddr, [usize; KINDS]>,
}

#[derive(Debug, Default)]
struct Refusals {
    by_status: BTreeMap<u16, u64>,
    tally: Tally,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl Gate {
    /// With limits other than the main port's, in the order of [`Kind`].
    pub(crate) fn new(most: [usize; KINDS]) -> Self {
        Self(Arc::new(Inner { most, held: Mutex::default(), refusals: Mutex::default() }))
    }

    /// What was counted by now.
    pub fn snapshot(&self) -> GateSnapshot {
        let [connections, head_bytes, body_bytes, sent_bytes] = self.held().kinds;
        let by_status = self.refusals().by_status.iter().map(|(status, count)| (*status, *count)).collect();
        GateSnapshot { connections, head_bytes, body_bytes, sent_bytes, refusals: by_status }
    }

    /// A share of nothing yet.
    pub(crate) fn share(&self, kind: Kind, remote: IpAddr) -> Share {
        Share { gate: self.clone(), host: host(remote), kind, amount: 0 }
    }

    /// The most that one host may hold.
    pub(crate) fn most_of_host(&self, kind: Kind) -> usize {
        self.0.most.get(kind as usize).map_or(0, |most| most / 2)
    }

    /// A place for a connection.
    pub(crate) fn enter(&self, remote: IpAddr) -> Option<Share> {
        let mut place = self.share(Kind::Connections, remote);
        if place.grow(1) {
            return Some(place);
        }
        self.refused(remote, None);
        None
    }

    /// Counts an answer, if it is a refusal, and logs how many there were since the last line.
    pub(crate) fn answered(&self, remote: IpAddr, status: u16) {
        if status >= 400 {
            self.refused(remote, Some(status));
        }
    }

    fn refused(&self, remote: IpAddr, status: Option<u16>) {
        let mut refusals = self.refusals();
        if let Some(status) = status {
            *refusals.by_status.entry(status).or_default() += 1;
        }
        let Some(count) = refusals.tally.count(Instant::now()) else { return };
        drop(refusals);
        let last = status.map_or_else(|| "connection".to_owned(), |status| status.to_string());
        tracing::info!(count, last, %remote, "HTTP refusals since the last such line");
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection holds of one kind.
#[derive(Debug)]
pub(crate) struct Share {
    gate: Gate,
    host: IpAddr,
    kind: Kind,
    amount: usize,
}

impl Share {
    /// Takes more, or nothing more when it is not to be had.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let kind = self.kind as usize;
        let mut held = self.gate.held();
        let held = &mut *held;
        let most = self.gate.0.most.get(kind).copied().unwrap_or(0);
        let most_of_host = self.gate.most_of_host(self.kind);
        let Some(total) = held.kinds.get_mut(kind) else { return false };
        let of_host = held.hosts.get(&self.host).and_then(|host| host.get(kind)).copied().unwrap_or(0);
        if more > most.saturating_sub(total.now) || more > most_of_host.saturating_sub(of_host) {
            total.refused += 1;
            return false;
        }
        total.now += more;
        total.most = total.most.max(total.now);
        if let Some(host) = held.hosts.entry(self.host).or_default().get_mut(kind) {
            *host += more;
        }
        self.amount += more;
        true
    }

    /// Gives all back.
    pub(crate) fn clear(&mut self) {
        let (kind, amount) = (self.kind as usize, std::mem::take(&mut self.amount));
        if amount == 0 {
            return;
        }
        let mut held = self.gate.held();
        if let Some(total) = held.kinds.get_mut(kind) {
            total.now = total.now.saturating_sub(amount);
        }
        let Some(host) = held.hosts.get_mut(&self.host) else { return };
        if let Some(of_host) = host.get_mut(kind) {
            *of_host = of_host.saturating_sub(amount);
        }
        if *host == [0; KINDS] {
            held.hosts.remove(&self.host);
        }
    }

    pub(crate) const fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Whose share it is: an address, or the /64 that one subscriber of IPv6 has.
fn host(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn one_host_gets_its_share_and_another_still_gets_in() {
        let gate = Gate::default();
        let places: Vec<Share> = std::iter::from_fn(|| gate.enter(ONE)).collect();
        assert_eq!(places.len(), 32_768);
        assert!(gate.enter([192, 0, 2, 2].into()).is_some());
        drop(places);
        assert!(gate.enter(ONE).is_some());
        let snapshot = gate.snapshot();
        assert_eq!((snapshot.connections.now, snapshot.connections.refused), (0, 1));
        assert!(gate.held().hosts.is_empty(), "nothing is remembered of who is gone");
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_host() {
        let of = |text: &str| host(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), ONE);
    }
}
