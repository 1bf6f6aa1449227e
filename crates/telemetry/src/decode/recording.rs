//! A recorded stream of coturn's messages: lines of UTC time, channel and payload, parted by tabs.
//!
//! Lines that begin with `#` are comments. Two channels are the recorder's own: `mark` for notes, and `#capture` for the
//! state of its connection (`connected`, or `lost: …`).

use super::coturn::{self, Message};
use crate::turn_account::{TurnAccount, table};

/// How a recording was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Messages taken.
    pub messages: u64,
    /// Lines that are not of this form, or whose message is not coturn's.
    pub unreadable: u64,
    /// Time of the latest line, milliseconds since the Unix epoch.
    pub latest_ms: u64,
}

impl Reading {
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
                account.handle_event(at_ms, None, &name, event);
            }
            (_, Ok(Message::Heartbeat)) => self.messages += 1,
            (_, Err(_)) => self.unreadable += 1,
        }
    }
}
