//! What is asked of the record about TURN, and in which form it is answered: the same for the command line, the HTTP API
//! and CSV.

use crate::turn_account::table::utc;
use crate::turn_account::usage::{By, Usage};
use crate::turn_account::{AllocationRecord, End, EndReason, Participant, SessionRecord};
use serde::Serialize;

/// Whose rows, and from when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Begun at this time or later, milliseconds since the Unix epoch.
    pub from_ms: Option<u64>,
    /// Begun before this time.
    pub to_ms: Option<u64>,
    /// Of this participant, by identity, or of this person.
    pub user: Option<String>,
    /// In this room.
    pub room: Option<String>,
    /// In this realm.
    pub realm: Option<String>,
    /// Of this session; allocations only.
    pub session: Option<u64>,
}

/// What rows are ordered by; those that are equal stand in the order of their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Beginning.
    #[default]
    Started,
    /// User.
    User,
    /// Room.
    Room,
    /// Time held.
    Held,
    /// Payload, both directions.
    Bytes,
}

impl Sort {
    /// All, with their names in the API.
    pub const ALL: [(&'static str, Self); 5] = [
        ("started", Self::Started),
        ("user", Self::User),
        ("room", Self::Room),
        ("held", Self::Held),
        ("bytes", Self::Bytes),
    ];
}

/// Which part of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// What they are ordered by.
    pub sort: Sort,
    /// The largest or latest first.
    pub descending: bool,
    /// So many are left out at the beginning.
    pub offset: u64,
    /// At most so many.
    pub limit: u64,
}

impl Slice {
    /// All rows, the oldest first.
    pub const ALL: Self = Self { sort: Sort::Started, descending: false, offset: 0, limit: i64::MAX as u64 };
}

/// A part of the rows that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The part.
    pub rows: Vec<T>,
    /// How many fit.
    pub total: u64,
}

/// A user session for the outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SessionView<'a> {
    /// Number in the record.
    pub session: u64,
    /// Who is billed: the identity of a participant of ours, else the person that the user name stands for.
    pub user: &'a str,
    /// The participant's identity; empty when it is none of ours.
    pub identity: &'a str,
    /// The participant's sid; empty when it is none of ours.
    pub participant: &'a str,
    /// Room; empty when it is not known.
    pub room: &'a str,
    /// The participant's room by its sid; empty when it is none of ours.
    pub room_sid: &'a str,
    /// Realm of the credentials.
    pub realm: &'a str,
    /// First allocation, UTC.
    pub started: String,
    /// The same, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The first opening was heard; else it began earlier.
    pub start_known: bool,
    /// Some allocation is open, or may follow within the merge gap.
    pub open: bool,
    /// Last end, UTC.
    pub ended: Option<String>,
    /// The same, milliseconds since the Unix epoch: not before.
    pub ended_ms: Option<u64>,
    /// Not after.
    pub ended_latest_ms: Option<u64>,
    /// How the last allocation ended.
    pub end_reason: Option<&'static str>,
    /// From the beginning to the last end so far.
    pub held_ms: u64,
    /// From the beginning to the last traffic.
    pub active_ms: u64,
    /// Allocations that have ended; bytes are theirs.
    pub allocations: u64,
    /// The most at one time.
    pub most_at_once: u64,
    /// Of these, left to expire beside a younger one.
    pub leftovers: u64,
    /// From the client, framing and control included.
    pub client_rx_bytes: u64,
    /// To the client.
    pub client_tx_bytes: u64,
    /// Payload from peers.
    pub peer_rx_bytes: u64,
    /// Payload to peers.
    pub peer_tx_bytes: u64,
    /// Payload of the busiest ten seconds, per second.
    pub peak_bps: u64,
    /// `unused`, `checks-only` or `relayed`.
    pub class: &'static str,
    /// `exact`, `deltas` or `lower-bound`.
    pub quality: &'static str,
}

impl<'a> From<&'a SessionRecord> for SessionView<'a> {
    fn from(record: &'a SessionRecord) -> Self {
        let end = EndView::of(record.ended);
        Self {
            session: record.number,
            user: user(record.participant.as_deref(), &record.who.person),
            identity: identity(record.participant.as_deref()),
            participant: record.participant.as_deref().map_or("", |one| one.sid.as_str()),
            room: record.room(),
            room_sid: room_sid(record.participant.as_deref()),
            realm: &record.realm,
            started: utc(record.started_ms),
            started_ms: record.started_ms,
            start_known: record.start_known,
            open: record.ended.is_none(),
            ended: end.ended,
            ended_ms: end.low_ms,
            ended_latest_ms: end.high_ms,
            end_reason: end.reason,
            held_ms: record.held_ms(),
            active_ms: record.active_ms(),
            allocations: record.allocations,
            most_at_once: record.max_concurrent,
            leftovers: record.leftovers,
            client_rx_bytes: record.client.rx_bytes,
            client_tx_bytes: record.client.tx_bytes,
            peer_rx_bytes: record.peer.rx_bytes,
            peer_tx_bytes: record.peer.tx_bytes,
            peak_bps: record.peak_bps,
            class: record.class.as_str(),
            quality: record.quality.as_str(),
        }
    }
}

