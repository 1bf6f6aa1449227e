//! After a crash: what was left open ends when the server was last seen.

use super::{immediate, int};
use crate::store::Settings;
use fanlight_base::Now;
use fanlight_telemetry::Resume;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Ends open sessions with reason `crash`, says so in the timeline, begins a new boot, and tells the first free numbers.
pub(super) fn recover(
    connection: &mut Connection,
    settings: &Settings,
    now: Now,
) -> Result<Resume, rusqlite::Error> {
    let transaction = immediate(connection)?;
    let seen_ms: Option<i64> =
        transaction.query_row("SELECT seen_ms FROM heartbeat", [], |row| row.get(0)).optional()?;
    if let Some(seen_ms) = seen_ms {
        let rooms = end_open(&transaction, seen_ms)?;
        if rooms > 0 {
            tracing::warn!(
                rooms,
                seen_ms,
                "the last run did not end its rooms: they are closed as of last seen"
            );
        }
    }
    let now_ms = int(now.unix_ms());
    transaction.execute(
        "INSERT OR REPLACE INTO heartbeat (one, node, boot_ms, seen_ms) VALUES (1, ?1, ?2, ?2)",
        params![settings.node.as_str(), now_ms],
    )?;
    let next = |sql: &str| -> Result<u64, rusqlite::Error> {
        transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|id| u64::try_from(id).unwrap_or(1))
    };
    let resume = Resume {
        next_track: next("SELECT coalesce(max(id), 0) + 1 FROM tracks")?,
        next_timeline: next("SELECT coalesce(max(id), 0) + 1 FROM timeline")?,
        next_turn: next(
            "SELECT 1 + max((SELECT coalesce(max(number), 0) FROM turn_sessions),
                            (SELECT coalesce(max(number), 0) FROM turn_allocations))",
        )?,
    };
    transaction.commit()?;
    Ok(resume)
}

/// Nothing ends before it began, even if the clock was set back in between. Tracks, participants, rooms: the order in
/// which an orderly end would have told it.
fn end_open(transaction: &Transaction<'_>, seen_ms: i64) -> Result<usize, rusqlite::Error> {
    transaction.execute(
        "INSERT INTO timeline (t_ms, room_sid, participant_sid, track_sid, event, fields)
         SELECT max(started_ms, ?1), room_sid, participant_sid, sid,
                iif(direction = 'publish', 'track_unpublished', 'track_unsubscribed'), '{\"reason\":\"crash\"}'
         FROM tracks WHERE ended_ms IS NULL ORDER BY id",
        [seen_ms],
    )?;
    transaction.execute(
        "UPDATE tracks SET ended_ms = max(started_ms, ?1), reason = 'crash' WHERE ended_ms IS NULL",
        [seen_ms],
    )?;
    transaction.execute(
        "INSERT INTO timeline (t_ms, room_sid, participant_sid, track_sid, event, fields)
         SELECT max(joined_ms, ?1), room_sid, sid, '', 'participant_left',
                iif(active_ms IS NULL, '{\"reason\":\"crash\",\"was_active\":false}',
                    '{\"reason\":\"crash\",\"was_active\":true}')
         FROM participants WHERE left_ms IS NULL ORDER BY joined_ms, sid",
        [seen_ms],
    )?;
    transaction.execute(
        "UPDATE participants SET left_ms = max(joined_ms, ?1), reason = 'crash' WHERE left_ms IS NULL",
        [seen_ms],
    )?;
    transaction.execute(
        "INSERT INTO timeline (t_ms, room_sid, participant_sid, track_sid, event, fields)
         SELECT max(started_ms, ?1), sid, '', '', 'room_ended', '{\"reason\":\"crash\"}'
         FROM rooms WHERE ended_ms IS NULL ORDER BY started_ms, sid",
        [seen_ms],
    )?;
    transaction.execute(
        "UPDATE rooms SET ended_ms = max(started_ms, ?1), reason = 'crash' WHERE ended_ms IS NULL",
        [seen_ms],
    )
}
