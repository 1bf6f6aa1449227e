//! The loop of a media thread.

use crate::acceptor::host;
use crate::clock::Clock;
use crate::counters::{Counters, Load, ShardCounters, ShardLoad};
use crate::handover::{Packets, Relayed, Way};
use crate::tcp::Connection;
use crate::turn::TurnGate;
use crate::udp::{Endpoint, ReceiveBuffer, Udp, UdpError, kernel_drops};
use crate::{TURN_EVERY, finish, turned};
use fanlight_base::{Addresses, Mono, Now, PeerKey, Protocol, RoomSid, SendBatch};
use fanlight_events::Event;
use fanlight_sfu::Sfu;
use fanlight_sfu::input::{Command, Join, Request};
use fanlight_sfu::model::DisconnectReason;
use fanlight_sfu::output::{ClientMetrics, LeaveAction, Output, Signal};
use mio::{Events, Interest, Poll, Token, Waker};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{
    Receiver, SendError, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel,
};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Commands that may wait for the shard; a sender keeps what does not fit. A join is three commands, and a shard takes a
/// few hundred joins a second.
const COMMANDS_MAX: usize = 4096;
/// What the commands of one turn may cost (`Command::cost`), so that media waits at most some milliseconds for them: 64 small
/// ones, or one description of any size.
const COMMANDS_COST_PER_TURN: u32 = 64;
/// Runs taken from the TURN thread in one turn: at most as many packets as from a busy socket.
const RELAYED_PER_TURN: usize = 64;
/// ICE-TCP connections of one shard.
const CONNECTIONS_MAX: usize = 16_384;
/// Of which one host (an IPv6 /64) may hold so many: two for each of a thousand participants behind one address.
const CONNECTIONS_PER_HOST_MAX: usize = 2048;
/// A connection whose 5-tuple belongs to no transport after so long is closed: its session is over.
const UNKNOWN_CONNECTION_FOR: Duration = Duration::from_secs(5);
/// How often connections are looked at for that.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// How often the kernel's drop counter is read: a file read that walks all UDP sockets of the machine.
const KERNEL_DROPS_EVERY: Duration = Duration::from_secs(5);

/// How soon a value is offered again to a full control queue.
const RETRY_AFTER: Duration = Duration::from_millis(1);

pub(crate) const WAKE: Token = Token(usize::MAX);
const FIRST_CONNECTION: usize = 1 << 16;

/// What reaches a shard from other threads.
#[derive(Debug)]
pub enum Message {
    /// For the core.
    Command(Command),
    /// A participant comes in.
    Join {
        /// For the core.
        join: Box<Join>,
        /// Where its signals go until its session is over.
        signals: SignalSink,
    },
    /// An ICE-TCP connection and what was already read from it.
    Connection {
        /// Non-blocking.
        stream: std::net::TcpStream,
        /// Our end and the client's.
        addresses: Addresses,
        /// Local ufrag that its first check names.
        ufrag: String,
        /// Bytes already read.
        first: Vec<u8>,
        /// Where a host is told whose first check proved nothing; it is not when that is full.
        failed: SyncSender<IpAddr>,
    },
    /// Ends the thread after one last drain.
    Stop,
}

/// A request of a participant, from its signalling connection.
pub struct Requested {
    /// Who asks.
    pub peer: PeerKey,
    /// What.
    pub request: Request,
    /// Dropped when the request is handled, and that of a description when the turn is over: only then its connection may
    /// ask for more. It bounds the queue.
    pub credit: Box<dyn Send>,
}

/// Takes the signals of one participant.
pub struct SignalSink(Box<dyn FnMut(Signal) -> bool + Send>);

impl SignalSink {
    /// `deliver` must not wait; `false` when the connection is gone or too slow, and then it is dropped.
    pub fn new(deliver: impl FnMut(Signal) -> bool + Send + 'static) -> Self {
        Self(Box::new(deliver))
    }
}

impl fmt::Debug for SignalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalSink")
    }
}

/// What a shard tells `control`.
#[derive(Debug)]
pub enum Control {
    /// A session is over.
    Left {
        /// Whose.
        peer: PeerKey,
        /// Why.
        reason: DisconnectReason,
    },
    /// A participant is active.
    Active {
        /// Who.
        peer: PeerKey,
    },
    /// A room is gone.
    RoomClosed {
        /// Which.
        room: RoomSid,
    },
}

