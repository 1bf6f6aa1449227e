//! Counters as columns, the same in `tracks` (the latest) and in `counters` (the series).

use super::int;
use fanlight_events::TrackCounters;
use rusqlite::Row;

/// Names of the integer columns, in the order of [`values`]; `layers` follows as JSON, null when there are none.
pub(crate) const COUNTERS: [&str; 18] = [
    "packets",
    "bytes",
    "header_bytes",
    "retransmitted",
    "retransmitted_bytes",
    "padding",
    "padding_bytes",
    "lost",
    "out_of_order",
    "duplicates",
    "dropped",
    "nacks",
    "plis",
    "firs",
    "frames",
    "key_frames",
    "jitter_us",
    "rtt_us",
];

/// The values of [`COUNTERS`].
pub(super) fn values(counters: &TrackCounters) -> [i64; COUNTERS.len()] {
    // Destructured without `..`, so that a counter added to the catalogue cannot be forgotten here.
    let TrackCounters {
        packets,
        bytes,
        header_bytes,
        retransmitted,
        retransmitted_bytes,
        padding,
        padding_bytes,
        lost,
        out_of_order,
        duplicates,
        dropped,
        nacks,
        plis,
        firs,
        frames,
        key_frames,
        jitter_us,
        rtt_us,
        layers: _,
    } = counters;
    [
        packets,
        bytes,
        header_bytes,
        retransmitted,
        retransmitted_bytes,
        padding,
        padding_bytes,
        lost,
        out_of_order,
        duplicates,
        dropped,
        nacks,
        plis,
        firs,
        frames,
        key_frames,
        jitter_us,
        rtt_us,
    ]
    .map(|value| int(*value))
}

/// The layers as JSON.
pub(super) fn layers(counters: &TrackCounters) -> Option<String> {
    if counters.layers.is_empty() { None } else { serde_json::to_string(&counters.layers).ok() }
}

/// Reads counters whose first column is `first`, `layers` after the last.
pub(crate) fn read_counters(row: &Row<'_>, first: usize) -> Result<TrackCounters, rusqlite::Error> {
    let column = |name: &str| -> Result<u64, rusqlite::Error> {
        let place = COUNTERS.iter().position(|column| *column == name).unwrap_or(COUNTERS.len());
        row.get::<_, i64>(first + place).map(|value| u64::try_from(value).unwrap_or(0))
    };
    let layers: Option<String> = row.get(first + COUNTERS.len())?;
    Ok(TrackCounters {
        packets: column("packets")?,
        bytes: column("bytes")?,
        header_bytes: column("header_bytes")?,
        retransmitted: column("retransmitted")?,
        retransmitted_bytes: column("retransmitted_bytes")?,
        padding: column("padding")?,
        padding_bytes: column("padding_bytes")?,
        lost: column("lost")?,
        out_of_order: column("out_of_order")?,
        duplicates: column("duplicates")?,
        dropped: column("dropped")?,
        nacks: column("nacks")?,
        plis: column("plis")?,
        firs: column("firs")?,
        frames: column("frames")?,
        key_frames: column("key_frames")?,
        jitter_us: column("jitter_us")?,
        rtt_us: column("rtt_us")?,
        layers: layers.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
    })
}
