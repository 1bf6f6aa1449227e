//! Rooms and participants through commands and signals, with connections that really stand.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use fanlight_base::{PeerKey, TrackSid};
use fanlight_events::{FactBody, Kind};
use fanlight_sfu::TextLimits;
use fanlight_sfu::input::{Command, Layout, Request, Target};
use fanlight_sfu::limits::METRICS_PER_WINDOW_MAX;
use fanlight_sfu::model::{DisconnectReason, ParticipantState, Source};
use fanlight_sfu::output::{ClientMetrics, EchoedRequest, LeaveAction, Output, RequestReason, Signal};
use fanlight_transport::negotiate::RemoteDescription;
use std::collections::BTreeMap;
use std::time::Duration;
use support::{DUAL, World, add_track, join};

const SECOND: Duration = Duration::from_secs(1);

fn description(text: &str) -> Box<RemoteDescription> {
    Box::new(RemoteDescription::parse(text).expect("a recorded description"))
}

fn names(world: &World, peer: u64) -> Vec<&'static str> {
    world
        .signals(peer)
        .map(|signal| match signal {
            Signal::Joined(_) => "joined",
            Signal::Answer { .. } => "answer",
            Signal::Offer { .. } => "offer",
            Signal::Trickle { .. } => "trickle",
            Signal::Participants(_) => "update",
            Signal::Room(_) => "room",
            Signal::TrackPublished { .. } => "track_published",
            Signal::RefreshToken(_) => "refresh_token",
            Signal::RequestResponse { .. } => "request_response",
            Signal::MediaSections { .. } => "media_sections",
            Signal::Leave { .. } => "leave",
            _ => "other",
        })
        .collect()
}

fn states(world: &World, peer: u64, of: &str) -> Vec<(ParticipantState, u32)> {
    let updates = world.signals(peer).filter_map(|signal| match signal {
        Signal::Participants(infos) => Some(infos),
        _ => None,
    });
    updates.flatten().filter(|info| info.sid.as_str() == of).map(|info| (info.state, info.version)).collect()
}

fn leave(world: &World, peer: u64) -> Option<(DisconnectReason, LeaveAction)> {
    world.signals(peer).find_map(|signal| match signal {
        Signal::Leave { reason, action } => Some((*reason, *action)),
        _ => None,
    })
}

