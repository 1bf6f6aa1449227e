//! `fanlight turn`.

use super::{note, say};
use clap::{Args, Subcommand};
use fanlight_telemetry::decode::recording::{Reading, Tables};
use fanlight_telemetry::turn_account::{Class, Health, Settings, TurnAccount, table};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Who used the TURN relay, how long and how much
#[derive(Debug, Subcommand)]
pub(crate) enum Turn {
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
            Self::Import(import) => import.run(),
        }
    }
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
