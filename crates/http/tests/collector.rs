//! The collector as Sora meets it: HTTP/2 by prior knowledge, TLS, mutual TLS, HTTP/1.1, and what goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Version};
use fanlight_http::MetricsApp;
use fanlight_http::backend::{ClientReports, NotStored, ReportSink, Stored, Storing};
use fanlight_http::collector::{
    ALPN, CollectorApp, CollectorSettings, Http2Settings, serve_collector, serve_exporter,
};
use fanlight_telemetry::collector::{ClientReport, Source};
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsConnector;

const EXPORTER: (&str, &str) = ("x-sora-stats-exporter-type", "connection.user-agent");
const WEBHOOK: (&str, &str) = ("sora-stats-webhook-type", "connection.rtc");
const JSON: (&str, &str) = ("content-type", "application/json");
/// The body's maximum.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// A store that keeps reports in memory, and does as it is told.
#[derive(Clone)]
struct Shelf {
    reports: Arc<Mutex<Vec<ClientReport>>>,
    /// Reports wait for a permit.
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: Arc<AtomicUsize>,
    queue_max: usize,
    trouble: Arc<Mutex<Option<NotStored>>>,
}

impl Shelf {
    fn open() -> Self {
        Self::gated(Semaphore::MAX_PERMITS, usize::MAX)
    }

    fn gated(permits: usize, queue_max: usize) -> Self {
        Self {
            reports: Arc::default(),
            gate: Arc::new(Semaphore::new(permits)),
            waiting: Arc::default(),
            most_waiting: Arc::default(),
            queue_max,
            trouble: Arc::default(),
        }
    }

    fn reports(&self) -> Vec<ClientReport> {
        self.reports.lock().unwrap().clone()
    }

    async fn until_waiting(&self, count: usize) {
        while self.waiting.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

impl ClientReports for Shelf {
    fn store(&self, report: ClientReport) -> Storing {
        let shelf = self.clone();
        if let Some(trouble) = self.trouble.lock().unwrap().clone() {
            return Box::pin(async move { Err(trouble) });
        }
        let place = self.waiting.fetch_add(1, Ordering::SeqCst);
        if place >= self.queue_max {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Box::pin(async { Err(NotStored::Busy) });
        }
        self.most_waiting.fetch_max(place + 1, Ordering::SeqCst);
        Box::pin(async move {
            let permit = shelf.gate.acquire().await.unwrap();
            permit.forget();
            shelf.gate.add_permits(1);
            shelf.waiting.fetch_sub(1, Ordering::SeqCst);
            let stored = Stored { stored: report.objects.len() as u64, unchanged: 0 };
            shelf.reports.lock().unwrap().push(report);
            Ok(stored)
        })
    }

    fn ready(&self) -> Result<(), NotStored> {
        self.trouble.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

struct Server {
    address: SocketAddr,
    app: CollectorApp,
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start(shelf: &Shelf, settings: CollectorSettings) -> Self {
        Self::start_with(shelf, settings, None, Http2Settings::default()).await
    }

    async fn start_with(
        shelf: &Shelf,
        settings: CollectorSettings,
        tls: Option<Arc<ServerConfig>>,
        http2: Http2Settings,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = CollectorApp::new(ReportSink::new(shelf.clone()), settings);
        let (stop, stopped) = oneshot::channel::<()>();
        let served = app.clone();
        tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            serve_collector(listener, tls, http2, served, stop).await.unwrap();
        });
        Self { address, app, _stop: stop }
    }

    async fn h2c(&self) -> Client {
        Client::http2(TcpStream::connect(self.address).await.unwrap(), "http").await
    }

    async fn http1(&self) -> Client {
        Client::http1(TcpStream::connect(self.address).await.unwrap()).await
    }
}

enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>, &'static str),
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
    version: Version,
}

impl Reply {
    fn message(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).expect(&self.body);
        body["message"].as_str().unwrap().to_owned()
    }
}

impl Client {
    /// As Sora's exporter does: no upgrade, HTTP/2 from the first byte.
    async fn http2(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        scheme: &'static str,
    ) -> Self {
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http2(sender, scheme)
    }

