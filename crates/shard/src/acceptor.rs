//! Accepts ICE-TCP in one place and hands each connection to the shard that its first STUN frame names.

use crate::counters::{AcceptorCounters, SharedAcceptorCounters};
use crate::worker::{Message, ShardHandle};
use crate::{TURN_EVERY, finish, turned};
use fanlight_base::{Addresses, Protocol};
use fanlight_transport::demux::stun_local_ufrag;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that have not yet said which session they belong to. More are closed at once: a flood of idle
/// connections must not use up the process's descriptors.
const PENDING_MAX: usize = 1024;
/// Of which one address (an IPv6 /64) may hold so many, so that one host cannot keep all others out. A connection waits
/// one round trip for its first check: behind one address some hundred clients a second still come in.
const PENDING_PER_ADDRESS_MAX: usize = 64;
/// A client sends its first check right after connecting.
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);
/// A STUN binding request is some hundred bytes long.
const FIRST_FRAME_BYTES: usize = 2048;
/// Accepts of one listener in one turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Connections of one host that proved nothing within [`FAILURES_WINDOW`]; then it is refused until that is over. An honest
/// one fails only when its session has ended or restarted ICE in the same moment, so that a NAT full of clients stays far
/// below; whoever guesses passwords gets no more than six tries a second.
const FAILURES_MAX: u32 = 64;
/// See [`FAILURES_MAX`].
const FAILURES_WINDOW: Duration = Duration::from_secs(10);
/// Hosts whose failures are remembered; over that the oldest is forgotten.
const FAILING_HOSTS_MAX: usize = 4096;
/// Failures that shards have told and this thread has not read yet; more are not told. It reads all of them in each turn.
const FAILURES_WAITING_MAX: usize = 1024;

const WAKE: Token = Token(usize::MAX);
const FIRST_PENDING: usize = 1024;

/// The accepting thread.
#[derive(Debug)]
pub struct Acceptor {
    /// Where it listens, in the order of the addresses asked for.
    pub addresses: Vec<SocketAddr>,
    /// What it counts.
    pub counters: SharedAcceptorCounters,
    /// As [`Shard::turns`](crate::Shard::turns).
    pub turns: Weak<AtomicU64>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

/// ICE-TCP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AcceptorError {
    /// Listening failed.
    #[error("cannot listen on TCP {address}: {source}; choose another rtc.tcp_port or end what holds it")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The poll or the thread.
    #[error("cannot start accepting ICE-TCP: {0}")]
    Start(#[from] io::Error),
}

impl Acceptor {
    /// Listens on every address; `shard_of` finds the shard of a session by its local ufrag. A connection whose ufrag
    /// has none is closed.
    pub fn start(
        addresses: &[SocketAddr],
        shard_of: impl Fn(&str) -> Option<ShardHandle> + Send + 'static,
    ) -> Result<Self, AcceptorError> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let listen = |source| AcceptorError::Listen { address: *address, source };
            let mut listener = TcpListener::bind(*address).map_err(listen)?;
            let bound = listener.local_addr().map_err(listen)?;
            poll.registry().register(&mut listener, Token(index), Interest::READABLE)?;
            listeners.push((listener, bound));
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let stop = Arc::new(AtomicBool::new(false));
        let addresses = listeners.iter().map(|(_, bound)| *bound).collect();
        let published = SharedAcceptorCounters::default();
        let (failed, failures) = sync_channel(FAILURES_WAITING_MAX);
        let turns = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&turns);
        let state = Accepting {
            poll,
            listeners,
            pending: BTreeMap::new(),
            by_host: BTreeMap::new(),
            failing: BTreeMap::new(),
            failed,
            failures,
            next: FIRST_PENDING,
            shard_of,
            counters: AcceptorCounters::default(),
            published: published.clone(),
            turns,
        };
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("ice-tcp".into()).spawn(move || state.run(&flag))?;
        Ok(Self { addresses, counters: published, turns: seen, stop, waker, thread })
    }

    /// Ends the thread; connections already handed over live on.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // If waking fails the thread still sees the flag within a second.
        let _ = self.waker.wake();
        finish(self.thread, || ());
    }
}

struct Accepting<F> {
    poll: Poll,
    listeners: Vec<(TcpListener, SocketAddr)>,
    pending: BTreeMap<usize, Pending>,
    /// How many of `pending` each host has.
    by_host: BTreeMap<IpAddr, usize>,
    /// Hosts whose connections proved nothing.
    failing: BTreeMap<IpAddr, Failing>,
    /// Goes to the shards with each connection.
    failed: SyncSender<IpAddr>,
    failures: Receiver<IpAddr>,
    next: usize,
    shard_of: F,
    counters: AcceptorCounters,
    published: SharedAcceptorCounters,
    /// Turns that have ended; nobody else holds it.
    turns: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    count: u32,
}

struct Pending {
    stream: TcpStream,
    addresses: Addresses,
    since: Instant,
    first: Vec<u8>,
}

enum Progress {
    Wait,
    Ready(ShardHandle, String),
    Close,
}

