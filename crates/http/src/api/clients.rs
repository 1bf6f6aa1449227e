//! `/api/v1/clients/`: connections whose clients have reported, what they said, and the server's view beside it.

use super::parameters::{Asked, wrong};
use super::{Scope, json, refuse};
use crate::app::App;
use crate::backend::{ReadError, Series, Span};
use fanlight_livekit::http_rules::{Answer, HttpRequest};
use fanlight_telemetry::collector::limits::{ID_BYTES_MAX, KIND_BYTES_MAX};
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::rates::{Derived, Point, derived};
use fanlight_telemetry::collector::sides::ClientSides;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json as object};

/// Connections of one answer.
const ROWS_MAX: u64 = 1_000;
/// Connections of one answer unless asked otherwise.
const ROWS: u64 = 100;
/// Objects or reports of one answer, at about 2 kB each.
const POINTS_MAX: u64 = 5_000;
/// Objects or reports of one answer unless asked otherwise.
const POINTS: u64 = 1_000;
const MS: u64 = 1_000_000;
/// A database that is away is back in seconds.
const RETRY_AFTER_S: &str = "2";

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    All,
    One(u64),
    Latest(u64),
    Series(u64),
    Reports(u64),
}

impl What {
    pub(super) fn of(path: &str) -> Option<Self> {
        if path == "clients" {
            return Some(Self::All);
        }
        let rest = path.strip_prefix("clients/")?;
        let (number, what) = rest.split_once('/').unwrap_or((rest, ""));
        // Databases count with 63 bits.
        let number = number.parse().ok().filter(|number| i64::try_from(*number).is_ok())?;
        match what {
            "" if !rest.contains('/') => Some(Self::One(number)),
            "latest" => Some(Self::Latest(number)),
            "series" => Some(Self::Series(number)),
            "reports" => Some(Self::Reports(number)),
            _ => None,
        }
    }

    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::All => {
                &["from", "to", "room", "user", "connection", "participant", "source", "limit", "offset"]
            }
            Self::One(_) | Self::Latest(_) => &[],
            Self::Series(_) => &["type", "id", "from", "to", "limit"],
            Self::Reports(_) => &["from", "to", "limit"],
        }
    }
}

/// Objects are told as they came: no number loses a digit.
#[derive(Serialize)]
struct Latest {
    now_ms: u64,
    number: u64,
    objects: Vec<ObjectView>,
}

#[derive(Serialize)]
struct ReportsAnswer {
    now_ms: u64,
    number: u64,
    reports: Vec<ReportView>,
}

#[derive(Serialize)]
struct SeriesAnswer {
    now_ms: u64,
    number: u64,
    #[serde(rename = "type")]
    kind: String,
    id: String,
    points: Vec<PointView>,
}

/// An object as it is told.
#[derive(Serialize)]
struct ObjectView {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    at_ms: u64,
    stats_ms: f64,
    object: Option<Box<RawValue>>,
}

/// An object of a series as it is told.
#[derive(Serialize)]
struct PointView {
    at_ms: u64,
    stats_ms: f64,
    object: Option<Box<RawValue>>,
    rates: Derived,
}

/// A report as it is told.
#[derive(Serialize)]
struct ReportView {
    at_ms: u64,
    received_ms: u64,
    stored: u64,
    unchanged: u64,
    rejected: u64,
    extra: Option<Box<RawValue>>,
}

/// A connection as it is told.
#[derive(Serialize)]
struct ConnectionView<'a> {
    #[serde(flatten)]
    connection: &'a ClientConnection,
    first_ms: u64,
    last_ms: u64,
}

impl<'a> From<&'a ClientConnection> for ConnectionView<'a> {
    fn from(connection: &'a ClientConnection) -> Self {
        Self { connection, first_ms: connection.first_ns / MS, last_ms: connection.last_ns / MS }
    }
}

