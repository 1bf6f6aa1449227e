//! What SQLite and PostgreSQL have in common: the columns of connections, the conditions on them, and what rows say.

use fanlight_telemetry::collector::Source;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};

/// The columns that [`connection`] reads; both databases have them by these names.
pub(super) const COLUMNS: &str = "number, source, connection_id, session_id, channel_id, client_id, role, multistream, simulcast,
    spotlight, room_sid, participant_sid, label, version, node_name, first_ns, last_ns, reports, stored, unchanged, rejected";

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parameter {
    Text(String),
    Number(i64),
}

/// The condition that says which connections are asked for, and its parameters; `mark` stands before their numbers.
pub(super) fn condition(query: &ClientQuery, mark: char) -> (String, Vec<Parameter>) {
    let mut condition = "TRUE".to_owned();
    let mut parameters = Vec::new();
    let mut wish = |term: &str, value: Option<Parameter>| {
        if let Some(value) = value {
            parameters.push(value);
            condition.push_str(&format!(" AND {term} {mark}{}", parameters.len()));
        }
    };
    let text = |value: &Option<String>| value.clone().map(Parameter::Text);
    let number =
        |value: Option<u64>| value.map(|value| Parameter::Number(i64::try_from(value).unwrap_or(i64::MAX)));
    wish("number =", number(query.number));
    wish("connection_id =", text(&query.connection_id));
    wish("channel_id =", text(&query.channel_id));
    wish("client_id =", text(&query.client_id));
    // The indexes of sids are of those that are there, and the database has to be told.
    wish("room_sid <> '' AND room_sid =", text(&query.room_sid));
    wish("participant_sid <> '' AND participant_sid =", text(&query.participant_sid));
    wish("source =", text(&query.source));
    wish("last_ns >=", number(query.from_ns));
    wish("first_ns <", number(query.to_ns));
    if query.proven {
        let sources = Source::PROVEN.map(|source| format!("'{source}'")).join(", ");
        condition.push_str(&format!(" AND source IN ({sources})"));
    }
    (condition, parameters)
}

/// A row, by the places of its columns.
pub(super) trait Cells {
    type Error;
    fn text(&self, place: usize) -> Result<String, Self::Error>;
    fn text_if_any(&self, place: usize) -> Result<Option<String>, Self::Error>;
    fn flag_if_any(&self, place: usize) -> Result<Option<bool>, Self::Error>;
    fn integer(&self, place: usize) -> Result<i64, Self::Error>;
    fn real(&self, place: usize) -> Result<f64, Self::Error>;

    /// Of what is never below zero.
    fn number(&self, place: usize) -> Result<u64, Self::Error> {
        Ok(u64::try_from(self.integer(place)?).unwrap_or(0))
    }
}

/// A row of [`COLUMNS`].
pub(super) fn connection<C: Cells>(row: &C) -> Result<ClientConnection, C::Error> {
    Ok(ClientConnection {
        number: row.number(0)?,
        source: row.text(1)?,
        connection_id: row.text(2)?,
        session_id: row.text(3)?,
        channel_id: row.text(4)?,
        client_id: row.text(5)?,
        role: row.text_if_any(6)?,
        multistream: row.flag_if_any(7)?,
        simulcast: row.flag_if_any(8)?,
        spotlight: row.flag_if_any(9)?,
        room_sid: row.text(10)?,
        participant_sid: row.text(11)?,
        label: row.text(12)?,
        version: row.text(13)?,
        node_name: row.text(14)?,
        first_ns: row.number(15)?,
        last_ns: row.number(16)?,
        reports: row.number(17)?,
        stored: row.number(18)?,
        unchanged: row.number(19)?,
        rejected: row.number(20)?,
    })
}

/// Type, id, the report's time, the object's own, the object.
pub(super) fn object<C: Cells>(row: &C) -> Result<StoredObject, C::Error> {
    Ok(StoredObject {
        kind: row.text(0)?,
        id: row.text(1)?,
        at_ns: row.number(2)?,
        stats_ms: row.real(3)?,
        json: row.text(4)?,
    })
}

/// Time, arrival, objects that were stored, unchanged and rejected, what else it said.
pub(super) fn report<C: Cells>(row: &C) -> Result<StoredReport, C::Error> {
    Ok(StoredReport {
        at_ns: row.number(0)?,
        received_ms: row.number(1)?,
        stored: row.number(2)?,
        unchanged: row.number(3)?,
        rejected: row.number(4)?,
        extra: row.text(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_a_condition() {
        assert_eq!(condition(&ClientQuery::default(), '?'), ("TRUE".to_owned(), Vec::new()));
        let query = ClientQuery {
            client_id: Some("anna".to_owned()),
            participant_sid: Some("PA_1".to_owned()),
            to_ns: Some(u64::MAX),
            ..ClientQuery::default()
        };
        let (text, parameters) = condition(&query, '$');
        assert_eq!(
            text,
            "TRUE AND client_id = $1 AND participant_sid <> '' AND participant_sid = $2 AND first_ns < $3"
        );
        let texts = ["anna", "PA_1"].map(|text| Parameter::Text(text.to_owned()));
        assert_eq!(parameters, [&texts[..], &[Parameter::Number(i64::MAX)]].concat());
    }
}
