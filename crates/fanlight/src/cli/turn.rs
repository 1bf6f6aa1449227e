//! `fanlight turn`.

use super::{note, say};
use clap::{Args, Subcommand, ValueEnum};
use fanlight_store::{ReportError, TurnQuery, turn_open_allocations, turn_sessions};
use fanlight_telemetry::decode::recording::{Reading, Tables};
use fanlight_telemetry::turn_account::usage::{By, Price, Usage, usage};
use fanlight_telemetry::turn_account::{
    AllocationRecord, Class, Health, SessionRecord, Settings, TurnAccount, table,
};
use serde::Serialize;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Who used the TURN relay, how long and how much
#[derive(Debug, Subcommand)]
pub(crate) enum Turn {
    /// User sessions: from a user's first allocation until all are gone
    Sessions(Sessions),
    /// Sessions added up by user, room or day, with a price
    Usage(UsageOf),
    /// Allocations that are open now
    Live(Live),
    /// Account for a recorded stream of coturn's messages (lines of UTC time, channel and payload, parted by tabs)
    Import(Import),
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The recording
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// Where to write a table of the allocations
    #[arg(long, value_name = "OUT")]
    allocations_tsv: Option<PathBuf>,
    /// Where to write a table of the user sessions
    #[arg(long, value_name = "OUT")]
    sessions_tsv: Option<PathBuf>,
    /// A user who is back within so many seconds goes on with the same session
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    merge_gap: u64,
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
    /// Of this person only
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
    fn sessions(&self) -> Result<Vec<SessionRecord>, ReportError> {
        let query = TurnQuery {
            from_ms: self.from,
            to_ms: self.to,
            person: self.user.clone(),
            room: self.room.clone(),
            realm: self.realm.clone(),
        };
        turn_sessions(self.record.dir(), &query)
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
        let sessions = self.which.sessions()?;
        let head = [
            "started",
            "user",
            "realm",
            "room",
            "held",
            "active",
            "allocations",
            "most",
            "rx bytes",
            "tx bytes",
            "class",
            "quality",
            "end",
        ];
        let row = |session: &SessionRecord| {
            vec![
                table::utc(session.started_ms),
                session.who.person.to_string(),
                session.realm.to_string(),
                session.who.room.to_string(),
                minutes(session.held_ms()),
                minutes(session.active_ms()),
                session.allocations.to_string(),
                session.max_concurrent.to_string(),
                session.peer.rx_bytes.to_string(),
                session.peer.tx_bytes.to_string(),
                session.class.as_str().to_owned(),
                session.quality.as_str().to_owned(),
                session.ended.map_or("open", |(_, reason)| reason.as_str()).to_owned(),
            ]
        };
        print(self.which.record.format, &head, sessions.iter().map(row).collect(), &sessions)
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
        let by = match self.by {
            ByWhat::User => By::User,
            ByWhat::Room => By::Room,
            ByWhat::Day => By::Day,
        };
        let price = Price { per_gb: self.price_per_gb, per_minute: self.price_per_minute };
        let lines = usage(&self.which.sessions()?, by, price);
        let name = match self.by {
            ByWhat::User => "user",
            ByWhat::Room => "room",
            ByWhat::Day => "day",
        };
        let head = [
            name,
            "realm",
            "sessions",
            "relayed",
            "allocations",
            "held",
            "active",
            "rx bytes",
            "tx bytes",
            "quality",
            "price",
        ];
        let row = |line: &Usage| {
            vec![
                line.key.clone(),
                line.realm.clone(),
                line.sessions.to_string(),
                line.relayed.to_string(),
                line.allocations.to_string(),
                minutes(line.held_ms),
                minutes(line.active_ms),
                line.peer.rx_bytes.to_string(),
                line.peer.tx_bytes.to_string(),
                line.quality.to_owned(),
                format!("{:.2}", line.price),
            ]
        };
        print(self.which.record.format, &head, lines.iter().map(row).collect(), &lines)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Live {
    #[command(flatten)]
    record: Record,
}

impl Live {
    fn run(self) -> Result<(), Box<dyn Error>> {
        let open = turn_open_allocations(self.record.dir())?;
        let head = [
            "since",
            "user",
            "realm",
            "room",
            "node",
            "transport",
            "remote",
            "rx bytes",
            "tx bytes",
            "peak kbit/s",
        ];
        let row = |one: &AllocationRecord| {
            vec![
                table::utc(one.started_ms),
                one.who.person.to_string(),
                one.name.realm.to_string(),
                one.who.room.to_string(),
                one.node.to_string(),
                one.path.transport.to_string(),
                one.path.remote.to_string(),
                one.peer.rx_bytes.to_string(),
                one.peer.tx_bytes.to_string(),
                (one.peak_bps / 1000).to_string(),
            ]
        };
        print(self.record.format, &head, open.iter().map(row).collect(), &open)
    }
}

/// Prints rows, or the same as JSON.
fn print<T: Serialize>(
    format: Format,
    head: &[&str],
    rows: Vec<Vec<String>>,
    values: &[T],
) -> Result<(), Box<dyn Error>> {
    match format {
        Format::Json => say(serde_json::to_string_pretty(values)?),
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(head.iter().map(|name| name.replace([' ', '/'], "_")))?;
            for row in rows {
                writer.write_record(row)?;
            }
            say(String::from_utf8(writer.into_inner()?)?.trim_end());
        }
        Format::Table => {
            let head: Vec<String> = head.iter().map(|name| name.to_uppercase()).collect();
            let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
            let widths: Vec<usize> = (0..rows[0].len())
                .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
                .collect();
            for row in rows {
                let cells =
                    row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", printable(cell)));
                say(cells.collect::<Vec<_>>().join("  ").trim_end());
            }
        }
    }
    Ok(())
}

/// A user name is whatever a client said: it moves no cursor.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn minutes(ms: u64) -> String {
    format!("{}:{:02}", ms / 60_000, ms / 1_000 % 60)
}

