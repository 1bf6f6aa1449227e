//! A real coturn's stream, replayed as it was and with faults: what is told never says more than the truth.

use fanlight_base::Random;
use fanlight_telemetry::decode::coturn::{Message, read};
use fanlight_telemetry::decode::recording::{Reading, Tables};
use fanlight_telemetry::turn_account::{
    AllocationName, AllocationRecord, EndReason, Health, Output, Quality, SessionRecord, Settings,
    StoredAllocation, TurnAccount, TurnEvent, table,
};
use std::collections::{BTreeMap, BTreeSet};

const CAPTURE: &str = include_str!("data/coturn/capture-4.6.1.txt");
const ALLOCATIONS: &str = include_str!("data/coturn/expected-4.6.1-allocations.tsv");
const SESSIONS: &str = include_str!("data/coturn/expected-4.6.1-sessions.tsv");

struct Replay {
    allocations: Vec<AllocationRecord>,
    sessions: Vec<SessionRecord>,
    health: Health,
}

fn replay<'a>(lines: impl IntoIterator<Item = &'a str>) -> Replay {
    let mut account = TurnAccount::new(Settings::default(), 1);
    let (mut reading, mut tables) = (Reading::default(), Tables::default());
    for line in lines {
        reading.line(&mut account, line);
        tables.drain(&mut account);
    }
    // Until whatever is still waited for is certain.
    for hours in [2, 4] {
        account.handle_timeout(reading.latest_ms + hours * 3_600_000);
        tables.drain(&mut account);
    }
    assert_eq!(reading.unreadable, 0);
    assert_eq!(account.open_allocations().count(), 0);
    Replay { allocations: tables.allocations, sessions: tables.sessions, health: *account.health() }
}

#[test]
fn the_recorded_stream_gives_the_expected_tables() {
    let replay = replay(CAPTURE.lines());
    let rows = |head: &str, rows: Vec<String>| [vec![head.to_owned()], rows].concat().join("\n");
    let allocations = replay.allocations.iter().map(table::allocation).collect();
    assert_eq!(rows(table::ALLOCATIONS, allocations), ALLOCATIONS.trim_end());
    let sessions = replay.sessions.iter().map(table::session).collect();
    assert_eq!(rows(table::SESSIONS, sessions), SESSIONS.trim_end());
}

#[test]
fn what_no_table_shows_of_the_recorded_stream_is_right_too() {
    let Replay { allocations, sessions, health } = replay(CAPTURE.lines());
    assert_eq!((allocations.len(), sessions.len(), health.orphans), (66, 37, 9));
    let person = |name: &str| sessions.iter().find(|session| session.who.person == name).unwrap();
    let mia = person("mia");
    assert_eq!((mia.held_ms(), mia.leftovers), (20_001, 1));
    assert!((14_900..=15_100).contains(&mia.active_ms()), "{}", mia.active_ms());
    let leftovers: Vec<u64> = allocations
        .iter()
        .filter(|one| one.leftover && one.name.user.ends_with("mia"))
        .map(|one| one.name.id)
        .collect();
    assert_eq!(leftovers, [1]);
    for name in ["judy", "will", "will2"] {
        assert_eq!(person(name).ended.map(|(_, reason)| reason), Some(EndReason::NodeRestart), "{name}");
    }
    let was_restarted =
        |one: &AllocationRecord| one.ended.is_some_and(|(_, reason)| reason == EndReason::NodeRestart);
    let restarted = allocations.iter().filter(|one| was_restarted(one)).count();
    assert_eq!((restarted, health.ambiguous, health.refused), (3, 0, 0));
    assert!(allocations.iter().all(|one| one.quality == Quality::Exact || was_restarted(one)));
}

/// The truth, for streams with faults.
struct Truth {
    exact: BTreeMap<Key, AllocationRecord>,
}

/// Ids begin again with a server, so the user belongs to the key; garbled names are cut where they are garbled.
type Key = (String, String, u64);

