//! One transaction: connections, reports, objects, and what the connections count.

use super::schema::LOCK;
use super::{Known, ids, is_of_data, json, storable};
use bytes::{BufMut, BytesMut};
use fanlight_telemetry::collector::{ConnectionEnvelope, Planned, Role, StatsObject};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Row, Transaction};

const CONNECTIONS: &str = "INSERT INTO sora_connection
    (timestamp, label, version, node_name, multistream, simulcast, spotlight, role,
     connection_id, session_id, channel_id, client_id)
    SELECT new.timestamp, label, version, node_name, multistream, simulcast, spotlight, role::sora_connection_role,
           connection_id, session_id, channel_id, client_id
    FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::bool[], $7::bool[], $8::text[],
                $9::text[], $10::text[], $11::text[], $12::text[])
    AS new (timestamp, label, version, node_name, multistream, simulcast, spotlight, role,
            connection_id, session_id, channel_id, client_id)
    WHERE NOT EXISTS (SELECT 1 FROM sora_connection AS old
      WHERE old.connection_id = new.connection_id AND old.session_id = new.session_id
      AND old.channel_id = new.channel_id AND old.client_id = new.client_id)";
/// In the order of their arrival, which is that of their numbers.
const OWN_CONNECTIONS: &str = "INSERT INTO fanlight_connection
    (source, connection_id, session_id, channel_id, client_id, role, multistream, simulcast, spotlight, room_sid,
     participant_sid, label, version, node_name, first_ns, last_ns)
    SELECT source, connection_id, session_id, channel_id, client_id, role, multistream, simulcast, spotlight, room_sid,
           participant_sid, label, version, node_name, at_ns, at_ns
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bool[], $8::bool[], $9::bool[],
                $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[]) WITH ORDINALITY
    AS new (source, connection_id, session_id, channel_id, client_id, role, multistream, simulcast, spotlight, room_sid,
            participant_sid, label, version, node_name, at_ns, place)
    WHERE NOT EXISTS (SELECT 1 FROM fanlight_connection AS old
      WHERE old.connection_id = new.connection_id AND old.source = new.source AND old.session_id = new.session_id
      AND old.channel_id = new.channel_id AND old.client_id = new.client_id)
    ORDER BY place";
const NUMBERS: &str = "SELECT place, number
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
    AS new (source, connection_id, session_id, channel_id, client_id, place)
    JOIN fanlight_connection USING (connection_id, source, session_id, channel_id, client_id)";
const REPORTS: &str = "INSERT INTO fanlight_report
    (connection_id, session_id, channel_id, client_id, at_ns, stored, unchanged, rejected, extra)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::integer[], $7::integer[],
                         $8::integer[], $9::text[])
    ON CONFLICT DO NOTHING RETURNING connection_id, session_id, channel_id, client_id, at_ns";
/// In one order, so that two servers do not wait for each other.
const HOLD: &str = "SELECT FROM fanlight_connection WHERE number = ANY ($1) ORDER BY number FOR UPDATE";
const COUNT: &str = "UPDATE fanlight_connection AS old
    SET first_ns = least(old.first_ns, new.first_ns), last_ns = greatest(old.last_ns, new.last_ns),
        received_at = CURRENT_TIMESTAMP, reports = old.reports + new.reports, stored = old.stored + new.stored,
        unchanged = old.unchanged + new.unchanged, rejected = old.rejected + new.rejected,
        label = new.label, version = new.version, node_name = new.node_name
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::text[], $9::text[], $10::text[])
    AS new (number, first_ns, last_ns, reports, stored, unchanged, rejected, label, version, node_name)
    WHERE old.number = new.number";
const OBJECTS: &str = "COPY sora_user_agent_stats (timestamp, channel_id, connection_id, rtc_stats_timestamp,
    rtc_stats_type, rtc_stats_id, rtc_stats_data) FROM STDIN BINARY";
const OBJECT_TYPES: [Type; 7] =
    [Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT, Type::FLOAT8, Type::TEXT, Type::TEXT, Type::JSONB];
