//! Whether the threads of this process turn: one more thread looks at the others, and tells the control thread, `/`, metrics,
//! the log and the record.

use crate::control_loop::Input;
use fanlight_base::{Now, ParticipantSid, RoomSid, TrackSid};
use fanlight_control::{ShardHealth, ShardIndex};
use fanlight_events::{Event, Fact, ServerThread};
use fanlight_livekit::http_rules::NodeHealth;
use fanlight_shard::Clock;
use fanlight_store::EventSender;
use fanlight_store::collector::CollectorSender;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the threads are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks without a new turn after which a thread is stuck: 1.6 s, so that it is told within 2 s. A thread that has nothing to do
/// turns twice a second. Looks are counted and not time, so that a process that was stopped as a whole has no stuck threads.
const STUCK_LOOKS: u32 = 16;

/// A thread to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// As the operating system has it.
    pub(crate) name: String,
    pub(crate) job: Job,
    /// How many turns it has made; gone when it has ended.
    pub(crate) turns: Weak<AtomicU64>,
}

/// What a thread is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Media of some of the rooms.
    Shard(ShardIndex),
    /// Calls, beside their media: without it the process is of little use, and ends.
    Calls,
    /// What is kept of calls, which go on without it.
    Record,
}

/// How a thread fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Working,
    /// No turn has ended for a while.
    Stuck,
    Ended,
}

impl State {
    const ALL: [Self; 3] = [Self::Working, Self::Stuck, Self::Ended];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Stuck => "stuck",
            Self::Ended => "ended",
        }
    }
}

/// How all of it fares, for whoever asks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    board: Arc<Board>,
    clock: Clock,
    record: EventSender,
    clients: Option<CollectorSender>,
}

#[derive(Debug)]
struct Board {
    threads: Vec<Line>,
    looked_at_mono_ns: AtomicU64,
}

#[derive(Debug)]
struct Line {
    name: String,
    job: Job,
    /// Index in [`State::ALL`].
    state: AtomicU8,
    stuck: AtomicU64,
}

/// A thread as metrics tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadHealth<'a> {
    pub(crate) name: &'a str,
    pub(crate) state: State,
    /// How often it was stuck.
    pub(crate) stuck: u64,
}

impl Health {
    pub(crate) fn new(
        threads: &[Watched],
        clock: Clock,
        record: EventSender,
        clients: Option<CollectorSender>,
    ) -> Self {
        let line = |thread: &Watched| Line {
            name: thread.name.clone(),
            job: thread.job,
            state: AtomicU8::new(0),
            stuck: AtomicU64::new(0),
        };
        let threads = threads.iter().map(line).collect();
        let board = Board { threads, looked_at_mono_ns: AtomicU64::new(clock.now().mono_ns) };
        Self { board: Arc::new(board), clock, record, clients }
    }

    /// For `/`, which anybody may read.
    pub(crate) fn node(&self) -> NodeHealth {
        let mut node = NodeHealth { updated: self.looked_at(), failures: Vec::new(), warnings: Vec::new() };
        for line in &self.board.threads {
            let said = match line.state() {
                State::Working => continue,
                State::Stuck => format!("thread {} is stuck", line.name),
                State::Ended => format!("thread {} has ended", line.name),
            };
            match line.job {
                Job::Shard(_) | Job::Calls => node.failures.push(said),
                Job::Record => node.warnings.push(said),
            }
        }
        if self.record.record_fails() {
            node.warnings.push("the record cannot be written".to_owned());
        }
        let clients = self.clients.as_ref().map(CollectorSender::health).unwrap_or_default();
        if clients.failing.is_some() {
            node.warnings.push("the database of clients' reports takes nothing".to_owned());
        }
        if clients.spool_failing.is_some() {
            node.warnings.push("the spool of clients' reports takes nothing".to_owned());
        }
        node
    }

    pub(crate) fn threads(&self) -> impl Iterator<Item = ThreadHealth<'_>> {
        self.board.threads.iter().map(|line| ThreadHealth {
            name: &line.name,
            state: line.state(),
            stuck: line.stuck.load(Ordering::Relaxed),
        })
    }

    fn looked_at(&self) -> Now {
        let now = self.clock.now();
        let age_ns = now.mono_ns.saturating_sub(self.board.looked_at_mono_ns.load(Ordering::Relaxed));
        Now { mono_ns: now.mono_ns.saturating_sub(age_ns), unix_ns: now.unix_ns.saturating_sub(age_ns) }
    }
}

impl Line {
    fn state(&self) -> State {
        let state = usize::from(self.state.load(Ordering::Relaxed));
        State::ALL.get(state).copied().unwrap_or(State::Ended)
    }

