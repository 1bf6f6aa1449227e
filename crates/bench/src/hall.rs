//! One room in this process: an `Sfu`, participants on another stack, and a virtual clock between them.

use crate::Failure;
use crate::connection::Said;
use crate::cpu::Stopwatch;
use crate::participant::{News, Participant, Sending};
use crate::payload::Medium;
use fanlight_base::{Addresses, Mono, Now, PeerKey, Protocol, Redacted, RoomSid, SendBatch};
use fanlight_sfu::input::{AddTrack, Command, Join, Layout, Quirks, Request, Target};
use fanlight_sfu::model::{Kind, ParticipantKind, Permission, RoomConfig, Source};
use fanlight_sfu::output::{Output, Signal};
use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::negotiate::RemoteDescription;
use fanlight_transport::{Certificate, ClockAnchor};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

/// One way between server and clients, and the step of the clock while a room is being set up.
const STEP: Duration = Duration::from_millis(5);
/// A set-up that takes longer than this in virtual time has failed.
const SETUP_MAX: Duration = Duration::from_secs(30);
const START_UNIX_NS: u64 = 1_800_000_000_000_000_000;

/// A datagram on its way to the server.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// Which connection of which participant has an address.
#[derive(Debug, Clone, Copy)]
struct Place {
    participant: usize,
    target: Target,
}

/// What a participant is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Publishes so many tracks and receives nothing.
    Publisher { tracks: usize },
    /// Receives everything.
    Subscriber,
    /// Receives everything over the one connection of signalling v1, on which it has offered data channels only.
    Single,
}

pub(crate) struct Hall {
    pub(crate) participants: Vec<Participant>,
    /// Time spent in the server's core.
    pub(crate) watch: Stopwatch,
    /// Receivers send no RTCP: in a measurement they get samples of the packets only, and would ask for the rest.
    pub(crate) quiet: bool,
    pub(crate) server: SocketAddr,
    /// Offers of tracks are kept for [`Hall::take_held`].
    pub(crate) holds_offers: bool,
    sfu: Sfu,
    batch: SendBatch,
    anchor: Instant,
    now_ns: u64,
    deadline: Mono,
    medium: Medium,
    places: FxHashMap<SocketAddr, Place>,
    to_server: Vec<Datagram>,
    to_clients: Vec<(SocketAddr, Vec<u8>)>,
    requests: Vec<(PeerKey, Request)>,
    signals: Vec<(PeerKey, Signal)>,
    held: Vec<(PeerKey, Signal)>,
    active: usize,
}

impl Hall {
    pub(crate) fn new(medium: Medium) -> Result<Self, Failure> {
        Self::in_room(medium, room())
    }

