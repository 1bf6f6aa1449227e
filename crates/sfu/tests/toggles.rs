//! What a participant does often costs the others a bounded number of messages.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use fanlight_base::{Now, PeerKey, TrackSid};
use fanlight_events::Kind;
use fanlight_sfu::input::{Request, TrackPermission};
use fanlight_sfu::limits::{CHANGES_INTERVAL, TRACKS_AT_ONCE_MAX};
use fanlight_sfu::model::{Source, VideoLayer};
use fanlight_sfu::output::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::{Client, DUAL, World, add_track};

const SECOND: Duration = Duration::from_secs(1);
const FRAME: Duration = Duration::from_millis(20);
/// Toggles within one second.
const TOGGLES: u16 = 100;
/// One each 100 ms, the first at once.
const UPDATES_MAX: usize = 11;

/// Two participants, the first of whom publishes its camera to the other.
fn publisher() -> (World, TrackSid) {
    publisher_of(&[])
}

fn publisher_of(rids: &'static [&'static str]) -> (World, TrackSid) {
    let mut world = World::new();
    for peer in [1, 2] {
        world.join(peer, DUAL);
    }
    world.run(SECOND);
    world.offer(1);
    world.run(SECOND);
    let mut request = add_track("cid", Kind::Video, Source::CAMERA);
    let layer = |quality| VideoLayer { quality, width: 1280, height: 720, ..VideoLayer::default() };
    request.layers = if rids.is_empty() { vec![layer(2)] } else { vec![layer(0), layer(1), layer(2)] };
    let sid = world.publish_track(1, request, rids);
    world.run(SECOND / 2);
    send(&mut world, 0..20);
    world.run(SECOND);
    (world, sid)
}

/// Sends on the last section of the publisher.
fn send(world: &mut World, packets: std::ops::Range<u16>) {
    for sequence in packets {
        let now = world.now;
        let client = world.client(1);
        let index = client.sections.len() - 1;
        client.send_rtp(now, index, sequence);
        world.run(FRAME);
    }
}

