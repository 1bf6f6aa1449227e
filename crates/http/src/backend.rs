//! What HTTP handlers ask of the rest of the process: of the control thread by messages, of the record by calls on a
//! thread that may wait for the disk.
//!
//! The receiving side is wired by the binary; this crate knows only the channel.

mod reports;

pub use reports::{ClientReports, NotStored, ReportSink, Stored, Storing};

use crate::signals::SignalSender;
use fanlight_base::PeerKey;
use fanlight_control::{JoinError, JoinRequest};
use fanlight_sfu::input::Request;
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::sides::ClientSides;
use fanlight_telemetry::turn_account::usage::{By, Price, Usage};
use fanlight_telemetry::turn_account::{AllocationRecord, SessionRecord};
use fanlight_telemetry::turn_query::{Filter, Page, Slice};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

/// How long the control thread may take to answer; it never waits, so that it takes some milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A message for the control thread.
#[derive(Debug)]
pub enum ToControl {
    /// Asks whether a join would be admitted.
    Check {
        /// Name of the room.
        room: fanlight_base::RoomName,
        /// The token grants `roomCreate`.
        may_create: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(), JoinError>>,
    },
    /// A participant asks to come in.
    Join {
        /// The request.
        request: Box<JoinRequest>,
        /// Where its signals go; dropped when the session is over.
        signals: SignalSender,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Result<Admitted, JoinError>, BackendError>>,
    },
    /// A signalling connection is gone, and the shard has handled its last request.
    Closed {
        /// Whose.
        peer: PeerKey,
    },
}

/// A participant is let in.
#[derive(Debug)]
pub struct Admitted {
    /// Its name in this process.
    pub peer: PeerKey,
    /// Where its requests go.
    pub requests: Requests,
}

/// A request on its way to a shard.
#[derive(Debug)]
pub struct Requested {
    /// Who asks.
    pub peer: PeerKey,
    /// What.
    pub request: Box<Request>,
    /// A part of the connection's credit, dropped when the shard has handled the request.
    pub credit: OwnedSemaphorePermit,
}

/// A way to the shard of a room; never waits.
#[derive(Clone)]
pub struct Requests {
    send: Arc<dyn Fn(Requested) -> Result<(), BackendError> + Send + Sync>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl Requests {
    /// `send` hands a request to a shard and must not wait: the credits of connections bound the shard's queue.
    pub fn new(send: impl Fn(Requested) -> Result<(), BackendError> + Send + Sync + 'static) -> Self {
        Self { send: Arc::new(send) }
    }

    /// Hands a request over.
    pub fn send(&self, requested: Requested) -> Result<(), BackendError> {
        (self.send)(requested)
    }
}

/// A way to the control thread; never waits.
#[derive(Clone)]
pub struct Backend {
    send: Arc<dyn Fn(ToControl) -> Result<(), BackendError> + Send + Sync>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

/// The control thread cannot take the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// Its queue is full: 503.
    #[error("the server is overloaded; try again")]
    Overloaded,
    /// It does not answer: 503.
    #[error("the server does not answer; try again later")]
    Stuck,
    /// It has ended: 503.
    #[error("the server is shutting down")]
    Gone,
}

impl Backend {
    /// `send` offers a message to the control queue and must not wait.
    pub fn new(send: impl Fn(ToControl) -> Result<(), BackendError> + Send + Sync + 'static) -> Self {
        Self { send: Arc::new(send) }
    }

    /// Asks whether a join would be admitted.
    pub async fn check(
        &self,
        room: fanlight_base::RoomName,
        may_create: bool,
    ) -> Result<Result<(), JoinError>, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(ToControl::Check { room, may_create, reply })?;
        in_time(answer).await
    }

    /// Asks to join.
    pub async fn join(
        &self,
        request: Box<JoinRequest>,
        signals: SignalSender,
    ) -> Result<Result<Admitted, JoinError>, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(ToControl::Join { request, signals, reply })?;
        in_time(answer).await?
    }

    /// Says that the signalling connection is gone. Retried by the caller's drop guard when the queue is full.
    pub fn closed(&self, peer: PeerKey) -> Result<(), BackendError> {
        self.send(ToControl::Closed { peer })
    }

    fn send(&self, message: ToControl) -> Result<(), BackendError> {
        (self.send)(message)
    }
}

