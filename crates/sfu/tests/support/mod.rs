//! An SFU and its clients in virtual time. The clients' lower half is `str0m`, so that real handshakes and sealed packets
//! pass; what they say in SDP is written here.

#![allow(dead_code, unreachable_pub, reason = "a module of every test binary, and each uses another part")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod client;
mod lower;
mod sdp;

pub use client::{Client, Section};

use fanlight_base::{Addresses, Mono, Now, PeerKey, Protocol, Redacted, SendBatch, TrackSid};
use fanlight_events::{ClientFacts, Event, FactBody, Kind};
use fanlight_sfu::envelope::{BadEnvelope, DataEnvelope, Routed, Sender};
use fanlight_sfu::input::{AddTrack, Command, Join, Layout, Quirks, Request};
use fanlight_sfu::model::{ParticipantInfo, ParticipantKind, Permission, RoomConfig, Source};
use fanlight_sfu::output::{Output, Signal, Why};
use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::{Certificate, ClockAnchor};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(2);
/// More steps than any test needs: a timer that does not advance would never end.
const STEPS_MAX: usize = 400_000;

pub struct World {
    pub now: Now,
    pub sfu: Sfu,
    pub anchor: ClockAnchor,
    pub clients: BTreeMap<PeerKey, Client>,
    /// Everything that was said, in order.
    pub log: Vec<Said>,
    deadline: Mono,
    batch: SendBatch,
    queue: BTreeMap<(Mono, u64), (bool, Addresses, Vec<u8>)>,
    sent: u64,
    /// Nothing passes.
    pub cut: bool,
    /// Clients' connectivity checks do not pass, but their answers do.
    pub checks_cut: bool,
}

#[derive(Debug)]
pub enum Said {
    Signal(PeerKey, Signal),
    Event(Box<Event>),
    Other(Output),
}

#[allow(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made without the clock; its value is arbitrary"
)]
fn anchor() -> ClockAnchor {
    ClockAnchor::new(Instant::now(), Mono { ns: 0 })
}

pub fn server() -> SocketAddr {
    ([10, 0, 0, 1], 7882).into()
}

/// `to,to|text`: the receivers get `sender:text`; after `metrics ` it is a batch of metrics.
fn route(bytes: &[u8], sender: &Sender<'_>) -> Result<Routed, BadEnvelope> {
    let text = std::str::from_utf8(bytes).map_err(|_| BadEnvelope)?;
    let (to, text) = text.split_once('|').ok_or(BadEnvelope)?;
    assert_ne!(text, "panic", "as asked");
    Ok(Routed {
        bytes: format!("{}:{text}", sender.identity).into_bytes(),
        destinations: to.split(',').filter(|name| !name.is_empty()).map(Into::into).collect(),
        destination_sids: Vec::new(),
        sequence: 0,
        metrics: text.strip_prefix("metrics ").map(|batch| batch.as_bytes().to_vec()),
    })
}

/// A participant in other words.
fn encode_info(info: &ParticipantInfo) -> Vec<u8> {
    format!("{} {}", info.sid, info.version).into_bytes()
}

impl World {
    pub fn new() -> Self {
        let anchor = anchor();
        let config = SfuConfig {
            shard: 0,
            seed: [7; 32],
            certificate: Certificate::generate().expect("a certificate"),
            anchor,
            candidates: vec![
                LocalCandidate::new(server(), Protocol::Udp),
                LocalCandidate::new(([10, 0, 0, 1], 7881).into(), Protocol::Tcp),
            ],
            texts: TextLimits::default(),
            envelope: DataEnvelope { route },
            encode_info,
        };
        let mut world = Self {
            now: Now { mono_ns: 1_000_000_000, unix_ns: 1_795_000_000_000_000_000 },
            sfu: Sfu::new(config),
            anchor,
            clients: BTreeMap::new(),
            log: Vec::new(),
            deadline: Mono::NEVER,
            batch: SendBatch::new(),
            queue: BTreeMap::new(),
            sent: 0,
            cut: false,
            checks_cut: false,
        };
        world.create("RM_a");
        world
    }

