//! What the SFU has to read of data packets, and to write of participants, without knowing LiveKit's messages.
//!
//! `livekit` supplies the functions as plain pointers in the configuration; they are pure and keep no state.

use crate::model::ParticipantInfo;
use fanlight_base::{Identity, ParticipantSid};

/// How to read and stamp the packets on the labelled data channels.
#[derive(Debug, Clone, Copy)]
pub struct DataEnvelope {
    /// Reads a packet of `sender` and stamps it with the sender's sid and identity and the channel's kind.
    pub route: fn(&[u8], &Sender<'_>) -> Result<Routed, BadEnvelope>,
}

/// Encodes a participant for clients: once for each change, however many hear of it.
pub type EncodeInfo = fn(&ParticipantInfo) -> Vec<u8>;

/// Who sends, and how.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// Written into the packet; empty for a hidden sender.
    pub sid: &'a ParticipantSid,
    /// Written into the packet; empty for a hidden sender.
    pub identity: &'a Identity,
    /// Came on `_reliable`.
    pub reliable: bool,
}

/// A packet on its way to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The packet as receivers get it.
    pub bytes: Vec<u8>,
    /// To these identities only; with `destination_sids` empty too: to everybody else.
    pub destinations: Vec<Identity>,
    /// To these sessions only (deprecated form).
    pub destination_sids: Vec<ParticipantSid>,
    /// Sender's number for reliable packets; 0 when it gives none.
    pub sequence: u32,
    /// A batch of metrics that the sender's client has measured; a packet with one is for telemetry and nobody in the room.
    pub metrics: Option<Vec<u8>>,
}

/// The packet is not what its channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEnvelope;
