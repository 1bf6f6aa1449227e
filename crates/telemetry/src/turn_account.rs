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
mod limits;
mod nodes;
mod record;
mod session;
pub mod table;
pub mod usage;

pub use fanlight_events::turn::{
    AllocationName, Leg, LegCounters, Path, StoredAllocation, TurnEvent, TurnInput,
};
pub use identity::{Identity, Person, Who};
pub use record::{AllocationRecord, Class, End, EndReason, Quality, SessionRecord};

use allocation::{Allocation, State};
use limits::{ALLOCATIONS_MAX, LATE_END_MS, NODES_MAX, ORPHAN_MS, ORPHANS_MAX, RECONNECT_MS, REORDER_MS};
use nodes::{IdSays, Node};
use session::Session;
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
    /// Nothing more now; `handle_timeout` is wanted at this time, milliseconds since the Unix epoch (`u64::MAX`: never).
    Timeout(u64),
}

/// What happened to the input itself; counters only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    allocations: BTreeMap<u64, Allocation>,
    names: BTreeMap<(SmolStr, u64), Vec<u64>>,
    sessions: BTreeMap<u64, Session>,
    current: BTreeMap<(SmolStr, Who), u64>,
    nodes: BTreeMap<SmolStr, Node>,
    orphans: BTreeMap<AllocationName, Orphan>,
    /// Names of orphans by the time they are let go.
    orphans_due: VecDeque<(u64, AllocationName)>,
    timers: BTreeSet<(u64, Timer)>,
    next: u64,
    outputs: VecDeque<Output>,
    health: Health,
    input_away: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Allocation(u64),
    Session(u64),
    Node,
}

/// Traffic that belongs to no allocation.
#[derive(Debug, Clone)]
struct Orphan {
    since_ms: u64,
    events: Vec<TurnEvent>,
}

/// Traffic messages of an orphan that are kept in case a `deleted` owns them.
const ORPHAN_EVENTS_MAX: usize = 64;

enum Found {
    One(u64),
    Several,
    None,
}

impl TurnAccount {
    /// Nothing so far; numbers begin with `next`.
    pub fn new(settings: Settings, next: u64) -> Self {
        Self {
            settings,
            allocations: BTreeMap::new(),
            names: BTreeMap::new(),
            sessions: BTreeMap::new(),
            current: BTreeMap::new(),
            nodes: BTreeMap::new(),
            orphans: BTreeMap::new(),
            orphans_due: VecDeque::new(),
            timers: BTreeSet::new(),
            next,
            outputs: VecDeque::new(),
            health: Health::default(),
            input_away: false,
        }
    }

    /// Goes on with what was open when we last stood. What was said in between is not known, so this counts as an outage:
    /// bytes are exact again where totals arrive.
    pub fn restore(&mut self, at_ms: u64, sessions: Vec<SessionRecord>, allocations: Vec<AllocationRecord>) {
        for record in sessions {
            self.current.insert((record.realm.clone(), record.who.clone()), record.number);
            self.sessions.insert(record.number, Session::restore(record));
        }
        self.health.outages += u64::from(!allocations.is_empty());
        for record in allocations {
            let allocation = Allocation::restore(record);
            let node = self.nodes.entry(allocation.node.clone()).or_default();
            node.note_seen(at_ms, allocation.name.id);
            // Who tells of peers is not on record; without its totals nothing is called exact.
            node.with_peer = true;
            if let Some(session) = self.sessions.get_mut(&allocation.session) {
                session.open(allocation.number, allocation.started_ms, allocation.start_known);
            }
            self.insert(allocation);
        }
        let idle = self.sessions.values().filter(|session| !session.has_open());
        let idle: Vec<u64> = idle.map(|session| session.number).collect();
        for number in idle {
            self.close_if_empty(at_ms, number);
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
            TurnInput::Resync { complete, stored } => self.handle_resync(at_ms, complete, stored),
        }
    }

