//! Attacks on the TURN server.

use super::attack::{Attack, Stint};
use super::target::Target;
use crate::Failure;
use crate::turn_client::{Client, channel_data, is_success};
use fanlight_base::{Addresses, Protocol};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PER_SECOND: u32 = 8_000;
const SOCKETS: usize = 200;
const ANSWER_MAX: Duration = Duration::from_millis(500);
const CREDENTIAL_S: u64 = 3_600;

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "turn-without-credentials", attackers: 1, run: strangers },
    Attack { name: "turn-to-the-quota", attackers: 1, run: to_the_quota },
    Attack { name: "turn-channel-junk", attackers: 1, run: channel_junk },
];

fn client(target: &Target, socket: &UdpSocket, name: &str) -> Result<Client, Failure> {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + CREDENTIAL_S;
    let addresses = Addresses { local: socket.local_addr()?, remote: target.turn, protocol: Protocol::Udp };
    Ok(Client::new(addresses, name, expires))
}

fn sockets() -> Result<Vec<UdpSocket>, Failure> {
    let socket = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(socket)
    };
    (0..SOCKETS).map(|_| socket()).collect()
}

fn strangers(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let sockets = sockets()?;
    let client = client(target, sockets.first().ok_or("no socket")?, "nobody")?;
    let mut pace = stint.pace(PER_SECOND);
    while pace.next() {
        // What the kernel does not take is lost.
        let _ = sockets[pace.count() as usize % SOCKETS].send_to(&client.ask_nonce()?, target.turn);
    }
    Ok(pace.count())
}

/// Asks, and gives the answer.
fn exchange(target: &Target, socket: &UdpSocket, request: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut buffer = vec![0; 1_500];
    socket.send_to(request, target.turn)?;
    let (length, _) = socket.recv_from(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// One user asks for more relays than anybody gets, over and over.
fn to_the_quota(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let sockets = sockets()?;
    let mut clients = Vec::new();
    for socket in &sockets {
        let mut client = client(target, socket, "greedy")?;
        // Who is not answered because of the limit for strangers has no relay.
        if let Ok(answer) = exchange(target, socket, &client.ask_nonce()?) {
            client.take_nonce(&answer)?;
            clients.push((client, socket));
        }
    }
    let (mut pace, mut granted) = (stint.pace(PER_SECOND), 0);
    while pace.next() {
        let (client, socket) = &clients[pace.count() as usize % clients.len()];
        let _ = socket.send_to(&client.allocate()?, target.turn);
    }
    let mut buffer = [0; 1_500];
    for (_, socket) in &clients {
        socket.set_nonblocking(true)?;
        while let Ok(length) = socket.recv(&mut buffer) {
            granted += u64::from(is_success(&buffer[..length]));
        }
    }
    if granted == 0 { Err("no relay was granted".into()) } else { Ok(pace.count()) }
}

/// ChannelData of channels that nobody bound.
fn channel_junk(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let sockets = sockets()?;
    let junk = channel_data(&[7; 1_000])?;
    let mut pace = stint.pace(PER_SECOND);
    while pace.next() {
        let to: SocketAddr = target.turn;
        let _ = sockets[pace.count() as usize % SOCKETS].send_to(&junk, to);
    }
    Ok(pace.count())
}