    pub fn create(&mut self, sid: &str) {
        self.command(Command::CreateRoom(Box::new(RoomConfig {
            sid: sid.into(),
            name: format!("name of {sid}").into(),
            empty_timeout_s: 300,
            departure_timeout_s: 20,
            max_participants: 0,
            created_ms: self.now.unix_ms(),
            turn_password: Redacted::new("p".repeat(43)),
            sif_trailer: "s".repeat(43),
            enabled_codecs: ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"]
                .map(String::from)
                .to_vec(),
            metadata: String::new(),
        })));
    }

    /// A command and everything that follows at once.
    pub fn command(&mut self, command: Command) {
        self.sfu.handle_command(self.now, command);
        self.pump();
    }

    pub fn request(&mut self, peer: u64, request: Request) {
        self.command(Command::Request { peer: PeerKey(peer), request });
    }

    /// Joins with a client that answers by itself.
    pub fn join(&mut self, peer: u64, layout: Layout) {
        self.join_with(join(peer, "RM_a", layout));
    }

    pub fn join_with(&mut self, join: Join) {
        let client = Client::new(join.peer, join.layout, self.anchor);
        self.join_as(client, join);
    }

    /// Joins with a client that has the addresses of another.
    pub fn join_at(&mut self, host: u8, join: Join) {
        let mut client = Client::new(join.peer, join.layout, self.anchor);
        client.host = host;
        self.join_as(client, join);
    }

    fn join_as(&mut self, mut client: Client, mut join: Join) {
        let key = join.peer;
        if join.layout == Layout::Single {
            join.publisher_offer = Some((1, Box::new(client.offer(self.now))));
        }
        self.clients.insert(key, client);
        self.command(Command::Join(Box::new(join)));
    }

    /// Announces a track and offers its section.
    pub fn publish(&mut self, peer: u64, kind: Kind, source: Source) -> TrackSid {
        self.publish_track(peer, add_track(&format!("cid-{peer}-{}", source.as_str()), kind, source), &[])
    }

