//! The TURN thread on real sockets: what clients speak on them, and that foreign streams are closed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use fanlight_base::{Random, Redacted};
use fanlight_events::Event;
use fanlight_events::turn::TurnInput;
use fanlight_shard::{Clock, ShardOf, TurnError, TurnListen, TurnSockets, TurnThread};
use fanlight_turn::{
    Config, Credentials, NodeAddresses, PeerRules, PortRange, Quotas, RelayAddress, Relays, TurnServer,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything here takes; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(10);
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A Binding request (RFC 8489 §5) without attributes.
const BINDING: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];

struct World {
    thread: TurnThread,
    udp: SocketAddr,
    tcp: SocketAddr,
    tls: SocketAddr,
    events: Receiver<Event>,
    certificate: CertificateDer<'static>,
}

impl World {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["turn.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listen = TurnListen {
            udp: vec![ANYWHERE],
            tcp: vec![ANYWHERE],
            tls: vec![ANYWHERE],
            secured: Some(Arc::new(tls)),
        };
        let sockets = TurnSockets::bind(listen).unwrap();
        let (udp, tcp, tls) = (sockets.udp[0], sockets.tcp[0], sockets.tls[0]);
        let (sender, events) = channel();
        // The store has no room for what comes first: it is to be offered again.
        let refusals = Mutex::new(3);
        let event = Box::new(move |event: &Event| {
            let mut refusals = refusals.lock().unwrap();
            if *refusals > 0 {
                *refusals -= 1;
                return false;
            }
            sender.send(event.clone()).is_ok()
        });
        let server = TurnServer::new(config(), Random::from_seed([3; 32])).unwrap();
        let clock = Clock::new(Instant::now());
        let thread = sockets.start(server, "here".into(), clock, ShardOf::new(), event).unwrap();
        Self { thread, udp, tcp, tls, events, certificate: made.cert.der().clone() }
    }

    fn secured(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("turn.test").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(self.tls))
    }
}

fn config() -> Config {
    let own = Ipv4Addr::LOCALHOST;
    Config {
        realm: "livekit".into(),
        credentials: Credentials {
            participants: Vec::new(),
            static_auth_secret: Some(Redacted::new("north".into())),
        },
        relays: Relays {
            v4: Some(RelayAddress { bind: own, advertised: own }),
            v6: None,
            ports: PortRange { first: 30_000, last: 30_100 },
        },
        peers: PeerRules::default(),
        node: NodeAddresses::default(),
        quotas: Quotas::default(),
        first_id: 1,
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks for a binding and gives the answer: a success with the address we came from.
fn bound(stream: &mut (impl Read + Write)) {
    stream.write_all(&BINDING).unwrap();
    let mut header = [0; 20];
    stream.read_exact(&mut header).unwrap();
    check_header(&header);
    let mut rest = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
    stream.read_exact(&mut rest).unwrap();
}

fn check_header(header: &[u8]) {
    assert_eq!(header[..2], [1, 1], "a Binding success");
    assert_eq!(header[8..20], BINDING[8..], "of this transaction");
}

/// How many bytes come before the other end closes.
fn until_closed(mut stream: impl Read) -> usize {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut rest);
    rest.len()
}

#[test]
fn clients_are_served_over_udp_tcp_and_tls() {
    let world = World::start();
    let socket = UdpSocket::bind(ANYWHERE).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&BINDING, world.udp).unwrap();
    let mut answer = [0; 100];
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from, world.udp);
    check_header(&answer[..len]);

    let mut plain = connect(world.tcp);
    bound(&mut plain);
    bound(&mut plain);
    let mut secured = world.secured();
    bound(&mut secured);
    bound(&mut secured);
    drop((plain, secured));
    assert!(world.thread.stop());
}

#[test]
fn streams_of_something_else_are_closed_at_once() {
    let world = World::start();
    let mut web = connect(world.tcp);
    web.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    assert_eq!(until_closed(&web), 0);
    let mut web = world.secured();
    web.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    web.flush().unwrap();
    assert_eq!(until_closed(&mut web), 0);
    let mut plain = connect(world.tls);
    plain.write_all(&BINDING).unwrap();
    assert!(until_closed(&plain) <= 7, "at most an alert");
    let counters = world.thread.counters.clone();
    assert!(world.thread.stop());
    assert_eq!((counters.snapshot().streams, counters.snapshot().streams_broken), (3, 3));
}

#[test]
fn what_the_store_has_no_room_for_is_offered_again() {
    let world = World::start();
    assert!(world.thread.stop());
    let said: Vec<Event> = world.events.try_iter().collect();
    let started =
        |event: &Event| matches!(event, Event::Turn(_, TurnInput::NodeStarted(node)) if node == "here");
    assert_eq!(said.iter().filter(|event| started(event)).count(), 1, "{said:?}");
}

#[test]
fn tls_without_a_certificate_and_a_taken_port_are_errors_that_name_the_setting() {
    let listen = TurnListen { tls: vec![ANYWHERE], ..TurnListen::default() };
    let error = TurnSockets::bind(listen).map(|_| ()).unwrap_err();
    assert!(matches!(error, TurnError::NoCertificate(_)) && error.to_string().contains("turn.cert_file"));
    let holder = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let listen = TurnListen { tcp: vec![holder.local_addr().unwrap()], ..TurnListen::default() };
    let error = TurnSockets::bind(listen).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("turn.udp_port"), "{error}");
}
