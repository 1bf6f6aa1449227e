//! Measures what the server costs: `fanlight-bench plane|sockets|sctp|joins|memory|ice|negotiate|accounting|turn|collector|hostile`.
//!
//! Every figure is one line, `name<TAB>value<TAB>unit`. docs/performance.md says what each of them means.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints what it measured")]

mod accounting;
mod collector;
mod connection;
mod cpu;
mod crowd;
mod figures;
mod floor;
mod hall;
mod hostile;
mod ice;
mod joins;
mod memory;
mod negotiate;
mod participant;
mod payload;
mod plane;
mod process;
mod sctp;
mod server;
mod soak;
mod sockets;
mod stage;
mod stun;
mod turn;
mod turn_client;
mod turn_core;
mod turn_lab;
mod udp;
mod websocket;

use std::process::ExitCode;

/// What went wrong.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["plane", filter @ ..] => plane::run(filter.first().copied()),
        ["sockets"] => sockets::run(),
        ["sctp"] => sctp::run(),
        ["sctp", part] => sctp::run_part(part),
        ["joins"] => joins::run(),
        ["memory"] => memory::run(),
        ["ice"] => ice::run(),
        ["negotiate", filter @ ..] => negotiate::run(filter.first().copied()),
        ["turn"] => turn::run(),
        ["turn", part] => turn::run_part(part),
        ["accounting"] => accounting::run(),
        ["accounting", part] => accounting::run_part(part),
        ["hostile", rest @ ..] => hostile::run(rest),
        ["soak", rest @ ..] => soak::run(rest),
        ["collector", rest @ ..] => collector::run(rest),
        _ => Err("fanlight-bench plane|sockets|sctp|joins|memory|ice|negotiate|accounting|turn|collector|hostile|soak"
            .into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
