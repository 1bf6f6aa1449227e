//! The control thread: [`Control`] between signalling connections and shards.

use crate::load::LoadMeter;
use crate::signals::SignalRouter;
use fanlight_base::PeerKey;
use fanlight_control::{Control, Output};
use fanlight_events::Event;
use fanlight_http::backend::ToControl;
use fanlight_shard::{Clock, Control as FromShard, Message, ShardHandle};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Messages handled between two looks at the shards' notes.
const BATCH_MAX: usize = 64;
/// Longest sleep; notes of shards wake the thread through the same queue.
const SLEEP_MAX: Duration = Duration::from_millis(1000);

/// Everything that can happen to the control thread.
#[derive(Debug)]
pub(crate) enum Input {
    /// From a signalling connection.
    Http(ToControl),
    /// From a shard.
    Shard(FromShard),
    /// End all sessions.
    Shutdown,
}

/// The thread's state.
pub(crate) struct ControlLoop {
    pub(crate) control: Control,
    pub(crate) clock: Clock,
    pub(crate) inputs: Receiver<Input>,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) load: LoadMeter,
    pub(crate) signals: SignalRouter,
    pub(crate) event: Box<dyn FnMut(Event) -> bool + Send>,
    pub(crate) drained: Box<dyn FnMut() + Send>,
    /// When this thread last turned, on the monotonic clock; health reads it.
    pub(crate) alive: Arc<AtomicU64>,
}

impl ControlLoop {
    /// Runs until every sender of its queue is gone.
    pub(crate) fn run(mut self) {
        let mut wait = SLEEP_MAX;
        loop {
            match self.inputs.recv_timeout(wait) {
                Ok(input) => self.handle(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..BATCH_MAX {
                let Ok(input) = self.inputs.try_recv() else { break };
                self.handle(input);
                self.drain();
            }
            let now = self.clock.now();
            self.alive.store(now.mono_ns, Ordering::Relaxed);
            if let Some(load) = self.load.measure(now.mono()) {
                self.control.handle_load(load.tracks, load.bytes_per_s);
            }
            self.control.handle_timeout(now);
            let deadline = self.drain();
            wait = deadline.min(SLEEP_MAX);
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Http(ToControl::Check { room, may_create, reply }) => {
                // The asking connection may be gone; nobody else wants the answer.
                let _ = reply.send(self.control.check(&room, may_create));
            }
            Input::Http(ToControl::Join { request, signals, reply }) => {
                let admitted = self.control.handle_join(now, *request);
                if let Ok(peer) = admitted {
                    self.signals.insert(peer, signals);
                }
                if let (Err(_), Ok(peer)) = (reply.send(admitted), admitted) {
                    self.control.handle_signal_closed(peer);
                }
            }
            Input::Http(ToControl::Request { peer, request }) => self.control.handle_request(peer, *request),
            Input::Http(ToControl::Closed { peer }) => {
                self.signals.remove(peer);
                self.control.handle_signal_closed(peer);
            }
            Input::Shard(note) => self.handle_shard(note),
            Input::Shutdown => self.control.handle_shutdown(),
        }
    }

    fn handle_shard(&mut self, note: FromShard) {
        let now = self.clock.now();
        match note {
            FromShard::Left { peer, .. } => {
                self.control.handle_left(now, peer);
                self.end_signals(peer);
            }
            FromShard::Active { peer } => self.control.handle_active(peer),
            FromShard::RoomClosed { room } => self.control.handle_room_closed(now, &room),
        }
    }

    /// Drops the sender: what is queued is still written, then the connection closes.
    fn end_signals(&self, peer: PeerKey) {
        self.signals.remove(peer);
    }

    fn drain(&mut self) -> Duration {
        loop {
            match self.control.poll_output() {
                Output::ToShard { shard, command } => {
                    let Some(handle) = self.shards.get(usize::from(shard.0)) else { continue };
                    if handle.send(Message::Command(*command)).is_err() {
                        tracing::error!(shard = shard.0, "a media thread has ended; its rooms are lost");
                    }
                }
                Output::Event(event) => {
                    // The store counts what it refuses.
                    (self.event)(*event);
                }
                Output::Drained => (self.drained)(),
                Output::Timeout(deadline, _why) => return deadline.since(self.clock.now().mono()),
            }
        }
    }
}
