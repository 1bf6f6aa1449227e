//! Chores of the workspace: `cargo xtask help` lists them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore speaks on the terminal")]

mod environment;
mod fuzz;
mod layers;
mod process;
mod suite;
mod tidy;
mod walls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What went wrong, as one message for the terminal.
pub(crate) type Failure = String;

const HELP: &str = "cargo xtask COMMAND

  test           installs what the tests need, then runs every check and every test
  test --no-e2e  the same without browsers and SDKs
  e2e [WORD..]   the end-to-end tests alone, or those whose name contains a WORD
  tidy           layer rules, clippy walls, file and function sizes, banned words
  tidy --write   writes the clippy walls of the pure crates anew
  deny           cargo-deny: bans, licenses, sources
  bench NAME     prints figures; NAME is plane, sockets, sctp, joins, memory, ice, negotiate, accounting, turn, collector or hostile
  soak --kill [KILLS] [SEED]
                 kills a server at random moments of a churn, 1000 times, and looks for all that it had answered
  fuzz [MINUTES] [TARGET..]
                 searches with cargo-fuzz and nightly, 15 minutes a target; those that strangers reach, if none is named";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let outcome = match words.as_slice() {
        ["test"] => suite::test(&root, true),
        ["test", "--no-e2e"] => suite::test(&root, false),
        ["e2e", names @ ..] => suite::end_to_end(&root, names),
        ["tidy"] => tidy::check(&root),
        ["tidy", "--write"] => walls::write(&root),
        ["deny"] => suite::deny(&root),
        ["soak", "--kill", rest @ ..] => suite::soak(&root, rest),
        ["fuzz", rest @ ..] => fuzz::search(&root, rest),
        ["bench", name, rest @ ..] => suite::bench(&root, name, rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(format!("unknown command `{}`\n\n{HELP}", words.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
