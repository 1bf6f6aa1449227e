//! Who is connected, what was said so far by whom, and how much of all that there may be.

use super::super::client_stats::Who;
use fanlight_base::Mono;
use fanlight_telemetry::collector::{ClientReport, Reason};
use fanlight_telemetry::decode::rtcstats::{BadMessage, Dump, Protocol};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// WebSockets at a time, each with a message that may be half read.
const SOCKETS_MAX: usize = 4_096;
/// WebSockets of one person at a time: pages in tabs.
const PERSON_MAX: usize = 8;
/// WebSockets with one key at a time.
const KEY_MAX: usize = 2_048;
/// Bytes of what all dumps remember together.
const BYTES_MAX: usize = 256 << 20;
/// A page may come again within so long, and its differences still add up.
const KEPT: Duration = Duration::from_secs(600);
/// Pages that may come again.
const KEPT_MAX: usize = 4_096;

/// All WebSockets of rtcstats.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    state: Mutex<State>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<Who, usize>,
    all: usize,
    /// Pages that have named their session.
    sessions: BTreeMap<SessionKey, Session>,
}

type SessionKey = (Who, &'static str, String);

#[derive(Debug)]
struct Session {
    dump: Arc<Held>,
    /// Ends the socket that had it before.
    replaced: Arc<Notify>,
    /// Since when no socket has it.
    left: Option<Mono>,
}

/// A dump, counted in the memory of all. Whoever has the higher turn has it.
#[derive(Debug)]
pub(super) struct Held {
    dump: Mutex<Dump>,
    turn: AtomicU64,
    bytes: AtomicUsize,
    counters: Arc<Counters>,
}

/// The place of one WebSocket.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) dump: Arc<Held>,
    /// Another socket goes on with the session.
    pub(super) replaced: Arc<Notify>,
    turn: u64,
    who: Who,
    session: Option<SessionKey>,
}

/// Why a WebSocket was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No good token and no good key.
    Unknown,
    /// A subprotocol that is not spoken.
    Protocol,
    /// Too many sockets.
    Many,
    /// Too much is remembered.
    Memory,
}

impl Refused {
    const ALL: [Self; 4] = [Self::Unknown, Self::Protocol, Self::Many, Self::Memory];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "who this is cannot be told",
            Self::Protocol => "this subprotocol is not spoken",
            Self::Many => "too many WebSockets of rtcstats are open; close one, or try again later",
            Self::Memory => "the dumps of rtcstats take too much memory; try again later",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unauthenticated",
            Self::Protocol => "protocol",
            Self::Many => "sockets",
            Self::Memory => "memory",
        }
    }
}

/// Why a WebSocket has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The page left.
    Left,
    /// It said nothing for too long.
    Idle,
    /// Another socket goes on with its session.
    Replaced,
    /// Nothing could be stored.
    Store,
}

impl Ended {
    const ALL: [Self; 4] = [Self::Left, Self::Idle, Self::Replaced, Self::Store];

    const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Idle => "idle",
            Self::Replaced => "replaced",
            Self::Store => "store",
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    ended: [AtomicU64; Ended::ALL.len()],
    bad: [AtomicU64; BadMessage::ALL.len()],
    rejected: [AtomicU64; Reason::ALL.len()],
    unfit: AtomicU64,
    dump_bytes: AtomicUsize,
}

/// Counts by name.
pub type RtcStatsCounts = Vec<(&'static str, u64)>;

/// What the WebSockets of rtcstats have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RtcStatsSnapshot {
    /// WebSockets that were let in.
    pub opened: u64,
    /// Of these, those that are open.
    pub open_now: u64,
    /// Messages read.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes remembered of pages, to add differences to.
    pub dump_bytes_now: u64,
    /// WebSockets that were not let in, by reason.
    pub refused: RtcStatsCounts,
    /// WebSockets that have ended, by reason.
    pub ended: RtcStatsCounts,
    /// Messages that could not be taken, by what is wrong with them, and those that the store did not take.
    pub bad_messages: RtcStatsCounts,
    /// Objects that could not be taken, by reason.
    pub rejected: RtcStatsCounts,
}