fn key(name: &AllocationName) -> Key {
    let user = name.user.split(' ').next().unwrap_or_default();
    (name.realm.to_string(), user.to_owned(), name.id)
}

impl Truth {
    fn new() -> Self {
        let all = replay(CAPTURE.lines()).allocations;
        Self { exact: all.into_iter().map(|record| (key(&record.name), record)).collect() }
    }

    /// No session whose opening or end arrived is missing; bytes are exact where totals arrived, else never above the
    /// truth.
    fn check(&self, lines: &[&str], replay: &Replay, what: &str) {
        let mut announced = BTreeSet::new();
        let mut totals: BTreeMap<Key, u32> = BTreeMap::new();
        for line in lines {
            let mut fields = line.splitn(3, '\t').skip(1);
            let (Some(channel), Some(payload)) = (fields.next(), fields.next()) else { continue };
            let Ok(Message::Event(name, event)) = read(channel, payload) else { continue };
            match event {
                TurnEvent::Opened { .. } | TurnEvent::Deleted => _ = announced.insert(key(&name)),
                TurnEvent::Total(..) => *totals.entry(key(&name)).or_default() += 1,
                _ => {}
            }
        }
        let told: BTreeMap<Key, &AllocationRecord> =
            replay.allocations.iter().map(|record| (key(&record.name), record)).collect();
        for key in &announced {
            assert!(told.contains_key(key), "{what}: {key:?} is missing");
        }
        for (key, record) in &told {
            let truth = self.exact.get(key).unwrap_or_else(|| panic!("{what}: {key:?} never was"));
            let complete =
                totals.get(key).is_some_and(|&totals| totals >= 2) && truth.quality == Quality::Exact;
            if complete {
                assert_eq!(record.quality, Quality::Exact, "{what}: {key:?}");
                assert_eq!((record.client, record.peer), (truth.client, truth.peer), "{what}: {key:?}");
            }
            let most = [truth.client, truth.peer].map(|leg| (leg.rx_bytes, leg.tx_bytes));
            let have = [record.client, record.peer].map(|leg| (leg.rx_bytes, leg.tx_bytes));
            for ((rx, tx), (rx_most, tx_most)) in have.iter().zip(most) {
                assert!(*rx <= rx_most && *tx <= tx_most, "{what}: {key:?} has {have:?} of {most:?}");
            }
        }
        let sum: u64 = replay.sessions.iter().map(|session| session.allocations).sum();
        assert_eq!(sum, replay.allocations.len() as u64, "{what}: every allocation is in one session");
    }
}

fn random(seed: u8) -> Random {
    Random::from_seed([seed; 32])
}

fn is_message(line: &str) -> bool {
    line.contains("\tturn/")
}

#[test]
fn with_a_tenth_of_the_messages_gone_nothing_is_invented() {
    let truth = Truth::new();
    for seed in 0..50 {
        let mut random = random(seed);
        let lines: Vec<&str> =
            CAPTURE.lines().filter(|line| !is_message(line) || random.below(10) > 0).collect();
        truth.check(&lines, &replay(lines.iter().copied()), &format!("seed {seed}"));
    }
}

#[test]
fn a_minute_without_input_loses_only_what_was_said_in_it() {
    let truth = Truth::new();
    let time = |line: &str| line.split('\t').next().and_then(table::from_utc);
    let first = CAPTURE.lines().find_map(time).unwrap();
    for start_s in (50..460).step_by(10) {
        let cut = first + start_s * 1_000..first + (start_s + 60) * 1_000;
        let inside = |line: &&str| time(line).is_some_and(|ms| cut.contains(&ms));
        let lost = format!("{}\t#capture\tlost: cut", table::utc(cut.start));
        let back = format!("{}\t#capture\tconnected", table::utc(cut.end));
        let before = CAPTURE.lines().take_while(|line| time(line).is_none_or(|ms| ms < cut.start));
        let after = CAPTURE.lines().skip_while(|line| time(line).is_none_or(|ms| ms < cut.end));
        let lines: Vec<&str> = before.chain([lost.as_str(), back.as_str()]).chain(after).collect();
        assert!(!lines.iter().any(|line| is_message(line) && inside(line)));
        truth.check(&lines, &replay(lines.iter().copied()), &format!("cut at {start_s} s"));
    }
}

