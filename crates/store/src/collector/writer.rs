//! The thread that owns the sink and the spool.

use super::CollectorSettings;
use super::health::Monitor;
use super::queue::{CollectError, Message, Receiver, Stored, Waiting};
use super::sink::{Sink, SinkError};
use super::spool::{Spool, SpoolError};
use crate::writer::{LOOK_EVERY, TURN_EVERY, now};
use fanlight_base::{Mono, Now};
use fanlight_telemetry::collector::{ClientReport, Dedup, Planned};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// First pause after a sink has failed, doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// A database that is back is noticed this soon.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Old reports are looked for this often.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// Pause between two portions of old reports, so that fresh ones get the disk in between.
const PRUNE_PAUSE: Duration = Duration::from_millis(250);
/// Portions deleted after a batch while the database is too large: each has nearly as many objects.
const SIZE_PORTIONS: usize = 2;
const DAY_MS: u64 = 86_400_000;

/// Runs until it is told to close, or nobody is left who could send.
pub(super) fn run(
    settings: CollectorSettings,
    sink: Box<dyn Sink>,
    spool: Spool,
    receiver: &Receiver,
    monitor: Monitor,
    turns: Arc<AtomicU64>,
) {
    let started = now().mono();
    let dedup = Dedup::new(settings.dedup, RandomState::new().hash_one(0));
    let mut writer = Writer {
        settings,
        sink,
        spool,
        dedup,
        monitor,
        failing: false,
        retry_at: started,
        retry_after: RETRY_FIRST,
        prune_at: started,
        look_at: started,
    };
    while writer.turn(receiver) {
        turns.fetch_add(1, Ordering::Relaxed);
    }
    writer.finish(receiver);
}

struct Writer {
    settings: CollectorSettings,
    sink: Box<dyn Sink>,
    spool: Spool,
    dedup: Dedup,
    monitor: Monitor,
    /// The sink's last call failed; it is tried again at `retry_at`.
    failing: bool,
    retry_at: Mono,
    retry_after: Duration,
    prune_at: Mono,
    /// When it is looked next whether database and spool are in their places.
    look_at: Mono,
}

/// What has been gathered for one transaction.
#[derive(Default)]
struct Gathered {
    batch: Vec<Waiting>,
    closed: bool,
}

impl Writer {
    /// Takes what waits, and does what is due; `false` when it is time to close.
    fn turn(&mut self, receiver: &Receiver) -> bool {
        let gathered = self.gather(receiver);
        if !gathered.batch.is_empty() {
            self.take(gathered.batch, receiver);
        }
        if now().mono() >= self.retry_at {
            if !self.spool.is_empty() {
                self.replay(receiver);
            } else if receiver.places.full.load(Ordering::Relaxed) {
                self.look_for_room(receiver);
            }
        }
        if now().mono() >= self.prune_at {
            self.prune();
        }
        self.prune_to_size();
        if now().mono() >= self.look_at {
            self.look(receiver);
        }
        self.publish();
        !gathered.closed
    }

    /// How long nothing is due.
    fn pause(&self, receiver: &Receiver) -> Duration {
        let now = now().mono();
        let mut until = self.prune_at.min(now + TURN_EVERY);
        if !self.spool.is_empty() || receiver.places.full.load(Ordering::Relaxed) {
            until = until.min(self.retry_at);
        }
        until.since(now)
    }

    /// Waits for a report, then for others until the batch is full, old or alone.
    fn gather(&self, receiver: &Receiver) -> Gathered {
        let mut gathered = Gathered::default();
        let mut objects = 0;
        let mut wait = self.pause(receiver);
        let mut until = None;
        loop {
            let message = if wait.is_zero() {
                receiver.queue.try_recv().map_err(|error| error == TryRecvError::Disconnected)
            } else {
                let received = receiver.queue.recv_timeout(wait);
                received.map_err(|error| error == RecvTimeoutError::Disconnected)
            };
            match message {
                Ok(Message::Report(waiting)) => {
                    objects += waiting.report.objects.len() + 1;
                    gathered.batch.push(*waiting);
                }
                Ok(Message::Close) => {
                    gathered.closed = true;
                    return gathered;
                }
                Err(disconnected) => {
                    gathered.closed = disconnected;
                    return gathered;
                }
            }
            let now = now().mono();
            let until = *until.get_or_insert(now + self.settings.gather);
            if objects >= self.settings.batch_objects || now >= until {
                return gathered;
            }
            wait = self.settings.quiet.min(until.since(now));
        }
    }

