//! Input nobody should send: every fault gets its status and text, nothing panics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use fanlight_base::Random;
use fanlight_livekit::admission::{self, Step};
use fanlight_livekit::fuzzing;
use fanlight_livekit::http_rules::HttpRequest;
use flate2::Compression;
use flate2::write::GzEncoder;
use livekit_protocol as proto;
use prost::Message;
use serde_json::{Value, json};
use std::io::Write;

/// Status and body of a validate request with this token and query.
fn validate(path: &str, token: &str, query: &str) -> (u16, String) {
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    let headers = if token.is_empty() { &[][..] } else { &headers[..] };
    let request = HttpRequest { method: "GET", path, query, headers, body: b"", remote: None };
    match admission::step(&support::server(support::small_limits()), support::NOW, &request) {
        Step::Answer(answer) => (answer.status, answer.body),
        Step::Validate(_) => (200, "success".to_owned()),
        other => panic!("unexpected {other:?}"),
    }
}

fn claims() -> Value {
    json!({"iss": "devkey", "exp": "now+3600", "sub": "alice", "video": {"roomJoin": true, "room": "r"}})
}

fn signed(claims: &Value) -> String {
    support::token(&json!({ "claims": claims }))
}

fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims();
    change(&mut claims);
    signed(&claims)
}

fn headed(header: &Value) -> String {
    support::token(&json!({ "claims": claims(), "header": header }))
}

#[test]
fn tokens_that_are_not_good_get_the_recorded_texts_and_are_never_echoed() {
    let good = signed(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();
    let wrong = "invalid token: <token>, error: token signature is invalid:";
    let malformed = "invalid token: <token>, error: token is malformed: could not JSON decode claim: json: cannot unmarshal";
    let expired = "invalid token: <token>, error: token has invalid claims: token is expired";
    let cases: Vec<(String, String)> = vec![
        (good.clone(), "success".to_owned()),
        (headed(&json!({"alg": "none"})), format!("{wrong} signing method none is invalid")),
        (headed(&json!({"alg": "HS512"})), format!("{wrong} signing method HS512 is invalid")),
        (headed(&json!({"alg": "RS256"})), format!("{wrong} signing method RS256 is invalid")),
        (headed(&json!({"typ": "JWT"})), "invalid authorization token".to_owned()),
        (format!("{head}."), format!("{wrong} signature is invalid")),
        (format!("{head}.{}", signature.to_uppercase()), format!("{wrong} signature is invalid")),
        (format!("{head}.!!"), format!("{wrong} signature is invalid")),
        (format!("{header}..{signature}"), "invalid authorization token".to_owned()),
        (format!("{header}.{payload}"), "invalid authorization token".to_owned()),
        (
            format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("[]")),
            "invalid authorization token".to_owned(),
        ),
        ("a.b.c.d.e".to_owned(), "invalid authorization token".to_owned()),
        ("x".repeat(300_000), "invalid authorization token".to_owned()),
        (with(|c| c["exp"] = "now-61".into()), expired.to_owned()),
        (with(|c| c["iss"] = "nobody".into()), "invalid API key: nobody".to_owned()),
        (with(|c| c["iss"] = 5.into()), "invalid authorization token".to_owned()),
        (
            with(|c| c["exp"] = json!({})),
            format!("{malformed} object into Go struct field ClaimGrants.ClaimGrants.exp of type float64"),
        ),
        (
            with(|c| c["exp"] = "soon".into()),
            format!("{malformed} string into Go struct field ClaimGrants.ClaimGrants.exp of type float64"),
        ),
        (
            with(|c| c["video"]["canPublish"] = 1.into()),
            format!(
                "{malformed} number into Go struct field VideoGrant.ClaimGrants.video.canPublish of type bool"
            ),
        ),
        (
            with(|c| c["attributes"] = json!([1])),
            format!(
                "{malformed} array into Go struct field ClaimGrants.ClaimGrants.attributes of type map[string]string"
            ),
        ),
    ];
    for (token, expected) in cases {
        let (status, body) = validate("/rtc/validate", &token, "");
        assert_eq!(body, expected, "{}", &token[..token.len().min(200)]);
        assert_eq!(status, if expected == "success" { 200 } else { 401 });
        let short = token.len() < 20;
        assert!(short || !body.contains(&token), "the answer echoes the token");
    }
}

#[test]
fn a_signature_of_another_key_opens_nothing() {
    let token = support::token(&json!({"claims": claims(), "signed_with": "another secret"}));
    let text = "invalid token: <token>, error: token signature is invalid: signature is invalid";
    assert_eq!(validate("/rtc/validate", &token, ""), (401, text.to_owned()));
}

#[test]
fn names_are_measured_in_bytes() {
    let identity = |name: String| validate("/rtc/validate", &with(|c| c["sub"] = name.into()), "");
    assert_eq!(identity("ü".repeat(16)).0, 200);
    let text = "participant identity length exceeds limits: max length 32";
    assert_eq!(identity("ü".repeat(17)), (400, text.to_owned()));
    let room = |name: String| validate("/rtc/validate", &with(|c| c["video"]["room"] = name.into()), "");
    assert_eq!(room("r".repeat(32)).0, 200);
    assert_eq!(room("r".repeat(33)), (400, "room name length exceeds limits: max length 32".to_owned()));
}

