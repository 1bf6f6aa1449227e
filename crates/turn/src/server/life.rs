//! From an opened relay to the last word about an allocation: sockets, timers, ends and accounts.

use super::requests::allocated;
use super::{Caller, TurnServer, get, get_mut, send_control};
use crate::allocation::{Allocation, RelayState};
use crate::counters::EndReason;
use crate::limits::{RELAY_TRIES_MAX, TIMERS_PER_TURN, TRAFFIC_REPORT};
use crate::output::{Account, Family, Outgoing, Output, Quota, RelayKey, Why};
use crate::wire;
use fanlight_base::{Mono, Now};
use fanlight_events::turn::{Leg, LegCounters, TurnEvent};
use stun_types::attribute::ErrorCode;
use turn_types::message::ALLOCATE;

impl TurnServer {
    /// The relay's socket is bound to the address asked for.
    pub fn handle_relay_opened(&mut self, now: Now, key: RelayKey, out: &mut Outgoing) {
        let Some(allocation) = get_mut(&mut self.slots, key.slot).filter(|one| one.name.id == key.id) else {
            return;
        };
        let Some(Some(relay)) = allocation.relay_mut(key.family) else { return };
        relay.state = RelayState::Open;
        let advertised = relay.advertised;
        self.by_relay.insert(advertised, key);
        self.settle(now.mono(), key.slot, out);
    }

    /// The relay's socket could not be bound: another port is tried.
    pub fn handle_relay_refused(&mut self, now: Now, key: RelayKey, out: &mut Outgoing) {
        let Some(allocation) = get(&self.slots, key.slot).filter(|one| one.name.id == key.id) else { return };
        let Some(refused) =
            allocation.relay(key.family).filter(|one| one.state == RelayState::Opening).copied()
        else {
            return;
        };
        self.counters.relays_refused += 1;
        let even = allocation.asked.even;
        // Taken before the refused one is back, so that it is another.
        let again = (refused.tries < RELAY_TRIES_MAX).then(|| self.take_port(key.family, even)).flatten();
        if let Some(ports) = self.ports.get_mut(key.family.index()) {
            ports.give_back(refused.bind.port());
        }
        let next = again.map(|mut relay| {
            relay.tries = refused.tries.saturating_add(1);
            relay
        });
        let Some(allocation) = get_mut(&mut self.slots, key.slot) else { return };
        if let Some(place) = allocation.relay_mut(key.family) {
            *place = next;
        }
        match next {
            Some(relay) => self.output(Output::OpenRelay { key, address: relay.bind }),
            None if allocation.relays().next().is_some() => {
                allocation.additional_refused = Some(ErrorCode::INSUFFICIENT_CAPACITY);
                self.settle(now.mono(), key.slot, out);
            }
            None => self.give_up(now.mono(), key.slot, out),
        }
    }

