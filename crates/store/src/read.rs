//! Reading the record, also while a server writes it: a second connection that only reads. In WAL mode neither waits for
//! the other.

use crate::DATABASE_FILE;
use crate::sqlite::{VERSION, read_counters, version};
use fanlight_base::RoomSid;
use fanlight_events::{Direction, Kind, TrackCounters};
use fanlight_telemetry::Report;
use fanlight_telemetry::report::{ParticipantReport, RelayReport, RoomReport, TimelineReport, TrackReport};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A reader waits only while a database is opened or recovered by another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no database.
    #[error("{0}: no such file; name the server's data directory with --data-dir")]
    NoDatabase(PathBuf),
    /// It was written by another version.
    #[error("{path}: schema version {found}, this program reads {known}")]
    Version {
        /// The database.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Version known.
        known: u32,
    },
    /// Nothing of that name is on record.
    #[error("no room with name or sid {room:?} in {path}")]
    NotFound {
        /// What was asked for.
        room: String,
        /// The database.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("{path}: {error}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        error: rusqlite::Error,
    },
    /// The database of clients' reports does not answer, or not as it should.
    #[error("{place}: {detail}")]
    Away {
        /// Where it is; no password.
        place: String,
        /// What is wrong.
        detail: String,
    },
}

/// Everything on record of the rooms with this name, or of the one with this sid, as of one moment. What their clients counted is put
/// beside it by [`ClientsReader::put_beside`](crate::collector::ClientsReader::put_beside).
pub fn report(dir: &Path, room: &str) -> Result<Report, ReportError> {
    let report = read(dir, |connection| read_rooms(connection, room))?;
    if report.rooms.is_empty() {
        return Err(ReportError::NotFound { room: room.to_owned(), path: dir.join(DATABASE_FILE) });
    }
    Ok(report)
}

/// Reads from one moment of the record of a data directory.
pub(crate) fn read<T>(
    dir: &Path,
    read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, ReportError> {
    read_file(dir, DATABASE_FILE, VERSION, read)
}

/// Reads from one moment of a database of a data directory.
pub(crate) fn read_file<T>(
    dir: &Path,
    file: &str,
    known: u32,
    read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, ReportError> {
    let path = dir.join(file);
    if !path.is_file() {
        return Err(ReportError::NoDatabase(path));
    }
    let sqlite = |error| ReportError::Sqlite { path: path.clone(), error };
    let mut connection = connect(&path).map_err(sqlite)?;
    let found = version(&connection).map_err(sqlite)?;
    if found != known {
        return Err(ReportError::Version { path, found, known });
    }
    let snapshot = connection.transaction().map_err(sqlite)?;
    read(&snapshot).map_err(sqlite)
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn read_rooms(connection: &Connection, room: &str) -> Result<Report, rusqlite::Error> {
    let seen_ms =
        connection.query_row("SELECT seen_ms FROM heartbeat", [], |row| unsigned(row, 0)).optional()?;
    let mut statement = connection.prepare(
        "SELECT sid, name, started_ms, ended_ms, reason FROM rooms WHERE name = ?1 OR sid = ?1
         ORDER BY started_ms, sid",
    )?;
    let mut rooms = statement.query_map([room], room_row)?.collect::<Result<Vec<_>, _>>()?;
    for room in &mut rooms {
        room.participants = participants(connection, &room.sid)?;
        room.timeline = timeline(connection, room)?;
    }
    Ok(Report { rooms, seen_ms })
}

fn room_row(row: &Row<'_>) -> Result<RoomReport, rusqlite::Error> {
    Ok(RoomReport {
        sid: row.get::<_, String>(0)?.into(),
        name: row.get::<_, String>(1)?.into(),
        started_ms: unsigned(row, 2)?,
        ended_ms: optional(row, 3)?,
        reason: row.get(4)?,
        participants: Vec::new(),
        timeline: Vec::new(),
    })
}

fn participants(connection: &Connection, room: &RoomSid) -> Result<Vec<ParticipantReport>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT sid, identity, joined_ms, left_ms, reason, client, connect_ms, connection_type
         FROM participants WHERE room_sid = ?1 ORDER BY joined_ms, sid",
    )?;
    let rows = statement.query_map([room.as_str()], |row| {
        Ok(ParticipantReport {
            sid: row.get::<_, String>(0)?.into(),
            identity: row.get::<_, String>(1)?.into(),
            joined_ms: unsigned(row, 2)?,
            left_ms: optional(row, 3)?,
            reason: row.get(4)?,
            client: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
            tracks: Vec::new(),
            relay: None,
            metrics: Vec::new(),
            connect_ms: optional(row, 6)?,
            connection_type: row.get(7)?,
        })
    })?;
    let mut participants = rows.collect::<Result<Vec<_>, _>>()?;
    tracks(connection, room, &mut participants)?;
    relays(connection, room, &mut participants)?;
    Ok(participants)
}

/// Time on a TURN relay. A session's row has the sums of its ended allocations; the open ones are added.
fn relays(
    connection: &Connection,
    room: &RoomSid,
    participants: &mut [ParticipantReport],
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT s.participant_sid, count(*), sum(max(s.low_ms, coalesce(o.until_ms, 0)) - s.started_ms),
                sum(s.peer_tx_bytes + coalesce(o.tx_bytes, 0)), sum(s.peer_rx_bytes + coalesce(o.rx_bytes, 0))
         FROM turn_sessions s LEFT JOIN
              (SELECT session, max(max(last_status_ms, active_until_ms)) AS until_ms,
                      sum(peer_tx_bytes) AS tx_bytes, sum(peer_rx_bytes) AS rx_bytes
               FROM turn_allocations WHERE ended_low_ms IS NULL GROUP BY session) o ON o.session = s.number
         WHERE s.room_sid = ?1 AND s.room_sid <> '' GROUP BY s.participant_sid",
    )?;
    let mut rows = statement.query([room.as_str()])?;
    while let Some(row) = rows.next()? {
        let sid: String = row.get(0)?;
        if let Some(participant) = participants.iter_mut().find(|one| one.sid.as_str() == sid) {
            participant.relay = Some(RelayReport {
                sessions: unsigned(row, 1)?,
                held_ms: unsigned(row, 2)?,
                sent_bytes: unsigned(row, 3)?,
                received_bytes: unsigned(row, 4)?,
            });
        }
    }
    Ok(())
}

