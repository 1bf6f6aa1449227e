//! Which connections are one coturn.

use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Every relay and authentication thread of a starting coturn looks for leftovers by itself; together they are one start.
const START: Duration = Duration::from_secs(2);

/// Servers by name, with the number of their connections; without one they are forgotten.
#[derive(Debug, Default)]
pub(super) struct Nodes(Mutex<BTreeMap<SmolStr, Node>>);

#[derive(Debug, Default)]
struct Node {
    connections: usize,
    started: Option<Instant>,
    /// One of its connections has published something; those that look for leftovers at its start do not.
    reports: bool,
}

/// The last connection of a node closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// It had published something.
    pub(super) had_reported: bool,
}

/// The name of a coturn: as whom it comes (AUTH), else its address, with the database it selects.
pub(super) fn name(address: IpAddr, user: &str, database: u32) -> SmolStr {
    match (user, database) {
        ("default", 0) => format_smolstr!("{address}"),
        ("default", database) => format_smolstr!("{address}/{database}"),
        (user, _) => user.into(),
    }
}

impl Nodes {
    /// A connection belongs to it; `true` for the first one.
    pub(super) fn join(&self, name: &SmolStr) -> bool {
        self.with(name, |node| {
            node.connections += 1;
            node.connections == 1
        })
    }

    /// A connection of it publishes.
    pub(super) fn reports(&self, name: &SmolStr) {
        self.with(name, |node| node.reports = true);
    }

    /// A connection of it closed; `Some` for the last one. Whoever comes next under this name is another, who may have been
    /// started within moments.
    pub(super) fn leave(&self, name: &SmolStr) -> Option<Left> {
        let mut nodes = self.lock();
        let node = nodes.get_mut(name)?;
        node.connections = node.connections.saturating_sub(1);
        let left = Left { had_reported: node.reports };
        if node.connections > 0 {
            return None;
        }
        nodes.remove(name);
        Some(left)
    }

    /// It looks for leftovers; `true` when that is a new start.
    pub(super) fn starts(&self, name: &SmolStr, now: Instant) -> bool {
        self.with(name, |node| {
            let again = node.started.is_some_and(|started| now.duration_since(started) < START);
            node.started = Some(now);
            !again
        })
    }

    fn with<T>(&self, name: &SmolStr, change: impl FnOnce(&mut Node) -> T) -> T {
        change(self.lock().entry(name.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SmolStr, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_the_most_telling_thing_it_says() {
        let address = "10.0.0.7".parse().unwrap();
        assert_eq!(name(address, "default", 0), "10.0.0.7");
        assert_eq!(name(address, "default", 42), "10.0.0.7/42");
        assert_eq!(name(address, "turn-1", 42), "turn-1");
    }

    #[test]
    fn threads_that_start_together_are_one_start() {
        let (nodes, now, name) = (Nodes::default(), Instant::now(), SmolStr::new("a"));
        assert!(nodes.starts(&name, now));
        assert!(!nodes.starts(&name, now + Duration::from_millis(5)));
        assert!(nodes.starts(&name, now + Duration::from_secs(3)));
        assert!(nodes.join(&name) && !nodes.join(&name));
        nodes.reports(&name);
        assert_eq!((nodes.leave(&name), nodes.leave(&name)), (None, Some(Left { had_reported: true })));
        assert!(nodes.lock().is_empty());
        assert!(nodes.starts(&name, now + Duration::from_millis(3_500)));
    }
}
