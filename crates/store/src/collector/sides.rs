//! What clients of our rooms counted of their tracks, read beside the record of calls.

use super::CLIENTS_FILE;
use super::read::{connections, stored_object};
use super::sqlite::VERSION;
use crate::read::{ReportError, read, read_file, report};
use crate::sqlite::int;
use fanlight_telemetry::Report;
use fanlight_telemetry::collector::Source;
use fanlight_telemetry::collector::limits::CONNECTION_OBJECTS_MAX;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery};
use fanlight_telemetry::collector::sides::{
    ClientSides, KINDS, Objects, TrackNames, belongs, put_beside as put,
};
use fanlight_telemetry::decode::browser::clock_ms;
use fanlight_telemetry::report::{ParticipantReport, TimelineReport, TrackReport};
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;

/// Connections of one person in one room that are looked at, the newest first.
const CONNECTIONS_MAX: u64 = 200;
/// Clocks that are further off than this, 25 h, are not corrected.
const CLOCK_NS_MAX: u64 = 90_000_000_000_000;
/// A track's last report may come so long after its end: the longest usual interval of reports, and a little.
const LATE_MS: u64 = 65_000;

/// Puts what clients counted beside the tracks of a report. Without a database of clients there is nothing to put.
pub(crate) fn put_beside(dir: &Path, report: &mut Report) -> Result<(), ReportError> {
    if !dir.join(CLIENTS_FILE).is_file() {
        return Ok(());
    }
    read_file(dir, CLIENTS_FILE, VERSION, |database| {
        for room in &mut report.rooms {
            let (name, timeline) = (room.name.clone(), &room.timeline);
            for participant in &mut room.participants {
                for connection in connections_of(database, name.as_str(), participant)? {
                    count(database, &connection, participant, timeline)?;
                }
            }
        }
        Ok(())
    })
}

/// The participant that a connection is of, with the tracks that both have; `None` when it is of none of ours.
pub fn client_sides(dir: &Path, connection: &ClientConnection) -> Result<Option<ClientSides>, ReportError> {
    if connection.source != Source::Browser.family() {
        return Ok(None);
    }
    let clock_ms = read_file(dir, CLIENTS_FILE, VERSION, |database| clock_of(database, connection.number))?;
    let ours_ms = |ns: u64| (ns / 1_000_000).saturating_add_signed(clock_ms);
    let (first_ms, last_ms) = (ours_ms(connection.first_ns), ours_ms(connection.last_ns));
    let rooms: Vec<String> = read(dir, |record| {
        let mut statement = record.prepare(
            "SELECT sid FROM rooms WHERE name = ?1 AND started_ms <= ?3 AND coalesce(ended_ms, ?4) >= ?4
             AND EXISTS (SELECT 1 FROM participants WHERE room_sid = rooms.sid AND identity = ?2)
             ORDER BY started_ms DESC LIMIT ?5",
        )?;
        let (from, to) = (first_ms.saturating_sub(LATE_MS), last_ms.saturating_add(LATE_MS));
        let (room, identity) = (&connection.channel_id, &connection.client_id);
        let wanted = (room, identity, int(to), int(from), int(CONNECTIONS_MAX));
        statement.query_map(wanted, |row| row.get(0))?.collect()
    })?;
    for room in rooms {
        let found = report(dir, &room)?.rooms.into_iter().flat_map(|room| room.participants);
        let mut own = found.filter(|participant| participant.identity.as_str() == connection.client_id);
        if let Some(mut participant) = own.find(|one| belongs(connection, clock_ms, one)) {
            let tracks = std::mem::take(&mut participant.tracks).into_iter();
            let its = |track: &TrackReport| {
                track.client.as_ref().is_some_and(|client| client.connection == connection.number)
            };
            return Ok(Some(ClientSides { participant, tracks: tracks.filter(its).collect() }));
        }
    }
    Ok(None)
}