/// All tracks of a room in one query, handed to their participants.
fn tracks(
    connection: &Connection,
    room: &RoomSid,
    participants: &mut [ParticipantReport],
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(&format!(
        "SELECT participant_sid, sid, direction, kind, source, codec, started_ms, ended_ms, counters_ms, peak_bps,
                publisher_sid, {}, layers
         FROM tracks WHERE room_sid = ?1 ORDER BY started_ms, id",
        TrackCounters::NUMBERS.join(", ")
    ))?;
    let mut places: Vec<usize> = (0..participants.len()).collect();
    places.sort_by(|a, b| participants[*a].sid.cmp(&participants[*b].sid));
    let mut rows = statement.query([room.as_str()])?;
    while let Some(row) = rows.next()? {
        let participant: String = row.get(0)?;
        let place = places.binary_search_by(|place| participants[*place].sid.as_str().cmp(&participant));
        if let Ok(place) = place {
            participants[places[place]].tracks.push(track_row(row)?);
        }
    }
    Ok(())
}

fn track_row(row: &Row<'_>) -> Result<TrackReport, rusqlite::Error> {
    Ok(TrackReport {
        sid: row.get::<_, String>(1)?.into(),
        direction: match row.get_ref(2)?.as_str()? {
            "publish" => Direction::Publish,
            _ => Direction::Subscribe,
        },
        kind: match row.get_ref(3)?.as_str()? {
            "audio" => Some(Kind::Audio),
            "video" => Some(Kind::Video),
            _ => None,
        },
        source: row.get(4)?,
        codec: row.get(5)?,
        started_ms: unsigned(row, 6)?,
        ended_ms: optional(row, 7)?,
        counters_ms: optional(row, 8)?,
        peak_bps: unsigned(row, 9)?,
        publisher: row.get::<_, String>(10)?.into(),
        counters: read_counters(row, 11)?,
        client: None,
    })
}

/// The room's own events, and those of the whole node while it lasted: what was refused may have been this room's. Users of
/// a TURN server who are nobody in this room are not.
fn timeline(connection: &Connection, room: &RoomReport) -> Result<Vec<TimelineReport>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT t_ms, event, participant_sid, track_sid, fields, id FROM timeline WHERE room_sid = ?1
         UNION ALL
         SELECT t_ms, event, participant_sid, track_sid, fields, id FROM timeline
         WHERE room_sid = '' AND t_ms BETWEEN ?2 AND ?3 AND event NOT IN ('turn_session_ended', 'turn_quota_hit')
         ORDER BY t_ms, id",
    )?;
    let from_ms = i64::try_from(room.started_ms).unwrap_or(i64::MAX);
    let until_ms = room.ended_ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MAX);
    let rows = statement.query_map((room.sid.as_str(), from_ms, until_ms), |row| {
        Ok(TimelineReport {
            t_ms: unsigned(row, 0)?,
            event: row.get(1)?,
            participant: row.get::<_, String>(2)?.into(),
            track: row.get::<_, String>(3)?.into(),
            fields: serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default(),
        })
    })?;
    rows.collect()
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}

fn optional(row: &Row<'_>, column: usize) -> Result<Option<u64>, rusqlite::Error> {
    row.get::<_, Option<i64>>(column).map(|value| value.and_then(|ms| u64::try_from(ms).ok()))
}
