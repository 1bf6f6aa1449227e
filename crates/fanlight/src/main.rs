//! The Fanlight server and its command line.

mod cli;
mod config;
mod control_loop;
mod load;
mod net;
mod serve;
mod shutdown;
mod signals;
mod wire;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match arguments.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