    fn set(&self, state: State) {
        let place = State::ALL.iter().position(|one| *one == state).unwrap_or_default();
        self.state.store(u8::try_from(place).unwrap_or_default(), Ordering::Relaxed);
        self.stuck.fetch_add(u64::from(state == State::Stuck), Ordering::Relaxed);
    }
}

/// The thread that looks.
pub(crate) struct Watch {
    pub(crate) health: Health,
    ended: Option<oneshot::Receiver<String>>,
    stop: std::sync::mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts it. `health` is of the same threads; `control` hears of shards.
    pub(crate) fn start(
        threads: Vec<Watched>,
        health: Health,
        control: SyncSender<Input>,
    ) -> io::Result<Self> {
        let (say_ended, ended) = oneshot::channel();
        let mut watcher = Watcher::new(threads, health.clone(), control, say_ended);
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("health".into()).spawn(move || watcher.run(&stopped))?;
        Ok(Self { health, ended: Some(ended), stop, thread })
    }

    /// Ready once, with the name of the first thread that has ended and without which there is nothing to serve.
    pub(crate) async fn ended(&mut self) -> String {
        if let Some(ended) = &mut self.ended {
            let name = ended.await;
            self.ended = None;
            if let Ok(name) = name {
                return name;
            }
        }
        std::future::pending().await
    }

    /// Ends it before the threads that it looks at.
    pub(crate) fn stop(self) {
        drop(self.stop);
        // Having panicked it tells nothing, and `/` says so.
        let _ = self.thread.join();
    }
}

struct Watcher {
    threads: Vec<(Watched, Progress)>,
    health: Health,
    control: SyncSender<Input>,
    ended: Option<oneshot::Sender<String>>,
}

/// What has been seen of a thread.
#[derive(Debug)]
struct Progress {
    turns: u64,
    /// Looks since `turns` changed.
    looks: u32,
    state: State,
    /// What the control thread knows, of a shard.
    told: State,
}

impl Progress {
    const fn new() -> Self {
        Self { turns: 0, looks: 0, state: State::Working, told: State::Working }
    }

    /// Takes what is seen now; the state when it is another than before.
    fn look(&mut self, turns: Option<u64>) -> Option<State> {
        let state = match turns {
            None => State::Ended,
            Some(turns) if turns != self.turns => {
                (self.turns, self.looks) = (turns, 0);
                State::Working
            }
            Some(_) => {
                self.looks = self.looks.saturating_add(1);
                if self.looks < STUCK_LOOKS { self.state } else { State::Stuck }
            }
        };
        let changed = state != self.state;
        self.state = state;
        changed.then_some(state)
    }
}

impl Watcher {
    fn new(
        threads: Vec<Watched>,
        health: Health,
        control: SyncSender<Input>,
        ended: oneshot::Sender<String>,
    ) -> Self {
        let threads = threads.into_iter().map(|thread| (thread, Progress::new())).collect();
        Self { threads, health, control, ended: Some(ended) }
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            self.look();
        }
    }

    fn look(&mut self) {
        let now = self.health.clock.now();
        for ((thread, progress), line) in self.threads.iter_mut().zip(&self.health.board.threads) {
            let turns = thread.turns.upgrade().map(|turns| turns.load(Ordering::Relaxed));
            if let Some(state) = progress.look(turns) {
                line.set(state);
                say(&thread.name, state);
                self.health.record.try_send(fact(now, &thread.name, state));
            }
            // Offered again while the control thread has no room.
            if let Job::Shard(shard) = thread.job
                && progress.told != progress.state
                && self.control.try_send(Input::ShardHealth(shard, shard_health(progress.state))).is_ok()
            {
                progress.told = progress.state;
            }
            if progress.state == State::Ended
                && thread.job != Job::Record
                && let Some(ended) = self.ended.take()
            {
                // Nobody waits for it when the process is ending.
                let _ = ended.send(thread.name.clone());
            }
        }
        self.health.board.looked_at_mono_ns.store(now.mono_ns, Ordering::Relaxed);
    }
}

fn say(thread: &str, state: State) {
    match state {
        State::Working => tracing::warn!(thread, "a thread that was stuck works again"),
        State::Stuck => tracing::error!(thread, "a thread is stuck: it has ended no turn for 1.6 s"),
        State::Ended => tracing::error!(thread, "a thread has ended before the server"),
    }
}

fn fact(now: Now, thread: &str, state: State) -> Event {
    let body = ServerThread { thread: thread.to_owned(), state: state.as_str().to_owned() };
    Event::Fact(Fact {
        unix_ms: now.unix_ms(),
        room: RoomSid::default(),
        participant: ParticipantSid::default(),
        track: TrackSid::default(),
        body: body.into(),
    })
}

