//! What no honest client sends, over real sockets: it gets its status or is cut off, and its neighbour notices nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use fanlight_base::{Now, PeerKey, Redacted};
use fanlight_control::{JoinRequest, Limits};
use fanlight_http::backend::{
    Admitted, Backend, Record, RecordError, Records, Requested, Requests, Series, Span, ToControl,
};
use fanlight_http::signals::SignalSender;
use fanlight_http::{App, Gate, serve};
use fanlight_livekit::http_rules::NodeHealth;
use fanlight_livekit::server::Server;
use fanlight_livekit::session::MESSAGE_BYTES_MAX;
use fanlight_livekit::token::{Grants, Keys, VideoGrant, create};
use fanlight_sfu::model::{ParticipantInfo, ParticipantState, RoomConfig, RoomInfo, SharedInfo};
use fanlight_sfu::output::{Joined, Signal};
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::sides::ClientSides;
use fanlight_telemetry::turn_account::usage::{By, Price, Usage};
use fanlight_telemetry::turn_account::{AllocationRecord, SessionRecord};
use fanlight_telemetry::turn_query::{Filter, Page, Slice};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[path = "bad_input/floods.rs"]
mod floods;
#[path = "bad_input/pace.rs"]
mod pace;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const NOW: Now = Now { mono_ns: 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 };
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const MIB: usize = 1 << 20;
/// `SignalRequest.ping`, which is answered.
const PING: &[u8] = &[0x70, 5];

/// What the rest of the process was told.
#[derive(Default)]
struct Told {
    signals: Vec<SignalSender>,
    closed: Vec<PeerKey>,
    /// Requests are held here as if the shard had not come to them.
    holds: bool,
    /// Metadata in the room that a client joins, in parts of half a megabyte.
    others: usize,
    held: Vec<Requested>,
}

/// A record of nothing.
struct Nothing;

impl Record for Nothing {
    fn turn_sessions(&self, _: &Filter, _: Slice) -> Result<Page<SessionRecord>, RecordError> {
        Ok(Page { rows: Vec::new(), total: 0 })
    }

    fn turn_allocations(&self, _: &Filter, _: Slice) -> Result<Page<AllocationRecord>, RecordError> {
        Ok(Page { rows: Vec::new(), total: 0 })
    }

    fn turn_usage(&self, _: &Filter, _: By, _: Price) -> Result<Vec<Usage>, RecordError> {
        Ok(Vec::new())
    }

    fn turn_health(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn clients(&self, _: &ClientQuery) -> Result<Page<ClientConnection>, RecordError> {
        Ok(Page { rows: Vec::new(), total: 0 })
    }

    fn client_latest(&self, _: u64) -> Result<Vec<StoredObject>, RecordError> {
        Ok(Vec::new())
    }

    fn client_series(&self, _: u64, _: &Series) -> Result<Vec<StoredObject>, RecordError> {
        Ok(Vec::new())
    }

    fn client_reports(&self, _: u64, _: Span) -> Result<Vec<StoredReport>, RecordError> {
        Ok(Vec::new())
    }

    fn client_sides(&self, _: &ClientConnection) -> Result<Option<ClientSides>, RecordError> {
        Ok(None)
    }
}

/// The HTTP side alone, with a stand-in for `control` that admits everybody.
struct Node {
    address: SocketAddr,
    told: Arc<Mutex<Told>>,
    gate: Gate,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start() -> Self {
        Self::start_until(std::future::pending(), false)
    }

    fn start_until(stop: impl Future<Output = ()> + Send + 'static, dev: bool) -> Self {
        let gate = Gate::default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let app = App {
            server: Arc::new(server()),
            backend: backend(Arc::clone(&told)),
            record: Records::new(Nothing),
            now: Arc::new(|| NOW),
            health: Arc::new(|| NodeHealth { updated: NOW, failures: Vec::new(), warnings: Vec::new() }),
            meet: dev,
            client_stats: None,
            dev,
            gate: gate.clone(),
        };
        runtime.spawn(serve(listener, app, stop));
        Self { address, told, gate, runtime }
    }

    /// Sends bytes and reads the answer until its head is there or the connection ends.
    fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may answer and close before it has read all.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(len) => answer.extend_from_slice(&buffer[..len]),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn status(&self, request: &[u8]) -> Option<u16> {
        self.ask(request).strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    fn join(&self, identity: &str) -> Socket {
        let path = format!("/rtc?access_token={}&protocol=16", token(identity));
        let mut stream = self.connect();
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n{upgrade}\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let mut socket = Socket(stream);
        assert_eq!(socket.read().map(|(opcode, _)| opcode), Some(BINARY), "the join comes first");
        socket
    }

    /// Waits until so many connections were reported closed.
    fn wait_closed(&self, count: usize) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.told.lock().unwrap().closed.len() < count {
            assert!(std::time::Instant::now() < end, "control was not told of the end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A WebSocket written frame by frame.
struct Socket(TcpStream);

impl Socket {
    /// A frame with any first byte, masked with zeros.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = head(first, payload.len() as u64);
        frame.extend([0; 4]);
        frame.extend(payload);
        self.send_raw(&frame);
    }

    fn send_raw(&mut self, bytes: &[u8]) {
        // It may have been cut off already.
        let _ = self.0.write_all(bytes);
    }

    /// The next frame; `None` when the connection has ended.
    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.0.read_exact(&mut len).ok()?;
                usize::from(u16::from_be_bytes(len))
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[0] & 0x0f, payload))
    }

