//! The TURN thread: sockets around one [`TurnServer`]. It knows no protocol but the framing of streams.
//!
//! One thread serves all clients, so that quotas of a user are counted in one place. What clients send to media sockets
//! of this node goes to their threads by queue, and what these answer comes back the same way.

mod account;
mod relays;
mod stream;
mod streams;
mod worker;

use crate::clock::Clock;
use crate::counters::SharedTurnCounters;
use crate::finish;
use crate::handover::{Packets, Way};
use crate::udp::{self, Udp, UdpError};
use crate::worker::{ShardHandle, WAKE};
use fanlight_events::Event;
use fanlight_turn::TurnServer;
use mio::net::TcpListener;
use mio::{Interest, Poll, Token, Waker};
use rustls::ServerConfig;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// Where clients come in.
#[derive(Debug, Default)]
pub struct TurnListen {
    /// UDP.
    pub udp: Vec<SocketAddr>,
    /// TCP.
    pub tcp: Vec<SocketAddr>,
    /// TLS over TCP.
    pub tls: Vec<SocketAddr>,
    /// How [`TurnListen::tls`] is secured.
    pub secured: Option<Arc<ServerConfig>>,
}

/// TURN cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// A UDP socket.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// Listening for streams failed.
    #[error(
        "cannot listen for TURN on TCP {address}: {source}; choose another {setting} or end what holds it"
    )]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// The configuration key of its port.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
    /// TLS is wanted, and there is no certificate.
    #[error("TURN over TLS on {0} needs a certificate: set turn.cert_file and turn.key_file")]
    NoCertificate(SocketAddr),
    /// The poll or the thread.
    #[error("cannot start the TURN thread: {0}")]
    Start(#[from] io::Error),
}

/// Media threads by the sockets that they receive on.
pub type ShardOf = BTreeMap<SocketAddr, ShardHandle>;

/// The way from a media thread to the TURN thread.
#[derive(Debug, Clone)]
pub struct TurnGate(pub(crate) Way<Packets>);

/// Sockets that are bound and not yet served.
pub struct TurnSockets {
    /// Where UDP is received, in the order asked for.
    pub udp: Vec<SocketAddr>,
    /// Where TCP is accepted.
    pub tcp: Vec<SocketAddr>,
    /// Where TLS is accepted.
    pub tls: Vec<SocketAddr>,
    poll: Poll,
    waker: Arc<Waker>,
    gate: Way<Packets>,
    from_shards: Receiver<Packets>,
    sockets: Vec<Udp>,
    listeners: Vec<streams::Listener>,
}

impl TurnSockets {
    /// Binds all of them.
    pub fn bind(listen: TurnListen) -> Result<Self, TurnError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (gate, from_shards) = Way::new(Arc::clone(&waker));
        let mut sockets = Vec::new();
        for address in &listen.udp {
            let mut socket = Udp::new(udp::bind(*address, "turn.udp_port")?)?;
            poll.registry().register(&mut socket.socket, Token(sockets.len()), Interest::READABLE)?;
            sockets.push(socket);
        }
        let mut listeners: Vec<streams::Listener> = Vec::new();
        let streams = listen.tcp.iter().map(|address| (*address, "turn.udp_port", None));
        let secured = listen.tls.iter().map(|address| (*address, "turn.tls_port", Some(&listen.secured)));
        for (address, setting, config) in streams.chain(secured) {
            let refused = |source| TurnError::Listen { address, setting, source };
            let secured = match config {
                Some(Some(config)) => Some(Arc::clone(config)),
                Some(None) => return Err(TurnError::NoCertificate(address)),
                None => None,
            };
            let mut socket = TcpListener::bind(address).map_err(refused)?;
            let bound = socket.local_addr().map_err(refused)?;
            let token = Token(sockets.len() + listeners.len());
            poll.registry().register(&mut socket, token, Interest::READABLE)?;
            listeners.push(streams::Listener { socket, bound, secured, pending: false });
        }
        let bound = |secured: bool| {
            let these = listeners.iter().filter(|one| one.secured.is_some() == secured);
            these.map(|one| one.bound).collect()
        };
        Ok(Self {
            udp: sockets.iter().map(|socket| socket.bound).collect(),
            tcp: bound(false),
            tls: bound(true),
            poll,
            waker,
            gate,
            from_shards,
            sockets,
            listeners,
        })
    }

    /// For the media threads.
    pub fn gate(&self) -> TurnGate {
        TurnGate(self.gate.clone())
    }

    /// Starts the thread. `node` names this server in what it tells the accounting by `event`, which gives back `false`
    /// when there is no room at the moment.
    pub fn start(
        self,
        server: TurnServer,
        node: SmolStr,
        clock: Clock,
        shards: ShardOf,
        event: Box<dyn FnMut(&Event) -> bool + Send>,
    ) -> Result<TurnThread, TurnError> {
        let counters = SharedTurnCounters::default();
        let stop = Arc::new(AtomicBool::new(false));
        let waker = Arc::clone(&self.waker);
        let turns = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&turns);
        let worker = worker::Worker::new(self, server, node, clock, shards, event, (counters.clone(), turns));
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("turn".into()).spawn(move || worker.run(&flag))?;
        Ok(TurnThread { counters, turns: seen, stop, waker, thread })
    }
}

/// The running thread.
#[derive(Debug)]
pub struct TurnThread {
    /// What it counts.
    pub counters: SharedTurnCounters,
    /// As [`Shard::turns`](crate::Shard::turns).
    pub turns: Weak<AtomicU64>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

impl TurnThread {
    /// Ends every allocation, tells the accounting their last bytes, and ends the thread; `false` when it had panicked, or is
    /// stuck and left behind.
    pub fn stop(self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that cannot be woken still sees the flag within a second.
        let _ = self.waker.wake();
        finish(self.thread, || ())
    }
}
