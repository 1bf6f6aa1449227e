//! A connection as `hyper` reads it: heads are gathered here, in memory that is counted, and handed on whole.
//!
//! No second head is read before the first request is answered. The place among all connections is held here too, so that a
//! WebSocket, which takes the connection over, keeps it for as long as it lives.

use crate::gate::{Gate, Kind, SMALL_HEAD_BYTES, Share};
use fanlight_livekit::head::{self, BadHead, BodyLength, HEAD_BYTES_MAX};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes handed on at one time, and read at one time while a head is gathered: `hyper`'s buffer stays as small.
const PIECE_BYTES: usize = 8 * 1024;
/// What is still read, and thrown away, of a request that was refused: its sender would see a reset connection instead of
/// the answer.
const LINGER_BYTES: usize = 1 << 20;
/// And for how long.
const LINGER: Duration = Duration::from_secs(2);
/// Stands in for a head that is not handed on.
const INSTEAD: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

/// Why a head was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Bad(#[from] BadHead),
    #[error("the request's head is over {HEAD_BYTES_MAX} bytes")]
    TooLong,
    #[error("too many long requests at once; try again")]
    Busy,
}

impl Refused {
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Bad(bad) => bad.status(),
            Self::TooLong => 431,
            Self::Busy => 503,
        }
    }
}

/// What the next request has beside what `hyper` reads.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Answer with this instead.
    pub(crate) refused: Option<Refused>,
    /// The query, which was too long.
    pub(crate) query: Option<String>,
}

/// Where a request finds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Beside>>);

impl Slot {
    pub(crate) fn take(&self) -> Beside {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, beside: Beside) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = beside;
    }
}