    async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
        let mut request = match self {
            Self::Http1(_) => Request::builder().uri(path).header("host", "collector.test"),
            Self::Http2(_, scheme) => Request::builder().uri(format!("{scheme}://collector.test{path}")),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.method(Method::from_bytes(method.as_bytes()).unwrap()).body(body).unwrap()
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Reply> {
        let response = match self {
            Self::Http1(sender) => sender.send_request(request).await?,
            Self::Http2(sender, _) => sender.send_request(request).await?,
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
            version: parts.version,
        })
    }

    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let request = self.request(method, path, headers, Body::from(body));
        self.send(request).await.unwrap()
    }

    async fn post(&mut self, body: &Value) -> Reply {
        self.ask("POST", "/collector", &[JSON, EXPORTER], body.to_string().into_bytes()).await
    }
}

/// What Sora sends.
fn report(number: usize) -> Value {
    json!({
        "type": "connection.user-agent",
        "id": "NNZ1T9F48S2SZF6E4CW3M0RJ4W",
        "timestamp": format!("2026-11-21T20:19:{:02}.123456Z", number % 60),
        "label": "WebRTC SFU Sora",
        "version": "2025.1.0",
        "node_name": "sora@127.0.0.1",
        "multistream": true,
        "simulcast": false,
        "spotlight": false,
        "role": "sendrecv",
        "channel_id": "sora",
        "session_id": "E5ZA7T4F0D3Z10QCZ7X7T3WMG8",
        "client_id": "KWJFJ7JTQN3HBF5DDZN3DX9Q9G",
        "connection_id": format!("{number:026}"),
        "bundle_id": "unknown to Kohaku",
        "stats": [
            {"timestamp": 1_800_000_000_000.5, "id": "T01", "type": "transport", "bytesSent": 1},
            {"timestamp": 1_800_000_000_000.5, "id": "P01", "type": "media-playout", "vendor": 18446744073709551615_u64},
        ],
    })
}

/// The same without a member.
fn without(member: &str) -> Vec<u8> {
    let mut report = report(1);
    report.as_object_mut().unwrap().remove(member);
    report.to_string().into_bytes()
}

/// The same with another value.
fn with(member: &str, value: Value) -> Vec<u8> {
    let mut report = report(1);
    report[member] = value;
    report.to_string().into_bytes()
}

#[tokio::test]
async fn a_report_comes_in_by_every_way() {
    let shelf = Shelf::open();
    let server = Server::start(&shelf, CollectorSettings::default()).await;
    for mut client in [server.h2c().await, server.http1().await] {
        let reply = client.post(&report(1)).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
        assert_eq!(reply.version == Version::HTTP_2, matches!(client, Client::Http2(..)));
        let body = report(2).to_string().into_bytes();
        let reply = client.ask("POST", "/sora/webhook/stats/", &[JSON, WEBHOOK], body).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        let node = json!({
            "type": "node.erlang-vm", "timestamp": "2026-11-21T20:19:41Z", "label": "WebRTC SFU Sora",
            "version": "2021.2.0", "node_name": "sora@127.0.0.1",
            "stats": [{"type": "erlang-vm-memory", "total": 1}],
        });
        let headers = [JSON, ("x-sora-stats-exporter-type", "node.erlang-vm")];
        let reply = client.ask("POST", "/collector", &headers, node.to_string().into_bytes()).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        for path in ["/.ok", "/health", "/.ok/"] {
            for method in ["GET", "POST"] {
                let reply = client.ask(method, path, &[], Vec::new()).await;
                assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{method} {path}");
            }
        }
    }
    let reports = shelf.reports();
    let sources: Vec<_> = reports.iter().map(|report| report.source).collect();
    assert_eq!(sources[..3], [Source::SoraUserAgent, Source::SoraWebhook, Source::SoraNode]);
    assert_eq!(sources[..3], sources[3..]);
    assert_eq!(reports[0].objects.len(), 2);
    assert!(reports[0].objects[1].json.contains("18446744073709551615"));
    assert!(reports[0].extra.contains("unknown to Kohaku"));
    let snapshot = server.app.snapshot();
    assert_eq!((snapshot.reports[&204], snapshot.connections), (6, 2));
}

