//! What pages may say at `/api/v1/client-stats`, and who may read it at `/api/v1/clients`, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "client_stats/rtcstats.rs"]
mod rtcstats;

use fanlight_base::{Now, Redacted};
use fanlight_control::Limits;
use fanlight_http::backend::{
    Backend, BackendError, ClientReports, NotStored, Record, RecordError, Records, ReportSink, Series, Span,
    Stored, Storing,
};
use fanlight_http::{App, ClientStats, CollectorKey, RtcStatsSnapshot, serve};
use fanlight_livekit::http_rules::NodeHealth;
use fanlight_livekit::server::Server;
use fanlight_livekit::token::{Grants, Keys, VideoGrant, create};
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::sides::ClientSides;
use fanlight_telemetry::collector::{ClientReport, Source};
use fanlight_telemetry::turn_account::usage::{By, Price, Usage};
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
const KEY: &str = "a-key-for-pages-0001";
const OWN: &str = "https://shop.example";

/// A store that remembers what it was given, can be full, and counts what it refused.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Keeping>>);

#[derive(Default)]
struct Keeping {
    reports: Vec<ClientReport>,
    refuses: Option<NotStored>,
    refused: usize,
}

impl ClientReports for Kept {
    fn store(&self, report: ClientReport) -> Storing {
        let mut kept = self.0.lock().unwrap();
        let outcome = kept.refuses.clone().map_or(Ok(Stored::default()), Err);
        match outcome {
            Ok(_) => kept.reports.push(report),
            Err(_) => kept.refused += 1,
        }
        Box::pin(async move { outcome })
    }

    fn ready(&self) -> Result<(), NotStored> {
        Ok(())
    }
}

/// A record with one connection in each of two rooms, and one that only claims to be of the first.
struct Three;

impl Three {
    fn all() -> Vec<ClientConnection> {
        let of = |(number, source, room): (u64, &str, &str)| ClientConnection {
            number,
            source: source.to_owned(),
            channel_id: room.to_owned(),
            first_ns: 1_000_000_000,
            ..ClientConnection::default()
        };
        [(1, "browser", "a"), (2, "browser", "b"), (3, "browser-key", "a")].map(of).to_vec()
    }
}

impl Record for Three {
    fn turn_sessions(&self, _: &Filter, _: Slice) -> Result<Page<SessionRecord>, RecordError> {
        Err(RecordError("not asked here".to_owned()))
    }

    fn turn_allocations(&self, _: &Filter, _: Slice) -> Result<Page<AllocationRecord>, RecordError> {
        Err(RecordError("not asked here".to_owned()))
    }

    fn turn_usage(&self, _: &Filter, _: By, _: Price) -> Result<Vec<Usage>, RecordError> {
        Err(RecordError("not asked here".to_owned()))
    }

    fn turn_health(&self) -> Value {
        Value::Null
    }

    fn clients(&self, query: &ClientQuery) -> Result<Page<ClientConnection>, RecordError> {
        let mut rows = Self::all();
        rows.retain(|row| {
            query.number.is_none_or(|number| number == row.number)
                && query.channel_id.as_ref().is_none_or(|room| *room == row.channel_id)
                && query.source.as_ref().is_none_or(|source| *source == row.source)
                && (!query.proven || Source::PROVEN.contains(&row.source.as_str()))
        });
        Ok(Page { total: rows.len() as u64, rows })
    }

