//! TURN servers: which ids they have given, and whether they live.

use super::limits::{IDS_MAX, REORDER_MS, THREAD_FACTOR, THREADS_MAX};
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

    /// It counts from the beginning.
    pub(super) fn restarted(&mut self) {
        self.threads.clear();
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