/// The server itself does not take it.
const REFUSED: &str = "refused-by-database";

/// Which reports were new, and why objects of them were left out.
type Written = (Vec<bool>, BTreeMap<&'static str, u64>);

/// Reports as rows.
pub(super) struct Batch<'a> {
    reports: Vec<Report<'a>>,
}

struct Report<'a> {
    planned: &'a Planned,
    /// Connection, session, channel, client, as Kohaku's tables have them.
    ids: [Cow<'a, str>; 4],
    /// The connection's id as it came.
    own_id: Cow<'a, str>,
    at_ns: i64,
    /// What is new, and can be held.
    objects: Vec<&'a StatsObject>,
    /// Why others cannot.
    unfit: BTreeMap<&'static str, u64>,
}

/// What a batch has for one connection.
#[derive(Default)]
struct Sums<'a> {
    first_ns: i64,
    last_ns: i64,
    reports: i64,
    stored: i64,
    unchanged: i64,
    rejected: i64,
    last: Option<&'a Report<'a>>,
}

/// One object with what it shares with others of its report.
#[derive(Clone, Copy)]
struct Object<'a> {
    at: SystemTime,
    channel_id: &'a str,
    connection_id: &'a str,
    object: &'a StatsObject,
}

impl<'a> Batch<'a> {
    pub(super) fn new(reports: &'a [Planned]) -> Self {
        Self { reports: reports.iter().map(Report::new).collect() }
    }

    /// All or nothing.
    pub(super) async fn write(&self, client: &mut Client, known: &mut Known) -> Result<Written, Error> {
        if let Some(written) = self.attempt(client, known, false).await? {
            return Ok(written);
        }
        // Another server has deleted a connection meanwhile: it is made again.
        known.clear();
        Ok(self.attempt(client, known, true).await?.unwrap_or_default())
    }

    /// `None` when nothing was written, because a connection is not there any more; not if it must be so.
    async fn attempt(
        &self,
        client: &mut Client,
        known: &mut Known,
        must: bool,
    ) -> Result<Option<Written>, Error> {
        let transaction = client.transaction().await?;
        let numbers = self.connections(&transaction, known).await?;
        let new = self.enter(&transaction).await?;
        let mut unfit = BTreeMap::new();
        let mut rows = Vec::new();
        for (report, _) in self.reports.iter().zip(&new).filter(|(_, new)| **new) {
            rows.extend(report.objects.iter().map(|object| report.row(object)));
            for (reason, count) in &report.unfit {
                *unfit.entry(*reason).or_default() += count;
            }
        }
        let refused = copy_what_can_be(&transaction, &rows).await?;
        if refused > 0 {
            unfit.insert(REFUSED, refused);
        }
        if !self.count(&transaction, &numbers, &new).await? && !must {
            transaction.rollback().await?;
            return Ok(None);
        }
        transaction.commit().await?;
        for (report, number) in self.reports.iter().zip(numbers) {
            if !known.contains_key(&report.planned.key) {
                known.insert(report.planned.key.clone(), number);
            }
        }
        Ok(Some((new, unfit)))
    }

