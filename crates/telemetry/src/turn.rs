//! TURN within the pipeline: the accounting on a clock that does not jump, and its rows that wait for the disk.

use crate::rows::Batch;
use crate::turn_account::{AllocationRecord, Output, SessionRecord, Settings, TurnAccount, TurnInput};
use fanlight_base::{Mono, Now};
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
            refused: 0,
        }
    }

    pub(crate) fn restore(&mut self, now: Now, open: (Vec<SessionRecord>, Vec<AllocationRecord>)) {
        self.account.restore(self.at_ms(now), open.0, open.1);
        self.collect();
    }

    pub(crate) fn handle_input(&mut self, now: Now, input: TurnInput) {
        let at_ms = self.at_ms(now);
        self.account.handle_timeout(at_ms);
        self.account.handle_input(at_ms, input);
        self.collect();
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.account.handle_timeout(self.at_ms(now));
        self.collect();
    }

    /// When time matters next.
    pub(crate) fn next_timeout(&self) -> Mono {
        match self.account.next_timeout_ms() {
            u64::MAX => Mono::NEVER,
            due_ms => self.began.mono() + Duration::from_millis(due_ms.saturating_sub(self.began.unix_ms())),
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.allocations.len() + self.sessions.len()
    }

    /// Moves rows into the batch up to its limit.
    pub(crate) fn take(&mut self, batch: &mut Batch, rows_max: usize) {
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
    }

    fn collect(&mut self) {
        loop {
            let full = self.waiting() >= ROWS_MAX;
            match self.account.poll_output() {
                Output::Allocation(row) if !full || self.allocations.contains_key(&row.number) => {
                    self.allocations.insert(row.number, *row);
                }
                Output::Session(row) if !full || self.sessions.contains_key(&row.number) => {
                    self.sessions.insert(row.number, *row);
                }
                Output::Allocation(_) | Output::Session(_) => self.refused += 1,
                Output::Timeout(_) => return,
            }
        }
    }

    fn at_ms(&self, now: Now) -> u64 {
        let passed = now.mono().since(self.began.mono());
        self.began.unix_ms() + u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }
}
