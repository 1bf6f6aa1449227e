//! What a run leaves behind for the oracles: values only, so that a test can break them.

use crate::media::Tag;
use crate::message::Message;
use crate::wire::Wire;
use fanlight_base::{ParticipantSid, TrackSid};
use fanlight_events::{Direction, TrackCounters, TrackSample};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A finished run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What every client sent and received.
    pub clients: Vec<Seen>,
    /// What passed on the network.
    pub wire: Wire,
    /// The server's last counters, each with the participant it gives them to.
    pub counted: Vec<(ParticipantSid, TrackSample)>,
    /// The server's address.
    pub server: SocketAddr,
    /// Data messages each client was to send.
    pub messages: u32,
}

impl Outcome {
    /// The server's last counters of a track in one direction: exactly one sample.
    pub fn counters(
        &self,
        participant: &ParticipantSid,
        track: &TrackSid,
        direction: Direction,
    ) -> Option<&TrackCounters> {
        let mut found = self.counted.iter().filter(|(sid, sample)| {
            sid == participant && sample.track == *track && sample.direction == direction
        });
        let (_, sample) = found.next()?;
        found.next().is_none().then_some(&sample.counters)
    }
}

/// What one client sent and received.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Number in the world.
    pub number: u32,
    /// Number of its room.
    pub room: u32,
    /// As the server named it; empty until it joined.
    pub sid: ParticipantSid,
    /// Addresses of its publisher and subscriber connections.
    pub address: [SocketAddr; 2],
    /// When it could receive media, in nanoseconds of virtual time.
    pub receives_from_ns: Option<u64>,
    /// What it published: audio, video.
    pub sent: [Sent; 2],
    /// Received media, by SSRC.
    pub heard: BTreeMap<u32, Heard>,
    /// Tracks the server offered, by media SSRC.
    pub offered: BTreeMap<u32, Offered>,
    /// Data messages sent.
    pub messages_sent: u32,
    /// Data messages received, in order.
    pub messages: Vec<Message>,
    /// Data messages received that nobody sent like this.
    pub strange_messages: u64,
}

/// What a client sent of one track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// As the server named it.
    pub track: TrackSid,
    /// SSRC of the media.
    pub ssrc: u32,
    /// SSRC of its retransmissions.
    pub repair_ssrc: Option<u32>,
    /// When each packet was written, in nanoseconds of virtual time.
    pub times_ns: Vec<u64>,
    /// Their payload.
    pub bytes: u64,
}

impl Sent {
    /// Packets written.
    pub fn packets(&self) -> u32 {
        self.times_ns.len() as u32
    }
}

/// What a client received on one SSRC, retransmissions in their place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Tags in the order of arrival, with extended sequence numbers.
    pub packets: Vec<(u64, Tag)>,
    /// Packets whose payload no client sent.
    pub strange: u64,
}

/// A track as an offer of the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Which.
    pub track: TrackSid,
    /// SSRC of its retransmissions.
    pub repair_ssrc: Option<u32>,
}