/// The place of a connection in the course of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A head is gathered; no line ended in so many bytes.
    Head(usize),
    /// Of the gathered bytes so many are handed on already, of so many that are the head's.
    Handing { from: usize, head: usize, then: Then },
    /// So many bytes of a body are still to come.
    Body(u64),
    /// What comes is the last request's body.
    Coded,
    /// The connection was switched to another protocol.
    Open,
    /// The request is whole; its answer has not begun.
    Answering,
    /// The head was refused: nothing of it is handed on.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Body(BodyLength),
    Refused,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    inner: S,
    state: State,
    buffer: Vec<u8>,
    /// Of the long head that is gathered or answered.
    share: Share,
    slot: Slot,
    waiting: Option<Waker>,
    /// The answer of this request has begun.
    answered: bool,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    _place: Option<Share>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub(crate) fn new(inner: S, gate: &Gate, remote: IpAddr, place: Option<Share>) -> (Self, Slot) {
        let slot = Slot::default();
        let stream = Self {
            inner,
            state: State::Head(0),
            buffer: Vec::new(),
            share: gate.share(Kind::HeadBytes, remote),
            slot: slot.clone(),
            waiting: None,
            answered: false,
            linger: None,
            _place: place,
        };
        (stream, slot)
    }

    /// Reads into the buffer; gives back how many bytes came.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE_BYTES];
        let room = self.buffer.capacity().saturating_sub(self.buffer.len()).clamp(1, PIECE_BYTES);
        let mut piece = ReadBuf::new(piece.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
        self.buffer.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Makes room for more of a head.
    fn make_room(&mut self) -> Result<(), Refused> {
        let (length, capacity) = (self.buffer.len(), self.buffer.capacity());
        if length < capacity {
            return Ok(());
        }
        if length >= HEAD_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let wanted = match capacity {
            0..SMALL_HEAD_BYTES => (capacity * 2).clamp(1024, SMALL_HEAD_BYTES),
            _ => (capacity * 2).min(HEAD_BYTES_MAX),
        };
        let counted = wanted.saturating_sub(SMALL_HEAD_BYTES);
        let more = counted.saturating_sub(self.share.amount());
        if more > 0 && !self.share.grow(more) {
            return Err(Refused::Busy);
        }
        self.buffer.reserve_exact(wanted - length);
        Ok(())
    }

    /// The head is there, up to `end`.
    fn gathered(&mut self, end: usize) {
        let rest = self.buffer.split_off(end);
        match head::read(std::mem::take(&mut self.buffer)) {
            Ok(read) => {
                self.slot.put(Beside { refused: None, query: read.query });
                let head = read.bytes.len();
                self.buffer = read.bytes;
                self.buffer.reserve_exact(rest.len());
                self.buffer.extend_from_slice(&rest);
                self.state = State::Handing { from: 0, head, then: Then::Body(read.body) };
            }
            Err(bad) => self.refuse(bad.into()),
        }
    }

    fn refuse(&mut self, refused: Refused) {
        self.share.clear();
        self.slot.put(Beside { refused: Some(refused), query: None });
        self.buffer = INSTEAD.to_vec();
        self.state = State::Handing { from: 0, head: INSTEAD.len(), then: Then::Refused };
    }

    /// Hands on what is gathered, up to `upto`, from `from`.
    fn hand(&self, from: usize, upto: usize, to: &mut ReadBuf<'_>) -> usize {
        let length = (upto - from).min(to.remaining()).min(PIECE_BYTES);
        to.put_slice(self.buffer.get(from..from + length).unwrap_or_default());
        length
    }

    /// The rest of the buffer is what follows the head.
    fn handed(&mut self, head: usize, then: Then) {
        let rest = self.buffer.split_off(head.min(self.buffer.len()));
        self.buffer = rest;
        self.answered = false;
        self.state = match then {
            Then::Body(BodyLength::Bytes(0)) => State::Answering,
            Then::Body(BodyLength::Bytes(bytes)) => State::Body(bytes),
            Then::Body(BodyLength::Coded) => State::Coded,
            Then::Refused => State::Refused,
        };
    }

    /// The body is whole; it may have been answered before.
    fn whole(&mut self) {
        self.state = if self.answered { State::Head(0) } else { State::Answering };
    }

    /// Of what follows the head at most `most` bytes; gives back how many.
    fn pass(&mut self, cx: &mut Context<'_>, most: u64, to: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(to.remaining());
        if !self.buffer.is_empty() {
            let length = self.hand(0, self.buffer.len().min(most), to);
            self.buffer.drain(..length);
            if self.buffer.is_empty() {
                self.buffer = Vec::new();
            }
            return Poll::Ready(Ok(length));
        }
        let mut part = ReadBuf::new(to.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let length = part.filled().len();
        to.advance(length);
        Poll::Ready(Ok(length))
    }

    /// An answer begins.
    fn wrote(&mut self, bytes: &[u8]) {
        if self.answered || bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 100 ") {
            return;
        }
        self.answered = true;
        self.share.clear();
        if self.state == State::Answering {
            let switched = bytes.starts_with(b"HTTP/1.1 101 ");
            self.state = if switched { State::Open } else { State::Head(0) };
        }
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.state {
                State::Head(from) => {
                    let empty = head::empty_lines(&this.buffer);
                    this.buffer.drain(..empty);
                    if let Some(end) = head::end(&this.buffer, from.saturating_sub(empty)) {
                        this.gathered(end);
                        continue;
                    }
                    this.state = State::Head(this.buffer.len());
                    if let Err(refused) = this.make_room() {
                        this.refuse(refused);
                        continue;
                    }
                    if ready!(this.fill(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Handing { from, head, then } if from == head => this.handed(head, then),
                State::Handing { from, head, then } => {
                    let from = from + this.hand(from, head, to);
                    this.state = State::Handing { from, head, then };
                    if from == head {
                        this.handed(head, then);
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Body(left) => {
                    let length = ready!(this.pass(cx, left, to))?;
                    let left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
                    this.state = State::Body(left);
                    if left == 0 {
                        this.whole();
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Open if this.buffer.is_empty() => return Pin::new(&mut this.inner).poll_read(cx, to),
                State::Open | State::Coded => return this.pass(cx, u64::MAX, to).map_ok(|_| ()),
                // Whoever leaves before the answer is noticed; what it sends ahead waits.
                State::Answering if this.buffer.len() < PIECE_BYTES => {
                    this.waiting = Some(cx.waker().clone());
                    this.buffer.reserve(1);
                    if ready!(this.fill(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Answering | State::Refused => {
                    this.waiting = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
        this.wrote(bytes);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, parts))?;
        this.wrote(parts.iter().find(|part| !part.is_empty()).map_or(&[], |part| part));
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        let is_refused = matches!(this.state, State::Refused | State::Body(_) | State::Coded);
        let linger = match &mut this.linger {
            Some(linger) => linger,
            None if is_refused => this.linger.insert((Box::pin(sleep(LINGER)), LINGER_BYTES)),
            None => return Poll::Ready(Ok(())),
        };
        let mut piece = [0; PIECE_BYTES];
        while linger.0.as_mut().poll(cx).is_pending() && linger.1 > 0 {
            let mut piece = ReadBuf::new(&mut piece);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() => linger.1 = linger.1.saturating_sub(PIECE_BYTES),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
