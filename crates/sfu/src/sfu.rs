//! [`Sfu`]: the rooms of one shard, the way to them, and the wall between them.

use crate::config::SfuConfig;
use crate::ctx::Ctx;
use crate::demux::{Demux, Owner, RoomIndex};
use crate::handshakes::Handshakes;
use crate::input::{Command, Join, Request};
use crate::limits::{ROOMS_MAX, SAMPLES_PER_STEP, TUPLE_SILENCE};
use crate::model::{DisconnectReason, RoomConfig};
use crate::output::{LeaveAction, Output, Signal, Why};
use crate::room::Room;
use fanlight_base::{Addresses, Mono, Now, PeerKey, Random, RoomSid, SendBatch};
use fanlight_events::{Event, Fact, ParticipantLeft, Refused, RoomEnded};
use fanlight_transport::demux::{PacketClass, classify, stun_local_ufrag, stun_response_transaction};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The rooms of one shard.
///
/// A turn calls `handle_*` any number of times and then drains [`Sfu::poll_output`] until [`Output::Timeout`]. Each
/// room is a value that knows nothing of others; a panic in one ends that room, loudly, and no other.
pub struct Sfu {
    config: SfuConfig,
    random: Random,
    now: Now,
    rooms: Vec<Option<Slot>>,
    free: Vec<RoomIndex>,
    by_sid: BTreeMap<RoomSid, RoomIndex>,
    peers: BTreeMap<PeerKey, RoomIndex>,
    demux: Demux,
    /// Rooms with a deadline.
    due: BTreeSet<(Mono, RoomIndex)>,
    /// Rooms with something to drain.
    stirred: VecDeque<RoomIndex>,
    out: VecDeque<Output>,
    handshakes: Handshakes,
    /// Samples that this turn still takes.
    samples_left: usize,
    counters: SfuCounters,
}

struct Slot {
    room: Box<Room>,
    deadline: Mono,
    stirred: bool,
}

/// What belongs to no room. Counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SfuCounters {
    /// Datagrams from addresses no check has verified, and not checks for anybody here.
    pub datagrams_unknown: u64,
    /// Checks from a 5-tuple that another transport uses: it keeps it.
    pub tuples_refused: u64,
    /// 5-tuples that went over from a silent transport to one that proved to be there.
    pub tuples_moved: u64,
    /// Commands for rooms or participants that are gone.
    pub commands_late: u64,
    /// Rooms that ended by a bug.
    pub rooms_panicked: u64,
    /// Handshake datagrams that waited for a later turn.
    pub handshakes_waited: u64,
    /// Handshake datagrams dropped because too many waited.
    pub handshakes_dropped: u64,
    /// Batches of metrics not taken because their participant had sent too many.
    pub metrics_refused: u64,
}

/// What a shard carries now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SfuLoad {
    /// Tracks published, each codec of a track by itself.
    pub tracks_in: u64,
    /// Tracks forwarded, one for each subscription.
    pub tracks_out: u64,
}

impl Sfu {
    /// An SFU without rooms.
    pub fn new(config: SfuConfig) -> Self {
        Self {
            random: Random::from_seed(config.seed),
            config,
            now: Now { mono_ns: 0, unix_ns: 0 },
            rooms: Vec::new(),
            free: Vec::new(),
            by_sid: BTreeMap::new(),
            peers: BTreeMap::new(),
            demux: Demux::default(),
            due: BTreeSet::new(),
            stirred: VecDeque::new(),
            out: VecDeque::new(),
            handshakes: Handshakes::default(),
            samples_left: 0,
            counters: SfuCounters::default(),
        }
    }

    /// A command of `control`.
    pub fn handle_command(&mut self, now: Now, command: Command) {
        self.now = now;
        match command {
            Command::CreateRoom(config) => self.create_room(*config),
            Command::CloseRoom { room, reason, action, record } => match self.by_sid.get(&room) {
                Some(index) => self.with_room(*index, |room, ctx| room.close(ctx, reason, action, record)),
                None => self.out.push_back(Output::RoomClosed { room: Box::new(room) }),
            },
            Command::Join(join) => self.join(*join),
            Command::Request { peer, request } => self.request(peer, request),
            Command::Disconnect { peer, reason } => self.with_peer(peer, |room, ctx| {
                room.end_peer(ctx, peer, reason, LeaveAction::Disconnect);
            }),
            Command::SignalClosed { peer } => self.with_peer(peer, |room, ctx| room.signal_closed(ctx, peer)),
        }
    }