/// The status keys of the Redis server behind the recording.
#[derive(Default)]
struct Keys(BTreeMap<AllocationName, StoredAllocation>);

impl Keys {
    fn note(&mut self, line: &str) {
        let mut fields = line.splitn(3, '\t');
        let (Some(time), Some(channel), Some(payload)) = (fields.next(), fields.next(), fields.next()) else {
            return;
        };
        if channel == "mark" && payload.contains("started again") {
            // A coturn deletes all keys at its start.
            self.0.clear();
        }
        let (Some(since_ms), Ok(Message::Event(name, event))) =
            (table::from_utc(time), read(channel, payload))
        else {
            return;
        };
        match event {
            TurnEvent::Opened { .. } | TurnEvent::Refreshed { .. } => {
                self.0.insert(name.clone(), StoredAllocation { name, status: event, since_ms });
            }
            TurnEvent::Deleted => _ = self.0.remove(&name),
            TurnEvent::Traffic(..) | TurnEvent::Total(..) => {}
        }
    }
}

/// Hears nothing between two times; then the keys are read. A Redis server that was started anew within has lost those of
/// before, and takes nothing until then.
fn replay_with_gap(gap: &std::ops::Range<u64>, restarted_ms: Option<u64>) -> (Vec<&'static str>, Replay) {
    let mut account = TurnAccount::new(Settings::default(), 1);
    let (mut reading, mut tables, mut keys) = (Reading::default(), Tables::default(), Keys::default());
    let (mut heard, mut began_ms, mut is_away) = (Vec::new(), 0, false);
    let time = |line: &str| line.split('\t').next().and_then(table::from_utc);
    for line in CAPTURE.lines() {
        let at_ms = time(line).unwrap_or(0);
        if !is_away && gap.contains(&at_ms) {
            is_away = true;
            account.handle_input_lost();
        }
        if let Some(restarted_ms) = restarted_ms.filter(|ms| gap.contains(&at_ms) && at_ms >= *ms) {
            began_ms = restarted_ms;
            keys.0.retain(|_, stored| stored.since_ms >= restarted_ms);
        }
        if is_away && at_ms >= gap.end {
            is_away = false;
            account.handle_timeout(gap.end);
            let stored = keys.0.values().cloned().collect();
            account.handle_resync(gap.end, Some(began_ms), stored);
            tables.drain(&mut account);
        }
        keys.note(line);
        if !is_away {
            heard.push(line);
            reading.line(&mut account, line);
            tables.drain(&mut account);
        }
    }
    for hours in [2, 4] {
        account.handle_timeout(reading.latest_ms + hours * 3_600_000);
        tables.drain(&mut account);
    }
    let health = *account.health();
    (heard, Replay { allocations: tables.allocations, sessions: tables.sessions, health })
}

#[test]
fn a_gap_with_and_without_a_restart_of_redis_loses_only_what_began_and_ended_in_it() {
    let truth = Truth::new();
    let first = CAPTURE.lines().find_map(|line| table::from_utc(line.split('\t').next()?)).unwrap();
    for start_s in (0..460).step_by(7) {
        for length_s in [5, 60] {
            let gap = first + start_s * 1_000..first + (start_s + length_s) * 1_000;
            for restarted_ms in [None, Some(gap.start + length_s * 500)] {
                let (heard, replay) = replay_with_gap(&gap, restarted_ms);
                let what = format!("{length_s} s from {start_s} s, restarted: {}", restarted_ms.is_some());
                truth.check(&heard, &replay, &what);
                assert!(replay.health.outages >= 1, "{what}");
            }
        }
    }
}

