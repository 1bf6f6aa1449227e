//! TURN allocations and sessions as rows. Columns are named once for writing and read by their names.

use super::int;
use fanlight_events::turn::{AllocationName, LegCounters, Path};
use fanlight_telemetry::turn_account::{
    AllocationRecord, Class, End, EndReason, Participant, Quality, SessionRecord, Who, is_participant_sid,
};
use rusqlite::types::{FromSql, Value};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params_from_iter};

type Columns = Vec<(&'static str, Value)>;

/// Writes a session over the one with the same number.
pub(super) fn write_session(
    transaction: &Transaction<'_>,
    row: &SessionRecord,
) -> Result<usize, rusqlite::Error> {
    let participant = participant(transaction, row.participant.as_deref(), &row.who)?;
    replace(transaction, "turn_sessions", session_columns(row, participant.as_ref()))
}

/// Writes an allocation over the one with the same number.
pub(super) fn write_allocation(
    transaction: &Transaction<'_>,
    row: &AllocationRecord,
) -> Result<usize, rusqlite::Error> {
    let participant = participant(transaction, row.participant.as_deref(), &row.who)?;
    replace(transaction, "turn_allocations", allocation_columns(row, participant.as_ref()))
}

/// The participant of a row. One that left so long ago that only the record knows it is looked up there.
fn participant(
    transaction: &Transaction<'_>,
    known: Option<&Participant>,
    who: &Who,
) -> Result<Option<Participant>, rusqlite::Error> {
    if known.is_some() || !is_participant_sid(&who.person) {
        return Ok(known.cloned());
    }
    let mut statement = transaction.prepare_cached(
        "SELECT p.identity, p.room_sid, coalesce(r.name, '') FROM participants p
         LEFT JOIN rooms r ON r.sid = p.room_sid WHERE p.sid = ?1",
    )?;
    let found = statement.query_row([who.person.as_str()], |row| {
        Ok(Participant {
            sid: who.person.as_str().into(),
            identity: row.get::<_, String>(0)?.into(),
            room_sid: row.get::<_, String>(1)?.into(),
            room: row.get::<_, String>(2)?.into(),
        })
    });
    found.optional()
}

/// Sessions for which `condition` holds, with its parameters; an order and a limit may stand behind it.
pub(crate) fn sessions(
    connection: &Connection,
    condition: &str,
    parameters: &[Value],
) -> Result<Vec<SessionRecord>, rusqlite::Error> {
    let mut sessions = Vec::new();
    each_session(connection, condition, parameters, |session| sessions.push(session))?;
    Ok(sessions)
}

/// The same, one after the other.
pub(crate) fn each_session(
    connection: &Connection,
    condition: &str,
    parameters: &[Value],
    mut take: impl FnMut(SessionRecord),
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(&format!("SELECT * FROM turn_sessions WHERE {condition}"))?;
    for session in statement.query_map(params_from_iter(parameters), read_session)? {
        take(session?);
    }
    Ok(())
}

/// Allocations for which `condition` holds, with its parameters; an order and a limit may stand behind it.
pub(crate) fn allocations(
    connection: &Connection,
    condition: &str,
    parameters: &[Value],
) -> Result<Vec<AllocationRecord>, rusqlite::Error> {
    let mut statement = connection.prepare(&format!("SELECT * FROM turn_allocations WHERE {condition}"))?;
    statement.query_map(params_from_iter(parameters), read_allocation)?.collect()
}

/// How many rows of a table fulfil `condition`, with its parameters.
pub(crate) fn count(
    connection: &Connection,
    table: &str,
    condition: &str,
    parameters: &[Value],
) -> Result<u64, rusqlite::Error> {
    let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
    let count: i64 = connection.query_row(&sql, params_from_iter(parameters), |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The first of these allocations that is on record already, whatever its number.
pub(super) fn known<'a>(
    connection: &Connection,
    allocations: &'a [AllocationRecord],
) -> Result<Option<&'a AllocationRecord>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT 1 FROM turn_allocations WHERE started_ms = ?1 AND id = ?2 AND user = ?3 AND realm = ?4",
    )?;
    for row in allocations {
        let id = row.name.id.to_string();
        if statement.exists((int(row.started_ms), id, row.name.user.as_str(), row.name.realm.as_str()))? {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// What a server that ends leaves open for the next one.
pub(super) fn open_rows(
    connection: &Connection,
) -> Result<(Vec<SessionRecord>, Vec<AllocationRecord>), rusqlite::Error> {
    Ok((
        sessions(connection, "ended_low_ms IS NULL ORDER BY number", &[])?,
        allocations(connection, "ended_low_ms IS NULL ORDER BY number", &[])?,
    ))
}

fn replace(transaction: &Transaction<'_>, table: &str, columns: Columns) -> Result<usize, rusqlite::Error> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let places = vec!["?"; names.len()].join(", ");
    let sql = format!("INSERT OR REPLACE INTO {table} ({}) VALUES ({places})", names.join(", "));
    let values = columns.into_iter().map(|(_, value)| value);
    transaction.prepare_cached(&sql)?.execute(params_from_iter(values))
}

fn session_columns(row: &SessionRecord, participant: Option<&Participant>) -> Columns {
    let mut columns = vec![
        ("number", number(row.number)),
        ("realm", text(&row.realm)),
        ("person", text(&row.who.person)),
        ("started_ms", number(row.started_ms)),
        ("start_known", flag(row.start_known)),
        ("low_ms", number(row.end.low_ms)),
        ("high_ms", number(row.end.high_ms)),
        ("effective_end_ms", number(row.effective_end_ms)),
        ("allocations", number(row.allocations)),
        ("max_concurrent", number(row.max_concurrent)),
        ("leftovers", number(row.leftovers)),
        ("quality", text(row.quality.as_str())),
        ("peak_bps", number(row.peak_bps)),
        ("class", text(row.class.as_str())),
    ];
    columns.extend(room_columns(&row.who, participant));
    columns.extend(end_columns(row.ended));
    columns.extend(leg_columns(&CLIENT, &row.client));
    columns.extend(leg_columns(&PEER, &row.peer));
    columns
}

fn read_session(row: &Row<'_>) -> Result<SessionRecord, rusqlite::Error> {
    Ok(SessionRecord {
        number: unsigned(row, "number")?,
        realm: string(row, "realm")?.into(),
        who: Who { person: string(row, "person")?.into(), room: string(row, "named_room")?.into() },
        participant: read_participant(row)?,
        started_ms: unsigned(row, "started_ms")?,
        start_known: row.get("start_known")?,
        ended: read_end(row)?,
        end: End { low_ms: unsigned(row, "low_ms")?, high_ms: unsigned(row, "high_ms")? },
        effective_end_ms: unsigned(row, "effective_end_ms")?,
        allocations: unsigned(row, "allocations")?,
        max_concurrent: unsigned(row, "max_concurrent")?,
        leftovers: unsigned(row, "leftovers")?,
        client: read_leg(row, &CLIENT)?,
        peer: read_leg(row, &PEER)?,
        quality: word(row, "quality", Quality::parse)?,
        peak_bps: unsigned(row, "peak_bps")?,
        class: word(row, "class", Class::parse)?,
    })
}

fn allocation_columns(row: &AllocationRecord, participant: Option<&Participant>) -> Columns {
    let mut columns = vec![
        ("number", number(row.number)),
        ("session", number(row.session)),
        ("node", text(&row.node)),
        ("realm", text(&row.name.realm)),
        ("user", text(&row.name.user)),
        ("id", Value::Text(row.name.id.to_string())),
        ("person", text(&row.who.person)),
        ("transport", text(&row.path.transport)),
        ("local", text(&row.path.local)),
        ("remote", text(&row.path.remote)),
        ("tls", text(&row.path.tls)),
        ("cipher", text(&row.path.cipher)),
        ("moved_from", Value::Text(serde_json::json!(row.moved_from).to_string())),
        ("started_ms", number(row.started_ms)),
        ("start_known", flag(row.start_known)),
        ("last_status_ms", number(row.last_status_ms)),
        ("lifetime_s", number(row.lifetime_s.into())),
        ("released_ms", optional_number(row.released_ms)),
        ("active_until_ms", number(row.active_until_ms)),
        ("refreshes", number(row.refreshes)),
        ("deltas_match", row.deltas_match.map_or(Value::Null, flag)),
        ("quality", text(row.quality.as_str())),
        ("peak_bps", number(row.peak_bps)),
        ("leftover", flag(row.leftover)),
        ("class", text(row.class.as_str())),
    ];
    columns.extend(room_columns(&row.who, participant));
    columns.extend(end_columns(row.ended));
    columns.extend(leg_columns(&CLIENT, &row.client));
    columns.extend(leg_columns(&PEER, &row.peer));
    columns
}

fn read_allocation(row: &Row<'_>) -> Result<AllocationRecord, rusqlite::Error> {
    Ok(AllocationRecord {
        number: unsigned(row, "number")?,
        session: unsigned(row, "session")?,
        node: string(row, "node")?.into(),
        name: AllocationName {
            realm: string(row, "realm")?.into(),
            user: string(row, "user")?.into(),
            id: word(row, "id", |id| id.parse().ok())?,
        },
        who: Who { person: string(row, "person")?.into(), room: string(row, "named_room")?.into() },
        participant: read_participant(row)?,
        path: Path {
            transport: string(row, "transport")?.into(),
            local: string(row, "local")?.into(),
            remote: string(row, "remote")?.into(),
            tls: string(row, "tls")?.into(),
            cipher: string(row, "cipher")?.into(),
        },
        moved_from: serde_json::from_str(&string(row, "moved_from")?).unwrap_or_default(),
        started_ms: unsigned(row, "started_ms")?,
        start_known: row.get("start_known")?,
        last_status_ms: unsigned(row, "last_status_ms")?,
        lifetime_s: row.get("lifetime_s")?,
        released_ms: optional(row, "released_ms")?,
        ended: read_end(row)?,
        active_until_ms: unsigned(row, "active_until_ms")?,
        refreshes: unsigned(row, "refreshes")?,
        client: read_leg(row, &CLIENT)?,
        peer: read_leg(row, &PEER)?,
        deltas_match: row.get("deltas_match")?,
        quality: word(row, "quality", Quality::parse)?,
        peak_bps: unsigned(row, "peak_bps")?,
        leftover: row.get("leftover")?,
        class: word(row, "class", Class::parse)?,
    })
}

/// Received packets and bytes, sent packets and bytes.
type LegNames = [&'static str; 4];
const CLIENT: LegNames = ["client_rx_packets", "client_rx_bytes", "client_tx_packets", "client_tx_bytes"];
const PEER: LegNames = ["peer_rx_packets", "peer_rx_bytes", "peer_tx_packets", "peer_tx_bytes"];

fn leg_columns(names: &LegNames, leg: &LegCounters) -> Columns {
    let values = [leg.rx_packets, leg.rx_bytes, leg.tx_packets, leg.tx_bytes];
    names.iter().copied().zip(values.map(number)).collect()
}

fn read_leg(
    row: &Row<'_>,
    [rx_packets, rx_bytes, tx_packets, tx_bytes]: &LegNames,
) -> Result<LegCounters, rusqlite::Error> {
    Ok(LegCounters {
        rx_packets: unsigned(row, rx_packets)?,
        rx_bytes: unsigned(row, rx_bytes)?,
        tx_packets: unsigned(row, tx_packets)?,
        tx_bytes: unsigned(row, tx_bytes)?,
    })
}

fn room_columns(who: &Who, participant: Option<&Participant>) -> [(&'static str, Value); 5] {
    let room = participant.map(|one| one.room.as_str()).filter(|room| !room.is_empty());
    [
        ("room", text(room.unwrap_or(&who.room))),
        ("named_room", text(&who.room)),
        ("participant_sid", text(participant.map_or("", |one| one.sid.as_str()))),
        ("identity", text(participant.map_or("", |one| one.identity.as_str()))),
        ("room_sid", text(participant.map_or("", |one| one.room_sid.as_str()))),
    ]
}

fn read_participant(row: &Row<'_>) -> Result<Option<Box<Participant>>, rusqlite::Error> {
    let sid = string(row, "participant_sid")?;
    if sid.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::new(Participant {
        sid: sid.into(),
        identity: string(row, "identity")?.into(),
        room_sid: string(row, "room_sid")?.into(),
        room: string(row, "room")?.into(),
    })))
}

fn end_columns(ended: Option<(End, EndReason)>) -> [(&'static str, Value); 3] {
    [
        ("ended_low_ms", optional_number(ended.map(|(end, _)| end.low_ms))),
        ("ended_high_ms", optional_number(ended.map(|(end, _)| end.high_ms))),
        ("reason", ended.map_or(Value::Null, |(_, reason)| text(reason.as_str()))),
    ]
}

fn read_end(row: &Row<'_>) -> Result<Option<(End, EndReason)>, rusqlite::Error> {
    let bounds = (optional(row, "ended_low_ms")?, optional(row, "ended_high_ms")?);
    let (Some(low_ms), Some(high_ms)) = bounds else { return Ok(None) };
    Ok(Some((End { low_ms, high_ms }, word(row, "reason", EndReason::parse)?)))
}

fn number(value: u64) -> Value {
    Value::Integer(int(value))
}

fn optional_number(value: Option<u64>) -> Value {
    value.map_or(Value::Null, number)
}

fn flag(value: bool) -> Value {
    Value::Integer(value.into())
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn unsigned(row: &Row<'_>, column: &str) -> Result<u64, rusqlite::Error> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}

fn optional(row: &Row<'_>, column: &str) -> Result<Option<u64>, rusqlite::Error> {
    let value: Option<i64> = row.get(column)?;
    Ok(value.map(|value| u64::try_from(value).unwrap_or(0)))
}

fn string(row: &Row<'_>, column: &str) -> Result<String, rusqlite::Error> {
    row.get(column)
}

/// A word that stands for a value. One that is not known was written by nobody here.
fn word<T>(row: &Row<'_>, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, rusqlite::Error> {
    let value = row.get_ref(column)?;
    let text = String::column_result(value)?;
    parse(&text)
        .ok_or_else(|| rusqlite::Error::InvalidColumnType(0, format!("{column} {text:?}"), value.data_type()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema::migrate;

    fn records() -> (SessionRecord, AllocationRecord) {
        let leg = |from: u64| LegCounters {
            rx_packets: from,
            rx_bytes: from + 1,
            tx_packets: from + 2,
            tx_bytes: from + 3,
        };
        let who = Who { person: "PA_alice".into(), room: "42".into() };
        let participant = Some(Box::new(Participant {
            sid: "PA_alice".into(),
            identity: "alice".into(),
            room_sid: "RM_1".into(),
            room: "demo".into(),
        }));
        let ended = Some((End { low_ms: 5_000, high_ms: 6_000 }, EndReason::NodeRestart));
        let session = SessionRecord {
            number: 7,
            realm: "example.org".into(),
            who: who.clone(),
            participant: participant.clone(),
            started_ms: 1_000,
            start_known: true,
            ended,
            end: End { low_ms: 5_000, high_ms: 6_000 },
            effective_end_ms: 4_000,
            allocations: 2,
            max_concurrent: 2,
            leftovers: 1,
            client: leg(10),
            peer: leg(20),
            quality: Quality::LowerBound,
            peak_bps: 99,
            class: Class::Relayed,
        };
        let allocation = AllocationRecord {
            number: 8,
            session: 7,
            node: "n1".into(),
            name: AllocationName { realm: "example.org".into(), user: "17:alice".into(), id: u64::MAX },
            who,
            participant,
            path: Path {
                transport: "TLS/TCP".into(),
                local: "l".into(),
                remote: "r".into(),
                tls: "TLSv1.3".into(),
                cipher: "c".into(),
            },
            moved_from: vec!["a".into(), "b".into()],
            started_ms: 1_000,
            start_known: false,
            last_status_ms: 2_000,
            lifetime_s: 600,
            released_ms: Some(3_000),
            ended,
            active_until_ms: 2_500,
            refreshes: 3,
            client: leg(30),
            peer: leg(40),
            deltas_match: Some(false),
            quality: Quality::Deltas,
            peak_bps: 100,
            leftover: true,
            class: Class::ChecksOnly,
        };
        (session, allocation)
    }

    #[test]
    fn every_field_comes_back_as_it_was_written() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        let (session, allocation) = records();
        let (mut open_session, mut open_allocation) = records();
        (open_session.number, open_session.ended, open_session.participant) = (70, None, None);
        (open_allocation.number, open_allocation.ended, open_allocation.participant) = (80, None, None);
        (open_allocation.released_ms, open_allocation.deltas_match) = (None, None);
        let transaction = connection.transaction().unwrap();
        for row in [&session, &open_session] {
            write_session(&transaction, row).unwrap();
        }
        for row in [&allocation, &open_allocation] {
            write_allocation(&transaction, row).unwrap();
        }
        transaction.commit().unwrap();
        assert_eq!(sessions(&connection, "number = ?1", &[number(7)]).unwrap(), [session]);
        assert_eq!(allocations(&connection, "session = 7 AND number = 8", &[]).unwrap(), [allocation]);
        assert_eq!(open_rows(&connection).unwrap(), (vec![open_session], vec![open_allocation]));
    }
}