    pub(crate) fn in_room(medium: Medium, room: RoomConfig) -> Result<Self, Failure> {
        let anchor = Instant::now();
        let server = SocketAddr::from(([10, 0, 0, 1], 7882));
        let sfu = Sfu::new(sfu_config(anchor, server)?);
        let mut hall = Self {
            participants: Vec::new(),
            watch: Stopwatch::new(),
            quiet: false,
            server,
            holds_offers: false,
            sfu,
            batch: SendBatch::new(),
            anchor,
            now_ns: 0,
            deadline: Mono::NEVER,
            medium,
            places: FxHashMap::default(),
            to_server: Vec::new(),
            to_clients: Vec::new(),
            requests: Vec::new(),
            signals: Vec::new(),
            held: Vec::new(),
            active: 0,
        };
        hall.command(Command::CreateRoom(Box::new(room)));
        Ok(hall)
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono_ns: self.now_ns, unix_ns: START_UNIX_NS + self.now_ns }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.anchor + Duration::from_nanos(self.now_ns)
    }

    pub(crate) fn set_time(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// Lets a participant in; [`Hall::settle`] makes it so.
    pub(crate) fn join(&mut self, role: Role) -> Result<(), Failure> {
        let number = self.participants.len();
        let peer = PeerKey(number as u64);
        let host = u32::from_be_bytes([10, 1, 0, 0]) + number as u32;
        let address = |port| SocketAddr::from((std::net::Ipv4Addr::from_bits(host), port));
        let (publishes, single) = (!matches!(role, Role::Subscriber), role == Role::Single);
        let subscribes = !matches!(role, Role::Publisher { .. });
        let (publisher, subscriber) =
            (publishes.then(|| address(4000)), (subscribes && !single).then(|| address(4001)));
        for (address, target) in [(publisher, Target::Publisher), (subscriber, Target::Subscriber)] {
            if let Some(address) = address {
                self.places.insert(address, Place { participant: number, target });
            }
        }
        let participant = Participant::new(publisher, subscriber, self.instant())?;
        self.participants.push(participant);
        let mut join = join(number, subscribes);
        if single {
            join.layout = Layout::Single;
        }
        self.command(Command::Join(Box::new(join)));
        match role {
            Role::Publisher { tracks } => self.publish(number, 0..tracks),
            Role::Subscriber => Ok(()),
            Role::Single => {
                let connection = self.participants.get_mut(number).and_then(|it| it.publisher.as_mut());
                let sdp = connection.ok_or("does not offer")?.offer_channels()?;
                self.offer(peer, &sdp)
            }
        }
    }

    /// Announces and offers these tracks of a participant, which has offered those before them.
    pub(crate) fn publish(&mut self, participant: usize, tracks: Range<usize>) -> Result<(), Failure> {
        let peer = PeerKey(participant as u64);
        let cids: Vec<String> = tracks.map(|track| format!("track-{participant}-{track}")).collect();
        for cid in &cids {
            let request = Request::AddTrack(Box::new(add_track(cid.clone(), self.medium)));
            self.command(Command::Request { peer, request });
        }
        let medium = self.medium;
        let publisher = self.participants.get_mut(participant).and_then(|it| it.publisher.as_mut());
        let sdp = publisher.ok_or("does not publish")?.offer(medium, &cids)?;
        self.offer(peer, &sdp)
    }

    fn offer(&mut self, peer: PeerKey, sdp: &str) -> Result<(), Failure> {
        let sdp = Box::new(RemoteDescription::parse(sdp)?);
        self.command(Command::Request { peer, request: Request::Offer { id: 1, sdp } });
        Ok(())
    }

    /// A request in a turn of its own, timed; what its participant is told at once comes back and nobody heeds it.
    pub(crate) fn send(&mut self, participant: usize, request: Request) -> Vec<Signal> {
        let (peer, before) = (PeerKey(participant as u64), self.signals.len());
        self.command(Command::Request { peer, request });
        let (told, others) = self.signals.split_off(before).into_iter().partition(|(to, _)| *to == peer);
        self.signals.extend::<Vec<_>>(others);
        <Vec<(PeerKey, Signal)>>::into_iter(told).map(|(_, signal)| signal).collect()
    }

    /// What a participant was offered while [`Hall::holds_offers`].
    pub(crate) fn take_held(&mut self, participant: usize) -> Vec<Signal> {
        let peer = PeerKey(participant as u64);
        self.held.extract_if(.., |(to, _)| *to == peer).map(|(_, signal)| signal).collect()
    }

    /// Lets time pass until everybody is connected.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        let end_ns = self.now_ns + SETUP_MAX.as_nanos() as u64;
        while self.now_ns < end_ns {
            self.step()?;
            if self.participants.iter().all(Participant::is_connected) {
                return self.pass(Duration::from_millis(200));
            }
        }
        let missing = self.participants.iter().filter(|it| !it.is_connected()).count();
        Err(format!("{missing} of {} participants did not connect", self.participants.len()).into())
    }

    /// Lets so much time pass.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), Failure> {
        let end_ns = self.now_ns + time.as_nanos() as u64;
        while self.now_ns < end_ns {
            self.step()?;
        }
        Ok(())
    }

    /// One step of the clock: everything under way arrives, everybody answers.
    pub(crate) fn step(&mut self) -> Result<(), Failure> {
        self.now_ns += STEP.as_nanos() as u64;
        let now = self.now();
        for (peer, request) in std::mem::take(&mut self.requests) {
            self.command(Command::Request { peer, request });
        }
        let arrived = std::mem::take(&mut self.to_server);
        self.watch.start();
        for mut datagram in arrived {
            let addresses = self.addresses(datagram.from);
            self.sfu.handle_datagram(now, addresses, &mut datagram.bytes, &mut self.batch);
        }
        if self.deadline <= now.mono() {
            self.sfu.handle_timeout(now, &mut self.batch);
        }
        self.watch.stop();
        self.drain();
        for (to, bytes) in std::mem::take(&mut self.to_clients) {
            self.deliver(to, &bytes)?;
        }
        self.collect();
        for (peer, signal) in std::mem::take(&mut self.signals) {
            self.signal(peer, signal)?;
        }
        self.advance()
    }

    /// Datagrams of clients that are due.
    pub(crate) fn advance(&mut self) -> Result<(), Failure> {
        let (now, quiet) = (self.instant(), self.quiet);
        let to_server = &mut self.to_server;
        for participant in &mut self.participants {
            participant.advance(now, &mut |Sending { from, bytes, .. }| {
                if !(quiet && is_rtcp(&bytes)) {
                    to_server.push(Datagram { from, bytes });
                }
            })?;
        }
        Ok(())
    }

    /// Datagrams of the connections that publish, at a time to come.
    pub(crate) fn advance_publishers(&mut self, at: Instant) -> Result<(), Failure> {
        let to_server = &mut self.to_server;
        for publisher in self.participants.iter_mut().filter_map(|it| it.publisher.as_mut()) {
            let from = publisher.address;
            if publisher.deadline <= at {
                publisher.advance(at, &mut |said| {
                    if let Said::Datagram { bytes, .. } = said {
                        to_server.push(Datagram { from, bytes });
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Takes RTP out of what is under way to the server.
    pub(crate) fn take_rtp(&mut self) -> Vec<Datagram> {
        let (rtp, rest) = std::mem::take(&mut self.to_server).into_iter().partition(|it| is_rtp(&it.bytes));
        self.to_server = rest;
        rtp
    }

    /// One loop turn of the server with these datagrams, timed: fed, time passes, drained. Of each RTP packet that leaves
    /// `sample` says whether it arrives, all else does. How many RTP packets there were comes back.
    pub(crate) fn turn(&mut self, arrived: &mut [Datagram], mut sample: impl FnMut() -> bool) -> u64 {
        let now = self.now();
        let server = self.server;
        self.watch.start();
        for datagram in arrived {
            let addresses = Addresses { local: server, remote: datagram.from, protocol: Protocol::Udp };
            self.sfu.handle_datagram(now, addresses, &mut datagram.bytes, &mut self.batch);
        }
        if self.deadline <= now.mono() {
            self.sfu.handle_timeout(now, &mut self.batch);
        }
        let mut rtp = 0;
        loop {
            let (signals, active) = (&mut self.signals, &mut self.active);
            let drained = drain(&mut self.sfu, &mut self.batch, signals, active);
            self.watch.stop();
            rtp += self.scan(&mut sample);
            match drained {
                Some(deadline) => {
                    self.deadline = deadline;
                    return rtp;
                }
                None => self.watch.start(),
            }
        }
    }

    /// Empties the batch.
    fn scan(&mut self, mut sample: impl FnMut() -> bool) -> u64 {
        let mut rtp = 0;
        for run in self.batch.runs().iter().filter(|run| run.segments() > 0) {
            // Media leaves in runs of its own.
            let media = run.packets().next().is_some_and(is_rtp);
            if media {
                rtp += run.segments() as u64;
            }
            for packet in run.packets() {
                if !media || sample() {
                    self.to_clients.push((run.addresses.remote, packet.to_vec()));
                }
            }
        }
        self.batch.clear();
        rtp
    }

    fn deliver(&mut self, to: SocketAddr, bytes: &[u8]) -> Result<(), Failure> {
        let (now, server) = (self.instant(), self.server);
        let Some(place) = self.places.get(&to) else { return Ok(()) };
        let Some(participant) = self.participants.get_mut(place.participant) else { return Ok(()) };
        let (quiet, to_server) = (self.quiet, &mut self.to_server);
        participant.receive(now, place.target, server, bytes, &mut |Sending { from, bytes, .. }| {
            if !(quiet && is_rtcp(&bytes)) {
                to_server.push(Datagram { from, bytes });
            }
        })
    }

    fn signal(&mut self, peer: PeerKey, signal: Signal) -> Result<(), Failure> {
        if self.holds_offers && matches!(&signal, Signal::Offer { sdp, .. } if sdp.sections() > 1) {
            self.held.push((peer, signal));
            return Ok(());
        }
        let Some(participant) = self.participants.get_mut(peer.0 as usize) else { return Ok(()) };
        if let Some((id, sdp)) = participant.heed(news(signal))? {
            let sdp = Box::new(RemoteDescription::parse(&sdp)?);
            self.requests.push((peer, Request::Answer { id, sdp }));
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        self.watch.start();
        self.sfu.handle_command(now, command);
        self.watch.stop();
        self.drain();
    }

    fn drain(&mut self) {
        self.watch.start();
        let (signals, active) = (&mut self.signals, &mut self.active);
        // Packets stay in the batch until the step ends.
        self.deadline = loop {
            if let Some(deadline) = drain(&mut self.sfu, &mut self.batch, signals, active) {
                break deadline;
            }
        };
        self.watch.stop();
    }

    fn collect(&mut self) {
        for run in self.batch.runs() {
            let to = run.addresses.remote;
            self.to_clients.extend(run.packets().map(|packet| (to, packet.to_vec())));
        }
        self.batch.clear();
    }

    fn addresses(&self, from: SocketAddr) -> Addresses {
        Addresses { local: self.server, remote: from, protocol: Protocol::Udp }
    }
}

/// Empties the core; `None` when it goes on after the batch is sent.
fn drain(
    sfu: &mut Sfu,
    batch: &mut SendBatch,
    signals: &mut Vec<(PeerKey, Signal)>,
    active: &mut usize,
) -> Option<Mono> {
    loop {
        match sfu.poll_output(batch) {
            Output::Signal(peer, signal) => signals.push((peer, *signal)),
            Output::Active { .. } => *active += 1,
            Output::Event(_) | Output::Metrics(_) | Output::Left { .. } | Output::RoomClosed { .. } => {}
            Output::Transmit => return None,
            Output::Timeout(deadline, _) => return Some(deadline),
        }
    }
}

/// What a signal is to a participant.
pub(crate) fn news(signal: Signal) -> News {
    match signal {
        Signal::Joined(_) => News::Joined,
        Signal::Answer { sdp, .. } => News::Answer(sdp.to_string()),
        Signal::Offer { id, sdp, .. } => News::Offer { id, sdp: sdp.to_string() },
        Signal::Trickle { target, candidate, .. } => News::Candidate { target, line: candidate },
        Signal::Leave { reason, .. } => News::Left(format!("{reason:?}")),
        _ => News::Other,
    }
}

/// RFC 7983 and RFC 5761 §4: first byte 128 to 191, and not a type of RTCP in the second.
pub(crate) fn is_rtp(bytes: &[u8]) -> bool {
    matches!(bytes, [128..=191, second, ..] if !(192..=223).contains(second))
}

pub(crate) fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes, [128..=191, 192..=223, ..])
}

/// An SFU with one address and a fixed seed.
pub(crate) fn sfu_config(anchor: Instant, server: SocketAddr) -> Result<SfuConfig, Failure> {
    Ok(SfuConfig {
        shard: 0,
        seed: [1; 32],
        certificate: Certificate::generate()?,
        anchor: ClockAnchor::new(anchor, Mono::default()),
        candidates: vec![LocalCandidate::new(server, Protocol::Udp)],
        texts: TextLimits::default(),
        envelope: fanlight_livekit::data::ENVELOPE,
        encode_info: fanlight_livekit::convert::encode_participant,
    })
}

pub(crate) fn room() -> RoomConfig {
    RoomConfig {
        sid: RoomSid::from("RM_bench"),
        name: "bench".into(),
        empty_timeout_s: 300,
        departure_timeout_s: 20,
        max_participants: 0,
        created_ms: START_UNIX_NS / 1_000_000,
        turn_password: Redacted::new(String::new()),
        sif_trailer: String::new(),
        enabled_codecs: ["video/VP8", "audio/opus"].map(String::from).to_vec(),
        metadata: String::new(),
    }
}

pub(crate) fn join(number: usize, subscribes: bool) -> Join {
    Join {
        peer: PeerKey(number as u64),
        room: RoomSid::from("RM_bench"),
        sid: format!("PA_{number}").into(),
        identity: format!("participant-{number}").into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permission: Permission {
            can_subscribe: subscribes,
            can_publish: true,
            can_publish_data: true,
            ..Permission::default()
        },
        kind: ParticipantKind::Standard,
        kind_details: Vec::new(),
        layout: Layout::Dual { subscriber_primary: subscribes },
        protocol: 17,
        client_protocol: 0,
        capabilities: Vec::new(),
        client: Default::default(),
        quirks: Quirks::default(),
        auto_subscribe: subscribes,
        adaptive_stream: false,
        ice_lite: false,
        add_tracks: Vec::new(),
        publisher_offer: None,
    }
}

pub(crate) fn add_track(cid: String, medium: Medium) -> AddTrack {
    let (kind, source, width, height) = match medium {
        Medium::Video => (Kind::Video, Source::CAMERA, 1280, 720),
        Medium::Audio => (Kind::Audio, Source::MICROPHONE, 0, 0),
    };
    AddTrack { width, height, disable_red: true, ..AddTrack::new(cid, kind, source) }
}
