//! Which objects say something new: each is compared with the last one of its connection, type and id.
//!
//! The last one by the client's time: a report that comes late, or again, is handed on whole and compared with nothing. A
//! store has each connection's report of one time once, so that one that comes again adds nothing. Where a late one differs from
//! what was said after it and left out, the next one is stored, unchanged or not.
//!
//! An unchanged object is stored again after a while, so that "unchanged" and "gone" differ. When memory is short, the
//! connection that was idle longest is forgotten; its last values are read back from the store when it reports again
//! ([`Dedup::knows`], [`Dedup::restore`]).

use super::limits::{AHEAD_NS_MAX, CONNECTION_OBJECTS_MAX};
use super::{ClientReport, ConnectionKey, StatsObject, canonical};
use foldhash::quality::FixedState;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

/// How objects are compared, and how much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupSettings {
    /// An unchanged object is stored again after so long, in milliseconds of the reports' time.
    pub heartbeat_ms: u64,
    /// Objects remembered of all connections, at about 60 bytes each.
    pub objects_max: usize,
    /// Connections remembered, at about 500 bytes each.
    pub connections_max: usize,
}

impl Default for DedupSettings {
    /// 10 min; 1,000,000 objects are 25,000 connections with 40 objects each.
    fn default() -> Self {
        Self { heartbeat_ms: 600_000, objects_max: 1_000_000, connections_max: 65_536 }
    }
}

/// What a store has of a connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LastValues {
    /// The time of its latest report, in nanoseconds since the Unix epoch; `None` when it has none.
    pub at_ns: Option<u64>,
    /// The last of each type and id.
    pub objects: Vec<LastValue>,
}

/// What was stored last of one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct LastValue {
    /// Its `type`.
    pub kind: String,
    /// Its `id`.
    pub id: String,
    /// The time of the report that it was stored of, in nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// All of it; any text with equal values will do.
    pub json: String,
}

/// A report, and which of its objects are to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// As it came.
    pub report: ClientReport,
    /// Whose it is.
    pub key: ConnectionKey,
    /// The places of the objects that say something new.
    pub fresh: Vec<usize>,
}

impl Planned {
    /// The objects that say something new.
    pub fn objects(&self) -> impl Iterator<Item = &StatsObject> {
        self.fresh.iter().filter_map(|place| self.report.objects.get(*place))
    }

    /// Objects that are left out, because they are as before.
    pub fn unchanged(&self) -> usize {
        self.report.objects.len().saturating_sub(self.fresh.len())
    }
}

/// Remembers what was stored last.
#[derive(Debug)]
pub struct Dedup {
    settings: DedupSettings,
    /// Of ids: with a seed that clients do not know they cannot make two of one.
    ids: FixedState,
    connections: BTreeMap<ConnectionKey, Known>,
    /// By when they were used last.
    idle: BTreeMap<u64, ConnectionKey>,
    uses: u64,
    objects: usize,
}

#[derive(Debug, Default)]
struct Known {
    /// The time of its latest report.
    at_ns: Option<u64>,
    /// By the hash of type and id.
    objects: FxHashMap<u64, Last>,
    /// Its place in `idle`.
    used: u64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    hash: u64,
    stored_ns: u64,
}

impl Dedup {
    /// Knows nobody. `seed` is random where clients are not to be trusted.
    pub fn new(settings: DedupSettings, seed: u64) -> Self {
        Self {
            settings,
            ids: FixedState::with_seed(seed),
            connections: BTreeMap::new(),
            idle: BTreeMap::new(),
            uses: 0,
            objects: 0,
        }
    }

    /// Whether this connection's last values are here. If not, [`Dedup::restore`] them before [`Dedup::plan`].
    pub fn knows(&self, key: &ConnectionKey) -> bool {
        self.connections.contains_key(key)
    }

    /// Takes over what a store has of a connection, also when that is nothing. `now_ms` is the wall clock, in milliseconds
    /// since the Unix epoch.
    pub fn restore(&mut self, now_ms: u64, key: &ConnectionKey, last: &LastValues) {
        self.forget(key);
        let at_ns = last.at_ns.map(|at_ns| at_ns.min(now_ms.saturating_mul(1_000_000)));
        let mut objects = FxHashMap::default();
        for value in last.objects.iter().take(CONNECTION_OBJECTS_MAX) {
            if let Ok(found) = canonical::scan(&value.json) {
                let last = Last { hash: found.hash, stored_ns: value.at_ns };
                objects.insert(self.id(&value.kind, &value.id), last);
            }
        }
        self.objects += objects.len();
        self.connections.insert(key.clone(), Known { at_ns, objects, used: 0 });
        self.touch(key);
        self.evict();
    }