pub(super) async fn answer(
    app: &App,
    http: &HttpRequest<'_>,
    what: What,
    scope: Scope,
) -> Result<Answer, Answer> {
    let asked = Asked::read(http, what.parameters())?;
    match what {
        What::All => list(app, &asked, scope).await,
        What::One(number) => one(app, find(app, number, scope).await?).await,
        What::Latest(number) => {
            let connection = find(app, number, scope).await?;
            let read = app.record.read(move |record| record.client_latest(connection.number));
            let objects: Vec<_> = read.await.map_err(unreadable)?.into_iter().map(view).collect();
            Ok(json(200, &Latest { now_ms: now_ms(app), number, objects }))
        }
        What::Series(number) => {
            let series = series_of(&asked)?;
            let connection = find(app, number, scope).await?;
            series_answer(app, connection.number, series).await
        }
        What::Reports(number) => {
            let span = span_of(&asked)?;
            let connection = find(app, number, scope).await?;
            let read = app.record.read(move |record| record.client_reports(connection.number, span));
            let reports: Vec<_> = read.await.map_err(unreadable)?.into_iter().map(report_view).collect();
            Ok(json(200, &ReportsAnswer { now_ms: now_ms(app), number, reports }))
        }
    }
}

async fn list(app: &App, asked: &Asked, scope: Scope) -> Result<Answer, Answer> {
    let ns = |ms: Option<u64>| ms.map(|ms| ms.saturating_mul(MS));
    let limit = asked.number("limit", ROWS_MAX)?.unwrap_or(ROWS).max(1);
    let query = ClientQuery {
        number: None,
        connection_id: asked.name("connection")?,
        channel_id: asked.name("room")?,
        client_id: asked.name("user")?,
        room_sid: None,
        participant_sid: asked.name("participant")?,
        source: asked.name("source")?,
        proven: false,
        from_ns: ns(asked.time("from")?),
        to_ns: ns(asked.time("to")?),
        limit,
        offset: asked.number("offset", i64::MAX.unsigned_abs())?.unwrap_or(0),
    };
    let query = within(query, scope)?;
    let offset = query.offset;
    let page = app.record.read(move |record| record.clients(&query)).await.map_err(unreadable)?;
    let rows: Vec<_> = page.rows.iter().map(ConnectionView::from).collect();
    Ok(json(
        200,
        &object!({ "now_ms": now_ms(app), "total": page.total, "offset": offset, "limit": limit, "clients": rows }),
    ))
}

/// A token for one room sees what tokens of that room sent, and nothing that only claims to be of it.
fn within(query: ClientQuery, scope: Scope) -> Result<ClientQuery, Answer> {
    let Scope::Room(own) = scope else { return Ok(query) };
    if query.channel_id.as_ref().is_some_and(|asked| *asked != own) {
        let text = format!("permissions denied: this token is for the room {own:?} alone");
        return Err(refuse(401, "unauthenticated", &text));
    }
    Ok(ClientQuery { channel_id: Some(own), proven: true, ..query })
}

/// The connection of this number, as far as the token may see it.
async fn find(app: &App, number: u64, scope: Scope) -> Result<ClientConnection, Answer> {
    let query = within(ClientQuery { number: Some(number), limit: 1, ..ClientQuery::default() }, scope)?;
    let page = app.record.read(move |record| record.clients(&query)).await.map_err(unreadable)?;
    let found = page.rows.into_iter().next();
    found.ok_or_else(|| refuse(404, "not_found", &format!("no connection has the number {number}")))
}

