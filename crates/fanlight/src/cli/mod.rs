//! The command line.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line is for")]

mod collector;
mod report;
mod token;
mod turn;

use crate::config::Overrides;
use crate::serve;
use clap::{Args, Parser, Subcommand};
use fanlight_base::Redacted;
use std::error::Error;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

/// A WebRTC media server that LiveKit's SDKs talk to, and that remembers and explains every call
#[derive(Debug, Parser)]
#[command(name = "fanlight", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

const AFTER_HELP: &str = "Without a command it serves. To try it: fanlight --dev\n\
    Logs go to standard error; FANLIGHT_LOG sets their level (error, warn, info, debug).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell who was in a room, when, and what they sent and received; also while the server runs
    Report(report::Report),
    /// Take clients' reports in place of a Kohaku, without a media server
    Collector(collector::Collector),
    /// Make access tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Account for TURN
    #[command(subcommand)]
    Turn(turn::Turn),
}

#[derive(Debug, Args)]
struct Serve {
    /// Try it out: key `devkey`, secret `secret`, loopback addresses, tokens for /meet without asking
    #[arg(long)]
    dev: bool,
    /// Configuration, LiveKit's config.yaml; our own keys stand under `fanlight:`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for HTTP and WebSocket; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    bind: Vec<IpAddr>,
    /// Port for HTTP and WebSocket [default: 7880]
    #[arg(long)]
    port: Option<u16>,
    /// Address clients send media to
    #[arg(long, value_name = "ADDRESS", env = "NODE_IP", hide_env_values = true)]
    node_ip: Option<IpAddr>,
    /// API keys, as YAML: "key: secret"
    #[arg(long, value_name = "KEYS", env = "LIVEKIT_KEYS", hide_env_values = true)]
    keys: Option<String>,
    /// File with API keys, readable by its owner only
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where the record is kept [default: ./fanlight-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Let the collector answer exactly as Kohaku does, errors included
    #[arg(long)]
    strict_kohaku: bool,
}

impl Arguments {
    /// Does what was asked.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        match self.command {
            None => serve::run(self.serve.into()),
            Some(Command::Report(report)) => report.run(),
            Some(Command::Collector(collector)) => collector.run(),
            Some(Command::Token(token)) => token.run(),
            Some(Command::Turn(turn)) => turn.run(),
        }
    }
}

impl From<Serve> for Overrides {
    fn from(serve: Serve) -> Self {
        Self {
            dev: serve.dev,
            config: serve.config,
            bind: serve.bind,
            port: serve.port,
            node_ip: serve.node_ip,
            keys: serve.keys.map(Redacted::new),
            key_file: serve.key_file,
            data_dir: serve.data_dir,
            strict_kohaku: serve.strict_kohaku,
        }
    }
}

/// Prints an error with its causes.
pub(crate) fn complain(error: &dyn Error) {
    eprintln!("fanlight: {}", harmless(error));
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {}", harmless(error));
        cause = error.source();
    }
}

/// Prints a line for people.
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{}", harmless(line));
}

/// Prints a remark, which is not part of the answer.
fn note(line: impl std::fmt::Display) {
    eprintln!("{}", harmless(line));
}

/// What is printed, with every character that a terminal would obey instead of show, or that turns the direction of
/// writing, as `\u001b`: names and errors come from outside. JSON stays the same JSON.
fn harmless(line: impl std::fmt::Display) -> String {
    let mut shown = String::new();
    for char in line.to_string().chars() {
        let is_layout = matches!(char, '\n' | '\t');
        if (char.is_control() && !is_layout)
            || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            let _ = write!(shown, "\\u{:04x}", u32::from(char));
        } else {
            shown.push(char);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_readmes_calls_are_understood() {
        for call in [
            "fanlight --dev",
            "fanlight --dev --data-dir d --port 1",
            "fanlight report --room r --json --data-dir d",
            "fanlight token create --room r --identity i",
            "fanlight turn import f --allocations-tsv a --sessions-tsv s",
            "fanlight turn import f --data-dir d --room-separator /",
            "fanlight turn usage --by room --price-per-gb 0.05 --price-per-minute 0.001 --format csv",
            "fanlight token create --config f --room-admin --identity me",
            "fanlight collector --kohaku-config config.ini --data-dir d --sqlite --strict-kohaku",
        ] {
            assert!(Arguments::try_parse_from(call.split(' ')).is_ok(), "{call}");
        }
    }

    #[test]
    fn no_name_speaks_to_the_terminal_and_json_stays_the_same() {
        let name = "\u{1b}]0;pwned\u{7}\u{9b}2J\u{7f}\u{202e}\r\u{2066}";
        let shown = harmless(format_args!("participant {name}\n\tnext"));
        assert_eq!(shown, "participant \\u001b]0;pwned\\u0007\\u009b2J\\u007f\\u202e\\u000d\\u2066\n\tnext");
        let json = serde_json::json!({ "identity": name }).to_string();
        let read: serde_json::Value = serde_json::from_str(&harmless(json)).unwrap();
        assert_eq!(read["identity"], name);
    }
}