fn responses(world: &World, peer: u64) -> Vec<(u32, RequestReason)> {
    world
        .signals(peer)
        .filter_map(|signal| match signal {
            Signal::RequestResponse { request_id, reason, .. } => Some((*request_id, *reason)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_join_of_v0_is_told_first_and_then_offered_data_channels_only() {
    let mut world = World::new();
    world.join_with(join(1, "RM_a", DUAL));
    assert_eq!(names(&world, 1)[..5], ["joined", "refresh_token", "offer", "trickle", "trickle"]);
    let Some(Signal::Joined(joined)) = world.signals(1).next() else { panic!("no join") };
    assert_eq!((joined.participant.state, joined.participant.version), (ParticipantState::Joining, 0));
    assert!(joined.subscriber_primary && joined.others.is_empty());
    let offer = world.signals(1).find_map(|signal| match signal {
        Signal::Offer { id, sdp, mid_to_track } => Some((id, sdp.to_string(), mid_to_track)),
        _ => None,
    });
    let (id, sdp, tracks) = offer.expect("an offer");
    assert!((1..=256).contains(id) && tracks.is_empty());
    assert_eq!(sdp.matches("m=").count(), 1);
    assert!(sdp.contains("m=application") && !sdp.contains("a=candidate"));
    let lasts: Vec<bool> = world
        .signals(1)
        .filter_map(|signal| match signal {
            Signal::Trickle { target: Target::Subscriber, last, .. } => Some(*last),
            _ => None,
        })
        .collect();
    assert_eq!(lasts, [false, true]);
}

#[test]
fn a_join_of_v1_answers_the_offer_in_it_after_the_join() {
    let mut world = World::new();
    let mut request = join(1, "RM_a", Layout::Single);
    request.publisher_offer = Some((7, description(include_str!("data/chromium_v1_join.sdp"))));
    world.command(Command::Join(Box::new(request)));
    assert_eq!(names(&world, 1)[..5], ["joined", "refresh_token", "answer", "trickle", "trickle"]);
    let answer = world.signals(1).find_map(|signal| match signal {
        Signal::Answer { id, sdp, mid_to_track } => Some((*id, sdp.to_string(), mid_to_track)),
        _ => None,
    });
    let (id, sdp, tracks) = answer.expect("an answer");
    assert_eq!((id, tracks.len(), sdp.matches("m=").count()), (7, 0, 7));
    assert_eq!(sdp.matches("a=sendonly").count(), 6, "receiving sections are answered sendonly");
}

#[test]
fn tracks_announced_with_a_join_are_accepted_before_the_offer_in_it_is_answered() {
    let mut world = World::new();
    let mut request = join(1, "RM_a", Layout::Single);
    let cid = "c3d7d706-2f5a-4dc3-bbb2-356989ab7e4a";
    request.add_tracks = vec![add_track(cid, Kind::Audio, Source::MICROPHONE)];
    request.publisher_offer = Some((1, description(include_str!("data/chromium_v1_microphone.sdp"))));
    world.command(Command::Join(Box::new(request)));
    assert_eq!(names(&world, 1)[..4], ["joined", "refresh_token", "track_published", "answer"]);
    let matched = world
        .signals(1)
        .any(|signal| matches!(signal, Signal::Answer { sdp, .. } if sdp.to_string().contains("usedtx=1")));
    assert!(matched);
}

#[test]
fn both_layouts_connect_and_become_active() {
    for layout in [DUAL, Layout::Single] {
        let mut world = World::new();
        world.join(1, layout);
        world.run(SECOND);
        assert!(
            world.outputs().any(|output| matches!(output, Output::Active { peer: PeerKey(1) })),
            "{layout:?}"
        );
        let active = world.facts().find_map(|fact| match fact {
            FactBody::ParticipantActive(fact) => Some(fact),
            _ => None,
        });
        let active = active.expect("a fact");
        assert_eq!(active.connection_type, "udp");
        assert!(active.connect_ms < 1000 && !active.srtp_profile.is_empty());
        assert!(world.fact_names().contains(&"transport_selected"));
        world.run(3 * SECOND);
        assert_eq!(states(&world, 1, "PA_1"), [(ParticipantState::Active, 2)], "told once, with the batch");
    }
}

#[test]
fn those_who_do_not_publish_are_told_of_with_the_next_batch_and_leave_with_it() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    world.run(SECOND);
    world.join(2, DUAL);
    world.run(SECOND);
    assert!(states(&world, 1, "PA_2").is_empty());
    world.run(2 * SECOND);
    assert_eq!(states(&world, 1, "PA_2"), [(ParticipantState::Active, 2)]);
    world.request(2, Request::Leave { reason: DisconnectReason::ClientInitiated });
    assert_eq!(leave(&world, 2), Some((DisconnectReason::ClientInitiated, LeaveAction::Disconnect)));
    world.run(3 * SECOND);
    assert_eq!(states(&world, 1, "PA_2").last(), Some(&(ParticipantState::Disconnected, 3)));
    let Some(Signal::Joined(joined)) = world.signals(2).next() else { panic!("no join") };
    assert_eq!(joined.others.len(), 1);
}

#[test]
fn hidden_ones_are_told_of_to_nobody_but_themselves() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    let mut hidden = join(2, "RM_a", Layout::Single);
    hidden.permission.hidden = true;
    world.join_with(hidden);
    world.join(3, Layout::Single);
    world.run(6 * SECOND);
    assert!(states(&world, 1, "PA_2").is_empty());
    assert_eq!(states(&world, 2, "PA_2"), [(ParticipantState::Active, 2)]);
    let Some(Signal::Joined(joined)) = world.signals(3).next() else { panic!("no join") };
    assert_eq!(joined.others.iter().map(|info| info.sid.as_str()).collect::<Vec<_>>(), ["PA_1"]);
    let room = world.signals(1).filter_map(|signal| match signal {
        Signal::Room(info) => Some(info.num_participants),
        _ => None,
    });
    assert_eq!(room.last(), Some(2));
    world.request(2, Request::Leave { reason: DisconnectReason::ClientInitiated });
    world.run(6 * SECOND);
    assert!(states(&world, 1, "PA_2").is_empty());
}

#[test]
fn a_replaced_session_is_not_told_to_clients_that_know_their_peers_by_identity() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    let mut old = join(2, "RM_a", Layout::Single);
    old.protocol = 11;
    world.join_with(old);
    world.join(3, Layout::Single);
    world.run(4 * SECOND);
    world.command(Command::Disconnect { peer: PeerKey(3), reason: DisconnectReason::DuplicateIdentity });
    assert_eq!(leave(&world, 3), Some((DisconnectReason::DuplicateIdentity, LeaveAction::Disconnect)));
    world.run(4 * SECOND);
    let gone =
        |peer| states(&world, peer, "PA_3").iter().any(|(state, _)| *state == ParticipantState::Disconnected);
    assert_eq!((gone(1), gone(2)), (false, true));
}

#[test]
fn a_client_that_never_connects_is_sent_away_after_a_minute() {
    let mut world = World::new();
    world.command(Command::Join(Box::new(join(1, "RM_a", DUAL))));
    world.run(59 * SECOND);
    assert_eq!(leave(&world, 1), None);
    world.run(2 * SECOND);
    assert_eq!(leave(&world, 1), Some((DisconnectReason::JoinFailure, LeaveAction::Disconnect)));
    assert!(
        world
            .outputs()
            .any(|output| matches!(output, Output::Left { reason: DisconnectReason::JoinFailure, .. }))
    );
}

#[test]
fn a_lost_network_ends_the_session_with_a_reconnect() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    world.run(SECOND);
    world.cut = true;
    world.run(40 * SECOND);
    assert_eq!(leave(&world, 1), Some((DisconnectReason::ConnectionTimeout, LeaveAction::Reconnect)));
}

