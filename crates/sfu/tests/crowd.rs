//! Many at once.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use fanlight_events::{Direction, Event, Kind, SampleBody};
use fanlight_sfu::limits::{HANDSHAKES_PER_TURN, SAMPLES_PER_STEP};
use fanlight_sfu::model::Source;
use fanlight_sfu::output::Output;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::{DUAL, Said, World};

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

/// Participants who all publish: 24 tracks, and 552 subscriptions.
const SPEAKERS: u64 = 24;
const TRACKS: usize = (SPEAKERS * SPEAKERS) as usize;

/// Whose a sample is: participant, track and direction.
type Whose = (String, String, Direction);

/// Samples that are not the last of their track, by the millisecond in which they were said, and by whose they are.
fn samples(said: &[Said]) -> (BTreeMap<u64, usize>, BTreeMap<Whose, usize>) {
    let (mut turns, mut tracks) = (BTreeMap::new(), BTreeMap::new());
    for said in said {
        let Said::Event(event) = said else { continue };
        let Event::Sample(sample) = &**event else { continue };
        let SampleBody::Track(track) = &sample.body;
        if !track.last {
            *turns.entry(sample.unix_ms).or_default() += 1;
            let of = (sample.participant.to_string(), track.track.to_string(), track.direction);
            *tracks.entry(of).or_default() += 1;
        }
    }
    (turns, tracks)
}

#[test]
fn a_turn_samples_some_of_a_large_room_and_a_round_all_of_it() {
    let mut world = World::new();
    for peer in 1..=SPEAKERS {
        world.join(peer, DUAL);
    }
    world.run(Duration::from_secs(2));
    for peer in 1..=SPEAKERS {
        world.offer(peer);
    }
    world.run(Duration::from_secs(1));
    for peer in 1..=SPEAKERS {
        world.publish(peer, Kind::Audio, Source::MICROPHONE);
    }
    for sequence in 0..20 {
        let now = world.now;
        for peer in 1..=SPEAKERS {
            world.client(peer).send_rtp(now, 0, sequence);
        }
        world.run(Duration::from_millis(20));
    }
    world.run(Duration::from_secs(5));
    assert_eq!((world.sfu.load().tracks_in, world.sfu.load().tracks_out as usize), (SPEAKERS, TRACKS - 24));
    let before = world.log.len();
    world.run(Duration::from_secs(10));
    let (turns, tracks) = samples(&world.log[before..]);
    assert!(turns.values().all(|count| *count <= SAMPLES_PER_STEP), "{turns:?}");
    assert_eq!(tracks.len(), TRACKS);
    let rounds: BTreeSet<usize> = tracks.values().copied().collect();
    assert_eq!(rounds, [2].into(), "each track is told every five seconds");
    // Who leaves in the midst of a round has said everything.
    while samples(&world.log[before..]).1.values().all(|count| *count < 3) {
        world.run(Duration::from_millis(10));
    }
    let before = world.log.len();
    world.command(fanlight_sfu::input::Command::Disconnect {
        peer: fanlight_base::PeerKey(1),
        reason: fanlight_sfu::model::DisconnectReason::ParticipantRemoved,
    });
    let last = world.log[before..].iter().filter(|said| match said {
        Said::Event(event) => matches!(&**event, Event::Sample(sample)
            if matches!(&sample.body, SampleBody::Track(track) if track.last)),
        _ => false,
    });
    // Its own track, what others had of it, and what it had of them.
    assert_eq!(last.count(), 1 + 2 * (SPEAKERS as usize - 1));
    let before = world.log.len();
    world.run(Duration::from_secs(5));
    let (turns, tracks) = samples(&world.log[before..]);
    assert!(turns.values().all(|count| *count <= SAMPLES_PER_STEP), "{turns:?}");
    assert!(tracks.keys().all(|(participant, ..)| participant != "PA_1"), "of who has left");
}
