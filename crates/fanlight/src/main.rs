//! The Fanlight server and its command line.

mod cli;
mod client_metrics;
mod collector;
mod config;
mod control_loop;
mod coturn;
mod descriptors;
mod external_ip;
mod health;
mod load;
mod metrics;
mod net;
mod private_files;
mod record;
mod serve;
mod shutdown;
mod tls;
mod turn;
mod wire;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    private_files::restrict_new_files();
    let arguments = cli::Arguments::parse();
    match arguments.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}
