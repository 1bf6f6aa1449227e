//! The shape and the text of a report, word for word. `fanlight report --json` is an interface: scripts read it.

use fanlight_events::{ClientFacts, Direction, Kind, LayerCounters, TrackCounters, catalog};
use fanlight_telemetry::collector::measured::ClientMetric;
use fanlight_telemetry::report::{
    ParticipantReport, RelayReport, Report, RoomReport, TimelineReport, TrackReport,
};
use serde_json::{Map, Value, json};

/// 2026-11-21 23:59:50 UTC.
const START_MS: u64 = 1_795_305_590_000;

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { panic!("fields are an object") };
    fields
}

fn event(after_ms: u64, event: &str, participant: &str, track: &str, value: Value) -> TimelineReport {
    TimelineReport {
        t_ms: START_MS + after_ms,
        event: event.into(),
        participant: participant.into(),
        track: track.into(),
        fields: fields(value),
    }
}

fn camera(direction: Direction, publisher: &str, started_ms: u64, ended_ms: Option<u64>) -> TrackReport {
    let publishes = direction == Direction::Publish;
    TrackReport {
        sid: "TR_camera".into(),
        direction,
        kind: Some(Kind::Video),
        source: "camera".into(),
        codec: "video/VP8".into(),
        started_ms,
        ended_ms,
        counters: TrackCounters {
            packets: 1_000,
            bytes: 1_000_000,
            header_bytes: 20_000,
            retransmitted: 12,
            lost: 10,
            frames: 240,
            rtt_us: 31_000,
            layers: if publishes {
                vec![LayerCounters {
                    rid: "q".into(),
                    packets: 1_000,
                    bytes: 1_000_000,
                    ..Default::default()
                }]
            } else {
                Vec::new()
            },
            ..TrackCounters::default()
        },
        counters_ms: Some(started_ms + 8_000),
        peak_bps: 1_234_500,
        publisher: publisher.into(),
        client: None,
    }
}

fn measured(track: &str, value: Option<f64>) -> ClientMetric {
    ClientMetric {
        connection: 7,
        label: "CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT".into(),
        participant: "alice".into(),
        track: track.into(),
        rid: String::new(),
        at_ms: START_MS + 5_000,
        value,
    }
}

/// One room that ended, with a name that tries to rewrite the screen, and its successor that is open.
fn example() -> Report {
    let alice = ParticipantReport {
        sid: "PA_alice".into(),
        identity: "alice".into(),
        joined_ms: START_MS + 100,
        left_ms: Some(START_MS + 9_000),
        reason: Some("client_initiated".into()),
        client: ClientFacts {
            sdk: "js".into(),
            version: "2.15.0".into(),
            protocol: 16,
            browser: "Chrome".into(),
            browser_version: "140".into(),
            os: "linux".into(),
            address: "127.0.0.1:50000".into(),
            ..ClientFacts::default()
        },
        tracks: vec![camera(Direction::Publish, "PA_alice", START_MS + 1_000, Some(START_MS + 9_000))],
        relay: Some(RelayReport { sessions: 1, held_ms: 8_000, sent_bytes: 1_040_000, received_bytes: 0 }),
        metrics: Vec::new(),
        connect_ms: Some(412),
        connection_type: "udp".into(),
    };
    let eve = ParticipantReport {
        sid: "PA_eve".into(),
        identity: "eve\u{1b}[1A\u{202e}".into(),
        joined_ms: START_MS + 200,
        left_ms: Some(START_MS + 11_000),
        reason: Some("connection_timeout".into()),
        client: ClientFacts::default(),
        tracks: vec![camera(Direction::Subscribe, "PA_alice", START_MS + 1_100, Some(START_MS + 9_000))],
        relay: None,
        metrics: vec![measured("TR_camera", Some(2.5)), measured("TR_gone", None)],
        connect_ms: None,
        connection_type: String::new(),
    };
    let timeline = vec![
        event(0, "room_started", "", "", json!({"name": "demo"})),
        event(
            100,
            "participant_joined",
            "PA_alice",
            "",
            json!({"identity": "alice", "client": {"sdk": "js"}}),
        ),
        event(1_000, "track_published", "PA_alice", "TR_camera", json!({"codec": "video/VP8", "width": 640})),
        event(
            9_000,
            "participant_left",
            "PA_alice",
            "",
            json!({"reason": "client_initiated", "was_active": true}),
        ),
        event(15_000, "room_ended", "", "", json!({"reason": "departed"})),
    ];
    let ended = RoomReport {
        sid: "RM_first".into(),
        name: "demo".into(),
        started_ms: START_MS,
        ended_ms: Some(START_MS + 15_000),
        reason: Some("departed".into()),
        participants: vec![alice, eve],
        timeline,
    };
    let open = RoomReport {
        sid: "RM_second".into(),
        name: "demo".into(),
        started_ms: START_MS + 60_000,
        ended_ms: None,
        reason: None,
        participants: Vec::new(),
        timeline: Vec::new(),
    };
    Report { rooms: vec![ended, open], seen_ms: Some(START_MS + 120_000) }
}