fn received(world: &World) -> usize {
    world.clients[&PeerKey(2)].rtp().len()
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
fn texts_that_change_all_the_time_are_told_ten_times_a_second() {
    let (mut world, _) = publisher();
    let heard = toggled(&mut world, |round| Request::UpdateMetadata {
        request_id: 1,
        name: format!("name {round}"),
        metadata: round.to_string(),
        attributes: BTreeMap::from([("key".to_owned(), round.to_string())]),
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

#[test]
fn what_an_allow_list_takes_back_ends_at_once_however_often_it_changes() {
    let (mut world, _) = publisher();
    for round in 0..3 {
        let permissions = Vec::new();
        world.request(1, Request::SubscriptionPermission { all_participants: round % 2 == 1, permissions });
        world.run(CHANGES_INTERVAL);
    }
    let all =
        |all_participants| Request::SubscriptionPermission { all_participants, permissions: Vec::new() };
    world.request(1, all(true));
    world.run(CHANGES_INTERVAL);
    send(&mut world, 100..110);
    let before = received(&world);
    assert!(before > 0, "it flows while it is allowed");
    world.request(1, all(true));
    world.request(1, all(false));
    send(&mut world, 110..120);
    assert_eq!(received(&world), before, "not a packet after it is taken back");
    world.run(SECOND);
    let last = world.signals(2).filter_map(|signal| match signal {
        Signal::SubscriptionPermission { allowed, .. } => Some(*allowed),
        _ => None,
    });
    assert_eq!(last.last(), Some(false), "and the subscriber is told");
}

#[test]
fn no_offer_comes_before_the_update_that_tells_of_its_tracks() {
    let mut world = World::new();
    for peer in [1, 2] {
        world.join(peer, DUAL);
    }
    world.run(SECOND);
    world.offer(1);
    world.run(SECOND);
    let before = world.signals(2).count();
    let mut published = BTreeSet::new();
    for track in 0..usize::try_from(TRACKS_AT_ONCE_MAX).unwrap_or(0) + 12 {
        let request = add_track(&format!("cid-{track}"), Kind::Audio, Source::MICROPHONE);
        published.insert(world.publish_track(1, request, &[]));
        world.run(Duration::from_millis(5));
        let now = world.now;
        world.client(1).send_rtp(now, track, 1);
        world.run(Duration::from_millis(5));
    }
    world.run(3 * SECOND);
    let mut told = BTreeSet::new();
    let mut offered = BTreeSet::new();
    for signal in world.signals(2).skip(before) {
        match signal {
            Signal::Participants(infos) => {
                told.extend(infos.iter().flat_map(|info| &info.tracks).map(|track| track.sid.clone()));
            }
            Signal::Offer { mid_to_track, .. } => {
                offered.extend(mid_to_track.iter().map(|(_, track)| track.clone()));
                assert!(offered.is_subset(&told), "{:?}", offered.difference(&told));
            }
            _ => {}
        }
    }
    assert_eq!(offered, published, "all of them come in the end");
    let signals: Vec<_> = world.signals(2).skip(before).cloned().collect();
    let most = usize::try_from(TRACKS_AT_ONCE_MAX).unwrap_or(0) + 30;
    assert!(updates(&signals) <= most, "{} updates", updates(&signals));
}

/// What the other participant hears while the publisher sends one of these packets after the other.
fn sent(world: &mut World, send: impl Fn(&mut Client, Now, u16)) -> Vec<Signal> {
    let before = world.signals(2).count();
    for round in 0..TOGGLES {
        let now = world.now;
        send(world.client(1), now, round);
        world.run(SECOND / u32::from(TOGGLES));
    }
    world.run(SECOND);
    world.signals(2).skip(before).cloned().collect()
}

fn only_updates(heard: &[Signal]) {
    assert!((5..=UPDATES_MAX).contains(&updates(heard)), "{} updates", updates(heard));
    let others = |signal: &&Signal| !matches!(signal, Signal::Participants(_) | Signal::Room(_));
    assert_eq!(heard.iter().find(others), None, "and nothing else");
}

#[test]
fn new_ssrcs_all_the_time_are_told_ten_times_a_second() {
    let (mut world, _) = publisher();
    let index = world.client(1).sections.len() - 1;
    only_updates(&sent(&mut world, |client, now, round| {
        client.send_stream(now, index, 1 + usize::from(round), round);
    }));
}

#[test]
fn new_ssrcs_of_every_rid_all_the_time_are_told_ten_times_a_second() {
    let (mut world, _) = publisher_of(&["q", "h", "f"]);
    let index = world.client(1).sections.len() - 1;
    only_updates(&sent(&mut world, |client, now, round| {
        client.send_stream(now, index, 3 + usize::from(round), round);
    }));
}

#[test]
fn retransmissions_that_change_their_ssrc_all_the_time_are_told_ten_times_a_second() {
    let (mut world, _) = publisher();
    let index = world.client(1).sections.len() - 1;
    only_updates(&sent(&mut world, |client, now, round| {
        client.send_repair(now, index, 9000 + u32::from(round % 2), (round, 5));
    }));
}

#[test]
fn tracks_published_and_ended_all_the_time_cost_a_bounded_number_of_messages() {
    let (mut world, _) = publisher();
    let index = world.client(1).sections.len();
    let before = world.signals(2).count();
    for round in 0..TOGGLES {
        let request = add_track(&format!("cid-{round}"), Kind::Audio, Source::MICROPHONE);
        world.client(1).sections.truncate(index);
        world.publish_track(1, request, &[]);
        let now = world.now;
        world.client(1).send_stream(now, index, usize::from(round), 1);
        world.run(SECOND / u32::from(TOGGLES));
    }
    world.run(SECOND);
    let heard: Vec<_> = world.signals(2).skip(before).cloned().collect();
    let most = UPDATES_MAX + usize::try_from(TRACKS_AT_ONCE_MAX).unwrap_or(0);
    assert!((5..=most).contains(&updates(&heard)), "{} updates", updates(&heard));
    let permissions =
        heard.iter().filter(|signal| matches!(signal, Signal::SubscriptionPermission { .. })).count();
    assert!(permissions <= usize::from(TOGGLES) + 10, "{permissions} permissions");
}

#[test]
fn a_state_is_made_and_encoded_once_however_many_hear_of_it() {
    let (mut world, _) = publisher();
    for peer in 3..8 {
        world.join(peer, DUAL);
    }
    world.request(
        1,
        Request::UpdateMetadata {
            request_id: 1,
            name: String::new(),
            metadata: "new".to_owned(),
            attributes: BTreeMap::new(),
        },
    );
    world.run(SECOND);
    world.join(8, DUAL);
    let mut told = BTreeSet::new();
    let mut hearers = 0;
    for peer in 1..=8 {
        for signal in world.signals(peer) {
            let infos = match signal {
                Signal::Participants(infos) => infos.as_slice(),
                Signal::Joined(joined) => &joined.others,
                Signal::RefreshToken(info) => std::slice::from_ref(info),
                _ => continue,
            };
            for info in infos.iter().filter(|info| info.metadata == "new") {
                hearers += 1;
                told.insert((info.version, info.encoded().as_ptr()));
            }
        }
    }
    assert_eq!(told.len(), 1, "one allocation for all: {told:?}");
    assert!(hearers >= 9, "{hearers}: seven by update, one by its join, and the participant itself");
}