    /// Stores a batch, or spools it when the sink is away or the spool has older reports.
    fn take(&mut self, batch: Vec<Waiting>, receiver: &Receiver) {
        let rejected: u64 = batch.iter().map(|waiting| waiting.report.rejected_objects()).sum();
        self.monitor.change(|health| health.rejected_objects += rejected);
        let away = self.failing && now().mono() < self.retry_at;
        if away || !self.spool.is_empty() {
            return self.spool(batch, receiver);
        }
        let (waiting, reports): (Vec<_>, Vec<_>) = batch.into_iter().map(Waiting::parts).unzip();
        match self.store(now(), reports) {
            Ok(outcomes) => {
                self.works();
                receiver.places.full.store(false, Ordering::Relaxed);
                for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
                    waiting.answer(outcome.map_err(|(_, error)| CollectError::Refused(error)));
                }
            }
            Err((reports, error)) => {
                self.fails(&error);
                let batch = waiting.into_iter().zip(reports);
                self.spool(batch.map(|(waiting, report)| waiting.with(report)).collect(), receiver);
            }
        }
    }

    /// Plans and writes reports; for each what became of it, or the report and why the sink does not take it. When the sink
    /// is away all reports come back.
    fn store(&mut self, now: Now, reports: Vec<ClientReport>) -> Result<Vec<Outcome>, Returned> {
        let planned = self.plan(now, reports)?;
        let error = match self.sink.write(now.unix_ms(), &planned) {
            Ok(new) => return Ok(self.written(&planned, &new)),
            Err(error) => error,
        };
        self.forget(&planned);
        let reports: Vec<ClientReport> = planned.into_iter().map(|planned| planned.report).collect();
        match error {
            SinkError::Away(error) => Err((reports, error)),
            SinkError::Refused(error) => match <[ClientReport; 1]>::try_from(reports) {
                Ok([report]) => {
                    tracing::error!(%error, sink = self.sink.name(), "a report is refused by the database");
                    self.monitor.change(|health| health.refused_data += 1);
                    Ok(vec![Err((Box::new(report), error))])
                }
                Err(reports) => self.store_singly(now, reports),
            },
        }
    }

    /// One of them is not taken: each has a transaction of its own. Those that are written when the sink goes away come
    /// back too, and are written once all the same.
    fn store_singly(&mut self, now: Now, reports: Vec<ClientReport>) -> Result<Vec<Outcome>, Returned> {
        let mut outcomes = Vec::with_capacity(reports.len());
        let mut done = Vec::with_capacity(reports.len());
        let mut reports = reports.into_iter();
        while let Some(report) = reports.next() {
            match self.store(now, vec![report.clone()]) {
                Ok(outcome) => outcomes.extend(outcome),
                Err((_, error)) => {
                    done.push(report);
                    done.extend(reports);
                    return Err((done, error));
                }
            }
            done.push(report);
        }
        Ok(outcomes)
    }

    fn plan(&mut self, now: Now, reports: Vec<ClientReport>) -> Result<Vec<Planned>, Returned> {
        let mut planned = Vec::with_capacity(reports.len());
        let mut reports = reports.into_iter();
        while let Some(report) = reports.next() {
            let key = report.key();
            if !self.dedup.knows(&key) {
                match self.sink.last_values(&key) {
                    Ok(last) => self.dedup.restore(now.unix_ms(), &key, &last),
                    Err(error) => {
                        self.forget(&planned);
                        let all = planned.into_iter().map(|planned| planned.report);
                        return Err((all.chain([report]).chain(reports).collect(), error.to_string()));
                    }
                }
            }
            planned.push(self.dedup.plan(now.unix_ms(), report));
        }
        Ok(planned)
    }

    fn forget(&mut self, planned: &[Planned]) {
        for planned in planned {
            self.dedup.forget(&planned.key);
        }
    }

    fn written(&mut self, planned: &[Planned], new: &[bool]) -> Vec<Outcome> {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let mut outcomes = Vec::with_capacity(planned.len());
        let mut sums = Stored::default();
        let mut reports = 0;
        for (planned, new) in planned.iter().zip(new) {
            let rejected = planned.report.rejected_objects();
            let stored = if *new {
                reports += 1;
                Stored {
                    objects: count(planned.fresh.len()),
                    unchanged: count(planned.unchanged()),
                    rejected,
                    ..Stored::default()
                }
            } else {
                Stored { rejected, duplicate: true, ..Stored::default() }
            };
            sums.objects += stored.objects;
            sums.unchanged += stored.unchanged;
            outcomes.push(Ok(stored));
        }
        let unfit = self.sink.take_unfit();
        sums.objects = sums.objects.saturating_sub(unfit.values().sum());
        self.monitor.change(|health| {
            for (reason, objects) in unfit {
                *health.unfit_objects.entry(reason).or_default() += objects;
            }
            health.batches += 1;
            health.stored_reports += reports;
            health.duplicate_reports += count(planned.len()) - reports;
            health.stored_objects += sums.objects;
            health.unchanged_objects += sums.unchanged;
        });
        outcomes
    }

    fn fails(&mut self, error: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(error, sink = self.sink.name(), "reports of clients go to the spool");
            // Whoever repairs the database may restore an older one: what is in it is read anew.
            self.dedup.clear();
            self.retry_after = RETRY_FIRST;
        }
        self.retry_at = now().mono() + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
        self.monitor.change(|health| health.failing = Some(error.to_owned()));
    }

    fn works(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::warn!(sink = self.sink.name(), "the database takes reports of clients again");
            self.retry_after = RETRY_FIRST;
            self.monitor.change(|health| health.failing = None);
        }
    }

    fn spool(&mut self, batch: Vec<Waiting>, receiver: &Receiver) {
        let appended = self.spool.append(batch.iter().map(|waiting| &waiting.report));
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let refusal = match appended {
            Ok(()) => {
                self.monitor.change(|health| health.spooled_reports += count);
                None
            }
            Err(error) => {
                self.monitor.change(|health| health.refused_full += count);
                if let SpoolError::Io(_) = error {
                    tracing::warn!(%error, "reports of clients are refused");
                }
                Some(CollectError::Full(error.to_string()))
            }
        };
        receiver.places.full.store(refusal.is_some(), Ordering::Relaxed);
        // Who is answered sees it there.
        self.publish();
        for waiting in batch {
            let (answer, report) = waiting.parts();
            let spooled = Stored { rejected: report.rejected_objects(), spooled: true, ..Stored::default() };
            answer.answer(refusal.clone().map_or(Ok(spooled), Err));
        }
    }

    /// Stores a portion of the spool.
    fn replay(&mut self, receiver: &Receiver) {
        // More than a turn puts in, so that the spool gets shorter however much comes.
        let mut chunk = match self.spool.read(self.settings.batch_objects.saturating_mul(2)) {
            Ok(chunk) if chunk.reports.is_empty() => return self.works(),
            Ok(chunk) => chunk,
            Err(error) => return self.fails(&format!("the spool cannot be read: {error}")),
        };
        let reports = std::mem::take(&mut chunk.reports);
        let count = u64::try_from(reports.len()).unwrap_or(u64::MAX);
        match self.store(now(), reports) {
            Ok(outcomes) => {
                for (report, error) in outcomes.into_iter().filter_map(Result::err) {
                    if !self.spool.set_aside(&report) {
                        tracing::error!(error, "a refused report finds no room in the spool's refused.seg");
                    }
                }
                if let Err(error) = self.spool.stored(&chunk) {
                    tracing::error!(%error, "a segment of the spool cannot be deleted");
                }
                receiver.places.full.store(false, Ordering::Relaxed);
                self.works();
                self.monitor.change(|health| health.replayed_reports += count);
            }
            Err((_, error)) => self.fails(&error),
        }
    }

    /// Looks whether a report would be taken now, so that senders are not told to stay away for ever.
    fn look_for_room(&mut self, receiver: &Receiver) {
        let room = self.spool.has_room();
        match self.sink.write(now().unix_ms(), &[]) {
            Ok(_) if room => self.works(),
            Err(error) if !room || self.settings.spool_bytes_max == 0 => {
                return self.fails(&error.to_string());
            }
            Ok(_) => return self.fails("the disk is full"),
            Err(error) => self.fails(&error.to_string()),
        }
        receiver.places.full.store(false, Ordering::Relaxed);
    }

    /// Looks whether what is written to is still there, also while nothing is written.
    fn look(&mut self, receiver: &Receiver) {
        self.look_at = now().mono() + LOOK_EVERY;
        match self.sink.look() {
            Err(error) => self.fails(&error.to_string()),
            // Nothing waits whose writing would tell it.
            Ok(()) if self.spool.is_empty() && !receiver.places.full.load(Ordering::Relaxed) => self.works(),
            Ok(()) => {}
        }
        let trouble = self.spool.look().err().map(|error| error.to_string());
        self.monitor.change(|health| {
            if let (Some(error), None) = (&trouble, &health.spool_failing) {
                tracing::warn!(error, "reports of clients could not be spooled");
            }
            health.spool_failing = trouble;
        });
    }

    fn prune(&mut self) {
        let now = now();
        self.prune_at = now.mono() + PRUNE_EVERY;
        if self.settings.retention_days == 0 || self.failing {
            return;
        }
        let before_ms = now.unix_ms().saturating_sub(u64::from(self.settings.retention_days) * DAY_MS);
        match self.sink.prune(before_ms) {
            Ok((objects, more)) => {
                if more {
                    self.prune_at = now.mono() + PRUNE_PAUSE;
                }
                self.monitor.change(|health| health.pruned_objects += objects);
            }
            Err(error) => tracing::warn!(%error, "old reports of clients cannot be deleted"),
        }
    }

    /// As many objects as a batch has go for each, so that a flood does not outrun it.
    fn prune_to_size(&mut self) {
        for _ in 0..SIZE_PORTIONS {
            if self.settings.retention_bytes == 0 || self.failing {
                return;
            }
            let pruned = match self.sink.used_bytes() {
                Ok(bytes) if bytes <= self.settings.retention_bytes => return,
                Ok(_) => self.sink.prune(u64::MAX),
                Err(error) => Err(error),
            };
            match pruned {
                Ok((objects, _)) => self.monitor.change(|health| health.pruned_objects += objects),
                Err(error) => {
                    return tracing::warn!(%error, "the oldest reports of clients cannot be deleted");
                }
            }
        }
        // There is more to do: not only when the next report comes.
        self.prune_at = self.prune_at.min(now().mono() + PRUNE_PAUSE);
    }

    fn publish(&self) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.monitor.change(|health| {
            health.spool_bytes_now = self.spool.bytes();
            health.spool_reports_now = self.spool.reports();
            health.spool_lost_bytes = self.spool.lost_bytes();
            health.known_connections_now = count(self.dedup.connections());
            health.known_objects_now = count(self.dedup.objects());
        });
    }

    /// Stores or spools what was sent before the end.
    fn finish(&mut self, receiver: &Receiver) {
        let mut batch = Vec::new();
        while let Ok(message) = receiver.queue.try_recv() {
            if let Message::Report(waiting) = message {
                batch.push(*waiting);
            }
            if batch.len() >= self.settings.batch_objects {
                self.take(std::mem::take(&mut batch), receiver);
            }
        }
        if !batch.is_empty() {
            self.take(batch, receiver);
        }
        self.publish();
    }
}

/// What became of a report, or the report and why it is not taken.
type Outcome = Result<Stored, (Box<ClientReport>, String)>;
/// Reports that could not be written, and why.
type Returned = (Vec<ClientReport>, String);
