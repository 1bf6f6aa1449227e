//! `cargo xtask test`: every check and every test, counted, with one closing line.

use crate::{Failure, environment, process, tidy};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A whole build from nothing on two slow cores stays below this.
const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);
/// A thousand kills take a quarter of an hour.
const SOAK_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);
/// All browser and SDK tests together.
const END_TO_END_LIMIT: Duration = Duration::from_secs(25 * 60);

/// The benchmarks of `crates/bench`.
const BENCHES: &[&str] = &[
    "plane",
    "sockets",
    "sctp",
    "joins",
    "memory",
    "ice",
    "negotiate",
    "accounting",
    "turn",
    "collector",
    "hostile",
];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    fn of(ok: bool) -> Self {
        Self { passed: u64::from(ok), failed: u64::from(!ok) }
    }
}

/// Runs everything, `browsers` and SDKs included. A failed check does not keep the others from running.
pub(crate) fn test(root: &Path, browsers: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let mut total = Counts::default();
    total.add(step("coturn, Redis and PostgreSQL are installed", environment::prepare_tests));
    if browsers {
        total.add(step("what the tests need is installed", || environment::prepare_end_to_end(root)));
    }
    total.add(cargo_step(root, "the code is formatted", &["fmt", "--all", "--check"]));
    total.add(step("tidy", || tidy::check(root)));
    let clippy =
        ["clippy", "--release", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    total.add(cargo_step(root, "clippy has nothing to say", &clippy));
    let built = cargo_step(root, "the server builds", &["build", "--release", "--quiet"]);
    total.add(built);
    let without = ["check", "--release", "--package", "fanlight", "--no-default-features", "--quiet"];
    total.add(cargo_step(root, "the server builds without its page", &without));
    total.add(cargo_tests(root));
    if browsers && built.failed == 0 {
        total.add(run_end_to_end(root, &[]));
    }
    total.add(step("dependencies, licenses and sources are the allowed ones", || deny(root)));
    println!("\nall in {:.0} s", started.elapsed().as_secs_f64());
    close(total)
}

/// Builds the server and runs the end-to-end tests whose name contains one of `names`.
pub(crate) fn end_to_end(root: &Path, names: &[&str]) -> Result<(), Failure> {
    environment::prepare_end_to_end(root)?;
    let mut total = cargo_step(root, "the server builds", &["build", "--release", "--quiet"]);
    if total.failed == 0 {
        total.add(run_end_to_end(root, names));
    }
    close(total)
}

/// cargo-deny without advisories: their database is fetched from outside the registry, which CI may not reach.
pub(crate) fn deny(root: &Path) -> Result<(), Failure> {
    let mut command = Command::new(environment::cargo_deny(root)?);
    command.args(["--log-level", "error", "check", "bans", "licenses", "sources"]).current_dir(root);
    let ended = process::run(command, BUILD_LIMIT, |line| println!("{line}"))?;
    if ended.success { Ok(()) } else { Err("cargo-deny found something".to_string()) }
}

/// Runs one benchmark of `crates/bench`; its lines are `name<TAB>value<TAB>unit`.
pub(crate) fn bench(root: &Path, name: &str, rest: &[&str]) -> Result<(), Failure> {
    if !BENCHES.contains(&name) {
        return Err(format!("unknown benchmark `{name}`: {}", BENCHES.join(", ")));
    }
    if ["turn", "collector"].contains(&name) {
        environment::prepare_tests()?;
    }
    if ["joins", "memory", "turn", "collector", "hostile"].contains(&name) {
        build_server(root)?;
    }
    run_bench(root, name, rest, BUILD_LIMIT)
}

/// Kills the real server over and over, and looks for what it had answered.
pub(crate) fn soak(root: &Path, rest: &[&str]) -> Result<(), Failure> {
    build_server(root)?;
    run_bench(root, "soak", rest, SOAK_LIMIT)
}

fn build_server(root: &Path) -> Result<(), Failure> {
    let build = cargo(root, &["build", "--quiet", "--release", "--package", "fanlight"]);
    let built = process::run(build, BUILD_LIMIT, |line| println!("{line}"))?;
    if built.success { Ok(()) } else { Err("the server does not build".to_string()) }
}

fn run_bench(root: &Path, name: &str, rest: &[&str], limit: Duration) -> Result<(), Failure> {
    let mut command =
        cargo(root, &["run", "--quiet", "--release", "--package", "fanlight-bench", "--", name]);
    command.args(rest);
    let ended = process::run(command, limit, |line| println!("{line}"))?;
    if ended.success { Ok(()) } else { Err(format!("{name} failed")) }
}

fn close(total: Counts) -> Result<(), Failure> {
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed == 0 { Ok(()) } else { Err("not everything passed".to_string()) }
}

fn step(name: &str, work: impl FnOnce() -> Result<(), Failure>) -> Counts {
    let started = Instant::now();
    let outcome = work();
    if let Err(failure) = &outcome {
        println!("{failure}");
    }
    report(name, outcome.is_ok(), started.elapsed());
    Counts::of(outcome.is_ok())
}

fn cargo_step(root: &Path, name: &str, arguments: &[&str]) -> Counts {
    step(name, || {
        let ended = process::run(cargo(root, arguments), BUILD_LIMIT, |line| println!("{line}"))?;
        if ended.success { Ok(()) } else { Err(format!("cargo {} failed", arguments.join(" "))) }
    })
}

/// Counts what the test harness reports; a test binary that does not even build or dies is one failure more.
fn cargo_tests(root: &Path) -> Counts {
    let mut counts = Counts::default();
    let started = Instant::now();
    let arguments = ["test", "--workspace", "--release", "--no-fail-fast"];
    let ended = process::run(cargo(root, &arguments), BUILD_LIMIT, |line| match harness_line(line) {
        Some(more) => counts.add(more),
        None if line.is_empty() || line.starts_with("running ") => {}
        None => println!("{line}"),
    });
    let ok = ended.as_ref().is_ok_and(|ended| ended.success);
    if !ok && counts.failed == 0 {
        counts.failed = 1;
    }
    report(
        &format!("cargo test ({} passed, {} failed)", counts.passed, counts.failed),
        ok,
        started.elapsed(),
    );
    counts
}

fn run_end_to_end(root: &Path, names: &[&str]) -> Counts {
    let started = Instant::now();
    let mut command = Command::new("node");
    command.arg("tests/e2e/run.mjs").args(names).current_dir(root);
    let mut counts = Counts::default();
    let ended = process::run(command, END_TO_END_LIMIT, |line| match closing_line(line) {
        Some(closing) => counts = closing,
        None => println!("{line}"),
    });
    let ok = ended.is_ok_and(|ended| ended.success) && counts.failed == 0;
    if !ok && counts.failed == 0 {
        counts.failed = 1;
    }
    report(
        &format!("end to end ({} passed, {} failed)", counts.passed, counts.failed),
        ok,
        started.elapsed(),
    );
    counts
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root);
    command
}

fn report(name: &str, ok: bool, took: Duration) {
    println!("{} {name} ({:.1} s)", if ok { "ok  " } else { "FAIL" }, took.as_secs_f64());
}

/// `test result: ok. 3 passed; 0 failed; 0 ignored; …`; a test that is not run has not passed.
fn harness_line(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in rest.split(';') {
        match part.trim().split_once(' ') {
            Some((number, "passed")) => counts.passed = number.parse().ok()?,
            Some((number, "failed" | "ignored")) => counts.failed += number.parse::<u64>().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

/// `3 passed, 0 failed`
fn closing_line(line: &str) -> Option<Counts> {
    let (passed, failed) = line.split_once(" passed, ")?;
    Some(Counts { passed: passed.parse().ok()?, failed: failed.strip_suffix(" failed")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(harness_line(line), Some(Counts { passed: 12, failed: 4 }));
        assert_eq!(harness_line("running 3 tests"), None);
    }

    #[test]
    fn the_closing_line_is_counted() {
        assert_eq!(closing_line("7 passed, 1 failed"), Some(Counts { passed: 7, failed: 1 }));
        assert_eq!(closing_line("ok a test passed, 1 failed"), None);
    }
}