#[test]
fn messages_that_come_twice_count_once() {
    let truth = Truth::new();
    for seed in 0..20 {
        let mut random = random(seed);
        let lines: Vec<&str> = CAPTURE
            .lines()
            .flat_map(|line| std::iter::repeat_n(line, 1 + usize::from(random.below(3) == 0)))
            .collect();
        let replay = replay(lines.iter().copied());
        truth.check(&lines, &replay, &format!("seed {seed}"));
        let rows: BTreeSet<Key> = replay.allocations.iter().map(|record| key(&record.name)).collect();
        assert_eq!((rows.len(), replay.allocations.len()), (66, 66), "seed {seed}");
    }
}

#[test]
fn messages_that_overtake_each_other_by_a_second_end_the_same_allocations() {
    let truth = Truth::new();
    for seed in 0..50 {
        let mut random = random(seed);
        let mut lines: Vec<(u64, String)> = CAPTURE
            .lines()
            .filter_map(|line| Some((table::from_utc(line.split('\t').next()?)?, line)))
            .map(|(ms, line)| {
                let late_ms = if is_message(line) { ms + random.below(500) } else { ms };
                let (_, rest) = line.split_once('\t').unwrap();
                (late_ms, format!("{}\t{rest}", table::utc(late_ms)))
            })
            .collect();
        lines.sort_by_key(|(ms, _)| *ms);
        let lines: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
        truth.check(&lines, &replay(lines.iter().copied()), &format!("seed {seed}"));
    }
}

#[test]
fn a_kill_of_ours_at_any_moment_keeps_every_allocation_and_its_totals() {
    let truth = Truth::new();
    let lines: Vec<&str> = CAPTURE.lines().collect();
    // What is said while nobody listens is lost with us or without, so the cut is between two bursts.
    let cuts = (1..lines.len())
        .filter(|&cut| lines[cut].contains("\tnew lifetime") || lines[cut].contains("\tmark"));
    for cut in cuts {
        let mut account = TurnAccount::new(Settings::default(), 1);
        let (mut reading, mut tables, mut stored) =
            (Reading::default(), Tables::default(), Stored::default());
        for line in &lines[..cut] {
            reading.line(&mut account, line);
            stored.drain(&mut account);
        }
        let mut account = TurnAccount::new(Settings::default(), 10_000);
        let (sessions, allocations) = stored.open();
        account.restore(reading.latest_ms, sessions, allocations);
        for line in &lines[cut..] {
            reading.line(&mut account, line);
            stored.drain(&mut account);
        }
        for hours in [2, 4] {
            account.handle_timeout(reading.latest_ms + hours * 3_600_000);
            stored.drain(&mut account);
        }
        tables.allocations = stored.allocations.into_values().collect();
        tables.sessions = stored.sessions.into_values().collect();
        assert!(tables.sessions.iter().all(|session| session.ended.is_some()), "cut at {cut}");
        let replay =
            Replay { allocations: tables.allocations, sessions: tables.sessions, health: *account.health() };
        truth.check(&lines, &replay, &format!("cut at {cut}"));
    }
}

/// What a database has: the last row of each number.
#[derive(Default)]
struct Stored {
    allocations: BTreeMap<u64, AllocationRecord>,
    sessions: BTreeMap<u64, SessionRecord>,
}

impl Stored {
    fn drain(&mut self, account: &mut TurnAccount) {
        loop {
            match account.poll_output() {
                Output::Allocation(record) => _ = self.allocations.insert(record.number, *record),
                Output::Session(record) => _ = self.sessions.insert(record.number, *record),
                Output::WhoIs(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }

    fn open(&self) -> (Vec<SessionRecord>, Vec<AllocationRecord>) {
        let sessions = self.sessions.values().filter(|session| session.ended.is_none());
        let allocations = self.allocations.values().filter(|allocation| allocation.ended.is_none());
        (sessions.cloned().collect(), allocations.cloned().collect())
    }
}
