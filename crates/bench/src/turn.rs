//! `bench turn`: what relaying costs, in the core alone and in the whole server beside coturn.

use crate::{Failure, turn_core, turn_lab};
use std::process::Command;

/// Everything; the part that measures memory has a process of its own.
pub(crate) fn run() -> Result<(), Failure> {
    turn_core::packets()?;
    let status = Command::new(std::env::current_exe()?).args(["turn", "ended"]).status()?;
    if !status.success() {
        return Err("ended failed".into());
    }
    turn_lab::run()
}

/// One part.
pub(crate) fn run_part(part: &str) -> Result<(), Failure> {
    match part {
        "core" => turn_core::packets(),
        "ended" => turn_core::ended(),
        "lab" => turn_lab::run(),
        _ => Err("turn core|ended|lab".into()),
    }
}
