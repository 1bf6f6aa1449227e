//! Packets that arrive in one turn.

use super::world::{MID, Outgoing, RID, SSRC, World, subscription, vp8};
use fanlight_base::Random;

const DOWN: u32 = 0x2222_0000;
const ROUNDS: u64 = 25;

/// One packet of the publisher.
#[derive(Debug, Clone, Copy)]
struct Sent {
    layer: usize,
    sequence: u64,
    picture: u16,
    first: bool,
    key: bool,
    padding: bool,
}

/// Rounds of packets of two layers: with losses, latecomers, key frames anywhere and probes between.
fn script(random: &mut Random) -> Vec<Vec<Sent>> {
    let (mut sequences, mut picture, mut late) = ([30_000, 50_000], 0, Vec::new());
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut round = Vec::new();
        for _ in 0..random.below(4) + 1 {
            picture += 1;
            for (layer, sequence) in sequences.iter_mut().enumerate() {
                let key = random.below(6) == 0;
                for index in 0..random.below(9) {
                    let padding = random.below(12) == 0;
                    let first = index == 0;
                    let sent = Sent { layer, sequence: *sequence, picture, first, key, padding };
                    *sequence += 1;
                    match random.below(10) {
                        0 => {}
                        1 => late.push(sent),
                        _ => round.push(sent),
                    }
                }
            }
            if random.below(3) == 0 {
                round.append(&mut late);
            }
        }
        rounds.push(round);
    }
    rounds
}

fn send(world: &mut World, packet: &Sent) {
    let rid: &[u8] = if packet.layer == 0 { b"q" } else { b"h" };
    let payload = if packet.padding { Vec::new() } else { vp8(packet.picture, packet.first, packet.key, 40) };
    world.send(
        0,
        &Outgoing {
            ssrc: SSRC + packet.layer as u32,
            payload_type: 96,
            sequence: packet.sequence,
            timestamp: u32::from(packet.picture) * 3_000,
            marker: false,
            extensions: &[(MID, b"1"), (RID, rid)],
            payload: &payload,
            padding: if packet.padding { 100 } else { 0 },
        },
    );
}

/// Sequence number, timestamp and payload of what a subscriber got.
type Stream = Vec<(u64, u32, Vec<u8>)>;

/// What two subscribers get, and what was counted.
fn play(seed: u8, in_one_turn: bool) -> ([Stream; 2], String) {
    let mut world = World::new(3);
    let track = world.publish_video(0, &["q", "h"]);
    let first = world.subscribe(1, track, DOWN);
    let mut other = subscription(world.clients[2].id, track, DOWN);
    other.max_spatial = 0;
    let second = world.media.subscribe(world.now, other).unwrap();
    let mut random = Random::from_seed([seed; 32]);
    for round in script(&mut random) {
        if in_one_turn {
            world.together(|world| round.iter().for_each(|packet| send(world, packet)));
        } else {
            round.iter().for_each(|packet| send(&mut world, packet));
        }
        world.run(33);
    }
    let got = [1, 2].map(|n: usize| {
        let media = world.clients[n].rtp.iter().filter(|got| got.header.ssrc == DOWN);
        media.map(|got| (got.sequence, got.header.timestamp, got.payload().to_vec())).collect()
    });
    let mut counted = vec![world.media.publish_counters(track).unwrap()];
    counted.extend([first, second].map(|down| world.media.subscribe_counters(down).unwrap()));
    (got, format!("{counted:?}"))
}

#[test]
fn packets_of_one_turn_reach_subscribers_as_if_each_had_come_alone() {
    let mut forwarded = 0;
    for seed in 0..12 {
        let (alone, together) = (play(seed, false), play(seed, true));
        assert_eq!(alone, together, "seed {seed}");
        forwarded += alone.0.iter().map(Vec::len).sum::<usize>();
    }
    assert!(forwarded > 3_000, "{forwarded}");
}

#[test]
fn a_large_audience_is_served_in_parts_and_completely() {
    let mut world = World::new(121);
    let track = world.publish_video(0, &[]);
    for n in 1..=120 {
        world.subscribe(n, track, DOWN);
    }
    let key = Sent { layer: 0, sequence: 100, picture: 1, first: true, key: true, padding: false };
    send(&mut world, &key);
    world.together(|world| {
        for sequence in 101..=110 {
            send(world, &Sent { sequence, first: false, ..key });
        }
        world.carry_in(0);
        assert!(!world.media.flush_part(world.now, &mut world.transports, &mut world.batch));
        let packets: usize = world.batch.runs().iter().map(|run| run.segments()).sum();
        assert!((1_000..1_100).contains(&packets), "{packets}");
    });
    for client in &world.clients[1..] {
        let sequences: Vec<u64> =
            client.rtp.iter().map(|got| got.sequence - client.rtp[0].sequence).collect();
        assert_eq!(sequences, (0..=10).collect::<Vec<_>>());
    }
}