    /// Says what of a report is new, and remembers that as stored: when storing fails, the connection is to be forgotten.
    /// `now_ms` is the wall clock, in milliseconds since the Unix epoch.
    pub fn plan(&mut self, now_ms: u64, report: ClientReport) -> Planned {
        let key = report.key();
        let mut known = self.connections.remove(&key).unwrap_or_default();
        self.objects = self.objects.saturating_sub(known.objects.len());
        let ahead = report.at_ns > now_ms.saturating_mul(1_000_000).saturating_add(AHEAD_NS_MAX);
        let late = known.at_ns.is_some_and(|at_ns| report.at_ns <= at_ns);
        let fresh = if ahead || late {
            if late {
                self.unhide(&mut known, &report);
            }
            (0..report.objects.len()).collect()
        } else {
            known.at_ns = Some(report.at_ns);
            self.compare(&mut known, &report)
        };
        if known.objects.len() > CONNECTION_OBJECTS_MAX {
            known.objects = FxHashMap::default();
        }
        self.objects += known.objects.len();
        self.connections.insert(key.clone(), known);
        self.touch(&key);
        self.evict();
        Planned { report, key, fresh }
    }

    /// The places of the objects that differ from the last ones, or whose heartbeat is due.
    fn compare(&self, known: &mut Known, report: &ClientReport) -> Vec<usize> {
        let heartbeat_ns = self.settings.heartbeat_ms.saturating_mul(1_000_000);
        let stored_ns = report.at_ns;
        let mut fresh = Vec::new();
        for (place, object) in report.objects.iter().enumerate() {
            let id = self.id(&object.kind, &object.id);
            let stays = |last: &Last| {
                last.hash == object.hash && stored_ns.saturating_sub(last.stored_ns) < heartbeat_ns
            };
            if !known.objects.get(&id).is_some_and(stays) {
                known.objects.insert(id, Last { hash: object.hash, stored_ns });
                fresh.push(place);
            }
        }
        fresh
    }

    /// Forgets what a late report's objects stand before, as far as they differ.
    fn unhide(&self, known: &mut Known, late: &ClientReport) {
        for object in &late.objects {
            let id = self.id(&object.kind, &object.id);
            let hides = |last: &Last| last.hash != object.hash && last.stored_ns < late.at_ns;
            if known.objects.get(&id).is_some_and(hides) {
                known.objects.remove(&id);
            }
        }
    }

    /// Forgets one connection; its next report has it restored.
    pub fn forget(&mut self, key: &ConnectionKey) {
        if let Some(known) = self.connections.remove(key) {
            self.idle.remove(&known.used);
            self.objects = self.objects.saturating_sub(known.objects.len());
        }
    }

    /// Forgets all, as when the store is another one now.
    pub fn clear(&mut self) {
        self.connections.clear();
        self.idle.clear();
        self.objects = 0;
    }

    /// Objects that are remembered.
    pub fn objects(&self) -> usize {
        self.objects
    }

    /// Connections that are remembered.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn id(&self, kind: &str, id: &str) -> u64 {
        let mut hasher = self.ids.build_hasher();
        hasher.write_usize(kind.len());
        hasher.write(kind.as_bytes());
        hasher.write(id.as_bytes());
        hasher.finish()
    }

    fn touch(&mut self, key: &ConnectionKey) {
        self.uses += 1;
        if let Some(known) = self.connections.get_mut(key) {
            self.idle.remove(&known.used);
            known.used = self.uses;
            self.idle.insert(self.uses, key.clone());
        }
    }

    /// The connection that was used last stays: it is bounded by itself.
    fn evict(&mut self) {
        while self.connections.len() > 1
            && (self.objects > self.settings.objects_max
                || self.connections.len() > self.settings.connections_max)
        {
            let Some((_, key)) = self.idle.pop_first() else { return };
            self.forget(&key);
        }
    }
}

#[cfg(test)]
mod tests;
