//! The program as its operator meets it: command line, configuration, messages, signals.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod server;

use server::*;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "process/signalling.rs"]
mod signalling;

#[test]
fn it_says_what_it_serves_and_serves_it_on_both_loopback_addresses() {
    let mut server = Server::start("");
    for expected in ["http://127.0.0.1:", "http://[::1]:", "media over UDP", "media over TCP", "devkey"] {
        assert!(server.greeting.contains(expected), "{expected}: {}", server.greeting);
    }
    for ip in [V4, V6] {
        assert!(server.get(ip, "/").starts_with("HTTP/1.1 200"), "health on {ip}");
    }
    let meet = server.get(V4, "/meet");
    let status = if cfg!(feature = "web") { "HTTP/1.1 200" } else { "HTTP/1.1 404" };
    assert!(meet.starts_with(status), "{meet}");
    assert_eq!(server.greeting.contains("/meet"), cfg!(feature = "web"));
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.log());
}

#[test]
fn each_core_has_a_shard_if_there_is_a_port_for_it_and_all_share_one_of_tcp() {
    let server = Server::start("");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let udp = server.greets_with("media over UDP");
    assert_eq!(udp.matches("127.0.0.1:").count(), cores.min(2), "{udp}");
    let tcp = server.greets_with("media over TCP");
    assert_eq!(tcp.matches("127.0.0.1:").count(), 1, "{tcp}");
}

#[test]
fn a_signal_ends_sessions_with_a_leave() {
    let mut server = Server::start("");
    let (mut socket, status) = server.join("r", "alice");
    assert_eq!(status, "HTTP/1.1 101");
    server.signal("INT");
    let rest = rest_of(&mut socket);
    // SERVER_SHUTDOWN, DISCONNECT
    assert!(has_leave(&rest, 3, 0), "no leave in {:?}", &rest[rest.len().saturating_sub(40)..]);
    assert!(server.wait().success(), "{}", server.log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start("");
    // Two different ones, which the kernel cannot merge.
    server.signal("INT");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(130), "{}", server.log());
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let server = Server::start("");
    let folder = Folder::new();
    let data = folder.file("data");
    let second = run(&["--dev", "--port", &server.port.to_string(), "--data-dir", &data]);
    assert_eq!(second.status.code(), Some(1));
    let message = text(&second.stderr);
    assert!(
        message.contains(&format!("127.0.0.1:{}", server.port)) && message.contains("--port"),
        "{message}"
    );
    // The same for media.
    let udp = UdpSocket::bind((V4, 0)).expect("a port");
    let held = udp.local_addr().expect("bound");
    let config = format!("rtc:\n  udp_port: {}\n  tcp_port: 0\n", held.port());
    let config = folder.write("config.yaml", &config);
    let port = free_tcp().to_string();
    let second = run(&["--dev", "--port", &port, "--config", &config, "--data-dir", &data]);
    let message = text(&second.stderr);
    assert!(message.contains(&held.to_string()) && message.contains("rtc.udp_port"), "{message}");
}

#[test]
fn keys_that_change_nothing_are_warned_of_and_unknown_ones_refused() {
    let server = Server::start("region: here\nroom:\n  sync_streams: true\nlimit:\n  num_tracks: 100\n");
    let log = server.log();
    assert!(log.contains("`region`") && log.contains("`room.sync_streams`"), "{log}");
    assert!(!log.contains("num_tracks"), "{log}");
    let folder = Folder::new();
    let config = folder.write("config.yaml", "port: 7880\nrtc:\n  udp_prot: 1\n");
    let refused = run(&["--dev", "--config", &config]);
    let message = text(&refused.stderr);
    assert!(!refused.status.success());
    assert!(
        message.contains("udp_prot") && message.contains("line 3") && message.contains(&config),
        "{message}"
    );
}

