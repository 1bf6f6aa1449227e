//! Traffic that belongs to no allocation: failed logins, foreign clients, or an allocation whose opening was not heard.

use super::limits::{ORPHAN_MS, ORPHANS_MAX};
use fanlight_events::turn::{AllocationName, TurnEvent};
use std::collections::{BTreeMap, VecDeque};

/// Traffic messages of an orphan that are kept in case a `deleted` owns them.
const EVENTS_MAX: usize = 64;

/// Names with traffic but without an allocation.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    names: BTreeMap<AllocationName, Orphan>,
    /// Names by the time they are let go.
    due: VecDeque<(u64, AllocationName)>,
}

#[derive(Debug)]
struct Orphan {
    since_ms: u64,
    events: Vec<TurnEvent>,
}

/// There is no room for another name.
#[derive(Debug)]
pub(super) struct Full;

impl Orphans {
    /// Keeps what was said of a name.
    pub(super) fn keep(&mut self, at_ms: u64, name: &AllocationName, event: TurnEvent) -> Result<(), Full> {
        if !self.names.contains_key(name) {
            if self.due.len() >= ORPHANS_MAX {
                return Err(Full);
            }
            self.due.push_back((at_ms + ORPHAN_MS, name.clone()));
            self.names.insert(name.clone(), Orphan { since_ms: at_ms, events: Vec::new() });
        }
        if let Some(orphan) = self.names.get_mut(name)
            && orphan.events.len() < EVENTS_MAX
        {
            orphan.events.push(event);
        }
        Ok(())
    }

    /// What was said of a name up to so long ago; it is no orphan any more.
    pub(super) fn adopt(&mut self, at_ms: u64, name: &AllocationName, within_ms: u64) -> Vec<TurnEvent> {
        match self.names.get(name) {
            Some(orphan) if at_ms.saturating_sub(orphan.since_ms) <= within_ms => {
                self.names.remove(name).map(|orphan| orphan.events).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Lets those go that nobody owned in time; their number.
    pub(super) fn settle(&mut self, at_ms: u64) -> u64 {
        let mut settled = 0;
        while let Some((due_ms, name)) = self.due.front()
            && *due_ms <= at_ms
        {
            // One that was adopted may be another by now, with a time of its own.
            if self.names.get(name).is_some_and(|orphan| orphan.since_ms + ORPHAN_MS <= at_ms) {
                self.names.remove(name);
                settled += 1;
            }
            self.due.pop_front();
        }
        settled
    }

    /// When [`Self::settle`] has something to do; `u64::MAX`: never.
    pub(super) fn next_due_ms(&self) -> u64 {
        self.due.front().map_or(u64::MAX, |(due_ms, _)| *due_ms)
    }
}