    /// Whether a ping is answered with a pong.
    fn is_alive(&mut self) -> bool {
        self.send(0x80 | BINARY, PING);
        self.read().is_some_and(|(opcode, payload)| opcode == BINARY && !payload.is_empty())
    }

    /// Whether the server ends the connection, with a close frame or without.
    fn ends(mut self) -> bool {
        loop {
            match self.read() {
                None | Some((CLOSE, _)) => return true,
                Some((BINARY, _)) => {}
                Some(_) => return false,
            }
        }
    }
}

/// First byte, mask bit and length (RFC 6455 §5.2).
fn head(first: u8, len: u64) -> Vec<u8> {
    let mut head = vec![first];
    match len {
        0..=125 => head.push(0x80 | len as u8),
        126..=0xffff => {
            head.push(0x80 | 126);
            head.extend((len as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend(len.to_be_bytes());
        }
    }
    head
}

fn server() -> Server {
    Server {
        node: "ND_test".into(),
        keys: Keys::new([("devkey", "secret")]),
        limits: Limits::default(),
        ice_lite: false,
        ice_servers: Vec::new(),
    }
}

fn token(identity: &str) -> String {
    let video = VideoGrant { room_join: true, room: "room".to_owned(), ..VideoGrant::default() };
    let grants = Grants { identity: identity.to_owned(), video: Some(video), ..Grants::default() };
    let secret = Redacted::new("secret".to_owned());
    create("devkey", &secret, &grants, NOW, 600).unwrap().reveal().clone()
}

fn backend(told: Arc<Mutex<Told>>) -> Backend {
    let shard = Arc::clone(&told);
    Backend::new(move |message| {
        let mut told = told.lock().unwrap();
        // Whoever asked may be gone.
        match message {
            ToControl::Check { reply, .. } => {
                let _ = reply.send(Ok(()));
            }
            ToControl::Join { request, signals, reply } => {
                let peer = PeerKey(told.signals.len() as u64);
                let joined = joined(&request, told.others);
                // In a room of whatever size, what follows the join must fit.
                let refreshed = joined.others.first().cloned().map(Signal::RefreshToken);
                assert!(signals.try_send(Signal::Joined(Box::new(joined))));
                assert!(refreshed.is_none_or(|signal| signals.try_send(signal)));
                told.signals.push(signals);
                let shard = Arc::clone(&shard);
                let requests = Requests::new(move |requested| {
                    let mut told = shard.lock().unwrap();
                    if told.holds {
                        told.held.push(requested);
                    }
                    Ok(())
                });
                let _ = reply.send(Ok(Ok(Admitted { peer, requests })));
            }
            ToControl::Closed { peer } => told.closed.push(peer),
        }
        Ok(())
    })
}

fn joined(request: &JoinRequest, others: usize) -> Joined {
    let config = RoomConfig {
        sid: "RM_test".into(),
        name: request.room.clone(),
        empty_timeout_s: 300,
        departure_timeout_s: 20,
        max_participants: 0,
        created_ms: 0,
        turn_password: Redacted::new(String::new()),
        sif_trailer: String::new(),
        enabled_codecs: Vec::new(),
        metadata: String::new(),
    };
    let join = &request.join;
    let participant = ParticipantInfo {
        sid: "PA_test".into(),
        identity: join.identity.clone(),
        state: ParticipantState::Joining,
        tracks: Vec::new(),
        metadata: String::new(),
        joined_ms: 0,
        name: String::new(),
        version: 0,
        permission: join.permission.clone(),
        is_publisher: false,
        kind: join.kind,
        kind_details: Vec::new(),
        attributes: Default::default(),
        disconnect_reason: None,
        client_protocol: 0,
        capabilities: Vec::new(),
    };
    let room = RoomInfo { config, num_participants: 0, num_publishers: 0, active_recording: false };
    let large = ParticipantInfo { metadata: "m".repeat(MIB / 2), ..participant.clone() };
    let large = SharedInfo::new(large, fanlight_livekit::convert::encode_participant);
    Joined { room, participant, others: vec![large; others], subscriber_primary: true }
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n").into_bytes()
}

#[test]
fn frames_that_break_the_protocol_end_their_connection_and_no_other() {
    let node = Node::start();
    let mut neighbour = node.join("neighbour");
    let huge = [&head(0x80 | BINARY, u64::MAX >> 1)[..], &[0; 4]].concat();
    let over = [&head(0x80 | BINARY, MESSAGE_BYTES_MAX as u64 + 1)[..], &[0; 4]].concat();
    let framed =
        |first: u8, payload: &[u8]| [&head(first, payload.len() as u64)[..], &[0; 4], payload].concat();
    let cases: [(&str, Vec<u8>); 12] = [
        ("not masked", vec![0x82, 2, PING[0], PING[1]]),
        ("a reserved opcode", framed(0x83, b"x")),
        ("a reserved bit", framed(0xc2, PING)),
        ("text that is not UTF-8", framed(0x81, &[0xff, 0xfe])),
        ("a ping in fragments", framed(0x09, b"x")),
        ("a ping that is too long", framed(0x89, &[0; 126])),
        ("a continuation of nothing", framed(0x80, PING)),
        ("a beginning inside a message", [framed(0x02, PING), framed(0x02, PING)].concat()),
        ("an endless frame", huge),
        ("a frame over the limit", over),
        ("no protobuf", framed(0x82, &[0xde, 0xad, 0xbe, 0xef])),
        ("no JSON", framed(0x81, b"hello")),
    ];
    let count = cases.len();
    for (what, bytes) in cases {
        let mut bad = node.join("bad");
        bad.send_raw(&bytes);
        assert!(bad.ends(), "{what}");
        assert!(neighbour.is_alive(), "after {what}");
    }
    node.wait_closed(count);
    assert!(!node.told.lock().unwrap().closed.contains(&PeerKey(0)), "the neighbour is still there");
}

#[test]
fn fragments_that_add_up_to_more_than_a_message_may_have_end_the_connection() {
    let node = Node::start();
    let mut neighbour = node.join("neighbour");
    let mut bad = node.join("bad");
    let part = vec![0; MESSAGE_BYTES_MAX / 2];
    bad.send(BINARY, &part);
    bad.send(0, &part);
    bad.send(0, &part);
    assert!(bad.ends());
    assert!(neighbour.is_alive());
}

#[test]
fn seeded_garbage_after_the_upgrade_harms_nobody() {
    let node = Node::start();
    let mut neighbour = node.join("neighbour");
    let mut random = fanlight_base::Random::from_seed([4; 32]);
    for round in 0..40 {
        let mut bad = node.join("bad");
        let mut bytes = vec![0; 1 + random.below(400) as usize];
        random.fill(&mut bytes);
        bad.send_raw(&bytes);
        // A frame whose rest never comes is waited for, until the client goes.
        drop(bad);
        if round % 10 == 0 {
            assert!(neighbour.is_alive());
        }
    }
    node.wait_closed(40);
    assert!(neighbour.is_alive());
}

#[test]
fn requests_that_are_not_good_get_their_status() {
    let node = Node::start();
    let bearer = format!("Authorization: Bearer {}\r\n", token("a"));
    let bomb = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 20 << 20]).unwrap();
        let zipped = encoder.finish().unwrap();
        // `WrappedJoinRequest`: compression GZIP, then the bytes.
        let mut message = vec![0x08, 1, 0x12];
        let (low, high) = ((zipped.len() & 0x7f) as u8 | 0x80, (zipped.len() >> 7) as u64);
        message.extend([low, (high & 0x7f) as u8 | 0x80, (high >> 7) as u8]);
        message.extend(zipped);
        format!("/rtc/v1/validate?join_request={}", URL_SAFE.encode(message))
    };
    let cases = [
        ("a good one", get("/rtc/validate", &bearer), 200),
        ("no token", get("/rtc/validate", ""), 401),
        ("a token that is none", get("/rtc/validate", "Authorization: Bearer a.b.c\r\n"), 401),
        ("no upgrade", get("/rtc", &bearer), 404),
        ("a gzip bomb", get(&bomb, &bearer), 400),
        ("a broken request line", b"\x00\x01\x02 nonsense\r\n\r\n".to_vec(), 400),
        ("a path that is too long", get(&format!("/{}", "x".repeat(70_000)), ""), 414),
        (
            "a body where none is taken",
            b"POST /rtc HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999\r\n\r\n".to_vec(),
            404,
        ),
        ("too many headers", get("/", &"X-A: b\r\n".repeat(200)), 431),
        (
            "a form over the limit",
            {
                let mut request =
                    b"POST /rtc/validate HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\
                      Content-Type: application/x-www-form-urlencoded\r\n\r\n"
                        .to_vec();
                for _ in 0..2 {
                    request.extend(b"100000\r\n");
                    request.extend(vec![b'x'; 1 << 20]);
                    request.extend(b"\r\n");
                }
                request
            },
            413,
        ),
    ];
    for (what, request, status) in cases {
        assert_eq!(node.status(&request), Some(status), "{what}");
        assert_eq!(node.status(&get("/", "")), Some(200), "after {what}");
    }
    assert!(node.ask(&get(&bomb, &bearer)).len() < 4096);
}

#[test]
fn requests_that_never_end_keep_nobody_waiting() {
    let node = Node::start();
    let half: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = node.connect();
            stream.write_all(b"GET /rtc/validate HTTP/1.1\r\nHost: he").unwrap();
            stream
        })
        .collect();
    let mut socket = node.join("a");
    assert!(socket.is_alive());
    assert_eq!(node.status(&get("/", "")), Some(200));
    drop(half);
}