#[test]
fn signalling_that_breaks_off_ends_the_session_at_once_or_after_a_grace() {
    let mut world = World::new();
    world.command(Command::Join(Box::new(join(1, "RM_a", DUAL))));
    world.command(Command::SignalClosed { peer: PeerKey(1) });
    let left = |world: &World, peer| {
        world.outputs().any(|output| {
            matches!(output, Output::Left { peer: of, reason: DisconnectReason::SignalClose } if *of == PeerKey(peer))
        })
    };
    assert!(left(&world, 1));
    world.join(2, Layout::Single);
    world.run(SECOND);
    world.command(Command::SignalClosed { peer: PeerKey(2) });
    world.run(4 * SECOND);
    assert!(!left(&world, 2));
    world.run(2 * SECOND);
    assert!(left(&world, 2));
    assert_eq!(leave(&world, 2), None, "nobody is there to hear it");
}

#[test]
fn tracks_are_accepted_queued_and_refused_as_livekit_does() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    let microphone = || Box::new(add_track("c", Kind::Audio, Source::MICROPHONE));
    world.request(1, Request::AddTrack(microphone()));
    world.request(1, Request::AddTrack(microphone()));
    let published = world.signals(1).filter_map(|signal| match signal {
        Signal::TrackPublished { cid, track } => Some((cid.as_str(), track.sid.as_str())),
        _ => None,
    });
    let published: Vec<_> = published.collect();
    assert_eq!(published.len(), 1);
    assert!(published[0].1.starts_with("TR_AM"));
    assert_eq!(responses(&world, 1), [(0, RequestReason::Queued)]);
    let mut unknown = microphone();
    unknown.sid = TrackSid::from("TR_nope");
    world.request(1, Request::AddTrack(unknown));
    assert_eq!(responses(&world, 1)[1].1, RequestReason::NotFound);
    for index in 0..30 {
        world.request(
            1,
            Request::AddTrack(Box::new(add_track(&format!("v{index}"), Kind::Video, Source::CAMERA))),
        );
    }
    let refused =
        responses(&world, 1).iter().filter(|(_, reason)| *reason == RequestReason::LimitExceeded).count();
    assert_eq!(refused, 11, "20 may be pending");

    let mut listener = join(2, "RM_a", Layout::Single);
    listener.permission.can_publish = false;
    world.join_with(listener);
    world.request(2, Request::AddTrack(microphone()));
    assert_eq!(responses(&world, 2), [(0, RequestReason::NotAllowed)]);
    assert!(world.facts().any(|fact| matches!(fact, FactBody::Refused(fact) if fact.what == "add_track")));
}

