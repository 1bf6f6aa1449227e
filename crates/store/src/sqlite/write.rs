//! One batch, one transaction. Every row carries its key, so writing a batch twice changes nothing.

use super::counters::{layers, values};
use super::{immediate, int, turn};
use fanlight_events::TrackCounters;
use fanlight_telemetry::{
    Batch, CountersRow, ParticipantRow, RoomRow, TimelineRow, TrackRow, direction_name, kind_name,
};
use rusqlite::{Connection, ToSql, Transaction, params, params_from_iter};
use std::sync::LazyLock;

const TRACK_COLUMNS: [&str; 19] = [
    "id",
    "sid",
    "room_sid",
    "participant_sid",
    "direction",
    "publisher_sid",
    "kind",
    "source",
    "codec",
    "name",
    "width",
    "height",
    "simulcast",
    "layers_seen",
    "started_ms",
    "ended_ms",
    "reason",
    "counters_ms",
    "peak_bps",
];

static TRACK: LazyLock<String> = LazyLock::new(|| replace("tracks", &TRACK_COLUMNS));
static SERIES: LazyLock<String> = LazyLock::new(|| replace("counters", &["track_id", "number", "t_ms"]));

/// `turn_status` is how TURN fares, a JSON object.
pub(super) fn write(
    connection: &mut Connection,
    batch: &Batch,
    turn_status: Option<&str>,
) -> Result<(), rusqlite::Error> {
    let transaction = immediate(connection)?;
    for row in &batch.rooms {
        room(&transaction, row)?;
    }
    for row in &batch.participants {
        participant(&transaction, row)?;
    }
    for row in &batch.tracks {
        track(&transaction, row)?;
    }
    for row in &batch.timeline {
        timeline(&transaction, row)?;
    }
    for row in &batch.counters {
        series(&transaction, row)?;
    }
    for row in &batch.turn_sessions {
        turn::write_session(&transaction, row)?;
    }
    for row in &batch.turn_allocations {
        turn::write_allocation(&transaction, row)?;
    }
    if let Some(status) = turn_status {
        transaction
            .prepare_cached("INSERT OR REPLACE INTO turn_status (one, t_ms, status) VALUES (1, ?1, ?2)")?
            .execute(params![int(batch.seen_ms), status])?;
    }
    transaction.prepare_cached("UPDATE heartbeat SET seen_ms = ?1")?.execute([int(batch.seen_ms)])?;
    transaction.commit()
}

fn room(transaction: &Transaction<'_>, row: &RoomRow) -> Result<usize, rusqlite::Error> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO rooms (sid, name, started_ms, ended_ms, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            row.sid.as_str(),
            row.name.as_str(),
            int(row.started_ms),
            row.ended_ms.map(int),
            row.reason
        ])
}

fn participant(transaction: &Transaction<'_>, row: &ParticipantRow) -> Result<usize, rusqlite::Error> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO participants
             (sid, room_sid, identity, name, kind, hidden, signal_version, client, joined_ms, active_ms, connect_ms,
              connection_type, srtp_profile, remote, left_ms, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            row.sid.as_str(),
            row.room.as_str(),
            row.identity.as_str(),
            row.name,
            row.kind,
            row.hidden,
            row.signal_version,
            json(&row.client),
            int(row.joined_ms),
            row.active_ms.map(int),
            row.connect_ms.map(int),
            row.connection_type,
            row.srtp_profile,
            row.remote,
            row.left_ms.map(int),
            row.reason,
        ])
}

fn track(transaction: &Transaction<'_>, row: &TrackRow) -> Result<usize, rusqlite::Error> {
    let (id, started_ms, peak_bps) = (int(row.id), int(row.started_ms), int(row.peak_bps));
    let (ended_ms, counters_ms) = (row.ended_ms.map(int), row.counters_ms.map(int));
    let (direction, kind) = (direction_name(row.direction), kind_name(row.kind));
    let (sid, room, participant) = (row.sid.as_str(), row.room.as_str(), row.participant.as_str());
    let (publisher, layers_seen) = (row.publisher.as_str(), json(&row.layers));
    let columns: [&dyn ToSql; TRACK_COLUMNS.len()] = [
        &id,
        &sid,
        &room,
        &participant,
        &direction,
        &publisher,
        &kind,
        &row.source,
        &row.codec,
        &row.name,
        &row.width,
        &row.height,
        &row.simulcast,
        &layers_seen,
        &started_ms,
        &ended_ms,
        &row.reason,
        &counters_ms,
        &peak_bps,
    ];
    execute(transaction, &TRACK, &columns, &row.counters)
}

fn series(transaction: &Transaction<'_>, row: &CountersRow) -> Result<usize, rusqlite::Error> {
    let columns: [&dyn ToSql; 3] = [&int(row.track_id), &int(row.number), &int(row.t_ms)];
    execute(transaction, &SERIES, &columns, &row.counters)
}

fn timeline(transaction: &Transaction<'_>, row: &TimelineRow) -> Result<usize, rusqlite::Error> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO timeline (id, t_ms, room_sid, participant_sid, track_sid, event, fields)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            int(row.id),
            int(row.t_ms),
            row.room.as_str(),
            row.participant.as_str(),
            row.track.as_str(),
            row.event,
            row.fields,
        ])
}

/// `columns`, then the counters, then their layers.
fn replace(table: &str, columns: &[&str]) -> String {
    let names: Vec<&str> = columns.iter().chain(TrackCounters::NUMBERS).chain(&["layers"]).copied().collect();
    let places = vec!["?"; names.len()].join(", ");
    format!("INSERT OR REPLACE INTO {table} ({}) VALUES ({places})", names.join(", "))
}

fn execute(
    transaction: &Transaction<'_>,
    sql: &str,
    columns: &[&dyn ToSql],
    counters: &TrackCounters,
) -> Result<usize, rusqlite::Error> {
    let (numbers, layers): (Vec<i64>, _) = (values(counters).collect(), layers(counters));
    let numbers = numbers.iter().map(|number| number as &dyn ToSql);
    transaction
        .prepare_cached(sql)?
        .execute(params_from_iter(columns.iter().copied().chain(numbers).chain([&layers as &dyn ToSql])))
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
