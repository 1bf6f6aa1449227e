//! `/api/v1/turn/`: allocations, sessions, usage and inputs.

use super::parameters::{Asked, Format};
use super::{Scope, json, refuse};
use crate::app::App;
use crate::backend::ReadError;
use fanlight_livekit::http_rules::{Answer, HttpRequest};
use fanlight_telemetry::turn_account::usage::Usage;
use fanlight_telemetry::turn_query::{AllocationView, Filter, SessionView, Slice, UsageView, csv};
use serde::Serialize;
use serde_json::{Map, Value, json as object};

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Allocations,
    Sessions,
    Usage,
    Inputs,
}

impl What {
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "turn/allocations" => Self::Allocations,
            "turn/sessions" => Self::Sessions,
            "turn/usage" => Self::Usage,
            "turn/inputs" => Self::Inputs,
            _ => return None,
        })
    }

    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Allocations => {
                &["session", "user", "room", "realm", "sort", "order", "limit", "offset", "format"]
            }
            Self::Sessions => {
                &["from", "to", "user", "room", "realm", "sort", "order", "limit", "offset", "format"]
            }
            Self::Usage => &[
                "by",
                "from",
                "to",
                "user",
                "room",
                "realm",
                "price_per_gb",
                "price_per_minute",
                "limit",
                "offset",
                "format",
            ],
            Self::Inputs => &[],
        }
    }
}

pub(super) async fn answer(
    app: &App,
    http: &HttpRequest<'_>,
    what: What,
    scope: Scope,
) -> Result<Answer, Answer> {
    let asked = Asked::read(http, what.parameters())?;
    if what == What::Inputs {
        return inputs(app, scope);
    }
    let format = asked.format()?;
    let filter = within(asked.filter()?, scope)?;
    let slice = asked.slice(format)?;
    match what {
        What::Allocations => {
            let read = app.record.read(move |record| record.turn_allocations(&filter, slice));
            let page = read.await.map_err(unreadable)?;
            let rows: Vec<_> = page.rows.iter().map(AllocationView::from).collect();
            rows_of(app, format, ("allocations", &rows), page.total, slice, Map::new())
        }
        What::Sessions => {
            let read = app.record.read(move |record| record.turn_sessions(&filter, slice));
            let page = read.await.map_err(unreadable)?;
            let rows: Vec<_> = page.rows.iter().map(SessionView::from).collect();
            rows_of(app, format, ("sessions", &rows), page.total, slice, Map::new())
        }
        What::Usage | What::Inputs => {
            let (by, price) = (asked.by()?, asked.price()?);
            let read = app.record.read(move |record| record.turn_usage(&filter, by, price));
            let lines = read.await.map_err(unreadable)?;
            let more = [
                ("by".to_owned(), by.as_str().into()),
                ("price_per_gb".to_owned(), price.per_gb.into()),
                ("price_per_minute".to_owned(), price.per_minute.into()),
                ("sum".to_owned(), sum(&lines)),
            ];
            let part = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let shown = lines.iter().skip(part(slice.offset)).take(part(slice.limit));
            let rows: Vec<_> = shown.map(|line| UsageView::new(by, line)).collect();
            let total = u64::try_from(lines.len()).unwrap_or(u64::MAX);
            rows_of(app, format, ("usage", &rows), total, slice, more.into_iter().collect())
        }
    }
}

/// A token for one room sees that room's rows, whatever is asked for.
fn within(filter: Filter, scope: Scope) -> Result<Filter, Answer> {
    match (scope, &filter.room) {
        (Scope::All, _) => Ok(filter),
        (Scope::Room(own), Some(asked)) if own != *asked => {
            let text = format!("permissions denied: this token is for the room {own:?}, not for {asked:?}");
            Err(refuse(401, "unauthenticated", &text))
        }
        (Scope::Room(own), _) => Ok(Filter { room: Some(own), ..filter }),
    }
}

fn inputs(app: &App, scope: Scope) -> Result<Answer, Answer> {
    if let Scope::Room(room) = scope {
        let text =
            format!("permissions denied: this token is for the room {room:?}, and inputs are the server's");
        return Err(refuse(401, "unauthenticated", &text));
    }
    let mut health = app.record.turn_health();
    if let Value::Object(fields) = &mut health {
        fields.insert("now_ms".to_owned(), (app.now)().unix_ms().into());
    }
    Ok(json(200, &health))
}

fn rows_of<T: Serialize + Default>(
    app: &App,
    format: Format,
    (name, rows): (&str, &[T]),
    total: u64,
    slice: Slice,
    mut fields: Map<String, Value>,
) -> Result<Answer, Answer> {
    let internal = |error: String| refuse(500, "internal", &error);
    if format == Format::Csv {
        let text = csv(rows).map_err(|error| internal(error.to_string()))?;
        return Ok(Answer::text(200, text)
            .with("Content-Type", "text/csv; charset=utf-8")
            .with("Content-Disposition", format!("attachment; filename=\"turn-{name}.csv\"")));
    }
    fields.insert("now_ms".to_owned(), (app.now)().unix_ms().into());
    fields.insert("total".to_owned(), total.into());
    fields.insert("offset".to_owned(), slice.offset.into());
    fields.insert("limit".to_owned(), slice.limit.into());
    fields.insert(name.to_owned(), serde_json::to_value(rows).map_err(|error| internal(error.to_string()))?);
    Ok(json(200, &Value::Object(fields)))
}

/// All lines together, those included that the answer leaves out.
fn sum(lines: &[Usage]) -> Value {
    let all = |field: fn(&Usage) -> u64| lines.iter().map(field).fold(0, u64::saturating_add);
    object!({
        "sessions": all(|line| line.sessions),
        "relayed": all(|line| line.relayed),
        "allocations": all(|line| line.allocations),
        "held_ms": all(|line| line.held_ms),
        "active_ms": all(|line| line.active_ms),
        "client_rx_bytes": all(|line| line.client.rx_bytes),
        "client_tx_bytes": all(|line| line.client.tx_bytes),
        "peer_rx_bytes": all(|line| line.peer.rx_bytes),
        "peer_tx_bytes": all(|line| line.peer.tx_bytes),
        "price": lines.iter().map(|line| line.price).sum::<f64>(),
    })
}

pub(super) fn unreadable(error: ReadError) -> Answer {
    match error {
        ReadError::Overloaded => refuse(503, "unavailable", &error.to_string()).with("Retry-After", "1"),
        ReadError::Record(_) => {
            tracing::error!(%error, "the record cannot be read");
            refuse(500, "internal", &error.to_string())
        }
    }
}
