//! Packets between the TURN thread and the media threads, without a socket in between.

use fanlight_base::{Addresses, Run};
use mio::Waker;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Runs that may wait for one thread: some milliseconds of a gigabit, at most 64 kB each.
const RUNS_MAX: usize = 1024;

/// Packets of one size between two addresses, as one thread leaves them for another.
#[derive(Debug)]
pub(crate) struct Packets {
    /// As the receiving thread would see them on its own socket.
    pub(crate) addresses: Addresses,
    segment_bytes: usize,
    bytes: Vec<u8>,
}

impl Packets {
    pub(crate) fn of(run: &Run) -> Self {
        Self {
            addresses: run.addresses,
            segment_bytes: run.segment_bytes().max(1),
            bytes: run.bytes().to_vec(),
        }
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_mut(self.segment_bytes)
    }

    pub(crate) fn count(&self) -> u64 {
        self.bytes.len().div_ceil(self.segment_bytes) as u64
    }
}

/// What a media thread hears of the TURN thread.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// Packets that a client sent by a relay. What goes back to that relay goes the same way.
    Packets(Packets),
    /// No relay has this address: what is for it goes by socket.
    Forget(SocketAddr),
}

/// A queue into another thread, which is woken once for all that a turn left there.
#[derive(Debug)]
pub(crate) struct Way<T> {
    queue: SyncSender<T>,
    waker: Arc<Waker>,
    unannounced: bool,
}

impl<T> Clone for Way<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), waker: Arc::clone(&self.waker), unannounced: false }
    }
}

impl<T> Way<T> {
    pub(crate) fn new(waker: Arc<Waker>) -> (Self, Receiver<T>) {
        let (queue, receiver) = sync_channel(RUNS_MAX);
        (Self { queue, waker, unannounced: false }, receiver)
    }

    /// Leaves it there; `false` when the queue is full and it is dropped.
    pub(crate) fn offer(&mut self, value: T) -> bool {
        let accepted = self.queue.try_send(value).is_ok();
        self.unannounced |= accepted;
        accepted
    }

    /// Wakes the other thread if there is something new for it.
    pub(crate) fn announce(&mut self) {
        if std::mem::take(&mut self.unannounced) {
            // A thread that cannot be woken has ended, and with it its packets.
            let _ = self.waker.wake();
        }
    }
}