async fn one(app: &App, connection: ClientConnection) -> Result<Answer, Answer> {
    let asked = connection.clone();
    let sides = app.record.read(move |record| record.client_sides(&asked)).await.map_err(unreadable)?;
    let (participant, tracks) = match &sides {
        Some(ClientSides { participant, tracks }) => (
            object!({
                "sid": participant.sid,
                "identity": participant.identity,
                "joined_ms": participant.joined_ms,
                "left_ms": participant.left_ms,
                "client": participant.client,
            }),
            tracks.as_slice(),
        ),
        None => (Value::Null, [].as_slice()),
    };
    let client = ConnectionView::from(&connection);
    Ok(json(
        200,
        &object!({ "now_ms": now_ms(app), "client": client, "participant": participant, "tracks": tracks }),
    ))
}

fn series_of(asked: &Asked) -> Result<Series, Answer> {
    let needed = |name: &str, most: usize| match asked.name(name)? {
        Some(text) if text.len() <= most => Ok(text),
        text => Err(wrong(name, &text.unwrap_or_default(), "one that `latest` tells")),
    };
    Ok(Series {
        kind: needed("type", KIND_BYTES_MAX)?,
        id: needed("id", ID_BYTES_MAX)?,
        span: span_of(asked)?,
    })
}

fn span_of(asked: &Asked) -> Result<Span, Answer> {
    let ns = |ms: u64| ms.saturating_mul(MS);
    Ok(Span {
        from_ns: asked.time("from")?.map_or(0, ns),
        to_ns: asked.time("to")?.map_or(i64::MAX.unsigned_abs(), ns),
        limit: asked.number("limit", POINTS_MAX)?.unwrap_or(POINTS).max(1),
    })
}

async fn series_answer(app: &App, number: u64, series: Series) -> Result<Answer, Answer> {
    let asked = series.clone();
    let read = app.record.read(move |record| record.client_series(number, &asked));
    let objects = read.await.map_err(unreadable)?;
    let points: Vec<Point> =
        objects.iter().map(|stored| Point { stats_ms: stored.stats_ms, json: stored.json.clone() }).collect();
    let rates = derived(&series.kind, &points);
    let points: Vec<_> = objects
        .into_iter()
        .zip(rates)
        .map(|(stored, rates)| PointView {
            at_ms: stored.at_ns / MS,
            stats_ms: stored.stats_ms,
            object: RawValue::from_string(stored.json).ok(),
            rates,
        })
        .collect();
    let (kind, id) = (series.kind, series.id);
    Ok(json(200, &SeriesAnswer { now_ms: now_ms(app), number, kind, id, points }))
}

fn view(stored: StoredObject) -> ObjectView {
    ObjectView {
        kind: stored.kind,
        id: stored.id,
        at_ms: stored.at_ns / MS,
        stats_ms: stored.stats_ms,
        object: RawValue::from_string(stored.json).ok(),
    }
}

fn report_view(stored: StoredReport) -> ReportView {
    ReportView {
        at_ms: stored.at_ns / MS,
        received_ms: stored.received_ms,
        stored: stored.stored,
        unchanged: stored.unchanged,
        rejected: stored.rejected,
        extra: RawValue::from_string(stored.extra).ok(),
    }
}

/// The reports may be on another machine: that is no fault of ours, and passes.
fn unreadable(error: ReadError) -> Answer {
    if let ReadError::Record(_) = error {
        tracing::error!(%error, "clients' reports cannot be read");
    }
    refuse(503, "unavailable", &error.to_string()).with("Retry-After", RETRY_AFTER_S)
}

fn now_ms(app: &App) -> u64 {
    (app.now)().unix_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_connection_by_its_number() {
        assert_eq!(What::of("clients"), Some(What::All));
        assert_eq!(What::of("clients/7"), Some(What::One(7)));
        assert_eq!(What::of("clients/7/latest"), Some(What::Latest(7)));
        assert_eq!(What::of("clients/7/series"), Some(What::Series(7)));
        assert_eq!(What::of("clients/7/reports"), Some(What::Reports(7)));
        for path in
            ["clients/", "clients/x", "clients/7/", "clients/7/all", "clients/9223372036854775808", "client"]
        {
            assert_eq!(What::of(path), None, "{path}");
        }
    }
}