impl Import {
    fn run(self) -> Result<(), Box<dyn Error>> {
        let settings = Settings { merge_gap_ms: self.merge_gap.saturating_mul(1_000), ..Settings::default() };
        let mut account = TurnAccount::new(settings, 1);
        let (mut reading, mut tables) = (Reading::default(), Tables::default());
        let file = File::open(&self.recording).map_err(|error| named(&self.recording, &error))?;
        for line in BufReader::new(file).lines() {
            reading.line(&mut account, &line.map_err(|error| named(&self.recording, &error))?);
            tables.drain(&mut account);
        }
        // The last end has its totals by now, if they came.
        account.handle_timeout(reading.latest_ms.saturating_add(TOTALS_MS));
        tables.drain(&mut account);
        if let Some(path) = &self.allocations_tsv {
            write_table(path, table::ALLOCATIONS, tables.allocations.iter().map(table::allocation))?;
        }
        if let Some(path) = &self.sessions_tsv {
            write_table(path, table::SESSIONS, tables.sessions.iter().map(table::session))?;
        }
        summarise(&reading, &tables, &account);
        Ok(())
    }
}

/// coturn tells totals within milliseconds of an end.
const TOTALS_MS: u64 = 2_000;

fn summarise(reading: &Reading, tables: &Tables, account: &TurnAccount) {
    let of = |class: Class| tables.sessions.iter().filter(|session| session.class == class).count();
    let relayed: u64 = tables.sessions.iter().map(|session| session.peer.bytes()).sum();
    let held_ms: u64 = tables.sessions.iter().map(|session| session.held_ms()).sum();
    say(format_args!("{} messages, {} lines not understood", reading.messages, reading.unreadable));
    say(format_args!(
        "{} allocations ended, {} are still open",
        tables.allocations.len(),
        account.open_allocations().count()
    ));
    say(format_args!(
        "{} user sessions: {} relayed, {} checks only, {} unused; {:.1} minutes held, {relayed} bytes of payload relayed",
        tables.sessions.len(),
        of(Class::Relayed),
        of(Class::ChecksOnly),
        of(Class::Unused),
        held_ms as f64 / 60_000.0,
    ));
    let Health { duplicates, orphans, ambiguous, refused, node_restarts, outages, .. } = account.health();
    note(format_args!(
        "input: {node_restarts} server restarts, {outages} outages, {duplicates} duplicates, {orphans} names with traffic \
         but no allocation, {ambiguous} ambiguous, {refused} refused"
    ));
}

fn write_table(path: &Path, head: &str, rows: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{head}")?;
        for row in rows {
            writeln!(file, "{row}")?;
        }
        file.flush()
    };
    write().map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &std::io::Error) -> Box<dyn Error> {
    format!("{}: {error}", path.display()).into()
}