/// An allocation for the outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AllocationView<'a> {
    /// Number in the record.
    pub allocation: u64,
    /// Number of its session.
    pub session: u64,
    /// Who is billed: the identity of a participant of ours, else the person that the user name stands for.
    pub user: &'a str,
    /// The participant's identity; empty when it is none of ours.
    pub identity: &'a str,
    /// The participant's sid; empty when it is none of ours.
    pub participant: &'a str,
    /// Room; empty when it is not known.
    pub room: &'a str,
    /// The participant's room by its sid; empty when it is none of ours.
    pub room_sid: &'a str,
    /// Realm of the credentials.
    pub realm: &'a str,
    /// User name as authenticated.
    pub username: &'a str,
    /// The TURN server.
    pub node: &'a str,
    /// The server's number for it; a text, since it may be larger than what JavaScript counts with.
    pub id: String,
    /// `UDP`, `TCP`, `TLS/TCP` or `DTLS/UDP`.
    pub transport: &'a str,
    /// The client's address.
    pub remote: &'a str,
    /// The server's address.
    pub local: &'a str,
    /// TLS version.
    pub tls: &'a str,
    /// Opening, or the first that was heard of it, UTC.
    pub started: String,
    /// The same, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The opening was heard.
    pub start_known: bool,
    /// It is open.
    pub open: bool,
    /// End, UTC.
    pub ended: Option<String>,
    /// The same, milliseconds since the Unix epoch: not before.
    pub ended_ms: Option<u64>,
    /// Not after.
    pub ended_latest_ms: Option<u64>,
    /// How it ended.
    pub end_reason: Option<&'static str>,
    /// The last word on its lifetime, milliseconds since the Unix epoch.
    pub last_status_ms: u64,
    /// Lifetime granted then.
    pub lifetime_s: u32,
    /// Refreshes.
    pub refreshes: u64,
    /// From the client, framing and control included.
    pub client_rx_bytes: u64,
    /// To the client.
    pub client_tx_bytes: u64,
    /// Payload from peers.
    pub peer_rx_bytes: u64,
    /// Payload to peers.
    pub peer_tx_bytes: u64,
    /// Highest rate of payload.
    pub peak_bps: u64,
    /// It expired beside a younger one of its session.
    pub leftover: bool,
    /// `unused`, `checks-only` or `relayed`.
    pub class: &'static str,
    /// `exact`, `deltas` or `lower-bound`.
    pub quality: &'static str,
}

impl<'a> From<&'a AllocationRecord> for AllocationView<'a> {
    fn from(record: &'a AllocationRecord) -> Self {
        let end = EndView::of(record.ended);
        Self {
            allocation: record.number,
            session: record.session,
            user: user(record.participant.as_deref(), &record.who.person),
            identity: identity(record.participant.as_deref()),
            participant: record.participant.as_deref().map_or("", |one| one.sid.as_str()),
            room: record.room(),
            room_sid: room_sid(record.participant.as_deref()),
            realm: &record.name.realm,
            username: &record.name.user,
            node: &record.node,
            id: format!("{:018}", record.name.id),
            transport: &record.path.transport,
            remote: &record.path.remote,
            local: &record.path.local,
            tls: &record.path.tls,
            started: utc(record.started_ms),
            started_ms: record.started_ms,
            start_known: record.start_known,
            open: record.ended.is_none(),
            ended: end.ended,
            ended_ms: end.low_ms,
            ended_latest_ms: end.high_ms,
            end_reason: end.reason,
            last_status_ms: record.last_status_ms,
            lifetime_s: record.lifetime_s,
            refreshes: record.refreshes,
            client_rx_bytes: record.client.rx_bytes,
            client_tx_bytes: record.client.tx_bytes,
            peer_rx_bytes: record.peer.rx_bytes,
            peer_tx_bytes: record.peer.tx_bytes,
            peak_bps: record.peak_bps,
            leftover: record.leftover,
            class: record.class.as_str(),
            quality: record.quality.as_str(),
        }
    }
}

