//! Rows per second and processor time per row, with nothing stored and with many rows.

use super::bodies::CALL_STEPS;
use super::database::{Database, Used};
use super::exporter::{Exporter, runtime};
use super::target::Target;
use crate::Failure;
use crate::figures::{median, print};
use crate::process::resident_bytes;
use std::time::Instant;
use tokio::runtime::Runtime;

/// Peers that report, each as soon as its last report is answered.
const PEERS: u64 = 200;
/// As many as Sora opens.
const CONNECTIONS: usize = 5;
/// Reports of each peer in one sample; all samples together are of one call.
const SAMPLE_STEPS: u64 = 10;
const SAMPLES: usize = 5;
/// Before the first sample: the tables are made with the first report.
const FIRST_STEPS: u64 = 1;
/// Rows between two looks at the rate while it is filled.
const PORTION: f64 = 1e6;
/// With rows stored one costs at most so many times what it costs without. What else the machine does slows rows down, but
/// hardly makes them dearer.
const CPU_RATIO_MAX: f64 = 1.25;
/// Rows of the measurements themselves, and what a database writes beside its rows, whatever their number.
const DISK_SPARE_BYTES: u64 = 4_000_000_000;

pub(super) fn run(database: &dyn Database, rows: u64) -> Result<(), Failure> {
    has_room(rows * database.bytes_per_row_max() + DISK_SPARE_BYTES)?;
    let mut load = Load::start(database)?;
    load.steps(FIRST_STEPS)?;
    let empty = load.measure("empty")?;
    load.fill(rows as f64)?;
    let full = load.measure("full")?;
    load.print("rows_per_second.ratio", full.rate / empty.rate, "of that with nothing stored");
    load.print("cpu.ratio", full.cpu / empty.cpu, "of that with nothing stored");
    let stored = load.rows()?;
    for (name, bytes) in database.disk(&load.target)? {
        load.print(name, bytes / 1e6, "MB");
        if name == "disk" {
            load.print("disk_per_row", bytes / stored, "bytes/row");
        }
    }
    load.print("memory", resident_bytes(load.target.server.pid)? / 1e6, "MB");
    if full.cpu / empty.cpu > CPU_RATIO_MAX {
        return Err("what is stored makes a row dearer".into());
    }
    Ok(())
}

fn has_room(bytes: u64) -> Result<(), Failure> {
    let folder = std::env::temp_dir();
    let disk = rustix::fs::statvfs(&folder)?;
    let free = disk.f_bavail * disk.f_frsize;
    if free < bytes {
        let (wanted, free) = (bytes as f64 / 1e9, free as f64 / 1e9);
        return Err(format!(
            "it needs up to {wanted:.1} GB, and {} has {free:.1} GB free: take fewer rows with --rows N, or another folder with TMPDIR",
            folder.display()
        )
        .into());
    }
    Ok(())
}

struct Measured {
    rate: f64,
    /// Microseconds of processor time per row, of everything that works for it.
    cpu: f64,
}

struct Load<'a> {
    database: &'a dyn Database,
    target: Target,
    exporter: Exporter,
    runtime: Runtime,
    next_step: u64,
}

impl<'a> Load<'a> {
    fn start(database: &'a dyn Database) -> Result<Self, Failure> {
        let target = Target::start(&database.keys())?;
        let runtime = runtime()?;
        let exporter = runtime.block_on(Exporter::connect(target.address, CONNECTIONS))?;
        Ok(Self { database, target, exporter, runtime, next_step: 0 })
    }

    fn print(&self, name: &str, value: f64, unit: &str) {
        print(&format!("collector.{}.{name}", self.database.name()), value, unit);
    }

    fn steps(&mut self, count: u64) -> Result<(), Failure> {
        let steps = self.next_step..self.next_step + count;
        self.next_step += count;
        self.runtime.block_on(self.exporter.steps(PEERS, steps))
    }

    fn rows(&self) -> Result<f64, Failure> {
        self.target.counts()?.rows()
    }

    /// The rate of rows over so many steps.
    fn rate(&mut self, steps: u64) -> Result<(f64, f64), Failure> {
        let before = self.rows()?;
        let started = Instant::now();
        self.steps(steps)?;
        let seconds = started.elapsed().as_secs_f64();
        let rows = self.rows()? - before;
        Ok((rows, rows / seconds))
    }

    fn measure(&mut self, name: &str) -> Result<Measured, Failure> {
        self.print(&format!("rows.{name}"), self.rows()?, "rows");
        let mut rates = Vec::new();
        let mut costs: Vec<Used> = Vec::new();
        for _ in 0..SAMPLES {
            let before = self.database.used(&self.target)?;
            let (rows, rate) = self.rate(SAMPLE_STEPS)?;
            rates.push(rate);
            let after = self.database.used(&self.target)?;
            let cost = before.iter().zip(after);
            costs.push(
                cost.map(|((name, before), (_, after))| (*name, (after - before) * 1e6 / rows)).collect(),
            );
        }
        let rate = median(rates);
        self.print(&format!("rows_per_second.{name}"), rate, "rows/s");
        let names: Vec<&str> = costs.first().into_iter().flatten().map(|(name, _)| *name).collect();
        for (place, figure) in names.iter().enumerate() {
            self.print(&format!("{figure}.{name}"), cost_of(&costs, place), "us/row");
        }
        Ok(Measured { rate, cpu: cost_of(&costs, 0) })
    }

    /// Stores rows in the way that is measured until there are so many, and the calls are where they were after the start: a row
    /// of a young call costs less than one of an old call.
    fn fill(&mut self, wanted: f64) -> Result<(), Failure> {
        let per_step = self.rows()? / self.next_step as f64;
        let needed = ((wanted / per_step).ceil() as u64).max(self.next_step);
        let last = needed.next_multiple_of(CALL_STEPS) + FIRST_STEPS;
        let portion = (PORTION / per_step) as u64;
        let mut rates = Vec::new();
        while self.next_step < last {
            rates.push(self.rate(portion.min(last - self.next_step))?.1);
        }
        if let (Some(slowest), Some(fastest)) =
            (rates.iter().copied().reduce(f64::min), rates.iter().copied().reduce(f64::max))
        {
            self.print("rows_per_second.slowest_million", slowest, "rows/s");
            self.print("rows_per_second.fastest_million", fastest, "rows/s");
        }
        Ok(())
    }
}

fn cost_of(costs: &[Used], place: usize) -> f64 {
    median(costs.iter().filter_map(|cost| cost.get(place)).map(|(_, cost)| *cost).collect())
}
