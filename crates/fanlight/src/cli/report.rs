//! `fanlight report`.

use super::say;
use clap::Args;
use fanlight_shard::Clock;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Name of the room, or the sid of one session of it
    #[arg(long, value_name = "NAME|SID")]
    room: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where the record is kept [default: ./fanlight-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self) -> Result<(), Box<dyn Error>> {
        let dir = self.data_dir.unwrap_or_else(|| Path::new(crate::config::DATA_DIR_DEFAULT).to_owned());
        let report = fanlight_store::report(&dir, &self.room)?;
        if self.json {
            say(report.to_json());
        } else {
            let now = Clock::new(Instant::now()).now();
            say(report.to_text(now.unix_ms()));
        }
        Ok(())
    }
}
