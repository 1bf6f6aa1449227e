//! `fanlight turn`.

mod import;

use super::{note, say};
use clap::{Args, Subcommand, ValueEnum};
use fanlight_shard::Clock;
use fanlight_store::{turn_allocations, turn_sessions, turn_status, turn_usage};
use fanlight_telemetry::report::{Align, Table, duration, printable, size};
use fanlight_telemetry::turn_account::table;
use fanlight_telemetry::turn_account::usage::{By, Price};
use fanlight_telemetry::turn_query::{AllocationView, Filter, SessionView, Slice, UsageView, csv};
use serde::Serialize;
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Names are chosen by users: this much of one is shown.
const NAME_WIDTH: usize = 32;
/// A server says at least this often how its inputs fare.
const STALE_MS: u64 = 10_000;

/// Who used the TURN relay, how long and how much
#[derive(Debug, Subcommand)]
pub(crate) enum Turn {
    /// User sessions: from a user's first allocation until all are gone
    Sessions(Sessions),
    /// Sessions added up by user, room or day, with a price
    Usage(UsageOf),
    /// Allocations that are open now, and how the inputs fare
    Live(Live),
    /// Account for a recorded stream of coturn's messages (lines of UTC time, channel and payload, parted by tabs)
    Import(import::Import),
}

impl Turn {
    pub(super) fn run(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Sessions(sessions) => sessions.run(),
            Self::Usage(usage) => usage.run(),
            Self::Live(live) => live.run(),
            Self::Import(import) => import.run(),
        }
    }
}

#[derive(Debug, Args)]
struct Record {
    /// Where the record is kept [default: ./fanlight-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Record {
    fn dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(crate::config::DATA_DIR_DEFAULT))
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// Comma-separated values
    Csv,
    /// JSON
    Json,
}

#[derive(Debug, Args)]
struct Which {
    /// Begun at this time or later: a day, or a time such as 2026-11-21T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Begun before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// Of this user only: a participant by identity, else the person that the TURN user name stands for
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// In this room only
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    /// In this realm only
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,
    #[command(flatten)]
    record: Record,
}

impl Which {
    fn filter(&self) -> Filter {
        Filter {
            from_ms: self.from,
            to_ms: self.to,
            user: self.user.clone(),
            room: self.room.clone(),
            realm: self.realm.clone(),
            session: None,
        }
    }
}