    /// A TURN server says something. `node` is its name where the input tells servers apart; otherwise the server's
    /// address in status messages does, and what is not a status is joined by name.
    pub fn handle_event(&mut self, at_ms: u64, node: Option<&str>, name: &AllocationName, event: TurnEvent) {
        self.health.events += 1;
        self.settle_orphans(at_ms);
        let local = match &event {
            TurnEvent::Opened { path, .. } | TurnEvent::Refreshed { path, .. } => path.local.clone(),
            _ => SmolStr::default(),
        };
        let node_key: SmolStr = node.map_or(local, SmolStr::new);
        let found = self.find(node, &node_key, name);
        if let Found::One(number) = found
            && !matches!(event, TurnEvent::Opened { .. })
            && self.allocations.get(&number).is_some_and(|known| known.state == State::Finished)
        {
            return;
        }
        match event {
            TurnEvent::Opened { lifetime_s, path } => {
                self.opened(at_ms, node_key, name, (lifetime_s, path), &found);
            }
            TurnEvent::Refreshed { lifetime_s, path } => {
                let number = match found {
                    Found::One(number) => number,
                    Found::Several => return self.health.ambiguous += 1,
                    Found::None => {
                        let status = (lifetime_s, path.clone());
                        let Some(number) = self.open(at_ms, node_key, name, status, false) else { return };
                        self.adopt(at_ms, number, name, REORDER_MS);
                        number
                    }
                };
                self.change(at_ms, number, |allocation| allocation.refresh(at_ms, lifetime_s, path));
            }
            TurnEvent::Deleted => self.deleted(at_ms, node_key, name, &found),
            TurnEvent::Traffic(leg, counters) => self.traffic(at_ms, name, (leg, counters), &found),
            TurnEvent::Total(leg, totals) => match found {
                Found::One(number) => self.total(at_ms, number, leg, totals),
                Found::Several => self.health.ambiguous += 1,
                Found::None => self.orphan(at_ms, name, TurnEvent::Total(leg, totals)),
            },
        }
    }

