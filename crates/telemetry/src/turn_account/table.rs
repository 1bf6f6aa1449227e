//! Allocations and sessions as tab-separated tables.

use super::record::{AllocationRecord, Quality, SessionRecord};
use jiff::Timestamp;
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

/// A time as `2026-11-21T02:21:23.618Z`.
pub fn utc(ms: u64) -> String {
    let timestamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Milliseconds since the Unix epoch of such a time, or of a day's beginning (`2026-11-21`); `None` for another text and for
/// times before 1970.
pub fn from_utc(text: &str) -> Option<u64> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let timestamp: Timestamp = whole.parse().ok()?;
    timestamp.as_millisecond().try_into().ok()
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
    fn times_are_written_as_they_are_read() {
        for text in ["2026-11-21T02:21:23.618Z", "1970-01-01T00:00:00.000Z", "2028-02-29T23:59:59.999Z"] {
            assert_eq!(utc(from_utc(text).unwrap()), text);
        }
        assert_eq!(utc(from_utc("2026-11-21").unwrap()), "2026-11-21T00:00:00.000Z");
        assert_eq!(from_utc("yesterday"), None);
        assert_eq!(from_utc("1969-12-31T23:59:59.000Z"), None);
    }

    #[test]
    fn a_name_cannot_break_the_table() {
        assert_eq!(cell("a\tb\nc"), "a\\x09b\\x0ac");
    }
}
