//! One virtual machine: server cores, network and clients, stepped from event to event.

use crate::attacker::Attacker;
use crate::client::{Client, Doing, nanoseconds};
use crate::network::Network;
use crate::outcome::Outcome;
use crate::scenario::Scenario;
use crate::trace::{Trace, TraceEntry};
use crate::wire::Wire;
use fanlight_base::{Addresses, NodeId, Now, ParticipantSid, PeerKey, Protocol, Random, SendBatch};
use fanlight_control::{Control, ControlConfig, JoinRequest, Limits, RoomDefaults, RoomOptions};
use fanlight_events::{Event, SampleBody, TrackSample};
use fanlight_sfu::input::{Command, Join, Layout, Request};
use fanlight_sfu::model::{ParticipantKind, Permission};
use fanlight_sfu::output::{Output, Signal};
use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::{Certificate, ClockAnchor};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Virtual wall clock at the start: a fixed day.
const START_UNIX_NS: u64 = 1_800_000_000_000_000_000;
/// Signalling takes so long each way.
const SIGNAL_NS: u64 = 10_000_000;
/// Data messages that are not all there after so much virtual time are lost: the first retransmission timeout of SCTP is
/// a second, and each one doubles it (RFC 9260 §6.3).
const MESSAGES_MS_MAX: u64 = 60_000;
/// Time for good-byes.
const LEAVE_MS: u64 = 1_000;
/// A run that makes so many steps without time passing is stuck.
const STEPS_WITHOUT_TIME_MAX: u32 = 100_000;

/// The whole thing.
pub struct World {
    clients: Vec<Client>,
    trace: Trace,
    /// Last counters, each with the participant it gives them to.
    counted: Vec<(ParticipantSid, TrackSample)>,
    wire: Wire,
    /// Rooms whose clients send data messages.
    messaging: Vec<bool>,
    messages: u32,
    network: Network,
    attacker: Attacker,
    sfu: Sfu,
    control: Control,
    batch: SendBatch,
    anchor: Instant,
    mono_ns: u64,
    server: SocketAddr,
    /// Signalling under way: to clients, and from clients.
    to_clients: BTreeMap<(u64, u64), (PeerKey, Signal)>,
    to_server: BTreeMap<(u64, u64), (PeerKey, Request)>,
    order: u64,
    sfu_deadline_ns: u64,
    client_deadlines: Vec<u64>,
}