    /// A TURN server has just started: whatever it had before is gone.
    pub fn handle_node_started(&mut self, at_ms: u64, node: &str) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.restarted();
            known.gone_ms = None;
            self.health.node_restarts += 1;
            self.end_node(at_ms, node, EndReason::NodeRestart);
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
        if let Some(known) = self.nodes.get_mut(node) {
            known.gone_ms = None;
        }
    }

    /// The input itself is away: nothing is heard of any server.
    pub fn handle_input_lost(&mut self) {
        if !self.input_away {
            self.health.outages += 1;
        }
        self.input_away = true;
        self.allocations.values_mut().for_each(|allocation| allocation.outage = true);
    }

    /// The input is back.
    pub fn handle_input_back(&mut self) {
        self.input_away = false;
    }

    /// What the servers' store has after a gap. `complete` says that the store lived through the gap: what it lacks has
    /// ended.
    pub fn handle_resync(&mut self, at_ms: u64, complete: bool, stored: Vec<StoredAllocation>) {
        self.input_away = false;
        let mut present = BTreeSet::new();
        for StoredAllocation { name, status, since_ms } in stored {
            let (TurnEvent::Opened { lifetime_s, path } | TurnEvent::Refreshed { lifetime_s, path }) = status
            else {
                continue;
            };
            let number = match self.find(None, &path.local, &name) {
                Found::One(number) => Some(number),
                Found::Several => {
                    self.health.ambiguous += 1;
                    None
                }
                Found::None => self.open(since_ms, path.local.clone(), &name, (lifetime_s, path), false),
            };
            if let Some(number) = number {
                present.insert(number);
                self.change(at_ms, number, |allocation| allocation.resync(since_ms, lifetime_s));
            }
        }
        if !complete {
            return;
        }
        let missing = self
            .allocations
            .values()
            .filter(|allocation| allocation.state == State::Active && !present.contains(&allocation.number));
        let missing: Vec<(u64, u64)> =
            missing.map(|allocation| (allocation.number, allocation.last_status_ms)).collect();
        for (number, low_ms) in missing {
            self.end_unheard(at_ms, number, End { low_ms, high_ms: at_ms }, EndReason::Unseen);
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, at_ms: u64) {
        self.settle_orphans(at_ms);
        while let Some(&(due_ms, timer)) = self.timers.first()
            && due_ms <= at_ms
        {
            self.timers.pop_first();
            match timer {
                Timer::Allocation(number) => self.allocation_due(at_ms, number),
                Timer::Session(number) => self.session_due(at_ms, number),
                Timer::Node => self.nodes_due(at_ms),
            }
        }
    }

    /// What there is to tell; [`Output::Timeout`] ends it.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.next_timeout_ms()))
    }

    /// When [`Self::handle_timeout`] is wanted; `u64::MAX`: never.
    pub fn next_timeout_ms(&self) -> u64 {
        let timer_ms = self.timers.first().map_or(u64::MAX, |(due_ms, _)| *due_ms);
        let orphan_ms = self.orphans_due.front().map_or(u64::MAX, |(due_ms, _)| *due_ms);
        timer_ms.min(orphan_ms)
    }

    /// How the input fares.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Allocations that are open, as far as is known.
    pub fn open_allocations(&self) -> impl Iterator<Item = AllocationRecord> {
        let open = self
            .allocations
            .values()
            .filter(|allocation| matches!(allocation.state, State::Active | State::Closing));
        open.map(|allocation| {
            allocation.record(self.settings.identity.read(&allocation.name.user), false, true)
        })
    }

    fn opened(
        &mut self,
        at_ms: u64,
        node: SmolStr,
        name: &AllocationName,
        (lifetime_s, path): (u32, Path),
        found: &Found,
    ) {
        let known = match found {
            Found::One(number) => self.allocations.get(number),
            _ => None,
        };
        if known.is_some_and(|known| known.name == *name && known.is_same_opening(at_ms, lifetime_s, &path)) {
            self.health.duplicates += 1;
            return;
        }
        if let Some(number) = known
            .filter(|known| known.name == *name && known.is_overtaken_opening(at_ms))
            .map(|known| known.number)
        {
            self.change(at_ms, number, |allocation| allocation.open_late(path));
            return self.finish_if_complete(at_ms, number);
        }
        let superseded = known
            .filter(|known| known.name == *name && matches!(known.state, State::Active | State::Closing))
            .map(|known| (known.number, known.expires_ms));
        if !self.nodes.contains_key(&node) && self.nodes.len() >= NODES_MAX {
            self.health.refused += 1;
        } else if self.nodes.entry(node.clone()).or_default().note_id(at_ms, name.id) == IdSays::Restarted {
            self.health.node_restarts += 1;
            self.end_node(at_ms, &node, EndReason::NodeRestart);
        }
        if let Some((number, expires_ms)) = superseded {
            self.end_unheard(at_ms, number, End::at(at_ms.min(expires_ms)), EndReason::Superseded);
        }
        if let Some(number) = self.open(at_ms, node, name, (lifetime_s, path), true) {
            self.adopt(at_ms, number, name, REORDER_MS);
        }
    }

    fn open(
        &mut self,
        at_ms: u64,
        node: SmolStr,
        name: &AllocationName,
        (lifetime_s, path): (u32, Path),
        start_known: bool,
    ) -> Option<u64> {
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
        let mut allocation = Allocation::new(number, node, name.clone(), path, start, lifetime_s);
        allocation.session = session;
        allocation.outage = self.input_away;
        self.insert(allocation);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.open(number, at_ms, start_known);
            self.outputs.push_back(Output::Session(Box::new(session.record())));
        }
        self.tell_open(number);
        Some(number)
    }

    fn insert(&mut self, allocation: Allocation) {
        let (number, name) = (allocation.number, &allocation.name);
        self.names.entry((name.realm.clone(), name.id)).or_default().push(number);
        self.timers.insert((allocation.deadline_ms(), Timer::Allocation(number)));
        self.allocations.insert(number, allocation);
    }

    fn deleted(&mut self, at_ms: u64, node: SmolStr, name: &AllocationName, found: &Found) {
        let number = match found {
            Found::One(number) => *number,
            Found::Several => return self.health.ambiguous += 1,
            Found::None => {
                let Some(number) = self.open(at_ms, node, name, (0, Path::default()), false) else { return };
                self.adopt(at_ms, number, name, ORPHAN_MS);
                number
            }
        };
        self.change(at_ms, number, |allocation| allocation.delete(at_ms));
        self.finish_if_complete(at_ms, number);
    }

    fn traffic(
        &mut self,
        at_ms: u64,
        name: &AllocationName,
        (leg, counters): (Leg, LegCounters),
        found: &Found,
    ) {
        let number = match found {
            Found::One(number) => *number,
            Found::Several => return self.health.ambiguous += 1,
            Found::None => return self.orphan(at_ms, name, TurnEvent::Traffic(leg, counters)),
        };
        let Some(allocation) = self.allocations.get_mut(&number) else { return };
        match allocation.add(at_ms, leg, counters) {
            None => self.health.duplicates += 1,
            Some(bytes) => {
                let session = allocation.session;
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.add(at_ms, bytes);
                }
            }
        }
        self.sign_of_life(at_ms, number, leg == Leg::Peer);
        self.tell_open(number);
    }

    fn total(&mut self, at_ms: u64, number: u64, leg: Leg, totals: LegCounters) {
        let Some(allocation) = self.allocations.get_mut(&number) else { return };
        allocation.total(leg, totals);
        self.sign_of_life(at_ms, number, leg == Leg::Peer);
        self.finish_if_complete(at_ms, number);
    }

    fn finish_if_complete(&mut self, at_ms: u64, number: u64) {
        if self.allocations.get(&number).is_some_and(Allocation::is_complete) {
            self.finish(at_ms, number);
        }
    }

    /// Changes an allocation on the word of its server.
    fn change(&mut self, at_ms: u64, number: u64, change: impl FnOnce(&mut Allocation)) {
        self.set(number, change);
        self.sign_of_life(at_ms, number, false);
        self.tell_open(number);
    }

    /// Changes an allocation, and its timer with it.
    fn set(&mut self, number: u64, change: impl FnOnce(&mut Allocation)) {
        let Some(allocation) = self.allocations.get_mut(&number) else { return };
        self.timers.remove(&(allocation.deadline_ms(), Timer::Allocation(number)));
        change(allocation);
        self.timers.insert((allocation.deadline_ms(), Timer::Allocation(number)));
    }

    /// Its server has spoken of an allocation that was open already, of its peer leg or of something else.
    fn sign_of_life(&mut self, at_ms: u64, number: u64, of_peer: bool) {
        let node = self.allocations.get(&number).and_then(|allocation| self.nodes.get_mut(&allocation.node));
        if let Some(node) = node {
            node.last_sign_ms = node.last_sign_ms.max(at_ms);
            node.with_peer |= of_peer;
        }
    }

    /// Everything of an allocation is known.
    fn finish(&mut self, at_ms: u64, number: u64) {
        self.set(number, |allocation| {
            (allocation.state, allocation.expires_ms) = (State::Finished, at_ms + REORDER_MS);
        });
        self.tell_end(at_ms, number, true);
    }

    /// The end of an allocation is not heard; it may still come.
    fn end_unheard(&mut self, at_ms: u64, number: u64, end: End, reason: EndReason) {
        self.set(number, |allocation| {
            allocation.end_unheard(end, reason);
            allocation.expires_ms = at_ms + LATE_END_MS;
        });
        self.tell_end(at_ms, number, false);
    }

    /// Tells how an open allocation stands.
    fn tell_open(&mut self, number: u64) {
        let Some(allocation) = self.allocations.get(&number) else { return };
        if matches!(allocation.state, State::Active | State::Closing) {
            let who = self.settings.identity.read(&allocation.name.user);
            self.outputs.push_back(Output::Allocation(Box::new(allocation.record(who, false, true))));
        }
    }

    /// Tells how an allocation ended, and how its session stands by that.
    fn tell_end(&mut self, at_ms: u64, number: u64, certain: bool) {
        let Some(allocation) = self.allocations.get(&number) else { return };
        let Some(session) = self.sessions.get_mut(&allocation.session) else { return };
        let who = self.settings.identity.read(&allocation.name.user);
        let younger = session.has_younger_than(allocation.last_status_ms);
        let with_peer = self.nodes.get(&allocation.node).is_none_or(|node| node.with_peer);
        let record = allocation.record(who, younger, with_peer);
        session.end(&record, certain);
        self.outputs.push_back(Output::Allocation(Box::new(record)));
        if session.closed || session.has_open() {
            self.outputs.push_back(Output::Session(Box::new(session.record())));
        }
        let (session, closed) = (session.number, session.closed);
        if closed {
            self.drop_session(session);
        } else {
            self.close_if_empty(at_ms, session);
        }
    }

    fn close_if_empty(&mut self, at_ms: u64, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if session.has_open() {
            return;
        }
        let closes_ms = at_ms + self.settings.merge_gap_ms;
        session.closes_ms = Some(closes_ms);
        if self.settings.merge_gap_ms == 0 {
            self.session_due(at_ms, number);
        } else {
            self.timers.insert((closes_ms, Timer::Session(number)));
        }
    }

    fn session_due(&mut self, at_ms: u64, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if session.closed || session.closes_ms.is_none_or(|closes_ms| closes_ms > at_ms) {
            return;
        }
        session.closed = true;
        self.outputs.push_back(Output::Session(Box::new(session.record())));
        self.current.remove(&(session.realm.clone(), session.who.clone()));
        self.drop_session(number);
    }

    /// Forgets a closed session when nothing of it can change any more.
    fn drop_session(&mut self, number: u64) {
        if self.sessions.get(&number).is_some_and(|session| session.closed && !session.has_doubtful()) {
            self.sessions.remove(&number);
        }
    }

    fn allocation_due(&mut self, at_ms: u64, number: u64) {
        let Some(allocation) = self.allocations.get(&number) else { return };
        let deadline_ms = allocation.deadline_ms();
        if deadline_ms > at_ms {
            self.timers.insert((deadline_ms, Timer::Allocation(number)));
            return;
        }
        match allocation.state {
            State::Active | State::Closing if self.input_away => {
                // Whoever is not heard because we do not listen is not lost: the resync after it decides.
                self.timers.insert((at_ms + RECONNECT_MS, Timer::Allocation(number)));
            }
            State::Active | State::Closing => {
                let end = allocation.overdue_end();
                self.end_unheard(at_ms, number, end, EndReason::Lost);
            }
            State::Deleted => self.finish(at_ms, number),
            State::Lost | State::Finished => self.forget(number),
        }
    }

    /// An allocation stays as it was told.
    fn forget(&mut self, number: u64) {
        let Some(allocation) = self.allocations.remove(&number) else { return };
        let key = (allocation.name.realm, allocation.name.id);
        if let Some(numbers) = self.names.get_mut(&key) {
            numbers.retain(|&of| of != number);
            if numbers.is_empty() {
                self.names.remove(&key);
            }
        }
        if let Some(session) = self.sessions.get_mut(&allocation.session) {
            session.settle(number);
        }
        self.drop_session(allocation.session);
    }

    fn nodes_due(&mut self, at_ms: u64) {
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

    fn end_node(&mut self, at_ms: u64, node: &str, reason: EndReason) {
        let Some(last_sign_ms) = self.nodes.get(node).map(|node| node.last_sign_ms) else { return };
        let open = self.allocations.values().filter(|allocation| {
            allocation.node == node && matches!(allocation.state, State::Active | State::Closing)
        });
        let open: Vec<(u64, u64)> =
            open.map(|allocation| (allocation.number, allocation.expires_ms)).collect();
        for (number, expires_ms) in open {
            let high_ms = at_ms.min(expires_ms);
            let low_ms =
                if reason == EndReason::NodeDisconnect { high_ms } else { last_sign_ms.min(high_ms) };
            self.end_unheard(at_ms, number, End { low_ms, high_ms }, reason);
        }
    }

    /// The allocation that a message is about. Where several fit, those still open come first, and among these the one
    /// with the very user name: until 4.12 coturn garbles names with `%`, differently in each message.
    fn find(&self, node: Option<&str>, node_key: &str, name: &AllocationName) -> Found {
        let numbers = self.names.get(&(name.realm.clone(), name.id)).map(Vec::as_slice).unwrap_or_default();
        let fits = |allocation: &&Allocation| {
            if node.is_some() || !node_key.is_empty() {
                return allocation.node == node_key || (node.is_none() && allocation.node.is_empty());
            }
            true
        };
        let candidates: Vec<&Allocation> =
            numbers.iter().filter_map(|number| self.allocations.get(number)).filter(fits).collect();
        let open = |allocation: &&&Allocation| !matches!(allocation.state, State::Lost | State::Finished);
        let same = |allocation: &&&Allocation| allocation.name.user == name.user;
        let garbled = |allocation: &&&Allocation| alike(&allocation.name.user, &name.user);
        let one = |found: Vec<&&Allocation>| match found.as_slice() {
            [] => None,
            [only] => Some(Found::One(only.number)),
            _ => Some(Found::Several),
        };
        one(candidates.iter().filter(open).filter(same).collect())
            .or_else(|| one(candidates.iter().filter(same).collect()))
            .or_else(|| one(candidates.iter().filter(open).filter(garbled).collect()))
            .unwrap_or(Found::None)
    }

    fn session_of(&mut self, name: &AllocationName) -> u64 {
        let who = self.settings.identity.read(&name.user);
        let key = (name.realm.clone(), who.clone());
        if let Some(&number) = self.current.get(&key) {
            return number;
        }
        let number = self.next_number();
        self.sessions.insert(number, Session::new(number, name.realm.clone(), who));
        self.current.insert(key, number);
        number
    }

    fn next_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn orphan(&mut self, at_ms: u64, name: &AllocationName, event: TurnEvent) {
        self.health.orphan_events += 1;
        if !self.orphans.contains_key(name) && self.orphans_due.len() >= ORPHANS_MAX {
            self.health.refused += 1;
            return;
        }
        let orphan = self.orphans.entry(name.clone()).or_insert_with(|| {
            self.orphans_due.push_back((at_ms + ORPHAN_MS, name.clone()));
            Orphan { since_ms: at_ms, events: Vec::new() }
        });
        if orphan.events.len() < ORPHAN_EVENTS_MAX {
            orphan.events.push(event);
        }
    }

    /// An allocation takes over what was said of its name up to so long ago.
    fn adopt(&mut self, at_ms: u64, number: u64, name: &AllocationName, within_ms: u64) {
        if self.orphans.get(name).is_none_or(|orphan| at_ms.saturating_sub(orphan.since_ms) > within_ms) {
            return;
        }
        let events = self.orphans.remove(name).map(|orphan| orphan.events).unwrap_or_default();
        for event in events {
            match event {
                TurnEvent::Traffic(leg, counters) => {
                    self.traffic(at_ms, name, (leg, counters), &Found::One(number))
                }
                TurnEvent::Total(leg, totals) => self.total(at_ms, number, leg, totals),
                TurnEvent::Opened { .. } | TurnEvent::Refreshed { .. } | TurnEvent::Deleted => {}
            }
        }
    }

    /// Orphans that nobody owned in time are counted and let go.
    fn settle_orphans(&mut self, at_ms: u64) {
        while let Some((due_ms, name)) = self.orphans_due.front()
            && *due_ms <= at_ms
        {
            // One that was adopted may be another by now, with a time of its own.
            if self.orphans.get(name).is_some_and(|orphan| orphan.since_ms + ORPHAN_MS <= at_ms) {
                self.orphans.remove(name);
                self.health.orphans += 1;
            }
            self.orphans_due.pop_front();
        }
    }
}

/// Whether two user names may be one that was garbled: they begin and end alike.
fn alike(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let shorter = a.len().min(b.len());
    let common = |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(a, b)| a == b).count();
    let start = common(&mut a.iter().zip(b));
    let end = common(&mut a.iter().rev().zip(b.iter().rev()));
    shorter > 0 && start > 0 && end > 0 && (start + end).min(shorter) * 2 >= shorter
}
