//! Session descriptions as clients send them.

use fanlight_transport::sdp::{SdpError, SessionDescription};
use livekit_protocol as proto;

/// What becomes of a description.
pub(crate) enum Description {
    /// It can be used.
    Good(Box<SessionDescription>),
    /// It reads as one, or is empty, and cannot be used: the client has to reconnect.
    Bad,
    /// It does not read as one.
    Unreadable,
}

/// Parses a description that has to be of the type `expected`, with ICE credentials and a fingerprint.
pub(crate) fn description(message: &proto::SessionDescription, expected: &str) -> Description {
    if message.r#type != expected || message.sdp.is_empty() {
        return Description::Bad;
    }
    match SessionDescription::parse(&message.sdp) {
        Ok(sdp) if sdp.ice_credentials().is_some() && sdp.fingerprint().is_some() => {
            Description::Good(Box::new(sdp))
        }
        Ok(_) | Err(SdpError::Empty) => Description::Bad,
        Err(_) => Description::Unreadable,
    }
}
