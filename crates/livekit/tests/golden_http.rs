//! Recorded requests to a LiveKit server, replayed against admission, `control` and the first message of a session.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::Now;
use fanlight_control::{Control, RoomDefaults};
use fanlight_livekit::admission::{self, Step};
use fanlight_livekit::http_rules::{self, Answer, HttpRequest, NodeHealth};
use fanlight_livekit::server::Server;
use fanlight_livekit::session::{Action, Frame, Session};
use fanlight_sfu::model::{DisconnectReason, RoomConfig};
use fanlight_sfu::output::Signal;
use livekit_protocol as proto;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const RECORDED: &str = include_str!("data/http.jsonl");

/// Cases that differ, by the beginning of their name, and why. Each must differ: what has become equal is taken out.
const DIFFERENT: [(&str, &str); 3] = [
    ("ws-handshake agent path with agent grant", "agent workers are not served yet: 404 in place of 101"),
    (
        "unknown-path /rtc%2Fvalidate",
        "an encoded slash is no slash: the 404 is not dressed as validate's answers are",
    ),
    (
        "ws-handshake permessage-deflate",
        "compression is optional (RFC 7692) and not offered; the messages are the same",
    ),
];

/// Its headers were not recorded.
const WITHOUT_HEADERS: &str = "limit.num_tracks: 1";

/// Members of JoinResponse that differ in every case, and why.
const DIFFERENT_IN_JOIN: [(&str, &str); 9] = [
    ("room.sid", "random"),
    ("room.turnPassword", "random, and always 43 characters"),
    ("room.creationTime", "the time of the run"),
    ("room.creationTimeMs", "the time of the run"),
    ("room.enabledCodecs", "PCMU, PCMA and H265 do not play here"),
    ("enabledPublishCodecs", "PCMU, PCMA and H265 do not play here"),
    ("participant.sid", "random"),
    ("sifTrailer", "random, and always 43 characters"),
    ("serverInfo.nodeId", "the node"),
];

struct World {
    server: Server,
    control: Control,
    rooms: Vec<RoomConfig>,
    healthy: bool,
}

impl World {
    fn of(config: &str) -> Self {
        let mut limits = if config == "limits" { support::small_limits() } else { Default::default() };
        limits.num_tracks = u32::from(config == "limit.num_tracks: 1");
        let mut room = RoomDefaults { auto_create: config != "noauto", ..RoomDefaults::default() };
        if config == "preset" {
            room.presets.insert("small".to_owned(), support::preset());
        }
        let mut control = support::control(limits.clone(), room);
        if config == "noauto" {
            let full = fanlight_control::RoomOptions { max_participants: Some(1), ..Default::default() };
            control.handle_create_room(support::NOW, &"full".into(), &full, "").unwrap();
            control.handle_create_room(support::NOW, &"made".into(), &Default::default(), "").unwrap();
        }
        Self { server: support::server(limits), control, rooms: Vec::new(), healthy: true }
    }

    /// What happened on the recorded server before this case.
    fn prepare(&mut self, name: &str, config: &str) {
        if matches!(config, "limits" | "preset") {
            self.control.handle_close_room(&"room1".into(), DisconnectReason::RoomDeleted, "deleted");
            self.control.handle_close_room(&"ghost".into(), DisconnectReason::RoomDeleted, "deleted");
        }
        self.control.handle_load(u32::from(name.starts_with("node limit reached")), 0);
        self.healthy = name != "health after redis has gone away";
    }

    fn answer(&mut self, request: &HttpRequest<'_>) -> (Answer, Vec<Value>) {
        let with_cors = |answer: Answer| {
            http_rules::cors(request)
                .into_iter()
                .fold(answer, |answer, (name, value)| answer.with(name, value))
        };
        match admission::step(&self.server, support::NOW, request) {
            Step::Answer(answer) => (answer, Vec::new()),
            Step::Health => {
                let age_ns = if self.healthy { 0 } else { 5_000_000_000 };
                let updated =
                    Now { mono_ns: support::NOW.mono_ns - age_ns, unix_ns: 1_795_242_420_000_000_000 };
                let node = NodeHealth { updated, failures: Vec::new(), warnings: Vec::new() };
                (with_cors(http_rules::health(support::NOW, &node)), Vec::new())
            }
            Step::Validate(admission) => {
                let checked = self.control.check(&admission.request.room, admission.request.may_create);
                (admission::validated(request, checked), Vec::new())
            }
            Step::Join(admission) => match self.control.handle_join(support::NOW, admission.request) {
                Ok(_) => {
                    let joined = support::joined(&mut self.control, &mut self.rooms);
                    let mut session = Session::new(admission.session);
                    let signal = Signal::Joined(Box::new(joined));
                    let actions = session.handle_signal(&self.server, support::NOW, signal);
                    (Answer::empty(101), said(actions))
                }
                Err(error) => (with_cors(admission::refused(error)), Vec::new()),
            },
            Step::RefuseResume(setup) => (Answer::empty(101), said(Session::new(*setup).refuse_resume())),
            Step::Pass { .. } => (with_cors(http_rules::not_found()), Vec::new()),
        }
    }
}