/// Takes what clients have measured.
pub type MetricsSink = Box<dyn FnMut(ClientMetrics) + Send>;

/// Where a shard's outputs go. None of these may wait.
pub struct Sinks {
    /// For `control`; gives the value back when its queue is full, and gets it again in the next turn.
    pub control: Box<dyn FnMut(Control) -> Result<(), Control> + Send>,
    /// For the store; `false` when its queue is full.
    pub event: Box<dyn FnMut(Event) -> bool + Send>,
    /// For the store of clients' reports; counts itself what finds no room. `None` where there is no such store.
    pub metrics: Option<MetricsSink>,
}

/// A shard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// A socket.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// The poll or the thread.
    #[error("cannot start a media thread: {0}")]
    Start(#[from] io::Error),
}

/// A way to reach a running shard.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    messages: SyncSender<Message>,
    requests: Sender<Requested>,
    waker: Arc<Waker>,
    /// What came in by TURN.
    pub(crate) relayed: Way<Relayed>,
}

/// The shard is gone.
#[derive(Debug, thiserror::Error)]
#[error("the media thread has ended")]
pub struct Gone;

impl ShardHandle {
    /// Hands a stranger's connection over, unless the queue is full: commands go first.
    pub(crate) fn offer(&self, connection: Message) -> bool {
        self.messages.try_send(connection).is_ok() && self.waker.wake().is_ok()
    }

    /// Hands a participant's request over. Never waits: the credits of the connections bound the queue.
    pub fn request(&self, requested: Requested) -> Result<(), Gone> {
        self.requests.send(requested).map_err(|SendError(_)| Gone)?;
        self.waker.wake().map_err(|_| Gone)
    }

    /// Hands a message over unless the queue is full: then it comes back.
    pub fn try_send(&self, message: Message) -> Result<Option<Message>, Gone> {
        match self.messages.try_send(message) {
            Ok(()) => self.waker.wake().map(|()| None).map_err(|_| Gone),
            Err(TrySendError::Full(message)) => Ok(Some(message)),
            Err(TrySendError::Disconnected(_)) => Err(Gone),
        }
    }

    /// Hands a message over; waits while the queue is full.
    pub fn send(&self, message: Message) -> Result<(), Gone> {
        self.messages.send(message).map_err(|SendError(_)| Gone)?;
        self.waker.wake().map_err(|_| Gone)
    }
}

/// A running media thread.
#[derive(Debug)]
pub struct Shard {
    /// For commands and connections.
    pub handle: ShardHandle,
    /// What it counts.
    pub counters: Counters,
    /// What it carries, as of the last second.
    pub load: Load,
    /// How many turns the thread has made, at least one in half a second; gone when the thread has ended.
    pub turns: Weak<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Shard {
    /// Starts a thread around `sfu` that serves `endpoints`. What it answers to relays goes through `turn`.
    pub fn start(
        name: String,
        sfu: Sfu,
        clock: Clock,
        endpoints: Vec<Endpoint>,
        turn: Option<TurnGate>,
        sinks: Sinks,
    ) -> Result<Self, ShardError> {
        let poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(endpoints.len());
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            let mut udp = Udp::new(endpoint)?;
            poll.registry().register(&mut udp.socket, Token(index), Interest::READABLE)?;
            sockets.push(udp);
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (sender, messages) = sync_channel(COMMANDS_MAX);
        let (requests, requested) = channel();
        let (relayed, from_turn) = Way::new(Arc::clone(&waker));
        let (counters, load) = (Counters::default(), Load::default());
        let turns = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&turns);
        let mut worker = Worker {
            sfu,
            clock,
            poll,
            sockets,
            buffer: ReceiveBuffer::new(),
            turn: turn.map(|gate| Turn { way: gate.0, from_turn, relays: FxHashSet::default() }),
            connections: BTreeMap::new(),
            by_addresses: FxHashMap::default(),
            by_host: BTreeMap::new(),
            next_connection: FIRST_CONNECTION,
            messages,
            requested,
            lines: FxHashMap::default(),
            batch: SendBatch::new(),
            sinks,
            undelivered: VecDeque::new(),
            hurry: false,
            requests_next: false,
            described: Vec::new(),
            counters: ShardCounters::default(),
            published: counters.clone(),
            load: load.clone(),
            kernel_drops_base: None,
            kernel_drops_due: Mono::default(),
            housekeeping_due: Mono::default(),
            more: Vec::new(),
            turns,
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
            worker.send_all_away();
            if let Err(panic) = ended {
                resume_unwind(panic);
            }
        })?;
        let handle = ShardHandle { messages: sender, requests, waker, relayed };
        Ok(Self { handle, counters, load, turns: seen, thread })
    }

    /// Ends the thread and waits for it; `false` when it had panicked, or is stuck and left behind.
    pub fn stop(self) -> bool {
        let Self { handle, thread, .. } = self;
        let mut asked = false;
        // A shard that is already gone has nothing left to be told.
        finish(thread, || asked |= !asked && !matches!(handle.try_send(Message::Stop), Ok(Some(_))))
    }
}

