//! How TURN fares at this moment and since the start, for people who watch: the accounting's own counters, traffic, open
//! allocations, ends and quotas.

use crate::turn_account::{AllocationRecord, EndReason, Health, SessionRecord};
use fanlight_base::{ParticipantSid, RoomSid, TrackSid};
use fanlight_events::turn::{LegCounters, Quota};
use fanlight_events::{Fact, TurnSessionEnded};
use serde::Serialize;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Realms whose traffic is told apart: labels of a metric stay few. A server has one, or one for each customer.
const REALMS_MAX: usize = 64;
/// The realm of all further ones.
const OTHER_REALMS: &str = "(other)";
/// So long after an end that nobody said its bytes may still grow: as long as the accounting takes a late end.
const DOUBTFUL_MS: u64 = 3_600_000;

/// TURN as it stands. Counters grow from the start of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TurnStatus {
    /// What happened to the inputs' messages.
    pub accounting: Health,
    /// Open allocations by how the client came (`UDP`, `TCP`, `TLS/TCP`, `DTLS/UDP`; empty when not known).
    pub open_allocations: BTreeMap<SmolStr, u64>,
    /// Open user sessions.
    pub open_sessions: u64,
    /// Sessions ended, by the reason of the last end.
    pub sessions_ended: BTreeMap<&'static str, u64>,
    /// Quotas hit.
    pub quota_hits: BTreeMap<Quota, u64>,
    /// Traffic by realm, as far as it has been heard.
    pub traffic: BTreeMap<SmolStr, Traffic>,
    /// Rows that found no place while the disk was away.
    pub rows_refused: u64,
}

/// Traffic on both legs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Between clients and servers.
    pub client: LegCounters,
    /// Between servers and peers.
    pub peer: LegCounters,
}

/// Keeps the status up with what the accounting tells.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    status: TurnStatus,
    allocations: BTreeMap<u64, Seen>,
    sessions: BTreeSet<u64>,
    /// Ended allocations that may still change, by the time until which.
    doubtful: VecDeque<(u64, u64)>,
}

/// What of an allocation is in the sums.
#[derive(Debug)]
struct Seen {
    counted: Traffic,
    /// How its client came, while it is open.
    open: Option<SmolStr>,
}

impl Watch {
    pub(crate) fn status(&self) -> &TurnStatus {
        &self.status
    }

    pub(crate) fn set_accounting(&mut self, health: Health, rows_refused: u64) {
        (self.status.accounting, self.status.rows_refused) = (health, rows_refused);
    }

    pub(crate) fn quota_hit(&mut self, quota: Quota) {
        *self.status.quota_hits.entry(quota).or_default() += 1;
    }

    /// What an earlier process left open: its traffic was that process's.
    pub(crate) fn restore(&mut self, sessions: &[SessionRecord], allocations: &[AllocationRecord]) {
        self.sessions.extend(sessions.iter().map(|session| session.number));
        for record in allocations {
            let counted = Traffic { client: record.client, peer: record.peer };
            let transport = record.path.transport.clone();
            *self.status.open_allocations.entry(transport.clone()).or_default() += 1;
            self.allocations.insert(record.number, Seen { counted, open: Some(transport) });
        }
        self.status.open_sessions = len(&self.sessions);
    }

    pub(crate) fn allocation(&mut self, at_ms: u64, record: &AllocationRecord) {
        self.forget(at_ms);
        let seen = self
            .allocations
            .entry(record.number)
            .or_insert_with(|| Seen { counted: Traffic::default(), open: None });
        let grown = Traffic {
            client: record.client.zip(seen.counted.client, u64::saturating_sub),
            peer: record.peer.zip(seen.counted.peer, u64::saturating_sub),
        };
        seen.counted.client += grown.client;
        seen.counted.peer += grown.peer;
        let open = record.ended.is_none().then(|| record.path.transport.clone());
        if open != seen.open {
            let gauge = &mut self.status.open_allocations;
            if let Some(transport) = &open {
                *gauge.entry(transport.clone()).or_default() += 1;
            }
            if let Some(count) = seen.open.take().and_then(|transport| gauge.get_mut(&transport)) {
                *count = count.saturating_sub(1);
            }
            seen.open = open;
        }
        match record.ended {
            Some((_, EndReason::Released | EndReason::Expired | EndReason::Closed)) => {
                self.allocations.remove(&record.number);
            }
            Some(_) => self.doubtful.push_back((at_ms + DOUBTFUL_MS, record.number)),
            None => {}
        }
        self.add(&record.name.realm, grown);
    }

    /// A session as it stands; the fact to tell when it has just ended.
    pub(crate) fn session(&mut self, record: &SessionRecord) -> Option<Fact> {
        let ended = match record.ended {
            None => {
                self.sessions.insert(record.number);
                None
            }
            Some((end, reason)) => self.sessions.remove(&record.number).then_some((end, reason)),
        };
        self.status.open_sessions = len(&self.sessions);
        let (end, reason) = ended?;
        let participant = record.participant.as_deref();
        *self.status.sessions_ended.entry(reason.as_str()).or_default() += 1;
        Some(Fact {
            unix_ms: end.low_ms,
            room: participant.map_or_else(RoomSid::default, |one| one.room_sid.clone()),
            participant: participant.map_or_else(ParticipantSid::default, |one| one.sid.clone()),
            track: TrackSid::default(),
            body: session_ended(record, reason).into(),
        })
    }

    fn add(&mut self, realm: &SmolStr, traffic: Traffic) {
        let known = self.status.traffic.contains_key(realm) || self.status.traffic.len() < REALMS_MAX;
        let realm = if known { realm.clone() } else { OTHER_REALMS.into() };
        let sum = self.status.traffic.entry(realm).or_default();
        sum.client += traffic.client;
        sum.peer += traffic.peer;
    }