    /// The numbers of the reports' connections. Those that there are none for are made, as of their first reports.
    async fn connections(&self, transaction: &Transaction<'_>, known: &Known) -> Result<Vec<i64>, Error> {
        let mut places = BTreeMap::new();
        let mut first: Vec<&Report<'_>> = Vec::new();
        for report in self.reports.iter().filter(|report| !known.contains_key(&report.planned.key)) {
            let place = *places.entry(report.identity()).or_insert(first.len());
            match first.get_mut(place) {
                Some(earliest) if report.at_ns < earliest.at_ns => *earliest = report,
                Some(_) => {}
                None => first.push(report),
            }
        }
        let mut made = vec![0; first.len()];
        if !first.is_empty() {
            // Kohaku's table has no key of its own that would keep two servers from writing a connection each.
            transaction.batch_execute(LOCK).await?;
            kohakus_connections(transaction, &first).await?;
            for row in own_connections(transaction, &first).await? {
                let place = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
                if let Some(number) = place.checked_sub(1).and_then(|place| made.get_mut(place)) {
                    *number = row.try_get(1)?;
                }
            }
        }
        let number = |report: &Report<'_>| match known.get(&report.planned.key) {
            Some(number) => *number,
            None => {
                let place = places.get(&report.identity());
                place.and_then(|place| made.get(*place)).copied().unwrap_or_default()
            }
        };
        Ok(self.reports.iter().map(number).collect())
    }

    /// Enters the reports and says which were not there.
    async fn enter(&self, transaction: &Transaction<'_>) -> Result<Vec<bool>, Error> {
        // In one order, so that two servers do not wait for each other.
        let mut sorted: Vec<&Report<'_>> = self.reports.iter().collect();
        sorted.sort_by(|a, b| (&a.ids, a.at_ns).cmp(&(&b.ids, b.at_ns)));
        let at_ns: Vec<i64> = sorted.iter().map(|report| report.at_ns).collect();
        let [connection, session, channel, client] = columns(&sorted);
        let counts = |of: fn(&Report<'_>) -> i64| -> Vec<i32> {
            sorted.iter().map(|report| i32::try_from(of(report)).unwrap_or(i32::MAX)).collect()
        };
        let stored = counts(|report| report.stored());
        let unchanged = counts(|report| report.unchanged());
        let rejected = counts(|report| report.rejected());
        let extra = texts(&sorted, |report| plain(&report.planned.report.extra));
        let rows = transaction
            .query(
                REPORTS,
                &[&connection, &session, &channel, &client, &at_ns, &stored, &unchanged, &rejected, &extra],
            )
            .await?;
        let mut entered = BTreeSet::new();
        for row in &rows {
            let ids: [Cow<'_, str>; 4] = [
                Cow::Borrowed(row.try_get(0)?),
                Cow::Borrowed(row.try_get(1)?),
                Cow::Borrowed(row.try_get(2)?),
                Cow::Borrowed(row.try_get(3)?),
            ];
            entered.insert((ids, row.try_get::<_, i64>(4)?));
        }
        // The first of two that are equal is the new one.
        Ok(self.reports.iter().map(|report| entered.remove(&(report.ids.clone(), report.at_ns))).collect())
    }

    /// Adds what is new to the counts of its connections; whether all of them are there.
    async fn count(
        &self,
        transaction: &Transaction<'_>,
        numbers: &[i64],
        new: &[bool],
    ) -> Result<bool, Error> {
        let mut sums: BTreeMap<i64, Sums<'_>> = BTreeMap::new();
        let reports = self.reports.iter().zip(numbers).zip(new);
        for ((report, number), _) in reports.filter(|(_, new)| **new) {
            sums.entry(*number).or_default().add(report);
        }
        if sums.is_empty() {
            return Ok(true);
        }
        let numbers: Vec<i64> = sums.keys().copied().collect();
        if numbers.len() > 1 {
            transaction.query(HOLD, &[&numbers]).await?;
        }
        let column = |of: fn(&Sums<'_>) -> i64| -> Vec<i64> { sums.values().map(of).collect() };
        let last: Vec<&Report<'_>> = sums.values().filter_map(|sums| sums.last).collect();
        let counted = transaction
            .execute(
                COUNT,
                &[
                    &numbers,
                    &column(|sums| sums.first_ns),
                    &column(|sums| sums.last_ns),
                    &column(|sums| sums.reports),
                    &column(|sums| sums.stored),
                    &column(|sums| sums.unchanged),
                    &column(|sums| sums.rejected),
                    &texts(&last, |report| storable(&report.planned.report.label)),
                    &texts(&last, |report| storable(&report.planned.report.version)),
                    &texts(&last, |report| storable(&report.planned.report.node_name)),
                ],
            )
            .await?;
        Ok(counted == numbers.len() as u64)
    }
}

