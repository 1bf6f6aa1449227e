//! Rooms from their first join to their end, as shards and signalling see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use fanlight_base::{Mono, NodeId, Now, ParticipantSid, PeerKey, Random, RoomSid};
use fanlight_control::{
    Control, ControlConfig, JoinError, JoinRequest, Limits, Output, RoomDefaults, RoomOptions, ShardHealth,
    ShardIndex, Why,
};
use fanlight_events::{Event, FactBody, ParticipantLeft, Refused, RoomEnded};
use fanlight_sfu::input::{Command, Join, Layout, Quirks};
use fanlight_sfu::model::{DisconnectReason, ParticipantKind, Permission};
use fanlight_sfu::output::LeaveAction;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Now {
    Now { mono_ns: seconds * SECOND, unix_ns: (1_800_000_000 + seconds) * SECOND }
}

fn config() -> ControlConfig {
    ControlConfig {
        node: NodeId::from("ND_test"),
        shards: 1,
        limits: Limits::default(),
        room: RoomDefaults::default(),
        random: Random::from_seed([3; 32]),
    }
}

fn control() -> Control {
    Control::new(config())
}

fn request(room: &str, identity: &str) -> JoinRequest {
    let permission = Permission { can_subscribe: true, can_publish: true, ..Permission::default() };
    let join = Join {
        peer: PeerKey(0),
        room: RoomSid::default(),
        sid: ParticipantSid::default(),
        identity: identity.into(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        permission,
        kind: ParticipantKind::Standard,
        kind_details: Vec::new(),
        layout: Layout::Single,
        protocol: 17,
        client_protocol: 0,
        capabilities: Vec::new(),
        client: Default::default(),
        quirks: Quirks::default(),
        auto_subscribe: true,
        adaptive_stream: false,
        ice_lite: false,
        add_tracks: Vec::new(),
        publisher_offer: None,
    };
    JoinRequest {
        room: room.into(),
        options: RoomOptions::default(),
        preset: String::new(),
        may_create: false,
        join: Box::new(join),
    }
}

fn dependent(room: &str, identity: &str) -> JoinRequest {
    let mut request = request(room, identity);
    request.join.kind = ParticipantKind::Agent;
    request
}

fn hidden(room: &str, identity: &str) -> JoinRequest {
    let mut request = request(room, identity);
    request.join.permission.hidden = true;
    request
}

/// Everything said until the timeout, and the timeout.
fn drain(control: &mut Control) -> (Vec<String>, Mono) {
    let mut said = Vec::new();
    loop {
        match control.poll_output() {
            Output::ToShard { shard: ShardIndex(shard), command } => {
                let what = match *command {
                    Command::CreateRoom(room) => format!("create {}", room.name),
                    Command::CloseRoom { reason, action, record, .. } => {
                        let action = if action == LeaveAction::Reconnect { " reconnect" } else { "" };
                        format!("close {} {record}{action}", reason.as_str())
                    }
                    Command::Join(join) => format!("join {} as {}", join.identity, join.peer.0),
                    Command::Request { peer, .. } => format!("request of {}", peer.0),
                    Command::Disconnect { peer, reason } => {
                        format!("disconnect {} {}", peer.0, reason.as_str())
                    }
                    Command::SignalClosed { peer } => format!("signal closed {}", peer.0),
                };
                said.push(format!("{shard}: {what}"));
            }
            Output::Event(event) => match *event {
                Event::Fact(fact) => match fact.body {
                    FactBody::Refused(refused) => {
                        said.push(format!("refused {} {}", refused.what, refused.why))
                    }
                    other => said.push(other.name().to_owned()),
                },
                Event::Sample(_) | Event::Turn(..) => panic!("control makes facts only"),
            },
            Output::Drained => said.push("drained".to_owned()),
            Output::Timeout(when, why) => {
                assert_eq!(why == Why::Idle, when == Mono::NEVER);
                return (said, when);
            }
        }
    }
}

fn sid(control: &Control, name: &str) -> RoomSid {
    control.room(&name.into()).unwrap().sid
}

#[test]
fn the_first_join_makes_the_room_and_the_second_finds_it() {
    let mut control = control();
    let alice = control.handle_join(at(0), request("r", "alice")).unwrap();
    let bob = control.handle_join(at(0), request("r", "bob")).unwrap();
    let (said, timeout) = drain(&mut control);
    assert_eq!(said, ["0: create r", "0: join alice as 1", "0: join bob as 2"]);
    assert_eq!(timeout, Mono::NEVER);
    assert_ne!(control.participant_sid(alice), control.participant_sid(bob));
    let text = control.participant_sid(alice).unwrap().as_str();
    assert!(text.starts_with("PA_") && text.len() == 15, "{text}");
    assert!(sid(&control, "r").as_str().starts_with("RM_"));
}

#[test]
fn a_room_ends_after_the_departure_timeout_and_not_before() {
    let mut control = control();
    let alice = control.handle_join(at(0), request("r", "alice")).unwrap();
    drain(&mut control);
    control.handle_left(at(100), alice);
    assert_eq!(drain(&mut control), (vec![], at(120).mono()));
    control.handle_timeout(at(119));
    assert!(drain(&mut control).0.is_empty());
    control.handle_timeout(at(120));
    assert_eq!(drain(&mut control).0, ["0: close room_closed departed"]);
}

#[test]
fn a_rejoin_inside_the_departure_timeout_keeps_the_room() {
    let mut control = control();
    let alice = control.handle_join(at(0), request("r", "alice")).unwrap();
    let first = sid(&control, "r");
    control.handle_left(at(5), alice);
    control.handle_join(at(20), request("r", "alice")).unwrap();
    control.handle_timeout(at(1000));
    assert_eq!(sid(&control, "r"), first);
    assert_eq!(drain(&mut control).1, Mono::NEVER);
}

#[test]
fn a_room_nobody_joined_ends_after_the_empty_timeout() {
    let mut control = control();
    let options = RoomOptions { empty_timeout_s: Some(3), ..RoomOptions::default() };
    control.handle_create_room(at(0), &"r".into(), &options, "").unwrap();
    assert_eq!(drain(&mut control), (vec!["0: create r".to_owned()], at(3).mono()));
    control.handle_timeout(at(3));
    assert_eq!(drain(&mut control).0, ["0: close room_closed empty"]);
}

#[test]
fn dependents_do_not_hold_a_room() {
    let mut control = control();
    control.handle_join(at(0), dependent("r", "agent")).unwrap();
    let alice = control.handle_join(at(10), request("r", "alice")).unwrap();
    drain(&mut control);
    control.handle_left(at(20), alice);
    assert_eq!(drain(&mut control).1, at(40).mono());
    control.handle_timeout(at(40));
    assert_eq!(drain(&mut control).0, ["0: close room_closed departed"]);
}

#[test]
fn a_repeated_identity_ends_the_older_session_first() {
    let mut control = control();
    let old = control.handle_join(at(0), request("r", "alice")).unwrap();
    drain(&mut control);
    let new = control.handle_join(at(1), request("r", "alice")).unwrap();
    assert_eq!(drain(&mut control).0, ["0: disconnect 1 duplicate_identity", "0: join alice as 2"]);
    control.handle_left(at(1), old);
    assert_eq!(drain(&mut control).1, Mono::NEVER, "the new session holds the room");
    assert_eq!(control.shard_of(new), Some(ShardIndex(0)));
    assert_eq!(control.shard_of(old), None);
}

#[test]
fn a_full_room_refuses_strangers_but_not_those_who_do_not_count() {
    let mut control = control();
    let mut first = request("r", "one");
    first.options.max_participants = Some(1);
    control.handle_join(at(0), first).unwrap();
    drain(&mut control);
    assert_eq!(control.handle_join(at(0), request("r", "two")), Err(JoinError::RoomFull));
    assert_eq!(drain(&mut control).0, ["refused join room_full"], "nobody in the room hears of it");
    assert!(control.handle_join(at(0), hidden("r", "ghost")).is_ok());
    assert!(control.handle_join(at(0), dependent("r", "agent")).is_ok());
    let again = control.handle_join(at(0), request("r", "one"));
    assert!(again.is_ok());
    let view = control.room(&"r".into()).unwrap();
    assert_eq!((view.max_participants, view.participants, view.occupants), (1, 1, 4));
}

#[test]
fn without_auto_create_only_a_grant_makes_rooms() {
    let mut config = config();
    config.room.auto_create = false;
    let mut control = Control::new(config);
    assert_eq!(control.check(&"r".into(), false), Err(JoinError::RoomNotFound));
    assert_eq!(control.handle_join(at(0), request("r", "alice")), Err(JoinError::RoomNotFound));
    assert_eq!(JoinError::RoomNotFound.to_string(), "requested room does not exist");
    assert_eq!(control.check(&"r".into(), true), Ok(()));
    let mut granted = request("r", "alice");
    granted.may_create = true;
    control.handle_join(at(0), granted).unwrap();
    assert_eq!(control.check(&"r".into(), false), Ok(()));
}

#[test]
fn a_node_over_its_limit_takes_nobody() {
    let mut config = config();
    config.limits.num_tracks = 2;
    let mut control = Control::new(config);
    control.handle_load(1, 0);
    assert_eq!(control.check(&"r".into(), false), Ok(()));
    control.handle_load(2, 0);
    assert_eq!(control.handle_join(at(0), request("r", "alice")), Err(JoinError::NodeLimit));
    assert_eq!(JoinError::NodeLimit.to_string(), "node has exceeded its configured limit");
}

#[test]
fn bytes_per_second_are_a_limit_too() {
    let mut config = config();
    config.limits.bytes_per_s = 1_000_000;
    let mut control = Control::new(config);
    control.handle_load(500, 999_999);
    assert_eq!(control.check(&"r".into(), false), Ok(()));
    control.handle_load(0, 1_000_000);
    assert_eq!(control.check(&"r".into(), false), Err(JoinError::NodeLimit));
    control.handle_load(0, 0);
    assert_eq!(control.check(&"r".into(), false), Ok(()));
}

#[test]
fn metadata_over_the_limit_is_refused_and_the_record_says_so() {
    let mut config = config();
    config.limits.metadata_bytes = 4;
    config.limits.attributes_bytes = 4;
    let mut control = Control::new(config);
    let mut long = request("r", "alice");
    long.join.metadata = "12345".to_owned();
    let mut many = request("r", "alice");
    many.join.attributes.insert("abc".to_owned(), "de".to_owned());
    let mut fits = request("r", "alice");
    fits.join.metadata = "1234".to_owned();
    fits.join.attributes.insert("ab".to_owned(), "cd".to_owned());
    for over in [long, many] {
        assert_eq!(control.handle_join(at(0), over), Err(JoinError::MetadataTooLong));
        let Output::Event(event) = control.poll_output() else { panic!("a refusal is told") };
        let Event::Fact(fact) = *event else { panic!("a fact") };
        let refused = Refused { what: "join".to_owned(), why: "metadata_too_long".to_owned() };
        assert_eq!(fact.body, refused.into());
    }
    assert!(control.room(&"r".into()).is_none(), "a refused join makes no room");
    assert!(control.handle_join(at(0), fits).is_ok());
}

#[test]
fn a_token_overrides_a_preset_and_a_preset_the_defaults() {
    let mut config = config();
    let small = RoomOptions {
        empty_timeout_s: Some(11),
        departure_timeout_s: Some(12),
        max_participants: Some(13),
        metadata: Some("preset".to_owned()),
    };
    config.room.presets.insert("small".to_owned(), small);
    let mut control = Control::new(config);
    let mut join = request("r", "alice");
    join.preset = "small".to_owned();
    join.options.empty_timeout_s = Some(5);
    control.handle_join(at(0), join).unwrap();
    let Output::ToShard { command, .. } = control.poll_output() else { panic!("no command") };
    let Command::CreateRoom(room) = *command else { panic!("no room") };
    assert_eq!((room.empty_timeout_s, room.departure_timeout_s, room.max_participants), (5, 12, 13));
    assert_eq!(room.metadata, "preset");
    assert_eq!((room.turn_password.reveal().len(), room.sif_trailer.len()), (43, 43));
    let mut unknown = request("x", "alice");
    unknown.preset = "nosuch".to_owned();
    assert_eq!(control.handle_join(at(0), unknown), Err(JoinError::UnknownPreset));
    assert!(control.room(&"x".into()).is_none());
}

#[test]
fn rooms_go_to_the_least_loaded_shard_and_stay_there() {
    let mut control = Control::new(ControlConfig { shards: 3, ..config() });
    let mut shards = Vec::new();
    for room in ["a", "b", "c", "a", "a", "b", "d"] {
        let peer = control.handle_join(at(0), request(room, &format!("{}", shards.len()))).unwrap();
        shards.push(control.shard_of(peer).unwrap().0);
    }
    assert_eq!(shards, [0, 1, 2, 0, 0, 1, 2]);
    assert_eq!(control.counts().participants_by_shard, [3, 2, 2]);
}

#[test]
fn empty_rooms_are_spread_too() {
    let mut control = Control::new(ControlConfig { shards: 2, ..config() });
    for name in ["a", "b"] {
        control.handle_create_room(at(0), &name.into(), &RoomOptions::default(), "").unwrap();
    }
    let shards: Vec<u16> = control.rooms().map(|room| room.shard.0).collect();
    assert_eq!(shards, [0, 1]);
}

#[test]
fn a_stuck_shard_gets_no_rooms_and_no_joins_until_it_works_again() {
    let mut control = Control::new(ControlConfig { shards: 2, ..config() });
    let alice = control.handle_join(at(0), request("a", "alice")).unwrap();
    assert_eq!(control.shard_of(alice), Some(ShardIndex(0)));
    drain(&mut control);
    control.handle_shard_health(at(1), ShardIndex(0), ShardHealth::Stuck);
    for (name, identity) in [("b", "bob"), ("c", "carol"), ("d", "dave")] {
        let peer = control.handle_join(at(1), request(name, identity)).unwrap();
        assert_eq!(control.shard_of(peer), Some(ShardIndex(1)));
    }
    drain(&mut control);
    assert_eq!(control.check(&"a".into(), false), Err(JoinError::RoomUnavailable));
    assert_eq!(control.handle_join(at(1), request("a", "erin")), Err(JoinError::RoomUnavailable));
    assert_eq!(drain(&mut control).0, ["refused join room_unavailable"], "nothing goes to the shard");
    let again = control.handle_create_room(at(1), &"a".into(), &RoomOptions::default(), "");
    assert_eq!(again, Err(JoinError::RoomUnavailable));
    control.handle_shard_health(at(2), ShardIndex(0), ShardHealth::Working);
    let erin = control.handle_join(at(2), request("a", "erin")).unwrap();
    let fresh = control.handle_join(at(2), request("e", "frank")).unwrap();
    assert_eq!([erin, fresh].map(|peer| control.shard_of(peer)), [Some(ShardIndex(0)); 2]);
}

#[test]
fn a_node_without_a_shard_that_works_takes_nobody() {
    let mut control = control();
    control.handle_shard_health(at(0), ShardIndex(0), ShardHealth::Stuck);
    control.handle_shard_health(at(0), ShardIndex(7), ShardHealth::Working);
    assert_eq!(control.check(&"r".into(), false), Err(JoinError::NodeUnavailable));
    assert_eq!(control.handle_join(at(0), request("r", "alice")), Err(JoinError::NodeUnavailable));
    assert!(control.room(&"r".into()).is_none(), "a refused join makes no room");
    assert_eq!(
        JoinError::NodeUnavailable.to_string(),
        "no media thread of this node answers; try again later"
    );
}

#[test]
fn the_rooms_of_a_shard_that_has_ended_end_with_it_and_the_record_says_so() {
    let mut control = Control::new(ControlConfig { shards: 2, ..config() });
    let alice = control.handle_join(at(0), request("a", "alice")).unwrap();
    control.handle_active(alice);
    let bob = control.handle_join(at(0), request("b", "bob")).unwrap();
    drain(&mut control);
    control.handle_shard_health(at(1), ShardIndex(0), ShardHealth::Ended);
    let Output::Event(event) = control.poll_output() else { panic!("the end of a session") };
    let Event::Fact(fact) = *event else { panic!("a fact") };
    assert_eq!(fact.body, ParticipantLeft { reason: "crash".to_owned(), was_active: true }.into());
    let Output::Event(event) = control.poll_output() else { panic!("the end of a room") };
    let Event::Fact(fact) = *event else { panic!("a fact") };
    assert_eq!(fact.body, RoomEnded { reason: "crash".to_owned() }.into());
    assert_eq!(drain(&mut control).0, [""; 0], "nothing is sent to a shard that does not hear");
    assert_eq!(control.counts().participants_by_shard, [0, 1]);
    // Whatever is said of it later: it has ended.
    control.handle_shard_health(at(2), ShardIndex(0), ShardHealth::Working);
    let again = control.handle_join(at(2), request("a", "alice")).unwrap();
    assert_eq!([again, bob].map(|peer| control.shard_of(peer)), [Some(ShardIndex(1)); 2]);
    // A shutdown waits for the rooms that are left.
    drain(&mut control);
    control.handle_shutdown(LeaveAction::Reconnect);
    let close = "1: close server_shutdown shutdown reconnect";
    assert_eq!(drain(&mut control).0, [close, close]);
}

#[test]
fn a_join_while_the_room_closes_makes_another_room() {
    let mut control = control();
    let alice = control.handle_join(at(0), request("r", "alice")).unwrap();
    let first = sid(&control, "r");
    assert!(control.handle_close_room(&"r".into(), DisconnectReason::RoomDeleted, "deleted"));
    assert!(!control.handle_close_room(&"r".into(), DisconnectReason::RoomDeleted, "deleted"));
    control.handle_join(at(1), request("r", "alice")).unwrap();
    let second = sid(&control, "r");
    assert_ne!(first, second);
    control.handle_left(at(1), alice);
    control.handle_room_closed(at(1), &first);
    assert_eq!(sid(&control, "r"), second);
    assert_eq!(control.counts().rooms, 1);
}

#[test]
fn a_room_that_ends_by_itself_takes_its_sessions_along() {
    let mut control = control();
    let alice = control.handle_join(at(0), request("r", "alice")).unwrap();
    control.handle_active(alice);
    assert_eq!(control.counts().active, 1);
    let room = sid(&control, "r");
    control.handle_room_closed(at(2), &room);
    let counts = control.counts();
    assert_eq!((counts.rooms, counts.participants, counts.participants_by_shard), (0, 0, vec![0]));
    drain(&mut control);
    control.handle_signal_closed(alice);
    assert!(drain(&mut control).0.is_empty());
    assert_eq!(control.counts().unknown_peers, 1);
}

#[test]
fn a_shutdown_closes_every_room_and_says_when_the_last_one_is_gone() {
    let mut control = control();
    for (room, identity) in [("a", "alice"), ("b", "bob")] {
        control.handle_join(at(0), request(room, identity)).unwrap();
    }
    let rooms = [sid(&control, "a"), sid(&control, "b")];
    drain(&mut control);
    control.handle_shutdown(LeaveAction::Disconnect);
    let close = "0: close server_shutdown shutdown";
    assert_eq!(drain(&mut control).0, [close, close]);
    assert_eq!(control.handle_join(at(0), request("c", "carol")), Err(JoinError::Draining));
    drain(&mut control);
    control.handle_room_closed(at(1), &rooms[0]);
    assert!(drain(&mut control).0.is_empty());
    control.handle_room_closed(at(1), &rooms[1]);
    control.handle_room_closed(at(1), &rooms[1]);
    assert_eq!(drain(&mut control).0, ["drained"]);
}

#[test]
fn an_idle_node_is_drained_at_once() {
    let mut control = control();
    control.handle_shutdown(LeaveAction::Disconnect);
    assert_eq!(drain(&mut control).0, ["drained"]);
}

#[test]
fn one_seed_gives_one_directory() {
    let run = || {
        let mut control = control();
        control.handle_join(at(0), request("r", "alice")).unwrap();
        sid(&control, "r")
    };
    assert_eq!(run(), run());
}

/// Random calls in random order: load, occupants and deadlines stay in step with the sessions that are there.
#[test]
fn whatever_happens_the_counts_agree_with_each_other() {
    let mut random = Random::from_seed([9; 32]);
    let mut control = Control::new(ControlConfig { shards: 3, ..config() });
    let mut peers: Vec<PeerKey> = Vec::new();
    for turn in 0..5_000u64 {
        let now = at(turn / 4);
        let room = format!("r{}", random.below(6));
        let identity = format!("i{}", random.below(9));
        let known = |random: &mut Random| {
            let index = random.below(peers.len() as u64) as usize;
            peers.get(index).copied().unwrap_or(PeerKey(0))
        };
        match random.below(9) {
            0..=2 => peers.extend(control.handle_join(now, request(&room, &identity))),
            3 => peers.extend(control.handle_join(now, dependent(&room, &identity))),
            4 => control.handle_left(now, known(&mut random)),
            5 => control.handle_active(known(&mut random)),
            6 => {
                control.handle_close_room(&room.as_str().into(), DisconnectReason::RoomDeleted, "deleted");
            }
            7 => {
                let health = [ShardHealth::Working, ShardHealth::Stuck][random.below(2) as usize];
                control.handle_shard_health(now, ShardIndex(random.below(4) as u16), health);
            }
            _ => control.handle_timeout(now),
        }
        loop {
            match control.poll_output() {
                Output::ToShard { command, .. } => match *command {
                    Command::CloseRoom { room, .. } => control.handle_room_closed(now, &room),
                    Command::Disconnect { peer, .. } => control.handle_left(now, peer),
                    _ => {}
                },
                Output::Timeout(..) => break,
                _ => {}
            }
        }
        let counts = control.counts();
        let occupants: u32 = control.rooms().map(|room| room.occupants).sum();
        assert_eq!(counts.participants, occupants);
        assert_eq!(counts.participants_by_shard.iter().sum::<u32>(), occupants);
        assert_eq!(counts.rooms as usize, control.rooms().count());
    }
}
