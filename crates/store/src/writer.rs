//! The thread that owns the database and the pipeline.

use crate::monitor::{TurnHealth, TurnMonitor};
use crate::sender::{EventReceiver, Message, QUEUE_FACTS, QUEUE_SAMPLES, Shared};
use crate::sqlite::{Database, Resumed};
use crate::store::{self, Closed};
use fanlight_base::{Mono, Now};
use fanlight_telemetry::{Batch, Limits, Output, Pipeline, Settings, Written};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Events taken out before the pipeline is drained: a turn stays short.
const EVENTS_PER_TURN: usize = 1_024;
/// After a turn the thread rests this long, and events gather: sending to a thread that does not wait for the queue
/// costs no system call, and that call would be the shards'.
const GATHER: Duration = Duration::from_millis(10);
/// The record says at most so often how TURN fares.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// A record that was moved or deleted is noticed by this, also while nothing is written.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A thread that has nothing to do turns this often, so that it can be seen to live.
pub(crate) const TURN_EVERY: Duration = Duration::from_millis(500);
/// A disk that does not answer keeps the process from ending this long.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// Both clocks.
pub(crate) fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Now {
        mono_ns: nanoseconds(START.get_or_init(Instant::now).elapsed()),
        unix_ns: nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
    }
}

/// Runs until it is told to close, or nobody is left who could send.
pub(crate) fn run(
    database: Database,
    resumed: Resumed,
    settings: &store::Settings,
    receiver: &EventReceiver,
    monitor: TurnMonitor,
    turns: Arc<AtomicU64>,
) -> Closed {
    let settings = Settings {
        limits: Limits::NODE,
        retention_days: settings.retention_days,
        resume: resumed.resume,
        turn: settings.turn.clone(),
    };
    let mut pipeline = Pipeline::new(now(), settings);
    pipeline.restore_turn(now(), resumed.turn_sessions, resumed.turn_allocations);
    let told_at = Mono::default();
    let mut writer = Writer {
        database,
        pipeline,
        monitor,
        told_at,
        looked_at: Mono::default(),
        shared: Arc::clone(&receiver.shared),
        turns,
    };
    let mut open = true;
    while open {
        let deadline = writer.drain();
        open = writer.take_turn(receiver, deadline);
    }
    writer.close(receiver)
}

struct Writer {
    database: Database,
    pipeline: Pipeline,
    monitor: TurnMonitor,
    /// When the database is told next how TURN fares.
    told_at: Mono,
    /// When it was last looked whether the file is in its place.
    looked_at: Mono,
    /// Where it is told whether the record fails.
    shared: Arc<Shared>,
    /// Turns, and batches written; nobody else holds it.
    turns: Arc<AtomicU64>,
}

impl Writer {
    /// Waits for an event until `deadline`, then takes what is there; `false` when it is time to close.
    fn take_turn(&mut self, receiver: &EventReceiver, deadline: Mono) -> bool {
        let patience = deadline.since(now().mono()).min(TURN_EVERY);
        let first = match receiver.queue.recv_timeout(patience) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                self.turn(receiver);
                return true;
            }
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let now = self.turn(receiver);
        let mut message = first;
        for taken in 1.. {
            let Message::Event(event) = message else { return false };
            receiver.shared.taken();
            self.pipeline.handle_event(now, event);
            if taken == EVENTS_PER_TURN {
                break;
            }
            message = match receiver.queue.try_recv() {
                Ok(next) => next,
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => {
                    thread::sleep(GATHER);
                    break;
                }
            };
        }
        true
    }

    /// One reading of the clock, told to the pipeline with what the queue has refused.
    fn turn(&mut self, receiver: &EventReceiver) -> Now {
        let now = now();
        if now.mono().since(self.looked_at) >= LOOK_EVERY {
            self.looked_at = now.mono();
            if !self.database.is_in_place() {
                self.fails("its file was moved, deleted or replaced; put it back, or start the server anew");
            }
        }
        self.pipeline.handle_timeout(now);
        self.pipeline.handle_refused(now, QUEUE_FACTS, receiver.shared.facts_refused());
        self.pipeline.handle_refused(now, QUEUE_SAMPLES, receiver.shared.samples_refused());
        now
    }

    /// Does what the pipeline asks for, until it asks to wait.
    fn drain(&mut self) -> Mono {
        self.monitor.publish(self.pipeline.turn_status());
        loop {
            self.turns.fetch_add(1, Ordering::Relaxed);
            match self.pipeline.poll_output() {
                Output::Write(batch) => {
                    let written = self.write(batch);
                    self.pipeline.handle_written(now(), written);
                }
                Output::Prune { before_ms } => {
                    let more = self.database.prune(before_ms).unwrap_or_else(|error| {
                        tracing::warn!(%error, "old rooms cannot be deleted");
                        false
                    });
                    self.pipeline.handle_pruned(now(), more);
                }
                Output::Timeout(when, _) => return when,
            }
        }
    }

    /// Has it written with the next batch how TURN fares, if there is TURN.
    fn tell_turn_status(&mut self) {
        let now = now().mono();
        if now < self.told_at {
            return;
        }
        self.told_at = now + STATUS_EVERY;
        let health = self.monitor.snapshot();
        if health != TurnHealth::default()
            && let Ok(status) = serde_json::to_string(&health)
        {
            self.database.set_turn_status(status);
        }
    }

    fn write(&mut self, batch: Box<Batch>) -> Written {
        self.tell_turn_status();
        let error = match self.database.write(&batch) {
            Ok(()) => {
                if self.shared.set_record_fails(false) {
                    tracing::warn!("the record can be written again");
                }
                return Written::Stored;
            }
            Err(error) => error,
        };
        if !error.is_passing() {
            tracing::error!(%error, rows = batch.rows(), "the database will not take these rows");
            return Written::Lost(batch.rows());
        }
        self.fails(&error.to_string());
        Written::Failed(batch)
    }

    fn fails(&self, why: &str) {
        if self.shared.set_record_fails(true) {
            tracing::error!("the record cannot be written, trying again: {why}");
        }
    }

    fn close(mut self, receiver: &EventReceiver) -> Closed {
        let limit = now().mono() + CLOSE_LIMIT;
        loop {
            let turn = self.turn(receiver);
            self.pipeline.handle_close(turn);
            let retry_at = self.drain();
            if self.pipeline.is_drained() || now().mono() >= limit {
                break;
            }
            thread::sleep(retry_at.min(limit).since(now().mono()));
        }
        let unwritten_rows = self.pipeline.unwritten_rows();
        if unwritten_rows > 0 {
            tracing::error!(unwritten_rows, "the record is closed before everything could be written");
        }
        Closed { unwritten_rows, whole: unwritten_rows == 0 }
    }
}
