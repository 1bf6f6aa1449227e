//! Allocations and sessions as tab-separated tables.

pub use crate::calendar::{from_utc, utc};

use super::record::{AllocationRecord, Quality, SessionRecord};
use std::fmt::Write;

/// First line of [`allocation`].
pub const ALLOCATIONS: &str = "allocation\trealm\tuser\ttype\tstart_known\theld_s\trefreshes\trx_client\ttx_client\t\
     rx_peer\ttx_peer\texact\tdeltas_match\tend_reason";
/// First line of [`session`].
pub const SESSIONS: &str = "user\trealm\tstart\tdur_s\tallocations\tmax_concurrent\tpeer_bytes\tclass";

/// A line for an allocation, without its end.
pub fn allocation(record: &AllocationRecord) -> String {
    let AllocationRecord { name, path, client, peer, .. } = record;
    format!(
        "{:018}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        name.id,
        cell(&name.realm),
        cell(&name.user),
        cell(&path.transport),
        record.start_known,
        seconds(record.held_ms()),
        record.refreshes,
        client.rx_bytes,
        client.tx_bytes,
        peer.rx_bytes,
        peer.tx_bytes,
        record.quality == Quality::Exact,
        record.deltas_match.map_or("", |matches| if matches { "true" } else { "false" }),
        record.ended.map_or("open", |(_, reason)| reason.as_str()),
    )
}

/// A line for a session, without its end.
pub fn session(record: &SessionRecord) -> String {
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        cell(&record.who.person),
        cell(&record.realm),
        utc(record.started_ms),
        seconds(record.held_ms()),
        record.allocations,
        record.max_concurrent,
        record.peer.bytes(),
        record.class.as_str(),
    )
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// A tab or a line's end in a name would break the table.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' | '\n' | '\r' => {
                // Writing into a string does not fail.
                let _ = write!(out, "\\x{:02x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_the_table() {
        assert_eq!(cell("a\tb\nc"), "a\\x09b\\x0ac");
    }
}
