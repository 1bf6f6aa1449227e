//! The collector as its operator meets it: Kohaku's configuration, its log, its metrics, and the server's own keys.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../store/tests/cluster/mod.rs"]
mod cluster;

use cluster::Cluster;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fanlight");
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    for variable in ["LIVEKIT_KEYS", "NODE_IP", "FANLIGHT_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// Free for TCP and UDP, given to nobody else here, and below the ports that the kernel gives to whoever connects.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 200).expect("small") * 50;
    for _ in 0..10_000 {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A program that was started and greeted; killed with the test.
struct Running {
    child: Child,
    greeting: String,
    log: PathBuf,
}

impl Running {
    /// Starts it; `last` is in the last line of its greeting.
    fn start(folder: &Path, arguments: &[&str], last: &str) -> Self {
        let log = folder.join("stderr");
        let mut child = command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut greeting = String::new();
        while !greeting.contains(last) {
            let Some(Ok(line)) = lines.next() else {
                panic!(
                    "it ended before it served: {greeting}\n{}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
            };
            greeting.push_str(&line);
            greeting.push('\n');
        }
        Self { child, greeting, log }
    }

    /// Ends it as an operator would.
    fn end(mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.child.wait().expect("it ended");
        assert!(status.success(), "{}", fs::read_to_string(&self.log).unwrap_or_default());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An operator's Kohaku.
struct Kohaku {
    folder: TempDir,
    port: u16,
    exporter: u16,
}

impl Kohaku {
    fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder"), port: free_port(), exporter: free_port() }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain path").to_owned()
    }

    fn configure(&self, more: &str) -> String {
        let path = self.file("config.ini");
        let text = format!(
            "listen_addr = 127.0.0.1\nlisten_port = {}\nexporter_listen_addr = 127.0.0.1\nexporter_listen_port = {}\n\
             log_dir = {}\n{more}",
            self.port,
            self.exporter,
            self.folder.path().display()
        );
        fs::write(&path, text).expect("written");
        path
    }

    fn start(&self, more: &str, arguments: &[&str]) -> Running {
        let (config, data) = (self.configure(more), self.file("data"));
        let mut all = vec!["collector", "--kohaku-config", &config, "--data-dir", &data];
        all.extend(arguments);
        Running::start(self.folder.path(), &all, "kept in")
    }

    fn metric(&self, name: &str) -> String {
        let (_, text) = ask(self.exporter, "GET", "/metrics", &[], "");
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.map(|line| line[name.len() + 1..].to_owned()).unwrap_or_default()
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("kohaku.jsonl")).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }
}

/// Status and body, over HTTP/1.1.
fn ask(port: u16, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nUser-Agent: test\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    )
    .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

const EXPORTER: [&str; 2] =
    ["content-type: application/json", "x-sora-stats-exporter-type: connection.user-agent"];
const WEBHOOK: [&str; 2] = ["content-type: application/json", "sora-stats-webhook-type: connection.rtc"];

fn report(second: u32, bytes: u64) -> String {
    json!({
        "type": "connection.user-agent", "timestamp": format!("2026-11-21T20:19:{second:02}Z"),
        "label": "WebRTC SFU Sora", "version": "2025.1.0", "node_name": "sora@127.0.0.1",
        "multistream": true, "simulcast": false, "spotlight": false, "role": "sendrecv",
        "channel_id": "sora", "client_id": "c", "session_id": "E5ZA7T4F0D3Z10QCZ7X7T3WMG8",
        "connection_id": "NNZ1T9F48S2SZF6E4CW3M0RJ4W",
        "stats": [
            {"timestamp": 1.0, "id": "T01", "type": "transport", "bytesSent": bytes},
            {"timestamp": 1.0, "id": "C01", "type": "codec", "payloadType": 96},
        ],
    })
    .to_string()
}

#[test]
fn kohakus_configuration_is_enough() {
    let kohaku = Kohaku::new();
    let running = kohaku.start("", &[]);
    for expected in [
        format!("http://127.0.0.1:{}/collector", kohaku.port),
        format!("http://127.0.0.1:{}/metrics", kohaku.exporter),
        "clients.db".to_owned(),
    ] {
        assert!(running.greeting.contains(&expected), "{}", running.greeting);
    }
    assert_eq!(ask(kohaku.port, "POST", "/collector", &EXPORTER, &report(0, 1)), (204, String::new()));
    assert_eq!(ask(kohaku.port, "POST", "/sora/webhook/stats", &WEBHOOK, &report(1, 2)).0, 204);
    assert_eq!(ask(kohaku.port, "POST", "/collector", &EXPORTER, "{}").0, 400);
    assert_eq!(ask(kohaku.port, "GET", "/.ok", &[], "").0, 204);
    assert_eq!(kohaku.metric("fanlight_collector_stored_objects_total"), "3", "the codec has not changed");
    let requests = r#"echo_requests_total{code="204",host="here",method="POST",url="/collector"}"#;
    assert_eq!(kohaku.metric(requests), "1");
    running.end();

    let log = kohaku.log();
    let said = |message: &str| log.iter().filter(|line| line["message"] == message).count();
    assert!(said("CONF") > 0 && said("SERVER-STARTED") == 1 && said("EXPORTER-STARTED") == 1, "{log:?}");
    let posts: Vec<_> = log.iter().filter(|line| line["message"] == "POST").collect();
    let statuses: Vec<_> = posts.iter().map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(204), Some(204), Some(400)]);
    assert_eq!((&posts[0]["user_agent"], &posts[0]["remote_ip"]), (&json!("test"), &json!("127.0.0.1")));
    assert!(posts[2]["error"].as_str().is_some_and(|error| !error.is_empty()));
    assert_eq!(said("GET"), 0, "health is not logged");

    // What it knew it still knows.
    let running = kohaku.start("", &[]);
    assert_eq!(ask(kohaku.port, "POST", "/collector", &EXPORTER, &report(1, 2)).0, 204);
    assert_eq!(kohaku.metric("fanlight_collector_duplicate_reports_total"), "1");
    assert_eq!(ask(kohaku.port, "POST", "/collector", &EXPORTER, &report(2, 3)).0, 204);
    assert_eq!(kohaku.metric("fanlight_collector_stored_objects_total"), "1");
    running.end();
}