/// Those with a row in Kohaku's table: nodes have none.
async fn kohakus_connections(transaction: &Transaction<'_>, first: &[&Report<'_>]) -> Result<(), Error> {
    let reports: Vec<&Report<'_>> =
        first.iter().copied().filter(|report| report.envelope().is_some()).collect();
    let flags = |of: fn(&ConnectionEnvelope) -> Option<bool>| -> Vec<bool> {
        reports.iter().map(|report| report.envelope().and_then(of).unwrap_or(false)).collect()
    };
    let at: Vec<SystemTime> = reports.iter().map(|report| report.at()).collect();
    let role = |report: &&Report<'_>| {
        let role = report.envelope().and_then(|envelope| envelope.role);
        role.unwrap_or(Role::Sendrecv).name()
    };
    let [connection, session, channel, client] = columns(&reports);
    transaction
        .execute(
            CONNECTIONS,
            &[
                &at,
                &texts(&reports, |report| storable(&report.planned.report.label)),
                &texts(&reports, |report| storable(&report.planned.report.version)),
                &texts(&reports, |report| storable(&report.planned.report.node_name)),
                &flags(|envelope| envelope.multistream),
                &flags(|envelope| envelope.simulcast),
                &flags(|envelope| envelope.spotlight),
                &reports.iter().map(role).collect::<Vec<_>>(),
                &connection,
                &session,
                &channel,
                &client,
            ],
        )
        .await?;
    Ok(())
}

/// Their places, from 1, and their numbers.
async fn own_connections(transaction: &Transaction<'_>, first: &[&Report<'_>]) -> Result<Vec<Row>, Error> {
    let flags = |of: fn(&ConnectionEnvelope) -> Option<bool>| -> Vec<Option<bool>> {
        first.iter().map(|report| report.envelope().and_then(of)).collect()
    };
    let of_ours = |of: fn(&ConnectionEnvelope) -> &str| {
        texts(first, move |report| storable(report.envelope().map_or("", of)))
    };
    let role = |report: &&Report<'_>| report.envelope()?.role.map(Role::name);
    let source: Vec<&str> = first.iter().map(|report| report.planned.key.family).collect();
    let connection = texts(first, |report| Cow::Borrowed(&*report.own_id));
    let [_, session, channel, client] = columns(first);
    transaction
        .execute(
            OWN_CONNECTIONS,
            &[
                &source,
                &connection,
                &session,
                &channel,
                &client,
                &first.iter().map(role).collect::<Vec<_>>(),
                &flags(|envelope| envelope.multistream),
                &flags(|envelope| envelope.simulcast),
                &flags(|envelope| envelope.spotlight),
                &of_ours(|envelope| &envelope.room_sid),
                &of_ours(|envelope| &envelope.participant_sid),
                &texts(first, |report| storable(&report.planned.report.label)),
                &texts(first, |report| storable(&report.planned.report.version)),
                &texts(first, |report| storable(&report.planned.report.node_name)),
                &first.iter().map(|report| report.at_ns).collect::<Vec<_>>(),
            ],
        )
        .await?;
    transaction.query(NUMBERS, &[&source, &connection, &session, &channel, &client]).await
}

impl<'a> Sums<'a> {
    fn add(&mut self, report: &'a Report<'a>) {
        let none_before = self.reports == 0;
        self.first_ns = if none_before { report.at_ns } else { self.first_ns.min(report.at_ns) };
        self.last_ns = self.last_ns.max(report.at_ns);
        self.reports += 1;
        self.stored += report.stored();
        self.unchanged += report.unchanged();
        self.rejected += report.rejected();
        self.last = Some(report);
    }
}

impl<'a> Report<'a> {
    fn new(planned: &'a Planned) -> Self {
        let mut unfit = BTreeMap::new();
        let mut objects = Vec::with_capacity(planned.fresh.len());
        for object in planned.objects() {
            match json::unfit(&object.json) {
                None => objects.push(object),
                Some(why) => *unfit.entry(why).or_default() += 1,
            }
        }
        Self {
            planned,
            ids: ids(&planned.key),
            own_id: storable(&planned.key.connection_id),
            at_ns: i64::try_from(planned.report.at_ns).unwrap_or(i64::MAX),
            objects,
            unfit,
        }
    }

