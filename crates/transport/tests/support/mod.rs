//! Two ends of a connection over a network in virtual time: our transport against `str0m`, or against itself.

#![allow(dead_code, reason = "every test binary uses another part")]
#![allow(unreachable_pub, reason = "shared by test binaries, which export nothing")]

use fanlight_base::{Addresses, Mono, Now, Protocol, Random, Redacted, SendBatch};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::{
    Certificate, ClockAnchor, DtlsRole, Received, RemoteParameters, RemoteSet, Setup, Transport,
    TransportConfig, TransportEvent,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::channel::ChannelId;
use str0m::media::{MediaKind, Mid};
use str0m::net::{Protocol as StrProtocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, SeqNo, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

pub const DELAY: Duration = Duration::from_millis(10);
pub const CLIENT_SSRC: u32 = 0x1000;
pub const SERVER_SSRC: u32 = 0x2000;

pub fn server_address() -> SocketAddr {
    ([10, 0, 0, 1], 7882).into()
}

pub fn client_address() -> SocketAddr {
    ([10, 0, 0, 2], 50_000).into()
}

/// What our transport told.
pub struct Ours {
    pub transport: Transport,
    pub events: Vec<TransportEvent>,
    pub rtp: Vec<(u64, Vec<u8>)>,
    pub rtcp: Vec<Vec<u8>>,
    batch: SendBatch,
}

/// What `str0m` told.
pub struct Theirs {
    pub rtc: Rtc,
    pub rtp: Vec<RtpPacket>,
    pub channels: Vec<(ChannelId, String)>,
    pub data: Vec<(ChannelId, bool, Vec<u8>)>,
    pub closed_channels: usize,
    pub mid: Mid,
    next_timeout: Instant,
}

pub struct Packet {
    /// Seen by the receiver.
    pub addresses: Addresses,
    pub bytes: Vec<u8>,
}

type Filter = Box<dyn FnMut(usize, &Packet) -> bool>;

/// Server 0 and client 1 (either ours or theirs).
pub struct World {
    pub now: Now,
    pub anchor: ClockAnchor,
    pub server: Ours,
    pub client: Client,
    /// Decides whether a packet to node n arrives.
    pub filter: Filter,
    queue: BTreeMap<(u64, u64), (usize, Packet)>,
    sent: u64,
    from_server: u64,
}

#[allow(clippy::large_enum_variant, reason = "one per test")]
pub enum Client {
    Ours(Ours),
    Theirs(Theirs),
}

#[derive(Clone, Copy)]
pub struct Options {
    pub lite: bool,
    pub role: DtlsRole,
    /// `str0m`, or our own transport.
    pub foreign: bool,
    pub server_offers: bool,
    pub candidates_to_server: bool,
    /// How the foreign client reaches the server.
    pub protocol: Protocol,
    /// Makes the certificate of each end that is ours.
    pub certificate: fn() -> Certificate,
}

fn small_certificate() -> Certificate {
    Certificate::generate().expect("a certificate")
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lite: false,
            role: DtlsRole::Passive,
            foreign: true,
            server_offers: false,
            candidates_to_server: true,
            protocol: Protocol::Udp,
            certificate: small_certificate,
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made without the clock; its value is arbitrary"
)]
pub fn anchor() -> ClockAnchor {
    ClockAnchor::new(Instant::now(), Mono { ns: 0 })
}

impl Ours {
    pub fn new(anchor: ClockAnchor, seed: u8, options: Options, address: SocketAddr) -> Self {
        let config = TransportConfig {
            anchor,
            shard: 0,
            ice_lite: options.lite,
            offerer: options.server_offers,
            role: options.role,
            certificate: (options.certificate)(),
        };
        let mut transport = Transport::new(config, &mut Random::from_seed([seed; 32]));
        assert!(transport.add_local_candidate(LocalCandidate::new(address, options.protocol)));
        Self { transport, events: Vec::new(), rtp: Vec::new(), rtcp: Vec::new(), batch: SendBatch::new() }
    }

    pub fn parameters(&self, setup: Setup) -> RemoteParameters {
        RemoteParameters {
            ufrag: self.transport.local_ufrag().to_owned(),
            password: Redacted::new(self.transport.local_password().to_owned()),
            fingerprint: self.transport.fingerprint().clone(),
            setup,
        }
    }

    pub fn count(&self, wanted: impl Fn(&TransportEvent) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }

    fn receive(&mut self, now: Now, packet: &mut Packet) {
        match self.transport.handle_datagram(now, packet.addresses, &mut packet.bytes, &mut self.batch) {
            Received::Rtp(rtp) => self.rtp.push((rtp.extended_sequence, rtp.packet.to_vec())),
            Received::Rtcp(rtcp) => self.rtcp.push(rtcp.to_vec()),
            Received::Check | Received::Nothing(_) => {}
        }
    }

    fn drain(&mut self) -> Vec<Packet> {
        while let Some(event) = self.transport.poll_event() {
            self.events.push(event);
        }
        let mut packets = Vec::new();
        for run in self.batch.runs() {
            packets.extend(
                run.packets().map(|bytes| Packet { addresses: run.addresses, bytes: bytes.to_vec() }),
            );
        }
        self.batch.clear();
        packets
    }
}

impl Theirs {
    fn new(start: Instant, protocol: Protocol) -> Self {
        let mut rtc = RtcConfig::new().set_rtp_mode(true).build(start);
        rtc.add_local_candidate(candidate(client_address(), protocol)).expect("added");
        let mid: Mid = "0".into();
        let mut direct = rtc.direct_api();
        direct.set_ice_controlling(true);
        direct.declare_media(mid, MediaKind::Audio);
        direct.declare_stream_tx(CLIENT_SSRC.into(), None, mid, None);
        direct.expect_stream_rx(SERVER_SSRC.into(), None, mid, None);
        Self {
            rtc,
            rtp: Vec::new(),
            channels: Vec::new(),
            data: Vec::new(),
            closed_channels: 0,
            mid,
            next_timeout: start,
        }
    }

    pub fn parameters(&mut self, setup: Setup) -> RemoteParameters {
        let direct = self.rtc.direct_api();
        let creds = direct.local_ice_credentials();
        let fingerprint = direct.local_dtls_fingerprint().to_string();
        RemoteParameters {
            ufrag: creds.ufrag,
            password: Redacted::new(creds.pass),
            fingerprint: fingerprint.parse_fingerprint(),
            setup,
        }
    }

    pub fn take(&mut self, parameters: &RemoteParameters) {
        let fingerprint = parameters.fingerprint.to_string().parse().expect("a fingerprint");
        let mut direct = self.rtc.direct_api();
        direct.set_remote_ice_credentials(IceCreds {
            ufrag: parameters.ufrag.clone(),
            pass: parameters.password.reveal().clone(),
        });
        direct.set_remote_fingerprint(fingerprint);
    }

    pub fn write(&mut self, now: Instant, sequence: u64, payload: &[u8]) {
        let rtp =
            RtpWrite::new(111.into(), SeqNo::from(sequence), 960 * sequence as u32, now, payload.to_vec());
        let ssrc: Ssrc = CLIENT_SSRC.into();
        self.rtc.direct_api().stream_tx(&ssrc).expect("declared").write_rtp(rtp);
        self.rtc.handle_input(Input::Timeout(now)).expect("alive");
    }

    fn drain(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while self.rtc.is_alive() {
            match self.rtc.poll_output().expect("alive") {
                Output::Timeout(at) => {
                    self.next_timeout = at;
                    break;
                }
                Output::Transmit(transmit) => packets.push(Packet {
                    addresses: Addresses {
                        local: transmit.source,
                        remote: transmit.destination,
                        protocol: match transmit.proto {
                            StrProtocol::Udp => Protocol::Udp,
                            _ => Protocol::Tcp,
                        },
                    },
                    bytes: transmit.contents.to_vec(),
                }),
                Output::Event(Event::RtpPacket(packet)) => self.rtp.push(packet),
                Output::Event(Event::ChannelOpen(id, label)) => self.channels.push((id, label)),
                Output::Event(Event::ChannelData(data)) => self.data.push((data.id, data.binary, data.data)),
                Output::Event(Event::ChannelClose(_)) => self.closed_channels += 1,
                Output::Event(_) => {}
            }
        }
        packets
    }
}

/// `str0m` prints its fingerprint as ours is parsed.
trait ParseFingerprint {
    fn parse_fingerprint(&self) -> fanlight_transport::Fingerprint;
}

impl ParseFingerprint for String {
    fn parse_fingerprint(&self) -> fanlight_transport::Fingerprint {
        fanlight_transport::Fingerprint::parse(self).expect("a fingerprint")
    }
}

impl World {
    /// Both ends made and told about each other; nothing sent yet.
    pub fn new(options: Options) -> Self {
        let anchor = anchor();
        let now = Now { mono_ns: 1_000_000_000, unix_ns: 1_700_000_000_000_000_000 };
        let mut server = Ours::new(anchor, 1, options, server_address());
        let client_is_active = options.role == DtlsRole::Passive;
        let client_setup = if client_is_active { Setup::Active } else { Setup::Passive };
        let client = if options.foreign {
            let mut theirs = Theirs::new(anchor.instant(now), options.protocol);
            theirs.take(&server.parameters(Setup::ActPass));
            theirs.rtc.direct_api().set_ice_controlling(!options.server_offers || options.lite);
            theirs.rtc.add_remote_candidate(candidate(server_address(), options.protocol));
            let remote = theirs.parameters(client_setup);
            assert_eq!(server.transport.set_remote(now, &remote), Ok(RemoteSet::Started));
            theirs.rtc.direct_api().start_dtls(client_is_active).expect("DTLS starts");
            theirs.rtc.direct_api().start_sctp(client_is_active);
            Client::Theirs(theirs)
        } else {
            let client_role = if client_is_active { DtlsRole::Active } else { DtlsRole::Passive };
            let other =
                Options { lite: false, role: client_role, server_offers: !options.server_offers, ..options };
            let mut ours = Ours::new(anchor, 2, other, client_address());
            let remote = ours.parameters(client_setup);
            assert_eq!(server.transport.set_remote(now, &remote), Ok(RemoteSet::Started));
            let remote = server.parameters(Setup::ActPass);
            assert_eq!(ours.transport.set_remote(now, &remote), Ok(RemoteSet::Started));
            ours.transport.add_remote_candidate(now, &candidate_line(server_address())).expect("taken");
            Client::Ours(ours)
        };
        if options.candidates_to_server && options.protocol == Protocol::Udp {
            server.transport.add_remote_candidate(now, &candidate_line(client_address())).expect("taken");
        }
        let mut world = Self {
            now,
            anchor,
            server,
            client,
            filter: Box::new(|_, _| true),
            queue: BTreeMap::new(),
            sent: 0,
            from_server: 0,
        };
        world.collect();
        world
    }

    pub fn connected(options: Options) -> Self {
        let mut world = Self::new(options);
        world.run_until(Duration::from_secs(10), |world| world.is_connected());
        world
    }

    pub fn is_connected(&self) -> bool {
        let other = match &self.client {
            Client::Ours(ours) => ours.transport.is_connected(),
            Client::Theirs(theirs) => theirs.rtc.is_connected(),
        };
        self.server.transport.is_connected() && other
    }

    pub fn theirs(&mut self) -> &mut Theirs {
        match &mut self.client {
            Client::Theirs(theirs) => theirs,
            Client::Ours(_) => panic!("the client is ours"),
        }
    }

    pub fn ours(&mut self) -> &mut Ours {
        match &mut self.client {
            Client::Ours(ours) => ours,
            Client::Theirs(_) => panic!("the client is theirs"),
        }
    }

    pub fn instant(&self) -> Instant {
        self.anchor.instant(self.now)
    }

    /// Calls the server with the batch that leaves afterwards.
    pub fn with_server<T>(&mut self, call: impl FnOnce(&mut Transport, Now, &mut SendBatch) -> T) -> T {
        let result = call(&mut self.server.transport, self.now, &mut self.server.batch);
        self.collect();
        result
    }

    pub fn with_client<T>(&mut self, call: impl FnOnce(&mut Transport, Now, &mut SendBatch) -> T) -> T {
        let now = self.now;
        let ours = self.ours();
        let result = call(&mut ours.transport, now, &mut ours.batch);
        self.collect();
        result
    }

    /// Datagrams the server has sent so far.
    pub fn server_datagrams(&self) -> u64 {
        self.from_server
    }

    /// Puts bytes on the way to the server.
    pub fn inject(&mut self, from: SocketAddr, bytes: &[u8]) {
        let addresses = Addresses { local: server_address(), remote: from, protocol: Protocol::Udp };
        self.queue.insert((self.now.mono_ns, self.sent), (0, Packet { addresses, bytes: bytes.to_vec() }));
        self.sent += 1;
    }

    /// Runs until the condition holds; panics when it does not within `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let begin = self.now.mono_ns;
        let end = begin + limit.as_nanos() as u64;
        while !done(self) {
            assert!(self.step(end), "not done after {limit:?}: {:?}", self.server.events);
        }
        Duration::from_nanos(self.now.mono_ns - begin)
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.mono_ns + time.as_nanos() as u64;
        while self.step(end) {}
        self.advance(end);
    }

    /// Does what is due next, if that is before `end`.
    fn step(&mut self, end: u64) -> bool {
        let server_due = self.server.transport.poll_timeout().0.ns;
        let client_due = match &self.client {
            Client::Ours(ours) => ours.transport.poll_timeout().0.ns,
            Client::Theirs(theirs) => self.anchor.mono(theirs.next_timeout).ns,
        };
        let packet_due = self.queue.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        let due = server_due.min(client_due).min(packet_due);
        if due > end {
            return false;
        }
        self.advance(due);
        if packet_due <= due {
            if let Some((_, (node, packet))) = self.queue.pop_first() {
                self.deliver(node, packet);
            }
        } else if server_due <= due {
            self.server.transport.handle_timeout(self.now, &mut self.server.batch);
        } else {
            match &mut self.client {
                Client::Ours(ours) => ours.transport.handle_timeout(self.now, &mut ours.batch),
                Client::Theirs(theirs) => {
                    theirs.rtc.handle_input(Input::Timeout(self.anchor.instant(self.now))).expect("alive");
                }
            }
        }
        self.collect();
        true
    }

    fn deliver(&mut self, node: usize, mut packet: Packet) {
        if !(self.filter)(node, &packet) {
            return;
        }
        match (node, &mut self.client) {
            (0, _) => self.server.receive(self.now, &mut packet),
            (_, Client::Ours(ours)) => ours.receive(self.now, &mut packet),
            (_, Client::Theirs(theirs)) => {
                let Addresses { local, remote, protocol } = packet.addresses;
                let receive = Receive::new(foreign_protocol(protocol), remote, local, &packet.bytes)
                    .expect("known protocol");
                theirs
                    .rtc
                    .handle_input(Input::Receive(self.anchor.instant(self.now), receive))
                    .expect("accepted");
            }
        }
    }

    /// Takes what both ends sent.
    pub fn collect(&mut self) {
        let from_server = self.server.drain();
        let from_client = match &mut self.client {
            Client::Ours(ours) => ours.drain(),
            Client::Theirs(theirs) => theirs.drain(),
        };
        self.from_server += from_server.len() as u64;
        for (node, packets) in [(1, from_server), (0, from_client)] {
            for Packet { addresses: Addresses { local, remote, protocol }, bytes } in packets {
                let known = if node == 0 { remote == server_address() } else { true };
                if known {
                    let addresses = Addresses { local: remote, remote: local, protocol };
                    let at = self.now.mono_ns + DELAY.as_nanos() as u64;
                    self.queue.insert((at, self.sent), (node, Packet { addresses, bytes }));
                    self.sent += 1;
                }
            }
        }
    }

    fn advance(&mut self, to_ns: u64) {
        let step = to_ns.saturating_sub(self.now.mono_ns);
        self.now = Now { mono_ns: self.now.mono_ns + step, unix_ns: self.now.unix_ns + step };
    }
}

pub fn candidate(address: SocketAddr, protocol: Protocol) -> Candidate {
    Candidate::host(address, foreign_protocol(protocol)).expect("a candidate")
}

const fn foreign_protocol(protocol: Protocol) -> StrProtocol {
    match protocol {
        Protocol::Udp => StrProtocol::Udp,
        Protocol::Tcp => StrProtocol::Tcp,
    }
}

pub fn candidate_line(address: SocketAddr) -> String {
    format!("candidate:1 1 udp 2122260223 {} {} typ host generation 0", address.ip(), address.port())
}

/// An RTP header of `ssrc` with a transport-wide sequence number (id 3) and abs-send-time (id 2).
pub fn header(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut header = vec![0x90, 111];
    header.extend(sequence.to_be_bytes());
    header.extend((u32::from(sequence) * 960).to_be_bytes());
    header.extend(ssrc.to_be_bytes());
    header.extend([0xbe, 0xde, 0, 2, 0x31, 0, 0, 0x22, 0, 0, 0, 0]);
    header
}

pub const TRANSPORT_CC_AT: usize = 17;
pub const ABS_SEND_TIME_AT: usize = 20;