#[test]
fn the_json_has_exactly_the_shape_that_scripts_rely_on() {
    let report: Value = serde_json::from_str(&example().to_json()).unwrap();
    let expected: Value = serde_json::from_str(include_str!("data/report.json")).unwrap();
    assert_eq!(report, expected, "{}", example().to_json());
}

#[test]
fn the_text_is_readable_and_moves_no_cursor() {
    let text = example().to_text(START_MS + 121_000);
    assert_eq!(text, include_str!("data/report.txt"), "{text}");
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()));
}

#[test]
fn a_room_that_a_dead_server_left_open_is_told_as_last_seen() {
    let text = example().to_text(START_MS + 3_600_000);
    assert!(text.contains("open when the server was last seen, 2026-11-22 00:01:50 UTC"), "{text}");
    assert!(text.contains("(1 m 00 s)"), "{text}");
}

fn trouble_of(change: impl FnOnce(&mut RoomReport)) -> Vec<String> {
    let mut report = example();
    report.rooms.truncate(1);
    let room = &mut report.rooms[0];
    // Nothing is wrong with this one.
    room.participants[1].identity = "bob".into();
    room.participants[1].connect_ms = Some(300);
    room.participants[1].reason = Some("client_initiated".into());
    change(room);
    let text = report.to_text(START_MS + 121_000);
    let lines = text.lines().skip_while(|line| *line != "  What went wrong").skip(1);
    lines.take_while(|line| !line.is_empty()).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn what_went_wrong_is_said_in_sentences() {
    assert_eq!(trouble_of(|_| {}), [] as [&str; 0]);
    let lossy = trouble_of(|room| {
        room.participants[0].tracks[0].counters.lost = 50;
        room.participants[1].tracks[0].counters.lost = 20;
    });
    assert_eq!(
        lossy,
        [
            "alice's camera lost 4.76 % of its packets on the way to the server.",
            "alice's camera lost 2.00 % of its packets on the way to bob."
        ]
    );
    let silent = trouble_of(|room| room.participants[1].tracks[0].counters = TrackCounters::default());
    assert_eq!(silent, ["Nothing of alice's camera arrived on the way to bob in 7.9 s."]);
    let muted = trouble_of(|room| {
        room.participants[1].tracks[0].counters = TrackCounters::default();
        room.timeline.push(event(2_000, "track_muted", "PA_alice", "TR_camera", json!({})));
    });
    assert_eq!(muted, [] as [&str; 0]);
    let far = trouble_of(|room| room.participants[1].tracks[0].counters.rtt_us = 420_000);
    assert_eq!(far, ["alice's camera took 420 ms there and back on the way to bob."]);
    let cut = trouble_of(|room| {
        room.participants[1].reason = Some("connection_timeout".into());
        room.participants[1].connection_type = "tcp".into();
    });
    assert_eq!(
        cut,
        [
            "bob did not leave by itself: lost its connection (connection_timeout) after 10.8 s.",
            "bob was connected over TCP, which stalls on loss; UDP may be blocked on its way."
        ]
    );
    let killed = trouble_of(|room| {
        room.reason = Some("crash".into());
        room.participants[1].reason = Some("crash".into());
    });
    assert_eq!(killed, ["The room was cut off: the server was killed (crash)."]);
}

#[test]
fn refusals_are_summed_and_gaps_in_the_record_are_said() {
    let refused = trouble_of(|room| {
        let what = json!({"what": "subscription", "why": "track not found"});
        room.timeline.push(event(1_000, "refused", "PA_eve", "", what.clone()));
        room.timeline.push(event(2_000, "refused", "PA_eve", "", what));
        room.timeline.push(event(3_000, "refused", "", "", json!({"what": "join", "why": "room_full"})));
        for refused in [3, 7] {
            let queue = json!({"queue": "facts", "refused": refused});
            room.timeline.push(event(4_000, "queue_refused", "", "", queue));
        }
    });
    assert_eq!(
        refused,
        [
            "Refused: join (room_full).",
            "Refused to bob: subscription (track not found), 2 times.",
            "This record is not complete: 7 entries did not fit the queue facts."
        ]
    );
}

#[test]
fn no_field_of_an_event_hides_behind_a_field_of_the_timeline() {
    let reserved = ["t_ms", "event", "participant", "track"];
    for event in catalog() {
        let is_fact = event.lane == fanlight_events::Lane::Fact;
        assert!(
            !is_fact || event.fields.iter().all(|field| !reserved.contains(&field.name)),
            "{}",
            event.name
        );
    }
}
