//! What a forwarded packet costs. Run by hand:
//! `cargo test --release -p fanlight-sfu --lib media::tests::cost -- --ignored --nocapture`.

use super::world::{MID, SSRC, World, vp8};
use fanlight_rtp::{RtpHeader, SrtpProfile, SrtpSender};
use std::hint::black_box;
use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn measure(rounds: u64, mut run: impl FnMut(u64)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..7 {
        let begin = Instant::now();
        (0..rounds).for_each(&mut run);
        best = best.min(begin.elapsed().as_nanos() as f64 / rounds as f64);
    }
    best
}

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
    let seal = measure(100_000, |n| {
        sender.seal_rtp(&mut plain, 20, n).unwrap();
        black_box(&mut plain);
    });
    println!("seal {seal:.0} ns");
    for (subscribers, tracks) in [(0, 1), (1, 1), (10, 1), (100, 1), (300, 1), (10, 50)] {
        let mut world = World::new(subscribers + 1);
        let keys: Vec<_> = (0..tracks).map(|_| world.publish_video(0, &[])).collect();
        // Only the last one has the SSRC; the others make m-lines.
        for (line, &track) in keys.iter().enumerate() {
            for n in 0..subscribers {
                world.subscribe(n + 1, track, 0x5000_0000 + 4 * line as u32);
            }
        }
        let id = world.clients[0].id;
        let mut sequence = 100u64;
        let mut bytes = packet(0, true);
        let mut forward = |world: &mut World, key: bool| {
            let number = sequence as u16;
            bytes[2..4].copy_from_slice(&number.to_be_bytes());
            bytes[4..8].copy_from_slice(&(u32::from(number) / 10 * 3000).to_be_bytes());
            bytes[26] = u8::from(!key);
            let header = RtpHeader::parse(&bytes).unwrap();
            world.media.handle_rtp(world.now, &mut world.transports, id, &header, &bytes, sequence, &mut world.batch);
            sequence += 1;
        };
        forward(&mut world, true);
        let rounds = 40_000 / subscribers.max(1) as u64;
        let each = measure(rounds, |n| {
            world.now.mono_ns += 100_000;
            forward(&mut world, false);
            if n % 8 == 0 {
                world.batch.clear();
            }
        });
        println!("{subscribers} subscribers x {tracks} m-lines: {:.0} ns", each / subscribers.max(1) as f64);
    }
}
