//! A database that answers nothing any more, under more reports than queue and spool hold: who is told to come later, what memory it
//! takes, and whether everything that was answered with 204 is there afterwards.

use super::database::{Database, Postgres};
use super::exporter::{Answer, Exporter, Trouble, runtime};
use super::target::Target;
use crate::Failure;
use crate::figures::print;
use crate::process::{children, resident_bytes};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

const CONNECTIONS: usize = 20;
/// All streams that these may have: more reports than the queue takes.
const SENDERS: u64 = 5_000;
const SPOOL_BYTES: u64 = 32 << 20;
/// Whoever is told to come later comes after this; Retry-After says 5 s.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// It goes on for so long once the spool is full.
const FULL_FOR: Duration = Duration::from_secs(20);
/// What takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// More growth than this is memory without bound: the queue's 64 MiB, bodies of all streams, and what HTTP/2 holds of each connection.
const GROWTH_MAX_BYTES: f64 = 400e6;

pub(super) fn run() -> Result<(), Failure> {
    let database = Postgres::start();
    let target = Target::start(&[database.keys(), vec![format!("spool_max_bytes: {SPOOL_BYTES}")]].concat())?;
    runtime()?.block_on(overload(&database, &target))
}

async fn overload(database: &Postgres, target: &Target) -> Result<(), Failure> {
    let exporter = Exporter::connect(target.address, CONNECTIONS).await?;
    let before_steps = 2;
    exporter.steps(CONNECTIONS as u64 * 10, 0..before_steps).await?;
    let stored_before = CONNECTIONS as f64 * 10.0 * before_steps as f64;
    let before = resident_bytes(target.server.pid)?;
    print("collector.hung.memory_before", before / 1e6, "MB");
    let stopped = Stopped::new(database.cluster.pid())?;
    let begun = Instant::now();
    let senders = Senders::start(&exporter, before_steps);
    let filling = watch(target, |full| full).await?;
    let full = Instant::now();
    let staying = watch(target, |_| full.elapsed() > FULL_FOR).await?;
    let stopped_for = begun.elapsed();
    senders.ended.store(true, Ordering::Relaxed);
    drop(stopped);
    let back = Instant::now();
    let (accepted, refused) = senders.finish().await?;
    print("collector.hung.stopped_for", stopped_for.as_secs_f64(), "s");
    print("collector.hung.accepted", accepted as f64, "reports");
    print("collector.hung.refused", refused as f64, "answers");
    print("collector.hung.spool", SPOOL_BYTES as f64 / 1e6, "MB");
    print("collector.hung.queue_peak", filling.queued.max(staying.queued) / 1e6, "MB");
    print("collector.hung.growth_until_full", (filling.resident - before) / 1e6, "MB");
    print("collector.hung.growth", (staying.resident - before) / 1e6, "MB");
    replayed(target).await?;
    print("collector.hung.stored_after", back.elapsed().as_secs_f64(), "s");
    let stored = database.cluster.count(Postgres::DATABASE, "fanlight_report") as f64 - stored_before;
    print("collector.hung.stored", stored, "reports");
    if stored < accepted as f64 {
        return Err(
            format!("{accepted} reports were answered with 204, and {stored} of them are stored").into()
        );
    }
    if staying.resident.max(filling.resident) - before > GROWTH_MAX_BYTES {
        return Err("it takes more memory than its queue and its streams account for".into());
    }
    Ok(())
}

/// A database whose processes are stopped; they go on when this is gone.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn new(postmaster: u32) -> Result<Self, Failure> {
        let processes = [vec![postmaster], children(postmaster)?].concat();
        let processes = processes.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let stopped = Self(processes.collect());
        for pid in &stopped.0 {
            kill_process(*pid, Signal::STOP)?;
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that is gone needs nothing.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

/// Peers that report as fast as they are answered, and come again when they are told to.
struct Senders {
    tasks: JoinSet<Result<(), Trouble>>,
    ended: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Senders {
    fn start(exporter: &Exporter, first_step: u64) -> Self {
        let mut senders = Self {
            tasks: JoinSet::new(),
            ended: Arc::default(),
            accepted: Arc::default(),
            refused: Arc::default(),
        };
        for peer in 0..SENDERS {
            let exporter = exporter.clone();
            let (ended, accepted, refused) =
                (Arc::clone(&senders.ended), Arc::clone(&senders.accepted), Arc::clone(&senders.refused));
            senders.tasks.spawn(async move {
                let mut step = first_step;
                while !ended.load(Ordering::Relaxed) {
                    if exporter.post(peer, step).await? == Answer::Taken {
                        accepted.fetch_add(1, Ordering::Relaxed);
                        step += 1;
                    } else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        sleep(AGAIN_AFTER).await;
                    }
                }
                Ok(())
            });
        }
        senders
    }

    /// Waits for the last answers: how many reports were taken, how many answers were 503.
    async fn finish(mut self) -> Result<(u64, u64), Failure> {
        while let Some(done) = self.tasks.join_next().await {
            done??;
        }
        Ok((self.accepted.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed)))
    }
}

/// The most of each that was seen, in bytes.
#[derive(Default)]
struct Seen {
    resident: f64,
    queued: f64,
}

/// Looks until it is time, which may depend on whether a report was refused because the spool is full.
async fn watch(target: &Target, is_time: impl Fn(bool) -> bool) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    let started = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        seen.resident = seen.resident.max(resident_bytes(target.server.pid)?);
        let counts = target.counts()?;
        seen.queued = seen.queued.max(counts.of("queued_bytes"));
        if is_time(counts.of("refused_total{reason=\"disk-full\"}") > 0.0) {
            return Ok(seen);
        }
        if started.elapsed() > PATIENCE {
            return Err("the spool does not get full".into());
        }
    }
}

/// Waits until what was accepted is in the database.
async fn replayed(target: &Target) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let counts = target.counts()?;
        if counts.of("spool_reports") == 0.0 && counts.of("queued_reports") == 0.0 {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err("what is in the spool does not come into the database".into());
        }
        sleep(LOOK_EVERY).await;
    }
}
