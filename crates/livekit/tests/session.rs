//! One signalling connection: what recorded and broken messages of clients become.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_livekit::convert;
use fanlight_livekit::session::{Action, Frame, MESSAGE_BYTES_MAX, Session, SessionSetup, UPDATE_BYTES_MAX};
use fanlight_livekit::token::{Grants, VideoGrant};
use fanlight_sfu::input::{Quirks, Request};
use fanlight_sfu::model::{
    DisconnectReason, Kind, ParticipantInfo, ParticipantKind, ParticipantState, Permission, SharedInfo,
    Source, TrackInfo,
};
use fanlight_sfu::output::{LeaveAction, RequestReason, Signal};
use livekit_protocol as proto;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const REQUESTS: &str = include_str!("data/requests.jsonl");

fn setup() -> SessionSetup {
    let video = VideoGrant { can_update_own_metadata: Some(true), ..VideoGrant::default() };
    SessionSetup {
        protocol: 17,
        single: false,
        old_rust: false,
        quirks: Quirks::default(),
        grants: Grants { video: Some(video), ..Grants::default() },
        expires_s: None,
        resumes: false,
        refused_tracks: Vec::new(),
        bad_offer: false,
    }
}

fn binary(message: &Value) -> Frame {
    let request: proto::SignalRequest = serde_json::from_value(message.clone()).unwrap();
    Frame::Binary(request.encode_to_vec())
}

/// What a message becomes, in a few words.
fn words(actions: Vec<Action>) -> Vec<String> {
    actions.into_iter().map(word).collect()
}

fn word(action: Action) -> String {
    match action {
        Action::Close => "close".to_owned(),
        Action::Send(frame) => {
            let (kind, response) = match frame {
                Frame::Binary(bytes) => {
                    let response = proto::SignalResponse::decode(bytes.as_slice()).unwrap();
                    ("", serde_json::to_value(response).unwrap())
                }
                Frame::Text(text) => ("text ", serde_json::from_str(&text).unwrap()),
            };
            let (name, body) = response.as_object().unwrap().iter().next().unwrap();
            match body.get("reason").and_then(Value::as_str) {
                Some(reason) => format!("{kind}{name} {reason}"),
                None => format!("{kind}{name}"),
            }
        }
        Action::Request(request) => match *request {
            Request::Offer { id, .. } => format!("offer {id}"),
            Request::Answer { id, .. } => format!("answer {id}"),
            Request::Leave { reason } => format!("leave {}", reason.as_str()),
            Request::Trickle { target, .. } => format!("trickle {}", target.as_str()),
            Request::AddTrack(track) => format!("add_track {}", track.source.as_str()),
            Request::BadDescription => "bad description".to_owned(),
            other => format!("{other:?}").split([' ', '{', '(']).next().unwrap().to_lowercase(),
        },
    }
}

fn handle(session: &mut Session, frame: &Frame) -> Vec<String> {
    words(session.handle_frame(&support::server(Default::default()), support::NOW, frame))
}

fn track_info(sid: &str) -> TrackInfo {
    TrackInfo {
        sid: sid.into(),
        kind: Kind::Audio,
        name: String::new(),
        muted: false,
        width: 0,
        height: 0,
        simulcast: false,
        source: Source::UNKNOWN,
        layers: Vec::new(),
        mime_type: String::new(),
        mid: String::new(),
        codecs: Vec::new(),
        stream: String::new(),
        disable_dtx: false,
        stereo: false,
        disable_red: false,
        encryption: 0,
        version_unix_us: 0,
        audio_features: Vec::new(),
        backup_codec_policy: 0,
    }
}

fn participant(metadata: String) -> ParticipantInfo {
    ParticipantInfo {
        sid: "PA_a".into(),
        identity: "alice".into(),
        state: ParticipantState::Active,
        tracks: Vec::new(),
        metadata,
        joined_ms: 0,
        name: String::new(),
        version: 1,
        permission: Permission::default(),
        is_publisher: false,
        kind: ParticipantKind::Standard,
        kind_details: Vec::new(),
        attributes: BTreeMap::new(),
        disconnect_reason: None,
        client_protocol: 0,
        capabilities: Vec::new(),
    }
}

