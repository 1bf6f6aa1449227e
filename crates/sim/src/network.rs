//! A seeded network: delay, jitter, loss, reordering and capacity for each direction of each client's link.

use fanlight_base::Random;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What a handshake datagram is charged: certificates and signatures vary in length from run to run, time must not.
const HANDSHAKE_BYTES: u64 = 1200;
/// What follows a handshake so soon may belong to it: its last acknowledgement looks like application data.
const HANDSHAKE_NS: u64 = 1_000_000_000;
/// A link with a capacity queues at most so much before it drops.
const QUEUE_NS_MAX: u64 = 300_000_000;

/// How one direction of a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// One way, in nanoseconds. Not zero: some timers of the clients spin at a round-trip time of zero.
    pub delay_ns: u64,
    /// Up to so much is added at random, in nanoseconds; reorders packets.
    pub jitter_ns: u64,
    /// Packets lost, in parts per million.
    pub loss_ppm: u32,
    /// Bits per second; `None` is no limit.
    pub capacity_bps: Option<u64>,
}

/// Datagrams under way.
#[derive(Debug)]
pub struct Network {
    random: Random,
    queue: BTreeMap<(u64, u64), Datagram>,
    next: u64,
    links: BTreeMap<(SocketAddr, SocketAddr), State>,
    default: Link,
    /// Datagrams lost so far.
    pub lost: u64,
}

#[derive(Debug)]
struct State {
    link: Link,
    busy_until_ns: u64,
    /// Nothing of DTLS is lost until then.
    handshake_until_ns: u64,
}

impl State {
    const fn new(link: Link) -> Self {
        Self { link, busy_until_ns: 0, handshake_until_ns: 0 }
    }
}

/// A datagram with its ends.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl Network {
    /// A network whose links all behave like `default` until set otherwise.
    pub fn new(random: Random, default: Link) -> Self {
        Self { random, queue: BTreeMap::new(), next: 0, links: BTreeMap::new(), default, lost: 0 }
    }

    /// Sets one direction of one link.
    pub fn set_link(&mut self, from: SocketAddr, to: SocketAddr, link: Link) {
        self.links.insert((from, to), State::new(link));
    }

    /// Sends a datagram at `now_ns`.
    pub(crate) fn send(&mut self, now_ns: u64, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let default = self.default;
        let state = self.links.entry((from, to)).or_insert(State::new(default));
        let dtls = bytes.first().is_some_and(|first| (20..64).contains(first));
        if is_handshake(bytes) {
            state.handshake_until_ns = now_ns + HANDSHAKE_NS;
        }
        let handshake = dtls && now_ns < state.handshake_until_ns;
        // Handshakes draw no loss: their number of datagrams is not the same in every run.
        let lost = self.random.below(1_000_000) < u64::from(state.link.loss_ppm);
        let jitter_ns = self.random.below(state.link.jitter_ns.max(1));
        let mut at_ns = now_ns + state.link.delay_ns;
        if let Some(bps) = state.link.capacity_bps {
            let size = if handshake { HANDSHAKE_BYTES } else { bytes.len() as u64 };
            let start_ns = state.busy_until_ns.max(now_ns);
            if start_ns - now_ns > QUEUE_NS_MAX {
                self.lost += 1;
                return;
            }
            state.busy_until_ns = start_ns + size * 8 * 1_000_000_000 / bps.max(1);
            at_ns += state.busy_until_ns - now_ns;
        }
        if lost && !handshake {
            self.lost += 1;
            return;
        }
        self.queue.insert((at_ns + jitter_ns, self.next), Datagram { from, to, bytes: bytes.to_vec() });
        self.next += 1;
    }

    /// When the next datagram arrives.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at_ns, _), _)| *at_ns)
    }

    /// Takes a datagram that has arrived by `now_ns`.
    pub(crate) fn receive(&mut self, now_ns: u64) -> Option<Datagram> {
        let entry = self.queue.first_entry()?;
        (entry.key().0 <= now_ns).then(|| entry.remove())
    }
}

/// Whether a datagram begins with a DTLS record of a handshake: in plain, or of epoch 2 (RFC 9147 §4). Data channels
/// travel in application data of DTLS 1.2 (23) or in records of epoch 3, and are lost like media.
fn is_handshake(bytes: &[u8]) -> bool {
    match bytes.first() {
        Some(20..=22) => true,
        Some(first @ 32..=63) => first & 3 == 2,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { delay_ns: 50_000_000, jitter_ns: 0, loss_ppm: 0, capacity_bps: None };

    fn ends() -> (SocketAddr, SocketAddr) {
        (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into())
    }

    fn arrivals(link: Link, count: u64) -> Vec<u64> {
        let (a, b) = ends();
        let mut network = Network::new(Random::from_seed([3; 32]), link);
        for number in 0..count {
            network.send(number * 1_000, a, b, &[0x80; 1000]);
        }
        let mut times = Vec::new();
        while let Some(at_ns) = network.next_ns() {
            times.push(at_ns);
            network.receive(at_ns).unwrap();
        }
        times
    }

    #[test]
    fn a_link_delays_what_it_carries() {
        assert_eq!(arrivals(LINK, 2), [50_000_000, 50_001_000]);
    }

    #[test]
    fn a_lossy_link_loses_about_what_it_says() {
        let arrived = arrivals(Link { loss_ppm: 50_000, ..LINK }, 10_000).len();
        assert!((9_400..9_600).contains(&arrived), "{arrived} of 10,000 at 5 %");
    }

    #[test]
    fn a_narrow_link_spaces_packets_and_drops_when_its_queue_is_full() {
        let times = arrivals(Link { capacity_bps: Some(8_000_000), ..LINK }, 1_000);
        assert_eq!(times[1] - times[0], 1_000_000, "1000 B at 8 Mbit/s take a millisecond");
        assert!(times.len() < 310, "300 ms of queue hold 300 packets");
    }
}