fn add(counters: &[AtomicU64], place: Option<usize>, count: u64) {
    if let Some(counter) = place.and_then(|place| counters.get(place)) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

impl Sockets {
    /// Gives a place, with what the page has said before when it names its session.
    pub(super) fn sit(
        &self,
        now: Mono,
        who: Who,
        session: Option<(Protocol, String)>,
        fresh: Dump,
    ) -> Result<Seat, Refused> {
        let mut state = self.state();
        state.forget(now);
        let most = match who {
            Who::Person { .. } => PERSON_MAX,
            Who::Key(_) => KEY_MAX,
        };
        if state.all >= SOCKETS_MAX || state.open.get(&who).is_some_and(|open| *open >= most) {
            return Err(Refused::Many);
        }
        if self.counters.dump_bytes.load(Ordering::Relaxed) >= BYTES_MAX {
            state.sessions.retain(|_, session| session.left.is_none());
            if self.counters.dump_bytes.load(Ordering::Relaxed) >= BYTES_MAX {
                return Err(Refused::Memory);
            }
        }
        let key = session.map(|(protocol, name)| (who.clone(), protocol.subprotocol(), name));
        let replaced = Arc::new(Notify::new());
        let known = key.as_ref().and_then(|key| state.sessions.get_mut(key));
        let dump = match known {
            Some(session) => {
                session.replaced.notify_one();
                session.replaced = Arc::clone(&replaced);
                session.left = None;
                Arc::clone(&session.dump)
            }
            None => Arc::new(Held::new(fresh, Arc::clone(&self.counters))),
        };
        if let Some(key) = key.clone().filter(|key| !state.sessions.contains_key(key)) {
            let session = Session { dump: Arc::clone(&dump), replaced: Arc::clone(&replaced), left: None };
            state.sessions.insert(key, session);
        }
        state.all += 1;
        *state.open.entry(who.clone()).or_default() += 1;
        self.counters.opened.fetch_add(1, Ordering::Relaxed);
        let turn = dump.turn.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(Seat { dump, replaced, turn, who, session: key })
    }

    /// Takes a place back.
    pub(super) fn leave(&self, now: Mono, seat: &Seat, ended: Ended) {
        add(&self.counters.ended, Ended::ALL.iter().position(|one| *one == ended), 1);
        let mut state = self.state();
        state.all = state.all.saturating_sub(1);
        if let Some(open) = state.open.get_mut(&seat.who) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                state.open.remove(&seat.who);
            }
        }
        if let Some(session) = seat.session.as_ref().and_then(|key| state.sessions.get_mut(key))
            && seat.is_current()
        {
            session.left = Some(now);
        }
        state.forget(now);
    }

    /// Counts one that was not let in.
    pub(super) fn refused(&self, refused: Refused) {
        add(&self.counters.refused, Refused::ALL.iter().position(|one| *one == refused), 1);
    }

    /// Counts messages that the store did not take as they are.
    pub(super) fn unfit(&self) {
        self.counters.unfit.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> RtcStatsSnapshot {
        let counters = &self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let named = |names: &[&'static str], counts: &[AtomicU64]| -> RtcStatsCounts {
            names.iter().copied().zip(counts.iter().map(load)).collect()
        };
        let mut bad_messages = named(&BadMessage::ALL.map(BadMessage::name), &counters.bad);
        bad_messages.push(("unfit", load(&counters.unfit)));
        RtcStatsSnapshot {
            opened: load(&counters.opened),
            open_now: self.state().all as u64,
            messages: load(&counters.messages),
            bytes: load(&counters.bytes),
            dump_bytes_now: counters.dump_bytes.load(Ordering::Relaxed) as u64,
            refused: named(&Refused::ALL.map(Refused::name), &counters.refused),
            ended: named(&Ended::ALL.map(Ended::name), &counters.ended),
            bad_messages,
            rejected: named(&Reason::ALL.map(Reason::name), &counters.rejected),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets pages that have not come again.
    fn forget(&mut self, now: Mono) {
        self.sessions.retain(|_, session| session.left.is_none_or(|left| now.since(left) < KEPT));
        let away = self.sessions.iter().filter_map(|(key, session)| Some((session.left?, key)));
        let mut away: Vec<_> = away.map(|(left, key)| (left, key.clone())).collect();
        let beyond = away.len().saturating_sub(KEPT_MAX);
        if beyond > 0 {
            away.sort_unstable();
            for (_, key) in away.iter().take(beyond) {
                self.sessions.remove(key);
            }
        }
    }
}

impl Seat {
    /// Whether no other socket goes on with the session.
    pub(super) fn is_current(&self) -> bool {
        self.dump.turn.load(Ordering::Acquire) == self.turn
    }

    /// Reads a message; `None` when there is nothing to store, or another socket goes on.
    pub(super) fn read(&self, now_ms: u64, message: &str) -> Option<ClientReport> {
        let counters = &self.dump.counters;
        counters.messages.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        let mut dump = self.dump.dump.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_current() {
            return None;
        }
        let read = dump.read(now_ms, message);
        self.dump.count(dump.size_bytes());
        drop(dump);
        match read {
            Ok(report) => {
                for (reason, count) in &report.rejected {
                    add(&counters.rejected, Reason::ALL.iter().position(|one| one == reason), *count);
                }
                Some(report)
            }
            Err(bad) => {
                add(&counters.bad, BadMessage::ALL.iter().position(|one| *one == bad), 1);
                None
            }
        }
    }
}

impl Held {
    fn new(dump: Dump, counters: Arc<Counters>) -> Self {
        Self { dump: Mutex::new(dump), turn: AtomicU64::new(0), bytes: AtomicUsize::new(0), counters }
    }

    /// Called with the dump locked, so that one comes after the other.
    fn count(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.counters.dump_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counters.dump_bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_base::Now;
    use fanlight_telemetry::decode::browser::Sender;
    use fanlight_telemetry::decode::rtcstats::Speaker;

    fn at(s: u64) -> Mono {
        Now { mono_ns: s * 1_000_000_000, unix_ns: 0 }.mono()
    }

    fn person(identity: &str) -> Who {
        Who::Person { room: "r".into(), identity: identity.into() }
    }

    fn fresh() -> Dump {
        Dump::new(Protocol::V5, Speaker { page: "p".into(), ..Speaker::default() }, Sender::default())
    }

    fn session(name: &str) -> Option<(Protocol, String)> {
        Some((Protocol::V5, name.to_owned()))
    }

    const WHOLE: &str = r#"["g","PC_0",{"t":1,"0":{"type":5,"80":1}},1795231283000]"#;
    const CHANGED: &str = r#"["g","PC_0",{"t":2,"0":{"80":2}},1795231284000]"#;

    fn objects(seat: &Seat, message: &str) -> usize {
        seat.read(5, message).map_or(0, |report| report.objects.len())
    }

    #[test]
    fn a_page_that_comes_again_goes_on_where_it_was() {
        let sockets = Sockets::default();
        let first = sockets.sit(at(0), person("a"), session("s"), fresh()).unwrap();
        assert_eq!((objects(&first, WHOLE), objects(&first, CHANGED)), (1, 1));
        // The old socket is not known to be dead yet.
        let second = sockets.sit(at(1), person("a"), session("s"), fresh()).unwrap();
        assert!(!first.is_current() && objects(&first, CHANGED) == 0 && objects(&second, CHANGED) == 1);
        sockets.leave(at(2), &first, Ended::Replaced);
        sockets.leave(at(3), &second, Ended::Left);
        let third = sockets.sit(at(600), person("a"), session("s"), fresh()).unwrap();
        assert_eq!(objects(&third, CHANGED), 1);
        sockets.leave(at(601), &third, Ended::Left);
        // Too late, somebody else, and without a name.
        for (s, who, name) in [(1_300, "a", "s"), (1_300, "b", "s"), (1_300, "a", "t")] {
            let other = sockets.sit(at(s), person(who), session(name), fresh()).unwrap();
            assert_eq!(objects(&other, CHANGED), 0, "{who} {name}");
        }
        let unnamed = sockets.sit(at(1_300), person("a"), None, fresh()).unwrap();
        assert_eq!(objects(&unnamed, CHANGED), 0);
        let counted = sockets.snapshot();
        assert_eq!((counted.opened, counted.open_now, counted.messages), (7, 4, 9));
        assert_eq!(counted.ended, [("left", 2), ("idle", 0), ("replaced", 1), ("store", 0)]);
        assert_eq!(counted.rejected.iter().map(|(_, count)| count).sum::<u64>(), 4);
    }

    #[test]
    fn one_person_has_a_few_sockets_and_memory_is_given_back() {
        let sockets = Sockets::default();
        let mut seats: Vec<_> =
            (0..PERSON_MAX).map(|_| sockets.sit(at(0), person("a"), None, fresh()).unwrap()).collect();
        assert_eq!(sockets.sit(at(0), person("a"), None, fresh()).unwrap_err(), Refused::Many);
        assert!(sockets.sit(at(0), person("b"), None, fresh()).is_ok());
        assert_eq!(objects(&seats[0], WHOLE), 1);
        assert!(sockets.snapshot().dump_bytes_now > 0);
        let seat = seats.remove(0);
        sockets.leave(at(1), &seat, Ended::Left);
        drop(seat);
        assert_eq!(sockets.snapshot().dump_bytes_now, 0);
        assert!(sockets.sit(at(1), person("a"), None, fresh()).is_ok());
    }

    #[test]
    fn pages_that_are_away_are_forgotten_first() {
        let sockets = Sockets::default();
        for name in ["away", "here"] {
            let seat = sockets.sit(at(0), person(name), session(name), fresh()).unwrap();
            objects(&seat, WHOLE);
            if name == "away" {
                sockets.leave(at(1), &seat, Ended::Left);
            }
        }
        let before = sockets.counters.dump_bytes.fetch_add(BYTES_MAX, Ordering::Relaxed);
        assert_eq!(sockets.sit(at(2), person("c"), None, fresh()).unwrap_err(), Refused::Memory);
        assert!(sockets.counters.dump_bytes.load(Ordering::Relaxed) < BYTES_MAX + before);
        for number in 0..KEPT_MAX + 5 {
            sockets.counters.dump_bytes.store(0, Ordering::Relaxed);
            let seat = sockets.sit(at(3), person("d"), session(&number.to_string()), fresh()).unwrap();
            sockets.leave(at(3), &seat, Ended::Left);
        }
        assert!(sockets.state().sessions.len() <= KEPT_MAX + 1);
    }
}
