//! Counters as columns, the same in `tracks` (the latest) and in `counters` (the series): [`TrackCounters::NUMBERS`],
//! then `layers` as JSON, null when there are none.

use super::int;
use fanlight_events::TrackCounters;
use rusqlite::Row;

/// The values of the integer columns.
pub(super) fn values(counters: &TrackCounters) -> impl Iterator<Item = i64> {
    counters.numbers().map(int)
}

/// The layers as JSON.
pub(super) fn layers(counters: &TrackCounters) -> Option<String> {
    if counters.layers.is_empty() { None } else { serde_json::to_string(&counters.layers).ok() }
}

/// Reads counters whose first column is `first`, `layers` after the last.
pub(crate) fn read_counters(row: &Row<'_>, first: usize) -> Result<TrackCounters, rusqlite::Error> {
    let end = first + TrackCounters::NUMBERS.len();
    let numbers: Vec<u64> = (first..end)
        .map(|column| row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0)))
        .collect::<Result<_, _>>()?;
    let layers: Option<String> = row.get(end)?;
    Ok(TrackCounters {
        layers: layers.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
        ..TrackCounters::from_numbers(numbers)
    })
}
