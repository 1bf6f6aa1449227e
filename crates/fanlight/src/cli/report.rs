//! `fanlight report`.

use super::say;
use clap::Args;
use std::error::Error;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Name of the room, or the sid of one session of it
    #[arg(long, value_name = "NAME|SID")]
    room: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Report {
    pub(super) fn run(self, data_dir: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
        let dir = data_dir.unwrap_or_else(|| Path::new(crate::config::DATA_DIR_DEFAULT).to_owned());
        let report = fanlight_store::report(&dir, &self.room)?;
        if self.json {
            say(serde_json::to_string_pretty(&report)?);
        } else {
            say(fanlight_telemetry::report::text(&report));
        }
        Ok(())
    }
}