/// A line of usage for the outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UsageView<'a> {
    /// `user`, `room` or `day`.
    pub by: &'static str,
    /// User, room (empty: not known) or day in UTC.
    pub key: &'a str,
    /// Realm; empty where lines are not by user.
    pub realm: &'a str,
    /// Sessions.
    pub sessions: u64,
    /// Of these, with media relayed.
    pub relayed: u64,
    /// Allocations.
    pub allocations: u64,
    /// Time held.
    pub held_ms: u64,
    /// Time used.
    pub active_ms: u64,
    /// From clients, framing and control included.
    pub client_rx_bytes: u64,
    /// To clients.
    pub client_tx_bytes: u64,
    /// Payload from peers.
    pub peer_rx_bytes: u64,
    /// Payload to peers.
    pub peer_tx_bytes: u64,
    /// Of the worst session.
    pub quality: &'static str,
    /// At the price asked for.
    pub price: f64,
}

impl<'a> UsageView<'a> {
    /// A line of what was added up by `by`.
    pub fn new(by: By, line: &'a Usage) -> Self {
        Self {
            by: by.as_str(),
            key: &line.key,
            realm: &line.realm,
            sessions: line.sessions,
            relayed: line.relayed,
            allocations: line.allocations,
            held_ms: line.held_ms,
            active_ms: line.active_ms,
            client_rx_bytes: line.client.rx_bytes,
            client_tx_bytes: line.client.tx_bytes,
            peer_rx_bytes: line.peer.rx_bytes,
            peer_tx_bytes: line.peer.tx_bytes,
            quality: line.quality,
            price: line.price,
        }
    }
}

/// Rows as CSV with a line of names, which are those of JSON. A cell that a spreadsheet would take for a formula begins with
/// `'` instead (OWASP, CSV injection): identities, rooms and user names are what strangers make them.
pub fn csv<T: Serialize + Default>(rows: &[T]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    if rows.is_empty() {
        writer.serialize(T::default())?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    let text = as_text(&bytes)?;
    // Names of columns come with a first row; without rows they stand alone.
    Ok(if rows.is_empty() { text.lines().take(1).map(|head| format!("{head}\n")).collect() } else { text })
}

/// The same rows, with `'` before what would be a formula. Numbers stay as they are.
fn as_text(bytes: &[u8]) -> Result<String, csv::Error> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut writer = csv::Writer::from_writer(Vec::with_capacity(bytes.len()));
    for record in reader.records() {
        let record = record?;
        for cell in &record {
            if is_formula(cell) {
                writer.write_field(format!("'{cell}"))?;
            } else {
                writer.write_field(cell)?;
            }
        }
        writer.write_record(None::<&[u8]>)?;
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_formula(cell: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match cell.as_bytes() {
        [b'=' | b'+' | b'@' | b'\t' | b'\r', ..] => true,
        [b'-', ..] => !cell.strip_prefix('-').is_some_and(is_number),
        _ => false,
    }
}

fn user<'a>(participant: Option<&'a Participant>, person: &'a str) -> &'a str {
    Some(identity(participant)).filter(|identity| !identity.is_empty()).unwrap_or(person)
}

fn identity(participant: Option<&Participant>) -> &str {
    participant.map_or("", |participant| participant.identity.as_str())
}

fn room_sid(participant: Option<&Participant>) -> &str {
    participant.map_or("", |participant| participant.room_sid.as_str())
}

struct EndView {
    ended: Option<String>,
    low_ms: Option<u64>,
    high_ms: Option<u64>,
    reason: Option<&'static str>,
}

impl EndView {
    fn of(ended: Option<(End, EndReason)>) -> Self {
        let end = ended.map(|(end, _)| end);
        Self {
            ended: end.map(|end| utc(end.low_ms)),
            low_ms: end.map(|end| end.low_ms),
            high_ms: end.map(|end| end.high_ms),
            reason: ended.map(|(_, reason)| reason.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_columns_stand_there_even_without_rows() {
        let head = csv::<UsageView<'_>>(&[]).unwrap();
        assert!(head.starts_with("by,key,realm,sessions,") && head.ends_with("price\n"), "{head}");
        let line = UsageView { key: "a, \"b\"", ..UsageView::default() };
        let text = csv(&[line.clone(), line]).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\"a, \"\"b\"\"\""), "{text}");
        for head in [csv::<SessionView<'_>>(&[]), csv::<AllocationView<'_>>(&[])] {
            assert!(head.unwrap().contains("peer_rx_bytes"));
        }
    }

    #[test]
    fn a_name_that_a_spreadsheet_would_run_is_text() {
        #[derive(Default, Serialize)]
        struct Row<'a> {
            name: &'a str,
            number: f64,
        }
        for (name, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=\"a\",b", "\"'=\"\"a\"\",b\""),
            ("alice", "alice"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(csv(&[Row { name, number: -1.5 }]).unwrap(), format!("name,number\n{cell},-1.5\n"));
        }
    }
}