    pub fn publish_track(&mut self, peer: u64, request: AddTrack, rids: &'static [&'static str]) -> TrackSid {
        let (cid, kind) = (request.cid.clone(), request.kind);
        self.request(peer, Request::AddTrack(Box::new(request)));
        let sid = self.signals(peer).find_map(|signal| match signal {
            Signal::TrackPublished { cid: of, track } if *of == cid => Some(track.sid.clone()),
            _ => None,
        });
        let client = self.clients.get_mut(&PeerKey(peer)).expect("a client");
        client.sections.push(Section { rids, ..Section::sending(kind, cid) });
        self.offer(peer);
        sid.expect("it is published")
    }

    pub fn offer(&mut self, peer: u64) {
        let sdp = Box::new(self.clients.get_mut(&PeerKey(peer)).expect("a client").offer(self.now));
        self.request(peer, Request::Offer { id: 9, sdp });
    }

    pub fn signals(&self, peer: u64) -> impl Iterator<Item = &Signal> {
        self.log.iter().filter_map(move |said| match said {
            Said::Signal(to, signal) if *to == PeerKey(peer) => Some(signal),
            _ => None,
        })
    }

    pub fn facts(&self) -> impl Iterator<Item = &FactBody> {
        self.log.iter().filter_map(|said| match said {
            Said::Event(event) => match &**event {
                Event::Fact(fact) => Some(&fact.body),
                Event::Sample(_) | Event::Turn(..) => None,
            },
            _ => None,
        })
    }

    pub fn fact_names(&self) -> Vec<&'static str> {
        self.facts().map(FactBody::name).collect()
    }

    pub fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.log.iter().filter_map(|said| match said {
            Said::Other(output) => Some(output),
            _ => None,
        })
    }

    pub fn client(&mut self, peer: u64) -> &mut Client {
        self.clients.get_mut(&PeerKey(peer)).expect("a client")
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now.mono() + duration;
        for _ in 0..STEPS_MAX {
            self.pump();
            let clients = self.clients.values().map(Client::deadline).min().unwrap_or(Mono::NEVER);
            let packets = self.queue.keys().next().map_or(Mono::NEVER, |(at, _)| *at);
            let next = self.deadline.min(clients).min(packets);
            if next > end {
                self.advance(end);
                return;
            }
            self.advance(next.max(self.now.mono()));
            self.step();
        }
        panic!("time does not pass");
    }

    fn advance(&mut self, to: Mono) {
        let by = to.ns - self.now.mono_ns;
        self.now = Now { mono_ns: to.ns, unix_ns: self.now.unix_ns + by };
    }

    fn step(&mut self) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now.mono()) {
            let (to_server, addresses, mut bytes) = entry.remove();
            if to_server {
                self.sfu.handle_datagram(self.now, addresses, &mut bytes, &mut self.batch);
            } else if let Some(client) = self.clients.values_mut().find(|client| client.owns(addresses.local))
            {
                client.receive(self.now, addresses, &bytes);
            }
        }
        if self.deadline <= self.now.mono() {
            self.sfu.handle_timeout(self.now, &mut self.batch);
        }
        for client in self.clients.values_mut() {
            client.tick(self.now);
        }
    }

    /// Drains everybody until nothing more comes at this moment.
    pub fn pump(&mut self) {
        loop {
            let mut requests = Vec::new();
            loop {
                match self.sfu.poll_output(&mut self.batch) {
                    Output::Timeout(at, why) => {
                        assert!(at != Mono::NEVER || why == Why::Idle);
                        self.deadline = at;
                        break;
                    }
                    Output::Signal(peer, signal) => {
                        if let Some(client) = self.clients.get_mut(&peer) {
                            requests.extend(
                                client.hear(self.now, &signal).into_iter().map(|request| (peer, request)),
                            );
                        }
                        self.log.push(Said::Signal(peer, *signal));
                    }
                    Output::Event(event) => self.log.push(Said::Event(event)),
                    other => self.log.push(Said::Other(other)),
                }
            }
            self.send();
            if requests.is_empty() {
                return;
            }
            for (peer, request) in requests {
                self.sfu.handle_command(self.now, Command::Request { peer, request });
            }
        }
    }

    fn send(&mut self) {
        let at = self.now.mono() + DELAY;
        for run in self.batch.runs() {
            let addresses = swap(run.addresses);
            for packet in run.packets().filter(|_| !self.cut) {
                self.sent += 1;
                self.queue.insert((at, self.sent), (false, addresses, packet.to_vec()));
            }
        }
        self.batch.clear();
        for client in self.clients.values_mut() {
            for (addresses, packet) in client.take_packets() {
                let cut = self.cut || (self.checks_cut && packet.starts_with(&[0, 1]));
                if !cut {
                    self.sent += 1;
                    self.queue.insert((at, self.sent), (true, swap(addresses), packet));
                }
            }
        }
    }
}

fn swap(addresses: Addresses) -> Addresses {
    Addresses { local: addresses.remote, remote: addresses.local, protocol: addresses.protocol }
}

pub const DUAL: Layout = Layout::Dual { subscriber_primary: true };

pub fn join(peer: u64, room: &str, layout: Layout) -> Join {
    Join {
        peer: PeerKey(peer),
        room: room.into(),
        sid: format!("PA_{peer}").into(),
        identity: format!("user{peer}").into(),
        name: format!("User {peer}"),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permission: Permission {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_update_metadata: true,
            ..Permission::default()
        },
        kind: ParticipantKind::Standard,
        kind_details: Vec::new(),
        layout,
        protocol: 17,
        client_protocol: 2,
        capabilities: vec![2],
        client: ClientFacts::default(),
        quirks: Quirks::default(),
        auto_subscribe: true,
        adaptive_stream: false,
        ice_lite: false,
        add_tracks: Vec::new(),
        publisher_offer: None,
    }
}

pub fn add_track(cid: &str, kind: Kind, source: Source) -> AddTrack {
    AddTrack { name: format!("name of {cid}"), ..AddTrack::new(cid.to_owned(), kind, source) }
}