    /// By what the tables tell its connection from others.
    fn identity(&self) -> (&'static str, &[Cow<'a, str>; 4]) {
        (self.planned.key.family, &self.ids)
    }

    fn envelope(&self) -> Option<&'a ConnectionEnvelope> {
        self.planned.report.connection.as_ref()
    }

    fn stored(&self) -> i64 {
        signed(self.objects.len() as u64)
    }

    fn unchanged(&self) -> i64 {
        signed(self.planned.unchanged() as u64)
    }

    fn rejected(&self) -> i64 {
        signed(self.unfit.values().sum::<u64>().saturating_add(self.planned.report.rejected_objects()))
    }

    fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.at_ns).unwrap_or(0))
    }

    fn row<'b>(&'b self, object: &'b StatsObject) -> Object<'b> {
        let [connection_id, _, channel_id, _] = &self.ids;
        Object { at: self.at(), channel_id, connection_id, object }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// JSON in letters that every database can hold.
fn plain(json: &str) -> Cow<'_, str> {
    if json.is_ascii() {
        return storable(json);
    }
    let mut text = String::with_capacity(json.len() * 2);
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Cow::Owned(storable(&text).into_owned())
}

/// A column of texts.
fn texts<'a, 'b: 'a>(
    reports: &[&'a Report<'b>],
    of: impl Fn(&'a Report<'b>) -> Cow<'a, str>,
) -> Vec<Cow<'a, str>> {
    reports.iter().map(|report| of(report)).collect()
}

/// The ids as arrays: connections, sessions, channels, clients.
fn columns<'a>(reports: &[&'a Report<'_>]) -> [Vec<&'a str>; 4] {
    let column = |place: usize| -> Vec<&'a str> {
        reports.iter().filter_map(|report| report.ids.get(place)).map(|id| &**id).collect()
    };
    [column(0), column(1), column(2), column(3)]
}

/// Sends rows. Where the server does not take some, they are halved until it is known which; gives back how many were left
/// out.
async fn copy_what_can_be(transaction: &Transaction<'_>, rows: &[Object<'_>]) -> Result<u64, Error> {
    let mut refused = 0;
    let mut waiting = vec![rows];
    while let Some(rows) = waiting.pop().filter(|rows| !rows.is_empty()) {
        transaction.batch_execute("SAVEPOINT objects").await?;
        match copy(transaction, rows).await {
            Ok(()) => transaction.batch_execute("RELEASE SAVEPOINT objects").await?,
            Err(error) if error.code().is_some_and(is_of_data) => {
                transaction.batch_execute("ROLLBACK TO SAVEPOINT objects; RELEASE SAVEPOINT objects").await?;
                let (first, second) = rows.split_at_checked(rows.len() / 2).unwrap_or((rows, &[]));
                if let [row] = rows {
                    let (kind, id) = (row.object.kind.as_str(), row.object.id.as_str());
                    tracing::warn!(error = super::explain(&error), kind, id, "an object is refused");
                    refused += 1;
                } else {
                    waiting.push(second);
                    waiting.push(first);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

async fn copy(transaction: &Transaction<'_>, rows: &[Object<'_>]) -> Result<(), Error> {
    let sink = transaction.copy_in(OBJECTS).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &OBJECT_TYPES));
    for row in rows {
        writer
            .as_mut()
            .write(&[
                &row.at,
                &row.channel_id,
                &row.connection_id,
                &row.object.stats_ms,
                &row.object.kind.as_str(),
                &row.object.id.as_str(),
                &Jsonb(&row.object.json),
            ])
            .await?;
    }
    writer.finish().await.map(drop)
}

/// The text of an object, in `jsonb`'s binary form.
#[derive(Debug)]
struct Jsonb<'a>(&'a str);

impl ToSql for Jsonb<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        // The version of the form, of which there is one.
        out.put_u8(1);
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }

    to_sql_checked!();
}
