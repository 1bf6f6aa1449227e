//! Sessions added up for a bill: by user, by room or by day.

use super::record::{Class, Quality, SessionRecord};
use super::table::utc;
use fanlight_events::turn::LegCounters;
use serde::Serialize;
use std::collections::BTreeMap;

/// What sessions are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Person, within a realm; a participant of ours by its identity, as its sid is another one each time.
    User,
    /// Room by name, our own and those that user names say; sessions without one together.
    Room,
    /// Day in UTC on which the session began.
    Day,
}

impl By {
    /// As it stands on the command line and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Room => "room",
            Self::Day => "day",
        }
    }

    /// What [`Self::as_str`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Room, Self::Day].into_iter().find(|by| by.as_str() == text)
    }
}

/// What a relayed gigabyte and a held minute cost; 0 for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Price {
    /// For 10^9 bytes of payload, both directions together.
    pub per_gb: f64,
    /// For a minute from a session's first opening to its last end.
    pub per_minute: f64,
}

/// One line of usage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usage {
    /// Person, room or day.
    pub key: String,
    /// Realm; empty where lines are not by user.
    pub realm: String,
    /// Sessions.
    pub sessions: u64,
    /// Of these, with media relayed.
    pub relayed: u64,
    /// Allocations.
    pub allocations: u64,
    /// Time held, milliseconds.
    pub held_ms: u64,
    /// Time used, milliseconds.
    pub active_ms: u64,
    /// Between clients and server, framing and control included.
    pub client: Bytes,
    /// Payload between server and peers.
    pub peer: Bytes,
    /// Of the worst session.
    pub quality: &'static str,
    /// At the price asked for.
    pub price: f64,
}

/// Bytes into the TURN server and out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Into it.
    pub rx_bytes: u64,
    /// Out of it.
    pub tx_bytes: u64,
}

#[derive(Debug, Default)]
struct Sum {
    sessions: u64,
    relayed: u64,
    allocations: u64,
    held_ms: u64,
    active_ms: u64,
    client: LegCounters,
    peer: LegCounters,
    quality: Quality,
}

/// Sessions being added up, one after the other: a year of them need not be in memory.
#[derive(Debug)]
pub struct Adding {
    by: By,
    sums: BTreeMap<(String, String), Sum>,
}

impl Adding {
    /// Nothing so far.
    pub const fn new(by: By) -> Self {
        Self { by, sums: BTreeMap::new() }
    }

    /// Adds a session.
    pub fn add(&mut self, session: &SessionRecord) {
        let sum = self.sums.entry(key(session, self.by)).or_default();
        sum.sessions += 1;
        sum.relayed += u64::from(session.class == Class::Relayed);
        sum.allocations += session.allocations;
        sum.held_ms += session.held_ms();
        sum.active_ms += session.active_ms();
        sum.client += session.client;
        sum.peer += session.peer;
        sum.quality = sum.quality.max(session.quality);
    }

    /// The lines: days in their order, else the most payload first.
    pub fn lines(self, price: Price) -> Vec<Usage> {
        let mut lines: Vec<Usage> = self.sums.into_iter().map(|(key, sum)| line(key, &sum, price)).collect();
        if self.by != By::Day {
            lines
                .sort_by_key(|line| std::cmp::Reverse(line.peer.rx_bytes.saturating_add(line.peer.tx_bytes)));
        }
        lines
    }
}

/// Adds sessions up; days in their order, else the most payload first.
pub fn usage<'a>(sessions: impl IntoIterator<Item = &'a SessionRecord>, by: By, price: Price) -> Vec<Usage> {
    let mut adding = Adding::new(by);
    sessions.into_iter().for_each(|session| adding.add(session));
    adding.lines(price)
}

fn key(session: &SessionRecord, by: By) -> (String, String) {
    match by {
        By::User => (session.user().to_owned(), session.realm.to_string()),
        By::Room => (session.room().to_owned(), String::new()),
        By::Day => (utc(session.started_ms).split('T').next().unwrap_or_default().to_owned(), String::new()),
    }
}

fn line((key, realm): (String, String), sum: &Sum, price: Price) -> Usage {
    let gigabytes = sum.peer.bytes() as f64 / 1e9;
    let minutes = sum.held_ms as f64 / 60_000.0;
    Usage {
        key,
        realm,
        sessions: sum.sessions,
        relayed: sum.relayed,
        allocations: sum.allocations,
        held_ms: sum.held_ms,
        active_ms: sum.active_ms,
        client: bytes(&sum.client),
        peer: bytes(&sum.peer),
        quality: sum.quality.as_str(),
        price: gigabytes * price.per_gb + minutes * price.per_minute,
    }
}

fn bytes(leg: &LegCounters) -> Bytes {
    Bytes { rx_bytes: leg.rx_bytes, tx_bytes: leg.tx_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn_account::{End, EndReason, Who};

    fn session(person: &str, started_ms: u64, minutes: u64, bytes: u64) -> SessionRecord {
        let end = End::at(started_ms + minutes * 60_000);
        SessionRecord {
            number: 1,
            realm: "r".into(),
            who: Who { person: person.into(), room: "42".into() },
            participant: None,
            started_ms,
            start_known: true,
            ended: Some((end, EndReason::Released)),
            end,
            effective_end_ms: end.low_ms,
            allocations: 2,
            max_concurrent: 1,
            leftovers: 0,
            client: LegCounters::default(),
            peer: LegCounters { tx_bytes: bytes, ..LegCounters::default() },
            quality: Quality::Exact,
            peak_bps: 0,
            class: Class::Relayed,
        }
    }

    #[test]
    fn a_bill_has_a_line_for_each_user_and_the_dearest_first() {
        let day_ms = 86_400_000;
        let sessions = [
            session("a", 0, 10, 500_000_000),
            session("b", day_ms - 1, 5, 3_000_000_000),
            session("a", day_ms, 10, 1_500_000_000),
        ];
        let price = Price { per_gb: 0.5, per_minute: 0.01 };
        let lines = usage(&sessions, By::User, price);
        let brief: Vec<_> =
            lines.iter().map(|line| (line.key.as_str(), line.sessions, line.held_ms / 60_000)).collect();
        assert_eq!(brief, [("b", 1, 5), ("a", 2, 20)]);
        assert!((lines[0].price - 1.55).abs() < 1e-9 && (lines[1].price - 1.2).abs() < 1e-9);
        let days: Vec<_> =
            usage(&sessions, By::Day, price).into_iter().map(|line| (line.key, line.sessions)).collect();
        assert_eq!(days, [("1970-01-01".to_owned(), 2), ("1970-01-02".to_owned(), 1)]);
        assert_eq!(usage(&sessions, By::Room, price).len(), 1);
    }
}
