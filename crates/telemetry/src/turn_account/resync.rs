//! Gaps of an input, and what a server's store says after one. Only inputs that do not call servers by a name have a store,
//! so servers with a name are left alone here.

use super::allocation::{Allocation, State};
use super::limits::OVERDUE_MS;
use super::{AllocationName, End, EndReason, Found, Output, Path, StoredAllocation, TurnAccount, TurnEvent};
use std::collections::BTreeSet;

impl TurnAccount {
    /// The input is away: nothing is heard of any server that it does not call by a name.
    pub fn handle_input_lost(&mut self) {
        if !self.input_away {
            self.health.outages += 1;
        }
        self.input_away = true;
        for allocation in self.allocations.values_mut() {
            allocation.outage |= self.nodes.get(&allocation.node).is_none_or(|node| !node.named);
        }
    }

    /// The input is back.
    pub fn handle_input_back(&mut self) {
        self.input_away = false;
    }

    /// What the servers' store has after a gap. What was last said after `complete_since_ms` and is not in the store has
    /// ended; what was said before may have been lost by the store itself.
    pub fn handle_resync(
        &mut self,
        at_ms: u64,
        complete_since_ms: Option<u64>,
        stored: Vec<StoredAllocation>,
    ) {
        self.input_away = false;
        let mut present = BTreeSet::new();
        for StoredAllocation { name, status, since_ms } in stored {
            let (TurnEvent::Opened { lifetime_s, path } | TurnEvent::Refreshed { lifetime_s, path }) = status
            else {
                continue;
            };
            if let Some(slot) = self.stored(at_ms, &name, since_ms, (lifetime_s, path)) {
                present.insert(slot);
            }
        }
        let Some(since_ms) = complete_since_ms else { return };
        let is_missing = |slot: u32, allocation: &Allocation| {
            allocation.state == State::Active
                && allocation.last_status_ms >= since_ms
                && !present.contains(&slot)
                && !self.is_named(&allocation.node)
        };
        let missing = self.in_order(is_missing, |allocation| allocation.last_status_ms);
        for (slot, low_ms) in missing {
            self.end_unheard(at_ms, slot, End { low_ms, high_ms: at_ms }, EndReason::Unseen);
        }
    }

    /// One allocation of the store. A killed server leaves its own behind: one whose time was over long ago, and that is
    /// not known, is none. Nor is one whose user has a space, which coturn refuses: that name was garbled (`find`), and
    /// its key is never deleted, because each message garbles it anew.
    fn stored(
        &mut self,
        at_ms: u64,
        name: &AllocationName,
        since_ms: u64,
        (lifetime_s, path): (u32, Path),
    ) -> Option<u32> {
        let is_over = since_ms + u64::from(lifetime_s) * 1_000 + OVERDUE_MS < at_ms;
        let found = match self.find(&path.local, false, name) {
            Found::One(slot) if self.is_replaced(slot) => Found::None,
            found => found,
        };
        let slot = match found {
            Found::One(slot) => slot,
            Found::Several => {
                self.health.ambiguous += 1;
                return None;
            }
            Found::None if is_over || name.user.contains(' ') => return None,
            Found::None => {
                self.open(since_ms, path.local.clone(), name, (lifetime_s, path.clone()), false)?
            }
        };
        let known = self.allocations.get(slot)?;
        if known.state == State::Lost && !is_over && since_ms > known.last_status_ms {
            self.revive(slot);
        }
        let is_released = lifetime_s == 0;
        self.change(at_ms, slot, |allocation| match allocation.state {
            State::Active if is_released => allocation.refresh(since_ms, 0, path),
            _ => allocation.resync(since_ms, lifetime_s),
        });
        Some(slot)
    }

    /// An allocation that was held for lost is spoken of as open: so it is, and its session with it.
    pub(super) fn revive(&mut self, slot: u32) {
        if self.allocations.get(slot).is_none_or(|allocation| allocation.state != State::Lost) {
            return;
        }
        self.set(slot, Allocation::revive);
        let Some(allocation) = self.allocations.get(slot) else { return };
        let Some(session) = self.sessions.get_mut(allocation.session) else { return };
        session.reopen(allocation.number);
        self.outputs.push_back(Output::Session(Box::new(session.record())));
    }

    /// Whether an allocation's name belongs to another one by now.
    pub(super) fn is_replaced(&self, slot: u32) -> bool {
        self.allocations.get(slot).is_some_and(Allocation::is_replaced)
    }
}