#[test]
fn every_kind_of_recorded_request_becomes_what_it_should() {
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("add_track", &["add_track", "requestResponse UNSUPPORTED_TYPE"][..]),
        ("answer", &["answer", "bad description"]),
        ("get_data_blob_request", &["requestResponse INVALID_REQUEST"]),
        ("leave", &["leave"]),
        ("mute", &["mute"]),
        ("offer", &["offer", "bad description", ""]),
        ("ping", &["pong"]),
        ("ping_req", &["pongResp"]),
        ("publish_data_track_request", &["requestResponse NOT_ALLOWED"]),
        ("simulate", &["requestResponse UNSUPPORTED_TYPE"]),
        ("store_data_blob_request", &["requestResponse NOT_ALLOWED"]),
        ("subscription", &["subscribe"]),
        ("subscription_permission", &["subscriptionpermission"]),
        ("sync_state", &["bad description", "subscribe"]),
        ("track_setting", &["tracksettings"]),
        ("trickle", &["trickle", "requestResponse UNCLASSIFIED_ERROR", ""]),
        ("unpublish_data_track_request", &["requestResponse NOT_FOUND"]),
        ("update_audio_track", &["updateaudiotrack"]),
        ("update_data_subscription", &[""]),
        ("update_layers", &[""]),
        ("update_metadata", &["updatemetadata", "requestResponse LIMIT_EXCEEDED"]),
        ("update_video_track", &["updatevideotrack"]),
    ]);
    let mut seen = BTreeMap::new();
    for line in REQUESTS.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let kind = case["type"].as_str().unwrap();
        let became = handle(&mut Session::new(setup()), &binary(&case["msg"]));
        let first = became.first().map_or("", String::as_str);
        let fits = |word: &&str| if word.is_empty() { first.is_empty() } else { first.starts_with(*word) };
        assert!(expected[kind].iter().any(fits), "{line} became {became:?}");
        *seen.entry(kind.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), expected.len());
}

#[test]
fn a_recorded_track_keeps_every_field_on_its_way_through() {
    for line in REQUESTS.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let Some(recorded) = case["msg"].get("add_track") else { continue };
        let recorded: proto::AddTrackRequest = serde_json::from_value(recorded.clone()).unwrap();
        let Ok(track) = fanlight_livekit::convert::add_track(&recorded) else { continue };
        let again = fanlight_livekit::convert::add_track_request(&track);
        let without = |request: &proto::AddTrackRequest| {
            let mut value = serde_json::to_value(request).unwrap();
            // The flags and the features are made to say the same.
            for member in ["disableDtx", "stereo", "audioFeatures", "packetTrailerFeatures"] {
                value.as_object_mut().unwrap().remove(member);
            }
            for codec in value["simulcastCodecs"].as_array_mut().into_iter().flatten() {
                codec.as_object_mut().unwrap().remove("videoLayerMode");
            }
            value
        };
        assert_eq!(without(&again), without(&recorded));
    }
}