const fn shard_health(state: State) -> ShardHealth {
    match state {
        State::Working => ShardHealth::Working,
        State::Stuck => ShardHealth::Stuck,
        State::Ended => ShardHealth::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_sfu::output::LeaveAction;
    use fanlight_store::{Settings, Store};
    use std::sync::mpsc::sync_channel;
    use std::time::Instant;

    #[test]
    fn a_thread_is_stuck_when_no_turn_has_ended_for_sixteen_looks_and_works_with_the_next_one() {
        let mut progress = Progress::new();
        assert_eq!(progress.look(Some(1)), None);
        for _ in 1..STUCK_LOOKS {
            assert_eq!(progress.look(Some(1)), None);
        }
        assert_eq!(progress.look(Some(1)), Some(State::Stuck));
        assert_eq!(progress.look(Some(1)), None, "said once");
        assert_eq!(progress.look(Some(2)), Some(State::Working));
        assert_eq!(progress.look(None), Some(State::Ended));
        assert_eq!(progress.look(None), None);
    }

    struct World {
        watcher: Watcher,
        turns: Vec<Arc<AtomicU64>>,
        inputs: Receiver<Input>,
        ended: oneshot::Receiver<String>,
        store: Store,
        _dir: tempfile::TempDir,
    }

    fn world(jobs: &[(&str, Job)], control_places: usize) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = Settings { node: "ND_test".into(), retention_days: 0, turn: Default::default() };
        let store = Store::open(dir.path(), settings).expect("it opens");
        let turns: Vec<Arc<AtomicU64>> = jobs.iter().map(|_| Arc::default()).collect();
        let thread = |(name, job): &(&str, Job), turns| Watched {
            name: (*name).to_owned(),
            job: *job,
            turns: Arc::downgrade(turns),
        };
        let threads: Vec<_> = jobs.iter().zip(&turns).map(|(job, turns)| thread(job, turns)).collect();
        let (control, inputs) = sync_channel(control_places);
        let (say_ended, ended) = oneshot::channel();
        let health = Health::new(&threads, Clock::new(Instant::now()), store.sender(), None);
        let watcher = Watcher::new(threads, health, control, say_ended);
        World { watcher, turns, inputs, ended, store, _dir: dir }
    }

    impl World {
        /// Looks as long as a stuck thread takes to be noticed, while the threads named turn.
        fn pass(&mut self, turning: &[usize]) -> NodeHealth {
            for _ in 0..=STUCK_LOOKS {
                for thread in turning {
                    self.turns[*thread].fetch_add(1, Ordering::Relaxed);
                }
                self.watcher.look();
            }
            self.watcher.health.node()
        }

        fn told(&self) -> Vec<(u16, ShardHealth)> {
            let told = self.inputs.try_iter().filter_map(|input| match input {
                Input::ShardHealth(shard, health) => Some((shard.0, health)),
                _ => None,
            });
            told.collect()
        }
    }

    #[test]
    fn a_stuck_shard_is_a_failure_that_control_hears_of_even_when_it_has_no_room_at_first() {
        let mut world = world(&[("shard-0", Job::Shard(ShardIndex(0))), ("control", Job::Calls)], 1);
        world.watcher.control.try_send(Input::Shutdown(LeaveAction::Disconnect)).expect("the only place");
        assert_eq!(world.pass(&[0, 1]).failures, [""; 0]);
        assert_eq!(world.pass(&[1]).failures, ["thread shard-0 is stuck"]);
        assert_eq!(world.told(), [], "the queue was full");
        world.watcher.look();
        assert_eq!(world.told(), [(0, ShardHealth::Stuck)]);
        assert_eq!(world.pass(&[0, 1]).failures, [""; 0]);
        assert_eq!(world.told(), [(0, ShardHealth::Working)]);
        let threads: Vec<_> = world.watcher.health.threads().map(|thread| thread.stuck).collect();
        assert_eq!(threads, [1, 0]);
        world.store.close();
    }

    #[test]
    fn the_end_of_a_thread_that_keeps_the_record_is_no_reason_to_end_calls() {
        let mut world = world(&[("store", Job::Record), ("turn", Job::Calls)], 8);
        world.turns.remove(0);
        let node = world.pass(&[0]);
        assert_eq!((node.failures.len(), node.warnings), (0, vec!["thread store has ended".to_owned()]));
        assert!(world.ended.try_recv().is_err());
        world.turns.clear();
        assert_eq!(world.pass(&[]).failures, ["thread turn has ended"]);
        assert_eq!(world.ended.try_recv().as_deref(), Ok("turn"));
        world.store.close();
    }
}
