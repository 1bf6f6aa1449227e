//! The loop of the TURN thread.

use super::relays::Relays;
use super::streams::{Listener, Streams};
use super::{ShardOf, TurnSockets, account};
use crate::clock::Clock;
use crate::counters::{SharedTurnCounters, TurnCounters};
use crate::handover::{Packets, Relayed};
use crate::udp::{ReceiveBuffer, Sent, Udp};
use crate::worker::ready;
use crate::{TURN_EVERY, turned};
use fanlight_base::{Addresses, Mono, Now, Protocol, Run, SendBatch};
use fanlight_events::Event;
use fanlight_events::turn::TurnInput;
use fanlight_turn::{Outgoing, Output, TurnServer};
use mio::{Events, Poll};
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Runs taken from the media threads in one turn.
const RUNS_PER_TURN: usize = 256;
/// Events that may wait for the store: every open allocation's end, with its traffic and totals. About 300 B each.
const EVENTS_WAITING_MAX: usize = 131_072;
/// How soon they are offered again.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How often streams without an allocation are looked for.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// How long the last words wait for room in the store when the thread ends.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(2);

/// The thread's state.
pub(super) struct Worker {
    server: TurnServer,
    out: Outgoing,
    node: SmolStr,
    clock: Clock,
    poll: Poll,
    /// Tokens from 0.
    sockets: Vec<Udp>,
    /// Tokens after the sockets'.
    listeners: Vec<Listener>,
    relays: Relays,
    streams: Streams,
    /// Relays and streams are numbered together.
    next_token: usize,
    buffer: ReceiveBuffer,
    from_shards: Receiver<Packets>,
    shards: ShardOf,
    event: Box<dyn FnMut(&Event) -> bool + Send>,
    waiting: VecDeque<Event>,
    counters: TurnCounters,
    published: SharedTurnCounters,
    housekeeping_due: Mono,
    /// Sockets, relays and streams of which one turn did not take everything.
    more: Vec<usize>,
    /// More runs wait than one turn takes.
    hurry: bool,
    /// Turns that have ended; nobody else holds it.
    turns: Arc<AtomicU64>,
}

impl Worker {
    pub(super) fn new(
        sockets: TurnSockets,
        server: TurnServer,
        node: SmolStr,
        clock: Clock,
        shards: ShardOf,
        event: Box<dyn FnMut(&Event) -> bool + Send>,
        (published, turns): (SharedTurnCounters, Arc<AtomicU64>),
    ) -> Self {
        Self {
            server,
            out: Outgoing::new(),
            node,
            clock,
            poll: sockets.poll,
            next_token: sockets.sockets.len() + sockets.listeners.len(),
            sockets: sockets.sockets,
            listeners: sockets.listeners,
            relays: Relays::default(),
            streams: Streams::default(),
            buffer: ReceiveBuffer::new(),
            from_shards: sockets.from_shards,
            shards,
            event,
            waiting: VecDeque::new(),
            counters: TurnCounters::default(),
            published,
            housekeeping_due: Mono::default(),
            more: Vec::new(),
            hurry: false,
            turns,
        }
    }

