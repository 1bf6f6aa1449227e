//! ICE-TCP over real sockets: two shards behind one port.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod room;

use fanlight_base::{Mono, PeerKey, Protocol};
use fanlight_sfu::envelope::DataEnvelope;
use fanlight_sfu::input::{Command, Request};
use fanlight_sfu::model::DisconnectReason;
use fanlight_sfu::output::Signal;
use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
use fanlight_shard::{
    Acceptor, Clock, Control, Message, Requested, Shard, ShardHandle, SignalSink, Sinks, bind_udp,
};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::negotiate::RemoteDescription;
use fanlight_transport::negotiate::RemoteTransport;
use fanlight_transport::sdp::SessionDescription;
use fanlight_transport::{Certificate, ClockAnchor, ufrag};
use room::{join, no_data, room_config};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender as Queue, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use str0m::net::{Protocol as StrProtocol, Receive};
use str0m::{Candidate, IceCreds, Input, Output, Rtc, RtcConfig};

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Waiting connections of one address.
const PER_ADDRESS: usize = 64;

#[derive(Debug)]
enum Said {
    Signal(PeerKey, Signal),
    Active { shard: usize, peer: PeerKey },
}

/// Two shards, one port.
struct Server {
    shards: Vec<Shard>,
    acceptor: Acceptor,
    tcp: SocketAddr,
    say: Queue<Said>,
    said: Receiver<Said>,
}

impl Server {
    fn start() -> Self {
        let anchor = Instant::now();
        let handles: Arc<OnceLock<Vec<ShardHandle>>> = Arc::default();
        let found = Arc::clone(&handles);
        let acceptor = Acceptor::start(&[([127, 0, 0, 1], 0).into()], move |name| {
            found.get()?.get(usize::from(ufrag::shard(name)?)).cloned()
        })
        .expect("it listens");
        let tcp = acceptor.addresses[0];
        let (say, said) = channel();
        let certificate = Certificate::generate().expect("a certificate");
        let shards: Vec<Shard> =
            (0..2).map(|shard| start_shard(shard, anchor, tcp, &certificate, &say)).collect();
        handles.set(shards.iter().map(|shard| shard.handle.clone()).collect()).expect("once");
        Self { shards, acceptor, tcp, say, said }
    }

    /// Makes a room on a shard and joins it; the answer is the server's offer on the subscriber connection.
    fn join(&self, shard: usize, peer: PeerKey) -> SessionDescription {
        let handle = &self.shards[shard].handle;
        let room = format!("RM_{shard}");
        handle.send(Message::Command(Command::CreateRoom(Box::new(room_config(&room))))).expect("alive");
        let say = self.say.clone();
        let signals = SignalSink::new(move |signal| say.send(Said::Signal(peer, signal)).is_ok());
        handle.send(Message::Join { join: Box::new(join(peer, &room)), signals }).expect("alive");
        loop {
            match self.said.recv_timeout(PATIENCE).expect("an offer") {
                Said::Signal(to, Signal::Offer { sdp, .. }) if to == peer => {
                    return SessionDescription::parse(&sdp.to_string()).expect("a description");
                }
                _ => {}
            }
        }
    }

    fn stop(self) {
        self.acceptor.stop();
        for shard in self.shards {
            assert!(shard.stop(), "a shard panicked");
        }
    }
}

fn start_shard(
    shard: usize,
    anchor: Instant,
    tcp: SocketAddr,
    certificate: &Certificate,
    say: &Queue<Said>,
) -> Shard {
    let sfu = Sfu::new(SfuConfig {
        shard: u16::try_from(shard).expect("a small number"),
        seed: [u8::try_from(shard).expect("a small number"); 32],
        certificate: certificate.clone(),
        anchor: ClockAnchor::new(anchor, Mono::default()),
        candidates: vec![LocalCandidate::new(tcp, Protocol::Tcp)],
        texts: TextLimits::default(),
        envelope: DataEnvelope { route: no_data },
        encode_info: |_| Vec::new(),
    });
    let notes = say.clone();
    let sinks = Sinks {
        control: Box::new(move |note| {
            if let Control::Active { peer } = note {
                let _ = notes.send(Said::Active { shard, peer });
            }
            Ok(())
        }),
        event: Box::new(|_| true),
        metrics: None,
    };
    let udp = bind_udp(([127, 0, 0, 1], 0).into(), "rtc.udp_port").expect("a socket");
    Shard::start(format!("shard-{shard}"), sfu, Clock::new(anchor), vec![udp], None, sinks)
        .expect("it starts")
}