/// Statuses as a table: what is asked, how we answer, how Kohaku did.
#[tokio::test]
async fn bad_inputs_have_the_statuses_that_they_have_by_kohaku() {
    type Row =
        (&'static str, &'static str, Vec<(&'static str, &'static str)>, Vec<u8>, u16, u16, &'static str);
    let good = || report(1).to_string().into_bytes();
    let sora = || vec![JSON, EXPORTER];
    let mut table: Vec<Row> = vec![
        ("POST", "/collector", sora(), good(), 204, 204, ""),
        ("POST", "/collector/", sora(), good(), 204, 204, ""),
        ("GET", "/collector", vec![], vec![], 405, 405, "Method Not Allowed"),
        ("PUT", "/health", vec![], vec![], 405, 405, "Method Not Allowed"),
        ("POST", "/", sora(), good(), 404, 404, "Not Found"),
        ("POST", "/collector/x", sora(), good(), 404, 404, "Not Found"),
        ("POST", "/collector", vec![JSON], good(), 400, 400, ""),
        ("POST", "/collector", vec![JSON, WEBHOOK], good(), 400, 400, ""),
        ("POST", "/collector", vec![JSON, (EXPORTER.0, "connection.sora")], good(), 400, 400, ""),
        ("POST", "/collector", vec![EXPORTER], good(), 400, 400, ""),
        ("POST", "/collector", vec![EXPORTER, ("content-type", "text/plain")], good(), 400, 400, ""),
        (
            "POST",
            "/collector",
            vec![EXPORTER, ("content-type", "application/json; charset=utf-8")],
            good(),
            204,
            204,
            "",
        ),
        ("POST", "/collector", sora(), b"".to_vec(), 400, 400, ""),
        ("POST", "/collector", sora(), b"{".to_vec(), 400, 400, ""),
        ("POST", "/collector", sora(), b"[]".to_vec(), 400, 400, ""),
        ("POST", "/collector", sora(), b"\xff\xfe".to_vec(), 400, 400, ""),
        ("POST", "/collector", sora(), with("connection_id", json!("short")), 400, 400, ""),
        ("POST", "/collector", sora(), with("channel_id", json!("\u{e9}".repeat(128))), 400, 400, ""),
        ("POST", "/collector", sora(), with("channel_id", json!("x".repeat(255))), 204, 204, ""),
        ("POST", "/collector", sora(), with("client_id", json!("x".repeat(256))), 400, 400, ""),
        ("POST", "/collector", sora(), with("role", json!("send")), 400, 400, ""),
        ("POST", "/collector", sora(), with("role", json!("whatever")), 400, 400, ""),
        ("POST", "/collector", sora(), with("timestamp", json!("yesterday")), 400, 400, ""),
        ("POST", "/collector", sora(), with("timestamp", json!(17)), 400, 400, ""),
        ("POST", "/collector", sora(), with("stats", json!(null)), 400, 400, ""),
        ("POST", "/collector", sora(), with("stats", json!([])), 204, 204, ""),
        ("POST", "/collector", sora(), with("stats", json!({})), 400, 400, ""),
        ("POST", "/collector", sora(), with("stats", json!([7, {"id": "a"}])), 204, 204, ""),
        ("POST", "/collector", sora(), with("multistream", json!(false)), 204, 204, ""),
        ("POST", "/collector", sora(), with("label", json!("")), 400, 400, ""),
    ];
    for member in [
        "type",
        "timestamp",
        "label",
        "version",
        "node_name",
        "multistream",
        "spotlight",
        "role",
        "channel_id",
        "session_id",
        "client_id",
        "connection_id",
        "stats",
    ] {
        table.push(("POST", "/collector", sora(), without(member), 400, 400, ""));
    }
    // Kohaku fell over this one.
    table.push(("POST", "/collector", sora(), without("simulcast"), 400, 500, ""));
    let erlang = vec![JSON, (EXPORTER.0, "node.erlang-vm")];
    table.push(("POST", "/collector", erlang, b"{}".to_vec(), 400, 400, ""));
    let shelf = Shelf::open();
    for strict in [false, true] {
        let server = Server::start(&shelf, CollectorSettings { strict, ..Default::default() }).await;
        let mut client = server.h2c().await;
        for (method, path, headers, body, ours, kohakus, message) in &table {
            let reply = client.ask(method, path, headers, body.clone()).await;
            let about = format!("{method} {path} {headers:?} {:.300}", String::from_utf8_lossy(body));
            assert_eq!(reply.status, if strict { *kohakus } else { *ours }, "{about}: {reply:?}");
            if reply.status == 204 {
                assert!(reply.body.is_empty(), "{reply:?}");
                continue;
            }
            let said = reply.message();
            assert!(!said.is_empty() && said.contains(message), "{about}: {said}");
            assert_eq!(reply.headers["content-type"], "application/json; charset=UTF-8");
        }
        assert_eq!(client.ask("GET", "/collector", &[], Vec::new()).await.headers["allow"], "POST");
    }
}

#[tokio::test]
async fn strict_texts_are_kohakus_and_ours_say_what_is_wrong() {
    let shelf = Shelf::open();
    let ours = Server::start(&shelf, CollectorSettings::default()).await;
    let strict = Server::start(&shelf, CollectorSettings { strict: true, ..Default::default() }).await;
    let (mut ours, mut kohaku) = (ours.h2c().await, strict.h2c().await);
    let short: Value = serde_json::from_slice(&with("connection_id", json!("short"))).unwrap();
    assert_eq!(
        kohaku.post(&short).await.message(),
        "Key: 'soraConnectionStats.ConnectionID' Error:Field validation for 'ConnectionID' failed on the 'len' tag"
    );
    let said = ours.post(&short).await.message();
    assert!(said.contains("connection_id") && said.contains("26"), "{said}");
    let body = report(1).to_string().into_bytes();
    let reply = kohaku.ask("POST", "/collector", &[JSON], body.clone()).await;
    assert_eq!(reply.body, "{\"message\":\"Bad Request\"}\n");
    let reply = kohaku.ask("POST", "/collector", &[EXPORTER], body.clone()).await;
    assert_eq!(reply.message(), "code=415, message=Unsupported Media Type");
    let mut old = strict.http1().await;
    assert_eq!(old.ask("POST", "/collector", &[JSON, EXPORTER], body).await.status, 400);
    assert_eq!(old.ask("GET", "/.ok", &[], Vec::new()).await.status, 204);
}

#[tokio::test]
async fn a_store_in_trouble_is_told_as_passing_or_as_kohaku_did() {
    let shelf = Shelf::open();
    *shelf.trouble.lock().unwrap() = Some(NotStored::Full("no space left on device".to_owned()));
    let ours = Server::start(&shelf, CollectorSettings::default()).await;
    let mut client = ours.h2c().await;
    let reply = client.post(&report(1)).await;
    assert_eq!((reply.status, reply.headers["retry-after"].to_str().unwrap()), (503, "5"));
    assert!(reply.message().contains("no space left"), "{reply:?}");
    let health = client.ask("GET", "/health", &[], Vec::new()).await;
    assert_eq!((health.status, health.headers["retry-after"].to_str().unwrap()), (503, "5"));
    let strict = Server::start(&shelf, CollectorSettings { strict: true, ..Default::default() }).await;
    let mut client = strict.h2c().await;
    let reply = client.post(&report(1)).await;
    assert_eq!((reply.status, reply.headers.contains_key("retry-after")), (400, false));
    assert_eq!(client.ask("GET", "/health", &[], Vec::new()).await.status, 500);
    *shelf.trouble.lock().unwrap() = Some(NotStored::Unfit("no zero bytes".to_owned()));
    assert_eq!(ours.h2c().await.post(&report(1)).await.status, 400, "sending it again would not help");
    *shelf.trouble.lock().unwrap() = None;
    assert_eq!(client.post(&report(1)).await.status, 204);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_its_length_is_said_or_not() {
    let shelf = Shelf::open();
    let server = Server::start(&shelf, CollectorSettings::default()).await;
    let mut fits = report(1).to_string().into_bytes();
    fits.resize(BODY_MAX, b' ');
    let mut over = fits.clone();
    over.push(b' ');
    for http1 in [false, true] {
        let connect = async || if http1 { server.http1().await } else { server.h2c().await };
        let mut client = connect().await;
        let reply = client.ask("POST", "/collector", &[JSON, EXPORTER], fits.clone()).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        // In pieces, so that no length is said.
        let mut pieces: Vec<_> = over.chunks(256 * 1024).map(Bytes::copy_from_slice).collect();
        pieces.reverse();
        let body = Body::new(Pieces(pieces));
        let request = client.request("POST", "/collector", &[JSON, EXPORTER], body);
        // The connection may be closed while the client still writes: that is how HTTP/1.1 says no early.
        if let Ok(reply) = client.send(request).await {
            assert_eq!(reply.status, 413, "{reply:?}");
        } else {
            assert!(http1);
        }
        let mut client = connect().await;
        let length = over.len().to_string();
        let headers = [JSON, EXPORTER, ("content-length", length.as_str())];
        let body = Body::new(Full::new(Bytes::from(over.clone())));
        let request = client.request("POST", "/collector", &headers, body);
        if let Ok(reply) = client.send(request).await {
            assert_eq!(reply.status, 413, "{reply:?}");
        } else {
            assert!(http1);
        }
    }
    assert_eq!(shelf.reports().len(), 2);
    assert_eq!(server.app.snapshot().reports[&413], 4);
}

/// A body of which no length is known.
struct Pieces(Vec<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
    }
}

#[tokio::test]
async fn a_thousand_streams_of_one_connection_are_served_at_a_time() {
    const STREAMS: usize = 1_000;
    let shelf = Shelf::gated(0, usize::MAX);
    let http2 = Http2Settings { concurrent_streams: STREAMS as u32, ..Http2Settings::default() };
    let server = Server::start_with(&shelf, CollectorSettings::default(), None, http2).await;
    let Client::Http2(sender, scheme) = server.h2c().await else { unreachable!() };
    let mut posts = tokio::task::JoinSet::new();
    for number in 0..STREAMS {
        let mut client = Client::Http2(sender.clone(), scheme);
        posts.spawn(async move { client.post(&report(number)).await.status });
    }
    shelf.until_waiting(STREAMS).await;
    shelf.gate.add_permits(1);
    while let Some(status) = posts.join_next().await {
        assert_eq!(status.unwrap(), 204);
    }
    assert_eq!(shelf.most_waiting.load(Ordering::SeqCst), STREAMS);
    let mut connections: Vec<_> =
        shelf.reports().into_iter().map(|report| report.connection.unwrap().connection_id).collect();
    connections.sort();
    connections.dedup();
    assert_eq!(connections.len(), STREAMS);
}

#[tokio::test]
async fn a_slow_store_is_a_503_and_never_more_memory() {
    const QUEUE: usize = 10;
    let shelf = Shelf::gated(0, QUEUE);
    let server = Server::start(&shelf, CollectorSettings::default()).await;
    let mut posts = tokio::task::JoinSet::new();
    for number in 0..100 {
        let mut client = server.h2c().await;
        posts.spawn(async move { client.post(&report(number)).await.status });
    }
    for _ in 0..100 - QUEUE {
        assert_eq!(posts.join_next().await.unwrap().unwrap(), 503);
    }
    shelf.gate.add_permits(1);
    while let Some(status) = posts.join_next().await {
        assert_eq!(status.unwrap(), 204);
    }
    assert_eq!(shelf.reports().len(), QUEUE);
}

#[tokio::test]
async fn bodies_together_have_a_limit() {
    let shelf = Shelf::gated(0, usize::MAX);
    // Half of it is one host's.
    let settings = CollectorSettings { bodies_bytes_max: 4 * BODY_MAX, ..CollectorSettings::default() };
    let server = Server::start(&shelf, settings).await;
    let mut large = report(1).to_string().into_bytes();
    large.resize(BODY_MAX, b' ');
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (mut client, body) = (server.h2c().await, large.clone());
        posts.spawn(async move { client.ask("POST", "/collector", &[JSON, EXPORTER], body).await.status });
    }
    shelf.until_waiting(2).await;
    let mut client = server.h2c().await;
    let reply = client.post(&report(3)).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.headers.contains_key("retry-after"));
    shelf.gate.add_permits(1);
    while let Some(status) = posts.join_next().await {
        assert_eq!(status.unwrap(), 204);
    }
    assert_eq!(client.post(&report(3)).await.status, 204, "their share is free again");
}