impl World {
    /// A world in which everybody of `scenario` has asked to join.
    pub fn new(scenario: &Scenario, seed: u64, certificate: Certificate) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut random = Random::from_seed(bytes);
        // str0m draws from fastrand's thread-local generator.
        fastrand::seed(random.u64());
        // The one anchor; every later Instant is computed from it.
        let anchor = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 7882));
        let mut seed = [0; 32];
        random.fill(&mut seed);
        let sfu = Sfu::new(SfuConfig {
            shard: 0,
            seed,
            certificate,
            anchor: ClockAnchor::new(anchor, fanlight_base::Mono::default()),
            candidates: vec![LocalCandidate::new(server, Protocol::Udp)],
            texts: TextLimits::default(),
            envelope: fanlight_livekit::data::ENVELOPE,
            encode_info: fanlight_livekit::convert::encode_participant,
        });
        let control = Control::new(ControlConfig {
            node: NodeId::from("ND_sim"),
            shards: 1,
            limits: Limits::default(),
            room: RoomDefaults::default(),
            random: random.fork(),
        });
        let mut world = Self {
            clients: Vec::new(),
            trace: Trace::default(),
            counted: Vec::new(),
            wire: Wire::new(server),
            messaging: vec![false; scenario.rooms as usize],
            messages: scenario.messages,
            network: Network::new(random.fork(), scenario.link),
            attacker: Attacker::new(random.fork(), scenario.attacked),
            sfu,
            control,
            batch: SendBatch::new(),
            anchor,
            mono_ns: 0,
            server,
            to_clients: BTreeMap::new(),
            to_server: BTreeMap::new(),
            order: 0,
            sfu_deadline_ns: 0,
            client_deadlines: Vec::new(),
        };
        for room in 0..scenario.rooms {
            for _ in 0..scenario.participants {
                world.join(room);
            }
        }
        world
    }

    /// Runs the scenario to its end: media, then time for losses to be made good, then everybody leaves.
    pub fn run(mut self, scenario: &Scenario) -> (Outcome, Trace) {
        self.run_ms(scenario.run_ms);
        for client in &mut self.clients {
            client.stop_sending();
        }
        self.run_ms(scenario.settle_ms);
        while !self.messages_are_there() && self.mono_ns < MESSAGES_MS_MAX * 1_000_000 {
            self.run_ms(100);
        }
        for index in 0..self.clients.len() {
            self.perform(index, vec![Client::leave()]);
        }
        self.run_ms(LEAVE_MS);
        assert_eq!(
            self.attacker.sent > 1_000,
            scenario.attacked,
            "{} datagrams of the attacker",
            self.attacker.sent
        );
        let outcome = Outcome {
            clients: self.clients.into_iter().map(|client| client.seen).collect(),
            wire: self.wire,
            counted: self.counted,
            server: self.server,
            messages: self.messages,
        };
        (outcome, self.trace)
    }

    fn run_ms(&mut self, ms: u64) {
        self.run_until(self.mono_ns + ms * 1_000_000);
    }

    fn messages_are_there(&self) -> bool {
        self.clients.iter().all(|client| {
            let others = self.clients.iter().filter(|other| other.seen.room == client.seen.room).count() - 1;
            client.seen.messages.len() >= others * self.messages as usize
        })
    }

    /// Rooms in which every channel is open now begin to talk.
    fn begin_messages(&mut self) {
        let now = self.instant();
        for (room, begun) in self.messaging.iter_mut().enumerate() {
            let mut clients: Vec<_> =
                self.clients.iter_mut().filter(|client| client.seen.room as usize == room).collect();
            if !*begun && clients.iter().all(|client| client.can_message()) {
                *begun = true;
                clients.iter_mut().for_each(|client| client.begin_messages(now, self.messages));
            }
        }
    }

    fn join(&mut self, room: u32) {
        let number = self.clients.len() as u32;
        let request = JoinRequest {
            room: format!("room-{room}").into(),
            options: RoomOptions::default(),
            preset: String::new(),
            may_create: true,
            join: Box::new(participant(number)),
        };
        let peer = self.control.handle_join(self.now(), request).expect("there is room");
        self.clients.push(Client::new(number, room, peer, self.anchor));
        self.client_deadlines.push(0);
        self.drain_control();
    }

    fn run_until(&mut self, end_ns: u64) {
        let mut still = 0;
        while self.mono_ns < end_ns {
            let next_ns = self.next_ns().min(end_ns);
            still = if next_ns > self.mono_ns { 0 } else { still + 1 };
            assert!(still < STEPS_WITHOUT_TIME_MAX, "time stands still at {} ns", self.mono_ns);
            self.mono_ns = self.mono_ns.max(next_ns);
            self.step();
        }
    }

    fn next_ns(&self) -> u64 {
        let signals = [
            self.to_clients.first_key_value().map(|(key, _)| key.0),
            self.to_server.first_key_value().map(|(key, _)| key.0),
        ];
        self.client_deadlines
            .iter()
            .copied()
            .chain(self.network.next_ns())
            .chain(signals.into_iter().flatten())
            .chain([self.sfu_deadline_ns])
            .min()
            .unwrap_or(u64::MAX)
    }

    fn step(&mut self) {
        let now = self.now();
        while let Some(datagram) = self.network.receive(self.mono_ns) {
            self.wire.note_delivered(datagram.from, datagram.to, &datagram.bytes);
            if datagram.to == self.server {
                let attack = self.attacker.after(&datagram);
                self.receive(datagram.from, datagram.bytes);
                if let Some((from, bytes)) = attack {
                    self.receive(from, bytes);
                }
            } else if let Some(index) =
                self.clients.iter().position(|client| client.seen.address.contains(&datagram.to))
            {
                let (instant, mut doings) = (self.instant(), Vec::new());
                let deadline = self.clients[index].receive(instant, &datagram, &mut doings);
                self.client_deadlines[index] =
                    self.client_deadlines[index].min(nanoseconds(self.anchor, deadline));
                self.perform(index, doings);
            }
        }
        while let Some((peer, request)) = due(&mut self.to_server, self.mono_ns) {
            self.sfu.handle_command(now, Command::Request { peer, request });
        }
        while let Some((peer, signal)) = due(&mut self.to_clients, self.mono_ns) {
            if let Some(index) = self.clients.iter().position(|client| client.peer == peer) {
                let doings = self.clients[index].signal(signal);
                self.perform(index, doings);
                self.client_deadlines[index] = self.mono_ns;
            }
        }
        if self.sfu_deadline_ns <= self.mono_ns {
            self.sfu.handle_timeout(now, &mut self.batch);
        }
        self.drain_sfu();
        for index in 0..self.clients.len() {
            if self.client_deadlines[index] <= self.mono_ns {
                let mut doings = Vec::new();
                let instant = self.instant();
                let deadline = self.clients[index].advance(instant, &mut doings);
                self.client_deadlines[index] = nanoseconds(self.anchor, deadline);
                self.perform(index, doings);
            }
        }
        self.begin_messages();
    }

    /// The server gets a datagram.
    fn receive(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        let addresses = Addresses { local: self.server, remote: from, protocol: Protocol::Udp };
        self.sfu.handle_datagram(self.now(), addresses, &mut bytes, &mut self.batch);
    }

    fn perform(&mut self, index: usize, doings: Vec<Doing>) {
        for doing in doings {
            match doing {
                Doing::Send { from, to, bytes } => {
                    self.wire.note_sent(from, to, &bytes);
                    self.network.send(self.mono_ns, from, to, &bytes);
                }
                Doing::Request(request) => {
                    self.order += 1;
                    let peer = self.clients[index].peer;
                    self.to_server.insert((self.mono_ns + SIGNAL_NS, self.order), (peer, request));
                }
                Doing::Packet { ssrc, sequence, timestamp } => {
                    self.trace
                        .push(self.mono_ns, TraceEntry::Packet { client: index, ssrc, sequence, timestamp });
                }
            }
        }
    }

    fn drain_control(&mut self) {
        let now = self.now();
        loop {
            match self.control.poll_output() {
                fanlight_control::Output::ToShard { command, .. } => {
                    self.trace.push(self.mono_ns, TraceEntry::Command(command_name(&command)));
                    self.sfu.handle_command(now, *command);
                    self.sfu_deadline_ns = self.mono_ns;
                }
                fanlight_control::Output::Event(event) => self.event(*event),
                fanlight_control::Output::Drained => {}
                fanlight_control::Output::Timeout(..) => return,
            }
        }
    }

    fn drain_sfu(&mut self) {
        loop {
            match self.sfu.poll_output(&mut self.batch) {
                Output::Signal(peer, signal) => {
                    self.order += 1;
                    self.to_clients.insert((self.mono_ns + SIGNAL_NS, self.order), (peer, *signal));
                }
                Output::Event(event) => self.event(*event),
                Output::Metrics(_) => {}
                Output::Left { peer, .. } => self.control.handle_left(self.now(), peer),
                Output::Active { peer } => self.control.handle_active(peer),
                Output::RoomClosed { room } => self.control.handle_room_closed(self.now(), &room),
                Output::Transmit => self.transmit(),
                Output::Timeout(deadline, _) => {
                    self.sfu_deadline_ns = deadline.ns.max(self.mono_ns + 1);
                    break;
                }
            }
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        for run in self.batch.runs() {
            for packet in run.packets() {
                let (from, to) = (run.addresses.local, run.addresses.remote);
                self.wire.note_sent(from, to, packet);
                self.network.send(self.mono_ns, from, to, packet);
            }
        }
        self.batch.clear();
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Fact(fact) => {
                let text = format!("{} {} {}", fact.body.name(), fact.room, fact.participant);
                self.trace.push(self.mono_ns, TraceEntry::Event(text));
            }
            Event::Sample(sample) => {
                let SampleBody::Track(counters) = sample.body;
                if counters.last {
                    self.counted.push((sample.participant, counters));
                }
            }
            // The SFU says nothing of TURN.
            Event::Turn(..) => {}
        }
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.mono_ns, unix_ns: START_UNIX_NS + self.mono_ns }
    }

    fn instant(&self) -> Instant {
        self.anchor + Duration::from_nanos(self.mono_ns)
    }
}