    fn forget(&mut self, at_ms: u64) {
        while let Some((until_ms, number)) = self.doubtful.front().copied()
            && until_ms <= at_ms
        {
            self.doubtful.pop_front();
            if self.allocations.get(&number).is_some_and(|seen| seen.open.is_none()) {
                self.allocations.remove(&number);
            }
        }
    }
}

fn session_ended(record: &SessionRecord, reason: EndReason) -> TurnSessionEnded {
    TurnSessionEnded {
        session: record.number,
        realm: record.realm.to_string(),
        user: record.user().to_owned(),
        room_name: record.room().to_owned(),
        started_ms: record.started_ms,
        held_ms: record.held_ms(),
        active_ms: record.active_ms(),
        allocations: record.allocations,
        peer_rx_bytes: record.peer.rx_bytes,
        peer_tx_bytes: record.peer.tx_bytes,
        class: record.class.as_str().to_owned(),
        quality: record.quality.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
    }
}

fn len(set: &BTreeSet<u64>) -> u64 {
    u64::try_from(set.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn_account::{AllocationName, Leg, Output, Path, Settings, TurnAccount, TurnEvent};
    use fanlight_events::FactBody;

    fn drain(account: &mut TurnAccount, watch: &mut Watch, at_ms: u64) -> Vec<Fact> {
        let mut facts = Vec::new();
        loop {
            match account.poll_output() {
                Output::Allocation(record) => watch.allocation(at_ms, &record),
                Output::Session(record) => facts.extend(watch.session(&record)),
                Output::WhoIs(_) => {}
                Output::Timeout(_) => return facts,
            }
        }
    }

    fn name(id: u64) -> AllocationName {
        AllocationName { realm: "r".into(), user: "17:alice".into(), id }
    }

    fn bytes(rx_bytes: u64) -> LegCounters {
        LegCounters { rx_bytes, ..LegCounters::default() }
    }

    #[test]
    fn traffic_grows_while_it_flows_and_the_end_is_told_once() {
        let (mut account, mut watch) = (TurnAccount::new(Settings::default(), 1), Watch::default());
        let path = Path { transport: "UDP".into(), local: "1.2.3.4:3478".into(), ..Path::default() };
        account.handle_event(1_000, None, &name(1), TurnEvent::Opened { lifetime_s: 600, path });
        account.handle_event(2_000, None, &name(1), TurnEvent::Traffic(Leg::Peer, bytes(100)));
        assert!(drain(&mut account, &mut watch, 2_000).is_empty());
        assert_eq!(watch.status().open_allocations, BTreeMap::from([("UDP".into(), 1)]));
        assert_eq!((watch.status().open_sessions, watch.status().traffic["r"].peer), (1, bytes(100)));
        account.handle_event(3_000, None, &name(1), TurnEvent::Deleted);
        account.handle_event(3_000, None, &name(1), TurnEvent::Total(Leg::Client, bytes(900)));
        account.handle_event(3_000, None, &name(1), TurnEvent::Total(Leg::Peer, bytes(150)));
        let facts = drain(&mut account, &mut watch, 3_000);
        let [Fact { unix_ms: 3_000, body: FactBody::TurnSessionEnded(ended), .. }] = facts.as_slice() else {
            panic!("{facts:?}")
        };
        assert_eq!((ended.user.as_str(), ended.held_ms, ended.peer_rx_bytes), ("alice", 2_000, 150));
        let status = watch.status();
        assert_eq!(status.traffic["r"], Traffic { client: bytes(900), peer: bytes(150) });
        assert_eq!((status.open_sessions, status.open_allocations["UDP"]), (0, 0));
        assert_eq!(status.sessions_ended, BTreeMap::from([("closed", 1)]));
        assert!(watch.allocations.is_empty());
    }

    #[test]
    fn a_late_end_adds_only_what_was_not_counted() {
        let (mut account, mut watch) = (TurnAccount::new(Settings::default(), 1), Watch::default());
        let path = Path { transport: "TCP".into(), local: "1.2.3.4:3478".into(), ..Path::default() };
        account.handle_event(0, None, &name(1), TurnEvent::Opened { lifetime_s: 10, path });
        account.handle_event(1_000, None, &name(1), TurnEvent::Traffic(Leg::Peer, bytes(100)));
        assert!(drain(&mut account, &mut watch, 1_000).is_empty());
        account.handle_timeout(60_000);
        let told = drain(&mut account, &mut watch, 60_000).len();
        account.handle_event(70_000, None, &name(1), TurnEvent::Deleted);
        account.handle_event(70_000, None, &name(1), TurnEvent::Total(Leg::Client, bytes(500)));
        account.handle_event(70_000, None, &name(1), TurnEvent::Total(Leg::Peer, bytes(250)));
        let more = drain(&mut account, &mut watch, 70_000).len();
        assert_eq!((told, more), (1, 0));
        assert_eq!(watch.status().traffic["r"].peer, bytes(250));
        assert_eq!(watch.status().open_allocations["TCP"], 0);
    }

    #[test]
    fn realms_are_told_apart_up_to_a_number() {
        let mut watch = Watch::default();
        for realm in 0..100 {
            watch.add(&format!("r{realm}").into(), Traffic { peer: bytes(1), ..Traffic::default() });
        }
        assert_eq!(watch.status().traffic.len(), REALMS_MAX + 1);
        assert_eq!(watch.status().traffic[OTHER_REALMS].peer, bytes(36));
    }
}