/// The TURN thread as seen from here.
struct Turn {
    way: Way<Packets>,
    from_turn: Receiver<Relayed>,
    /// Relays that packets came from; an ICE-lite agent sends nowhere else. Bounded by TURN's port range.
    relays: FxHashSet<SocketAddr>,
}

/// Tokens to be served in this turn: what an earlier one left, then what the poll names, each once.
pub(crate) fn ready(more: &mut Vec<usize>, events: &Events) -> Vec<usize> {
    let mut ready = std::mem::take(more);
    let left = ready.len();
    for token in events.iter().map(|event| event.token()).filter(|token| *token != WAKE) {
        if !ready.iter().take(left).any(|other| *other == token.0) {
            ready.push(token.0);
        }
    }
    ready
}

struct Worker {
    sfu: Sfu,
    clock: Clock,
    poll: Poll,
    sockets: Vec<Udp>,
    buffer: ReceiveBuffer,
    turn: Option<Turn>,
    connections: BTreeMap<usize, Connection>,
    by_addresses: FxHashMap<Addresses, usize>,
    /// How many of `connections` each host has.
    by_host: BTreeMap<IpAddr, usize>,
    next_connection: usize,
    messages: Receiver<Message>,
    requested: Receiver<Requested>,
    /// Signalling connections of the participants.
    lines: FxHashMap<PeerKey, SignalSink>,
    batch: SendBatch,
    sinks: Sinks,
    /// Bounded by what it holds: at most two values for a peer, one for a room.
    undelivered: VecDeque<Control>,
    /// More messages or requests wait than one turn takes.
    hurry: bool,
    /// Of the two queues, the one with requests was looked at last.
    requests_next: bool,
    /// Credits of the descriptions of this turn.
    described: Vec<Box<dyn Send>>,
    counters: ShardCounters,
    published: Counters,
    load: Load,
    kernel_drops_base: Option<u64>,
    kernel_drops_due: Mono,
    housekeeping_due: Mono,
    /// Sockets and connections of which one turn did not take everything.
    more: Vec<usize>,
    /// Turns that have ended; nobody else holds it.
    turns: Arc<AtomicU64>,
}

/// What was in a queue.
enum Taken {
    /// Something that cost so much.
    Cost(u32),
    Nothing,
    /// The thread is to end.
    Stop,
}

