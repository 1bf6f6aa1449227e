//! What LiveKit's clients measure, on its way from the media threads to the store of reports.
//!
//! A media thread offers a batch and goes on. A thread here reads it and hands it to the store; while the store has no room it
//! waits a little, the next batches wait behind it, and what finds no place there is dropped and counted: clients send such a
//! batch once, and take no answer.

use fanlight_sfu::output::ClientMetrics;
use fanlight_shard::MetricsSink;
use fanlight_store::collector::CollectorSender;
use fanlight_telemetry::decode::livekit_metrics::{Batch, Sender};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Batches that wait; with 64 KiB each they have 16 MiB.
const BATCHES_MAX: usize = 256;
/// How long the store may have no room before batches are dropped: as long as a checkpoint may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A thread that has nothing to do turns this often, so that it can be seen to live.
const TURN_EVERY: Duration = Duration::from_millis(500);
/// Longer than what waits takes.
const FINISH_WITHIN: Duration = Duration::from_secs(3);
/// How soon the store is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Batches, and the thread that hands them on.
pub(crate) struct MetricsLine {
    batches: SyncSender<ClientMetrics>,
    counters: MetricsCounters,
    turns: Weak<AtomicU64>,
    thread: JoinHandle<()>,
}

/// Shared counters; they only grow.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetricsCounters(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    batches: AtomicU64,
    samples: AtomicU64,
    events: AtomicU64,
    unreadable: AtomicU64,
    dropped: AtomicU64,
}

/// What has been counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MetricsCounts {
    /// Batches handed to the store.
    pub(crate) batches: u64,
    /// Samples in these.
    pub(crate) samples: u64,
    /// Events in these.
    pub(crate) events: u64,
    /// Batches that are none.
    pub(crate) unreadable: u64,
    /// Batches for which the store, or the line to it, had no room.
    pub(crate) dropped: u64,
}

impl MetricsCounters {
    /// As it is now.
    pub(crate) fn snapshot(&self) -> MetricsCounts {
        let value = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let cells = &self.0;
        MetricsCounts {
            batches: value(&cells.batches),
            samples: value(&cells.samples),
            events: value(&cells.events),
            unreadable: value(&cells.unreadable),
            dropped: value(&cells.dropped),
        }
    }
}

impl MetricsLine {
    /// Starts the thread.
    pub(crate) fn start(store: CollectorSender) -> io::Result<Self> {
        Self::with_patience(store, PATIENCE)
    }

