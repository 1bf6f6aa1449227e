//! Session descriptions as clients send them.

use fanlight_transport::negotiate::{RemoteDescription, RemoteDescriptionError};
use fanlight_transport::sdp::SdpError;
use livekit_protocol as proto;

/// What becomes of a description.
pub(crate) enum Description {
    /// It can be used.
    Good(Box<RemoteDescription>),
    /// It reads as one, or is empty, and cannot be used: the client has to reconnect.
    Bad,
    /// It does not read as one.
    Unreadable,
}

/// Reads a description that has to be of the type `expected`.
pub(crate) fn description(message: &proto::SessionDescription, expected: &str) -> Description {
    if message.r#type != expected || message.sdp.is_empty() {
        return Description::Bad;
    }
    match RemoteDescription::parse(&message.sdp) {
        Ok(sdp) => Description::Good(Box::new(sdp)),
        Err(RemoteDescriptionError::Unusable(_) | RemoteDescriptionError::Sdp(SdpError::Empty)) => {
            Description::Bad
        }
        Err(RemoteDescriptionError::Sdp(_)) => Description::Unreadable,
    }
}