#[tokio::test]
async fn a_client_that_gives_up_request_after_request_is_cut_off() {
    let shelf = Shelf::gated(0, usize::MAX);
    let server = Server::start(&shelf, CollectorSettings::default()).await;
    let Client::Http2(mut sender, _) = server.h2c().await else { unreachable!() };
    let mut given_up = 0;
    while !sender.is_closed() {
        given_up += 1;
        assert!(given_up < 10_000, "the connection is still open");
        let before = shelf.waiting.load(Ordering::SeqCst);
        let client = Client::Http2(sender.clone(), "http");
        let body = Body::from(report(1).to_string());
        let request = client.request("POST", "/collector", &[JSON, EXPORTER], body);
        let sent = tokio::spawn(sender.send_request(request));
        while shelf.waiting.load(Ordering::SeqCst) == before && !sent.is_finished() {
            tokio::task::yield_now().await;
        }
        sent.abort();
        let _ = sent.await;
        if sender.ready().await.is_err() {
            break;
        }
    }
    assert!(given_up > 20, "some may be given up: {given_up}");
    let mut other = server.http1().await;
    assert_eq!(other.ask("GET", "/.ok", &[], Vec::new()).await.status, 204, "others are served");
    assert_eq!(server.app.snapshot().resets, 1);
}

