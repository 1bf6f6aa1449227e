//! What rtcstats tells over its WebSocket: calls and events of the WebRTC API, and `getStats` as differences.
//!
//! A message is an array `[method, connection, value, …, time]`. In protocol 5 methods, types and members are numbers, the time
//! is the difference to that of the message before, and objects have short ids in which they also name each other. In protocol 2
//! they are words, and the time is absolute. [`Dump`] makes whole objects of it, as `getStats()` had them.
//!
//! What is not stats becomes an object of the type [`EVENT`].

mod base;
mod names;

use super::browser::{CLOCK, Claimed, NAME_BYTES_MAX, Sender, facts};
use crate::collector::{ClientReport, ConnectionEnvelope, Reason, Source, StatsObject};
use base::Base;
use serde_json::value::RawValue;
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;

/// Type of the objects that tell of calls and events.
pub const EVENT: &str = "rtcstats-event";
/// Bytes of a message: the first stats of a call of fifty people have some 500 kB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a page's own id: the session that it names.
pub const SESSION_BYTES_MAX: usize = 128;
/// Bytes of what a dump remembers, to add differences to.
pub const DUMP_BYTES_MAX: usize = 4 << 20;
/// Peer connections remembered of a page; past it the one that was silent longest is forgotten.
const PEERS_MAX: usize = 64;
/// Bytes of a peer connection's name.
const PEER_BYTES_MAX: usize = 64;
/// Bytes of a method's name.
const METHOD_BYTES_MAX: usize = 128;
/// Bytes of an event's value, such as an SDP; what is longer is cut.
const VALUE_BYTES_MAX: usize = 32 << 10;
/// Ids of events of one connection; then they are given again.
const EVENTS_MAX: u64 = 1_000;
/// Unchanged objects are told again after so long, because "unchanged" and "gone" differ.
const WHOLE_EVERY_MS: u64 = 600_000;
/// A time that is later is absolute: 2001 in milliseconds, or 31 years after the message before.
const ABSOLUTE_MS: f64 = 1e12;
/// As many as fit into a millisecond, so that no two messages have one time.
const MESSAGES_PER_MS: u64 = 1_000_000;
/// In `label`.
const LIBRARY: &str = "rtcstats";

/// Which language a page speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `rtcstats#5.0`, of `@rtcstats/rtcstats-js`.
    V5,
    /// `2.0`, of `rtcstats` up to 5.2.
    V2,
}

impl Protocol {
    /// All there are, the better first.
    pub const ALL: [Self; 2] = [Self::V5, Self::V2];

    /// The WebSocket's subprotocol.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::V5 => "rtcstats#5.0",
            Self::V2 => "2.0",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::V5 => "5.0",
            Self::V2 => "2.0",
        }
    }
}

/// Whose a dump is.
#[derive(Debug, Clone, Default)]
pub struct Speaker {
    /// A token proves room and user.
    pub proven: bool,
    /// Room and user.
    pub whose: Claimed,
    /// The participant's sid, as far as the page says it.
    pub participant: SmolStr,
    /// An id of this page's life.
    pub page: SmolStr,
    /// What else is known, to be kept with each report.
    pub more: Vec<(&'static str, String)>,
}

/// A message that cannot be taken, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BadMessage {
    /// Not `[method, connection, value, …, time]`.
    #[error("no array of a method, a connection, a value and a time")]
    Form,
    /// The method is no word and no number.
    #[error("the method is no text of 1 to {METHOD_BYTES_MAX} bytes and no number")]
    Method,
    /// The peer connection has no usable name.
    #[error("the connection is no text of 1 to {PEER_BYTES_MAX} bytes, and not null")]
    Peer,
    /// The time is no number, or none that a database holds.
    #[error("the last element is no time in milliseconds")]
    Time,
    /// The value of `getStats` is no object.
    #[error("the value of getStats is no object")]
    Stats,
}

impl BadMessage {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Form, Self::Method, Self::Peer, Self::Time, Self::Stats];

    /// In metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Method => "method",
            Self::Peer => "connection",
            Self::Time => "time",
            Self::Stats => "stats",
        }
    }
}

