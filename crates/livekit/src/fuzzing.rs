//! Fuzz targets as plain functions: they take any bytes and must not panic.

use crate::data::ENVELOPE;
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
