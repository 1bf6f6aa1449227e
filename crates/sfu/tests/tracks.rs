//! Tracks from their announcement to their end, with media that really flows.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use fanlight_base::{PeerKey, TrackSid};
use fanlight_events::{Direction, Event, FactBody, Kind, SampleBody, TrackSample};
use fanlight_sfu::input::{Layout, Request, TrackPermission, TrackSettings};
use fanlight_sfu::model::{DisconnectReason, ParticipantInfo, Source, VideoLayer};
use fanlight_sfu::output::Signal;
use std::time::Duration;
use support::{DUAL, Said, Section, World, add_track, join};

const SECOND: Duration = Duration::from_secs(1);
const FRAME: Duration = Duration::from_millis(20);

/// Two participants in one room, connected.
fn pair(layout: Layout) -> World {
    let mut world = World::new();
    world.join(1, layout);
    world.join(2, layout);
    world.run(SECOND);
    if layout == DUAL {
        // A client of v0 makes its publisher connection with its first offer.
        world.offer(1);
        world.run(SECOND);
    }
    world
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

fn published(world: &mut World, kind: Kind, source: Source) -> TrackSid {
    let sid = world.publish(1, kind, source);
    world.run(SECOND / 2);
    send(world, 0..20);
    sid
}

fn received(world: &World, peer: u64) -> usize {
    world.clients[&PeerKey(peer)].rtp().len()
}

fn last_info(world: &World, peer: u64, of: &str) -> Option<ParticipantInfo> {
    let updates = world.signals(peer).filter_map(|signal| match signal {
        Signal::Participants(infos) => Some(infos),
        _ => None,
    });
    updates.flatten().filter(|info| info.sid.as_str() == of).last().map(|info| ParticipantInfo::clone(info))
}

fn samples(world: &World, participant: &str, direction: Direction) -> Vec<TrackSample> {
    let mut samples = Vec::new();
    for said in &world.log {
        if let Said::Event(event) = said
            && let Event::Sample(sample) = &**event
            && sample.participant.as_str() == participant
        {
            let SampleBody::Track(track) = &sample.body;
            samples.extend((track.direction == direction).then(|| track.clone()));
        }
    }
    samples
}

#[test]
fn a_track_reaches_the_others_in_both_layouts() {
    for layout in [DUAL, Layout::Single] {
        for (kind, source, mime) in
            [(Kind::Audio, Source::MICROPHONE, "audio/opus"), (Kind::Video, Source::CAMERA, "video/VP8")]
        {
            let mut world = pair(layout);
            let sid = published(&mut world, kind, source);
            let info = last_info(&world, 2, "PA_1").expect("an update");
            assert!(info.is_publisher);
            let track = info.tracks.first().expect("a track");
            assert_eq!((&track.sid, track.mime_type.as_str()), (&sid, mime));
            assert!(!track.mid.is_empty() && track.version_unix_us > 0);
            assert_eq!(track.codecs[0].mime_type, mime);
            let allowed = Signal::SubscriptionPermission {
                participant: "PA_1".into(),
                track: sid.clone(),
                allowed: true,
            };
            let order: Vec<&str> = world
                .signals(2)
                .filter_map(|signal| match signal {
                    Signal::Participants(infos) if infos.iter().any(|info| !info.tracks.is_empty()) => {
                        Some("update")
                    }
                    signal if *signal == allowed => Some("permission"),
                    Signal::Offer { mid_to_track, .. } | Signal::Answer { mid_to_track, .. }
                        if mid_to_track.iter().any(|(_, track)| *track == sid) =>
                    {
                        Some("section")
                    }
                    _ => None,
                })
                .collect();
            assert_eq!(order[..3], ["update", "permission", "section"], "{layout:?} {kind:?}");
            assert!(world.signals(1).any(|signal| *signal == Signal::TrackSubscribed(sid.clone())));
            assert!(received(&world, 2) >= 10, "{layout:?} {kind:?}: {}", received(&world, 2));
            assert_eq!(received(&world, 1), 0);
            let plays = world.signals(2).any(|signal| matches!(signal, Signal::StreamState { .. }));
            assert_eq!(plays, layout == DUAL && kind == Kind::Video);
            let names: Vec<_> =
                world.fact_names().into_iter().filter(|name| name.starts_with("track_")).collect();
            assert_eq!(names[..3], ["track_publish_requested", "track_published", "track_subscribed"]);
        }
    }
}

#[test]
fn who_joins_later_gets_what_is_there() {
    for layout in [DUAL, Layout::Single] {
        let mut world = pair(layout);
        let sid = published(&mut world, Kind::Audio, Source::MICROPHONE);
        world.join(3, layout);
        world.run(SECOND);
        send(&mut world, 20..40);
        let Some(Signal::Joined(joined)) = world.signals(3).next() else { panic!("no join") };
        assert_eq!(
            joined.others.iter().flat_map(|info| &info.tracks).map(|track| &track.sid).collect::<Vec<_>>(),
            [&sid]
        );
        assert!(received(&world, 3) >= 10, "{layout:?}: {}", received(&world, 3));
        let subscribed =
            world.signals(1).filter(|signal| matches!(signal, Signal::TrackSubscribed(_))).count();
        assert_eq!(subscribed, 1, "told of the first subscriber only");
    }
}

#[test]
fn a_muted_track_is_told_of_and_not_forwarded() {
    let mut world = pair(Layout::Single);
    let sid = published(&mut world, Kind::Audio, Source::MICROPHONE);
    world.request(1, Request::Mute { track: sid.clone(), muted: true, request_id: 0 });
    assert!(last_info(&world, 2, "PA_1").expect("an update").tracks[0].muted);
    world.run(SECOND);
    let before = received(&world, 2);
    send(&mut world, 20..40);
    world.request(1, Request::Mute { track: sid, muted: false, request_id: 0 });
    let after = received(&world, 2);
    send(&mut world, 40..60);
    assert!(!last_info(&world, 2, "PA_1").expect("an update").tracks[0].muted);
    assert!(received(&world, 2) > after + 10);
    assert!(after - before <= 20, "silence at most");
    let names = world.fact_names();
    assert!(names.contains(&"track_muted") && names.contains(&"track_unmuted"));
}

#[test]
fn unsubscribing_frees_the_section_and_subscribing_takes_it_again() {
    for layout in [DUAL, Layout::Single] {
        let mut world = pair(layout);
        let sid = published(&mut world, Kind::Audio, Source::MICROPHONE);
        world.request(2, Request::Subscribe { tracks: vec![sid.clone()], subscribe: false });
        world.run(SECOND);
        let before = received(&world, 2);
        send(&mut world, 20..30);
        assert_eq!(received(&world, 2), before, "{layout:?}");
        let last = samples(&world, "PA_2", Direction::Subscribe).pop().expect("a sample");
        assert!(last.last && last.counters.packets > 0);

        world.request(2, Request::Subscribe { tracks: vec![sid.clone()], subscribe: true });
        world.run(SECOND);
        send(&mut world, 30..50);
        assert!(received(&world, 2) > before + 10, "{layout:?}");
        let mids: Vec<String> = world
            .signals(2)
            .filter_map(|signal| match signal {
                Signal::Offer { mid_to_track, .. } | Signal::Answer { mid_to_track, .. } => {
                    mid_to_track.iter().find(|(_, track)| *track == sid).map(|(mid, _)| mid.clone())
                }
                _ => None,
            })
            .collect();
        assert!(mids.iter().all(|mid| *mid == mids[0]), "the same section: {mids:?}");
        let names: Vec<_> =
            world.fact_names().into_iter().filter(|name| name.contains("subscribed")).collect();
        assert_eq!(names, ["track_subscribed", "track_unsubscribed", "track_subscribed"]);
    }
}

#[test]
fn without_auto_subscription_nothing_comes_unasked() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    let mut asks = join(2, "RM_a", Layout::Single);
    asks.auto_subscribe = false;
    world.join_with(asks);
    world.run(SECOND);
    let sid = published(&mut world, Kind::Audio, Source::MICROPHONE);
    assert_eq!(received(&world, 2), 0);
    world.request(2, Request::Subscribe { tracks: vec![sid], subscribe: true });
    world.run(SECOND);
    send(&mut world, 20..40);
    assert!(received(&world, 2) > 10);
}