/// What one page tells, as long as it lives.
#[derive(Debug)]
pub struct Dump {
    protocol: Protocol,
    speaker: Speaker,
    facts: serde_json::Map<String, serde_json::Value>,
    /// Of the last message, in milliseconds since the Unix epoch.
    last_ms: Option<f64>,
    /// How much our clock is ahead of the page's, by the message that took the shortest way.
    clock_ms: Option<i64>,
    messages: u64,
    /// By the page's names of them; the page itself is the empty one.
    peers: BTreeMap<SmolStr, Peer>,
}

/// A peer connection.
#[derive(Debug)]
struct Peer {
    connection: SmolStr,
    base: Base,
    events: u64,
    whole_ms: u64,
    /// Number of its last message.
    used: u64,
}

impl Dump {
    /// Of a page that has said nothing yet.
    pub fn new(protocol: Protocol, speaker: Speaker, sender: Sender<'_>) -> Self {
        let mut facts = facts(sender);
        for (name, text) in &speaker.more {
            facts.insert((*name).to_owned(), text.chars().take(NAME_BYTES_MAX).collect::<String>().into());
        }
        Self { protocol, speaker, facts, last_ms: None, clock_ms: None, messages: 0, peers: BTreeMap::new() }
    }

    /// Roughly what it takes in memory.
    pub fn size_bytes(&self) -> usize {
        self.peers.values().map(|peer| peer.base.size_bytes()).fold(0, usize::saturating_add)
    }

    /// Reads a message. `now_ms` is the wall clock, in milliseconds since the Unix epoch. A bad one leaves nothing behind but its
    /// time, when that is good.
    pub fn read(&mut self, now_ms: u64, message: &str) -> Result<ClientReport, BadMessage> {
        let elements: Vec<&RawValue> = serde_json::from_str(message).map_err(|_| BadMessage::Form)?;
        let [method, peer, value @ .., time] = elements.as_slice() else { return Err(BadMessage::Form) };
        let at_ms = self.time(now_ms, time.get())?;
        let method = word(method.get()).filter(|word| (1..=METHOD_BYTES_MAX).contains(&word.len()));
        let method = method.ok_or(BadMessage::Method)?;
        let method = names::method(&method);
        let name = match peer.get() {
            "null" => SmolStr::default(),
            raw => {
                let name = word(raw).filter(|name| (1..=PEER_BYTES_MAX).contains(&name.len()));
                name.ok_or(BadMessage::Peer)?
            }
        };
        let said = Said {
            method: &method,
            value: value.first().copied(),
            extra: value.get(1..).unwrap_or_default(),
        };
        self.messages = self.messages.saturating_add(1);
        let at_ns = at_ms.saturating_mul(MESSAGES_PER_MS).saturating_add(self.messages % MESSAGES_PER_MS);
        let room_bytes = DUMP_BYTES_MAX.saturating_sub(self.size_bytes());
        let (protocol, messages) = (self.protocol, self.messages);
        let peer = self.peer(&name, said.method == "create", at_ms);
        peer.used = messages;
        let connection = peer.connection.clone();
        let (objects, refused) = if said.method == names::GET_STATS {
            peer.stats(protocol, said.value, at_ms, room_bytes)?
        } else {
            (vec![peer.event(&said, at_ms)], Vec::new())
        };
        if said.method == "close" {
            peer.base.clear();
        }
        let mut report = self.report(at_ns, connection);
        objects.into_iter().for_each(|object| report.take(object));
        refused.into_iter().for_each(|reason| report.reject(reason, 1));
        Ok(report)
    }

    /// The time of a message, in milliseconds since the Unix epoch.
    fn time(&mut self, now_ms: u64, raw: &str) -> Result<u64, BadMessage> {
        let said: f64 = raw.parse().map_err(|_| BadMessage::Time)?;
        let time = match self.last_ms {
            _ if said >= ABSOLUTE_MS => said,
            Some(last) => last + said,
            // A page that does not say when it began.
            None => now_ms as f64,
        };
        let most = (i64::MAX.unsigned_abs() / MESSAGES_PER_MS - 1) as f64;
        if !(0.0..=most).contains(&time) {
            return Err(BadMessage::Time);
        }
        self.last_ms = Some(time);
        let at_ms = time as u64;
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let ahead = signed(now_ms).saturating_sub(signed(at_ms));
        self.clock_ms = Some(self.clock_ms.map_or(ahead, |known| known.min(ahead)));
        Ok(at_ms)
    }

