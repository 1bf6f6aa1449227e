use super::*;
use fanlight_events::{ClientFacts, Kind, TrackCounters};
use serde_json::json;

fn track(sid: &str, direction: Direction) -> TrackReport {
    TrackReport {
        sid: sid.into(),
        direction,
        kind: Some(Kind::Video),
        source: "camera".into(),
        codec: "video/VP8".into(),
        started_ms: 10_000,
        ended_ms: None,
        counters: TrackCounters { packets: 90, retransmitted: 8, padding: 2, ..TrackCounters::default() },
        counters_ms: None,
        peak_bps: 0,
        publisher: "PA_a".into(),
        client: None,
    }
}

fn participant() -> ParticipantReport {
    ParticipantReport {
        sid: "PA_a".into(),
        identity: "alice".into(),
        joined_ms: 10_000,
        left_ms: Some(70_000),
        reason: None,
        client: ClientFacts::default(),
        tracks: Vec::new(),
        relay: None,
        metrics: Vec::new(),
        connect_ms: None,
        connection_type: String::new(),
    }
}

fn event(name: &str, track: &str, fields: &Value) -> TimelineReport {
    TimelineReport {
        t_ms: 0,
        event: name.into(),
        participant: "PA_a".into(),
        track: track.into(),
        fields: fields.as_object().cloned().unwrap(),
    }
}

fn stored(at_ms: u64, object: Value) -> StoredObject {
    StoredObject {
        kind: object["type"].as_str().unwrap().to_owned(),
        id: object["id"].as_str().unwrap().to_owned(),
        at_ns: at_ms * 1_000_000,
        stats_ms: 0.0,
        json: object.to_string(),
    }
}

#[test]
fn a_published_track_is_all_layers_of_its_m_lines() {
    let camera = track("TR_cam", Direction::Publish);
    let timeline = [
        event("track_published", "TR_cam", &json!({"cid": "cam-1", "mids": ["1"]})),
        event("track_changed", "TR_cam", &json!({"mids": ["1", "4"]})),
        event("track_published", "TR_mic", &json!({"cid": "mic-1", "mids": ["0"]})),
    ];
    let names = TrackNames::new(&participant(), &camera, &timeline);
    let objects = [
        stored(1, json!({"type":"outbound-rtp","id":"q","mid":"1","packetsSent":10,"bytesSent":100.0})),
        stored(3, json!({"type":"outbound-rtp","id":"h","mid":"1","packetsSent":20,"framesEncoded":5})),
        stored(2, json!({"type":"outbound-rtp","id":"backup","mid":"4","packetsSent":40})),
        stored(9, json!({"type":"outbound-rtp","id":"mic","mid":"0","packetsSent":1000})),
        stored(
            9,
            json!({"type":"remote-inbound-rtp","id":"r","localId":"h","packetsLost":-1,"roundTripTime":0.031}),
        ),
    ];
    let counted = Objects::new(&objects).track(&names, &Objects::default()).unwrap();
    assert_eq!((counted.packets, counted.bytes, counted.frames, counted.at_ms), (70, 100, 5, 3));
    assert_eq!((counted.lost, counted.rtt_us), (0, 31_000));
    let before = Objects::new(&[stored(0, json!({"type":"outbound-rtp","id":"h","packetsSent":15}))]);
    assert_eq!(Objects::new(&objects).track(&names, &before).unwrap().packets, 55);
    let mic = track("TR_mic", Direction::Publish);
    let mic = TrackNames::new(&participant(), &mic, &timeline);
    assert!(!names.shares(&mic) && names.shares(&names.clone()));
}

#[test]
fn without_a_mid_the_clients_own_id_tells() {
    let camera = track("TR_cam", Direction::Publish);
    let timeline = [event("track_published", "TR_cam", &json!({"cid": "cam-1", "mids": ["1"]}))];
    let names = TrackNames::new(&participant(), &camera, &timeline);
    let objects = [
        stored(1, json!({"type":"outbound-rtp","id":"o","mediaSourceId":"s","packetsSent":7})),
        stored(1, json!({"type":"outbound-rtp","id":"p","mediaSourceId":"t","packetsSent":8})),
        stored(1, json!({"type":"media-source","id":"s","trackIdentifier":"cam-1"})),
        stored(1, json!({"type":"media-source","id":"t","trackIdentifier":"mic-1"})),
    ];
    assert_eq!(Objects::new(&objects).track(&names, &Objects::default()).unwrap().packets, 7);
}

#[test]
fn a_subscription_is_found_by_its_ssrc_else_by_its_sid() {
    let camera = track("TR_cam", Direction::Subscribe);
    let timeline = [event("track_subscribed", "TR_cam", &json!({"ssrc": 77}))];
    let objects = Objects::new(&[
        stored(
            1,
            json!({"type":"inbound-rtp","id":"a","ssrc":77,"packetsReceived":5,"freezeCount":1,"totalFreezesDuration":0.25}),
        ),
        stored(
            1,
            json!({"type":"inbound-rtp","id":"b","ssrc":78,"trackIdentifier":"TR_cam","packetsReceived":6}),
        ),
    ]);
    let found = |timeline: &[TimelineReport]| {
        objects.track(&TrackNames::new(&participant(), &camera, timeline), &Objects::default()).unwrap()
    };
    let by_ssrc = found(&timeline);
    assert_eq!((by_ssrc.packets, by_ssrc.freezes, by_ssrc.frozen_ms), (5, 1, 250));
    assert_eq!(found(&[]).packets, 6);
    assert!(
        Objects::default().track(&TrackNames::new(&participant(), &camera, &timeline), &objects).is_none()
    );
}

#[test]
fn a_connection_is_of_the_session_it_names_else_of_the_one_it_was_in() {
    let connection = |sid: &str, first_ms: u64, last_ms: u64| ClientConnection {
        participant_sid: sid.to_owned(),
        first_ns: first_ms * 1_000_000,
        last_ns: last_ms * 1_000_000,
        ..ClientConnection::default()
    };
    let alice = participant();
    assert!(belongs(&connection("PA_a", 0, 0), 0, &alice));
    assert!(!belongs(&connection("PA_b", 20_000, 30_000), 0, &alice));
    assert!(belongs(&connection("", 11_000, 71_000), 0, &alice));
    assert!(!belongs(&connection("", 71_000, 99_000), 0, &alice));
    assert!(belongs(&connection("", 3_600_000, 3_620_000), -3_580_000, &alice));
    let open = ParticipantReport { left_ms: None, ..alice };
    assert!(belongs(&connection("", 71_000, 99_000), 0, &open));
}

#[test]
fn of_two_reporters_of_one_track_the_one_with_more_counts() {
    let mut camera = track("TR_cam", Direction::Publish);
    let counted = |packets| ClientTrack { packets, ..ClientTrack::default() };
    put_beside(&mut camera, 1, counted(5));
    put_beside(&mut camera, 2, counted(99));
    put_beside(&mut camera, 3, counted(6));
    let client = camera.client.unwrap();
    assert_eq!((client.connection, client.packets, client.server_packets), (2, 99, 100));
}
