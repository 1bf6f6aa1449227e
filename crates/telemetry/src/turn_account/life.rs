//! How allocations and sessions begin, change and end.

use super::allocation::{Allocation, State};
use super::index::{Found, person_key};
use super::limits::{ALLOCATIONS_MAX, LATE_END_MS, NODES_MAX, ORPHAN_MS, RECONNECT_MS, REORDER_MS};
use super::nodes::IdSays;
use super::{
    AllocationName, AllocationRecord, End, EndReason, Leg, LegCounters, Output, Path, Timer, TurnAccount,
    TurnEvent,
};
use smol_str::SmolStr;

impl TurnAccount {
    pub(super) fn opened(
        &mut self,
        at_ms: u64,
        node: SmolStr,
        name: &AllocationName,
        (lifetime_s, path): (u32, Path),
        found: Found,
    ) {
        let known = match found {
            Found::One(slot) => self.allocations.get(slot).map(|known| (slot, known)),
            _ => None,
        };
        let known = known.filter(|(_, known)| known.name == *name);
        if known.is_some_and(|(_, known)| known.is_same_opening(at_ms, lifetime_s, &path)) {
            self.health.duplicates += 1;
            return;
        }
        if let Some((slot, _)) = known.filter(|(_, known)| known.is_overtaken_opening(at_ms)) {
            self.change(at_ms, slot, |allocation| allocation.open_late(path));
            return self.finish_if_complete(at_ms, slot);
        }
        let superseded =
            known.filter(|(_, known)| known.is_open()).map(|(slot, known)| (slot, known.expires_ms));
        if !self.nodes.contains_key(&node) && self.nodes.len() >= NODES_MAX {
            self.health.refused += 1;
        } else if self.nodes.entry(node.clone()).or_default().note_id(at_ms, name.id) == IdSays::Restarted {
            self.health.node_restarts += 1;
            self.end_node(at_ms, &node, EndReason::NodeRestart);
        }
        if let Some((slot, expires_ms)) = superseded {
            self.end_unheard(at_ms, slot, End::at(at_ms.min(expires_ms)), EndReason::Superseded);
        }
        if let Some(slot) = self.open(at_ms, node, name, (lifetime_s, path), true) {
            self.adopt(at_ms, slot, name, REORDER_MS);
        }
    }

    pub(super) fn open(
        &mut self,
        at_ms: u64,
        node: SmolStr,
        name: &AllocationName,
        (lifetime_s, path): (u32, Path),
        start_known: bool,
    ) -> Option<u32> {
        if self.allocations.len() >= ALLOCATIONS_MAX {
            self.health.refused += 1;
            return None;
        }
        if !start_known && let Some(node) = self.nodes.get_mut(&node) {
            node.note_seen(at_ms, name.id);
        }
        let number = self.next_number();
        let session = self.session_of(name);
        let start = (at_ms, start_known);
        let mut allocation = Allocation::new((number, session), node, name.clone(), path, start, lifetime_s);
        allocation.outage = self.input_away && !self.is_named(&allocation.node);
        let slot = self.insert(allocation);
        if let Some(session) = self.sessions.get(session) {
            self.outputs.push_back(Output::Session(Box::new(session.record())));
        }
        self.tell_open(slot);
        Some(slot)
    }

    /// Takes an allocation; its session counts it as open.
    pub(super) fn insert(&mut self, mut allocation: Allocation) -> u32 {
        let (id, deadline_ms) = (allocation.name.id, allocation.deadline_ms());
        let (started_ms, start_known) = (allocation.started_ms, allocation.start_known);
        let session = allocation.session;
        allocation.timer_ms = deadline_ms;
        let slot = self.allocations.insert(allocation);
        self.by_id.insert(id, slot);
        self.timers.insert((deadline_ms, Timer::Allocation(slot)));
        if let Some(session) = self.sessions.get_mut(session) {
            session.open(started_ms, start_known);
        }
        slot
    }

    pub(super) fn deleted(&mut self, at_ms: u64, node: SmolStr, name: &AllocationName, found: Found) {
        let slot = match found {
            Found::One(slot) => slot,
            Found::Several => return self.health.ambiguous += 1,
            Found::None => {
                let Some(slot) = self.open(at_ms, node, name, (0, Path::default()), false) else { return };
                self.adopt(at_ms, slot, name, ORPHAN_MS);
                slot
            }
        };
        self.change(at_ms, slot, |allocation| allocation.delete(at_ms));
        self.finish_if_complete(at_ms, slot);
    }