fn time(text: &str) -> Result<u64, String> {
    table::from_utc(text)
        .ok_or_else(|| "neither a day (2026-11-21) nor a time (2026-11-21T14:00:00Z)".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Sessions {
    #[command(flatten)]
    which: Which,
}

impl Sessions {
    fn run(self) -> Result<(), Box<dyn Error>> {
        let page = turn_sessions(self.which.record.dir(), &self.which.filter(), Slice::ALL)?;
        let sessions: Vec<SessionView<'_>> = page.rows.iter().map(SessionView::from).collect();
        let columns = [
            ("STARTED (UTC)", Align::Left),
            ("USER", Align::Left),
            ("ROOM", Align::Left),
            ("REALM", Align::Left),
            ("HELD", Align::Right),
            ("ACTIVE", Align::Right),
            ("ALLOCATIONS", Align::Right),
            ("FROM PEERS", Align::Right),
            ("TO PEERS", Align::Right),
            ("CLASS", Align::Left),
            ("QUALITY", Align::Left),
            ("END", Align::Left),
        ];
        let row = |session: &SessionView<'_>| {
            vec![
                session.started.clone(),
                printable(session.user, NAME_WIDTH),
                printable(session.room, NAME_WIDTH),
                printable(session.realm, NAME_WIDTH),
                duration(session.held_ms),
                duration(session.active_ms),
                session.allocations.to_string(),
                size(session.peer_rx_bytes),
                size(session.peer_tx_bytes),
                session.class.to_owned(),
                session.quality.to_owned(),
                session.end_reason.unwrap_or("open").to_owned(),
            ]
        };
        let empty = "No TURN session is on record here. Point coturn at fanlight.coturn.listen, or turn on Fanlight's own \
                     server (turn.enabled).";
        print(self.which.record.format, &columns, &sessions, row, empty)
    }
}

#[derive(Debug, Args)]
pub(crate) struct UsageOf {
    /// What sessions are added up by
    #[arg(long, value_enum, default_value_t = ByWhat::User)]
    by: ByWhat,
    /// Price of a gigabyte (10^9 bytes) of payload, both directions together
    #[arg(long, value_name = "AMOUNT", default_value_t = 0.0)]
    price_per_gb: f64,
    /// Price of a minute held
    #[arg(long, value_name = "AMOUNT", default_value_t = 0.0)]
    price_per_minute: f64,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ByWhat {
    /// Person, within a realm
    User,
    /// Room
    Room,
    /// Day in UTC on which a session began
    Day,
}

impl UsageOf {
    fn run(self) -> Result<(), Box<dyn Error>> {
        let (by, name) = match self.by {
            ByWhat::User => (By::User, "USER"),
            ByWhat::Room => (By::Room, "ROOM"),
            ByWhat::Day => (By::Day, "DAY"),
        };
        let price = Price { per_gb: self.price_per_gb, per_minute: self.price_per_minute };
        let lines = turn_usage(self.which.record.dir(), &self.which.filter(), by, price)?;
        let lines: Vec<UsageView<'_>> = lines.iter().map(|line| UsageView::new(by, line)).collect();
        let columns = [
            (name, Align::Left),
            ("REALM", Align::Left),
            ("SESSIONS", Align::Right),
            ("RELAYED", Align::Right),
            ("ALLOCATIONS", Align::Right),
            ("HELD", Align::Right),
            ("ACTIVE", Align::Right),
            ("FROM PEERS", Align::Right),
            ("TO PEERS", Align::Right),
            ("QUALITY", Align::Left),
            ("PRICE", Align::Right),
        ];
        let row = |line: &UsageView<'_>| {
            vec![
                printable(if line.key.is_empty() { "-" } else { line.key }, NAME_WIDTH),
                printable(line.realm, NAME_WIDTH),
                line.sessions.to_string(),
                line.relayed.to_string(),
                line.allocations.to_string(),
                duration(line.held_ms),
                duration(line.active_ms),
                size(line.peer_rx_bytes),
                size(line.peer_tx_bytes),
                line.quality.to_owned(),
                format!("{:.2}", line.price),
            ]
        };
        print(self.which.record.format, &columns, &lines, row, "Nothing was used in this time.")
    }
}

#[derive(Debug, Args)]
pub(crate) struct Live {
    #[command(flatten)]
    record: Record,
}

impl Live {
    fn run(self) -> Result<(), Box<dyn Error>> {
        let now_ms = Clock::new(Instant::now()).now().unix_ms();
        let page = turn_allocations(self.record.dir(), &Filter::default(), Slice::ALL)?;
        let open: Vec<AllocationView<'_>> = page.rows.iter().map(AllocationView::from).collect();
        let (seen_ms, health) = match turn_status(self.record.dir())? {
            Some((seen_ms, text)) => (Some(seen_ms), serde_json::from_str(&text)?),
            None => (None, Value::Null),
        };
        if self.record.format == Format::Json {
            let answer = json!({ "allocations": open, "health": health, "health_ms": seen_ms });
            say(serde_json::to_string_pretty(&answer)?);
            return Ok(());
        }
        let columns = [
            ("SINCE (UTC)", Align::Left),
            ("USER", Align::Left),
            ("ROOM", Align::Left),
            ("NODE", Align::Left),
            ("OVER", Align::Left),
            ("CLIENT", Align::Left),
            ("OPEN FOR", Align::Right),
            ("FROM PEERS", Align::Right),
            ("TO PEERS", Align::Right),
            ("PEAK kbit/s", Align::Right),
        ];
        let row = |one: &AllocationView<'_>| {
            vec![
                one.started.clone(),
                printable(one.user, NAME_WIDTH),
                printable(one.room, NAME_WIDTH),
                printable(one.node, NAME_WIDTH),
                printable(one.transport, NAME_WIDTH),
                printable(one.remote, NAME_WIDTH),
                duration(now_ms.saturating_sub(one.started_ms)),
                size(one.peer_rx_bytes),
                size(one.peer_tx_bytes),
                (one.peak_bps / 1000).to_string(),
            ]
        };
        print(self.record.format, &columns, &open, row, "No allocation is open.")?;
        for line in health_lines(&health, seen_ms, now_ms) {
            note(line);
        }
        Ok(())
    }
}