#[test]
fn muting_an_unknown_track_is_answered_and_a_pending_one_not() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    world.request(1, Request::AddTrack(Box::new(add_track("c", Kind::Audio, Source::MICROPHONE))));
    let sid = world.signals(1).find_map(|signal| match signal {
        Signal::TrackPublished { track, .. } => Some(track.sid.clone()),
        _ => None,
    });
    world.request(1, Request::Mute { track: sid.expect("published"), muted: true, request_id: 3 });
    assert!(responses(&world, 1).is_empty());
    world.request(1, Request::Mute { track: TrackSid::from("TR_x"), muted: true, request_id: 4 });
    assert_eq!(responses(&world, 1), [(4, RequestReason::NotFound)]);
}

#[test]
fn metadata_is_told_then_a_token_and_then_the_answer() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    world.join(2, Layout::Single);
    world.run(4 * SECOND);
    let before = names(&world, 1).len();
    let attributes = BTreeMap::from([("k".to_owned(), "v".to_owned()), ("gone".to_owned(), String::new())]);
    let update = |name: &str| Request::UpdateMetadata {
        request_id: 5,
        name: name.to_owned(),
        metadata: "m".to_owned(),
        attributes: attributes.clone(),
    };
    world.request(1, update("New"));
    assert_eq!(names(&world, 1)[before..], ["update", "refresh_token", "request_response"]);
    assert_eq!(responses(&world, 1), [(5, RequestReason::Ok)]);
    let told = world.signals(2).filter_map(|signal| match signal {
        Signal::Participants(infos) => infos.first(),
        _ => None,
    });
    let info = told.last().expect("an update");
    assert_eq!((info.name.as_str(), info.metadata.as_str(), info.attributes.len()), ("New", "m", 1));
    world.request(1, update(&"x".repeat(257)));
    assert_eq!(responses(&world, 1).last(), Some(&(5, RequestReason::LimitExceeded)));
}