#[test]
fn strict_is_as_kohaku_was() {
    let kohaku = Kohaku::new();
    let running = kohaku.start("log_stdout = true\n", &["--strict-kohaku"]);
    let (status, body) = ask(kohaku.port, "POST", "/collector", &EXPORTER, &report(0, 1));
    assert_eq!((status, body.as_str()), (400, "{\"message\":\"Bad Request\"}\n"), "it wanted HTTP/2");
    assert_eq!(ask(kohaku.port, "POST", "/.ok", &[], "").0, 204);
    assert!(running.greeting.contains("SERVER-STARTED"), "the log is on standard output");
    assert!(!kohaku.folder.path().join("kohaku.jsonl").exists());
    running.end();
}

#[test]
fn what_kohakus_configuration_cannot_have_is_said() {
    let kohaku = Kohaku::new();
    for (more, expected) in [
        ("listen_prot = 1\n", "config.ini: line 6: `listen_prot` is no key of Kohaku's"),
        ("debug = perhaps\n", "line 6: `debug` is `perhaps`; write true or false"),
        ("https = true\n", "https = true needs tls_fullchain_file"),
        ("http2_max_read_frame_size = 1\n", "HTTP/2 has 16384"),
        ("postgres_uri = postgres://u:secret@h/db?sslmode=maybe\n", "sslmode in postgres_uri is `maybe`"),
        ("clickhouse_addr = h:9000\n", "cannot write to ClickHouse"),
        ("log_dir = /nowhere/at/all\n", "cannot write the log to /nowhere/at/all/kohaku.jsonl"),
    ] {
        let config = kohaku.configure(more);
        let output = command().args(["collector", "--kohaku-config", &config]).output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(expected), "{more}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let output =
        command().args(["collector", "--kohaku-config", "/nowhere/config.ini"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read /nowhere/config.ini"));
}

/// A media server of its own, with these keys below `fanlight.collector`.
fn serve(folder: &Path, keys: &str, arguments: &[&str]) -> Running {
    let config = folder.join("config.yaml");
    let (udp, tcp) = (free_port(), free_port());
    let text = format!("rtc: {{udp_port: {udp}, tcp_port: {tcp}}}\nfanlight: {{collector: {{{keys}}}}}\n");
    fs::write(&config, text).expect("written");
    let path = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (config, data, port) = (path(&config), path(&folder.join("data")), free_port().to_string());
    let mut all = vec!["--dev", "--config", &config, "--data-dir", &data, "--port", &port];
    all.extend(arguments);
    // The record is named last.
    Running::start(folder, &all, "record ")
}

#[test]
fn the_server_collects_too() {
    let folder = TempDir::new().expect("a folder");
    let (port, exporter) = (free_port(), free_port());
    let keys = format!("port: {port}, exporter_port: {exporter}, webhook_path: /w");
    let running = serve(folder.path(), &keys, &[]);
    assert!(running.greeting.contains(&format!("http://127.0.0.1:{port}/collector")), "{}", running.greeting);
    assert_eq!(ask(port, "POST", "/w/", &WEBHOOK, &report(0, 1)), (204, String::new()));
    assert_eq!(ask(port, "POST", "/sora/webhook/stats", &WEBHOOK, &report(0, 1)).0, 404);
    let (status, metrics) = ask(exporter, "GET", "/metrics", &[], "");
    assert!(status == 200 && metrics.contains("fanlight_collector_stored_reports_total 1"), "{metrics}");
    running.end();
    assert!(folder.path().join("data/clients.db").exists());

    let running = serve(folder.path(), &keys, &["--strict-kohaku"]);
    assert_eq!(ask(port, "POST", "/collector", &EXPORTER, &report(1, 1)).0, 400);
    running.end();
}

#[test]
fn a_port_that_is_taken_matters_only_to_who_asked_for_it() {
    let folder = TempDir::new().expect("a folder");
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let taken = holder.local_addr().expect("bound").port();
    let running = serve(folder.path(), &format!("port: {taken}"), &[]);
    assert!(!running.greeting.contains("client stats"), "{}", running.greeting);
    let log = fs::read_to_string(&running.log).expect("a log");
    assert!(log.contains("the collector is not served"), "{log}");
    running.end();

    let config = folder.path().join("config.yaml");
    fs::write(&config, format!("fanlight: {{collector: {{enabled: true, port: {taken}}}}}\n"))
        .expect("written");
    let output = command()
        .args(["--dev", "--port", &free_port().to_string(), "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(folder.path().join("other"))
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("choose another fanlight.collector.port"), "{error}");
}

/// What a server says of clients whose reports it has been given.
struct Told {
    running: Running,
    port: u16,
    config: String,
}

impl Told {
    /// A server with these keys below `fanlight.collector`, and the same reports each time.
    fn start(folder: &Path, keys: &str) -> Self {
        let collector = free_port();
        let key = "a-key-for-pages-0001";
        let keys = format!(
            "port: {collector}, exporter_port: 0, retention_days: 0, keys: [{{key: {key}, origins: ['*']}}], {keys}"
        );
        let running = serve(folder, &keys, &[]);
        let (_, rest) = running.greeting.split_once("http://127.0.0.1:").expect("an address");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let port = digits.parse().expect("a port");
        for second in 0..3 {
            let body = report(second, u64::from(second) * 1_000);
            assert_eq!(ask(collector, "POST", "/collector", &EXPORTER, &body), (204, String::new()));
        }
        let sent = |at: u64, packets: u64| {
            json!({"connection": "peer", "at": at, "stats": [
                {"id": "O", "type": "outbound-rtp", "timestamp": at, "packetsSent": packets, "qualityLimitationDurations": {"none": 1.5}},
                {"id": "C", "type": "codec", "timestamp": 1.5}, {"id": "none"}]})
        };
        let now = 1_795_000_002_000_u64;
        let said = [sent(now - 2_000, 7), sent(now - 1_000, 9), sent(now, 9)];
        let body = json!({"key": key, "room": "loop", "user": "dora", "page": "life", "version": "1", "now": now, "reports": said});
        let page = ["content-type: text/plain", "origin: https://shop.example"];
        assert_eq!(ask(port, "POST", "/api/v1/client-stats", &page, &body.to_string()).0, 204);
        let config = folder.join("config.yaml").to_str().expect("a plain path").to_owned();
        Self { running, port, config }
    }

    fn api(&self, what: &str) -> (u16, Value) {
        let made = command().args(["token", "create", "--identity", "me", "--room-admin"]).output();
        let token = String::from_utf8(made.expect("it runs").stdout).expect("a text");
        let path = format!("/api/v1/clients{what}");
        let (status, body) =
            ask(self.port, "GET", &path, &[&format!("Authorization: Bearer {}", token.trim())], "");
        let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {body}"));
        if let Some(members) = answer.as_object_mut() {
            members.remove("now_ms");
        }
        (status, answer)
    }
}

#[test]
fn the_api_tells_the_same_of_reports_in_postgresql() {
    let folders = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let mut cluster = Cluster::start();
    let uri = cluster.database("d");
    let sqlite = Told::start(folders[0].path(), "");
    let postgres = Told::start(folders[1].path(), &format!("postgres_uri: '{uri}'"));
    let (_, listed) = sqlite.api("");
    assert_eq!(listed["total"], 2, "{listed}");
    for what in [
        "",
        "?room=sora",
        "?user=dora&source=browser-key",
        "?connection=NNZ1T9F48S2SZF6E4CW3M0RJ4W",
        "?from=2026-11-18&to=2026-11-18T11:06:41Z",
        "?participant=PA_none",
        "?limit=1&offset=1",
        "/1",
        "/2",
        "/3",
        "/1/latest",
        "/2/latest",
        "/1/series?type=transport&id=T01",
        "/2/series?type=outbound-rtp&id=O",
        "/2/series?type=outbound-rtp&id=O&from=2026-11-18T11:06:41Z",
    ] {
        let (of_sqlite, of_postgres) = (sqlite.api(what), postgres.api(what));
        assert_eq!(of_sqlite, of_postgres, "{what}");
        assert!(of_sqlite.0 == 200 || what == "/3", "{what}: {of_sqlite:?}");
    }
    cluster.end("INT");
    let (status, refused) = postgres.api("");
    assert_eq!(status, 503);
    let place = format!("PostgreSQL at 127.0.0.1:{}/d: ", cluster.port());
    assert!(refused["msg"].as_str().is_some_and(|text| text.starts_with(&place)), "{refused}");
    // The record does not need it.
    let mut report = command();
    report.args(["report", "--room", "none", "--config", &postgres.config, "--data-dir"]);
    let output = report.arg(folders[1].path().join("data")).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("no room with name or sid"), "{error}");
    cluster.go_on();
    assert_eq!(postgres.api("/1"), sqlite.api("/1"));
    for told in [sqlite, postgres] {
        told.running.end();
    }
}
