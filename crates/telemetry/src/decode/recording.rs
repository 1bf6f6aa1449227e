//! A recorded stream of coturn's messages: lines of UTC time, channel and payload, parted by tabs.
//!
//! Lines that begin with `#` are comments. Two channels are the recorder's own: `mark` for notes, and `#capture` for the
//! state of its connection (`connected`, or `lost: …`).

use super::coturn::{self, Message};
use super::release::Release;
use crate::turn_account::{AllocationRecord, Output, SessionRecord, TurnAccount, table};
use std::collections::BTreeMap;

/// How a recording was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Messages taken.
    pub messages: u64,
    /// Lines that are not of this form, or whose message is not coturn's.
    pub unreadable: u64,
    /// Time of the latest line, milliseconds since the Unix epoch.
    pub latest_ms: u64,
    release: Option<Release>,
}

/// What a recording gave: the last word on every allocation and session, in the order of the first.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Allocations that have ended.
    pub allocations: Vec<AllocationRecord>,
    /// Sessions that have ended.
    pub sessions: Vec<SessionRecord>,
    places: BTreeMap<u64, usize>,
}

impl Tables {
    /// Takes what the accounting has to tell.
    pub fn drain(&mut self, account: &mut TurnAccount) {
        loop {
            match account.poll_output() {
                Output::Allocation(record) if record.ended.is_some() => {
                    put(&mut self.places, &mut self.allocations, record.number, *record);
                }
                Output::Session(record) if record.ended.is_some() => {
                    put(&mut self.places, &mut self.sessions, record.number, *record);
                }
                Output::Allocation(_) | Output::Session(_) | Output::WhoIs(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }
}

/// Allocations and sessions have numbers of one row.
fn put<T>(places: &mut BTreeMap<u64, usize>, rows: &mut Vec<T>, number: u64, row: T) {
    let place = *places.entry(number).or_insert(rows.len());
    match rows.get_mut(place) {
        Some(known) => *known = row,
        None => rows.push(row),
    }
}

impl Reading {
    /// What coturns of this release said.
    pub fn of_release(release: Release) -> Self {
        Self { release: Some(release), ..Self::default() }
    }

    /// Takes one line, without its end.
    pub fn line(&mut self, account: &mut TurnAccount, line: &str) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let mut fields = line.splitn(3, '\t');
        let (Some(time), Some(channel), Some(payload)) = (fields.next(), fields.next(), fields.next()) else {
            self.unreadable += 1;
            return;
        };
        let Some(at_ms) = table::from_utc(time) else {
            self.unreadable += 1;
            return;
        };
        self.latest_ms = self.latest_ms.max(at_ms);
        account.handle_timeout(at_ms);
        match (channel, coturn::read(channel, payload)) {
            ("mark", _) => {}
            ("#capture", _) if payload == "connected" => account.handle_input_back(),
            ("#capture", _) => account.handle_input_lost(),
            (_, Ok(Message::Event(name, event))) => {
                self.messages += 1;
                let event = match self.release {
                    Some(release) => release.correct(event),
                    None => event,
                };
                account.handle_event(at_ms, None, &name, event);
            }
            (_, Ok(Message::Heartbeat)) => self.messages += 1,
            (_, Err(_)) => self.unreadable += 1,
        }
    }
}
