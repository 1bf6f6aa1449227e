//! All clients' streams, and where they are accepted.

use super::stream::Stream;
use crate::acceptor::host;
use crate::counters::TurnCounters;
use fanlight_base::{Addresses, Mono, Protocol, Run};
use fanlight_turn::Tls;
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use rustc_hash::FxHashMap;
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Streams at a time.
const STREAMS_MAX: usize = 16_384;
/// Of which one address (an IPv6 /64) may hold so many: a school behind one address, each with two connections.
const STREAMS_PER_ADDRESS_MAX: usize = 1024;
/// A stream without an allocation is closed after so long; browsers allocate within a second of connecting, and take a
/// second round trip for the challenge.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// Accepts of one listener in one turn: a TLS handshake is up to a millisecond of work.
const ACCEPTS_PER_TURN: usize = 16;

/// A listening socket.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) bound: SocketAddr,
    /// Secured.
    pub(super) secured: Option<Arc<ServerConfig>>,
    /// Somebody may wait. To ask when nobody does costs as much as relaying a packet.
    pub(super) pending: bool,
}

/// The streams there are.
#[derive(Default)]
pub(super) struct Streams {
    by_token: BTreeMap<usize, Stream>,
    by_addresses: FxHashMap<Addresses, usize>,
    by_host: FxHashMap<IpAddr, usize>,
}

impl Streams {
    /// Accepts what waits, so many at most; `next` numbers the streams. `WouldBlock` when nobody waits any more.
    pub(super) fn accept(
        &mut self,
        registry: &Registry,
        listener: &Listener,
        now: Mono,
        next: &mut usize,
        counters: &mut TurnCounters,
    ) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            let (mut socket, remote) = listener.socket.accept()?;
            counters.streams += 1;
            let held = self.by_host.get(&host(remote.ip())).copied().unwrap_or(0);
            if self.by_token.len() >= STREAMS_MAX || held >= STREAMS_PER_ADDRESS_MAX {
                counters.streams_refused += 1;
                continue;
            }
            let token = *next;
            *next += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            // Small frames leave at once; where that cannot be had they leave a little later.
            let _ = socket.set_nodelay(true);
            if registry.register(&mut socket, Token(token), interest).is_err() {
                counters.streams_refused += 1;
                continue;
            }
            let addresses = Addresses { local: listener.bound, remote, protocol: Protocol::Tcp };
            let Some(stream) = Stream::new(addresses, socket, now, listener.secured.as_ref()) else {
                counters.streams_broken += 1;
                continue;
            };
            *self.by_host.entry(host(remote.ip())).or_default() += 1;
            self.by_addresses.insert(addresses, token);
            self.by_token.insert(token, stream);
        }
        Ok(())
    }

    /// Reads one stream; `Err` says whose stream is over.
    pub(super) fn receive(
        &mut self,
        token: usize,
        mut each: impl FnMut(Addresses, Option<&Tls>, &[u8]),
    ) -> Result<bool, usize> {
        let Some(stream) = self.by_token.get_mut(&token) else { return Ok(false) };
        let addresses = stream.addresses;
        let more = stream.receive(|tls, frame| each(addresses, tls, frame));
        // An alert is written even when the stream is over.
        let flushed = stream.flush();
        more.and_then(|more| flushed.map(|()| more)).map_err(|_| token)
    }

    /// Writes a run of frames; `Err` says whose stream is over.
    pub(super) fn send(&mut self, run: &Run, counters: &mut TurnCounters) -> Result<(), usize> {
        let Some(token) = self.by_addresses.get(&run.addresses).copied() else { return Ok(()) };
        let Some(stream) = self.by_token.get_mut(&token) else { return Ok(()) };
        for frame in run.packets() {
            if !stream.send(frame) {
                counters.frames_dropped += 1;
            }
        }
        stream.flush().map_err(|_| token)
    }

    /// Takes a stream out; its client's addresses come back.
    pub(super) fn close(&mut self, registry: &Registry, token: usize) -> Option<Addresses> {
        let mut stream = self.by_token.remove(&token)?;
        self.by_addresses.remove(&stream.addresses);
        let host = host(stream.addresses.remote.ip());
        if let Some(held) = self.by_host.get_mut(&host) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_host.remove(&host);
            }
        }
        // The socket closes with its value; a failed deregistration changes nothing.
        let _ = registry.deregister(&mut stream.socket);
        Some(stream.addresses)
    }

    /// Streams that have been without an allocation for too long.
    pub(super) fn idle(&mut self, now: Mono, has_allocation: impl Fn(Addresses) -> bool) -> Vec<usize> {
        let mut idle = Vec::new();
        for (token, stream) in &mut self.by_token {
            if has_allocation(stream.addresses) {
                stream.since = now;
            } else if now.since(stream.since) > IDLE_MAX {
                idle.push(*token);
            }
        }
        idle
    }
}