#[test]
fn who_may_not_subscribe_gets_nothing() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    let mut deaf = join(2, "RM_a", Layout::Single);
    deaf.permission.can_subscribe = false;
    world.join_with(deaf);
    world.run(SECOND);
    published(&mut world, Kind::Audio, Source::MICROPHONE);
    assert_eq!(received(&world, 2), 0);
    assert!(!world.signals(2).any(|signal| matches!(signal, Signal::SubscriptionPermission { .. })));
}

#[test]
fn an_allow_list_takes_and_gives_the_track() {
    let mut world = pair(Layout::Single);
    world.join(3, Layout::Single);
    world.run(SECOND);
    let sid = published(&mut world, Kind::Audio, Source::MICROPHONE);
    let only = |identity: &str| Request::SubscriptionPermission {
        all_participants: false,
        permissions: vec![TrackPermission {
            identity: identity.into(),
            all_tracks: true,
            ..TrackPermission::default()
        }],
    };
    world.request(1, only("user3"));
    world.run(SECOND);
    let before = (received(&world, 2), received(&world, 3));
    send(&mut world, 20..40);
    assert_eq!(received(&world, 2), before.0);
    assert!(received(&world, 3) > before.1);
    world.request(1, only("user2"));
    world.run(SECOND);
    send(&mut world, 40..60);
    assert!(received(&world, 2) > before.0);
    let told: Vec<bool> = world
        .signals(2)
        .filter_map(|signal| match signal {
            Signal::SubscriptionPermission { track, allowed, .. } if *track == sid => Some(*allowed),
            _ => None,
        })
        .collect();
    assert_eq!(told, [true, false, true]);
    let reasons: Vec<_> = world
        .facts()
        .filter_map(|fact| match fact {
            FactBody::TrackUnsubscribed(fact) => Some(fact.reason.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, ["permission", "permission"]);
}

#[test]
fn settings_hold_before_and_after_the_subscription() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    let mut asks = join(2, "RM_a", Layout::Single);
    asks.auto_subscribe = false;
    world.join_with(asks);
    world.run(SECOND);
    let sid = published(&mut world, Kind::Audio, Source::MICROPHONE);
    let settings = |disabled| Request::TrackSettings {
        tracks: vec![sid.clone()],
        settings: TrackSettings { disabled, quality: 2, ..TrackSettings::default() },
    };
    world.request(2, settings(true));
    world.request(2, Request::Subscribe { tracks: vec![sid.clone()], subscribe: true });
    world.run(SECOND);
    send(&mut world, 20..40);
    assert_eq!(received(&world, 2), 0, "disabled before it was subscribed");
    world.request(2, settings(false));
    send(&mut world, 40..60);
    assert!(received(&world, 2) > 10);
}

#[test]
fn an_unpublished_track_ends_for_everybody() {
    for layout in [DUAL, Layout::Single] {
        let mut world = pair(layout);
        let sid = published(&mut world, Kind::Audio, Source::MICROPHONE);
        world.client(1).sections.last_mut().expect("a section").sends = false;
        world.offer(1);
        world.run(SECOND);
        assert!(last_info(&world, 2, "PA_1").expect("an update").tracks.is_empty());
        let names: Vec<_> = world.fact_names();
        assert!(names.contains(&"track_unpublished") && names.contains(&"track_unsubscribed"));
        for (participant, direction) in [("PA_1", Direction::Publish), ("PA_2", Direction::Subscribe)] {
            let last = samples(&world, participant, direction).pop().expect("a sample");
            assert!(last.last && last.track == sid && last.counters.packets >= 10, "{last:?}");
        }
        let bound = world.signals(2).filter_map(|signal| match signal {
            Signal::Offer { mid_to_track, .. } | Signal::Answer { mid_to_track, .. } => {
                Some(mid_to_track.len())
            }
            _ => None,
        });
        assert_eq!(bound.last(), Some(0), "{layout:?}: the section is free again");
    }
}

#[test]
fn a_publisher_that_leaves_takes_its_tracks_along() {
    let mut world = pair(Layout::Single);
    published(&mut world, Kind::Audio, Source::MICROPHONE);
    world.request(1, Request::Leave { reason: DisconnectReason::ClientInitiated });
    let info = last_info(&world, 2, "PA_1").expect("an update");
    assert_eq!(info.disconnect_reason, Some(DisconnectReason::ClientInitiated));
    assert!(info.tracks.is_empty());
    let names: Vec<_> = world.fact_names();
    let tail = ["track_unsubscribed", "track_unpublished", "participant_left"];
    let places: Vec<_> =
        tail.iter().map(|name| names.iter().position(|other| other == name).expect("told")).collect();
    assert!(places.is_sorted(), "{names:?}");
}

#[test]
fn counters_are_sampled_every_five_seconds() {
    let mut world = pair(Layout::Single);
    published(&mut world, Kind::Audio, Source::MICROPHONE);
    send(&mut world, 20..270);
    world.run(5 * SECOND);
    for (participant, direction) in [("PA_1", Direction::Publish), ("PA_2", Direction::Subscribe)] {
        let samples = samples(&world, participant, direction);
        assert!(samples.len() >= 2, "{participant}: {}", samples.len());
        assert!(samples.is_sorted_by_key(|sample| sample.counters.packets));
        assert!(samples.iter().all(|sample| !sample.last));
    }
    let sent = samples(&world, "PA_1", Direction::Publish).pop().expect("a sample").counters;
    let taken = samples(&world, "PA_2", Direction::Subscribe).pop().expect("a sample").counters;
    assert_eq!(sent.packets, 270);
    assert!(taken.packets >= 250 && taken.packets <= 270, "{}", taken.packets);
}

#[test]
fn more_tracks_than_sections_make_the_client_add_some() {
    let mut world = pair(Layout::Single);
    published(&mut world, Kind::Audio, Source::MICROPHONE);
    published(&mut world, Kind::Audio, Source::SCREEN_SHARE_AUDIO);
    world.run(SECOND);
    let asked: Vec<(u32, u32)> = world
        .signals(2)
        .filter_map(|signal| match signal {
            Signal::MediaSections { audios, videos } => Some((*audios, *videos)),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [(0, 0), (1, 0)]);
    let bound = world.signals(2).filter_map(|signal| match signal {
        Signal::Answer { mid_to_track, .. } => Some(mid_to_track.len()),
        _ => None,
    });
    assert_eq!(bound.last(), Some(2));
}

#[test]
fn layers_are_told_as_they_are_seen() {
    let mut world = pair(Layout::Single);
    let mut request = add_track("camera", Kind::Video, Source::CAMERA);
    (request.width, request.height) = (1280, 720);
    let layer =
        |quality, height| VideoLayer { quality, width: height * 16 / 9, height, ..VideoLayer::default() };
    request.layers = vec![layer(2, 720), layer(0, 180), layer(1, 360)];
    world.publish_track(1, request, &["q", "h", "f"]);
    world.run(SECOND / 2);
    send(&mut world, 0..50);
    let info = last_info(&world, 2, "PA_1").expect("an update");
    let track = info.tracks.first().expect("a track");
    assert!(track.simulcast);
    let layers: Vec<_> =
        track.layers.iter().map(|layer| (layer.quality, layer.spatial_layer, layer.rid.as_str())).collect();
    assert_eq!(layers, [(0, 0, "q"), (1, 1, "h"), (2, 2, "f")]);
    assert!(track.layers.iter().all(|layer| layer.ssrc != 0));
    assert_eq!(track.codecs[0].layers, track.layers);
    assert!(received(&world, 2) > 10);
    let changes = world.facts().filter_map(|fact| match fact {
        FactBody::TrackChanged(fact) => Some(fact.layers.clone()),
        _ => None,
    });
    assert_eq!(changes.last().expect("a fact"), ["q", "h", "f"]);
}

#[test]
fn who_cannot_take_the_codec_is_told_and_left_alone() {
    let mut world = pair(Layout::Single);
    for section in &mut world.client(2).sections {
        section.no_vp8 = true;
    }
    world.offer(2);
    let sid = published(&mut world, Kind::Video, Source::CAMERA);
    let failed = world.signals(2).filter(|signal| {
        **signal == Signal::SubscriptionFailed { track: sid.clone(), codec_unsupported: true }
    });
    assert_eq!(failed.count(), 1);
    send(&mut world, 20..40);
    assert_eq!(received(&world, 2), 0);
    let bound = world.signals(2).filter_map(|signal| match signal {
        Signal::Answer { mid_to_track, .. } => Some(mid_to_track.len()),
        _ => None,
    });
    assert_eq!(bound.last(), Some(0));
}

fn not_found(world: &World, peer: u64) -> Vec<TrackSid> {
    let failed = world.signals(peer).filter_map(|signal| match signal {
        Signal::SubscriptionFailed { track, codec_unsupported: false } => Some(track.clone()),
        _ => None,
    });
    failed.collect()
}

#[test]
fn a_track_that_does_not_come_within_a_minute_is_not_found_and_forgotten() {
    let mut world = pair(DUAL);
    let subscribe = |world: &mut World, sid: &str, subscribe| {
        world.request(2, Request::Subscribe { tracks: vec![sid.into()], subscribe });
    };
    subscribe(&mut world, "TR_never", true);
    subscribe(&mut world, "TR_dropped", true);
    world.run(SECOND * 30);
    subscribe(&mut world, "TR_dropped", false);
    subscribe(&mut world, "TR_later", true);
    // Asking again does not begin the minute anew.
    subscribe(&mut world, "TR_never", true);
    world.run(SECOND * 29);
    assert_eq!(not_found(&world, 2), [] as [TrackSid; 0]);
    world.run(SECOND * 2);
    assert_eq!(not_found(&world, 2), ["TR_never".into()]);
    world.run(SECOND * 30);
    assert_eq!(not_found(&world, 2), ["TR_never".into(), "TR_later".into()]);
    world.run(SECOND * 120);
    assert_eq!(not_found(&world, 2).len(), 2);
    let refused = world.facts().filter(|fact| {
        matches!(fact, FactBody::Refused(refused) if refused.what == "subscription" && refused.why == "track not found")
    });
    assert_eq!(refused.count(), 2);
    assert!(not_found(&world, 1).is_empty());
}

#[test]
fn changes_of_a_published_track_are_told_to_everybody() {
    let mut world = pair(DUAL);
    let audio = published(&mut world, Kind::Audio, Source::MICROPHONE);
    world.request(1, Request::UpdateAudioTrack { track: audio.clone(), features: vec![1, 4] });
    for peer in [1, 2] {
        let info = last_info(&world, peer, "PA_1").expect("an update");
        assert_eq!(info.tracks[0].audio_features, [1, 4], "as told to {peer}");
    }
    let video = published(&mut world, Kind::Video, Source::CAMERA);
    world.request(1, Request::UpdateVideoTrack { track: video.clone(), width: 320, height: 180 });
    let info = last_info(&world, 2, "PA_1").expect("an update");
    let track = info.tracks.iter().find(|track| track.sid == video).expect("the track");
    assert_eq!((track.width, track.height), (320, 180));
    let before = world.log.len();
    world.request(2, Request::UpdateVideoTrack { track: video, width: 1, height: 1 });
    let others = world.log.split_off(before);
    assert!(
        others.iter().all(|said| matches!(said, Said::Signal(PeerKey(2), Signal::RequestResponse { .. }))),
        "only its publisher may: {others:?}"
    );
}

#[test]
fn a_client_whose_msid_is_not_its_track_id_is_matched_by_kind() {
    let mut world = pair(Layout::Single);
    world.request(1, Request::AddTrack(Box::new(add_track("cid", Kind::Audio, Source::MICROPHONE))));
    world.client(1).sections.push(Section::sending(Kind::Audio, "{uuid}".to_owned()));
    world.offer(1);
    world.run(SECOND / 2);
    send(&mut world, 0..20);
    let info = last_info(&world, 2, "PA_1").expect("an update");
    let codec = &info.tracks[0].codecs[0];
    assert_eq!((codec.cid.as_str(), codec.sdp_cid.as_str()), ("cid", "{uuid}"));
    assert!(received(&world, 2) > 10);
}

#[test]
fn an_offer_may_come_before_the_announcement() {
    let mut world = pair(Layout::Single);
    world.client(1).sections.push(Section::sending(Kind::Audio, "cid".to_owned()));
    world.offer(1);
    world.run(SECOND / 2);
    send(&mut world, 0..5);
    assert_eq!(received(&world, 2), 0, "nobody announced it");
    world.request(1, Request::AddTrack(Box::new(add_track("cid", Kind::Audio, Source::MICROPHONE))));
    send(&mut world, 5..25);
    assert!(received(&world, 2) > 10);
}

#[test]
fn a_queued_announcement_takes_its_place_when_the_first_track_ends() {
    let mut world = pair(Layout::Single);
    let first = published(&mut world, Kind::Audio, Source::MICROPHONE);
    world.request(
        1,
        Request::AddTrack(Box::new(add_track("cid-1-microphone", Kind::Audio, Source::MICROPHONE))),
    );
    let accepted = |world: &World| {
        let accepted = world.signals(1).filter_map(|signal| match signal {
            Signal::TrackPublished { track, .. } => Some(track.sid.clone()),
            _ => None,
        });
        accepted.collect::<Vec<_>>()
    };
    assert_eq!(accepted(&world), std::slice::from_ref(&first));
    world.client(1).sections.last_mut().expect("a section").sends = false;
    world.offer(1);
    assert_eq!(accepted(&world).len(), 2);
    assert_ne!(accepted(&world)[1], first);
}