    pub(super) fn traffic(
        &mut self,
        at_ms: u64,
        name: &AllocationName,
        (leg, counters): (Leg, LegCounters),
        found: Found,
    ) {
        let slot = match found {
            Found::One(slot) => slot,
            Found::Several => return self.health.ambiguous += 1,
            Found::None => return self.orphan(at_ms, name, TurnEvent::Traffic(leg, counters)),
        };
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        match allocation.add(at_ms, leg, counters) {
            None => self.health.duplicates += 1,
            Some(bytes) => {
                let session = allocation.session;
                // A new peak is told: after our own end nobody could work it out again.
                if let Some(session) = self.sessions.get_mut(session)
                    && session.note(at_ms, bytes)
                {
                    self.outputs.push_back(Output::Session(Box::new(session.record())));
                }
            }
        }
        self.sign_of_life(at_ms, slot, leg == Leg::Peer);
        self.tell_open(slot);
    }

    pub(super) fn total(&mut self, at_ms: u64, slot: u32, leg: Leg, totals: LegCounters) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        allocation.total(leg, totals);
        self.sign_of_life(at_ms, slot, leg == Leg::Peer);
        self.finish_if_complete(at_ms, slot);
    }

    pub(super) fn finish_if_complete(&mut self, at_ms: u64, slot: u32) {
        if self.allocations.get(slot).is_some_and(Allocation::is_complete) {
            self.finish(at_ms, slot);
        }
    }

    /// Changes an allocation on the word of its server.
    pub(super) fn change(&mut self, at_ms: u64, slot: u32, change: impl FnOnce(&mut Allocation)) {
        self.set(slot, change);
        self.sign_of_life(at_ms, slot, false);
        self.tell_open(slot);
    }

    /// Changes an allocation, and its timer with it. A timer that comes too early is set anew when it comes.
    pub(super) fn set(&mut self, slot: u32, change: impl FnOnce(&mut Allocation)) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        change(allocation);
        let deadline_ms = allocation.deadline_ms();
        if deadline_ms < allocation.timer_ms {
            self.timers.remove(&(allocation.timer_ms, Timer::Allocation(slot)));
            allocation.timer_ms = deadline_ms;
            self.timers.insert((deadline_ms, Timer::Allocation(slot)));
        }
    }

    /// Everything of an allocation is known.
    fn finish(&mut self, at_ms: u64, slot: u32) {
        self.set(slot, |allocation| {
            (allocation.state, allocation.expires_ms) = (State::Finished, at_ms + REORDER_MS);
        });
        self.tell_end(at_ms, slot, true);
    }

    /// The end of an allocation is not heard; it may still come.
    pub(super) fn end_unheard(&mut self, at_ms: u64, slot: u32, end: End, reason: EndReason) {
        self.set(slot, |allocation| {
            allocation.end_unheard(end, reason);
            allocation.expires_ms = at_ms + LATE_END_MS;
        });
        self.tell_end(at_ms, slot, false);
    }

    /// An allocation as it stands, when it is open.
    pub(super) fn open_record(&self, slot: u32) -> Option<AllocationRecord> {
        let allocation = self.allocations.get(slot).filter(|allocation| allocation.is_open())?;
        let session = self.sessions.get(allocation.session)?;
        let who = self.settings.identity.read(&allocation.name.user);
        Some(allocation.record(who, session, (false, true)))
    }

    /// An open allocation is to be told.
    pub(super) fn tell_open(&mut self, slot: u32) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        if allocation.is_open() && !std::mem::replace(&mut allocation.changed, true) {
            self.changed.push_back(slot);
        }
    }

    /// Tells how an allocation ended, and how its session stands by that.
    fn tell_end(&mut self, at_ms: u64, slot: u32, certain: bool) {
        let Some(allocation) = self.allocations.get(slot) else { return };
        let session_slot = allocation.session;
        let Some(session) = self.sessions.get_mut(session_slot) else { return };
        let who = self.settings.identity.read(&allocation.name.user);
        let younger = session.has_younger_than(allocation.last_status_ms);
        let with_peer = self.nodes.get(&allocation.node).is_none_or(|node| node.with_peer);
        let record = allocation.record(who, session, (younger, with_peer));
        session.end(&record, certain);
        self.outputs.push_back(Output::Allocation(Box::new(record)));
        if session.closed || session.has_open() {
            self.outputs.push_back(Output::Session(Box::new(session.record())));
        }
        if session.closed {
            self.drop_session(session_slot);
        } else {
            self.close_if_empty(at_ms, session_slot);
        }
    }

    pub(super) fn close_if_empty(&mut self, at_ms: u64, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.has_open() {
            return;
        }
        let closes_ms = at_ms + self.settings.merge_gap_ms;
        session.closes_ms = Some(closes_ms);
        if self.settings.merge_gap_ms == 0 {
            self.session_due(at_ms, slot);
        } else {
            self.timers.insert((closes_ms, Timer::Session(slot)));
        }
    }

    pub(super) fn session_due(&mut self, at_ms: u64, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if session.closed || session.closes_ms.is_none_or(|closes_ms| closes_ms > at_ms) {
            return;
        }
        session.closed = true;
        self.outputs.push_back(Output::Session(Box::new(session.record())));
        self.drop_session(slot);
    }

    /// Forgets a closed session when nothing of it can change any more.
    fn drop_session(&mut self, slot: u32) {
        if self.sessions.get(slot).is_some_and(|session| session.closed && !session.has_doubtful())
            && let Some(session) = self.sessions.remove(slot)
        {
            self.by_person.remove(person_key(&session.who.person), slot);
        }
    }

    pub(super) fn allocation_due(&mut self, at_ms: u64, slot: u32) {
        let Some(allocation) = self.allocations.get(slot) else { return };
        let deadline_ms = allocation.deadline_ms();
        if deadline_ms > at_ms {
            return self.wait_until(deadline_ms, slot);
        }
        match allocation.state {
            State::Active | State::Closing if self.input_away && !self.is_named(&allocation.node) => {
                // Whoever is not heard because we do not listen is not lost: the resync after it decides.
                self.wait_until(at_ms + RECONNECT_MS, slot);
            }
            State::Active | State::Closing => {
                let end = allocation.overdue_end();
                self.wait_until(at_ms + LATE_END_MS, slot);
                self.end_unheard(at_ms, slot, end, EndReason::Lost);
            }
            State::Deleted => {
                self.wait_until(at_ms + REORDER_MS, slot);
                self.finish(at_ms, slot);
            }
            State::Lost | State::Finished => self.forget(slot),
        }
    }

    /// Sets the timer of an allocation that has none.
    fn wait_until(&mut self, ms: u64, slot: u32) {
        if let Some(allocation) = self.allocations.get_mut(slot) {
            allocation.timer_ms = ms;
            self.timers.insert((ms, Timer::Allocation(slot)));
        }
    }

    /// An allocation stays as it was told.
    fn forget(&mut self, slot: u32) {
        let Some(allocation) = self.allocations.remove(slot) else { return };
        self.by_id.remove(allocation.name.id, slot);
        if let Some(session) = self.sessions.get_mut(allocation.session) {
            session.settle(allocation.number);
        }
        self.drop_session(allocation.session);
    }

    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    pub(super) fn orphan(&mut self, at_ms: u64, name: &AllocationName, event: TurnEvent) {
        self.health.orphan_events += 1;
        if self.orphans.keep(at_ms, name, event).is_err() {
            self.health.refused += 1;
        }
    }

    /// An allocation takes over what was said of its name up to so long ago.
    pub(super) fn adopt(&mut self, at_ms: u64, slot: u32, name: &AllocationName, within_ms: u64) {
        for event in self.orphans.adopt(at_ms, name, within_ms) {
            match event {
                TurnEvent::Traffic(leg, counters) => {
                    self.traffic(at_ms, name, (leg, counters), Found::One(slot));
                }
                TurnEvent::Total(leg, totals) => self.total(at_ms, slot, leg, totals),
                TurnEvent::Opened { .. } | TurnEvent::Refreshed { .. } | TurnEvent::Deleted => {}
            }
        }
    }
}
