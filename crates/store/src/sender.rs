//! The way in: a queue that is bounded, never waits, and keeps its last places for ends.

use fanlight_events::{Event, FactBody};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Facts refused by the queue between the cores and the store.
pub const QUEUE_FACTS: &str = "event_facts";
/// Samples refused by the queue between the cores and the store.
pub const QUEUE_SAMPLES: &str = "event_samples";

/// Depth of the queue: at 0.5 kB each 16 MB at worst, several seconds of a busy node while SQLite waits for its disk.
const EVENTS_MAX: usize = 32_768;
/// Samples are refused first: the next one makes good.
const SAMPLES_UNTIL: usize = EVENTS_MAX / 2;
/// Then facts; but a lost end would leave a session open for ever, so the last places are for ends.
const FACTS_UNTIL: usize = EVENTS_MAX - EVENTS_MAX / 8;

/// Hands events to the store. Cheap to clone; never waits.
#[derive(Debug, Clone)]
pub struct EventSender {
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

/// The other end.
#[derive(Debug)]
pub(crate) struct EventReceiver {
    pub(crate) queue: mpsc::Receiver<Message>,
    pub(crate) shared: Arc<Shared>,
}

/// What travels to the writer's thread.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation on the shard's thread for each event"
)]
pub(crate) enum Message {
    Event(Event),
    Close,
}

/// Counts shared by both ends.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    waiting: AtomicUsize,
    facts_refused: AtomicU64,
    samples_refused: AtomicU64,
    record_failures: AtomicU64,
    record_fails: AtomicBool,
}

pub(crate) fn channel() -> (EventSender, EventReceiver) {
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::new(Shared::default());
    (EventSender { queue: sender, shared: Arc::clone(&shared) }, EventReceiver { queue: receiver, shared })
}

impl EventSender {
    /// Queues an event for writing. `false` says that it was refused, which is counted and will be written down.
    pub fn try_send(&self, event: Event) -> bool {
        let (until, refused) = match &event {
            Event::Sample(_) => (SAMPLES_UNTIL, &self.shared.samples_refused),
            Event::Fact(fact) if is_end(&fact.body) => (EVENTS_MAX, &self.shared.facts_refused),
            Event::Fact(_) => (FACTS_UNTIL, &self.shared.facts_refused),
            // Every message of a TURN server counts: the input waits rather than lose one.
            Event::Turn(..) => (FACTS_UNTIL, &self.shared.facts_refused),
        };
        // The place is taken before the event is sent, so that several senders together keep the bound.
        let accepted = self.shared.waiting.fetch_add(1, Ordering::Relaxed) < until
            && self.queue.send(Message::Event(event)).is_ok();
        if !accepted {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            refused.fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    /// Whether there is room for a fact. Who can wait asks first.
    pub fn has_room(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) < FACTS_UNTIL / 2
    }

    /// Facts refused so far.
    pub fn facts_refused(&self) -> u64 {
        self.shared.facts_refused()
    }

    /// Samples refused so far.
    pub fn samples_refused(&self) -> u64 {
        self.shared.samples_refused()
    }

    /// The record cannot be written, for a second or longer: its file is not in its place, or the disk refuses. What was
    /// accepted waits, as far as there is room.
    pub fn record_fails(&self) -> bool {
        self.shared.record_fails.load(Ordering::Relaxed)
    }

    /// How often the record began to fail.
    pub fn record_failures(&self) -> u64 {
        self.shared.record_failures.load(Ordering::Relaxed)
    }

    /// Asks the writer to finish; what was sent before is written.
    pub(crate) fn close(&self) {
        // A writer that is gone has nothing left to finish.
        let _ = self.queue.send(Message::Close);
    }
}

impl Shared {
    /// A message was taken out.
    pub(crate) fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the record fails; `true` when that is a change.
    pub(crate) fn set_record_fails(&self, fails: bool) -> bool {
        let changed = self.record_fails.swap(fails, Ordering::Relaxed) != fails;
        self.record_failures.fetch_add(u64::from(changed && fails), Ordering::Relaxed);
        changed
    }

    pub(crate) fn facts_refused(&self) -> u64 {
        self.facts_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn samples_refused(&self) -> u64 {
        self.samples_refused.load(Ordering::Relaxed)
    }
}

fn is_end(body: &FactBody) -> bool {
    matches!(
        body,
        FactBody::RoomEnded(_)
            | FactBody::ParticipantLeft(_)
            | FactBody::TrackUnpublished(_)
            | FactBody::TrackUnsubscribed(_)
    )
}
