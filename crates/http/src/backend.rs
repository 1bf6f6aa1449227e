//! What HTTP handlers ask of the rest of the process, as messages.
//!
//! The receiving side is wired by the binary; this crate knows only the channel.

use fanlight_base::PeerKey;
use fanlight_control::{JoinError, JoinRequest};
use fanlight_sfu::input::Request;
use fanlight_sfu::output::Signal;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Signals that may wait for one WebSocket. A full update of a large room is one signal; a client that is this far
/// behind is closed and joins anew.
pub const SIGNALS_MAX: usize = 512;

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
        signals: mpsc::Sender<Signal>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<PeerKey, JoinError>>,
    },
    /// A request of a participant.
    Request {
        /// Who asks.
        peer: PeerKey,
        /// What.
        request: Box<Request>,
    },
    /// A signalling connection is gone.
    Closed {
        /// Whose.
        peer: PeerKey,
    },
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
        answer.await.map_err(|_| BackendError::Gone)
    }

    /// Asks to join.
    pub async fn join(
        &self,
        request: Box<JoinRequest>,
        signals: mpsc::Sender<Signal>,
    ) -> Result<Result<PeerKey, JoinError>, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(ToControl::Join { request, signals, reply })?;
        answer.await.map_err(|_| BackendError::Gone)
    }

    /// Passes a request on.
    pub fn request(&self, peer: PeerKey, request: Box<Request>) -> Result<(), BackendError> {
        self.send(ToControl::Request { peer, request })
    }

    /// Says that the signalling connection is gone. Retried by the caller's drop guard when the queue is full.
    pub fn closed(&self, peer: PeerKey) -> Result<(), BackendError> {
        self.send(ToControl::Closed { peer })
    }

    fn send(&self, message: ToControl) -> Result<(), BackendError> {
        (self.send)(message)
    }
}
