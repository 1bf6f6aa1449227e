//! Attacks on the main port by strangers.

use super::attack::{Attack, Pace, Stint, together};
use super::target::Target;
use crate::Failure;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
/// Requests with a body at a time, and its length.
const BODIES: usize = 200;
const BODY_BYTES: usize = 10_000_000;
const PART_BYTES: usize = 64 << 10;
/// Requests with a long head at a time, and its length.
const HEADS: usize = 2_000;
const HEAD_BYTES: usize = 900_000;
/// Connections that say a byte now and then.
const SLOW: usize = 2_000;
/// Connections that say nothing.
const SILENT: usize = 3_000;
const CONNECTIONS_PER_SECOND: u32 = 2_000;
const WRITES_PER_SECOND: u32 = 2_000;

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "http-bodies", attackers: 1, run: bodies },
    Attack { name: "http-long-heads", attackers: 1, run: long_heads },
    Attack { name: "http-slow-heads", attackers: 1, run: slow_heads },
    Attack { name: "http-silent", attackers: 1, run: silent },
    Attack { name: "http-churn", attackers: 1, run: churn },
];

/// A connection that does not wait for what the server does not take.
fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn bodies(target: &Target, stint: Stint) -> Result<u64, Failure> {
    const PATHS: [&str; 4] =
        ["/api/v1/client-stats", "/twirp/livekit.RoomService/ListRooms", "/rtc/validate", "/meet/token"];
    let head = |number: usize| {
        let path = PATHS[number % PATHS.len()];
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {BODY_BYTES}\r\n\r\n")
            .into_bytes()
    };
    pour(target.http, stint, BODIES, BODY_BYTES, head)
}

fn long_heads(target: &Target, stint: Stint) -> Result<u64, Failure> {
    pour(target.http, stint, HEADS, HEAD_BYTES, |_| b"GET /rtc?access_token=".to_vec())
}

/// So many connections at a time, each of which says how it begins and then so many bytes more.
fn pour(
    address: SocketAddr,
    stint: Stint,
    count: usize,
    bytes: usize,
    begin: impl Fn(usize) -> Vec<u8>,
) -> Result<u64, Failure> {
    let mut open: Vec<(TcpStream, usize)> = Vec::new();
    let part = [b'a'; PART_BYTES];
    let (mut pace, mut opened) = (stint.pace(WRITES_PER_SECOND), 0);
    while pace.next() {
        if open.len() < count
            && let Ok(mut stream) = connect(address)
        {
            opened += 1;
            // A connection that is refused or closed is replaced.
            if stream.write_all(&begin(opened)).is_ok() {
                open.push((stream, 0));
            }
        }
        let at = pace.count() as usize % open.len().max(1);
        let Some((stream, written)) = open.get_mut(at) else { continue };
        let wanted = PART_BYTES.min(bytes - *written);
        match stream.write(&part[..wanted]) {
            Ok(taken) if taken < wanted || wanted > 0 => *written += taken,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => drop(open.swap_remove(at)),
        }
    }
    Ok(opened as u64)
}

/// A byte to each connection in turn, so that none is silent.
fn slow_heads(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let begin = b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
    let mut pace = stint.pace(CONNECTIONS_PER_SECOND);
    let (mut open, mut opened) = (Vec::new(), 0);
    while pace.next() {
        let at = pace.count() as usize;
        if open.len() < SLOW {
            if let Ok(mut stream) = connect(target.http) {
                opened += 1;
                let _ = stream.write_all(begin);
                open.push(stream);
            }
        } else if open[at % SLOW]
            .write(b"a")
            .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        {
            open.swap_remove(at % SLOW);
        }
    }
    Ok(opened)
}

fn silent(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let mut pace = stint.pace(CONNECTIONS_PER_SECOND);
    let mut open = Vec::new();
    while pace.next() {
        if let Ok(stream) = connect(target.http) {
            open.push(stream);
        }
        if open.len() > SILENT {
            open.remove(0);
        }
    }
    Ok(pace.count())
}

/// Requests on connections of their own, as fast as they are answered.
fn churn(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(2, |_| {
        let mut pace = stint.pace(CONNECTIONS_PER_SECOND);
        while pace.next() {
            // Too many are refused, as they should be.
            let _ = ask(target.http, b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        }
        Ok(pace.count())
    })
}

/// Sends a request on a connection of its own and reads the answer to its end; gives its status.
pub(super) fn ask(address: SocketAddr, request: &[u8]) -> Result<u16, Failure> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let line = answer.get(9..12).ok_or("no answer")?;
    Ok(std::str::from_utf8(line)?.parse()?)
}

/// The same request as often as it is answered; gives how often, and fails if none was answered as it should be.
pub(super) fn repeat(
    address: SocketAddr,
    pace: &mut Pace,
    expected: &[u16],
    request: impl Fn(u64) -> Vec<u8>,
) -> Result<u64, Failure> {
    let (mut good, mut other) = (0u64, None);
    while pace.next() {
        match ask(address, &request(pace.count())) {
            Ok(status) if expected.contains(&status) => good += 1,
            answer => other = Some(answer),
        }
    }
    match other {
        Some(Ok(status)) if good == 0 => Err(format!("answered with {status}").into()),
        Some(Err(failure)) if good == 0 => Err(failure),
        _ => Ok(pace.count()),
    }
}
