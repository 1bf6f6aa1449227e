//! Who used the TURN relay, how long and how much: allocations and user sessions from what servers say of them.
//!
//! [`TurnAccount`] follows the contract of every core: mutate it with `handle_*`, then drain [`TurnAccount::poll_output`]
//! to [`Output::Timeout`]. coturn's messages (`decode::coturn`) and our own server's enter as the same [`TurnEvent`]s.
//! Messages may be lost, late, doubled or about things never heard of; what follows from each is said in docs/turn.md.
//!
//! Its time is milliseconds since the Unix epoch and never goes back: recordings have no other clock, and whoever feeds it
//! live counts on from one reading of the wall clock, so that a jump of that changes no bill.

mod allocation;
mod identity;
mod index;
mod life;
mod limits;
mod nodes;
mod orphans;
mod participant;
mod record;
mod resync;
mod session;
mod slab;
pub mod table;
pub mod usage;

pub use fanlight_events::turn::{
    AllocationName, Leg, LegCounters, Path, StoredAllocation, TurnEvent, TurnInput,
};
pub use identity::{Identity, Person, Who};
pub use participant::{Participant, is_participant_sid};
pub use record::{AllocationRecord, Class, End, EndReason, Quality, SessionRecord};

use allocation::{Allocation, State};
use fanlight_base::ParticipantSid;
use index::{Found, Index};
use limits::{RECONNECT_MS, REORDER_MS};
use nodes::Node;
use orphans::Orphans;
use session::Session;
use slab::Slab;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Who a user name stands for.
    pub identity: Identity,
    /// A user who is back within this many milliseconds goes on with the same session.
    pub merge_gap_ms: u64,
}

/// What the accounting says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An allocation as it stands, open or ended; soon after it changed.
    Allocation(Box<AllocationRecord>),
    /// A session as it stands; soon after it changed.
    Session(Box<SessionRecord>),
    /// A session opened whose person may be a participant: who knows it answers with `handle_participant`.
    WhoIs(ParticipantSid),
    /// Nothing more now; `handle_timeout` is wanted at this time, milliseconds since the Unix epoch (`u64::MAX`: never).
    Timeout(u64),
}

/// What happened to the input itself; counters only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Health {
    /// Events taken.
    pub events: u64,
    /// Openings and traffic heard twice.
    pub duplicates: u64,
    /// Names with traffic but without an allocation: failed or foreign clients. Never billed.
    pub orphans: u64,
    /// Their traffic messages.
    pub orphan_events: u64,
    /// Events that could be about several allocations.
    pub ambiguous: u64,
    /// Allocations, orphans and servers beyond what is held.
    pub refused: u64,
    /// Servers that started anew.
    pub node_restarts: u64,
    /// Times the input was away.
    pub outages: u64,
}

/// Allocations and sessions of all TURN servers.
#[derive(Debug)]
pub struct TurnAccount {
    settings: Settings,
    allocations: Slab<Allocation>,
    /// Allocations by the server's number.
    by_id: Index,
    sessions: Slab<Session>,
    /// Sessions by the person's key.
    by_person: Index,
    nodes: BTreeMap<SmolStr, Node>,
    orphans: Orphans,
    timers: BTreeSet<(u64, Timer)>,
    next: u64,
    outputs: VecDeque<Output>,
    /// Open allocations that have changed since they were told.
    changed: VecDeque<u32>,
    health: Health,
    input_away: bool,
}

/// What is waited for, by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Allocation(u32),
    Session(u32),
    Node,
}

impl TurnAccount {
    /// Nothing so far; numbers begin with `next`.
    pub fn new(settings: Settings, next: u64) -> Self {
        Self {
            settings,
            allocations: Slab::default(),
            by_id: Index::default(),
            sessions: Slab::default(),
            by_person: Index::default(),
            nodes: BTreeMap::new(),
            orphans: Orphans::default(),
            timers: BTreeSet::new(),
            next,
            outputs: VecDeque::new(),
            changed: VecDeque::new(),
            health: Health::default(),
            input_away: false,
        }
    }

    /// Goes on with what was open when we last stood. What was said in between is not known, so this counts as an outage:
    /// bytes are exact again where totals arrive.
    pub fn restore(&mut self, at_ms: u64, sessions: Vec<SessionRecord>, allocations: Vec<AllocationRecord>) {
        let mut slots = BTreeMap::new();
        for record in sessions {
            slots.insert(record.number, self.insert_session(Session::restore(record)));
        }
        self.health.outages += u64::from(!allocations.is_empty());
        for record in allocations {
            let session = slots.get(&record.session).copied();
            let session = session.unwrap_or_else(|| self.session_of(&record.name));
            let last_sign_ms = record.last_status_ms.max(record.active_until_ms);
            let allocation = Allocation::restore(record, session);
            let node = self.nodes.entry(allocation.node.clone()).or_default();
            node.note_seen(at_ms, allocation.name.id);
            node.last_sign_ms = node.last_sign_ms.max(last_sign_ms);
            // Who tells of peers is not on record; without its totals nothing is called exact.
            node.with_peer = true;
            self.insert(allocation);
        }
        for slot in slots.into_values() {
            self.close_if_empty(at_ms, slot);
        }
    }

    /// Takes what an input says.
    pub fn handle_input(&mut self, at_ms: u64, input: TurnInput) {
        match input {
            TurnInput::Event { node, name, event } => self.handle_event(at_ms, node.as_deref(), &name, event),
            TurnInput::NodeStarted(node) => self.handle_node_started(at_ms, &node),
            TurnInput::NodeGone(node) => self.handle_node_gone(at_ms, &node),
            TurnInput::NodeBack(node) => self.handle_node_back(&node),
            TurnInput::Lost => self.handle_input_lost(),
            TurnInput::Back => self.handle_input_back(),
            TurnInput::Resync { complete_since_ms, stored } => {
                self.handle_resync(at_ms, complete_since_ms, stored);
            }
        }
    }

