//! `bench sctp`: what data channels cost, and what a hostile peer can make them cost.

use crate::Failure;
use crate::cpu::Stopwatch;
use crate::figures::{lower_quartile, print};
use crate::process::resident_bytes;
use fanlight_transport::fuzzing::handmade::{
    self, FIRST_TSN, HandmadePeer, PEER_TAG, chunk, data, ordered_data, packet, reset_request,
};
use std::process::Command;
use std::time::{Duration, Instant};

/// Packets of a sample.
const PACKETS: u32 = 2_000;
const SAMPLES: usize = 9;
/// Associations whose memory is measured together.
const ASSOCIATIONS: usize = 200;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const COOKIE_ECHO: u8 = 10;
const FORWARD_TSN: u8 = 192;

/// The next packet of a peer.
type Sender = fn(&mut HandmadePeer, u32) -> Vec<u8>;

const RECEIVE: &[(&str, Sender)] =
    &[("100_bytes", |peer, _| message(peer, 100)), ("1000_bytes", |peer, _| message(peer, 1_000))];

const ATTACKS: &[(&str, Sender)] = &[
    ("forward_tsn", |peer, n| {
        let new = FIRST_TSN.wrapping_add(n.wrapping_mul(0x7fff_fff0));
        packet(peer.tag, &[chunk(FORWARD_TSN, 0, &new.to_be_bytes())])
    }),
    ("forward_tsn_streams", |peer, n| {
        let mut value = FIRST_TSN.wrapping_add(n).to_be_bytes().to_vec();
        value.extend((0..64u16).flat_map(|stream| [0, (stream % 4) as u8, 0, stream as u8]));
        packet(peer.tag, &[chunk(FORWARD_TSN, 0, &value)])
    }),
    ("reconfig", |peer, n| {
        let data = data(peer.tsn, (n % 200) as u16, 7, 53, b"x");
        let last = peer.tsn;
        peer.tsn = peer.tsn.wrapping_add(1);
        packet(peer.tag, &[data, reset_request(FIRST_TSN + n, 0, last.wrapping_sub(1), &[(n % 200) as u16])])
    }),
    ("first_fragments", |peer, _| {
        peer.tsn = peer.tsn.wrapping_add(1);
        packet(peer.tag, &[data(peer.tsn.wrapping_sub(1), 0, 6, 53, b"x")])
    }),
    ("first_fragments_60", |peer, _| {
        peer.tsn = peer.tsn.wrapping_add(60);
        let chunks: Vec<_> = (0..60).map(|n| data(peer.tsn.wrapping_sub(60 - n), 0, 6, 53, b"x")).collect();
        packet(peer.tag, &chunks)
    }),
    ("gaps", |peer, n| packet(peer.tag, &[data(FIRST_TSN + 1 + 2 * (n % 500), 0, 7, 53, b"x")])),
    ("gaps_40", |peer, n| {
        let first = FIRST_TSN + 1 + 80 * (n % 12);
        let chunks: Vec<_> = (0..40).map(|n| data(first + 2 * n, 0, 7, 53, b"x")).collect();
        packet(peer.tag, &chunks)
    }),
    ("duplicates_60", |peer, _| {
        let chunks: Vec<_> = (0..60).map(|_| data(FIRST_TSN, 0, 7, 53, b"x")).collect();
        packet(peer.tag, &chunks)
    }),
    ("ordered_ahead", |peer, n| {
        peer.tsn = peer.tsn.wrapping_add(1);
        packet(peer.tag, &[ordered_data(peer.tsn.wrapping_sub(1), 0, 1 + n as u16, 3, 53, b"x")])
    }),
    ("sack_blocks", |peer, _| {
        let mut value = peer.first_tsn.wrapping_sub(1).to_be_bytes().to_vec();
        value.extend([0, 1, 0, 0, 1, 0, 0, 0]);
        value.extend((0..256).flat_map(|_| [0, 1, 0xff, 0xff]));
        packet(peer.tag, &[chunk(SACK, 0, &value)])
    }),
    ("heartbeat", |peer, _| {
        packet(peer.tag, &[chunk(HEARTBEAT, 0, &[&[0, 1, 4, 0][..], &[7; 1_020]].concat())])
    }),
    ("cookie_echo", |peer, _| packet(peer.tag, &[chunk(COOKIE_ECHO, 0, &[1; 32])])),
    ("init", |_, n| handmade::init(PEER_TAG.wrapping_add(n), FIRST_TSN, &handmade::EXTENSIONS)),
    ("unknown_chunks", |peer, _| packet(peer.tag, &vec![chunk(0x84, 0, &[]); 280])),
];

