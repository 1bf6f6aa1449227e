//! How the inputs that tell of TURN servers fare: connected or not, and what they lost.

use serde::Serialize;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Servers of an input that are told apart here; further ones are heard, and only not listed.
const NODES_MAX: usize = 1_024;

/// All inputs of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct InputHealth(Arc<Mutex<Vec<InputGauge>>>);

/// What one input notes about itself. Cheap to clone; counters only grow.
#[derive(Debug, Clone)]
pub struct InputGauge(Arc<Input>);

/// An input at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputSnapshot {
    /// `resp`, `redis` or `own`.
    pub name: &'static str,
    /// Where it listens, or whom it asks; without user and password.
    pub address: String,
    /// Something speaks to it: for a listener any server, for a subscriber its Redis.
    pub connected: bool,
    /// When a TURN server was last heard, milliseconds since the Unix epoch.
    pub last_message_ms: Option<u64>,
    /// Messages about allocations.
    pub messages: u64,
    /// Times it went away, or was not there at the start: a listener's server with all of its connections, or a subscriber's
    /// Redis.
    pub gaps: u64,
    /// Messages that are not coturn's, or make no sense.
    pub unreadable: u64,
    /// Commands that the Redis server behind a listener did not get (`fanlight.coturn.tee`).
    pub tee_dropped: u64,
    /// Connections refused because there were too many.
    pub refused: u64,
    /// Connections closed because of what they said.
    pub broken: u64,
    /// Servers heard of, by name. A subscriber does not see whether a server is connected and lists none.
    pub nodes: Vec<NodeSnapshot>,
}

/// A TURN server at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeSnapshot {
    /// Its name.
    pub name: SmolStr,
    /// Some connection of it is open.
    pub connected: bool,
}

#[derive(Debug)]
struct Input {
    name: &'static str,
    address: String,
    connected: AtomicBool,
    /// 0: never.
    last_message_ms: AtomicU64,
    messages: AtomicU64,
    gaps: AtomicU64,
    unreadable: AtomicU64,
    tee_dropped: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    nodes: Mutex<BTreeMap<SmolStr, bool>>,
}

impl InputHealth {
    /// Lists an input: `resp`, `redis` or `own`, and where it listens or whom it asks.
    pub fn add(&self, name: &'static str, address: impl Into<String>) -> InputGauge {
        let gauge = InputGauge(Arc::new(Input {
            name,
            address: address.into(),
            connected: AtomicBool::new(false),
            last_message_ms: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            tee_dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            nodes: Mutex::default(),
        }));
        lock(&self.0).push(gauge.clone());
        gauge
    }

    /// All inputs, in the order in which they were added.
    pub fn snapshot(&self) -> Vec<InputSnapshot> {
        lock(&self.0).iter().map(InputGauge::snapshot).collect()
    }
}

impl InputGauge {
    /// Something speaks to it, or nothing any more.
    pub fn set_connected(&self, connected: bool) {
        self.0.connected.store(connected, Ordering::Relaxed);
    }

    /// A message about an allocation came.
    pub fn message(&self, unix_ms: u64) {
        self.0.messages.fetch_add(1, Ordering::Relaxed);
        self.heard(unix_ms);
    }

    /// A server gave a sign of life that is about no allocation.
    pub fn heard(&self, unix_ms: u64) {
        self.0.last_message_ms.fetch_max(unix_ms, Ordering::Relaxed);
    }

    /// It is away.
    pub fn gap(&self) {
        self.0.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// A message made no sense.
    pub fn unreadable(&self) {
        self.0.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    /// The Redis server behind it did not get so many commands.
    pub fn tee_dropped(&self, commands: u64) {
        self.0.tee_dropped.fetch_add(commands, Ordering::Relaxed);
    }

    /// A connection was refused.
    pub fn refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was closed because of what it said.
    pub fn broken(&self) {
        self.0.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// A server is connected, or all its connections closed; the input is connected while some server is.
    pub fn node(&self, name: &SmolStr, connected: bool) {
        let mut nodes = lock(&self.0.nodes);
        if let Some(known) = nodes.get_mut(name) {
            *known = connected;
        } else if nodes.len() < NODES_MAX {
            nodes.insert(name.clone(), connected);
        }
        let any = nodes.values().any(|connected| *connected);
        self.set_connected(any);
    }

    /// It at this moment.
    pub fn snapshot(&self) -> InputSnapshot {
        let input = &*self.0;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let nodes = lock(&input.nodes);
        let node =
            |(name, connected): (&SmolStr, &bool)| NodeSnapshot { name: name.clone(), connected: *connected };
        InputSnapshot {
            name: input.name,
            address: input.address.clone(),
            connected: input.connected.load(Ordering::Relaxed),
            last_message_ms: Some(count(&input.last_message_ms)).filter(|ms| *ms > 0),
            messages: count(&input.messages),
            gaps: count(&input.gaps),
            unreadable: count(&input.unreadable),
            tee_dropped: count(&input.tee_dropped),
            refused: count(&input.refused),
            broken: count(&input.broken),
            nodes: nodes.iter().map(node).collect(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_connected_while_one_of_its_servers_is() {
        let health = InputHealth::default();
        let gauge = health.add("resp", "127.0.0.1:6380");
        let (a, b) = (SmolStr::new("a"), SmolStr::new("b"));
        gauge.node(&a, true);
        gauge.node(&b, true);
        gauge.node(&a, false);
        let names = |snapshot: &InputSnapshot| {
            snapshot.nodes.iter().map(|node| (node.name.to_string(), node.connected)).collect::<Vec<_>>()
        };
        let one = &health.snapshot()[0];
        assert_eq!((one.connected, names(one)), (true, vec![("a".into(), false), ("b".into(), true)]));
        gauge.node(&b, false);
        assert!(!health.snapshot()[0].connected);
    }

    #[test]
    fn the_last_message_is_the_latest_and_none_before_the_first() {
        let health = InputHealth::default();
        let gauge = health.add("own", "");
        assert_eq!(health.snapshot()[0].last_message_ms, None);
        gauge.message(20);
        gauge.message(10);
        let one = gauge.snapshot();
        assert_eq!((one.last_message_ms, one.messages), (Some(20), 2));
    }
}