/// Messages as the recording writes them.
fn said(actions: Vec<Action>) -> Vec<Value> {
    let one = |action| match action {
        Action::Send(Frame::Binary(bytes)) => {
            let response = proto::SignalResponse::decode(bytes.as_slice()).unwrap();
            serde_json::to_value(response).unwrap()
        }
        Action::Close => json!({"close": {"code": 1000, "reason": ""}}),
        other => panic!("unexpected {other:?}"),
    };
    actions.into_iter().map(one).collect()
}

fn headers(recorded: &Value, token: &str) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in recorded.as_object().into_iter().flatten() {
        if name == "@websocket" {
            for (name, value) in [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ] {
                headers.push((name.to_owned(), value.to_owned()));
            }
        } else {
            headers.push((name.clone(), value.as_str().unwrap().replace("{TOKEN}", token)));
        }
    }
    headers
}

/// The recorded headers; those that records leave out are put back.
fn expected_headers(name: &str, response: &Value) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let lists_all = name.starts_with("cors") || name.starts_with("ws-handshake");
    if !lists_all && response["status"] != 101 {
        headers.insert("vary".to_owned(), "Origin".to_owned());
    }
    for (name, value) in response["headers"].as_object().into_iter().flatten() {
        match value.as_str() {
            Some(value) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => headers.remove(&name.to_lowercase()),
        };
    }
    headers.remove("content-length");
    headers
}

/// First difference of a recorded join and ours, field by field.
fn differs_in_join(path: &str, recorded: &Value, ours: &Value, full: bool, out: &mut Vec<String>) {
    if DIFFERENT_IN_JOIN.iter().any(|(known, _)| *known == path) {
        return;
    }
    let (Some(theirs), Some(mine)) = (recorded.as_object(), ours.as_object()) else {
        if recorded != ours && !path.ends_with("joinedAt") && !path.ends_with("joinedAtMs") {
            out.push(format!("{path}: recorded {recorded}, ours {ours}"));
        }
        return;
    };
    for (key, value) in theirs {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        differs_in_join(&path, value, mine.get(key).unwrap_or(&Value::Null), full, out);
    }
    if full {
        out.extend(
            mine.keys()
                .filter(|key| !theirs.contains_key(*key))
                .map(|key| format!("{path}.{key}: only ours")),
        );
    }
}

fn compare(name: &str, case: &Value, answer: &Answer, messages: &[Value]) -> Vec<String> {
    let response = &case["response"];
    let mut wrong = Vec::new();
    if response["status"] != answer.status {
        wrong.push(format!("status: recorded {}, ours {}", response["status"], answer.status));
    }
    if answer.status != 101 {
        let body = response["body"].as_str().unwrap_or_default().replace("{TOKEN}", "<token>");
        let head = case["request"]["method"] == "HEAD";
        if body != answer.body && !head {
            wrong.push(format!("body: recorded {body:?}, ours {:?}", answer.body));
        }
        let expected = expected_headers(name, response);
        let ours: BTreeMap<String, String> =
            answer.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
        if expected != ours && case["config"] != WITHOUT_HEADERS {
            wrong.push(format!("headers: recorded {expected:?}, ours {ours:?}"));
        }
    } else if response["headers"].get("Sec-WebSocket-Extensions").is_some() {
        wrong.push("recorded with compression".to_owned());
    }
    for (index, recorded) in response["ws_messages"].as_array().into_iter().flatten().enumerate() {
        let ours = messages.get(index).unwrap_or(&Value::Null);
        if let Some(join) = recorded.get("join") {
            let full = join.get("serverVersion").is_some();
            differs_in_join("", join, &ours["join"], full, &mut wrong);
        } else if recorded.get("compressed_frame").is_none() && recorded != ours {
            wrong.push(format!("message {index}: recorded {recorded}, ours {ours}"));
        }
    }
    wrong
}

#[test]
fn every_recorded_request_is_answered_as_recorded_but_for_the_listed_differences() {
    let mut worlds: BTreeMap<String, World> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut seen = [false; DIFFERENT.len()];
    let mut cases = 0;
    for line in RECORDED.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (name, config) = (case["name"].as_str().unwrap(), case["config"].as_str().unwrap());
        let world = worlds.entry(config.to_owned()).or_insert_with(|| World::of(config));
        world.prepare(name, config);
        let token = if case["token"].is_null() { String::new() } else { support::token(&case["token"]) };
        let request = &case["request"];
        let target = request["path"].as_str().unwrap().replace("{TOKEN}", &token);
        let target = target.strip_prefix("http://127.0.0.1:17880").unwrap_or(&target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = headers(&request["headers"], &token);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let body = request["body"].as_str().unwrap_or_default().replace("{TOKEN}", &token);
        let http = HttpRequest {
            method: request["method"].as_str().unwrap(),
            path,
            query,
            headers: &headers,
            body: body.as_bytes(),
            remote: None,
        };
        let (answer, messages) = world.answer(&http);
        let wrong = compare(name, &case, &answer, &messages);
        cases += 1;
        match DIFFERENT.iter().position(|(known, _)| name.starts_with(known)) {
            Some(index) => seen[index] |= !wrong.is_empty(),
            None if wrong.is_empty() => {}
            None => failures.push(format!("{name} [{config}]\n  {}", wrong.join("\n  "))),
        }
    }
    assert!(failures.is_empty(), "{} of {cases} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(cases > 500, "only {cases} cases");
    for ((name, reason), seen) in DIFFERENT.iter().zip(seen) {
        assert!(seen, "{name} no longer differs ({reason})");
    }
}
