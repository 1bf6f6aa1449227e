//! What sending and receiving cost beside the cipher. Run by hand:
//! `cargo test --release -p fanlight-transport --test cost -- --ignored --nocapture`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use fanlight_base::{Addresses, Protocol, RunHint, SendBatch};
use fanlight_rtp::SrtpSender;
use fanlight_transport::{DtlsRole, Received, RtpOut};
use std::hint::black_box;
use std::time::Instant;
use support::{ABS_SEND_TIME_AT, Options, SERVER_SSRC, TRANSPORT_CC_AT, World, header};

const PAYLOAD_BYTES: usize = 1_172;
const ROUNDS: u64 = 2_000;
const PACKETS: u64 = 100;

/// Nanoseconds per packet: the least of several runs, so that the neighbours of a shared machine count little.
#[allow(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn measure(mut run: impl FnMut(u64)) -> f64 {
    let mut best = f64::MAX;
    let mut next = 0;
    for _ in 0..10 {
        let begin = Instant::now();
        for _ in 0..ROUNDS / 10 {
            run(next);
            next += PACKETS;
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / (ROUNDS / 10 * PACKETS) as f64);
    }
    best
}

fn bare_seal() -> f64 {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("a key"));
    let mut packet = vec![0u8; PAYLOAD_BYTES];
    measure(|first| {
        for n in first..first + PACKETS {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&n.to_be_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag =
                key.seal_in_place_separate_tag(nonce, Aad::from([0u8; 24]), &mut packet).expect("sealed");
            black_box(tag.as_ref());
        }
    })
}

fn bare_sender(payload: &[u8]) -> f64 {
    use fanlight_rtp::SrtpProfile::AeadAes256Gcm;
    let mut sender = SrtpSender::new(AeadAes256Gcm, &[7; 32], &[9; 12]).expect("keys");
    let header = header(SERVER_SSRC, 0);
    let mut packet = [&header, payload, &[0; 16]].concat();
    measure(|first| {
        for n in first..first + PACKETS {
            sender.seal_rtp(&mut packet, header.len(), n).expect("sealed");
            black_box(&mut packet);
        }
    })
}

/// Room in the batch and the two copies, without the cipher.
fn bare_copy(payload: &[u8]) -> f64 {
    let header = header(SERVER_SSRC, 0);
    let addresses = Addresses {
        local: support::server_address(),
        remote: support::client_address(),
        protocol: Protocol::Udp,
    };
    let (mut batch, mut hint) = (SendBatch::new(), RunHint::default());
    measure(|_| {
        for _ in 0..PACKETS {
            let buffer = batch.push(addresses, &mut hint, header.len() + payload.len() + 16);
            let (head, rest) = buffer.split_at_mut(header.len());
            head.copy_from_slice(&header);
            rest[..payload.len()].copy_from_slice(payload);
            black_box(rest);
        }
        batch.clear();
    })
}

#[test]
#[ignore = "a measurement, for the release profile"]
#[allow(clippy::print_stdout, reason = "a measurement prints what it measured")]
fn sending_and_receiving_cost() {
    let role = DtlsRole::Passive;
    let mut world = World::connected(Options { lite: true, role, foreign: false, ..Options::default() });
    let payload = vec![0x5a; PAYLOAD_BYTES];
    let (now, server) = (world.now, &mut world.server.transport);
    let mut batch = SendBatch::new();
    let mut header = header(SERVER_SSRC, 0);
    let send = measure(|first| {
        for n in first..first + PACKETS {
            header[2..4].copy_from_slice(&(n as u16).to_be_bytes());
            let out = RtpOut {
                header: &header,
                payload: &payload,
                padding_bytes: 0,
                extended_sequence: n,
                transport_cc_offset: Some(TRANSPORT_CC_AT),
                abs_send_time_offset: Some(ABS_SEND_TIME_AT),
            };
            black_box(server.send_rtp(now, &mut batch, &out).expect("sent"));
        }
        batch.clear();
    });
    println!("profile\t{:?}", server.negotiated());
    println!("transport.seal_128_ns\t{:.0}\tns", bare_seal());
    println!("transport.srtp_seal_256_ns\t{:.0}\tns", bare_sender(&payload));
    println!("transport.copy_ns\t{:.0}\tns", bare_copy(&payload));
    println!("transport.send_rtp_ns\t{send:.0}\tns");
    println!("transport.receive_rtp_ns\t{:.0}\tns", receive(world, &header, &payload));
}

#[allow(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn receive(mut world: World, header: &[u8], payload: &[u8]) -> f64 {
    let now = world.now;
    let mut batch = SendBatch::new();
    let mut header = header.to_vec();
    header[8..12].copy_from_slice(&0x77u32.to_be_bytes());
    for n in 0..10_000u64 {
        header[2..4].copy_from_slice(&(n as u16).to_be_bytes());
        let out = RtpOut {
            header: &header,
            payload,
            padding_bytes: 0,
            extended_sequence: n,
            transport_cc_offset: None,
            abs_send_time_offset: None,
        };
        world.ours().transport.send_rtp(now, &mut batch, &out).expect("sent");
    }
    let addresses = batch.runs()[0].addresses;
    let addresses =
        fanlight_base::Addresses { local: addresses.remote, remote: addresses.local, ..addresses };
    let mut packets: Vec<Vec<u8>> =
        batch.runs().iter().flat_map(|run| run.packets().map(<[u8]>::to_vec)).collect();
    let mut none = SendBatch::new();
    let begin = Instant::now();
    for packet in &mut packets {
        let received = world.server.transport.handle_datagram(now, addresses, packet, &mut none);
        assert!(matches!(received, Received::Rtp(_)));
    }
    begin.elapsed().as_nanos() as f64 / packets.len() as f64
}