    /// A TURN server says something. `node` is its name where the input tells servers apart; otherwise the server's
    /// address in status messages does, and what is not a status is joined by name.
    pub fn handle_event(&mut self, at_ms: u64, node: Option<&str>, name: &AllocationName, event: TurnEvent) {
        self.health.events += 1;
        self.health.orphans += self.orphans.settle(at_ms);
        let local = match &event {
            TurnEvent::Opened { path, .. } | TurnEvent::Refreshed { path, .. } => path.local.clone(),
            _ => SmolStr::default(),
        };
        let server = node.unwrap_or(&local);
        let found = self.find(server, node.is_some(), name);
        if let Found::One(slot) = found
            && !matches!(event, TurnEvent::Opened { .. })
            && self.allocations.get(slot).is_some_and(|known| known.state == State::Finished)
        {
            return;
        }
        match event {
            TurnEvent::Opened { lifetime_s, path } => {
                self.opened(at_ms, server.into(), name, (lifetime_s, path), found);
            }
            TurnEvent::Refreshed { lifetime_s, path } => {
                let slot = match found {
                    Found::One(slot) if !self.is_replaced(slot) => slot,
                    Found::Several => return self.health.ambiguous += 1,
                    Found::One(_) | Found::None => {
                        let status = (lifetime_s, path.clone());
                        let Some(slot) = self.open(at_ms, server.into(), name, status, false) else { return };
                        self.adopt(at_ms, slot, name, REORDER_MS);
                        slot
                    }
                };
                self.revive(slot);
                self.change(at_ms, slot, |allocation| allocation.refresh(at_ms, lifetime_s, path));
            }
            TurnEvent::Deleted => self.deleted(at_ms, server.into(), name, found),
            TurnEvent::Traffic(leg, counters) => self.traffic(at_ms, name, (leg, counters), found),
            TurnEvent::Total(leg, totals) => match found {
                Found::One(slot) => self.total(at_ms, slot, leg, totals),
                Found::Several => self.health.ambiguous += 1,
                Found::None => self.orphan(at_ms, name, TurnEvent::Total(leg, totals)),
            },
        }
    }

    /// This participant is known now: the open sessions of its sid are its own.
    pub fn handle_participant(&mut self, participant: &Participant) {
        for slot in self.sessions_of(participant.sid.as_str()) {
            let Some(session) = self.sessions.get_mut(slot) else { continue };
            if session.participant.as_deref() == Some(participant) {
                continue;
            }
            session.participant = Some(Box::new(participant.clone()));
            self.outputs.push_back(Output::Session(Box::new(session.record())));
            let its = self.allocations.iter().filter(|(_, allocation)| allocation.session == slot);
            let its: Vec<u32> = its.map(|(slot, _)| slot).collect();
            its.into_iter().for_each(|slot| self.tell_open(slot));
        }
    }

    /// A TURN server has just started: whatever it had before is gone.
    pub fn handle_node_started(&mut self, at_ms: u64, node: &str) {
        if let Some(known) = self.named_node(node) {
            let had_given_ids = known.restarted();
            let ended = self.end_node(at_ms, node, EndReason::NodeRestart);
            self.health.node_restarts += u64::from(had_given_ids || ended > 0);
        }
    }

    /// All connections of a TURN server closed.
    pub fn handle_node_gone(&mut self, at_ms: u64, node: &str) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.gone_ms = Some(at_ms);
            self.timers.insert((at_ms + RECONNECT_MS, Timer::Node));
        }
    }

    /// A TURN server is connected.
    pub fn handle_node_back(&mut self, node: &str) {
        self.named_node(node);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, at_ms: u64) {
        self.health.orphans += self.orphans.settle(at_ms);
        while let Some(&(due_ms, timer)) = self.timers.first()
            && due_ms <= at_ms
        {
            self.timers.pop_first();
            match timer {
                Timer::Allocation(slot) => self.allocation_due(at_ms, slot),
                Timer::Session(slot) => self.session_due(at_ms, slot),
                Timer::Node => self.nodes_due(at_ms),
            }
        }
    }

    /// What there is to tell; [`Output::Timeout`] ends it.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.poll_urgent() {
            return output;
        }
        while let Some(slot) = self.changed.pop_front() {
            let Some(allocation) = self.allocations.get_mut(slot) else { continue };
            if std::mem::take(&mut allocation.changed)
                && let Some(record) = self.open_record(slot)
            {
                return Output::Allocation(Box::new(record));
            }
        }
        Output::Timeout(self.next_timeout_ms())
    }

    /// What does not wait: sessions and ends. How open allocations stand is the same when it is asked for later, and for
    /// many messages at once.
    pub fn poll_urgent(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many open allocations, at most, have changed since they were told.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// When [`Self::handle_timeout`] is wanted; `u64::MAX`: never.
    pub fn next_timeout_ms(&self) -> u64 {
        let timer_ms = self.timers.first().map_or(u64::MAX, |(due_ms, _)| *due_ms);
        timer_ms.min(self.orphans.next_due_ms())
    }

    /// How the input fares.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Allocations that are open, as far as is known.
    pub fn open_allocations(&self) -> impl Iterator<Item = AllocationRecord> {
        self.allocations.iter().filter_map(|(slot, _)| self.open_record(slot))
    }
}
