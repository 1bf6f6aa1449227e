//! A participant's tracks as its own client counted them, beside the server's counts.
//!
//! Who a connection belongs to is said by its room and identity, which a token proves, and by the participant's sid or by the
//! time. A published track is found in `outbound-rtp` by the `mid` of its m-lines, else by the client's id of it; a
//! subscription in `inbound-rtp` by its SSRC, else by the track's sid, which is its id in the SDP.

use super::query::{ClientConnection, StoredObject};
use crate::report::{ParticipantReport, TimelineReport, TrackReport};
use fanlight_events::Direction;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Types of objects that are needed to count.
pub const KINDS: [&str; 4] = ["inbound-rtp", "media-source", "outbound-rtp", "remote-inbound-rtp"];
/// A connection is made after the join and ends with the leave, but not in the same millisecond, and clocks are not exact.
const SLACK_MS: i64 = 3_000;

/// A track as a client counted it, with the numbers of getStats.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClientTrack {
    /// Number of the connection in the store of clients' reports.
    pub connection: u64,
    /// Time of the last report it was in, by the client's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// RTP packets of all layers, retransmissions and padding among them.
    pub packets: u64,
    /// The same by the server's count.
    pub server_packets: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Packets sent again, or received again.
    pub retransmitted: u64,
    /// Packets lost, as a receiver says.
    pub lost: u64,
    /// Frames encoded, or decoded.
    pub frames: u64,
    /// Times the picture froze.
    pub freezes: u64,
    /// How long it was frozen, in milliseconds.
    pub frozen_ms: u64,
    /// Round-trip time in microseconds, 0 when not known.
    pub rtt_us: u64,
    /// Interarrival jitter in microseconds.
    pub jitter_us: u64,
}

/// Whose a connection is, and its tracks as both sides counted them.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSides {
    /// The participant, without its tracks.
    pub participant: ParticipantReport,
    /// The tracks that the connection has reported.
    pub tracks: Vec<TrackReport>,
}

/// By what a track is found in a client's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackNames<'a> {
    direction: Direction,
    sid: &'a str,
    cid: &'a str,
    mids: Vec<&'a str>,
    ssrcs: Vec<u64>,
}

impl<'a> TrackNames<'a> {
    /// What the timeline of its room says of a track of this participant.
    pub fn new(
        participant: &ParticipantReport,
        track: &'a TrackReport,
        timeline: &'a [TimelineReport],
    ) -> Self {
        let mut names = Self {
            direction: track.direction,
            sid: track.sid.as_str(),
            cid: "",
            mids: Vec::new(),
            ssrcs: Vec::new(),
        };
        let own = |event: &&TimelineReport| event.participant == participant.sid && event.track == track.sid;
        for event in timeline.iter().filter(own) {
            let fields = &event.fields;
            match (event.event.as_str(), track.direction) {
                ("track_published" | "track_changed", Direction::Publish) => {
                    let mids = fields.get("mids").and_then(Value::as_array);
                    names.mids.extend(mids.into_iter().flatten().filter_map(Value::as_str));
                    if let Some(cid) = fields.get("cid").and_then(Value::as_str) {
                        names.cid = cid;
                    }
                }
                ("track_subscribed", Direction::Subscribe) => {
                    names.ssrcs.extend(fields.get("ssrc").and_then(Value::as_u64).filter(|ssrc| *ssrc != 0));
                }
                _ => {}
            }
        }
        names
    }

    /// Whether both may be found in the same objects, one after the other.
    pub fn shares(&self, other: &Self) -> bool {
        self.direction == other.direction && self.mids.iter().any(|mid| other.mids.contains(mid))
    }
}

/// Objects of one connection as of one time.
#[derive(Debug, Default)]
pub struct Objects {
    by_kind: BTreeMap<String, BTreeMap<String, Known>>,
}

/// The time of an object's report, in nanoseconds since the Unix epoch, and its members.
type Known = (u64, Map<String, Value>);

