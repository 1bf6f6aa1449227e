//! What coturn writes into its own log: the second witness.

use fanlight_events::turn::LegCounters;
use std::collections::BTreeMap;

/// Allocations of one process, by id.
#[derive(Debug, Default)]
pub(crate) struct Log(pub(crate) BTreeMap<u64, Logged>);

/// An allocation as the log has it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) user: String,
    pub(crate) refreshes: u64,
    /// Client, peers.
    pub(crate) usage: [LegCounters; 2],
    pub(crate) is_deleted: bool,
}

impl Log {
    /// Reads `12: : session 000000000000000001: usage: realm=<…>, username=<…>, rp=31, rb=5372, sp=31, sb=5004`.
    pub(crate) fn read(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            let Some((_, rest)) = line.split_once(": session ") else { continue };
            let Some((id, rest)) = rest.split_once(": ") else { continue };
            let Ok(id) = id.parse() else { continue };
            let Some((what, fields)) = rest.split_once(" realm=<") else { continue };
            if what == "new," {
                let user = between(fields, "username=<", ">").to_owned();
                log.0.insert(id, Logged { user, ..Logged::default() });
            }
            // Usage of what was never granted is nobody's.
            let Some(known) = log.0.get_mut(&id) else { continue };
            match what {
                "refreshed," => known.refreshes += 1,
                "usage:" => known.usage[0] += counters(fields),
                "peer usage:" => known.usage[1] += counters(fields),
                "delete:" => known.is_deleted = true,
                _ => {}
            }
        }
        log
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).map_or("", |(_, rest)| rest);
    rest.split_once(end).map_or(rest, |(inside, _)| inside)
}

fn counters(fields: &str) -> LegCounters {
    let number = |name: &str| between(&format!("{fields},"), &format!(" {name}="), ",").parse().unwrap();
    LegCounters {
        rx_packets: number("rp"),
        rx_bytes: number("rb"),
        tx_packets: number("sp"),
        tx_bytes: number("sb"),
    }
}
