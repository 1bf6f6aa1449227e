//! Signalling of several clients on one server: who floods, or does not read, hurts nobody else.

use super::{PATIENCE, Server, V4, run, text};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tungstenite::{Error, Message, WebSocket};

/// Numbers of the fields of `SignalRequest` and `SignalResponse`.
const MUTE: u32 = 5;
const UPDATE_METADATA: u32 = 15;
const UPDATE: u32 = 5;
const REQUEST_RESPONSE: u32 = 22;

struct Client(WebSocket<TcpStream>);

impl Client {
    fn join(server: &Server, room: &str, identity: &str) -> Self {
        let grant = r#"{"canUpdateOwnMetadata":true}"#;
        let token = run(&["token", "create", "--room", room, "--identity", identity, "--grant", grant]);
        let token = text(&token.stdout);
        let url = format!(
            "ws://127.0.0.1:{}/rtc?access_token={}&protocol=16&sdk=js&version=2.0.0",
            server.port,
            token.trim()
        );
        let stream = TcpStream::connect((V4, server.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let (socket, _) = tungstenite::client(url, stream).expect("it may join");
        Self(socket)
    }

    fn ask(&mut self, request: &[u8]) -> Result<(), Error> {
        self.0.send(Message::Binary(request.to_vec().into()))
    }

    /// Reads until a message of this field comes in which `part` stands.
    fn hear(&mut self, number: u32, part: &str) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let heard = self.0.read().expect("the connection stands");
            if let Message::Binary(bytes) = heard
                && bytes.starts_with(&key(number))
                && bytes.windows(part.len()).any(|window| window == part.as_bytes())
            {
                return;
            }
        }
        panic!("{part} was not told");
    }

    /// A request that the shard answers.
    fn is_answered(&mut self, number: usize) {
        let track = format!("TR_{number}");
        self.ask(&mute(&track)).expect("the connection stands");
        self.hear(REQUEST_RESPONSE, &track);
    }
}

/// Key of a field of bytes (protobuf's wire type 2).
fn key(number: u32) -> Vec<u8> {
    varint(u64::from(number << 3 | 2))
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    [key(number), varint(content.len() as u64), content.to_vec()].concat()
}

fn mute(track: &str) -> Vec<u8> {
    field(MUTE, &field(1, track.as_bytes()))
}

fn metadata(text: &str) -> Vec<u8> {
    field(UPDATE_METADATA, &field(1, text.as_bytes()))
}

/// Writes until it is told to stop, as much as the socket takes.
fn flood(mut client: Client, stop: &AtomicBool) -> Client {
    client.0.get_ref().set_write_timeout(Some(Duration::from_millis(100))).expect("set");
    while !stop.load(Ordering::Relaxed) {
        match client.ask(&mute("TR_flood")) {
            Ok(()) => {}
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("who floods is not closed, but waits: {error}"),
        }
    }
    client
}

#[test]
fn two_sockets_that_flood_keep_nobody_from_signalling() {
    let server = Server::start("");
    let stop = Arc::new(AtomicBool::new(false));
    let mut honest = [Client::join(&server, "theirs", "alice"), Client::join(&server, "other", "bob")];
    let floods: Vec<_> = ["mallory", "mallet"]
        .map(|name| {
            let (client, stop) = (Client::join(&server, "theirs", name), Arc::clone(&stop));
            std::thread::spawn(move || flood(client, &stop))
        })
        .into();
    for number in 0..100 {
        for client in &mut honest {
            client.is_answered(number);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        let mut client = flood.join().expect("it was not closed");
        // What it asked for is answered all the same, at its own pace.
        client.hear(REQUEST_RESPONSE, "TR_flood");
    }
}

#[test]
fn the_last_requests_of_a_connection_come_before_its_end() {
    let server = Server::start("");
    let mut observer = Client::join(&server, "r", "observer");
    for round in 0..5 {
        let mut client = Client::join(&server, "r", &format!("leaver-{round}"));
        for number in 0..200 {
            client.ask(&metadata(&format!("state {round}-{number}."))).expect("the connection stands");
        }
        // What was written is still read; no leave is said.
        client.0.get_ref().shutdown(std::net::Shutdown::Write).expect("shut");
        observer.hear(UPDATE, &format!("state {round}-199."));
    }
}

#[test]
fn who_does_not_read_is_closed_alone() {
    let server = Server::start("");
    let mut honest = Client::join(&server, "r", "honest");
    let mut slow = Client::join(&server, "r", "slow");
    let large = "m".repeat(400_000);
    let end = Instant::now() + 2 * PATIENCE;
    let mut number = 0;
    // Each request is answered with what it asks for, and with a new token that holds it.
    while slow.ask(&metadata(&format!("{number} {large}"))).is_ok() {
        assert!(Instant::now() < end, "it is still there after {number} requests");
        honest.is_answered(number);
        number += 1;
    }
    honest.is_answered(number);
}
