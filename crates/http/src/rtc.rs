//! Signalling over WebSocket: one task for each connection, around one pure `Session`.

use crate::app::App;
use crate::backend::{Admitted, Backend, BackendError, Requested, Requests};
use crate::gate::{Kind, Share};
use crate::signals::{self, SignalReceiver};
use axum::body::Body;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use axum::http::Response;
use fanlight_base::PeerKey;
use fanlight_livekit::admission::{self, Admission};
use fanlight_livekit::http_rules::Answer;
use fanlight_livekit::pace;
use fanlight_livekit::session::{Action, Frame, MESSAGE_BYTES_MAX, Session, SessionSetup};
use fanlight_sfu::input::Request;
use fanlight_sfu::output::Signal;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

/// A WebSocket ping from us, as often as LiveKit sends one; answers are not required.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long the media side may take to admit somebody whom `control` let in; LiveKit's first attempt waits 3 s.
const JOIN_WITHIN: Duration = Duration::from_secs(5);
/// How long a message may take to leave; a client that takes none for so long is gone.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// What a connection reads at a time, kept as long as it lives: most messages are shorter, and the library's own 128 KiB
/// would be two thirds of an idle participant's memory.
const READ_BUFFER_BYTES: usize = 4096;
/// Cost of what one connection may have in its shard's queue: sixteen small requests, or one description. What comes behind
/// waits in the socket, so that a connection that floods adds no more than this to the wait of others.
const CREDIT: u32 = 32 << 10;
const _: () = assert!(pace::DESCRIPTION_COST >= CREDIT, "a description has the queue to itself");
/// Bytes of a signal ([`Signal::bytes`]) that needs no share of what all connections may be sending: all but joins into
/// large rooms. While a message is written the library has a copy of it.
const SMALL_SIGNAL_BYTES: usize = 1 << 20;
/// How often a share that is not to be had is asked for again.
const SHARE_RETRY: Duration = Duration::from_millis(100);
/// How long a full control queue is waited for when a connection ends.
const CLOSE_RETRY: Duration = Duration::from_millis(100);

/// Lets a participant in and answers with the upgrade once its `JoinResponse` is ready.
pub(crate) async fn join(
    app: &App,
    upgrade: WebSocketUpgrade,
    admission: Admission,
    remote: IpAddr,
) -> Result<Response<Body>, Answer> {
    let Admission { request, session } = admission;
    let (sender, mut signals) = signals::queue();
    let Admitted { peer, requests } = match app.backend.join(Box::new(request), sender).await {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(refusal)) => return Err(admission::refused(refusal)),
        Err(error) => return Err(Answer::text(503, error.to_string())),
    };
    // From here on the session ends when this is dropped, whatever happens to the request.
    let credit = Arc::new(Semaphore::new(CREDIT as usize));
    let guard = Peer { key: peer, backend: app.backend.clone(), requests, credit };
    let Ok(Some(first @ Signal::Joined(_))) = timeout(JOIN_WITHIN, signals.recv()).await else {
        return Err(Answer::text(500, "connection closed by media"));
    };
    let app = app.clone();
    let upgrade = upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(READ_BUFFER_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let session = Session::new(session);
        let mut connection = Connection { app, remote, socket, session, signals, peer: Some(guard) };
        if connection.signal(first).await.is_continue() {
            connection.run().await;
        }
    }))
}

/// Upgrades, tells the client that there is nothing to resume, and closes.
pub(crate) fn refuse_resume(
    app: &App,
    upgrade: WebSocketUpgrade,
    setup: SessionSetup,
    remote: IpAddr,
) -> Response<Body> {
    let app = app.clone();
    upgrade.on_upgrade(move |socket| async move {
        let mut session = Session::new(setup);
        let actions = session.refuse_resume();
        let (_, signals) = signals::queue();
        let mut connection = Connection { app, remote, socket, session, signals, peer: None };
        // The connection ends here either way.
        let _ = connection.perform(actions, 0).await;
    })
}

/// Tells `control` of the end of a connection when dropped, after the shard has handled its last request.
struct Peer {
    key: PeerKey,
    backend: Backend,
    requests: Requests,
    credit: Arc<Semaphore>,
}

impl Peer {
    /// Waits until the shard has handled enough of what this connection asked before.
    async fn request(&self, request: Box<Request>, cost: u32) -> Result<(), BackendError> {
        let waits = Arc::clone(&self.credit).acquire_many_owned(cost.min(CREDIT));
        let credit = waits.await.map_err(|_| BackendError::Gone)?;
        self.requests.send(Requested { peer: self.key, request, credit })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let idle = self.credit.available_permits() == CREDIT as usize;
        if idle && self.backend.closed(self.key) != Err(BackendError::Overloaded) {
            return;
        }
        // Without a runtime the process ends, and control with it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (key, backend, credit) = (self.key, self.backend.clone(), Arc::clone(&self.credit));
        runtime.spawn(async move {
            // A semaphore that is never closed always grants.
            let _ = credit.acquire_many(CREDIT).await;
            while backend.closed(key) == Err(BackendError::Overloaded) {
                sleep(CLOSE_RETRY).await;
            }
        });
    }
}

