//! Fuzz targets as plain functions: they take any bytes and must not panic.

use crate::admission::{self, Step};
use crate::data::ENVELOPE;
use crate::head;
use crate::http_rules::HttpRequest;
use crate::join_request;
use crate::server::Server;
use crate::session::{Frame, Session, SessionSetup};
use crate::token::{Grants, Keys, verify};
use fanlight_base::{Identity, NodeId, Now, ParticipantSid};
use fanlight_control::Limits;
use fanlight_sfu::envelope::Sender;
use fanlight_sfu::input::Quirks;

const NOW: Now = Now { mono_ns: 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 };

/// A client's message: the first byte chooses the encoding and the client, the rest is the message.
pub fn fuzz_signal_request(data: &[u8]) {
    let Some((choice, message)) = data.split_first() else { return };
    let mut session = Session::new(SessionSetup {
        protocol: u32::from(choice >> 3),
        single: choice & 2 != 0,
        old_rust: choice & 4 != 0,
        quirks: Quirks::default(),
        grants: Grants::default(),
        expires_s: None,
        resumes: false,
        refused_tracks: Vec::new(),
        bad_offer: false,
    });
    let frame = if choice & 1 == 0 {
        Frame::Binary(message.to_vec())
    } else {
        Frame::Text(String::from_utf8_lossy(message).into_owned())
    };
    session.handle_frame(&server(), NOW, &frame);
}

/// What a connection begins with: every head in it is read, and the request that it makes is routed.
pub fn fuzz_http_head(data: &[u8]) {
    let mut rest = data.get(head::empty_lines(data)..).unwrap_or_default();
    while let Some(end) = head::end(rest, 0) {
        let (bytes, more) = rest.split_at(end);
        rest = more.get(head::empty_lines(more)..).unwrap_or_default();
        if let Ok(read) = head::read(bytes.to_vec()) {
            assert!(read.bytes.len() <= bytes.len() + 64, "a head grows by no more than a field");
            route(&read);
        }
    }
}

fn route(read: &head::Head) {
    let mut fields = [httparse::EMPTY_HEADER; head::FIELDS_MAX + 1];
    let mut request = httparse::Request::new(&mut fields);
    let whole = request.parse(&read.bytes).is_ok_and(|status| status.is_complete());
    assert!(whole, "what is handed on is a head");
    let (Some(method), Some(target)) = (request.method, request.path) else { return };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let fields = request.headers.iter();
    let headers: Vec<(&str, &str)> =
        fields.filter_map(|field| Some((field.name, std::str::from_utf8(field.value).ok()?))).collect();
    let query = read.query.as_deref().unwrap_or(query);
    let http = HttpRequest { method, path, query, headers: &headers, body: &[], remote: None };
    let _ = admission::wants_form(&server(), NOW, &http);
    if let Step::Answer(answer) = admission::step(&server(), NOW, &http) {
        let location = answer.header("Location").unwrap_or("/").split('?').next().unwrap_or_default();
        let stays = location.starts_with('/') && !location.starts_with("//") && !location.contains('\\');
        assert!(stays, "a redirect leaves the origin: {location}");
    }
}

/// The value of the parameter `join_request`.
pub fn fuzz_join_request(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = join_request::decode(text);
    }
}

/// A token.
pub fn fuzz_token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = verify(&server().keys, NOW, text);
    }
}

/// A data packet; what comes out must route to the same places again.
pub fn fuzz_data_packet(data: &[u8]) {
    let (sid, identity) = (ParticipantSid::from("PA_a"), Identity::from("alice"));
    let sender = Sender { sid: &sid, identity: &identity, reliable: data.len().is_multiple_of(2) };
    let Ok(routed) = (ENVELOPE.route)(data, &sender) else { return };
    let again = (ENVELOPE.route)(&routed.bytes, &sender);
    assert_eq!(again.as_ref(), Ok(&routed), "a stamped packet is stamped to itself");
}

fn server() -> Server {
    Server {
        node: NodeId::from("ND_fuzz"),
        keys: Keys::new([("devkey", "secret")]),
        limits: Limits::default(),
        ice_lite: false,
        ice_servers: Vec::new(),
    }
}
