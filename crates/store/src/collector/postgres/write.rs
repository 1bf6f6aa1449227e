//! One transaction: connections, keys of reports, objects.

use super::schema::LOCK;
use super::{ids, is_of_data, json, storable};
use bytes::{BufMut, BytesMut};
use fanlight_telemetry::collector::{ConnectionKey, Planned, Role, StatsObject};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Transaction};

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
const REPORTS: &str = "INSERT INTO fanlight_report (connection_id, session_id, channel_id, client_id, at_ns)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
    ON CONFLICT DO NOTHING RETURNING connection_id, session_id, channel_id, client_id, at_ns";
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
    /// Connection, session, channel, client.
    ids: [Cow<'a, str>; 4],
    at_ns: i64,
}

/// One object with what it shares with others of its report.
#[derive(Clone, Copy)]
struct Row<'a> {
    at: SystemTime,
    channel_id: &'a str,
    connection_id: &'a str,
    object: &'a StatsObject,
}

impl<'a> Batch<'a> {
    pub(super) fn new(reports: &'a [Planned]) -> Self {
        let report = |planned: &'a Planned| Report {
            planned,
            ids: ids(&planned.key),
            at_ns: i64::try_from(planned.report.at_ns).unwrap_or(i64::MAX),
        };
        Self { reports: reports.iter().map(report).collect() }
    }

    /// All or nothing. `known` are the connections that are committed.
    pub(super) async fn write(
        &self,
        client: &mut Client,
        known: &mut BTreeSet<ConnectionKey>,
    ) -> Result<Written, Error> {
        let transaction = client.transaction().await?;
        self.connections(&transaction, known).await?;
        let new = self.keys(&transaction).await?;
        let mut unfit = BTreeMap::new();
        let mut rows = Vec::new();
        for (report, _) in self.reports.iter().zip(&new).filter(|(_, new)| **new) {
            for object in report.planned.objects() {
                match json::unfit(&object.json) {
                    None => rows.push(report.row(object)),
                    Some(why) => *unfit.entry(why).or_default() += 1,
                }
            }
        }
        let refused = copy_what_can_be(&transaction, &rows).await?;
        if refused > 0 {
            unfit.insert(REFUSED, refused);
        }
        transaction.commit().await?;
        for report in &self.reports {
            if !known.contains(&report.planned.key) {
                known.insert(report.planned.key.clone());
            }
        }
        Ok((new, unfit))
    }

    /// One row for each connection that there is none for, as of its first report.
    async fn connections(
        &self,
        transaction: &Transaction<'_>,
        known: &BTreeSet<ConnectionKey>,
    ) -> Result<(), Error> {
        let mut first: BTreeMap<&ConnectionKey, &Report<'_>> = BTreeMap::new();
        for report in &self.reports {
            let key = &report.planned.key;
            if report.planned.report.connection.is_some() && !known.contains(key) {
                let earliest = first.entry(key).or_insert(report);
                if report.at_ns < earliest.at_ns {
                    *earliest = report;
                }
            }
        }
        if first.is_empty() {
            return Ok(());
        }
        // Kohaku's table has no key of its own that would keep two servers from writing a connection each.
        transaction.batch_execute(LOCK).await?;
        let reports: Vec<&Report<'_>> = first.into_values().collect();
        let texts = |of: &dyn Fn(&Report<'_>) -> String| reports.iter().map(|report| of(report)).collect();
        let flags = |of: fn(&Report<'_>) -> Option<bool>| -> Vec<bool> {
            reports.iter().map(|report| of(report).unwrap_or(false)).collect()
        };
        let at: Vec<SystemTime> = reports.iter().map(|report| report.at()).collect();
        let label: Vec<String> = texts(&|report| storable(&report.planned.report.label).into_owned());
        let version: Vec<String> = texts(&|report| storable(&report.planned.report.version).into_owned());
        let node: Vec<String> = texts(&|report| storable(&report.planned.report.node_name).into_owned());
        let multistream = flags(|report| report.planned.report.connection.as_ref()?.multistream);
        let simulcast = flags(|report| report.planned.report.connection.as_ref()?.simulcast);
        let spotlight = flags(|report| report.planned.report.connection.as_ref()?.spotlight);
        let role: Vec<String> = texts(&|report| {
            let role = report.planned.report.connection.as_ref().and_then(|connection| connection.role);
            role.unwrap_or(Role::Sendrecv).name().to_owned()
        });
        let [connection, session, channel, client] = columns(reports.iter().copied());
        transaction
            .execute(
                CONNECTIONS,
                &[
                    &at,
                    &label,
                    &version,
                    &node,
                    &multistream,
                    &simulcast,
                    &spotlight,
                    &role,
                    &connection,
                    &session,
                    &channel,
                    &client,
                ],
            )
            .await?;
        Ok(())
    }

    /// Enters the reports' keys and says which were not there.
    async fn keys(&self, transaction: &Transaction<'_>) -> Result<Vec<bool>, Error> {
        // In one order, so that two servers do not wait for each other.
        let mut sorted: Vec<&Report<'_>> = self.reports.iter().collect();
        sorted.sort_by(|a, b| (&a.ids, a.at_ns).cmp(&(&b.ids, b.at_ns)));
        let at_ns: Vec<i64> = sorted.iter().map(|report| report.at_ns).collect();
        let [connection, session, channel, client] = columns(sorted.into_iter());
        let rows = transaction.query(REPORTS, &[&connection, &session, &channel, &client, &at_ns]).await?;
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
}

impl Report<'_> {
    fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.at_ns).unwrap_or(0))
    }

    fn row<'a>(&'a self, object: &'a StatsObject) -> Row<'a> {
        let [connection_id, _, channel_id, _] = &self.ids;
        Row { at: self.at(), channel_id, connection_id, object }
    }
}

/// The ids as arrays: connections, sessions, channels, clients.
fn columns<'a>(reports: impl Iterator<Item = &'a Report<'a>> + Clone) -> [Vec<&'a str>; 4] {
    let column = |place: usize| -> Vec<&'a str> {
        reports.clone().filter_map(|report| report.ids.get(place)).map(|id| &**id).collect()
    };
    [column(0), column(1), column(2), column(3)]
}

/// Sends rows. Where the server does not take some, they are halved until it is known which; gives back how many were left
/// out.
async fn copy_what_can_be(transaction: &Transaction<'_>, rows: &[Row<'_>]) -> Result<u64, Error> {
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

async fn copy(transaction: &Transaction<'_>, rows: &[Row<'_>]) -> Result<(), Error> {
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