    pub(super) fn run(mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(1024);
        // What an earlier process of this node left open has ended.
        self.say(Event::Turn(self.clock.now(), TurnInput::NodeStarted(self.node.clone())));
        let mut deadline = Mono::default();
        loop {
            let wait = self.wait(deadline);
            if let Err(error) = self.poll.poll(&mut events, Some(wait)) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                tracing::error!(%error, "the TURN thread cannot wait for its sockets and ends");
                return;
            }
            let now = self.clock.now();
            self.counters.turns += 1;
            self.take_from_shards(now);
            self.receive_all(now, &events);
            self.accept_all(now);
            if now.mono() >= deadline {
                self.server.handle_timeout(now, &mut self.out);
            }
            deadline = self.drain(now);
            self.flush(now);
            self.housekeeping(now);
            turned(&self.turns);
            if stop.load(Ordering::Relaxed) {
                return self.end();
            }
        }
    }

    fn wait(&mut self, deadline: Mono) -> Duration {
        if std::mem::take(&mut self.hurry) || !self.more.is_empty() {
            return Duration::ZERO;
        }
        let retry = if self.waiting.is_empty() { TURN_EVERY } else { RETRY_AFTER };
        deadline.since(self.clock.now().mono()).min(retry)
    }

    fn take_from_shards(&mut self, now: Now) {
        for _ in 0..RUNS_PER_TURN {
            let Ok(mut packets) = self.from_shards.try_recv() else { return };
            let (media, relay) = (packets.addresses.local, packets.addresses.remote);
            let known = packets
                .each()
                .all(|packet| self.server.handle_from_media(now, media, relay, packet, &mut self.out));
            if !known && let Some(shard) = self.shards.get_mut(&media) {
                // Said again with the next packet, should there be no room.
                shard.relayed.offer(Relayed::Forget(relay));
            }
        }
        self.hurry = true;
    }

    fn receive_all(&mut self, now: Now, events: &Events) {
        for token in ready(&mut self.more, events) {
            if self.receive(now, token) {
                self.more.push(token);
            }
        }
    }

    /// Reads from what is ready; `true` when there is more than one turn may take.
    fn receive(&mut self, now: Now, token: usize) -> bool {
        let (server, out) = (&mut self.server, &mut self.out);
        if let Some(socket) = self.sockets.get(token) {
            let each = |addresses, datagram: &mut [u8]| server.handle_datagram(now, addresses, datagram, out);
            return socket.receive(&mut self.buffer, each).more;
        }
        if let Some(listener) = self.listeners.get_mut(token.saturating_sub(self.sockets.len())) {
            listener.pending = true;
            return false;
        }
        if let Some((key, socket)) = self.relays.get(token) {
            let each = |addresses: Addresses, datagram: &mut [u8]| {
                server.handle_relayed(now, *key, addresses.remote, datagram, out);
            };
            return socket.receive(&mut self.buffer, each).more;
        }
        let received = self.streams.receive(token, |addresses, tls, frame| {
            server.handle_stream_frame(now, addresses, tls, frame, out);
        });
        received.unwrap_or_else(|over| {
            self.close_stream(now, over);
            false
        })
    }

    /// The poll does not repeat itself about a listener that had more than one turn takes, or no descriptor left: it is
    /// asked until it has nobody, at the latest when the thread wakes for its housekeeping.
    fn accept_all(&mut self, now: Now) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.pending) {
            let registry = self.poll.registry();
            let (next, counters) = (&mut self.next_token, &mut self.counters);
            match self.streams.accept(registry, listener, now.mono(), next, counters) {
                Ok(()) => self.hurry = true,
                Err(error) => listener.pending = error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    fn close_stream(&mut self, now: Now, token: usize) {
        if let Some(addresses) = self.streams.close(self.poll.registry(), token) {
            if !self.server.has_allocation(addresses) {
                self.counters.streams_broken += 1;
            }
            self.server.handle_closed(now, addresses);
        }
    }

    /// Does what the core wants done; the time at which it wants to be called again comes back.
    fn drain(&mut self, now: Now) -> Mono {
        loop {
            match self.server.poll_output() {
                Output::OpenRelay { key, address } => {
                    let token = self.next_token;
                    self.next_token += 1;
                    match self.relays.open(self.poll.registry(), token, key, address) {
                        true => self.server.handle_relay_opened(now, key, &mut self.out),
                        false => self.server.handle_relay_refused(now, key, &mut self.out),
                    }
                }
                Output::CloseRelay { key } => self.relays.close(self.poll.registry(), key),
                Output::Account(said) => self.say(account::event(now, &self.node, *said)),
                Output::Timeout(deadline, _why) => return deadline,
            }
        }
    }

    /// Hands an event to the store, behind those that wait. Bytes are billed: nothing is dropped while there is memory
    /// to keep it.
    fn say(&mut self, event: Event) {
        if self.waiting.is_empty() && (self.event)(&event) {
            return;
        }
        if self.waiting.len() < EVENTS_WAITING_MAX {
            self.counters.events_waited += 1;
            self.waiting.push_back(event);
        } else {
            self.counters.events_dropped += 1;
        }
    }

    fn offer_waiting(&mut self) {
        while let Some(event) = self.waiting.front() {
            if !(self.event)(event) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn flush(&mut self, now: Now) {
        let mut over = Vec::new();
        for run in full_runs(&self.out.clients) {
            match run.addresses.protocol {
                Protocol::Udp => {
                    if let Some(socket) = self.sockets.iter().find(|one| one.bound == run.addresses.local) {
                        self.counters.count(socket.send(run));
                    }
                }
                Protocol::Tcp => over.extend(self.streams.send(run, &mut self.counters).err()),
            }
        }
        for run in full_runs(&self.out.peers) {
            if let Some(socket) = self.relays.by_address(run.addresses.local) {
                self.counters.count(socket.send(run));
            }
        }
        for run in full_runs(&self.out.media) {
            let Some(shard) = self.shards.get_mut(&run.addresses.local) else { continue };
            if !shard.relayed.offer(Relayed::Packets(Packets::of(run))) {
                self.counters.media_dropped += run.segments() as u64;
            }
        }
        self.out.clear();
        for shard in self.shards.values_mut() {
            shard.relayed.announce();
        }
        // What their ends leave to be done is drained in the next turn, at once.
        self.hurry |= !over.is_empty();
        for token in over {
            self.close_stream(now, token);
        }
    }

    fn housekeeping(&mut self, now: Now) {
        self.offer_waiting();
        if now.mono() >= self.housekeeping_due {
            self.housekeeping_due = now.mono() + HOUSEKEEPING_EVERY;
            let server = &self.server;
            for token in self.streams.idle(now.mono(), |addresses| server.has_allocation(addresses)) {
                self.counters.streams_idle += 1;
                self.streams.close(self.poll.registry(), token);
            }
        }
        self.counters.allocations_open = self.server.allocations() as u64;
        self.counters.take(self.server.counters());
        self.published.publish(&self.counters);
    }

    /// Ends all allocations and says what they have moved.
    fn end(mut self) {
        let began = self.clock.now();
        self.server.handle_shutdown(began);
        self.drain(began);
        loop {
            self.offer_waiting();
            if self.waiting.is_empty() {
                return;
            }
            if self.clock.now().mono().since(began.mono()) > LAST_WORDS_WITHIN {
                tracing::error!(
                    events = self.waiting.len(),
                    "the record has no room for the last words of TURN"
                );
                return;
            }
            std::thread::sleep(RETRY_AFTER);
        }
    }
}

fn full_runs(batch: &SendBatch) -> impl Iterator<Item = &Run> {
    batch.runs().iter().filter(|run| run.segments() > 0)
}

impl TurnCounters {
    fn count(&mut self, sent: Sent) {
        self.udp_blocked += sent.blocked;
        self.udp_failed += sent.failed;
    }

    fn take(&mut self, core: &fanlight_turn::Counters) {
        self.allocations = core.allocations;
        self.received = core.received;
        self.unreadable = core.foreign + core.malformed + core.unsupported;
        self.bindings = core.bindings;
        self.requests = core.requests;
        self.successes = core.successes;
        self.errors = core.errors.values().sum();
        self.errors_withheld = core.rate_limited;
        self.to_peers = core.to_peers;
        self.to_media = core.to_media;
        self.to_clients = core.to_clients;
        self.dropped = core.dropped.values().sum();
        self.quota_hits = core.quota_hits;
        self.relays_refused = core.relays_refused;
    }
}