/// Those of a participant's session, by what its tokens prove.
fn connections_of(
    database: &Connection,
    room: &str,
    participant: &ParticipantReport,
) -> Result<Vec<ClientConnection>, rusqlite::Error> {
    let ns = |ms: u64| ms.saturating_mul(1_000_000);
    let query = ClientQuery {
        channel_id: Some(room.to_owned()),
        client_id: Some(participant.identity.as_str().to_owned()),
        source: Some(Source::Browser.family().to_owned()),
        from_ns: Some(ns(participant.joined_ms).saturating_sub(CLOCK_NS_MAX)),
        to_ns: participant.left_ms.map(|ms| ns(ms).saturating_add(CLOCK_NS_MAX)),
        limit: CONNECTIONS_MAX,
        ..ClientQuery::default()
    };
    let mut own = Vec::new();
    for connection in connections(database, &query)?.rows {
        if belongs(&connection, clock_of(database, connection.number)?, participant) {
            own.push(connection);
        }
    }
    Ok(own)
}

fn count(
    database: &Connection,
    connection: &ClientConnection,
    participant: &mut ParticipantReport,
    timeline: &[TimelineReport],
) -> Result<(), rusqlite::Error> {
    let last = objects_before(database, connection.number, u64::MAX)?;
    let clock_ms = clock_of(database, connection.number)?;
    // The client's time of a time of ours, in nanoseconds.
    let client_ns = |ms: u64| ms.saturating_add_signed(clock_ms.saturating_neg()).saturating_mul(1_000_000);
    let counted: Vec<_> = {
        let of = |track| TrackNames::new(participant, track, timeline);
        let names: Vec<_> = participant.tracks.iter().map(of).collect();
        let mut all = Vec::with_capacity(names.len());
        for (place, (own, track)) in names.iter().zip(&participant.tracks).enumerate() {
            let sharing = names.iter().zip(&participant.tracks).enumerate();
            let shared = |other: usize, names: &TrackNames<'_>| other != place && own.shares(names);
            all.push(if sharing.clone().any(|(other, (names, _))| shared(other, names)) {
                // One m-line carried both, one after the other: each has what was counted in its time.
                let end_ms = track.ended_ms.map_or(u64::MAX, |ms| ms.saturating_add(LATE_MS));
                let next = sharing.filter(|(other, (names, later))| {
                    shared(*other, names) && later.started_ms > track.started_ms
                });
                let next_ms = next.map(|(_, (_, later))| later.started_ms).min().unwrap_or(u64::MAX);
                let until = objects_before(database, connection.number, client_ns(end_ms.min(next_ms)))?;
                let before = objects_before(database, connection.number, client_ns(track.started_ms))?;
                until.track(own, &before)
            } else {
                last.track(own, &Objects::default())
            });
        }
        all
    };
    for (track, counted) in participant.tracks.iter_mut().zip(counted) {
        if let Some(counted) = counted {
            put(track, connection.number, counted);
        }
    }
    Ok(())
}

/// The newest objects that count tracks, as of a time of the client's.
fn objects_before(
    database: &Connection,
    connection: u64,
    before_ns: u64,
) -> Result<Objects, rusqlite::Error> {
    let kinds = KINDS.map(|kind| format!("'{kind}'")).join(", ");
    let mut statement = database.prepare_cached(&format!(
        "SELECT type, id, at_ns, stats_ms, data FROM stats WHERE number IN
         (SELECT (SELECT number FROM stats INDEXED BY stats_series
                  WHERE connection = ?1 AND type = series.type AND id = series.id AND at_ns < ?2
                  ORDER BY at_ns DESC, number DESC LIMIT 1)
          FROM (SELECT DISTINCT type, id FROM stats INDEXED BY stats_series
                WHERE connection = ?1 AND type IN ({kinds}) LIMIT ?3) AS series)"
    ))?;
    let most = i64::try_from(CONNECTION_OBJECTS_MAX).unwrap_or(i64::MAX);
    let rows = statement.query_map((int(connection), int(before_ns), most), stored_object)?;
    Ok(Objects::new(&rows.collect::<Result<Vec<_>, _>>()?))
}

/// How much our clock was ahead of the client's, by its last report; 0 when it did not say.
fn clock_of(database: &Connection, connection: u64) -> Result<i64, rusqlite::Error> {
    let mut statement = database
        .prepare_cached("SELECT extra FROM reports WHERE connection = ?1 ORDER BY at_ns DESC LIMIT 1")?;
    let extra: Option<String> = statement.query_row([int(connection)], |row| row.get(0)).optional()?;
    Ok(extra.and_then(|extra| clock_ms(&extra)).unwrap_or(0))
}
