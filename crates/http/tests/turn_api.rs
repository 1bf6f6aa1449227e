//! Who may read `/api/v1/turn/`, and what of it, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fanlight_base::{Now, Redacted};
use fanlight_control::Limits;
use fanlight_http::backend::{Backend, BackendError, Record, RecordError, Records, Series, Span};
use fanlight_http::{App, serve};
use fanlight_livekit::http_rules::NodeHealth;
use fanlight_livekit::server::Server;
use fanlight_livekit::token::{Grants, Keys, VideoGrant, create};
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::sides::ClientSides;
use fanlight_telemetry::turn_account::usage::{By, Bytes, Price, Usage};
use fanlight_telemetry::turn_account::{AllocationRecord, SessionRecord};
use fanlight_telemetry::turn_query::{Filter, Page, Slice};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const NOW: Now = Now { mono_ns: 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 };
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What was asked for.
type Question = (Filter, Option<Slice>);

/// A record that remembers what it was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Question>>>);

impl Record for Asked {
    fn turn_sessions(&self, filter: &Filter, slice: Slice) -> Result<Page<SessionRecord>, RecordError> {
        self.0.lock().unwrap().push((filter.clone(), Some(slice)));
        if filter.user.as_deref() == Some("broken") {
            return Err(RecordError("fanlight.db: the disk is gone".to_owned()));
        }
        Ok(Page { rows: Vec::new(), total: 7 })
    }

    fn turn_allocations(&self, filter: &Filter, slice: Slice) -> Result<Page<AllocationRecord>, RecordError> {
        self.0.lock().unwrap().push((filter.clone(), Some(slice)));
        Ok(Page { rows: Vec::new(), total: 0 })
    }

    fn turn_usage(&self, filter: &Filter, _: By, price: Price) -> Result<Vec<Usage>, RecordError> {
        self.0.lock().unwrap().push((filter.clone(), None));
        let bytes = Bytes { rx_bytes: 1_000_000_000, tx_bytes: 0 };
        let line = |key: &str| Usage {
            key: key.to_owned(),
            realm: String::new(),
            sessions: 2,
            relayed: 1,
            allocations: 3,
            held_ms: 60_000,
            active_ms: 30_000,
            client: bytes,
            peer: bytes,
            quality: "exact",
            price: price.per_gb + price.per_minute,
        };
        Ok(vec![line("2026-11-20"), line("2026-11-21")])
    }