/// How the inputs fared when the server last wrote.
fn health_lines(health: &Value, seen_ms: Option<u64>, now_ms: u64) -> Vec<String> {
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
    let text = |value: &Value, name: &str| {
        printable(value.get(name).and_then(Value::as_str).unwrap_or_default(), NAME_WIDTH)
    };
    let Some(seen_ms) = seen_ms else {
        return vec!["no server with TURN has written this record yet".to_owned()];
    };
    let mut lines = Vec::new();
    let age_ms = now_ms.saturating_sub(seen_ms);
    if age_ms > STALE_MS {
        lines.push(format!("no server is running on this record; as of {} ago:", duration(age_ms)));
    }
    for input in health.get("inputs").and_then(Value::as_array).into_iter().flatten() {
        let connected =
            if input.get("connected") == Some(&Value::Bool(true)) { "connected" } else { "silent" };
        let last = match number(input, "last_message_ms") {
            0 => "nothing heard yet".to_owned(),
            ms => format!("last heard {} ago", duration(now_ms.saturating_sub(ms))),
        };
        lines.push(format!(
            "input {} {}: {connected}, {last}, {} messages, {} gaps, {} unreadable",
            text(input, "name"),
            text(input, "address"),
            number(input, "messages"),
            number(input, "gaps"),
            number(input, "unreadable"),
        ));
    }
    let account = health.get("accounting").unwrap_or(&Value::Null);
    lines.push(format!(
        "accounting: {} orphans, {} ambiguous, {} duplicates, {} server restarts, {} refused, {} rows lost",
        number(account, "orphans"),
        number(account, "ambiguous"),
        number(account, "duplicates"),
        number(account, "node_restarts"),
        number(account, "refused"),
        number(health, "rows_refused"),
    ));
    lines
}

/// Prints rows as a table, or whole as CSV or JSON.
fn print<T: Serialize + Default>(
    format: Format,
    columns: &[(&str, Align)],
    values: &[T],
    row: impl Fn(&T) -> Vec<String>,
    empty: &str,
) -> Result<(), Box<dyn Error>> {
    match format {
        Format::Json => say(serde_json::to_string_pretty(values)?),
        Format::Csv => say(csv(values)?.trim_end()),
        Format::Table if values.is_empty() => note(empty),
        Format::Table => {
            let mut table = Table::new(columns);
            values.iter().for_each(|value| table.row(row(value)));
            let mut text = String::new();
            table.render("", &mut text);
            say(text.trim_end());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_told_with_their_age() {
        let health = json!({
            "inputs": [{ "name": "resp", "address": "127.0.0.1:6380", "connected": true, "last_message_ms": 50_000, "messages": 7 }],
            "accounting": { "orphans": 2, "ambiguous": 1 },
        });
        let lines = health_lines(&health, Some(60_000), 100_000);
        assert_eq!(
            lines,
            [
                "no server is running on this record; as of 40.0 s ago:",
                "input resp 127.0.0.1:6380: connected, last heard 50.0 s ago, 7 messages, 0 gaps, 0 unreadable",
                "accounting: 2 orphans, 1 ambiguous, 0 duplicates, 0 server restarts, 0 refused, 0 rows lost",
            ]
        );
        assert_eq!(health_lines(&Value::Null, None, 0).len(), 1);
    }
}
