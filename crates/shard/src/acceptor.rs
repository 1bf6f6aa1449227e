//! Accepts ICE-TCP in one place and hands each connection to the shard that its first STUN frame names.

use crate::worker::{Message, ShardHandle};
use fanlight_base::{Addresses, Protocol};
use fanlight_transport::demux::stun_local_ufrag;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that have not yet said which session they belong to. More are closed at once: a flood of idle
/// connections must not use up the process's descriptors.
const PENDING_MAX: usize = 1024;
/// A client sends its first check right after connecting.
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);
/// A STUN binding request is some hundred bytes long.
const FIRST_FRAME_BYTES: usize = 2048;

const WAKE: Token = Token(usize::MAX);
const FIRST_PENDING: usize = 1024;

/// The accepting thread.
#[derive(Debug)]
pub struct Acceptor {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: JoinHandle<()>,
}

/// ICE-TCP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AcceptorError {
    /// Listening failed.
    #[error("cannot listen on TCP {address}: {source}; choose another rtc.tcp_port or end what holds it")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The poll or the thread.
    #[error("cannot start accepting ICE-TCP: {0}")]
    Start(#[from] io::Error),
}

impl Acceptor {
    /// Listens on every address; `shard_of` finds the shard of a session by its local ufrag.
    pub fn start(
        addresses: &[SocketAddr],
        shard_of: impl Fn(&str) -> Option<ShardHandle> + Send + 'static,
    ) -> Result<Self, AcceptorError> {
        let poll = Poll::new()?;
        let mut listeners = Vec::new();
        for (index, bound) in addresses.iter().enumerate() {
            let listen = |source| AcceptorError::Listen { address: *bound, source };
            let mut listener = TcpListener::bind(*bound).map_err(listen)?;
            poll.registry().register(&mut listener, Token(index), Interest::READABLE)?;
            listeners.push((listener, *bound));
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let stop = Arc::new(AtomicBool::new(false));
        let state = Accepting { poll, listeners, pending: BTreeMap::new(), next: FIRST_PENDING, shard_of };
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("ice-tcp".into()).spawn(move || state.run(&flag))?;
        Ok(Self { stop, waker, thread })
    }

    /// Ends the thread; connections already handed over live on.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // If waking fails the thread still sees the flag within a second.
        let _ = self.waker.wake();
        let _ = self.thread.join();
    }
}

struct Accepting<F> {
    poll: Poll,
    listeners: Vec<(TcpListener, SocketAddr)>,
    pending: BTreeMap<usize, Pending>,
    next: usize,
    shard_of: F,
}

struct Pending {
    stream: TcpStream,
    addresses: Addresses,
    since: Instant,
    first: Vec<u8>,
}

enum Progress {
    Wait,
    Ready(ShardHandle),
    Close,
}

impl<F: Fn(&str) -> Option<ShardHandle>> Accepting<F> {
    fn run(mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.poll.poll(&mut events, Some(Duration::from_secs(1)))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "ICE-TCP is no longer accepted");
                return;
            }
            for token in events.iter().map(|event| event.token().0) {
                if token < self.listeners.len() {
                    self.accept(token);
                } else {
                    self.advance(token);
                }
            }
            self.pending.retain(|_, pending| pending.since.elapsed() < FIRST_FRAME_WITHIN);
        }
    }

    fn accept(&mut self, index: usize) {
        while let Some((listener, local)) = self.listeners.get(index) {
            let Ok((mut stream, remote)) = listener.accept() else { return };
            let addresses = Addresses { local: *local, remote, protocol: Protocol::Tcp };
            if self.pending.len() >= PENDING_MAX {
                continue;
            }
            // Media does not wait for a full segment.
            let _ = stream.set_nodelay(true);
            let token = self.next;
            self.next += 1;
            if self.poll.registry().register(&mut stream, Token(token), Interest::READABLE).is_ok() {
                let pending = Pending { stream, addresses, since: Instant::now(), first: Vec::new() };
                self.pending.insert(token, pending);
                self.advance(token);
            }
        }
    }

    fn advance(&mut self, token: usize) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        let shard = match pending.read(&self.shard_of) {
            Progress::Wait => return,
            Progress::Close => None,
            Progress::Ready(shard) => Some(shard),
        };
        let Some(mut pending) = self.pending.remove(&token) else { return };
        let _ = self.poll.registry().deregister(&mut pending.stream);
        let Some(shard) = shard else { return };
        // A duplicate of the descriptor leaves mio's bookkeeping behind; the original closes here.
        let Ok(stream) = SockRef::from(&pending.stream).try_clone() else { return };
        let message =
            Message::Connection { stream: stream.into(), addresses: pending.addresses, first: pending.first };
        let _ = shard.send(message);
    }
}

impl Pending {
    fn read(&mut self, shard_of: &impl Fn(&str) -> Option<ShardHandle>) -> Progress {
        let mut chunk = [0; FIRST_FRAME_BYTES];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Progress::Close,
                Ok(count) => self.first.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Wait,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Close,
            }
            let Some((length, rest)) = self.first.split_first_chunk::<2>() else { continue };
            let length = usize::from(u16::from_be_bytes(*length));
            if length > FIRST_FRAME_BYTES {
                return Progress::Close;
            }
            let Some(frame) = rest.get(..length) else { continue };
            return match stun_local_ufrag(frame).and_then(shard_of) {
                Some(shard) => Progress::Ready(shard),
                None => Progress::Close,
            };
        }
    }
}