struct Connection {
    app: App,
    remote: IpAddr,
    socket: WebSocket,
    session: Session,
    signals: SignalReceiver,
    peer: Option<Peer>,
}

type Flow = std::ops::ControlFlow<()>;

impl Connection {
    async fn run(&mut self) {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wait = self.session.wait((self.app.now)());
            let flow = tokio::select! {
                signal = self.signals.recv() => match signal {
                    Some(signal) => self.signal(signal).await,
                    // The session is over, or this client read too slowly.
                    None => self.close().await,
                },
                () = sleep(wait), if !wait.is_zero() => Flow::Continue(()),
                message = self.socket.recv(), if wait.is_zero() => match message {
                    Some(Ok(message)) => self.message(message).await,
                    Some(Err(_)) | None => Flow::Break(()),
                },
                _ = pings.tick() => self.send(Message::Ping(Vec::new().into())).await,
            };
            if flow.is_break() {
                return;
            }
        }
    }

    async fn message(&mut self, message: Message) -> Flow {
        let frame = match message {
            Message::Binary(bytes) => Frame::Binary(bytes.into()),
            Message::Text(text) => Frame::Text(text.as_str().to_owned()),
            Message::Ping(_) | Message::Pong(_) => {
                self.session.handle_ping((self.app.now)());
                return Flow::Continue(());
            }
            Message::Close(_) => return Flow::Break(()),
        };
        let now = (self.app.now)();
        let actions = self.session.handle_frame(&self.app.server, now, &frame);
        self.perform(actions, frame.len()).await
    }

    async fn signal(&mut self, signal: Signal) -> Flow {
        let Some(_until_it_is_sent) = self.share(signal.bytes()).await else { return Flow::Break(()) };
        let now = (self.app.now)();
        let actions = self.session.handle_signal(&self.app.server, now, signal);
        self.perform(actions, 0).await
    }

    /// A place for a long message among those that are being sent; `None` when there was none in time.
    async fn share(&mut self, bytes: usize) -> Option<Share> {
        let gate = &self.app.gate;
        let mut share = gate.share(Kind::SentBytes, self.remote);
        if bytes <= SMALL_SIGNAL_BYTES {
            return Some(share);
        }
        let bytes = bytes.min(gate.most_of_host(Kind::SentBytes));
        let taking = async {
            while !share.grow(bytes) {
                sleep(SHARE_RETRY).await;
            }
        };
        tokio::select! {
            taken = timeout(SEND_WITHIN, taking) => taken.ok()?,
            () = self.signals.given_up() => return None,
        }
        Some(share)
    }

    /// Does what the session says about a message of so many bytes.
    async fn perform(&mut self, actions: Vec<Action>, bytes: usize) -> Flow {
        for action in actions {
            let flow = match action {
                Action::Send(Frame::Binary(bytes)) => self.send(Message::Binary(bytes.into())).await,
                Action::Send(Frame::Text(text)) => self.send(Message::Text(text.into())).await,
                Action::Request(request) => self.request(request, bytes).await,
                Action::Close => self.close().await,
            };
            if flow.is_break() {
                return flow;
            }
        }
        Flow::Continue(())
    }

    async fn request(&mut self, request: Box<Request>, bytes: usize) -> Flow {
        let Some(peer) = &self.peer else { return Flow::Continue(()) };
        let description = matches!(*request, Request::Offer { .. } | Request::Answer { .. });
        let asking = peer.request(request, pace::cost(bytes, description));
        let asked = tokio::select! {
            asked = asking => asked,
            () = self.signals.given_up() => return Flow::Break(()),
        };
        match asked {
            Ok(()) => Flow::Continue(()),
            Err(error) => {
                tracing::warn!(%error, "a signalling request could not be passed on");
                Flow::Break(())
            }
        }
    }

    async fn send(&mut self, message: Message) -> Flow {
        let sent = tokio::select! {
            sent = timeout(SEND_WITHIN, self.socket.send(message)) => sent,
            () = self.signals.given_up() => return Flow::Break(()),
        };
        match sent {
            Ok(Ok(())) => Flow::Continue(()),
            Ok(Err(_)) | Err(_) => Flow::Break(()),
        }
    }

    async fn close(&mut self) -> Flow {
        let frame = CloseFrame { code: 1000, reason: Utf8Bytes::default() };
        // The peer may be gone already.
        let _ = self.send(Message::Close(Some(frame))).await;
        Flow::Break(())
    }
}