#[test]
fn a_node_over_its_limit_says_so_and_takes_people_again_when_it_is_not() {
    let server = Server::start("limit:\n  bytes_per_sec: 1_000\n");
    let token = run(&["token", "create", "--room", "r", "--identity", "alice"]);
    let path = format!("/rtc/validate?access_token={}", text(&token.stdout).trim());
    assert!(server.get(V4, &path).starts_with("HTTP/1.1 200"));
    let line = server.greets_with("media over UDP");
    let media = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).expect("an address");
    let socket = UdpSocket::bind((V4, 0)).expect("a port");
    let wait_for = |status: &str, bytes: usize| {
        let end = Instant::now() + PATIENCE;
        loop {
            // Of nobody, and received all the same.
            socket.send_to(&vec![0; bytes], media).expect("sent");
            let answer = server.get(V4, &path);
            if answer.starts_with(status) {
                return answer;
            }
            assert!(Instant::now() < end, "{answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let refused = wait_for("HTTP/1.1 503", 1_000);
    assert!(refused.contains("node has exceeded its configured limit"), "{refused}");
    wait_for("HTTP/1.1 200", 1);
}

#[test]
fn keys_come_from_a_file_or_the_environment_and_without_any_it_says_where_to_put_them() {
    let none = text(&run(&[]).stderr);
    assert!(none.contains("LIVEKIT_KEYS") && none.contains("--dev"), "{none}");
    let folder = Folder::new();
    let keys = folder.write("keys.yaml", &format!("key: {LONG_SECRET}\n"));
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).expect("set");
    let open = text(&run(&["--key-file", &keys]).stderr);
    assert!(open.contains(&format!("chmod 600 {keys}")), "{open}");
    let token = command()
        .env("LIVEKIT_KEYS", format!("mine: {LONG_SECRET}"))
        .args(["token", "create", "--room", "r", "--identity", "i", "--api-key", "mine"])
        .output()
        .expect("it starts");
    assert!(token.status.success(), "{}", text(&token.stderr));
    assert_eq!(text(&token.stdout).trim().split('.').count(), 3);
}

#[test]
fn help_names_every_flag() {
    let help = text(&run(&["--help"]).stdout);
    for flag in
        ["--dev", "--config", "--bind", "--node-ip", "--keys", "--port", "--data-dir", "report", "token"]
    {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    let help = text(&run(&["token", "create", "--help"]).stdout);
    for flag in ["--room", "--identity", "--name", "--valid-for", "--grant", "--can-publish", "--attributes"]
    {
        assert!(help.contains(flag), "{flag}: {help}");
    }
}

#[test]
fn prometheus_reads_its_own_port_with_a_login() {
    let port = free_tcp();
    let server = Server::start(&format!("prometheus: {{port: {port}, username: prom, password: s3cret}}\n"));
    assert!(server.greets_with("metrics").contains(&format!(":{port}/metrics")));
    let get = |path: &str, authorization: &str| {
        let mut stream = TcpStream::connect((V4, port)).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n{authorization}Connection: close\r\n\r\n")
            .expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        text(&answer)
    };
    // printf prom:s3cret | base64
    let login = "Authorization: Basic cHJvbTpzM2NyZXQ=\r\n";
    assert!(get("/metrics", "").starts_with("HTTP/1.1 401"));
    assert!(get("/metrics", "Authorization: Basic cHJvbTpvdGhlcg==\r\n").starts_with("HTTP/1.1 401"));
    let metrics = get("/metrics", login);
    assert!(
        metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/plain; version=0.0.4"),
        "{metrics}"
    );
    for line in [
        "# TYPE fanlight_shard_turns_total counter",
        "# TYPE turn_total_traffic_rcvb counter",
        "fanlight_build_info",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(get("/anything", login).starts_with("HTTP/1.1 200"));
    // It is not served where the public comes.
    assert!(server.get(V4, "/metrics").starts_with("HTTP/1.1 404"));
}

#[test]
fn what_the_record_says_of_turn_is_told_to_this_machine_in_development() {
    let server = Server::start("");
    let answer = server.get(V4, "/api/v1/turn/inputs");
    assert!(answer.starts_with("HTTP/1.1 401"), "a request for another host than this machine: {answer}");
    let mut stream = TcpStream::connect((V4, server.port)).expect("it listens");
    write!(stream, "GET /api/v1/turn/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = text(&answer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"sessions\":[]"), "{answer}");
}

/// Whatever is below `path`, with its mode.
fn modes(path: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(path.to_owned(), fs::metadata(path).expect("there").permissions().mode() & 0o777)];
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            found.extend(modes(&entry.expect("an entry").path()));
        }
    }
    found
}

#[test]
fn only_its_owner_reads_what_the_server_writes() {
    let keys = format!("enabled: true, port: {}, exporter_port: {}", free_tcp(), free_tcp());
    let server = Server::start(&format!("fanlight: {{collector: {{{keys}}}}}\n"));
    let found = modes(&server.folder.0.join("data"));
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    for file in ["fanlight.db", "fanlight.db-wal", "fanlight.db-shm", "clients.db", "clients.db-wal"] {
        assert!(found.iter().any(|(path, _)| name(path).as_deref() == Some(file)), "{file}: {found:?}");
    }
    for (path, mode) in found {
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[test]
fn the_key_everybody_knows_is_refused_beyond_this_machine() {
    let folder = Folder::new();
    let config = folder.write("config.yaml", "keys: {devkey: secret}\n");
    let refused =
        run(&["--config", &config, "--port", &free_tcp().to_string(), "--data-dir", &folder.file("data")]);
    let error = text(&refused.stderr);
    assert!(!refused.status.success() && error.contains("devkey") && error.contains("--dev"), "{error}");
    assert!(!folder.0.join("data").exists(), "nothing was begun");
}