impl Objects {
    /// The newest of each type and id.
    pub fn new(stored: &[StoredObject]) -> Self {
        let mut objects = Self::default();
        for object in stored {
            if let Ok(Value::Object(members)) = serde_json::from_str(&object.json) {
                let of_kind = objects.by_kind.entry(object.kind.clone()).or_default();
                of_kind.insert(object.id.clone(), (object.at_ns, members));
            }
        }
        objects
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = (&str, u64, &Map<String, Value>)> {
        let objects = self.by_kind.get(kind).into_iter().flatten();
        objects.map(|(id, (at_ns, members))| (id.as_str(), *at_ns, members))
    }

    fn get(&self, kind: &str, id: &str) -> Option<&Map<String, Value>> {
        self.by_kind.get(kind)?.get(id).map(|(_, members)| members)
    }

    /// What the client counted of a track by now, less what it had counted `before`; `None` when it is not there.
    pub fn track(&self, names: &TrackNames<'_>, before: &Self) -> Option<ClientTrack> {
        let mut found = None;
        let kind = match names.direction {
            Direction::Publish => "outbound-rtp",
            Direction::Subscribe => "inbound-rtp",
        };
        for (id, at_ns, object) in self.of(kind) {
            let is_it = match names.direction {
                Direction::Publish => self.is_published(names, object),
                Direction::Subscribe => is_subscribed(names, object),
            };
            if is_it {
                let counted: &mut ClientTrack = found.get_or_insert_default();
                counted.at_ms = counted.at_ms.max(at_ns / 1_000_000);
                let earlier = before.get(kind, id);
                match names.direction {
                    Direction::Publish => self.add_sent(counted, id, object, earlier),
                    Direction::Subscribe => add_received(counted, object, earlier),
                }
            }
        }
        found
    }

    fn is_published(&self, names: &TrackNames<'_>, object: &Map<String, Value>) -> bool {
        match text(object, "mid").filter(|_| !names.mids.is_empty()) {
            Some(mid) => names.mids.contains(&mid),
            None => {
                let source = text(object, "mediaSourceId").and_then(|id| self.get("media-source", id));
                let track = source.and_then(|source| text(source, "trackIdentifier"));
                !names.cid.is_empty() && track == Some(names.cid)
            }
        }
    }

    fn add_sent(
        &self,
        counted: &mut ClientTrack,
        id: &str,
        object: &Map<String, Value>,
        earlier: Option<&Map<String, Value>>,
    ) {
        let grown = |name| grown(object, earlier, name);
        counted.packets += grown("packetsSent");
        counted.bytes += grown("bytesSent");
        counted.retransmitted += grown("retransmittedPacketsSent");
        counted.frames += grown("framesEncoded");
        // The receiver's reports of it.
        for (_, _, remote) in self.of("remote-inbound-rtp") {
            if text(remote, "localId") == Some(id) {
                counted.lost += number(remote, "packetsLost");
                counted.rtt_us = counted.rtt_us.max(microseconds(remote, "roundTripTime"));
                counted.jitter_us = counted.jitter_us.max(microseconds(remote, "jitter"));
            }
        }
    }
}

fn is_subscribed(names: &TrackNames<'_>, object: &Map<String, Value>) -> bool {
    let ssrc = object.get("ssrc").and_then(Value::as_u64);
    ssrc.is_some_and(|ssrc| names.ssrcs.contains(&ssrc))
        || (names.ssrcs.is_empty() && text(object, "trackIdentifier") == Some(names.sid))
}

fn add_received(
    counted: &mut ClientTrack,
    object: &Map<String, Value>,
    earlier: Option<&Map<String, Value>>,
) {
    let grown = |name| grown(object, earlier, name);
    counted.packets += grown("packetsReceived");
    counted.bytes += grown("bytesReceived");
    counted.retransmitted += grown("retransmittedPacketsReceived");
    counted.frames += grown("framesDecoded");
    counted.lost += grown("packetsLost");
    counted.freezes += grown("freezeCount");
    counted.frozen_ms += microseconds(object, "totalFreezesDuration") / 1_000;
    counted.jitter_us = counted.jitter_us.max(microseconds(object, "jitter"));
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// A counter of a browser, which may be written with a fraction or be below zero.
fn number(object: &Map<String, Value>, name: &str) -> u64 {
    let Some(number) = object.get(name) else { return 0 };
    // Saturates, and 0 for what is no number.
    number.as_u64().unwrap_or_else(|| number.as_f64().unwrap_or(0.0).clamp(0.0, COUNTER_MAX) as u64)
}

/// No counter gets there, and sums of such numbers fit.
const COUNTER_MAX: f64 = 1e15;

fn grown(object: &Map<String, Value>, earlier: Option<&Map<String, Value>>, name: &str) -> u64 {
    let cut = |number: u64| number.min(COUNTER_MAX as u64);
    cut(number(object, name)).saturating_sub(earlier.map_or(0, |earlier| cut(number(earlier, name))))
}

/// Of seconds.
fn microseconds(object: &Map<String, Value>, name: &str) -> u64 {
    let seconds = object.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    (seconds * 1e6).clamp(0.0, COUNTER_MAX) as u64
}

/// Whether a connection of a participant's room and identity is of this session of it. `clock_ms` is how much the server's clock
/// was ahead of the client's.
pub fn belongs(connection: &ClientConnection, clock_ms: i64, participant: &ParticipantReport) -> bool {
    if !connection.participant_sid.is_empty() {
        return connection.participant_sid == participant.sid.as_str();
    }
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let middle_ns = connection.first_ns / 2 + connection.last_ns / 2;
    let middle_ms = signed(middle_ns / 1_000_000).saturating_add(clock_ms);
    let left_ms = participant.left_ms.map_or(i64::MAX, signed);
    middle_ms >= signed(participant.joined_ms).saturating_sub(SLACK_MS)
        && middle_ms <= left_ms.saturating_add(SLACK_MS)
}

/// Puts what clients counted beside the server's counts, where more than one connection has a track the one with most of it.
pub fn put_beside(track: &mut TrackReport, connection: u64, counted: ClientTrack) {
    let counters = &track.counters;
    let all = [counters.packets, counters.retransmitted, counters.padding];
    let server_packets = all.into_iter().fold(0, u64::saturating_add);
    if track.client.as_ref().is_none_or(|known| known.packets < counted.packets) {
        track.client = Some(ClientTrack { connection, server_packets, ..counted });
    }
}

#[cfg(test)]
mod tests;