impl<F: Fn(&str) -> Option<ShardHandle>> Accepting<F> {
    fn run(mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.poll.poll(&mut events, Some(TURN_EVERY))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "ICE-TCP is no longer accepted");
                return;
            }
            self.take_failures();
            for token in events.iter().map(|event| event.token().0) {
                self.advance(token);
            }
            // All of them every time: the poll does not repeat itself about a listener that had more than one turn
            // takes, or no descriptor left.
            for index in 0..self.listeners.len() {
                self.accept(index);
            }
            self.close_late();
            self.published.publish(&self.counters);
            turned(&self.turns);
        }
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((listener, local)) = self.listeners.get(index) else { return };
            let (mut stream, remote) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => return,
            };
            let addresses = Addresses { local: *local, remote, protocol: Protocol::Tcp };
            self.counters.accepted += 1;
            let host = host(remote.ip());
            if self.failing.get(&host).is_some_and(|failing| failing.count >= FAILURES_MAX) {
                self.counters.refused_failing += 1;
                continue;
            }
            let held = self.by_host.get(&host).copied().unwrap_or_default();
            if self.pending.len() >= PENDING_MAX || held >= PENDING_PER_ADDRESS_MAX {
                self.counters.refused_full += 1;
                continue;
            }
            // Media does not wait for a full segment.
            let _ = stream.set_nodelay(true);
            let token = self.next;
            self.next += 1;
            if self.poll.registry().register(&mut stream, Token(token), Interest::READABLE).is_ok() {
                self.by_host.insert(host, held + 1);
                let pending = Pending { stream, addresses, since: Instant::now(), first: Vec::new() };
                self.pending.insert(token, pending);
                self.advance(token);
            }
        }
    }

    fn advance(&mut self, token: usize) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        let shard = match pending.read(&self.shard_of) {
            Progress::Wait => return,
            Progress::Close => None,
            Progress::Ready(shard, ufrag) => Some((shard, ufrag)),
        };
        let Some(pending) = self.remove(token) else { return };
        let Some((shard, ufrag)) = shard else {
            self.counters.refused_frame += 1;
            self.fail(host(pending.addresses.remote.ip()));
            return;
        };
        let Pending { stream, addresses, first, .. } = pending;
        let failed = self.failed.clone();
        if shard.offer(Message::Connection { stream: stream.into(), addresses, ufrag, first, failed }) {
            self.counters.handed_over += 1;
        } else {
            self.counters.refused_full += 1;
        }
    }

    /// Hears from the shards, and forgets what is old.
    fn take_failures(&mut self) {
        self.failing.retain(|_, failing| failing.since.elapsed() < FAILURES_WINDOW);
        for _ in 0..FAILURES_WAITING_MAX {
            let Ok(host) = self.failures.try_recv() else { return };
            self.counters.failed += 1;
            self.fail(host);
        }
    }

    fn fail(&mut self, host: IpAddr) {
        if self.failing.len() >= FAILING_HOSTS_MAX && !self.failing.contains_key(&host) {
            let oldest = self.failing.iter().min_by_key(|(_, failing)| failing.since).map(|(host, _)| *host);
            if let Some(oldest) = oldest {
                self.failing.remove(&oldest);
            }
        }
        let failing = self.failing.entry(host).or_insert(Failing { since: Instant::now(), count: 0 });
        failing.count = failing.count.saturating_add(1);
    }

    fn close_late(&mut self) {
        let late = |pending: &Pending| pending.since.elapsed() >= FIRST_FRAME_WITHIN;
        // Tokens grow with time: the oldest come first.
        while let Some((token, _)) = self.pending.first_key_value().filter(|(_, pending)| late(pending)) {
            let token = *token;
            self.counters.timed_out += 1;
            self.remove(token);
        }
    }

    fn remove(&mut self, token: usize) -> Option<Pending> {
        let mut pending = self.pending.remove(&token)?;
        let host = host(pending.addresses.remote.ip());
        if let Some(held) = self.by_host.get_mut(&host) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_host.remove(&host);
            }
        }
        // The stream closes or goes on elsewhere; a failed deregistration changes nothing.
        let _ = self.poll.registry().deregister(&mut pending.stream);
        Some(pending)
    }
}

/// Whom an address counts for: one host has a whole IPv6 /64.
pub(crate) fn host(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

impl Pending {
    fn read(&mut self, shard_of: &impl Fn(&str) -> Option<ShardHandle>) -> Progress {
        let mut chunk = [0; FIRST_FRAME_BYTES];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Progress::Close,
                Ok(count) => self.first.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Wait,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Close,
            }
            let Some((length, rest)) = self.first.split_first_chunk::<2>() else { continue };
            let length = usize::from(u16::from_be_bytes(*length));
            if length > FIRST_FRAME_BYTES {
                return Progress::Close;
            }
            let Some(frame) = rest.get(..length) else { continue };
            let Some(ufrag) = stun_local_ufrag(frame) else { return Progress::Close };
            return match shard_of(ufrag) {
                Some(shard) => Progress::Ready(shard, ufrag.to_owned()),
                None => Progress::Close,
            };
        }
    }
}
