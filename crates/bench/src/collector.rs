//! `bench collector [PART..] [--rows N]`: what it costs to take clients' reports, from HTTP/2 to the commit.
//!
//! The real server takes reports as Sora posts them, over HTTP/2 by prior knowledge. It is measured with nothing stored, with N
//! rows stored in the same way, with 1,000 reports under way at a time, and with a database that has stopped.

mod bodies;
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "it is the tests': a benchmark that cannot go on has failed, too"
)]
#[path = "../../store/tests/cluster/mod.rs"]
mod cluster;
mod database;
mod exporter;
mod hung;
mod rows;
mod streams;
mod target;

use crate::Failure;
use crate::cpu::Stopwatch;
use crate::figures::{median, print};
use bodies::Bodies;
use fanlight_telemetry::collector::{Dedup, DedupSettings};
use fanlight_telemetry::decode::kohaku::{Kind, parse};
use std::hint::black_box;

/// Rows stored before the second measurement, unless said otherwise.
const ROWS: u64 = 10_000_000;
/// Gets how many rows to fill in.
type Part = fn(u64) -> Result<(), Failure>;
/// In the order in which they are run.
const PARTS: [(&str, Part); 5] = [
    ("decode", |_| decode()),
    ("streams", |_| streams::run()),
    ("hung", |_| hung::run()),
    ("sqlite", |rows| rows::run(&database::Sqlite, rows)),
    ("postgres", |rows| rows::run(&database::Postgres::start(), rows)),
];
/// Peers of a measurement without a database.
const PEERS: u64 = 200;

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let mut rows = ROWS;
    let mut wanted = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--rows" => rows = arguments.next().ok_or("--rows needs a number")?.parse()?,
            part if PARTS.iter().any(|(name, _)| *name == part) => wanted.push(part),
            other => {
                let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
                return Err(format!("unknown part `{other}`: {} or --rows N", names.join(", ")).into());
            }
        }
    }
    PARTS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.contains(name))
        .try_for_each(|(_, part)| part(rows))
}

/// What reading a body and comparing it cost, without HTTP and without a database.
fn decode() -> Result<(), Failure> {
    let bodies = Bodies::new();
    let mut dedup = Dedup::new(DedupSettings::default(), 1);
    let (mut parsing, mut comparing) = (Vec::new(), Vec::new());
    let (mut watch, mut compared) = (Stopwatch::new(), Stopwatch::new());
    let (mut bytes, mut objects) = (0, 0);
    for sample in 0..9 {
        objects = 0;
        for number in 0..PEERS * 5 {
            let body = bodies.body(number % PEERS, sample * 5 + number / PEERS);
            bytes = body.len();
            watch.start();
            let report = parse(Kind::UserAgent, &body)?;
            watch.stop();
            objects += report.objects.len();
            let now_ms = report.at_ns / 1_000_000;
            compared.start();
            black_box(dedup.plan(now_ms, report));
            compared.stop();
        }
        parsing.push(watch.take() as f64 / objects as f64);
        comparing.push(compared.take() as f64 / objects as f64);
    }
    print("collector.report_bytes", bytes as f64, "bytes");
    print("collector.report_objects", objects as f64 / (PEERS * 5) as f64, "objects");
    print("collector.parse", median(parsing) / 1_000.0, "us/row");
    print("collector.compare", median(comparing) / 1_000.0, "us/row");
    Ok(())
}
