//! What a real coturn said to a Redis server, said to our listener: the same commands on as many connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::settings;
use fanlight_base::Redacted;
use fanlight_events::turn::LegCounters;
use fanlight_store::coturn::{RespListener, RespSettings};
use fanlight_store::{Store, turn_allocations, turn_sessions, turn_status};
use fanlight_telemetry::turn_account::{Class, EndReason, Quality, SessionRecord};
use fanlight_telemetry::turn_query::{Filter, Slice};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const STREAMS: &str = include_str!("data/coturn-resp-streams.txt");
/// A loaded machine writes within this.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);

/// Says the recorded commands of coturn up to `until`, as fast as they are answered.
async fn replay(address: std::net::SocketAddr, lines: &[&str]) {
    let mut connections: BTreeMap<&str, TcpStream> = BTreeMap::new();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (Some(_time), Some(port), Some(rest)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        match rest {
            "OPEN" => _ = connections.insert(port, TcpStream::connect(address).await.unwrap()),
            "CLOSE" => _ = connections.remove(port),
            command => {
                let stream = connections.get_mut(port).unwrap();
                stream.write_all(&resp(command)).await.unwrap();
                let mut answer = [0; 64];
                assert!(stream.read(&mut answer).await.unwrap() > 0, "{command}");
                assert_ne!(answer[0], b'-', "{command}");
            }
        }
    }
}

/// `'publish' 'channel' 'payload'` as RESP2.
fn resp(command: &str) -> Vec<u8> {
    let inner = command.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap();
    let words: Vec<&str> = inner.split("' '").collect();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

/// Until the record says what is asked for.
async fn until<T: std::fmt::Debug>(read: impl Fn() -> T, ready: impl Fn(&T) -> bool) -> T {
    let started = Instant::now();
    loop {
        let value = read();
        if ready(&value) {
            return value;
        }
        assert!(started.elapsed() < WRITTEN_WITHIN, "{value:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The TURN servers of the open allocations.
fn open_nodes(dir: &Path) -> Vec<String> {
    let open = turn_allocations(dir, &Filter::default(), Slice::ALL).unwrap().rows;
    let mut nodes: Vec<String> = open.iter().map(|allocation| allocation.node.to_string()).collect();
    nodes.sort_unstable();
    nodes
}

/// The two servers of the recording: 4.6.1 selects database 42, 4.17.1 selects 77.
fn servers() -> (Vec<&'static str>, Vec<&'static str>) {
    let lines: Vec<&str> = STREAMS.lines().filter(|line| line.starts_with("02:")).collect();
    let second = lines.iter().position(|line| line.contains(" 36124 OPEN")).unwrap();
    (lines[..second].to_vec(), lines[second..].to_vec())
}

#[tokio::test]
async fn a_real_coturns_commands_become_sessions_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), settings()).unwrap();
    let settings =
        RespSettings { address: ([127, 0, 0, 1], 0).into(), password: None, release: None, tee: None };
    let listener = RespListener::bind(settings, store.sender(), store.turn_monitor().inputs()).await.unwrap();
    let address = listener.address().unwrap();
    let running = tokio::spawn(listener.run());
    let (old, new) = servers();
    replay(address, &old).await;
    replay(address, &new).await;
    // Both servers were killed while ruth2 had an allocation.
    until(|| open_nodes(dir.path()), |nodes| *nodes == ["127.0.0.1/42", "127.0.0.1/77"]).await;
    let read = || turn_sessions(dir.path(), &Filter::default(), Slice::ALL).unwrap().rows;
    let all_of_ruth = |sessions: &Vec<SessionRecord>| {
        sessions.iter().filter(|session| session.who.person == "ruth" && session.ended.is_some()).count() == 2
    };
    let sessions = until(read, all_of_ruth).await;
    let ruth: Vec<&SessionRecord> = sessions.iter().filter(|session| session.who.person == "ruth").collect();
    assert_eq!(ruth.len(), 2);
    for (session, rx_bytes, tx_bytes) in [(ruth[0], 352, 384), (ruth[1], 348, 204)] {
        assert_eq!((session.client.rx_bytes, session.client.tx_bytes), (rx_bytes, tx_bytes));
        assert_eq!(session.peer, LegCounters::default());
        assert_eq!((session.quality, session.class), (Quality::Exact, Class::Unused));
        assert_eq!(session.ended.map(|(_, reason)| reason), Some(EndReason::Released));
    }
    // The first one is started again: it looks for leftovers, and what it had is over.
    let start: Vec<&str> = old.iter().copied().take_while(|line| !line.contains("'set'")).collect();
    replay(address, &start).await;
    until(|| open_nodes(dir.path()), |nodes| *nodes == ["127.0.0.1/77"]).await;
    let ruth2 = read().into_iter().find(|session| session.who.person == "ruth2").unwrap();
    assert_eq!((ruth2.ended, ruth2.allocations, ruth2.max_concurrent), (None, 1, 2));
    // Who asks the record later learns how the input fared, at most a second behind.
    let health = || -> Option<serde_json::Value> {
        turn_status(dir.path()).unwrap().and_then(|(_, status)| serde_json::from_str(&status).ok())
    };
    let told = |health: &Option<serde_json::Value>| {
        let Some(health) = health else { return false };
        let input = &health["inputs"][0];
        (&input["name"], &input["messages"], &input["unreadable"]) == (&"resp".into(), &18.into(), &0.into())
            && input["last_message_ms"].as_u64() > Some(0)
            && health["sessions_ended"]["released"] == 2
    };
    until(health, told).await;
    running.abort();
    store.close();
}

#[tokio::test]
async fn a_listener_with_a_password_takes_nothing_from_a_coturn_without() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), settings()).unwrap();
    let password = Some(Redacted::new("secret".to_owned()));
    let settings = RespSettings { address: ([127, 0, 0, 1], 0).into(), password, release: None, tee: None };
    let monitor = store.turn_monitor();
    let listener = RespListener::bind(settings, store.sender(), monitor.inputs()).await.unwrap();
    let address = listener.address().unwrap();
    let running = tokio::spawn(listener.run());
    let mut stream = TcpStream::connect(address).await.unwrap();
    for (command, expected) in [
        ("'AUTH' ''", "-WRONGPASS"),
        ("'publish' 'turn/user//allocation/000000000000000001/status' 'deleted'", "-NOAUTH"),
        ("'AUTH' 'secret'", "+OK"),
        ("'publish' 'turn/user//allocation/000000000000000001/status' 'deleted'", ":1"),
        ("'publish' 'news' 'none'", ":1"),
    ] {
        stream.write_all(&resp(command)).await.unwrap();
        let mut answer = [0; 256];
        let len = stream.read(&mut answer).await.unwrap();
        assert!(answer[..len].starts_with(expected.as_bytes()), "{command}");
    }
    let input = &monitor.snapshot().inputs[0];
    assert_eq!((input.name, input.messages, input.unreadable), ("resp", 1, 1));
    assert_eq!((input.address.clone(), input.connected), (address.to_string(), true));
    running.abort();
    store.close();
}