impl Worker {
    fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        let mut deadline = Mono::default();
        loop {
            let hurry = std::mem::take(&mut self.hurry) || !self.more.is_empty();
            let wait = if hurry {
                Duration::ZERO
            } else {
                let retry = if self.undelivered.is_empty() { TURN_EVERY } else { RETRY_AFTER };
                deadline.since(self.clock.now().mono()).min(retry)
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait)) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                tracing::error!(%error, "the media thread cannot wait for its sockets and ends");
                return;
            }
            let now = self.clock.now();
            self.counters.turns += 1;
            let stop = self.take_commands(now);
            self.take_relayed(now);
            let ready = ready(&mut self.more, &events);
            for token in ready {
                if self.receive(now, token) {
                    self.more.push(token);
                }
            }
            if now.mono() >= deadline {
                self.sfu.handle_timeout(now, &mut self.batch);
            }
            deadline = self.drain();
            self.flush();
            self.housekeeping(now);
            turned(&self.turns);
            self.described.clear();
            if stop {
                return;
            }
        }
    }

    /// Whoever is still here when the thread ends joins anew, on a server that works.
    fn send_all_away(&mut self) {
        let (reason, action) = (DisconnectReason::ServerShutdown, LeaveAction::Reconnect);
        std::mem::take(&mut self.lines).into_values().for_each(|mut line| {
            (line.0)(Signal::Leave { reason, action });
        });
    }

    /// Feeds waiting messages and requests to the core, by turns, as far as one budget goes; `true` when the thread is to end.
    fn take_commands(&mut self, now: Now) -> bool {
        let (mut cost, mut empty) = (0u32, 0);
        while cost < COMMANDS_COST_PER_TURN {
            // What one turn ended with the other one begins with, so that neither waits behind what is dear of the other.
            self.requests_next = !self.requests_next;
            let taken = if self.requests_next { self.take_request(now) } else { self.take_message(now) };
            match taken {
                Taken::Cost(more) => (cost, empty) = (cost.saturating_add(more), 0),
                Taken::Nothing if empty == 1 => return false,
                Taken::Nothing => empty = 1,
                Taken::Stop => return true,
            }
        }
        self.hurry = true;
        false
    }

    fn take_message(&mut self, now: Now) -> Taken {
        match self.messages.try_recv() {
            Ok(Message::Command(command)) => {
                if let Command::SignalClosed { peer } = &command {
                    self.lines.remove(peer);
                }
                self.command(now, command)
            }
            Ok(Message::Join { join, signals }) => {
                self.lines.insert(join.peer, signals);
                self.command(now, Command::Join(join))
            }
            Ok(Message::Connection { stream, addresses, ufrag, first, failed }) => {
                if !self.admit(now, stream, addresses, &ufrag, &first) {
                    let _ = failed.try_send(host(addresses.remote.ip()));
                }
                Taken::Cost(1)
            }
            Ok(Message::Stop) | Err(TryRecvError::Disconnected) => Taken::Stop,
            Err(TryRecvError::Empty) => Taken::Nothing,
        }
    }

    /// No connection has more in this queue than its credit, so the queue is fair. A description takes all of it and gives it
    /// back when the turn ends: no participant has two in one turn.
    fn take_request(&mut self, now: Now) -> Taken {
        let Ok(Requested { peer, request, credit }) = self.requested.try_recv() else {
            return Taken::Nothing;
        };
        let described = request.is_description();
        let taken = self.command(now, Command::Request { peer, request });
        if described {
            self.described.push(credit);
        }
        taken
    }

    fn command(&mut self, now: Now, command: Command) -> Taken {
        let cost = command.cost();
        self.sfu.handle_command(now, command);
        Taken::Cost(cost)
    }

    /// Takes a connection over; false when its first check proved nothing.
    fn admit(
        &mut self,
        now: Now,
        stream: std::net::TcpStream,
        addresses: Addresses,
        ufrag: &str,
        first: &[u8],
    ) -> bool {
        let held = self.by_host.get(&host(addresses.remote.ip())).copied().unwrap_or_default();
        if self.connections.len() >= CONNECTIONS_MAX || held >= CONNECTIONS_PER_HOST_MAX {
            self.counters.tcp_refused += 1;
            return true;
        }
        if !self.sfu.has_ufrag(ufrag) {
            self.counters.tcp_refused += 1;
            return false;
        }
        let Some(token) = self.connect(now, stream, addresses, first) else { return true };
        let proven = self.sfu.has_tuple(addresses);
        if !proven {
            self.counters.tcp_failed += 1;
            self.disconnect(token);
        }
        proven
    }

    fn take_relayed(&mut self, now: Now) {
        let Some(turn) = &mut self.turn else { return };
        for _ in 0..RELAYED_PER_TURN {
            match turn.from_turn.try_recv() {
                Ok(Relayed::Packets(mut packets)) => {
                    let addresses = packets.addresses;
                    turn.relays.insert(addresses.remote);
                    self.counters.turn_packets_in += packets.count();
                    for packet in packets.each() {
                        self.sfu.handle_datagram(now, addresses, packet, &mut self.batch);
                    }
                }
                Ok(Relayed::Forget(address)) => {
                    turn.relays.remove(&address);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
        self.hurry = true;
    }

    fn connect(
        &mut self,
        now: Now,
        stream: std::net::TcpStream,
        addresses: Addresses,
        first: &[u8],
    ) -> Option<usize> {
        let mut stream = mio::net::TcpStream::from_std(stream);
        let token = self.next_connection;
        self.next_connection += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(token), interest).is_err() {
            self.counters.tcp_refused += 1;
            return None;
        }
        self.by_addresses.insert(addresses, token);
        *self.by_host.entry(host(addresses.remote.ip())).or_default() += 1;
        self.connections.insert(token, Connection::new(addresses, stream, now.mono(), first));
        if self.receive_tcp(now, token) {
            self.more.push(token);
        }
        Some(token)
    }

    /// Reads from what is ready; `true` when there is more than one turn may take.
    fn receive(&mut self, now: Now, token: usize) -> bool {
        if token >= FIRST_CONNECTION {
            return self.receive_tcp(now, token);
        }
        let Some(socket) = self.sockets.get(token) else { return false };
        let (sfu, batch, counters) = (&mut self.sfu, &mut self.batch, &mut self.counters);
        let received = socket.receive(&mut self.buffer, |addresses, datagram| {
            counters.udp_bytes_in += datagram.len() as u64;
            sfu.handle_datagram(now, addresses, datagram, batch);
        });
        self.counters.udp_receives += received.calls;
        self.counters.udp_packets_in += received.datagrams;
        received.more
    }

    /// As [`Worker::receive`], of a connection.
    fn receive_tcp(&mut self, now: Now, token: usize) -> bool {
        let Some(connection) = self.connections.get_mut(&token) else { return false };
        let (sfu, batch) = (&mut self.sfu, &mut self.batch);
        let result = connection
            .receive(|addresses, frame| sfu.handle_datagram(now, addresses, frame, batch))
            .and_then(|arrived| connection.flush().map(|()| arrived));
        match result {
            Ok(arrived) => {
                self.counters.tcp_frames_in += arrived.frames;
                self.counters.tcp_bytes_in += arrived.bytes;
                arrived.more
            }
            Err(_) => {
                self.disconnect(token);
                false
            }
        }
    }

    fn disconnect(&mut self, token: usize) {
        if let Some(mut connection) = self.connections.remove(&token) {
            self.by_addresses.remove(&connection.addresses);
            let host = host(connection.addresses.remote.ip());
            if let Some(held) = self.by_host.get_mut(&host) {
                *held = held.saturating_sub(1);
                if *held == 0 {
                    self.by_host.remove(&host);
                }
            }
            self.sfu.handle_tcp_closed(self.clock.now(), connection.addresses, &mut self.batch);
            // The stream closes with the connection; a failed deregistration changes nothing.
            let _ = self.poll.registry().deregister(&mut connection.stream);
        }
    }

    /// Empties the core; the time at which it wants to be called again comes back.
    fn drain(&mut self) -> Mono {
        while let Some(note) = self.undelivered.pop_front() {
            if let Err(note) = (self.sinks.control)(note) {
                self.undelivered.push_front(note);
                break;
            }
        }
        loop {
            match self.sfu.poll_output(&mut self.batch) {
                Output::Signal(peer, signal) => {
                    if !self.deliver(peer, *signal) {
                        self.counters.signals_refused += 1;
                    }
                }
                Output::Event(event) => {
                    if !(self.sinks.event)(*event) {
                        self.counters.events_refused += 1;
                    }
                }
                Output::Metrics(metrics) => {
                    if let Some(sink) = &mut self.sinks.metrics {
                        sink(*metrics);
                    }
                }
                Output::Left { peer, reason } => {
                    // What is queued is still written, then the connection closes.
                    self.lines.remove(&peer);
                    self.tell(Control::Left { peer, reason });
                }
                Output::Active { peer } => self.tell(Control::Active { peer }),
                Output::RoomClosed { room } => self.tell(Control::RoomClosed { room: *room }),
                Output::Transmit => self.flush(),
                Output::Timeout(deadline, _why) => return deadline,
            }
        }
    }

    /// A connection that does not take its signals is given up, so that its client joins anew.
    fn deliver(&mut self, peer: PeerKey, signal: Signal) -> bool {
        let taken = self.lines.get_mut(&peer).is_some_and(|line| (line.0)(signal));
        if !taken {
            self.lines.remove(&peer);
        }
        taken
    }

    fn tell(&mut self, note: Control) {
        if !self.undelivered.is_empty() {
            self.undelivered.push_back(note);
        } else if let Err(note) = (self.sinks.control)(note) {
            self.undelivered.push_back(note);
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut slow = Vec::new();
        for run in self.batch.runs().iter().filter(|run| run.segments() > 0) {
            if let Some(turn) = &mut self.turn
                && run.addresses.protocol == Protocol::Udp
                && turn.relays.contains(&run.addresses.remote)
            {
                match turn.way.offer(Packets::of(run)) {
                    true => self.counters.turn_packets_out += run.segments() as u64,
                    false => self.counters.turn_dropped += run.segments() as u64,
                }
                continue;
            }
            match run.addresses.protocol {
                Protocol::Udp => {
                    let Some(socket) = self.sockets.iter().find(|socket| socket.bound == run.addresses.local)
                    else {
                        self.counters.unroutable += run.segments() as u64;
                        continue;
                    };
                    let sent = socket.send(run);
                    self.counters.udp_sends += sent.calls;
                    self.counters.udp_packets_out += sent.packets;
                    self.counters.udp_blocked += sent.blocked;
                    self.counters.udp_failed += sent.failed;
                    self.counters.udp_bytes_out += run.bytes().len() as u64;
                }
                Protocol::Tcp => {
                    let Some(token) = self.by_addresses.get(&run.addresses).copied() else {
                        self.counters.unroutable += run.segments() as u64;
                        continue;
                    };
                    let Some(connection) = self.connections.get_mut(&token) else { continue };
                    for packet in run.packets() {
                        if connection.send(packet) {
                            self.counters.tcp_frames_out += 1;
                            self.counters.tcp_bytes_out += packet.len() as u64;
                        } else {
                            self.counters.tcp_dropped += 1;
                        }
                    }
                    if connection.flush().is_err() {
                        slow.push(token);
                    }
                }
            }
        }
        self.batch.clear();
        if let Some(turn) = &mut self.turn {
            turn.way.announce();
        }
        for token in slow {
            self.disconnect(token);
        }
    }

    fn housekeeping(&mut self, now: Now) {
        if now.mono() >= self.kernel_drops_due {
            self.kernel_drops_due = now.mono() + KERNEL_DROPS_EVERY;
            let ports: Vec<u16> = self.sockets.iter().map(|socket| socket.bound.port()).collect();
            if let Some(drops) = kernel_drops(&ports) {
                let base = *self.kernel_drops_base.get_or_insert(drops);
                self.counters.udp_kernel_drops = drops.saturating_sub(base);
            }
        }
        if now.mono() >= self.housekeeping_due {
            self.housekeeping_due = now.mono() + HOUSEKEEPING_EVERY;
            self.close_unknown_connections(now);
            let carried = self.sfu.load();
            self.load.publish(&ShardLoad { tracks_in: carried.tracks_in, tracks_out: carried.tracks_out });
        }
        let core = self.sfu.counters();
        self.counters.datagrams_unknown = core.datagrams_unknown;
        self.counters.tuples_refused = core.tuples_refused;
        self.counters.tuples_moved = core.tuples_moved;
        self.counters.rooms_panicked = core.rooms_panicked;
        self.counters.handshakes_waited = core.handshakes_waited;
        self.counters.handshakes_dropped = core.handshakes_dropped;
        self.counters.metrics_refused = core.metrics_refused;
        self.published.publish(&self.counters);
    }

    fn close_unknown_connections(&mut self, now: Now) {
        let old = |connection: &Connection| now.mono().since(connection.since) > UNKNOWN_CONNECTION_FOR;
        let unknown: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| old(connection) && !self.sfu.has_tuple(connection.addresses))
            .map(|(token, _)| *token)
            .collect();
        for token in unknown {
            self.counters.tcp_refused += 1;
            self.disconnect(token);
        }
    }
}