#[test]
fn metadata_needs_the_permission_and_ok_a_protocol_that_knows_it() {
    let mut world = World::new();
    let mut request = join(1, "RM_a", Layout::Single);
    request.permission.can_update_metadata = false;
    world.join_with(request);
    let mut old = join(2, "RM_a", Layout::Single);
    old.protocol = 14;
    world.join_with(old);
    let update = || Request::UpdateMetadata {
        request_id: 1,
        name: "n".to_owned(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
    };
    world.request(1, update());
    world.request(2, update());
    assert_eq!(responses(&world, 1), [(1, RequestReason::NotAllowed)]);
    let echoed = world.signals(1).any(|signal| {
        matches!(signal, Signal::RequestResponse { request: EchoedRequest::UpdateMetadata { name, .. }, .. } if name == "n")
    });
    assert!(echoed);
    assert!(responses(&world, 2).is_empty());
}

#[test]
fn texts_over_their_limits_are_refused_and_change_nothing() {
    let mut world = World::new();
    world.join(1, DUAL);
    let long = |bytes: usize| "x".repeat(bytes);
    let limits = TextLimits::default();
    let texts = [
        (long(limits.name_bytes + 1), String::new(), String::new()),
        (String::new(), long(limits.metadata_bytes + 1), String::new()),
        (String::new(), String::new(), long(limits.attributes_bytes)),
        (long(limits.name_bytes), long(limits.metadata_bytes), long(limits.attributes_bytes - 1)),
    ];
    for (request_id, (name, metadata, attribute)) in (1..).zip(texts) {
        let attributes = [("k".to_owned(), attribute)].into();
        world.request(1, Request::UpdateMetadata { request_id, name, metadata, attributes });
    }
    let over = RequestReason::LimitExceeded;
    assert_eq!(responses(&world, 1), [(1, over), (2, over), (3, over), (4, RequestReason::Ok)]);
}

#[test]
fn an_offer_of_more_sections_than_a_client_may_add_is_refused_with_its_reason() {
    let mut text = include_str!("data/chromium_v0_data.sdp").to_owned();
    let mids: Vec<String> = (0..151).map(|mid| mid.to_string()).collect();
    text = text.replace("a=group:BUNDLE 0", &format!("a=group:BUNDLE {}", mids.join(" ")));
    for mid in &mids[1..] {
        text.push_str("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=inactive\r\n");
        text.push_str(&format!("a=mid:{mid}\r\n"));
    }
    let mut world = World::new();
    for (peer, layout) in [(1, DUAL), (2, Layout::Single)] {
        world.command(Command::Join(Box::new(join(peer, "RM_a", layout))));
        world.request(peer, Request::Offer { id: 1, sdp: description(&text) });
        assert_eq!(leave(&world, peer), Some((DisconnectReason::StateMismatch, LeaveAction::Reconnect)));
    }
    let why = "offer with more m-lines than OFFERED_SECTIONS_MAX 150 and those that were asked for";
    let told = world.facts().filter(|fact| match fact {
        FactBody::Refused(refused) => (refused.what.as_str(), refused.why.as_str()) == ("description", why),
        _ => false,
    });
    assert_eq!(told.count(), 2);
}

#[test]
fn descriptions_that_cannot_be_used_end_the_session_with_a_reconnect() {
    let mut world = World::new();
    world.command(Command::Join(Box::new(join(1, "RM_a", DUAL))));
    world.request(1, Request::BadDescription);
    assert_eq!(leave(&world, 1), Some((DisconnectReason::StateMismatch, LeaveAction::Reconnect)));
    let mut world = World::new();
    world.command(Command::Join(Box::new(join(1, "RM_a", DUAL))));
    let answer = || Request::Answer { id: 0, sdp: description(include_str!("data/chromium_v0_answer.sdp")) };
    world.request(1, answer());
    assert_eq!(leave(&world, 1), None, "an answer without a number is taken");
    world.request(1, answer());
    assert_eq!(
        leave(&world, 1),
        Some((DisconnectReason::StateMismatch, LeaveAction::Reconnect)),
        "a second is not"
    );
}

#[test]
fn recorded_offers_of_v0_are_answered_with_their_number_and_later_candidates_stand_in_them() {
    let mut world = World::new();
    world.command(Command::Join(Box::new(join(1, "RM_a", DUAL))));
    world.request(
        1,
        Request::Trickle {
            target: Target::Publisher,
            candidate: "candidate:1 1 udp 1 192.0.2.1 1 typ host".into(),
        },
    );
    world.request(1, Request::Offer { id: 41, sdp: description(include_str!("data/chromium_v0_data.sdp")) });
    let mut track = add_track("32fbcec8-cbcc-445d-861a-ca46d28167e6", Kind::Audio, Source::MICROPHONE);
    track.audio_features = vec![2, 3, 4];
    world.request(1, Request::AddTrack(Box::new(track)));
    world.request(
        1,
        Request::Offer { id: 42, sdp: description(include_str!("data/chromium_v0_microphone.sdp")) },
    );
    let answers = world.signals(1).filter_map(|signal| match signal {
        Signal::Answer { id, sdp, .. } => Some((*id, sdp.to_string())),
        _ => None,
    });
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [41, 42]);
    assert!(!answers[0].1.contains("a=candidate"));
    let later = &answers[1].1;
    assert_eq!(later.matches("a=candidate").count(), 4, "two candidates, both components");
    assert!(later.contains("a=end-of-candidates") && later.contains("a=recvonly"));
    assert!(later.contains("usedtx=1"), "the announcement was matched: {later}");
    assert!(later.contains("UDP/TLS/RTP/SAVPF 63 111"), "RED first");
}

#[test]
fn every_five_minutes_a_token_is_due() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    world.run(301 * SECOND);
    let tokens = names(&world, 1).iter().filter(|name| **name == "refresh_token").count();
    assert_eq!(tokens, 2);
}