    /// A datagram, or a frame of ICE-TCP without its length. Media is decrypted in place.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        addresses: Addresses,
        bytes: &mut [u8],
        batch: &mut SendBatch,
    ) {
        self.now = now;
        let Some(owner) = self.owner(addresses, bytes) else {
            self.counters.datagrams_unknown += 1;
            return;
        };
        if self.is_handshake(owner, bytes) && !self.handshakes.admit(addresses, bytes) {
            return;
        }
        self.deliver(owner, addresses, bytes, batch);
    }

    fn deliver(&mut self, owner: Owner, addresses: Addresses, bytes: &mut [u8], batch: &mut SendBatch) {
        let mut proven = None;
        self.with_room(owner.room, |room, ctx| {
            proven = room.handle_datagram(ctx.now, owner.transport, addresses, bytes, batch);
        });
        let Some(forgotten) = proven else { return };
        for tuple in forgotten {
            self.demux.unlearn(owner, tuple);
        }
        if let Some(transaction) = stun_response_transaction(bytes) {
            self.demux.answered(&transaction);
        }
        self.claim(owner, addresses);
    }

    /// A transport has proved that its peer is at a 5-tuple, which becomes its own unless another uses it. Offered again
    /// with each check.
    fn claim(&mut self, owner: Owner, addresses: Addresses) {
        let former = self.demux.by_tuple(addresses).filter(|former| *former != owner);
        if former.is_some_and(|former| self.is_heard(former, addresses)) {
            self.counters.tuples_refused += 1;
            self.with_room(owner.room, |room, ctx| room.tuple_refused(ctx, owner.transport));
            return;
        }
        self.counters.tuples_moved += u64::from(former.is_some());
        self.demux.learn(owner, addresses);
    }

    /// Whether something authentic came from there for this transport a moment ago.
    fn is_heard(&self, owner: Owner, addresses: Addresses) -> bool {
        let slot = self.rooms.get(owner.room.0 as usize).and_then(Option::as_ref);
        let transport = slot.and_then(|slot| slot.room.transports.get(owner.transport));
        let heard = transport.and_then(|transport| transport.heard(addresses));
        heard.is_some_and(|heard| self.now.mono().since(heard) < TUPLE_SILENCE)
    }

    /// A TCP connection that had carried datagrams is closed.
    pub fn handle_tcp_closed(&mut self, now: Now, addresses: Addresses, batch: &mut SendBatch) {
        self.now = now;
        if let Some(owner) = self.demux.by_tuple(addresses) {
            self.demux.unlearn(owner, addresses);
            self.with_room(owner.room, |room, ctx| room.tuple_closed(ctx, owner.transport, addresses, batch));
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Now, batch: &mut SendBatch) {
        self.now = now;
        self.samples_left = SAMPLES_PER_STEP;
        while let Some((addresses, mut bytes)) = self.handshakes.next() {
            if let Some(owner) = self.owner(addresses, &bytes) {
                self.deliver(owner, addresses, &mut bytes, batch);
            }
        }
        let due = self.due.range(..=(now.mono(), RoomIndex(u32::MAX))).map(|(_, index)| *index);
        for index in due.collect::<Vec<_>>() {
            self.with_room(index, |room, ctx| room.handle_timeout(ctx, batch));
        }
    }

    /// The next output; packets go into the batch. The last one is [`Output::Timeout`].
    pub fn poll_output(&mut self, batch: &mut SendBatch) -> Output {
        loop {
            if let Some(output) = self.out.pop_front() {
                if let Output::Left { peer, .. } = &output {
                    self.peers.remove(peer);
                }
                return output;
            }
            match self.stirred.pop_front() {
                Some(index) => {
                    if !self.drain(index, batch) {
                        return Output::Transmit;
                    }
                }
                None => {
                    self.handshakes.end_turn();
                    return self.timeout();
                }
            }
        }
    }

    /// Which room's transport holds this ICE ufrag: whether a TCP connection that begins with it belongs here.
    pub fn has_ufrag(&self, ufrag: &str) -> bool {
        self.demux.by_ufrag(ufrag).is_some()
    }

    /// Whether this 5-tuple belongs to a transport: a TCP connection that does not carry anybody can be closed.
    pub fn has_tuple(&self, addresses: Addresses) -> bool {
        self.demux.by_tuple(addresses).is_some()
    }

    /// What was dropped without a room to blame.
    pub const fn counters(&self) -> SfuCounters {
        SfuCounters {
            handshakes_waited: self.handshakes.waited,
            handshakes_dropped: self.handshakes.dropped,
            ..self.counters
        }
    }

    /// What it carries now; walks all rooms.
    pub fn load(&self) -> SfuLoad {
        let mut load = SfuLoad::default();
        for slot in self.rooms.iter().flatten() {
            load.tracks_in += slot.room.published.len() as u64;
            load.tracks_out += slot.room.subscribed.len() as u64;
        }
        load
    }

    /// Whether a datagram is a part of a handshake, which costs a thousand times what a packet does.
    fn is_handshake(&self, owner: Owner, bytes: &[u8]) -> bool {
        classify(bytes) == PacketClass::Dtls
            && self.rooms.get(owner.room.0 as usize).and_then(Option::as_ref).is_some_and(|slot| {
                let transport = slot.room.transports.get(owner.transport);
                transport.is_some_and(|transport| transport.negotiated().is_none())
            })
    }

    fn timeout(&self) -> Output {
        if self.handshakes.is_waiting() {
            return Output::Timeout(self.now.mono(), Why::Transport);
        }
        let Some((deadline, index)) = self.due.first() else {
            return Output::Timeout(Mono::NEVER, Why::Idle);
        };
        let slot = self.rooms.get(index.0 as usize).and_then(Option::as_ref);
        Output::Timeout(*deadline, slot.map_or(Why::Idle, |slot| slot.room.next_timeout().1))
    }

    /// A STUN message names whose it is, whoever has its 5-tuple: a client that begins anew on its old port does not
    /// meet its former session, and an address that only was named by somebody leads nowhere.
    fn owner(&self, addresses: Addresses, bytes: &[u8]) -> Option<Owner> {
        if classify(bytes) != PacketClass::Stun {
            return self.demux.by_tuple(addresses);
        }
        match stun_response_transaction(bytes) {
            Some(transaction) => self.demux.by_transaction(&transaction),
            None => self.demux.by_ufrag(stun_local_ufrag(bytes)?),
        }
    }

    fn create_room(&mut self, config: RoomConfig) {
        if self.by_sid.contains_key(&config.sid) {
            return;
        }
        if self.by_sid.len() >= ROOMS_MAX {
            let why = format!("ROOMS_MAX {ROOMS_MAX}");
            self.fact(&config.sid, Refused { what: "room".to_owned(), why });
            self.out.push_back(Output::RoomClosed { room: Box::new(config.sid) });
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.rooms.push(None);
            RoomIndex(u32::try_from(self.rooms.len() - 1).unwrap_or(u32::MAX))
        });
        let random = self.random.fork();
        self.by_sid.insert(config.sid.clone(), index);
        let (now, out, demux, counters) = (self.now, &mut self.out, &mut self.demux, &mut self.counters);
        let samples_left = &mut self.samples_left;
        let mut ctx = Ctx { now, config: &self.config, demux, out, counters, samples_left };
        let room = Box::new(Room::new(&mut ctx, index, config, random));
        if let Some(place) = self.rooms.get_mut(index.0 as usize) {
            *place = Some(Slot { room, deadline: Mono::NEVER, stirred: false });
        }
    }

    fn join(&mut self, join: Join) {
        let peer = join.peer;
        let room = self.by_sid.get(&join.room).copied().filter(|_| !self.peers.contains_key(&peer));
        let Some(index) = room else {
            self.counters.commands_late += 1;
            let reason = DisconnectReason::RoomClosed;
            let leave = Signal::Leave { reason, action: LeaveAction::Disconnect };
            self.out.push_back(Output::Signal(peer, Box::new(leave)));
            if !self.peers.contains_key(&peer) {
                self.out.push_back(Output::Left { peer, reason });
            }
            return;
        };
        self.peers.insert(peer, index);
        self.with_room(index, |room, ctx| room.join(ctx, join));
    }

    fn request(&mut self, peer: PeerKey, request: Request) {
        self.with_peer(peer, |room, ctx| room.handle_request(ctx, peer, request));
    }

    fn with_peer(&mut self, peer: PeerKey, call: impl FnOnce(&mut Room, &mut Ctx<'_>)) {
        match self.peers.get(&peer) {
            Some(index) => self.with_room(*index, call),
            None => self.counters.commands_late += 1,
        }
    }

    /// Calls into a room, which then has something to drain. A panic ends the room.
    fn with_room(&mut self, index: RoomIndex, call: impl FnOnce(&mut Room, &mut Ctx<'_>)) {
        let Some(slot) = self.rooms.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        if !std::mem::replace(&mut slot.stirred, true) {
            self.stirred.push_back(index);
        }
        let (now, out, demux, counters) = (self.now, &mut self.out, &mut self.demux, &mut self.counters);
        let samples_left = &mut self.samples_left;
        let mut ctx = Ctx { now, config: &self.config, demux, out, counters, samples_left };
        let outcome = catch_unwind(AssertUnwindSafe(|| call(&mut slot.room, &mut ctx)));
        if outcome.is_err() {
            self.room_panicked(index);
        }
    }

    /// Drains a room that was taken off the queue; it counts as stirred until this is done.
    /// False when it goes on after the batch is sent.
    fn drain(&mut self, index: RoomIndex, batch: &mut SendBatch) -> bool {
        let mut complete = true;
        self.with_room(index, |room, ctx| complete = room.drain(ctx, batch));
        let Some(slot) = self.rooms.get_mut(index.0 as usize).and_then(Option::as_mut) else { return true };
        if !complete {
            self.stirred.push_front(index);
            return false;
        }
        slot.stirred = false;
        if slot.room.is_ended() {
            self.remove(index);
            return true;
        }
        let deadline = slot.room.next_timeout().0;
        if deadline != slot.deadline {
            self.due.remove(&(slot.deadline, index));
            slot.deadline = deadline;
            if deadline != Mono::NEVER {
                self.due.insert((deadline, index));
            }
        }
        true
    }

    fn remove(&mut self, index: RoomIndex) -> Option<Slot> {
        let slot = self.rooms.get_mut(index.0 as usize).and_then(Option::take)?;
        self.due.remove(&(slot.deadline, index));
        self.stirred.retain(|other| *other != index);
        self.demux.forget_room(index);
        self.by_sid.remove(&slot.room.config.sid);
        self.free.push(index);
        Some(slot)
    }

    /// Nothing of the room can be trusted but who was in it.
    fn room_panicked(&mut self, index: RoomIndex) {
        self.counters.rooms_panicked += 1;
        let Some(slot) = self.remove(index) else { return };
        let sid = slot.room.config.sid.clone();
        let reason = DisconnectReason::RoomClosed;
        for peer in slot.room.peers.values() {
            let leave = Signal::Leave { reason, action: LeaveAction::Reconnect };
            self.out.push_back(Output::Signal(peer.key, Box::new(leave)));
            let left = ParticipantLeft { reason: "panic".to_owned(), was_active: peer.is_active() };
            let fact = Fact {
                unix_ms: self.now.unix_ms(),
                room: sid.clone(),
                participant: peer.sid.clone(),
                track: Default::default(),
                body: left.into(),
            };
            self.out.push_back(Output::Event(Box::new(Event::Fact(fact))));
            self.out.push_back(Output::Left { peer: peer.key, reason });
        }
        self.fact(&sid, RoomEnded { reason: "panic".to_owned() });
        self.out.push_back(Output::RoomClosed { room: Box::new(sid) });
    }

    fn fact(&mut self, room: &RoomSid, body: impl Into<fanlight_events::FactBody>) {
        let fact = Fact {
            unix_ms: self.now.unix_ms(),
            room: room.clone(),
            participant: Default::default(),
            track: Default::default(),
            body: body.into(),
        };
        self.out.push_back(Output::Event(Box::new(Event::Fact(fact))));
    }
}