/// A client whose only way is one TCP connection.
struct Client {
    rtc: Rtc,
    stream: TcpStream,
    server: SocketAddr,
    address: SocketAddr,
    input: Vec<u8>,
    due: Instant,
}

impl Client {
    /// Connects, takes the server's offer and makes the answer.
    fn answer(tcp: SocketAddr, offer: &SessionDescription) -> (Self, RemoteDescription) {
        let stream = TcpStream::connect(tcp).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_millis(5))).expect("set");
        let address = stream.local_addr().expect("bound");
        let mut rtc = RtcConfig::new().build(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "tcp").expect("a candidate")).expect("added");
        rtc.add_remote_candidate(Candidate::host(tcp, "tcp").expect("a candidate"));
        let remote = RemoteTransport::read(offer).expect("usable").parameters;
        let mut direct = rtc.direct_api();
        direct.set_ice_controlling(false);
        let pass = remote.password.reveal().clone();
        direct.set_remote_ice_credentials(IceCreds { ufrag: remote.ufrag, pass });
        direct.set_remote_fingerprint(remote.fingerprint.to_string().parse().expect("a fingerprint"));
        direct.start_dtls(true).expect("DTLS starts");
        direct.start_sctp(true);
        let creds = direct.local_ice_credentials();
        let fingerprint = direct.local_dtls_fingerprint().to_string();
        let answer = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=setup:active\r\na=mid:0\r\n\
             a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:{fingerprint}\r\na=sctp-port:5000\r\n",
            creds.ufrag, creds.pass
        );
        let due = Instant::now();
        let client = Self { rtc, stream, server: tcp, address, input: Vec::new(), due };
        (client, RemoteDescription::parse(&answer).expect("a description"))
    }

    fn turn(&mut self) {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        }
        while let Some((length, rest)) = self.input.split_first_chunk::<2>() {
            let Some(frame) = rest.get(..usize::from(u16::from_be_bytes(*length))) else { break };
            let frame = frame.to_vec();
            self.input.drain(..2 + frame.len());
            let receive = Receive::new(StrProtocol::Tcp, self.server, self.address, &frame).expect("known");
            self.rtc.handle_input(Input::Receive(Instant::now(), receive)).expect("alive");
            self.drain();
        }
        if self.due <= Instant::now() {
            self.rtc.handle_input(Input::Timeout(Instant::now())).expect("alive");
            self.drain();
        }
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().expect("alive") {
                Output::Timeout(due) => {
                    self.due = due;
                    return;
                }
                Output::Transmit(transmit) => {
                    assert_eq!((transmit.proto, transmit.destination), (StrProtocol::Tcp, self.server));
                    self.stream.write_all(&framed(&transmit.contents)).expect("written");
                }
                Output::Event(_) => {}
            }
        }
    }
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&u16::try_from(packet.len()).expect("a short packet").to_be_bytes(), packet].concat()
}

/// A framed binding request for this ufrag, without integrity.
fn check(ufrag: &str) -> Vec<u8> {
    let mut username = format!("{ufrag}:them").into_bytes();
    let length = u16::try_from(username.len()).expect("short");
    username.resize(username.len().next_multiple_of(4), 0);
    let attributes = u16::try_from(username.len() + 4).expect("short");
    let mut message = [&[0, 1][..], &attributes.to_be_bytes(), &[0x21, 0x12, 0xa4, 0x42], &[7; 12]].concat();
    message.extend([&[0, 6][..], &length.to_be_bytes(), &username].concat());
    framed(&message)
}

/// Whether the server closes the connection without a word.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn send(tcp: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(tcp).expect("accepted");
    stream.write_all(bytes).expect("written");
    stream
}

