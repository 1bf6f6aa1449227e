//! What a forwarded packet costs. Run by hand:
//! `cargo test --release -p fanlight-sfu --lib media::tests::cost -- --ignored --nocapture`.

use super::world::{MID, SSRC, World, vp8};
use fanlight_rtp::{RtpHeader, SrtpProfile, SrtpSender};
use std::hint::black_box;
use std::time::Instant;

/// Nanoseconds of a run: the least of many short windows, so that the neighbours of a shared machine count little.
#[expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn measure(rounds: u64, mut run: impl FnMut(u64)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..150 {
        let begin = Instant::now();
        (0..rounds).for_each(&mut run);
        best = best.min(begin.elapsed().as_nanos() as f64 / rounds as f64);
    }
    best
}

/// Packets to each subscriber that leave together.
const BATCH: u64 = 8;

fn packet(sequence: u16, key: bool) -> Vec<u8> {
    let mut bytes = vec![0x90, 96];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend((u32::from(sequence) / 10 * 3000).to_be_bytes());
    bytes.extend(SSRC.to_be_bytes());
    bytes.extend([0xbe, 0xde, 0, 1, MID << 4, b'1', 0, 0]);
    bytes.extend(vp8(sequence / 10, true, key, 1165));
    bytes
}

#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement prints")]
fn forwarding() {
    let mut sender = SrtpSender::new(SrtpProfile::AeadAes128Gcm, &[7; 16], &[9; 12]).unwrap();
    let mut plain = vec![0; 20 + 1172 + 16];
    plain[0] = 0x80;
    let mut index = 0;
    let seal = measure(4_000, |_| {
        index += 1;
        sender.seal_rtp(&mut plain, 20, index).unwrap();
        black_box(&mut plain);
    });
    println!("seal {seal:.0} ns");
    let layouts = [(0, 1), (1, 1), (10, 1), (100, 1), (1000, 1), (10, 50), (10, 100)];
    let mut receive = 0.0;
    for (subscribers, lines) in layouts {
        let mut world = World::new(subscribers + 1);
        for line in 0..lines {
            let track = world.publish_line(0, &[], &format!("{line}"), SSRC + 4 * line);
            for n in 0..subscribers {
                world.subscribe(n + 1, track, 0x5000_0000 + 4 * line);
            }
        }
        let id = world.clients[0].id;
        let mut sequence = 100u64 * u64::from(lines);
        let mut bytes = packet(0, true);
        let mut forward = |world: &mut World, key: bool| {
            let number = (sequence / u64::from(lines)) as u16;
            bytes[2..4].copy_from_slice(&number.to_be_bytes());
            bytes[4..8].copy_from_slice(&(u32::from(number) / 10 * 3000).to_be_bytes());
            bytes[8..12].copy_from_slice(&(SSRC + 4 * (sequence % u64::from(lines)) as u32).to_be_bytes());
            bytes[26] = u8::from(!key);
            let header = RtpHeader::parse(&bytes).unwrap();
            let extended = sequence / u64::from(lines);
            world.media.handle_rtp(
                world.now,
                &mut world.transports,
                id,
                &header,
                &bytes,
                extended,
                &mut world.batch,
            );
            sequence += 1;
        };
        (0..lines).for_each(|_| forward(&mut world, true));
        let rounds = (4_000 / subscribers.max(1) as u64).max(8);
        let each = measure(rounds, |n| {
            world.now.mono_ns += 100_000;
            forward(&mut world, false);
            if n % BATCH == 0 {
                world.batch.clear();
            }
        });
        if subscribers == 0 {
            receive = each;
            println!("receive without opening: {each:.0} ns");
        } else {
            let forward = (each - receive) / subscribers as f64;
            println!(
                "{subscribers} subscribers, {lines} m-lines: {forward:.0} ns, {:.2} x seal",
                forward / seal
            );
        }
    }
}