/// An authority, and certificates by name of it and of another.
struct Pki {
    roots: RootCertStore,
    signed: BTreeMap<&'static str, (CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

impl Pki {
    fn new() -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ours, stranger) = (authority("ours"), authority("stranger"));
        let signed = [("server", &ours), ("user", &ours), ("stranger", &stranger)].map(|(name, issuer)| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["collector.test".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, issuer).unwrap();
            (name, (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap()))
        });
        let mut roots = RootCertStore::empty();
        roots.add(ours.der().clone()).unwrap();
        Self { roots, signed: signed.into() }
    }

    fn identity(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let (certificate, key) = &self.signed[name];
        (certificate.clone(), key.clone_key())
    }

    /// With `verified` only clients of our authority come in.
    fn tls(&self, verified: bool) -> Arc<ServerConfig> {
        let (certificate, key) = self.identity("server");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if verified {
            let roots = Arc::new(self.roots.clone());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Arc::new(config)
    }

    /// Connects as the owner of a certificate, or of none.
    async fn connect(
        &self,
        server: &Server,
        identity: Option<&str>,
        alpn: &[&str],
    ) -> std::io::Result<Client> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (certificate, key) = self.identity(name);
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(server.address).await?;
        let name = ServerName::try_from("collector.test").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            return Ok(Client::http2(stream, "https").await);
        }
        Ok(Client::http1(stream).await)
    }
}

