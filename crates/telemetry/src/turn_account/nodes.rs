//! TURN servers: which ids they have given, and whether they live.

use super::TurnAccount;
use super::limits::{IDS_MAX, NODES_MAX, RECONNECT_MS, REORDER_MS, THREAD_FACTOR, THREADS_MAX};
use super::record::{End, EndReason};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// What an opening's id says about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdSays {
    /// The next one, or one that others overtook.
    Fresh,
    /// It was given before: the server counts from the beginning again.
    Restarted,
}

/// A TURN server.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    threads: BTreeMap<u64, Thread>,
    /// The last message about an allocation that was open before it. An opening is no such sign: it may be the first of
    /// a process that has just started.
    pub(super) last_sign_ms: u64,
    /// It tells of the peer leg.
    pub(super) with_peer: bool,
    /// Its connections are all gone since.
    pub(super) gone_ms: Option<u64>,
    /// The input that tells of it calls it by this name: that another input is away, or has a store, says nothing of it.
    pub(super) named: bool,
}

#[derive(Debug, Clone, Default)]
struct Thread {
    highest: u64,
    highest_ms: u64,
    given: BTreeSet<u64>,
}

impl Node {
    /// Takes note of the id of an opening.
    pub(super) fn note_id(&mut self, at_ms: u64, id: u64) -> IdSays {
        let (thread, counter) = (id / THREAD_FACTOR, id % THREAD_FACTOR);
        if !self.threads.contains_key(&thread) && self.threads.len() >= THREADS_MAX {
            return IdSays::Fresh;
        }
        let known = self.threads.entry(thread).or_default();
        if counter > known.highest {
            known.give(counter);
            (known.highest, known.highest_ms) = (counter, at_ms);
            return IdSays::Fresh;
        }
        let forgotten =
            known.given.len() >= IDS_MAX && known.given.first().is_some_and(|&least| counter < least);
        let late = at_ms.saturating_sub(known.highest_ms) <= REORDER_MS;
        if late && !forgotten && !known.given.contains(&counter) {
            known.give(counter);
            return IdSays::Fresh;
        }
        self.restarted();
        self.note_id(at_ms, id);
        IdSays::Restarted
    }

    /// Takes note of the id of an allocation whose opening was not heard.
    pub(super) fn note_seen(&mut self, at_ms: u64, id: u64) {
        let (thread, counter) = (id / THREAD_FACTOR, id % THREAD_FACTOR);
        if let Some(known) = self.threads.get_mut(&thread) {
            known.give(counter);
            if counter > known.highest {
                (known.highest, known.highest_ms) = (counter, at_ms);
            }
        }
    }

    /// It counts from the beginning; says whether it had given ids before.
    pub(super) fn restarted(&mut self) -> bool {
        let had_given_ids = !self.threads.is_empty();
        self.threads.clear();
        had_given_ids
    }
}

impl Thread {
    fn give(&mut self, counter: u64) {
        self.given.insert(counter);
        if self.given.len() > IDS_MAX {
            self.given.pop_first();
        }
    }
}

impl TurnAccount {
    /// A server that an input calls by this name, and that is there.
    pub(super) fn named_node(&mut self, name: &str) -> Option<&mut Node> {
        if !self.nodes.contains_key(name) {
            if self.nodes.len() >= NODES_MAX {
                self.health.refused += 1;
                return None;
            }
            self.nodes.insert(name.into(), Node::default());
        }
        let node = self.nodes.get_mut(name)?;
        (node.named, node.gone_ms) = (true, None);
        Some(node)
    }

    /// Ends what was open on servers that have not come back.
    pub(super) fn nodes_due(&mut self, at_ms: u64) {
        let gone: Vec<(SmolStr, u64)> = self
            .nodes
            .iter()
            .filter_map(|(name, node)| Some((name.clone(), node.gone_ms?)))
            .filter(|(_, gone_ms)| gone_ms + RECONNECT_MS <= at_ms)
            .collect();
        for (node, gone_ms) in gone {
            self.end_node(gone_ms, &node, EndReason::NodeDisconnect);
            self.nodes.remove(&node);
        }
    }

    /// Ends what is open on a server; says how many that were.
    pub(super) fn end_node(&mut self, at_ms: u64, node: &str, reason: EndReason) -> usize {
        let Some(last_sign_ms) = self.nodes.get(node).map(|node| node.last_sign_ms) else { return 0 };
        let open = self
            .in_order(|_, allocation| allocation.node == node && allocation.is_open(), |one| one.expires_ms);
        let ended = open.len();
        for (slot, expires_ms) in open {
            let high_ms = at_ms.min(expires_ms);
            let low_ms =
                if reason == EndReason::NodeDisconnect { high_ms } else { last_sign_ms.min(high_ms) };
            self.end_unheard(at_ms, slot, End { low_ms, high_ms }, reason);
        }
        ended
    }

    /// Its server has spoken of an allocation that was open already, of its peer leg or of something else.
    pub(super) fn sign_of_life(&mut self, at_ms: u64, slot: u32, of_peer: bool) {
        let Some(allocation) = self.allocations.get(slot) else { return };
        if let Some(node) = self.nodes.get_mut(&allocation.node) {
            node.last_sign_ms = node.last_sign_ms.max(at_ms);
            node.with_peer |= of_peer;
        }
    }

    /// Whether a server is one that its input calls by a name.
    pub(super) fn is_named(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_overtake_each_other_are_no_restart() {
        let mut node = Node::default();
        assert_eq!(node.note_id(0, 5), IdSays::Fresh);
        assert_eq!(node.note_id(900, 4), IdSays::Fresh);
        assert_eq!(node.note_id(5_000, THREAD_FACTOR + 1), IdSays::Fresh);
        assert_eq!(node.note_id(5_000, 6), IdSays::Fresh);
    }

    #[test]
    fn an_id_given_again_or_much_later_is_one() {
        let mut node = Node::default();
        assert_eq!(node.note_id(0, 5), IdSays::Fresh);
        assert_eq!(node.note_id(500, 5), IdSays::Restarted);
        assert_eq!(node.note_id(600, 6), IdSays::Fresh);
        assert_eq!(node.note_id(2_000, 4), IdSays::Restarted);
        assert_eq!(node.note_id(2_000, 5), IdSays::Fresh);
    }
}