/// The answer; a question that is answered later finds nobody.
async fn in_time<T>(answer: oneshot::Receiver<T>) -> Result<T, BackendError> {
    let answer = timeout(ANSWER_WITHIN, answer).await.map_err(|_| BackendError::Stuck)?;
    answer.map_err(|_| BackendError::Gone)
}

/// Questions that read the record at one time: more would only wait for the same disk.
const READS_MAX: usize = 4;
/// Questions that may wait for these; further ones are answered with 503.
const READS_WAITING_MAX: usize = 64;

/// What is on record. Calls may take as long as the disk does.
pub trait Record: Send + Sync {
    /// Users' sessions on a TURN relay.
    fn turn_sessions(&self, filter: &Filter, slice: Slice) -> Result<Page<SessionRecord>, RecordError>;

    /// TURN allocations: those that are open, or all of the session that the filter names.
    fn turn_allocations(&self, filter: &Filter, slice: Slice) -> Result<Page<AllocationRecord>, RecordError>;

    /// Sessions added up.
    fn turn_usage(&self, filter: &Filter, by: By, price: Price) -> Result<Vec<Usage>, RecordError>;

    /// How TURN and its inputs fare now: a JSON object. Does not wait.
    fn turn_health(&self) -> Value;

    /// Connections whose clients have reported.
    fn clients(&self, query: &ClientQuery) -> Result<Page<ClientConnection>, RecordError>;

    /// The last object of each type and id of a connection, by its number.
    fn client_latest(&self, number: u64) -> Result<Vec<StoredObject>, RecordError>;

    /// Objects of one type and id of a connection, by its number.
    fn client_series(&self, number: u64, series: &Series) -> Result<Vec<StoredObject>, RecordError>;

    /// Reports of a connection, by its number.
    fn client_reports(&self, number: u64, span: Span) -> Result<Vec<StoredReport>, RecordError>;

    /// The participant that a connection is of, and its tracks as both sides counted them; `None` when it is of none of ours.
    fn client_sides(&self, connection: &ClientConnection) -> Result<Option<ClientSides>, RecordError>;
}

/// Which objects of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Their `type`.
    pub kind: String,
    /// Their `id`.
    pub id: String,
    /// Of which reports, and how many objects.
    pub span: Span,
}

/// A part of a connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Of reports of this time or later, in nanoseconds since the Unix epoch.
    pub from_ns: u64,
    /// Of reports before this time.
    pub to_ns: u64,
    /// At most so many, the first ones.
    pub limit: u64,
}

/// The record cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub String);

/// Why a question to the record has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too many ask.
    #[error("too many requests read the record just now; try again")]
    Overloaded,
    /// It cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A way to the record that lets a few questions through at a time. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    record: Arc<dyn Record>,
    waiting: Arc<Semaphore>,
    reading: Arc<Semaphore>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

impl Records {
    /// A way to this record.
    pub fn new(record: impl Record + 'static) -> Self {
        Self {
            record: Arc::new(record),
            waiting: Arc::new(Semaphore::new(READS_MAX + READS_WAITING_MAX)),
            reading: Arc::new(Semaphore::new(READS_MAX)),
        }
    }

    /// How TURN and its inputs fare now.
    pub fn turn_health(&self) -> Value {
        self.record.turn_health()
    }

    /// Asks the record on a thread that may wait.
    pub async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Record) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let _place = self.waiting.try_acquire().map_err(|_| ReadError::Overloaded)?;
        // The permit goes with the thread: a client that leaves does not make room while its question is still read.
        let permit = Arc::clone(&self.reading).acquire_owned().await.map_err(|_| ReadError::Overloaded)?;
        let record = Arc::clone(&self.record);
        let answer = tokio::task::spawn_blocking(move || {
            let answer = ask(record.as_ref());
            drop(permit);
            answer
        });
        Ok(answer.await.map_err(|error| RecordError(error.to_string()))??)
    }
}