    /// Timers that are due; at most so many at once, the rest follow.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Outgoing) {
        let now = now.mono();
        for _ in 0..TIMERS_PER_TURN {
            match self.timers.first().copied() {
                Some((when, slot)) if when <= now => {
                    self.timers.pop_first();
                    self.handle_due(now, slot, out);
                }
                _ => break,
            }
        }
        for _ in 0..TIMERS_PER_TURN {
            if !self.users.forget_one(now) {
                break;
            }
        }
    }

    /// The next output; the last one is always [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.outputs.pop() {
                return output;
            }
            match self.ended.pop_front() {
                Some(allocation) => self.close_account(*allocation),
                None => return self.timeout(),
            }
        }
    }

    fn timeout(&self) -> Output {
        let allocation = self.timers.first().map_or(Mono::NEVER, |(when, _)| *when);
        let user = self.users.next_end();
        match () {
            () if allocation == Mono::NEVER && user == Mono::NEVER => Output::Timeout(Mono::NEVER, Why::Idle),
            () if allocation <= user => Output::Timeout(allocation, Why::Allocation),
            () => Output::Timeout(user, Why::User),
        }
    }

    fn handle_due(&mut self, now: Mono, slot: u32, out: &mut Outgoing) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        allocation.due = Mono::NEVER;
        if !allocation.open {
            return self.give_up(now, slot, out);
        }
        if allocation.expires <= now {
            return self.end(now, slot, EndReason::Expired);
        }
        if allocation.report_at <= now {
            self.report(now, slot);
        }
        self.set_timer(now, slot);
    }

    /// Answers the Allocate request when every relay asked for is there or refused.
    fn settle(&mut self, now: Mono, slot: u32, out: &mut Outgoing) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        if allocation.open || !allocation.is_settled() {
            return;
        }
        allocation.open = true;
        allocation.grant(now, allocation.lifetime_s);
        allocation.report_at = now + TRAFFIC_REPORT;
        let fingerprint = allocation.asked.fingerprint;
        let written = allocated(allocation)
            .and_then(|write| wire::finish(write, Some(&allocation.caller.key), fingerprint));
        if let Ok(bytes) = written {
            send_control(allocation, &bytes, out);
        }
        let event = TurnEvent::Opened { lifetime_s: allocation.lifetime_s, path: allocation.path.clone() };
        self.counters.allocations += 1;
        self.counters.successes += 1;
        self.account(slot, event);
        self.set_timer(now, slot);
    }

    /// Answers the Allocate request with 508.
    fn give_up(&mut self, now: Mono, slot: u32, out: &mut Outgoing) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        let code = ErrorCode::INSUFFICIENT_CAPACITY;
        let written = wire::error(ALLOCATE, allocation.asked.transaction, code, &[]).and_then(|write| {
            wire::finish(write, Some(&allocation.caller.key), allocation.asked.fingerprint)
        });
        if let Ok(bytes) = written {
            send_control(allocation, &bytes, out);
        }
        self.counters.error(code);
        self.end(now, slot, EndReason::NoRelay);
    }

    /// Takes an allocation out of every table. What is left to say of it is said by `poll_output`.
    pub(super) fn end(&mut self, now: Mono, slot: u32, why: EndReason) {
        let Some(allocation) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.timers.remove(&(allocation.due, slot));
        self.by_client.remove(&allocation.client);
        for (_, relay) in allocation.relays() {
            self.by_relay.remove(&relay.advertised);
        }
        self.users.close(now, allocation.user, slot);
        self.free.push(slot);
        self.open = self.open.saturating_sub(1);
        self.counters.end(why);
        self.ended.push_back(allocation);
    }

    /// Ends everything of a user whose bytes are used up.
    pub(super) fn cut_off(&mut self, now: Mono, user: u32) {
        let slots = self.users.slots(user).to_vec();
        let caller = slots.first().and_then(|slot| get(&self.slots, *slot)).map(|one| one.caller.clone());
        if let Some(caller) = caller {
            let limit = self.quotas.user_bytes.map_or(0, |quota| quota.bytes);
            self.counters.quota_hits += 1;
            // Said now whatever was said before; what the client asks next is not said again at once.
            self.users.may_say(now, &caller.person);
            self.push_quota(&caller, Quota::UserBytes, limit);
        }
        for slot in slots {
            self.end(now, slot, EndReason::Quota);
        }
    }

    pub(super) fn push_quota(&mut self, caller: &Caller, quota: Quota, limit: u64) {
        let hit = Account::QuotaHit {
            realm: self.realm_text.clone(),
            user: caller.name.clone(),
            participant: caller.participant.clone(),
            quota,
            limit,
        };
        self.output(Output::Account(Box::new(hit)));
    }

    /// Closes one of an allocation's two relays.
    pub(super) fn close_relay(&mut self, slot: u32, family: Family) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        let key = allocation.key(family);
        let Some(relay) = allocation.relay_mut(family).and_then(Option::take) else { return };
        self.by_relay.remove(&relay.advertised);
        if let Some(ports) = self.ports.get_mut(family.index()) {
            ports.give_back(relay.bind.port());
        }
        self.output(Output::CloseRelay { key });
    }

    /// Says something of an allocation to the accounting.
    pub(super) fn account(&mut self, slot: u32, event: TurnEvent) {
        if let Some(allocation) = get(&self.slots, slot) {
            let account = account(allocation, event);
            self.output(account);
        }
    }

    pub(super) fn set_timer(&mut self, now: Mono, slot: u32) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        let due = allocation.next_due(now);
        self.timers.remove(&(allocation.due, slot));
        allocation.due = due;
        self.timers.insert((due, slot));
    }

    fn report(&mut self, now: Mono, slot: u32) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        let legs = allocation.take_traffic(now);
        let said: Vec<Output> =
            traffic(legs).into_iter().flatten().map(|event| account(allocation, event)).collect();
        for output in said {
            self.output(output);
        }
    }

    /// The order is coturn's: traffic, deleted, totals.
    fn close_account(&mut self, mut allocation: Allocation) {
        for family in [Family::V4, Family::V6] {
            let Some(relay) = allocation.relay(family) else { continue };
            if let Some(ports) = self.ports.get_mut(family.index()) {
                ports.give_back(relay.bind.port());
            }
            self.output(Output::CloseRelay { key: allocation.key(family) });
        }
        if !allocation.open {
            return;
        }
        let rest = allocation.take_traffic(Mono::NEVER);
        let totals = [
            TurnEvent::Total(Leg::Client, allocation.client_leg),
            TurnEvent::Total(Leg::Peer, allocation.peer_leg),
        ];
        let events = traffic(rest).into_iter().flatten().chain([TurnEvent::Deleted]).chain(totals);
        for event in events {
            self.output(account(&allocation, event));
        }
    }
}

fn account(allocation: &Allocation, event: TurnEvent) -> Output {
    Output::Account(Box::new(Account::Allocation {
        name: allocation.name.clone(),
        participant: allocation.caller.participant.clone(),
        event,
    }))
}

/// What there is to say of traffic; nothing when there was none.
fn traffic([client, peer]: [LegCounters; 2]) -> [Option<TurnEvent>; 2] {
    let said =
        |leg, counters: LegCounters| (counters.packets() > 0).then_some(TurnEvent::Traffic(leg, counters));
    [said(Leg::Client, client), said(Leg::Peer, peer)]
}