#[test]
fn a_closed_room_sends_everybody_away_and_is_gone() {
    let mut world = World::new();
    world.join(1, Layout::Single);
    world.join(2, DUAL);
    world.run(SECOND);
    world.command(Command::CloseRoom {
        room: "RM_a".into(),
        reason: DisconnectReason::RoomDeleted,
        action: LeaveAction::Disconnect,
        record: "deleted",
    });
    for peer in [1, 2] {
        assert_eq!(leave(&world, peer), Some((DisconnectReason::RoomDeleted, LeaveAction::Disconnect)));
    }
    assert!(world.outputs().any(|output| matches!(output, Output::RoomClosed { .. })));
    let ends: Vec<_> = world
        .fact_names()
        .into_iter()
        .filter(|name| name.ends_with("left") || *name == "room_ended")
        .collect();
    assert_eq!(ends, ["participant_left", "participant_left", "room_ended"]);
    world.command(Command::Join(Box::new(join(3, "RM_a", DUAL))));
    assert_eq!(leave(&world, 3), Some((DisconnectReason::RoomClosed, LeaveAction::Disconnect)));
}

#[test]
fn data_goes_by_label_to_everybody_or_to_those_named() {
    for layout in [DUAL, Layout::Single] {
        let mut world = World::new();
        for peer in 1..=3 {
            world.join(peer, layout);
        }
        world.run(SECOND);
        if layout == DUAL {
            world.offer(1);
            world.run(SECOND);
        }
        let send = |world: &mut World, label: &str, text: &str| {
            let now = world.now;
            world.client(1).send_data(now, label, text);
            world.run(SECOND);
        };
        send(&mut world, "_reliable", "|all");
        send(&mut world, "_lossy", "user3|one");
        send(&mut world, "other", "|nobody");
        let got = |peer| world.clients[&PeerKey(peer)].data();
        assert_eq!(
            (got(1), got(2), got(3)),
            (vec![], vec!["user1:all".to_owned()], vec!["user1:all".to_owned(), "user1:one".to_owned()])
        );
        assert!(world.facts().any(|fact| matches!(fact, FactBody::Refused(fact) if fact.what == "data")));
    }
}

#[test]
fn metrics_go_to_telemetry_with_their_sender_and_to_nobody_in_the_room() {
    let mut world = World::new();
    let mut hidden = join(1, "RM_a", Layout::Single);
    hidden.permission.hidden = true;
    world.join_with(hidden);
    world.join(2, Layout::Single);
    world.run(SECOND);
    let now = world.now;
    world.client(1).send_data(now, "_reliable", "user2|metrics first");
    world.client(1).send_data(now, "_lossy", "|metrics second");
    world.run(SECOND);
    let told = |world: &World| -> Vec<ClientMetrics> {
        let metrics = world.outputs().filter_map(|output| match output {
            Output::Metrics(metrics) => Some((**metrics).clone()),
            _ => None,
        });
        metrics.collect()
    };
    let both = told(&world);
    assert_eq!(
        both.iter().map(|one| one.batch.as_slice()).collect::<Vec<_>>(),
        [b"first".as_slice(), b"second"]
    );
    assert!(both[0].at_unix_ns > now.unix_ns && both[1].at_unix_ns > both[0].at_unix_ns);
    let whose = (both[0].room.as_str(), both[0].participant.as_str(), both[0].identity.as_str());
    assert_eq!((whose, both[0].room_name.as_str()), (("RM_a", "PA_1", "user1"), "name of RM_a"));
    assert!(world.clients[&PeerKey(2)].data().is_empty());

    for _ in 0..200 {
        let now = world.now;
        world.client(1).send_data(now, "_reliable", "|metrics again");
        world.run(Duration::from_millis(10));
    }
    assert_eq!(told(&world).len(), METRICS_PER_WINDOW_MAX as usize);
    assert_eq!(world.sfu.counters().metrics_refused, 202 - u64::from(METRICS_PER_WINDOW_MAX));
    assert!(world.facts().any(|fact| matches!(fact, FactBody::Refused(fact) if fact.what == "metrics")));
    let now = world.now;
    world.client(1).send_data(now, "_reliable", "|other data");
    world.run(SECOND);
    assert_eq!(world.clients[&PeerKey(2)].data().len(), 1, "a flood of metrics ends nothing");
}