    fn with_patience(store: CollectorSender, patience: Duration) -> io::Result<Self> {
        let (batches, waiting) = sync_channel(BATCHES_MAX);
        let counters = MetricsCounters::default();
        let turns = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&turns);
        let way = Way { store, counters: counters.clone(), patience, impatient: false, turns };
        let thread = thread::Builder::new().name("client-metrics".into()).spawn(move || way.run(&waiting))?;
        Ok(Self { batches, counters, turns: seen, thread })
    }

    /// Where a media thread puts batches.
    pub(crate) fn sink(&self) -> MetricsSink {
        let (batches, counters) = (self.batches.clone(), self.counters.clone());
        Box::new(move |metrics| {
            if batches.try_send(metrics).is_err() {
                counters.0.dropped.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    pub(crate) fn counters(&self) -> MetricsCounters {
        self.counters.clone()
    }

    /// How many turns the thread has made; gone when it has ended.
    pub(crate) fn turns(&self) -> Weak<AtomicU64> {
        self.turns.clone()
    }

    /// Hands on what waits; the media threads must have ended. `false` when the thread had panicked, or does not end because
    /// one of them has not.
    pub(crate) fn finish(self) -> bool {
        drop(self.batches);
        let until = Instant::now() + FINISH_WITHIN;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(AGAIN_AFTER);
        }
        self.thread.is_finished() && self.thread.join().is_ok()
    }
}

/// The thread's end.
struct Way {
    store: CollectorSender,
    counters: MetricsCounters,
    patience: Duration,
    /// The store had no room for long; it is not waited for again until it has.
    impatient: bool,
    /// Turns that have ended; nobody else holds it.
    turns: Arc<AtomicU64>,
}

impl Way {
    fn run(mut self, waiting: &Receiver<ClientMetrics>) {
        loop {
            match waiting.recv_timeout(TURN_EVERY) {
                Ok(metrics) => self.take(&metrics),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turns.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&mut self, metrics: &ClientMetrics) {
        let add = |cell: &AtomicU64, count| cell.fetch_add(count, Ordering::Relaxed);
        let Ok(batch) = Batch::read(&metrics.batch, &sender(metrics)) else {
            add(&self.counters.0.unreadable, 1);
            return;
        };
        self.wait_for_room();
        let stored = batch.reports.into_iter().all(|report| self.store.offer(report).is_ok());
        if stored {
            add(&self.counters.0.batches, 1);
            add(&self.counters.0.samples, batch.samples);
            add(&self.counters.0.events, batch.events);
        } else {
            add(&self.counters.0.dropped, 1);
        }
    }

    /// The store may have room all the same when the patience is over: it finds out when it is offered something.
    fn wait_for_room(&mut self) {
        let since = Instant::now();
        while !self.store.is_ready() && !self.impatient {
            thread::sleep(AGAIN_AFTER);
            self.turns.fetch_add(1, Ordering::Relaxed);
            self.impatient = since.elapsed() > self.patience;
        }
        self.impatient &= !self.store.is_ready();
    }
}

fn sender(metrics: &ClientMetrics) -> Sender {
    Sender {
        room_sid: metrics.room.as_str().into(),
        room: metrics.room_name.as_str().into(),
        participant_sid: metrics.participant.as_str().into(),
        identity: metrics.identity.as_str().into(),
        sdk: metrics.sdk.as_str().into(),
        version: metrics.version.as_str().into(),
        at_ns: metrics.at_unix_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_store::collector::{Collector, CollectorSettings};

    fn metrics(number: u64) -> ClientMetrics {
        ClientMetrics {
            room: "RM_a".into(),
            room_name: "demo".into(),
            participant: "PA_a".into(),
            identity: "alice".into(),
            sdk: "python".into(),
            version: "1".into(),
            at_unix_ns: 1_800_000_000_000_000_000 + number * 100_000,
            // One series with one sample at 7 ms, which is 0.5.
            batch: vec![0x22, 0x09, 0x22, 0x07, 0x08, 0x07, 0x1d, 0, 0, 0, 0x3f],
        }
    }

    #[test]
    fn batches_come_into_the_store_and_what_is_none_is_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Collector::open(dir.path(), CollectorSettings::default()).expect("it opens");
        let line = MetricsLine::start(store.sender()).expect("it starts");
        let (mut sink, counters) = (line.sink(), line.counters());
        for number in 0..10 {
            sink(metrics(number));
        }
        sink(ClientMetrics { batch: vec![0xff], ..metrics(11) });
        drop(sink);
        assert!(line.finish());
        let health = store.sender();
        store.close();
        assert_eq!(health.health().stored_objects, 10);
        let counted = MetricsCounts { batches: 10, samples: 10, unreadable: 1, ..MetricsCounts::default() };
        assert_eq!(counters.snapshot(), counted);
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = CollectorSettings { queue_reports_max: 0, ..CollectorSettings::default() };
        let store = Collector::open(dir.path(), settings).expect("it opens");
        let line = MetricsLine::with_patience(store.sender(), Duration::ZERO).expect("it starts");
        let (mut sink, counters) = (line.sink(), line.counters());
        for number in 0..1_000 {
            sink(metrics(number));
        }
        drop(sink);
        assert!(line.finish());
        assert_eq!(counters.snapshot(), MetricsCounts { dropped: 1_000, ..MetricsCounts::default() });
        store.close();
    }
}