fn wrapped(compression: i32, join_request: Vec<u8>) -> String {
    let message = proto::WrappedJoinRequest { compression, join_request };
    format!("join_request={}", URL_SAFE.encode(message.encode_to_vec()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn join_requests_that_are_not_good_get_their_text() {
    let token = signed(&claims());
    let half = gzip(&[0; 5000]);
    let half = half[..half.len() / 2].to_vec();
    let cases = [
        (String::new(), "join_request is required"),
        ("join_request=%21".to_owned(), "cannot base64 decode wrapped join request"),
        ("join_request=____".to_owned(), "cannot unmarshal wrapped join request"),
        (wrapped(0, vec![0xff, 0xff]), "cannot unmarshal join request"),
        (wrapped(1, half), "cannot read decompressed join request"),
        (wrapped(1, gzip(&vec![0; 50 * 1024 * 1024])), "join request too large"),
    ];
    for (query, text) in cases {
        assert_eq!(validate("/rtc/v1/validate", &token, &query), (400, text.to_owned()));
    }
    assert_eq!(validate("/rtc/v1/validate", "", &wrapped(7, vec![0xff])).0, 401);
}

#[test]
fn odd_requests_do_not_panic() {
    let mut random = Random::from_seed([1; 32]);
    let pieces =
        ["/", "//", "..", ".", "rtc", "v1", "validate", "%", "%2F", "%ff", "?", "&", "=", "ü", "\0", ";"];
    for _ in 0..2_000 {
        let mut text = String::new();
        for _ in 0..random.below(12) {
            text.push_str(pieces[random.below(16) as usize]);
        }
        let headers =
            [("origin", text.as_str()), ("authorization", text.as_str()), ("user-agent", text.as_str())];
        let count = random.below(4) as usize;
        let path = format!("/{text}");
        let request = HttpRequest {
            method: ["GET", "OPTIONS", "POST", ""][random.below(4) as usize],
            path: &path,
            query: &text,
            headers: &headers[..count],
            body: text.as_bytes(),
            remote: None,
        };
        admission::step(&support::server(Default::default()), support::NOW, &request);
    }
}

/// Name of the corpus and the function it feeds.
type Target = (&'static str, fn(&[u8]));

/// The committed corpus and seeded mutations of it.
#[test]
fn the_fuzz_corpora_replay() {
    let targets: [Target; 5] = [
        ("http_head", fuzzing::fuzz_http_head),
        ("signal_request", fuzzing::fuzz_signal_request),
        ("join_request", fuzzing::fuzz_join_request),
        ("token", fuzzing::fuzz_token),
        ("data_packet", fuzzing::fuzz_data_packet),
    ];
    for (name, target) in targets {
        let inputs = fanlight_corpus::inputs(name).len();
        assert!(inputs >= 5, "{name} has only {inputs} inputs");
        fanlight_corpus::replay(name, 60, target);
    }
}

#[test]
fn an_identity_is_measured_with_the_publish_suffix_behind_it() {
    let token = signed(&claims());
    let longest = 32 - "alice#".len();
    let publish = |bytes: usize| validate("/rtc/validate", &token, &format!("publish={}", "x".repeat(bytes)));
    assert_eq!(publish(longest).0, 200);
    let text = "participant identity length exceeds limits: max length 32".to_owned();
    assert_eq!(publish(longest + 1), (400, text.clone()));
    assert_eq!(publish(500_000), (400, text));
}

/// The stack of a thread that serves HTTP has 2 MiB; a message of the greatest length nests deeper than any of it holds.
#[test]
fn no_depth_of_a_message_or_a_token_overflows_a_small_stack() {
    let run = || {
        for nest in ["[", "{\"a\":", "{\"updateMetadata\":{\"attributes\":{\"a\":", "{\"mute\":[{\"sid\":"] {
            let deep = nest.repeat((2 << 20) / nest.len());
            fuzzing::fuzz_signal_request(format!("\u{1}{deep}").as_bytes());
            let payload = URL_SAFE_NO_PAD.encode(format!("{{\"sub\":{deep}"));
            let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}");
            fuzzing::fuzz_token(format!("{header}.{payload}.AAAA").as_bytes());
            fuzzing::fuzz_token(format!("{}.{payload}.AAAA", URL_SAFE_NO_PAD.encode(&deep)).as_bytes());
        }
        // A group in a group, and a message in a message of the same field.
        for start in [0x0b_u8, 0x9b] {
            let groups = vec![start; 2 << 20];
            fuzzing::fuzz_signal_request(&[&[0], &groups[..]].concat());
            fuzzing::fuzz_data_packet(&groups);
            let join = proto::WrappedJoinRequest { compression: 0, join_request: groups[..500_000].to_vec() };
            fuzzing::fuzz_join_request(URL_SAFE.encode(join.encode_to_vec()).as_bytes());
        }
        let mut nested = Vec::new();
        for _ in 0..1_000 {
            let mut outer = vec![0x0a];
            prost::encoding::encode_varint(nested.len() as u64, &mut outer);
            outer.extend_from_slice(&nested);
            nested = outer;
        }
        fuzzing::fuzz_signal_request(&[&[0], &nested[..]].concat());
        fuzzing::fuzz_data_packet(&nested);
    };
    let small = std::thread::Builder::new().stack_size(256 << 10).spawn(run).expect("a thread");
    small.join().expect("no overflow");
}