#[test]
fn nothing_of_one_room_reaches_another() {
    let mut world = World::new();
    world.create("RM_b");
    world.join(1, Layout::Single);
    world.join(2, Layout::Single);
    world.join_with(join(3, "RM_b", Layout::Single));
    world.run(SECOND);
    let now = world.now;
    world.client(1).send_data(now, "_reliable", "|secret");
    world.client(1).send_data(now, "_reliable", "user3|secret");
    let update = Request::UpdateMetadata {
        request_id: 1,
        name: "Changed".to_owned(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
    };
    world.request(1, update);
    world.publish(1, Kind::Audio, Source::MICROPHONE);
    world.run(SECOND);
    world.request(1, Request::Leave { reason: DisconnectReason::ClientInitiated });
    world.run(SECOND);
    assert_eq!(world.clients[&PeerKey(2)].data().len(), 1);
    assert!(world.clients[&PeerKey(3)].data().is_empty());
    for signal in world.signals(3) {
        let text = format!("{signal:?}");
        assert!(
            !text.contains("PA_1")
                && !text.contains("PA_2")
                && !text.contains("RM_a")
                && !text.contains("Changed"),
            "{text}"
        );
    }
}

#[test]
fn a_bug_in_one_room_ends_it_loudly_and_no_other() {
    let mut world = World::new();
    world.create("RM_b");
    world.join(1, Layout::Single);
    world.join(2, Layout::Single);
    world.join_with(join(3, "RM_b", Layout::Single));
    world.run(SECOND);
    let now = world.now;
    world.client(1).send_data(now, "_reliable", "|panic");
    world.run(SECOND);
    for peer in [1, 2] {
        assert_eq!(leave(&world, peer), Some((DisconnectReason::RoomClosed, LeaveAction::Reconnect)));
    }
    assert_eq!(leave(&world, 3), None);
    assert_eq!(world.sfu.counters().rooms_panicked, 1);
    assert!(world.facts().any(|fact| matches!(fact, FactBody::RoomEnded(fact) if fact.reason == "panic")));
    world.run(10 * SECOND);
    assert_eq!(leave(&world, 3), None, "the other room goes on");
    world.create("RM_c");
    world.join_with(join(4, "RM_c", Layout::Single));
    world.run(SECOND);
    assert!(world.outputs().any(|output| matches!(output, Output::Active { peer: PeerKey(4) })));
}

#[test]
fn an_idle_shard_waits_for_nothing_and_strangers_are_counted() {
    let mut world = World::new();
    world.run(SECOND);
    let addresses = fanlight_base::Addresses {
        local: support::server(),
        remote: ([192, 0, 2, 9], 1).into(),
        protocol: fanlight_base::Protocol::Udp,
    };
    let mut batch = fanlight_base::SendBatch::new();
    for bytes in [&mut [0u8; 40][..], &mut [22u8; 40], &mut [0x90u8; 40], &mut []] {
        world.sfu.handle_datagram(world.now, addresses, bytes, &mut batch);
    }
    assert_eq!(world.sfu.counters().datagrams_unknown, 4);
    assert!(batch.is_empty());
    assert!(matches!(world.sfu.poll_output(&mut batch), Output::Timeout(fanlight_base::Mono::NEVER, _)));
}

#[test]
fn a_flood_of_refusals_is_told_in_sums() {
    let mut world = World::new();
    let mut request = join(1, "RM_a", Layout::Single);
    request.permission.can_update_metadata = false;
    world.join_with(request);
    for request_id in 0..1000 {
        let (name, metadata) = (String::new(), "m".to_owned());
        world.request(
            1,
            Request::UpdateMetadata { request_id, name, metadata, attributes: Default::default() },
        );
    }
    assert_eq!(responses(&world, 1).len(), 1000);
    world.run(20 * SECOND);
    let refused: Vec<_> = world
        .facts()
        .filter_map(|fact| match fact {
            FactBody::Refused(fact) => Some(fact.why.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(refused.len(), 2);
    assert!(refused[1].ends_with("(999 times)"), "{refused:?}");
}

#[test]
fn a_participant_that_may_not_subscribe_has_one_connection_in_v0() {
    let mut world = World::new();
    let mut request = join(1, "RM_a", DUAL);
    request.permission.can_subscribe = false;
    world.join_with(request);
    let Some(Signal::Joined(joined)) = world.signals(1).next() else { panic!("no join") };
    assert!(!joined.subscriber_primary);
    world.offer(1);
    world.run(SECOND);
    assert!(!world.signals(1).any(|signal| matches!(signal, Signal::Offer { .. })));
    assert!(world.outputs().any(|output| matches!(output, Output::Active { .. })));
}