#[test]
fn one_port_leads_to_the_shard_whose_session_it_is() {
    let server = Server::start();
    for (shard, peer) in [(1, PeerKey(1)), (0, PeerKey(2))] {
        let offer = server.join(shard, peer);
        let (mut client, answer) = Client::answer(server.tcp, &offer);
        let request = Request::Answer { id: 1, sdp: Box::new(answer) };
        let handle = &server.shards[shard].handle;
        handle.request(Requested { peer, request, credit: Box::new(()) }).expect("alive");
        let end = Instant::now() + PATIENCE;
        let active = loop {
            assert!(Instant::now() < end, "not connected");
            client.turn();
            if let Ok(Said::Active { shard, peer }) = server.said.try_recv() {
                break (shard, peer);
            }
        };
        assert_eq!(active, (shard, peer));
        let reason = DisconnectReason::ServerShutdown;
        handle.send(Message::Command(Command::Disconnect { peer, reason })).expect("alive");
        assert!(is_closed_in_the_end(&mut client.stream), "a connection outlives its session");
    }
    for shard in &server.shards {
        let counters = shard.counters.snapshot();
        assert!(counters.tcp_frames_in > 0 && counters.tcp_frames_out > 0);
        assert_eq!((counters.unroutable, counters.udp_packets_in), (0, 0));
    }
    server.stop();
}

fn is_closed_in_the_end(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn what_does_not_begin_with_a_check_for_a_session_here_is_closed() {
    let server = Server::start();
    let offer = server.join(0, PeerKey(1));
    let ours = RemoteTransport::read(&offer).expect("usable").parameters.ufrag;
    let no_such_shard = format!("zz{}", &ours[2..]);
    let no_such_session = format!("{}aaaaaaaaaaaaaa", &ours[..2]);
    let foreign = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        framed(&[0; 30]),
        vec![0xff; 64],
        check("abcd"),
        check(&no_such_shard),
        check(&no_such_session),
    ];
    for bytes in &foreign {
        assert!(is_closed(&mut send(server.tcp, bytes)), "{bytes:?}");
    }
    let mut unauthenticated = send(server.tcp, &check(&ours));
    assert!(is_closed(&mut unauthenticated), "a check that proves nothing holds no connection");
    server.stop();
}

#[test]
fn one_address_cannot_keep_the_others_out() {
    let server = Server::start();
    let idle: Vec<TcpStream> = (0..PER_ADDRESS).map(|_| send(server.tcp, &[0])).collect();
    assert!(is_closed(&mut TcpStream::connect(server.tcp).expect("accepted by the kernel")));
    for stream in &idle {
        stream.set_nonblocking(true).expect("set");
        let read = (&*stream).read(&mut [0; 1]);
        assert!(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "those before it wait");
    }
    drop(idle);
    server.stop();
}

/// Connections of one host that may fail within ten seconds.
const FAILURES: usize = 64;

fn connect_from(host: [u8; 4], tcp: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((host, 0)).into()).expect("bound");
    socket.connect(&tcp.into()).expect("accepted");
    socket.into()
}

/// Whether the server waits for more, with the beginning of a frame.
fn waits(stream: &mut TcpStream) -> bool {
    stream.write_all(&[0]).expect("written");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    let read = stream.read(&mut [0; 1]);
    read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[test]
fn a_host_whose_checks_fail_their_integrity_is_refused_whatever_ufrag_it_knows() {
    let server = Server::start();
    let offer = server.join(1, PeerKey(1));
    let ufrag = RemoteTransport::read(&offer).expect("usable").parameters.ufrag;
    let forged = check_with_integrity(&ufrag);
    for _ in 0..FAILURES {
        let mut stream = connect_from([127, 0, 0, 2], server.tcp);
        stream.write_all(&forged).expect("written");
        assert!(is_closed(&mut stream));
    }
    let end = Instant::now() + PATIENCE;
    while server.acceptor.counters.snapshot().refused_failing == 0 {
        assert!(Instant::now() < end, "it is never refused");
        let mut stream = connect_from([127, 0, 0, 2], server.tcp);
        let _ = stream.write_all(&forged);
        assert!(is_closed(&mut stream));
    }
    assert!(waits(&mut connect_from([127, 0, 0, 3], server.tcp)), "another host has done nothing");
    assert!(server.acceptor.counters.snapshot().failed >= FAILURES as u64);
    server.stop();
}

/// As [`check`], with all that a check must have and a MESSAGE-INTEGRITY that is not right.
fn check_with_integrity(ufrag: &str) -> Vec<u8> {
    let mut message = check(ufrag).split_off(2);
    message.extend([0, 0x24, 0, 4, 1, 2, 3, 4]);
    message.extend([0, 8, 0, 20]);
    message.extend([7; 20]);
    let length = u16::try_from(message.len() - 20).expect("short").to_be_bytes();
    message[2..4].copy_from_slice(&length);
    framed(&message)
}
