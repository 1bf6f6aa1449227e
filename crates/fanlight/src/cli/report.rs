//! `fanlight report`.

use super::{note, say};
use crate::config::{Collector, DATA_DIR_DEFAULT, File};
use crate::wire::clients_reader;
use clap::Args;
use fanlight_shard::Clock;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Name of the room, or the sid of one session of it
    #[arg(long, value_name = "NAME|SID")]
    room: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The server's configuration: where the record is, and the PostgreSQL that keeps clients' reports
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the record is kept [default: ./fanlight-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self) -> Result<(), Box<dyn Error>> {
        let file = self.config.as_deref().map(File::read).transpose()?;
        let (named, collector) = match file {
            Some(file) => (file.fanlight.data_dir, file.fanlight.collector),
            None => (None, Collector::default()),
        };
        let dir = self.data_dir.or(named).unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT));
        let mut report = fanlight_store::report(&dir, &self.room)?;
        if let Err(error) = clients_reader(&dir, &collector)?.put_beside(&mut report) {
            note(format_args!("what clients counted is missing, because it cannot be read: {error}"));
        }
        if self.json {
            say(report.to_json());
        } else {
            let now = Clock::new(Instant::now()).now();
            say(report.to_text(now.unix_ms()));
        }
        Ok(())
    }
}
