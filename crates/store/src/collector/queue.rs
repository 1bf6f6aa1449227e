//! The way in: bounded in reports and in bytes, never waits for a place, and answers when a report is safe.

use super::CollectorSettings;
use super::health::{CollectorHealth, Monitor};
use fanlight_telemetry::collector::ClientReport;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Hands reports to the collector. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CollectorSender {
    queue: mpsc::Sender<Message>,
    places: Arc<Places>,
    monitor: Monitor,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Objects that were stored; 0 when it is in the spool.
    pub objects: u64,
    /// Objects that were as before.
    pub unchanged: u64,
    /// Objects that were not fit to be stored.
    pub rejected: u64,
    /// It had been stored before, and nothing was added.
    pub duplicate: bool,
    /// It is in the spool, and will be in the database later.
    pub spooled: bool,
}

/// Why a report was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// Too many wait: send it again later.
    #[error("too many reports wait to be stored; send it again later")]
    Busy,
    /// Neither the database nor the spool takes it: send it again later.
    #[error("the report can be stored nowhere: {0}; send it again later")]
    Full(String),
    /// The database does not take it as it is.
    #[error("the database does not take the report: {0}")]
    Refused(String),
    /// The collector has ended.
    #[error("the collector is closed")]
    Closed,
}

/// The thread's end.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) queue: mpsc::Receiver<Message>,
    pub(super) places: Arc<Places>,
}

#[derive(Debug)]
pub(super) enum Message {
    Report(Box<Waiting>),
    Close,
}

/// A report and who waits for its answer. Its place is free again when it is gone.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) report: ClientReport,
    answer: oneshot::Sender<Result<Stored, CollectError>>,
    place: Place,
}

/// How much waits.
#[derive(Debug)]
pub(super) struct Places {
    reports: AtomicUsize,
    bytes: AtomicUsize,
    reports_max: usize,
    bytes_max: usize,
    /// The last report was refused because there is no room on disk.
    pub(super) full: AtomicBool,
}

/// Room for one report.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    bytes: usize,
}

pub(super) fn channel(settings: &CollectorSettings, monitor: Monitor) -> (CollectorSender, Receiver) {
    let (sender, receiver) = mpsc::channel();
    let places = Arc::new(Places {
        reports: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        reports_max: settings.queue_reports_max,
        bytes_max: settings.queue_bytes_max,
        full: AtomicBool::new(false),
    });
    (
        CollectorSender { queue: sender, places: Arc::clone(&places), monitor },
        Receiver { queue: receiver, places },
    )
}

impl CollectorSender {
    /// Queues a report at once, or refuses it; the future is the answer, given when the report is committed or in the spool.
    /// Dropping it does not take the report back.
    pub fn send(
        &self,
        report: ClientReport,
    ) -> impl Future<Output = Result<Stored, CollectError>> + Send + use<> {
        let answer = self.queue(report);
        async move { answer?.await.unwrap_or(Err(CollectError::Closed)) }
    }

    /// The same for a thread that may wait.
    pub fn send_and_wait(&self, report: ClientReport) -> Result<Stored, CollectError> {
        self.queue(report)?.blocking_recv().unwrap_or(Err(CollectError::Closed))
    }

    /// The same for a thread that may not wait: an error when the report finds no place. What becomes of it then is counted in
    /// [`CollectorSender::health`].
    pub fn offer(&self, report: ClientReport) -> Result<(), CollectError> {
        self.queue(report).map(drop)
    }

    /// Whether a report would find room now: neither is the queue full, nor was the last report refused for want of room on disk.
    pub fn is_ready(&self) -> bool {
        self.places.reports.load(Ordering::Relaxed) < self.places.reports_max
            && self.places.bytes.load(Ordering::Relaxed) < self.places.bytes_max
            && !self.places.full.load(Ordering::Relaxed)
    }

    /// How the collector fares.
    pub fn health(&self) -> CollectorHealth {
        CollectorHealth {
            queued_reports_now: self.places.reports.load(Ordering::Relaxed) as u64,
            queued_bytes_now: self.places.bytes.load(Ordering::Relaxed) as u64,
            ..self.monitor.snapshot()
        }
    }

    pub(super) fn close(&self) {
        // A thread that is gone has nothing left to finish.
        let _ = self.queue.send(Message::Close);
    }

    fn queue(
        &self,
        report: ClientReport,
    ) -> Result<oneshot::Receiver<Result<Stored, CollectError>>, CollectError> {
        let Some(place) = Place::take(&self.places, report.size_bytes()) else {
            self.monitor.change(|health| health.refused_busy += 1);
            return Err(CollectError::Busy);
        };
        let (answer, receiver) = oneshot::channel();
        let waiting = Box::new(Waiting { report, answer, place });
        self.queue.send(Message::Report(waiting)).map_err(|_| CollectError::Closed)?;
        Ok(receiver)
    }
}

impl Place {
    /// The place is taken before the report is sent, so that several senders together keep the bound. One report always fits.
    fn take(places: &Arc<Places>, bytes: usize) -> Option<Self> {
        let reports = places.reports.fetch_add(1, Ordering::Relaxed);
        let waiting = places.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Self { places: Arc::clone(places), bytes };
        let fits = reports < places.reports_max
            && (waiting == 0 || waiting.saturating_add(bytes) <= places.bytes_max);
        fits.then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.reports.fetch_sub(1, Ordering::Relaxed);
        self.places.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Waiting {
    /// Who waits, and the report.
    pub(super) fn parts(self) -> (Asking, ClientReport) {
        (Asking { answer: self.answer, place: self.place }, self.report)
    }
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) struct Asking {
    answer: oneshot::Sender<Result<Stored, CollectError>>,
    place: Place,
}

impl Asking {
    pub(super) fn answer(self, outcome: Result<Stored, CollectError>) {
        // The place is free before the sender knows, so that it finds room for its next report.
        drop(self.place);
        // A sender that has gone does not hear it; the report is stored all the same.
        let _ = self.answer.send(outcome);
    }

    pub(super) fn with(self, report: ClientReport) -> Waiting {
        Waiting { report, answer: self.answer, place: self.place }
    }
}