/// All figures.
pub(crate) fn run() -> Result<(), Failure> {
    for (name, sender) in RECEIVE {
        print(&format!("sctp.receive_ns.{name}"), nanoseconds(*sender), "ns per message");
    }
    for (name, bytes) in [("100_bytes", 100), ("1000_bytes", 1_000), ("15000_bytes", 15_000)] {
        print(&format!("sctp.send_ns.{name}"), sending(bytes)?, "ns per message");
    }
    memory_of("idle")?;
    for (name, sender) in ATTACKS {
        print(&format!("sctp.attack_ns.{name}"), nanoseconds(*sender), "ns per packet");
        memory_of(name)?;
    }
    Ok(())
}

/// Memory of associations under one attack, or `idle` ones.
pub(crate) fn run_part(name: &str) -> Result<(), Failure> {
    let sender = ATTACKS.iter().find(|(attack, _)| *attack == name).map(|(_, sender)| *sender);
    let bytes = match sender {
        Some(sender) => association_bytes(sender, PACKETS)?,
        None => association_bytes(|_, _| Vec::new(), 0)?,
    };
    print(&format!("sctp.association_bytes.{name}"), bytes, "bytes");
    Ok(())
}

/// In a process of its own: what one has freed would hide what the next one takes.
fn memory_of(name: &str) -> Result<(), Failure> {
    let status = Command::new(std::env::current_exe()?).args(["sctp", name]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed").into()) }
}

/// Processor time of taking a packet and polling what it causes: the mean of a sample, in which a peer sends until it is shut out.
fn nanoseconds(sender: Sender) -> f64 {
    let samples = (0..SAMPLES).map(|_| {
        let mut peer = established();
        let mut watch = Stopwatch::new();
        let mut packets = 0u32;
        for n in 0..PACKETS {
            let packet = sender(&mut peer, n);
            watch.start();
            let answers = peer.feed(&packet);
            watch.stop();
            drop(answers);
            peer.clear_events();
            peer.pass(Duration::from_micros(250));
            packets += 1;
            if peer.is_ended() {
                break;
            }
        }
        watch.take() as f64 / f64::from(packets.max(1))
    });
    lower_quartile(samples.collect())
}

/// Processor time of writing a message, sending it and taking its acknowledgement.
fn sending(bytes: usize) -> Result<f64, Failure> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let mut peer = established();
        let channel = peer.open().ok_or("no channel")?;
        let (payload, mut acknowledged) = (vec![7; bytes], peer.first_tsn.wrapping_sub(1));
        acknowledged = acknowledge(&mut peer, acknowledged);
        let mut watch = Stopwatch::new();
        for _ in 0..PACKETS {
            watch.start();
            let sent = peer.send_ours(channel, &payload);
            acknowledged = acknowledge(&mut peer, acknowledged);
            watch.stop();
            if !sent {
                return Err("a message was not taken".into());
            }
            // The pace lets a burst of packets pass, then a few a millisecond.
            peer.pass(Duration::from_millis(10));
        }
        samples.push(watch.take() as f64 / f64::from(PACKETS));
    }
    Ok(lower_quartile(samples))
}

/// Acknowledges what we send until nothing waits to be sent; gives the last number of it.
fn acknowledge(peer: &mut HandmadePeer, mut last: u32) -> u32 {
    let mut packets = peer.poll();
    while !packets.is_empty() {
        last = last_tsn(&packets).unwrap_or(last);
        let mut value = last.to_be_bytes().to_vec();
        value.extend([0, 16, 0, 0, 0, 0, 0, 0]);
        packets = peer.feed_chunks(&[chunk(SACK, 0, &value)]);
    }
    last
}

/// The TSN of the last DATA chunk in these packets.
fn last_tsn(packets: &[Vec<u8>]) -> Option<u32> {
    let mut last = None;
    for packet in packets {
        let mut rest = packet.get(12..).unwrap_or_default();
        while let [0, _, high, low, tsn @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            last = tsn.first_chunk().map(|tsn| u32::from_be_bytes(*tsn));
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    last
}

fn association_bytes(sender: Sender, packets: u32) -> Result<f64, Failure> {
    let own = std::process::id();
    let before = resident_bytes(own)?;
    let mut peers: Vec<HandmadePeer> = (0..ASSOCIATIONS).map(|_| established()).collect();
    for peer in &mut peers {
        for n in 0..packets {
            let packet = sender(peer, n);
            drop(peer.feed(&packet));
            peer.clear_events();
        }
    }
    let after = resident_bytes(own)?;
    Ok((after - before).max(0.0) / ASSOCIATIONS as f64)
}

fn established() -> HandmadePeer {
    HandmadePeer::established(Instant::now(), FIRST_TSN)
}

/// An unordered message of one chunk.
fn message(peer: &mut HandmadePeer, bytes: usize) -> Vec<u8> {
    let payload = vec![7; bytes];
    peer.tsn = peer.tsn.wrapping_add(1);
    packet(peer.tag, &[data(peer.tsn.wrapping_sub(1), 0, 7, 53, &payload)])
}
