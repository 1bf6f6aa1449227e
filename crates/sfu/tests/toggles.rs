//! What a participant does often costs the others a bounded number of messages.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use fanlight_base::TrackSid;
use fanlight_events::Kind;
use fanlight_sfu::input::{Request, TrackPermission};
use fanlight_sfu::model::Source;
use fanlight_sfu::output::Signal;
use std::collections::BTreeMap;
use std::time::Duration;
use support::{DUAL, World};

const SECOND: Duration = Duration::from_secs(1);
const FRAME: Duration = Duration::from_millis(20);
/// Toggles within one second.
const TOGGLES: u16 = 100;
/// One each 100 ms, the first at once.
const UPDATES_MAX: usize = 11;

/// Two participants, the first of whom publishes its camera to the other.
fn publisher() -> (World, TrackSid) {
    let mut world = World::new();
    for peer in [1, 2] {
        world.join(peer, DUAL);
    }
    world.run(SECOND);
    world.offer(1);
    world.run(SECOND);
    let sid = world.publish(1, Kind::Video, Source::CAMERA);
    world.run(SECOND / 2);
    for sequence in 0..20 {
        let now = world.now;
        let client = world.client(1);
        let index = client.sections.len() - 1;
        client.send_rtp(now, index, sequence);
        world.run(FRAME);
    }
    world.run(SECOND);
    (world, sid)
}

/// Asks so often within a second; what the other participant heard of it comes back.
fn toggled(world: &mut World, request: impl Fn(u16) -> Request) -> Vec<Signal> {
    let before = world.signals(2).count();
    for round in 0..TOGGLES {
        world.request(1, request(round));
        world.run(SECOND / u32::from(TOGGLES));
    }
    world.run(SECOND);
    world.signals(2).skip(before).cloned().collect()
}

fn updates(signals: &[Signal]) -> usize {
    signals.iter().filter(|signal| matches!(signal, Signal::Participants(_))).count()
}

#[test]
fn a_track_muted_and_unmuted_all_the_time_is_told_ten_times_a_second() {
    let (mut world, sid) = publisher();
    let heard = toggled(&mut world, |round| Request::Mute {
        track: sid.clone(),
        muted: round % 2 == 0,
        request_id: 0,
    });
    assert!((5..=UPDATES_MAX).contains(&updates(&heard)), "{} updates", updates(&heard));
    let states = heard.iter().filter(|signal| matches!(signal, Signal::StreamState { .. })).count();
    assert!(states <= UPDATES_MAX, "{states} stream states");
    let last = heard.iter().rev().find_map(|signal| match signal {
        Signal::Participants(infos) => infos.first(),
        _ => None,
    });
    assert!(!last.expect("an update").tracks[0].muted, "the newest state is told in the end");
}

#[test]
fn metadata_that_changes_all_the_time_is_told_ten_times_a_second() {
    let (mut world, _) = publisher();
    let heard = toggled(&mut world, |round| Request::UpdateMetadata {
        request_id: 1,
        name: String::new(),
        metadata: round.to_string(),
        attributes: BTreeMap::new(),
    });
    assert!((5..=UPDATES_MAX).contains(&updates(&heard)), "{} updates", updates(&heard));
    let last = heard.iter().rev().find_map(|signal| match signal {
        Signal::Participants(infos) => infos.first(),
        _ => None,
    });
    assert_eq!(last.expect("an update").metadata, (TOGGLES - 1).to_string());
}

#[test]
fn an_allow_list_that_changes_all_the_time_is_told_ten_times_a_second() {
    let (mut world, _) = publisher();
    let heard = toggled(&mut world, |round| Request::SubscriptionPermission {
        all_participants: round % 2 == 1,
        permissions: Vec::<TrackPermission>::new(),
    });
    let told = heard.iter().filter(|signal| matches!(signal, Signal::SubscriptionPermission { .. })).count();
    assert!((1..=UPDATES_MAX).contains(&told), "{told} permissions");
    let last = heard.iter().rev().find_map(|signal| match signal {
        Signal::SubscriptionPermission { allowed, .. } => Some(*allowed),
        _ => None,
    });
    assert_eq!(last, Some(true), "the newest list holds in the end");
}
