//! TURN within the pipeline: the accounting on a clock that does not jump, and its rows that wait for the disk.

use crate::rows::Batch;
use crate::turn_account::{
    AllocationRecord, Output, Participant, SessionRecord, Settings, TurnAccount, TurnInput,
};
use crate::turn_status::{TurnStatus, Watch};
use fanlight_base::{Mono, Now, ParticipantSid};
use fanlight_events::Fact;
use fanlight_events::turn::Quota;
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows that wait for the disk: half an hour of a thousand endings a minute, and every open allocation of a busy server.
const ROWS_MAX: usize = 131_072;

/// The accounting and what it has to tell the disk.
#[derive(Debug)]
pub(crate) struct Turn {
    account: TurnAccount,
    /// Where both clocks stood at the beginning. What is billed must not change with a jump of the wall clock.
    began: Now,
    allocations: BTreeMap<u64, AllocationRecord>,
    sessions: BTreeMap<u64, SessionRecord>,
    watch: Watch,
    /// Sessions that have just ended.
    facts: Vec<Fact>,
    /// Whose participants the accounting wants to know.
    asked: Vec<ParticipantSid>,
    /// Rows that found no place.
    pub(crate) refused: u64,
}

impl Turn {
    pub(crate) fn new(now: Now, settings: Settings, next: u64) -> Self {
        Self {
            account: TurnAccount::new(settings, next),
            began: now,
            allocations: BTreeMap::new(),
            sessions: BTreeMap::new(),
            watch: Watch::default(),
            facts: Vec::new(),
            asked: Vec::new(),
            refused: 0,
        }
    }

    pub(crate) fn restore(&mut self, now: Now, open: (Vec<SessionRecord>, Vec<AllocationRecord>)) {
        self.watch.restore(&open.0, &open.1);
        self.account.restore(self.at_ms(now), open.0, open.1);
        self.collect(self.at_ms(now));
    }

    pub(crate) fn handle_input(&mut self, now: Now, input: TurnInput) {
        let at_ms = self.at_ms(now);
        self.account.handle_timeout(at_ms);
        self.account.handle_input(at_ms, input);
        self.collect(at_ms);
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        let at_ms = self.at_ms(now);
        self.account.handle_timeout(at_ms);
        self.collect(at_ms);
    }

    pub(crate) fn quota_hit(&mut self, quota: Quota) {
        self.watch.quota_hit(quota);
    }

    /// Sids that persons have who are not known as participants yet.
    pub(crate) fn take_asked(&mut self) -> Vec<ParticipantSid> {
        std::mem::take(&mut self.asked)
    }

    /// This participant is known.
    pub(crate) fn handle_participant(&mut self, now: Now, participant: &Participant) {
        self.account.handle_participant(participant);
        self.collect(self.at_ms(now));
    }

    /// Facts for the timeline, in the order in which they were told.
    pub(crate) fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    pub(crate) fn status(&self) -> &TurnStatus {
        self.watch.status()
    }

    /// When time matters next.
    pub(crate) fn next_timeout(&self) -> Mono {
        match self.account.next_timeout_ms() {
            u64::MAX => Mono::NEVER,
            due_ms => self.began.mono() + Duration::from_millis(due_ms.saturating_sub(self.began.unix_ms())),
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.rows() + self.account.changed()
    }

    fn rows(&self) -> usize {
        self.allocations.len() + self.sessions.len()
    }

    /// Moves rows into the batch up to its limit.
    pub(crate) fn take(&mut self, now: Now, batch: &mut Batch, rows_max: usize) {
        while batch.rows() < rows_max
            && let Some((_, row)) = self.sessions.pop_first()
        {
            batch.turn_sessions.push(row);
        }
        while batch.rows() < rows_max
            && let Some((_, row)) = self.allocations.pop_first()
        {
            batch.turn_allocations.push(row);
        }
        while batch.rows() < rows_max {
            // All that is urgent was collected.
            let Output::Allocation(row) = self.account.poll_output() else { break };
            self.watch.allocation(self.at_ms(now), &row);
            batch.turn_allocations.push(*row);
        }
    }

    /// Takes what does not wait; how open allocations stand is asked when it is written.
    fn collect(&mut self, at_ms: u64) {
        while let Some(output) = self.account.poll_urgent() {
            let full = self.rows() >= ROWS_MAX;
            match output {
                Output::Allocation(row) => {
                    self.watch.allocation(at_ms, &row);
                    if full && !self.allocations.contains_key(&row.number) {
                        self.refused += 1;
                    } else {
                        self.allocations.insert(row.number, *row);
                    }
                }
                Output::Session(row) => {
                    self.facts.extend(self.watch.session(&row));
                    if full && !self.sessions.contains_key(&row.number) {
                        self.refused += 1;
                    } else {
                        self.sessions.insert(row.number, *row);
                    }
                }
                Output::WhoIs(sid) => self.asked.push(sid),
                Output::Timeout(_) => {}
            }
        }
        self.watch.set_accounting(*self.account.health(), self.refused);
    }

    fn at_ms(&self, now: Now) -> u64 {
        let passed = now.mono().since(self.began.mono());
        self.began.unix_ms() + u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }
}