    /// The peer connection of this name; one that is made anew is another one.
    fn peer(&mut self, name: &SmolStr, is_new: bool, at_ms: u64) -> &mut Peer {
        let page = &self.speaker.page;
        let known = self.peers.contains_key(name);
        if !known && self.peers.len() >= PEERS_MAX {
            let idle = self.peers.iter().min_by_key(|(_, peer)| peer.used).map(|(name, _)| name.clone());
            idle.and_then(|name| self.peers.remove(&name));
        }
        let connection = match (name.as_str(), is_new) {
            ("", _) => page.clone(),
            (name, false) => format_smolstr!("{page}.{name}"),
            (name, true) => format_smolstr!("{page}.{name}.{at_ms}"),
        };
        let fresh = Peer { connection, base: Base::default(), events: 0, whole_ms: at_ms, used: 0 };
        let peer = self.peers.entry(name.clone());
        if is_new && !name.is_empty() {
            return peer.insert_entry(fresh).into_mut();
        }
        peer.or_insert(fresh)
    }

    fn report(&self, at_ns: u64, connection_id: SmolStr) -> ClientReport {
        let Speaker { proven, whose, participant, page, .. } = &self.speaker;
        let mut extra = self.facts.clone();
        extra.extend(self.clock_ms.map(|ms| (CLOCK.to_owned(), ms.into())));
        ClientReport {
            source: if *proven { Source::RtcStats } else { Source::RtcStatsByKey },
            at_ns,
            connection: Some(ConnectionEnvelope {
                connection_id,
                session_id: page.clone(),
                channel_id: whose.room.clone(),
                client_id: whose.user.clone(),
                participant_sid: participant.clone(),
                ..ConnectionEnvelope::default()
            }),
            label: SmolStr::new_static(LIBRARY),
            version: SmolStr::new_static(self.protocol.version()),
            node_name: SmolStr::default(),
            extra: serde_json::Value::Object(extra).to_string(),
            objects: Vec::new(),
            rejected: BTreeMap::new(),
        }
    }
}

/// A message without its connection and its time.
struct Said<'a> {
    method: &'a str,
    value: Option<&'a RawValue>,
    extra: &'a [&'a RawValue],
}

/// Objects or why there are none, and why others were left out.
type Read = (Vec<Result<StatsObject, Reason>>, Vec<Reason>);

impl Peer {
    fn stats(
        &mut self,
        protocol: Protocol,
        value: Option<&RawValue>,
        at_ms: u64,
        room_bytes: usize,
    ) -> Result<Read, BadMessage> {
        let value = value.ok_or(BadMessage::Stats)?.get();
        // Protocol 2 does not say which objects are gone.
        let whole = protocol == Protocol::V5 && at_ms.saturating_sub(self.whole_ms) >= WHOLE_EVERY_MS;
        let added = self.base.add(protocol, value, whole, room_bytes);
        let (changed, refused) = added.map_err(|_| BadMessage::Stats)?;
        if whole {
            self.whole_ms = at_ms;
        }
        Ok((changed.iter().map(|id| self.base.object(id)).collect(), refused))
    }

    fn event(&mut self, said: &Said<'_>, at_ms: u64) -> Result<StatsObject, Reason> {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let id = format!("{:03}", self.events % EVENTS_MAX);
        self.events = self.events.saturating_add(1);
        let mut json =
            format!(r#"{{"id":"{id}","type":"{EVENT}","timestamp":{at_ms},"method":{}"#, text(said.method));
        match said.value.map(|value| value.get()) {
            Some("null") | None => {}
            Some(value) if value.len() <= VALUE_BYTES_MAX => json.push_str(&format!(r#","value":{value}"#)),
            Some(value) => {
                let part = value.get(..value.floor_char_boundary(VALUE_BYTES_MAX)).unwrap_or_default();
                json.push_str(&format!(r#","value_bytes":{},"value_begins":{}"#, value.len(), text(part)));
            }
        }
        if !said.extra.is_empty() {
            let extra: Vec<&str> = said.extra.iter().map(|element| element.get()).collect();
            json.push_str(&format!(r#","extra":[{}]"#, extra.join(",")));
        }
        json.push('}');
        StatsObject::parse(&json)
    }
}

/// A text, or a number as a text.
fn word(raw: &str) -> Option<SmolStr> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'0'..=b'9' | b'-' => Some(SmolStr::new(raw)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