#[tokio::test]
async fn tls_has_both_versions_by_alpn() {
    let (pki, shelf) = (Pki::new(), Shelf::open());
    let settings = CollectorSettings::default();
    let server = Server::start_with(&shelf, settings, Some(pki.tls(false)), Http2Settings::default()).await;
    for (alpn, version) in [
        (&["h2"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&["h2", "http/1.1"], Version::HTTP_2),
        (&[], Version::HTTP_11),
    ] {
        let mut client = pki.connect(&server, None, alpn).await.unwrap();
        let reply = client.post(&report(1)).await;
        assert_eq!((reply.status, reply.version), (204, version), "{alpn:?}");
    }
    assert_eq!(shelf.reports().len(), 4);
}

#[tokio::test]
async fn with_authorities_only_clients_of_theirs_come_in() {
    let (pki, shelf) = (Pki::new(), Shelf::open());
    let settings = CollectorSettings::default();
    let server = Server::start_with(&shelf, settings, Some(pki.tls(true)), Http2Settings::default()).await;
    let mut user = pki.connect(&server, Some("user"), &["h2"]).await.unwrap();
    assert_eq!(user.post(&report(1)).await.status, 204);
    for identity in [None, Some("stranger")] {
        // In TLS 1.3 the client only learns of it with the first answer.
        if let Ok(mut client) = pki.connect(&server, identity, &["http/1.1"]).await {
            let request = client.request("GET", "/.ok", &[], Body::empty());
            assert!(client.send(request).await.is_err(), "{identity:?}");
        }
    }
    assert_eq!(server.app.snapshot().tls_failed, 2);
    assert_eq!(shelf.reports().len(), 1);
}

#[tokio::test]
async fn the_exporter_serves_metrics_and_nothing_else() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = MetricsApp { text: Arc::new(|| Ok("a 1\n".to_owned())), login: None };
    tokio::spawn(serve_exporter(listener, None, metrics, std::future::pending()));
    let mut client = Client::http1(TcpStream::connect(address).await.unwrap()).await;
    assert_eq!(client.ask("GET", "/metrics", &[], Vec::new()).await.body, "a 1\n");
    assert_eq!(client.ask("GET", "/collector", &[], Vec::new()).await.status, 404);
}
