//! `fanlight turn import`.

use super::{note, say};
use clap::Args;
use fanlight_store::TurnImport;
use fanlight_telemetry::decode::recording::{Reading, Tables};
use fanlight_telemetry::decode::release::Release;
use fanlight_telemetry::turn_account::{Class, Health, Identity, Settings, TurnAccount, table};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// coturn tells totals within milliseconds of an end.
const TOTALS_MS: u64 = 2_000;

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
    /// Put them on record here, while no server runs on it; without it they are only counted
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A user who is back within so many seconds goes on with the same session
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    merge_gap: u64,
    /// Parts room and person in user names
    #[arg(long, value_name = "CHARACTER")]
    room_separator: Option<char>,
    /// Release of the coturns that were recorded, like 4.17: from 4.11 on they count some bytes too many
    #[arg(long, value_name = "RELEASE")]
    coturn_version: Option<Release>,
}

impl Import {
    pub(super) fn run(self) -> Result<(), Box<dyn Error>> {
        let settings = Settings {
            identity: Identity { room_separator: self.room_separator, ..Identity::default() },
            merge_gap_ms: self.merge_gap.saturating_mul(1_000),
        };
        let mut record = self.data_dir.as_deref().map(TurnImport::open).transpose()?;
        let first = record.as_ref().map_or(1, TurnImport::next_number);
        let mut account = TurnAccount::new(settings, first);
        let mut reading = self.coturn_version.map_or_else(Reading::default, Reading::of_release);
        let mut tables = Tables::default();
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
        if let Some(record) = &mut record {
            end_all(&mut account, &mut tables);
            let (sessions, allocations) = (tables.sessions.len(), tables.allocations.len());
            record.write(tables.sessions, tables.allocations)?;
            say(format_args!("{sessions} sessions with {allocations} allocations are on record"));
        }
        Ok(())
    }
}

/// What is still open when the recording ends was heard of no more: it ends as lost, within its bounds.
fn end_all(account: &mut TurnAccount, tables: &mut Tables) {
    account.handle_input_back();
    loop {
        let due_ms = account.next_timeout_ms();
        if due_ms == u64::MAX {
            return;
        }
        account.handle_timeout(due_ms);
        tables.drain(account);
    }
}

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