#[test]
fn numbers_nobody_knows_are_kept_or_refused_but_never_guessed() {
    let request = |kind, source| proto::AddTrackRequest { r#type: kind, source, ..Default::default() };
    let handled = |request| {
        let message = Some(proto::signal_request::Message::AddTrack(request));
        let frame = Frame::Binary(proto::SignalRequest { message }.encode_to_vec());
        let actions =
            Session::new(setup()).handle_frame(&support::server(Default::default()), support::NOW, &frame);
        actions.into_iter().next().unwrap()
    };
    let Action::Request(kept) = handled(request(0, 9)) else { panic!("not a request") };
    assert!(matches!(*kept, Request::AddTrack(track) if track.source == Source(9)));
    let Action::Send(Frame::Binary(bytes)) = handled(request(9, 0)) else { panic!("not an answer") };
    let response = proto::SignalResponse::decode(bytes.as_slice()).unwrap();
    let Some(proto::signal_response::Message::RequestResponse(refusal)) = response.message else { panic!() };
    assert_eq!(refusal.reason(), proto::request_response::Reason::UnsupportedType);
    assert_eq!(refusal.request, Some(proto::request_response::Request::AddTrack(request(9, 0))));
}

#[test]
fn replies_follow_the_encoding_of_the_client() {
    let mut session = Session::new(setup());
    let ping = json!({"pingReq": {"timestamp": "5", "rtt": "7"}});
    assert_eq!(handle(&mut session, &Frame::Text(ping.to_string())), ["text pongResp", "signalrtt"]);
    assert_eq!(handle(&mut session, &binary(&ping)), ["pongResp", "signalrtt"]);
    assert_eq!(handle(&mut session, &Frame::Text(r#"{"nope":{}}"#.to_owned())), [""; 0]);
}

#[test]
fn a_pong_carries_the_ping_and_the_time() {
    let mut session = Session::new(setup());
    let frame = Frame::Text(r#"{"pingReq":{"timestamp":"123"}}"#.to_owned());
    let actions = session.handle_frame(&support::server(Default::default()), support::NOW, &frame);
    let [Action::Send(Frame::Text(text))] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(text, r#"{"pongResp":{"lastPingTimestamp":"123","timestamp":"1795241055552"}}"#);
}

#[test]
fn broken_frames_close_and_odd_ones_do_not() {
    let oversized = vec![0; MESSAGE_BYTES_MAX + 1];
    // Field 99 with a payload, as large as a message may be.
    let mut unknown = vec![0x9a, 0x06];
    prost::encoding::encode_varint((MESSAGE_BYTES_MAX - 5) as u64, &mut unknown);
    unknown.resize(MESSAGE_BYTES_MAX, 0);
    let cases: [(Frame, &[&str]); 7] = [
        (Frame::Binary(vec![0xde, 0xad, 0xbe, 0xef, 0xff, 0xff, 0xff, 0xff]), &["close"]),
        (Frame::Text("hello".to_owned()), &["close"]),
        (Frame::Text(String::new()), &["close"]),
        (Frame::Binary(oversized), &["close"]),
        (Frame::Binary(Vec::new()), &[]),
        (Frame::Binary(unknown), &[]),
        (Frame::Text("{}".to_owned()), &[]),
    ];
    for (frame, expected) in cases {
        let mut session = Session::new(setup());
        assert_eq!(handle(&mut session, &frame), expected);
        assert_eq!(session.is_closed(), !expected.is_empty());
        let after = handle(&mut session, &binary(&json!({"ping": "1"})));
        assert_eq!(after.is_empty(), session.is_closed(), "nothing comes out after the close");
    }
}

#[test]
fn unreadable_offers_are_passed_over_and_unusable_ones_end_the_session() {
    let good = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef012345\r\n\
        a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n";
    let bare = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n";
    let cases: [(&str, &str, &str, &[&str]); 9] = [
        ("offer", "offer", good, &["offer 3"]),
        ("offer", "offer", "v=0\r\nthis is not sdp\r\n", &[]),
        ("offer", "offer", "", &["bad description"]),
        ("offer", "offer", bare, &["bad description"]),
        ("offer", "answer", good, &["bad description"]),
        ("offer", "", good, &["bad description"]),
        ("answer", "answer", good, &["answer 3"]),
        ("answer", "answer", "v=0 broken", &["bad description"]),
        ("answer", "offer", good, &["bad description"]),
    ];
    for (message, kind, sdp, expected) in cases {
        let frame = binary(&json!({message: {"type": kind, "sdp": sdp, "id": 3}}));
        assert_eq!(handle(&mut Session::new(setup()), &frame), expected, "{message} {kind} {sdp:?}");
    }
    let answer = binary(&json!({"answer": {"type": "answer", "sdp": good}}));
    let single = SessionSetup { single: true, ..setup() };
    assert_eq!(
        handle(&mut Session::new(single), &answer),
        [""; 0],
        "with one peer connection clients do not answer"
    );
}

#[test]
fn reasons_a_client_may_not_give_count_as_its_own_wish() {
    for (reason, expected) in [
        ("CLIENT_INITIATED", "leave client_initiated"),
        ("USER_REJECTED", "leave user_rejected"),
        ("USER_UNAVAILABLE", "leave user_unavailable"),
        ("AGENT_ERROR", "leave agent_error"),
        ("SERVER_SHUTDOWN", "leave client_initiated"),
        ("UNKNOWN_REASON", "leave client_initiated"),
    ] {
        let frame = binary(&json!({"leave": {"reason": reason, "canReconnect": true}}));
        assert_eq!(handle(&mut Session::new(setup()), &frame), [expected]);
    }
}

#[test]
fn too_long_metadata_is_refused_here_only_to_those_who_may_change_it() {
    let server = support::server(support::small_limits());
    let frame = binary(&json!({"updateMetadata": {"requestId": 4, "metadata": "m".repeat(65)}}));
    let mut session = Session::new(setup());
    assert_eq!(
        words(session.handle_frame(&server, support::NOW, &frame)),
        ["requestResponse LIMIT_EXCEEDED"]
    );
    let mut session = Session::new(SessionSetup { grants: Grants::default(), ..setup() });
    assert_eq!(words(session.handle_frame(&server, support::NOW, &frame)), ["updatemetadata"]);
    let attributes = binary(&json!({"updateMetadata": {"attributes": {"k": "v".repeat(64)}}}));
    let mut session = Session::new(setup());
    assert_eq!(
        words(session.handle_frame(&server, support::NOW, &attributes)),
        ["requestResponse LIMIT_EXCEEDED"]
    );
}

#[test]
fn a_sync_state_that_knows_other_tracks_ends_the_session() {
    let server = support::server(Default::default());
    let sync = binary(&json!({"syncState": {
        "publishTracks": [{"cid": "c", "track": {"sid": "TR_a"}}],
        "subscription": {"trackSids": ["TR_b"], "subscribe": true},
        "trackSidsDisabled": ["TR_b"],
    }}));
    let mut session = Session::new(setup());
    assert_eq!(handle(&mut session, &sync), ["bad description"]);
    let track = Box::new(track_info("TR_a"));
    session.handle_signal(&server, support::NOW, Signal::TrackPublished { cid: "c".to_owned(), track });
    assert_eq!(handle(&mut session, &sync), ["subscribe", "tracksettings"]);
    session.handle_signal(&server, support::NOW, Signal::TrackUnpublished("TR_a".into()));
    assert_eq!(handle(&mut session, &sync), ["bad description"]);
}

#[test]
fn old_protocols_get_the_messages_of_their_time() {
    let server = support::server(Default::default());
    let say = |protocol, signal| {
        let mut session = Session::new(SessionSetup { protocol, ..setup() });
        session.handle_signal(&server, support::NOW, signal)
    };
    assert_eq!(words(say(6, Signal::TrackUnpublished("TR_a".into()))), ["mute"]);
    assert_eq!(words(say(7, Signal::TrackUnpublished("TR_a".into()))), ["trackUnpublished"]);
    let ok = |protocol| {
        let request = fanlight_sfu::output::EchoedRequest::None;
        let reason = RequestReason::Ok;
        words(say(
            protocol,
            Signal::RequestResponse { request_id: 1, reason, message: String::new(), request },
        ))
    };
    assert!(ok(14).is_empty());
    assert_eq!(ok(15), ["requestResponse"]);
    let leave = |protocol, action| {
        let actions = say(protocol, Signal::Leave { reason: DisconnectReason::StateMismatch, action });
        let Action::Send(Frame::Binary(bytes)) = &actions[0] else { panic!("{actions:?}") };
        assert!(matches!(actions[1], Action::Close));
        serde_json::to_value(proto::SignalResponse::decode(bytes.as_slice()).unwrap()).unwrap()
    };
    let reconnect = LeaveAction::Reconnect;
    assert_eq!(leave(12, reconnect), json!({"leave": {"canReconnect": true, "reason": "STATE_MISMATCH"}}));
    assert_eq!(leave(13, reconnect), json!({"leave": {"action": "RECONNECT", "reason": "STATE_MISMATCH"}}));
    assert_eq!(leave(12, LeaveAction::Disconnect), json!({"leave": {"reason": "STATE_MISMATCH"}}));
}

#[test]
fn a_resume_is_refused_and_the_connection_closed() {
    let mut session = Session::new(setup());
    assert_eq!(words(session.refuse_resume()), ["leave STATE_MISMATCH", "close"]);
    assert!(session.is_closed());
}

#[test]
fn large_updates_are_split() {
    let server = support::server(Default::default());
    let infos = (0..10)
        .map(|_| SharedInfo::new(participant("m".repeat(50_000)), convert::encode_participant))
        .collect();
    let actions = Session::new(setup()).handle_signal(&server, support::NOW, Signal::Participants(infos));
    assert_eq!(actions.len(), 5);
    let mut participants = 0;
    for action in actions {
        let Action::Send(Frame::Binary(bytes)) = action else { panic!("{action:?}") };
        assert!(bytes.len() <= UPDATE_BYTES_MAX);
        let response = proto::SignalResponse::decode(bytes.as_slice()).unwrap();
        let Some(proto::signal_response::Message::Update(update)) = response.message else {
            panic!("no update")
        };
        participants += update.participants.len();
    }
    assert_eq!(participants, 10);
}

#[test]
fn values_without_a_json_form_go_out_as_protobuf() {
    let server = support::server(Default::default());
    let mut session = Session::new(setup());
    handle(&mut session, &Frame::Text("{}".to_owned()));
    let mut track = track_info("TR_a");
    let signal =
        |track: &TrackInfo| Signal::TrackPublished { cid: String::new(), track: Box::new(track.clone()) };
    assert_eq!(words(session.handle_signal(&server, support::NOW, signal(&track))), ["text trackPublished"]);
    track.source = Source(9);
    let actions = session.handle_signal(&server, support::NOW, signal(&track));
    assert!(matches!(actions.as_slice(), [Action::Send(Frame::Binary(_))]), "{actions:?}");
}
