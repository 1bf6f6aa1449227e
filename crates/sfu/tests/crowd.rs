//! Many at once.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use fanlight_events::Kind;
use fanlight_sfu::limits::HANDSHAKES_PER_TURN;
use fanlight_sfu::model::Source;
use fanlight_sfu::output::Output;
use std::time::Duration;
use support::{DUAL, World};

const CROWD: u64 = 40;

#[test]
fn a_crowd_takes_turns_with_its_handshakes_and_everybody_comes_in() {
    let mut world = World::new();
    for peer in 1..=CROWD {
        world.join(peer, DUAL);
    }
    world.run(Duration::from_secs(3));
    let active = world.outputs().filter(|output| matches!(output, Output::Active { .. })).count();
    assert_eq!(active as u64, CROWD);
    let counters = world.sfu.counters();
    assert!(counters.handshakes_waited >= CROWD - HANDSHAKES_PER_TURN as u64, "{counters:?}");
    assert_eq!(counters.handshakes_dropped, 0);
}

#[test]
fn what_a_shard_carries_is_counted_as_it_comes_and_goes() {
    let mut world = World::new();
    for peer in 1..=3 {
        world.join(peer, DUAL);
    }
    world.run(Duration::from_secs(1));
    world.offer(1);
    world.run(Duration::from_secs(1));
    assert_eq!((world.sfu.load().tracks_in, world.sfu.load().tracks_out), (0, 0));
    world.publish(1, Kind::Audio, Source::MICROPHONE);
    for sequence in 0..20 {
        let now = world.now;
        world.client(1).send_rtp(now, 0, sequence);
        world.run(Duration::from_millis(20));
    }
    world.run(Duration::from_secs(1));
    assert_eq!((world.sfu.load().tracks_in, world.sfu.load().tracks_out), (1, 2));
    world.command(fanlight_sfu::input::Command::Disconnect {
        peer: fanlight_base::PeerKey(1),
        reason: fanlight_sfu::model::DisconnectReason::ParticipantRemoved,
    });
    assert_eq!((world.sfu.load().tracks_in, world.sfu.load().tracks_out), (0, 0));
}
