//! `cargo xtask fuzz`: searches with libFuzzer, with inputs as long as the wire allows. It needs a nightly toolchain and cargo-fuzz
//! (`cargo install cargo-fuzz`); tests need neither: they replay `fuzz/corpus`.

use crate::{Failure, process};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MINUTES: u64 = 15;
/// The build of all targets, and what libFuzzer takes to end.
const SLACK: Duration = Duration::from_secs(30 * 60);
/// One input that takes longer than this is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
/// What strangers and clients can reach first, searched when no target is named.
const DOORS: &[&str] = &[
    "transport_sctp",
    "transport_ice",
    "transport_demux",
    "turn_datagram",
    "resp",
    "sdp",
    "signal_request",
    "http_head",
];

/// `[MINUTES] [TARGET..]`
pub(crate) fn search(root: &Path, words: &[&str]) -> Result<(), Failure> {
    let (minutes, targets) = match words {
        [first, rest @ ..] if first.parse::<u64>().is_ok() => (first.parse().unwrap_or(MINUTES), rest),
        _ => (MINUTES, words),
    };
    for target in if targets.is_empty() { DOORS } else { targets } {
        let mut command = Command::new("cargo");
        command.args(["+nightly", "fuzz", "run", target, "--"]).current_dir(root);
        command.arg(format!("-max_total_time={}", minutes * 60));
        command.arg(format!("-max_len={}", length_max(target)));
        command.args([
            &format!("-timeout={INPUT_SECONDS_MAX}"),
            "-rss_limit_mb=3000",
            "-print_final_stats=1",
        ]);
        let limit = Duration::from_secs(minutes * 60) + SLACK;
        let ended = process::run(command, limit, |line| println!("{line}"))?;
        if !ended.success {
            return Err(format!(
                "{target}: a finding, or no nightly and cargo-fuzz; see above and fuzz/artifacts"
            ));
        }
        println!("{target}: nothing found in {minutes} minutes");
    }
    Ok(())
}

/// What a peer can say at once, in bytes, by the limits of the crates; of what comes in parts, some of them.
fn length_max(target: &str) -> usize {
    match target {
        "transport_ice" | "resp" => 128 << 10,
        "sdp" => 1 << 20,
        // A head of the greatest length, and another one.
        "http_head" => 2 << 20,
        "signal_request" | "join_request" => (2 << 20) + 1,
        _ => 64 << 10,
    }
}