    fn turn_health(&self) -> Value {
        json!({ "inputs": [] })
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

struct Node {
    address: SocketAddr,
    asked: Asked,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start(dev: bool) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Asked::default();
        let server = Server {
            node: "ND_test".into(),
            keys: Keys::new([("key", SECRET)]),
            limits: Limits::default(),
            ice_lite: false,
            ice_servers: Vec::new(),
        };
        let app = App {
            server: Arc::new(server),
            backend: Backend::new(|_| Err(BackendError::Gone)),
            record: Records::new(asked.clone()),
            now: Arc::new(|| NOW),
            health: Arc::new(|| NodeHealth { updated: NOW, failures: Vec::new(), warnings: Vec::new() }),
            meet: false,
            client_stats: None,
            dev,
            gate: fanlight_http::Gate::default(),
        };
        runtime.spawn(serve(listener, app, std::future::pending()));
        Self { address, asked, _runtime: runtime }
    }

    /// Status, head and body of the answer to a GET.
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        self.ask("GET", path, headers)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn status(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.get(path, headers).0
    }
}

fn bearer(video: VideoGrant, valid_for_s: u64) -> String {
    let grants = Grants { identity: "me".to_owned(), video: Some(video), ..Grants::default() };
    // Two hours before, so that short ones are over by now.
    let earlier = Now { unix_ns: NOW.unix_ns - 7_200_000_000_000, ..NOW };
    let token = create("key", &Redacted::new(SECRET.to_owned()), &grants, earlier, valid_for_s).unwrap();
    format!("Bearer {}", token.reveal())
}

fn admin(room: &str) -> VideoGrant {
    VideoGrant { room_admin: true, room: room.to_owned(), ..VideoGrant::default() }
}

const ALL: [&str; 4] =
    ["/api/v1/turn/allocations", "/api/v1/turn/sessions", "/api/v1/turn/usage", "/api/v1/turn/inputs"];

#[test]
fn without_a_good_token_nothing_is_told() {
    let node = Node::start(false);
    let expired = bearer(admin(""), 3_600);
    let joins = bearer(VideoGrant { room_join: true, room: "r".to_owned(), ..VideoGrant::default() }, 36_000);
    let good = bearer(admin(""), 36_000);
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    for path in ALL {
        assert_eq!(node.status(path, &[]), 401, "{path}");
        for wrong in [expired.as_str(), &joins, &forged, "Bearer x", "Basic abc"] {
            assert_eq!(node.status(path, &[("Authorization", wrong)]), 401, "{path} {wrong}");
        }
        assert_eq!(node.status(path, &[("Authorization", &good)]), 200, "{path}");
    }
    let (_, _, body) = node.get(ALL[0], &[]);
    let refusal: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(refusal["code"], "unauthenticated");
    assert!(refusal["msg"].as_str().unwrap().contains("fanlight token create --room-admin"), "{body}");
}

#[test]
fn a_token_for_a_room_sees_that_room_alone() {
    let node = Node::start(false);
    let token = bearer(admin("blue"), 36_000);
    let headers = [("Authorization", token.as_str())];
    for path in &ALL[..3] {
        assert_eq!(node.status(path, &headers), 200);
        assert_eq!(node.status(&format!("{path}?room=blue"), &headers), 200);
        assert_eq!(node.status(&format!("{path}?room=red"), &headers), 401);
    }
    assert_eq!(node.status("/api/v1/turn/allocations?session=3", &headers), 200);
    assert_eq!(node.status(ALL[3], &headers), 401);
    let asked = node.asked.0.lock().unwrap();
    assert_eq!(asked.len(), 7);
    assert!(asked.iter().all(|(filter, _)| filter.room.as_deref() == Some("blue")), "{asked:?}");
}

#[test]
fn in_development_only_this_machine_is_answered_without_a_token() {
    let node = Node::start(true);
    let own = format!("127.0.0.1:{}", node.address.port());
    assert_eq!(node.status(ALL[1], &[("Host", &own)]), 200);
    assert_eq!(node.status(ALL[1], &[("Host", &own), ("Origin", &format!("http://{own}"))]), 200);
    for (name, value) in [
        ("Host", "rebound.example"),
        ("Host", "rebound.example:7880"),
        ("Origin", "http://other.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("X-Forwarded-For", "198.51.100.7"),
        ("Authorization", "Bearer x"),
    ] {
        assert_eq!(node.status(ALL[1], &[(name, value)]), 401, "{name}: {value}");
    }
}

#[test]
fn no_other_origin_may_read_an_answer() {
    let node = Node::start(false);
    let token = bearer(admin(""), 36_000);
    for path in ALL {
        let headers = [("Authorization", token.as_str()), ("Origin", "http://other.example")];
        let (status, head, _) = node.get(path, &headers);
        assert_eq!(status, 200);
        assert!(!head.contains("access-control-"), "{head}");
        assert!(head.contains("cache-control: no-store") && head.contains("nosniff"), "{head}");
    }
}

#[test]
fn the_answers_have_the_documented_form() {
    let node = Node::start(true);
    let json = |path: &str| -> Value { serde_json::from_str(&node.get(path, &[]).2).unwrap() };
    let sessions = json("/api/v1/turn/sessions?limit=5&offset=2&sort=bytes&order=asc");
    assert_eq!(
        sessions,
        json!({ "now_ms": 1_800_000_000_000_u64, "total": 7, "offset": 2, "limit": 5, "sessions": [] })
    );
    let usage = json("/api/v1/turn/usage?by=day&price_per_gb=2&price_per_minute=0.5&limit=1");
    assert_eq!(
        (&usage["total"], &usage["sum"]["price"], &usage["sum"]["sessions"]),
        (&json!(2), &json!(5.0), &json!(4))
    );
    assert_eq!(usage["usage"].as_array().unwrap().len(), 1);
    assert_eq!(usage["usage"][0]["peer_rx_bytes"], 1_000_000_000);
    let (_, head, body) = node.get("/api/v1/turn/usage?by=day&format=csv", &[]);
    assert!(head.contains("text/csv") && head.contains("filename=\"turn-usage.csv\""), "{head}");
    assert!(body.starts_with("by,key,realm,sessions,") && body.lines().count() == 3, "{body}");
    assert_eq!(json(ALL[3])["inputs"], json!([]));
}

#[test]
fn what_cannot_be_answered_says_why() {
    let node = Node::start(true);
    let (status, _, body) = node.get("/api/v1/turn/sessions?limit=5000", &[]);
    assert!(status == 400 && body.contains("limit") && body.contains("5000"), "{body}");
    let (status, _, body) = node.get("/api/v1/turn/inputs?limit=5", &[]);
    assert!(status == 400 && body.contains("limit"), "{body}");
    let (status, _, body) = node.get("/api/v1/turn/sessions?user=broken", &[]);
    assert!(status == 500 && body.contains("the disk is gone"), "{body}");
    assert_eq!(node.status("/api/v1/turn/nothing", &[]), 404);
    assert_eq!(node.status("/api/v1/", &[]), 404);
    let (status, head, _) = node.ask("POST", "/api/v1/turn/sessions", &[("Content-Length", "0")]);
    assert!(status == 405 && head.contains("allow: get, head"), "{head}");
}
