//! Forgetting old rooms, a portion at a time, so that fresh rows never wait long. SQLite uses the freed pages again; the
//! file does not shrink.

use super::{immediate, int};
use rusqlite::{Connection, OptionalExtension, Transaction};

/// Track sessions per portion: one of five hours has 3,600 rows in `counters`, eight of them are gone in some 50 ms.
const TRACKS: i64 = 8;
/// Other rows per portion.
const ROWS: i64 = 4_096;

/// Deletes a portion of one room that ended before `before_ms`, or of the node's events and of TURN allocations and sessions
/// before then; `true` when there may be more.
pub(super) fn prune(connection: &mut Connection, before_ms: u64) -> Result<bool, rusqlite::Error> {
    let transaction = immediate(connection)?;
    let before_ms = int(before_ms);
    let room: Option<String> = transaction
        .query_row(
            "SELECT sid FROM rooms WHERE ended_ms < ?1 ORDER BY ended_ms LIMIT 1",
            [before_ms],
            |row| row.get(0),
        )
        .optional()?;
    let more = match room {
        Some(sid) => {
            room_portion(&transaction, &sid)?;
            true
        }
        None => {
            let deleted = transaction.execute(
                "DELETE FROM timeline WHERE id IN
                 (SELECT id FROM timeline WHERE room_sid = '' AND t_ms < ?1 LIMIT ?2)",
                [before_ms, ROWS],
            )?;
            let turn = turn_portion(&transaction, before_ms)?;
            deleted + turn > 0
        }
    };
    transaction.commit()?;
    Ok(more)
}

/// What is open stays, and so does a session that ended later, whose row has the sums of its allocations. Rows that old are
/// found by their begin, which is older still.
fn turn_portion(transaction: &Transaction<'_>, before_ms: i64) -> Result<usize, rusqlite::Error> {
    let mut deleted = 0;
    for table in ["turn_allocations", "turn_sessions"] {
        deleted += transaction.execute(
            &format!(
                "DELETE FROM {table} WHERE number IN
                 (SELECT number FROM {table} WHERE started_ms < ?1 AND ended_high_ms < ?1 LIMIT ?2)"
            ),
            [before_ms, ROWS],
        )?;
    }
    Ok(deleted)
}

/// The room's own row goes last: until then the rest is found through it.
fn room_portion(transaction: &Transaction<'_>, sid: &str) -> Result<(), rusqlite::Error> {
    let portion = "SELECT id FROM tracks WHERE room_sid = ?1 ORDER BY id LIMIT ?2";
    transaction.execute(&format!("DELETE FROM counters WHERE track_id IN ({portion})"), (sid, TRACKS))?;
    let mut deleted =
        transaction.execute(&format!("DELETE FROM tracks WHERE id IN ({portion})"), (sid, TRACKS))?;
    for (table, key) in [("timeline", "id"), ("participants", "sid")] {
        if deleted == 0 {
            let sql = format!(
                "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE room_sid = ?1 LIMIT ?2)"
            );
            deleted = transaction.execute(&sql, (sid, ROWS))?;
        }
    }
    if deleted == 0 {
        transaction.execute("DELETE FROM rooms WHERE sid = ?1", [sid])?;
    }
    Ok(())
}