    fn client_latest(&self, number: u64) -> Result<Vec<StoredObject>, RecordError> {
        Ok(vec![object(number, r#"{"id":"x","type":"codec","priority":18446744073709551615.5}"#)])
    }

    fn client_series(&self, number: u64, series: &Series) -> Result<Vec<StoredObject>, RecordError> {
        assert_eq!(
            (series.kind.as_str(), series.id.as_str(), series.span.limit),
            ("transport", "T 1", 1_000)
        );
        let at = |s: u64, bytes: u64| StoredObject {
            kind: "transport".to_owned(),
            stats_ms: s as f64 * 1_000.0,
            ..object(number, &format!(r#"{{"bytesSent":{bytes}}}"#))
        };
        Ok(vec![at(1, 1_000), at(2, 3_000)])
    }

    fn client_reports(&self, number: u64, span: Span) -> Result<Vec<StoredReport>, RecordError> {
        assert_eq!(span, Span { from_ns: 1_000_000_000, to_ns: 2_000_000_000, limit: 3 });
        let said = StoredReport {
            at_ns: number * 1_000_000_000,
            received_ms: 1_040,
            stored: 7,
            unchanged: 2,
            rejected: 1,
            extra: r#"{"clock":0.10}"#.to_owned(),
        };
        Ok(vec![said.clone(), StoredReport { extra: "cut o".to_owned(), ..said }])
    }

    fn client_sides(&self, _: &ClientConnection) -> Result<Option<ClientSides>, RecordError> {
        Ok(None)
    }
}

fn object(number: u64, json: &str) -> StoredObject {
    StoredObject {
        kind: "codec".to_owned(),
        id: "x".to_owned(),
        at_ns: number * 1_000_000_000,
        stats_ms: 5.0,
        json: json.to_owned(),
    }
}

struct Node {
    address: SocketAddr,
    kept: Kept,
    door: Arc<ClientStats>,
    _runtime: tokio::runtime::Runtime,
}

struct Answered {
    status: u16,
    head: String,
    body: String,
}

impl Node {
    fn start(collects: bool) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Kept::default();
        let keys = vec![CollectorKey { key: Redacted::new(KEY.to_owned()), origins: vec![OWN.to_owned()] }];
        let door = Arc::new(ClientStats::new(ReportSink::new(kept.clone()), keys));
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
            record: Records::new(Three),
            now: Arc::new(|| NOW),
            health: Arc::new(|| NodeHealth { updated: NOW, failures: Vec::new(), warnings: Vec::new() }),
            meet: false,
            client_stats: collects.then(|| Arc::clone(&door)),
            dev: false,
            gate: fanlight_http::Gate::default(),
        };
        runtime.spawn(serve(listener, app, std::future::pending()));
        Self { address, kept, door, _runtime: runtime }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answered { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn post(&self, headers: &[(&str, &str)], body: &Value) -> Answered {
        self.ask("POST", "/api/v1/client-stats", headers, &body.to_string())
    }

    fn get(&self, path: &str, bearer: &str) -> Answered {
        self.ask("GET", path, &[("Authorization", &format!("Bearer {bearer}"))], "")
    }

    fn rtcstats(&self) -> RtcStatsSnapshot {
        self.door.rtcstats()
    }

    fn reports(&self) -> Vec<ClientReport> {
        std::mem::take(&mut self.kept.0.lock().unwrap().reports)
    }
}

fn token(video: VideoGrant, identity: &str, ended_s_ago: u64) -> String {
    let grants = Grants { identity: identity.to_owned(), video: Some(video), ..Grants::default() };
    let lifetime_s = 60;
    let earlier = Now { unix_ns: NOW.unix_ns - (ended_s_ago + lifetime_s) * 1_000_000_000, ..NOW };
    let created = create("key", &Redacted::new(SECRET.to_owned()), &grants, earlier, lifetime_s).unwrap();
    created.reveal().clone()
}

fn joins(room: &str) -> VideoGrant {
    VideoGrant { room_join: true, room: room.to_owned(), ..VideoGrant::default() }
}

fn administers(room: &str) -> String {
    let video = VideoGrant { room_admin: true, room: room.to_owned(), ..VideoGrant::default() };
    token(video, "admin", 0)
}

/// A body as the snippet makes it, with more or other members.
fn said(members: Value) -> Value {
    let mut body = json!({
        "page": "p1", "version": "1", "room": "claimed", "user": "claimed", "now": NOW.unix_ms() - 40,
        "reports": [
            { "connection": "c1", "at": 5, "stats": [{ "id": "o", "type": "outbound-rtp", "timestamp": 5.5 }] },
            { "connection": "c2", "at": 5, "stats": [] },
        ],
    });
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

#[test]
fn a_token_says_who_reports_whatever_the_body_claims() {
    let node = Node::start(true);
    let token = token(joins("demo"), "alice", 0);
    let plain = [("Content-Type", "text/plain;charset=UTF-8"), ("Origin", "https://any.example")];
    let answer = node.post(&plain, &said(json!({ "token": token })));
    assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{}", answer.head);
    assert!(answer.head.contains("access-control-allow-origin: https://any.example"), "{}", answer.head);
    let reports = node.reports();
    assert_eq!(reports.len(), 2);
    for report in &reports {
        let connection = report.connection.as_ref().unwrap();
        assert_eq!((connection.channel_id.as_str(), connection.client_id.as_str()), ("demo", "alice"));
        assert_eq!((report.source, connection.session_id.as_str()), (Source::Browser, "p1"));
        assert!(report.extra.contains("\"clock_ms\":40") && report.extra.contains("any.example"));
    }
    assert_eq!((reports[0].objects.len(), reports[1].objects.len()), (1, 0));
    let bearer = format!("Bearer {token}");
    let json = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    assert_eq!(node.post(&json, &said(json!({}))).status, 204);
    assert_eq!(node.reports()[0].connection.as_ref().unwrap().client_id, "alice");
}

#[test]
fn a_key_lets_in_pages_of_its_origins_and_proves_nothing() {
    let node = Node::start(true);
    let answer = node.post(&[("Origin", OWN)], &said(json!({ "key": KEY })));
    assert_eq!(answer.status, 204, "{}", answer.body);
    let reports = node.reports();
    assert_eq!(reports[0].source, Source::BrowserByKey);
    assert_eq!(reports[0].connection.as_ref().unwrap().client_id, "claimed");
    for origin in ["https://evil.example", "http://shop.example", "null", ""] {
        let answer = node.post(&[("Origin", origin)], &said(json!({ "key": KEY })));
        assert_eq!(answer.status, 403, "{origin}");
        assert!(
            answer.body.contains("permission_denied") && answer.body.contains("origins"),
            "{}",
            answer.body
        );
    }
    assert!(node.reports().is_empty());
}

#[test]
fn a_call_may_outlast_its_token_by_a_day() {
    let node = Node::start(true);
    let sent =
        |ended_s_ago| node.post(&[], &said(json!({ "token": token(joins("demo"), "a", ended_s_ago) })));
    assert_eq!(sent(20 * 3_600).status, 204);
    let late = sent(25 * 3_600);
    assert_eq!(late.status, 401);
    assert!(late.body.contains("expired"), "{}", late.body);
}

#[test]
fn what_is_refused_says_why() {
    let node = Node::start(true);
    let good = token(joins("demo"), "alice", 0);
    let tokens = [
        (said(json!({})), 401, "no token and no key"),
        (said(json!({ "token": "a.b.c" })), 401, "invalid authorization token"),
        (said(json!({ "key": "another-key-of-nobody" })), 401, "none of fanlight.collector.keys"),
        (said(json!({ "token": token(joins(""), "alice", 0) })), 403, "needs roomJoin"),
        (said(json!({ "token": token(joins("demo"), "", 0) })), 403, "needs roomJoin"),
        (said(json!({ "token": administers("demo") })), 403, "needs roomJoin"),
        (said(json!({ "token": good, "page": "" })), 400, "page has 0 bytes"),
        (json!([]), 400, "not what fanlight-stats.js sends"),
        (said(json!({ "token": good, "filler": "x".repeat(64 << 10) })), 413, "at most 65536"),
    ];
    for (body, status, words) in tokens {
        let answer = node.post(&[("Origin", "https://any.example")], &body);
        assert_eq!(answer.status, status, "{words}: {}", answer.body);
        assert!(answer.body.contains(words), "{}", answer.body);
        assert!(answer.head.contains("access-control-allow-origin"), "a page can read why: {}", answer.head);
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(node.post(&form, &said(json!({ "token": good }))).status, 415);
    let get = node.ask("GET", "/api/v1/client-stats", &[], "");
    assert!(get.status == 405 && get.head.contains("allow: post"), "{}", get.head);
    let preflight = [("Origin", OWN), ("Access-Control-Request-Method", "POST")];
    let preflight = node.ask("OPTIONS", "/api/v1/client-stats", &preflight, "");
    assert!(preflight.status == 204 && preflight.head.contains("access-control-allow-origin: https://shop"));
    assert!(node.reports().is_empty());
    let off = Node::start(false).post(&[], &said(json!({ "token": good })));
    assert!(off.status == 404 && off.body.contains("fanlight.collector.enabled"), "{}", off.body);
}

#[test]
fn a_full_store_and_a_hasty_page_are_told_to_come_again() {
    let node = Node::start(true);
    let body = said(json!({ "token": token(joins("demo"), "alice", 0) }));
    let refusals =
        [(NotStored::Busy, 503), (NotStored::Full("no room".to_owned()), 503), (NotStored::Gone, 503)];
    for (refusal, status) in refusals {
        node.kept.0.lock().unwrap().refuses = Some(refusal);
        let answer = node.post(&[], &body);
        assert!(answer.status == status && answer.head.contains("retry-after: 5"), "{}", answer.head);
    }
    node.kept.0.lock().unwrap().refuses = Some(NotStored::Unfit("no such thing".to_owned()));
    assert_eq!(node.post(&[], &body).status, 400);
    node.kept.0.lock().unwrap().refuses = None;
    let statuses: Vec<u16> = (0..70).map(|_| node.post(&[], &body).status).collect();
    let taken = statuses.iter().filter(|status| **status == 204).count();
    assert_eq!((taken, statuses[69]), (56, 429), "60 at once, 4 of which were refused by the store");
    let other = said(
        json!({ "token": token(joins("demo"), "bob", 0), "reports": [{ "connection": "c", "at": 1, "stats": [1] }] }),
    );
    assert_eq!(node.post(&[], &other).status, 204);
    let counts = node.door.counts();
    let answered = [(204, 57), (400, 1), (429, 14), (503, 3)];
    assert_eq!(counts.requests, answered.into_iter().collect());
    assert_eq!((counts.reports, counts.objects), (2 * 56 + 1, 56), "of those that are stored");
    assert_eq!(counts.rejected, [("not-an-object", 1)].into_iter().collect());
    assert_eq!(counts.body_bytes, (74 * body.to_string().len() + other.to_string().len()) as u64);
}

#[test]
fn who_administers_a_room_reads_what_its_tokens_sent_and_nothing_else() {
    let node = Node::start(true);
    let numbers = |answer: &Answered| {
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let rows = body["clients"].as_array().unwrap().clone();
        rows.iter().map(|row| row["number"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&node.get("/api/v1/clients", &administers(""))), [1, 2, 3]);
    assert_eq!(numbers(&node.get("/api/v1/clients?room=a", &administers(""))), [1, 3]);
    assert_eq!(numbers(&node.get("/api/v1/clients", &administers("a"))), [1]);
    for (path, bearer, status) in [
        ("/api/v1/clients", String::new(), 401),
        ("/api/v1/clients", token(joins("a"), "alice", 0), 401),
        ("/api/v1/clients?room=b", administers("a"), 401),
        ("/api/v1/clients?rooms=b", administers(""), 400),
        ("/api/v1/clients/2", administers("a"), 404),
        ("/api/v1/clients/3", administers("a"), 404),
        ("/api/v1/clients/2/latest", administers("a"), 404),
        ("/api/v1/clients/2/series?type=transport&id=T%201", administers("a"), 404),
        ("/api/v1/clients/1/series", administers("a"), 400),
        ("/api/v1/clients/2/reports", administers("a"), 404),
        ("/api/v1/clients/1/reports?type=codec", administers("a"), 400),
        ("/api/v1/clients/9", administers(""), 404),
        ("/api/v1/clients/1", administers("a"), 200),
    ] {
        let answer = node.get(path, &bearer);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(!answer.head.contains("access-control-allow-origin"), "{path}");
    }
    let post = node.ask("POST", "/api/v1/clients", &[], "");
    assert_eq!(post.status, 405);
}

#[test]
fn objects_are_told_as_they_came_with_derived_rates() {
    let node = Node::start(true);
    let latest = node.get("/api/v1/clients/1/latest", &administers(""));
    assert!(
        latest.body.contains(r#""object":{"id":"x","type":"codec","priority":18446744073709551615.5}"#),
        "{}",
        latest.body
    );
    let series = node.get("/api/v1/clients/1/series?type=transport&id=T%201", &administers(""));
    let series: Value = serde_json::from_str(&series.body).unwrap();
    let points = series["points"].as_array().unwrap();
    assert_eq!(
        (points[0]["at_ms"].as_u64(), points[0]["rates"].as_object().unwrap().len()),
        (Some(1_000), 0)
    );
    assert_eq!(points[1]["rates"]["[bytesSent_in_bits/s]"], 16_000.0);
    let one: Value = serde_json::from_str(&node.get("/api/v1/clients/1", &administers("")).body).unwrap();
    assert_eq!((one["client"]["first_ms"].as_u64(), &one["participant"]), (Some(1_000), &Value::Null));
}

#[test]
fn reports_are_told_also_when_nothing_was_new_in_them() {
    let node = Node::start(true);
    let path = "/api/v1/clients/1/reports?from=1970-01-01T00:00:01Z&to=1970-01-01T00:00:02Z&limit=3";
    let answer = node.get(path, &administers(""));
    let told =
        r#"{"at_ms":1000,"received_ms":1040,"stored":7,"unchanged":2,"rejected":1,"extra":{"clock":0.10}}"#;
    assert!(answer.body.contains(told), "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((body["number"].as_u64(), &body["reports"][1]["extra"]), (Some(1), &Value::Null));
}
