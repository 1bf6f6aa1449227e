//! Participants of our own rooms who use the relay: their sid is the person that a user name stands for.

use fanlight_base::{ParticipantSid, RoomName, RoomSid};
use serde::Serialize;

/// A participant whose sid a user name gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Participant {
    /// Its id: the person of the session.
    pub sid: ParticipantSid,
    /// Identity from its token; empty when the fact that said it was lost.
    pub identity: fanlight_base::Identity,
    /// Its room.
    pub room_sid: RoomSid,
    /// Name of the room; empty when the fact that said it was lost.
    pub room: RoomName,
}

/// Whether a text has the form of a participant's sid.
pub fn is_participant_sid(text: &str) -> bool {
    text.strip_prefix("PA_")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The name of the room that somebody was in: their room of ours, or what the user name says.
pub(super) fn room<'a>(participant: Option<&'a Participant>, named: &'a str) -> &'a str {
    participant.map(|one| one.room.as_str()).filter(|room| !room.is_empty()).unwrap_or(named)
}