fn due<T>(queue: &mut BTreeMap<(u64, u64), T>, now_ns: u64) -> Option<T> {
    let entry = queue.first_entry()?;
    (entry.key().0 <= now_ns).then(|| entry.remove())
}

fn command_name(command: &Command) -> String {
    match command {
        Command::CreateRoom(_) => "create_room".into(),
        Command::CloseRoom { .. } => "close_room".into(),
        Command::Join(join) => format!("join {}", join.identity),
        Command::Request { peer, request } => {
            let name = format!("{request:?}");
            let name = name.split([' ', '(', '{']).next().unwrap_or_default();
            format!("request {} {name}", peer.0)
        }
        Command::Disconnect { peer, .. } => format!("disconnect {}", peer.0),
        Command::SignalClosed { peer } => format!("signal_closed {}", peer.0),
    }
}

fn participant(number: u32) -> Join {
    let permission = Permission {
        can_subscribe: true,
        can_publish: true,
        can_publish_data: true,
        ..Permission::default()
    };
    Join {
        peer: PeerKey(0),
        room: Default::default(),
        sid: Default::default(),
        identity: format!("client-{number}").into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permission,
        kind: ParticipantKind::Standard,
        kind_details: Vec::new(),
        layout: Layout::Dual { subscriber_primary: true },
        protocol: 17,
        client_protocol: 0,
        capabilities: Vec::new(),
        client: Default::default(),
        quirks: Default::default(),
        auto_subscribe: true,
        adaptive_stream: false,
        ice_lite: false,
        add_tracks: Vec::new(),
        publisher_offer: None,
    }
}
