//! How much the pipeline holds. Past each of these something is refused, counted and said.

use std::time::Duration;

/// The maxima of a pipeline; tests make them small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open and lately ended rooms.
    pub rooms_max: usize,
    /// Open and lately ended participants.
    pub participants_max: usize,
    /// Open and lately ended track sessions, publications and subscriptions together.
    pub tracks_max: usize,
    /// Timeline rows that wait for the disk.
    pub timeline_max: usize,
    /// Counters rows that wait for the disk.
    pub counters_max: usize,
    /// Rows in one batch, which is one transaction.
    pub batch_rows_max: usize,
}

impl Limits {
    /// What a node is built for.
    pub const NODE: Self = Self {
        // Ten times the rooms one machine of the reference size held busy.
        rooms_max: 16_384,
        // About 1 kB each: 32 MB at worst.
        participants_max: 32_768,
        // 300 participants who see 50 tracks each make 15,000; about 0.7 kB each.
        tracks_max: 131_072,
        // About 0.4 kB each: minutes of a busy node's facts while a disk is away.
        timeline_max: 32_768,
        // One turn of samples of 15,000 subscriptions and some; cumulative, so the next turn makes good.
        counters_max: 32_768,
        // 10 to 40 ms of SQLite: long enough to be cheap per row, short enough to lose little.
        batch_rows_max: 4_096,
    };
}

/// Facts wait at most this long for company: half of the 200 ms that a killed process may lose.
pub(crate) const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// So many rows are a batch worth writing before its time.
pub(crate) const FLUSH_ROWS: usize = 1_024;
/// How precisely *last seen* is known after a crash.
pub(crate) const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// First pause after a failed write, doubled up to [`RETRY_MAX`].
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(100);
/// A disk that is back is noticed this soon.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(5);
/// Ended sessions stay this long, so that a last sample still finds its session: two sampling periods.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// Refusals of one queue are told at most this often.
pub(crate) const REFUSALS_EVERY: Duration = Duration::from_secs(1);
/// Old rooms are looked for this often.
pub(crate) const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Pause between two portions of old rows, so that fresh ones get the disk in between.
pub(crate) const PRUNE_PAUSE: Duration = Duration::from_millis(250);
/// Layers kept per track: three encodings with three spatial layers each are nine.
pub(crate) const LAYERS_MAX: usize = 16;
/// A shorter window says little about a bitrate.
pub(crate) const PEAK_WINDOW_MS_MIN: u64 = 1_000;
