//! Debian's coturn, pointed at our listener and at a real Redis server with our subscriber, under the same runs: both
//! records and coturn's own log agree.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;
mod lab;

use fanlight_base::{Random, Redacted};
use fanlight_events::turn::LegCounters;
use fanlight_store::coturn::{
    RedisSettings, RedisSubscriber, RedisUrl, RespListener, RespSettings, TeeSettings,
};
use fanlight_store::{Store, turn_allocations, turn_sessions};
use fanlight_telemetry::turn_account::{AllocationRecord, Class, EndReason, Quality, SessionRecord};
use fanlight_telemetry::turn_query::{Filter, Slice};
use lab::client::Client;
use lab::process::{wait_for, wait_for_none};
use lab::{Coturn, Redis, echo};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A record of its own and what feeds it.
struct Record {
    dir: TempDir,
    store: Store,
    input: Option<JoinHandle<()>>,
}

impl Record {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), common::settings()).unwrap();
        Self { dir, store, input: None }
    }

    /// Fed by our listener; the port is what coturn is pointed at.
    async fn by_listener(tee: Option<RedisUrl>) -> (Self, u16) {
        let mut record = Self::new();
        let settings = RespSettings {
            address: ([127, 0, 0, 1], 0).into(),
            password: None,
            release: Some("4.6".parse().unwrap()),
            tee: tee.map(|url| TeeSettings { url, random: random() }),
        };
        let monitor = record.store.turn_monitor();
        let listener = RespListener::bind(settings, record.store.sender(), monitor.inputs()).await.unwrap();
        let port = listener.address().unwrap().port();
        record.input = Some(tokio::spawn(listener.run()));
        (record, port)
    }

    /// Fed by a Redis server.
    fn by_redis(redis: &Redis) -> Self {
        let mut record = Self::new();
        record.subscribe(redis);
        record
    }

    fn subscribe(&mut self, redis: &Redis) {
        let settings = RedisSettings { url: url(redis), release: None, random: random() };
        let subscriber =
            RedisSubscriber::new(settings, self.store.sender(), self.store.turn_monitor().inputs());
        self.input = Some(tokio::spawn(subscriber.run()));
        let monitor = self.store.turn_monitor();
        let position = monitor.snapshot().inputs.len() - 1;
        wait_for("the subscriber is connected", || monitor.snapshot().inputs[position].connected);
    }

    fn unsubscribe(&mut self) {
        self.input.take().unwrap().abort();
    }

    fn sessions(&self) -> Vec<SessionRecord> {
        turn_sessions(self.dir.path(), &Filter::default(), Slice::ALL).unwrap().rows
    }

    fn of(&self, person: &str) -> Vec<SessionRecord> {
        let mut sessions = self.sessions();
        sessions.retain(|session| session.who.person == person);
        sessions
    }

    fn allocations(&self) -> Vec<AllocationRecord> {
        let of_session = |session: SessionRecord| {
            let filter = Filter { session: Some(session.number), ..Filter::default() };
            turn_allocations(self.dir.path(), &filter, Slice::ALL).unwrap().rows
        };
        let mut all: Vec<AllocationRecord> = self.sessions().into_iter().flat_map(of_session).collect();
        all.sort_by_key(|allocation| allocation.number);
        all
    }

    fn open(&self) -> Vec<AllocationRecord> {
        let mut allocations = self.allocations();
        allocations.retain(|allocation| allocation.ended.is_none());
        allocations
    }

    fn close(self) {
        if let Some(input) = self.input {
            input.abort();
        }
        self.store.close();
    }
}

fn random() -> Random {
    Random::from_seed([9; 32])
}

fn url(redis: &Redis) -> RedisUrl {
    RedisUrl::new(&Redacted::new(format!("redis://127.0.0.1:{}", redis.port)), None).unwrap()
}

/// A coturn with its echo.
struct Rig {
    coturn: Coturn,
    peer: u16,
    _echo: lab::process::Process,
    _dir: TempDir,
}

impl Rig {
    fn new(port: u16, database: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (echo, peer) = echo(dir.path());
        let coturn = Coturn::start(dir.path(), format!("ip=127.0.0.1 port={port} dbname={database}"));
        Self { coturn, peer, _echo: echo, _dir: dir }
    }

    fn client(&self, name: &str) -> Client {
        Client::allocate(self.coturn.address(), name, self.peer)
    }

    /// Short sessions over UDP and TCP, one with reports in between, one without payload, one over its quota, killed
    /// clients, and one that refreshes for longer than a lifetime.
    fn ordinary_runs(&self) {
        let uclient = |user: &str, arguments: &[&str]| self.coturn.uclient(user, self.peer, arguments);
        let runs = [
            uclient("short", &["-n", "20", "-m", "2", "-l", "200"]),
            uclient("tcp", &["-t", "-n", "20", "-l", "160"]),
            uclient("unused", &["-n", "0"]),
        ];
        let over_quota = uclient("quota", &["-n", "5", "-m", "6"]);
        let killed = uclient("killed", &["-n", "5000", "-m", "2"]);
        let mut long = self.client("long");
        long.exchange(20, 300);
        std::thread::sleep(Duration::from_secs(2));
        // By SIGKILL: its allocations wait for the end of their lifetime.
        drop(killed);
        let mut busy = self.client("busy");
        for _ in 0..6 {
            busy.exchange(250, 600);
            busy.refresh();
        }
        busy.release();
        for _ in 0..6 {
            long.refresh();
            long.exchange(20, 300);
            std::thread::sleep(Duration::from_secs(2));
        }
        long.release();
        over_quota.finish();
        runs.into_iter().for_each(lab::process::Process::finish);
        // coturn deletes what was released within a second, and what was left when its lifetime is over.
        wait_for("coturn deletes every allocation", || {
            self.coturn.logs().iter().flat_map(|log| log.0.values()).all(|logged| logged.is_deleted)
        });
    }

    /// coturn is killed while it has an allocation, and started again; its ids begin anew.
    fn killed_and_started_again(&mut self) {
        let mut ruth = self.client("ruth");
        ruth.exchange(10, 100);
        // Ids that come within a second of each other may have overtaken each other; later, a low one is a new process.
        std::thread::sleep(Duration::from_millis(1_200));
        self.coturn.kill();
        self.coturn.start_again();
        let mut back = self.client("ruth");
        back.exchange(10, 100);
        back.release();
    }
}

/// Every allocation of coturn's log is on record, to the byte where the record calls it exact. Those that began and ended
/// while nobody listened are `invisible`. Says how many are exact.
fn agree(rig: &Rig, record: &Record, what: &str, invisible: &[&str]) -> usize {
    let mut told = record.allocations();
    let mut exact = 0;
    for (run, log) in rig.coturn.logs().into_iter().enumerate() {
        for (id, logged) in log.0 {
            let place = told.iter().position(|one| one.name.id == id && one.name.user == logged.user);
            let about = format!("{what}, run {run}: {id} {logged:?}");
            let Some(place) = place else {
                let person = logged.user.split_once(':').map_or("", |(_, person)| person);
                assert!(invisible.contains(&person), "{about} is not on record");
                continue;
            };
            let told = told.remove(place);
            let have = [told.client, told.peer];
            if told.quality == Quality::Exact {
                exact += 1;
                assert!(logged.is_deleted, "{about}: {told:#?}");
                assert_eq!(have, logged.usage, "{about}");
            } else if logged.is_deleted {
                let is_below =
                    |have: &[u64; 4], truth: [u64; 4]| have.iter().zip(truth).all(|(a, b)| *a <= b);
                let is_below = |leg: usize| is_below(&have[leg].fields(), logged.usage[leg].fields());
                assert!(is_below(0) && is_below(1), "{about}: {told:#?}");
            }
            if invisible.is_empty() && told.quality == Quality::Exact {
                assert_eq!(told.refreshes, logged.refreshes, "{about}");
            }
        }
    }
    assert!(told.is_empty(), "{what}: never in coturn's log: {told:#?}");
    exact
}

fn brief(sessions: &[SessionRecord]) -> Vec<(&str, u64, Class, Quality)> {
    sessions
        .iter()
        .map(|one| {
            (one.ended.map_or("open", |(_, reason)| reason.as_str()), one.allocations, one.class, one.quality)
        })
        .collect()
}

/// What both records have of the runs that nothing disturbed.
fn check_ordinary(record: &Record, what: &str) {
    let one = |person: &str| {
        let sessions = record.of(person);
        assert_eq!(sessions.len(), 1, "{what}: sessions of {person}: {sessions:#?}");
        sessions.into_iter().next().unwrap()
    };
    // coturn's client does not refresh: on a slow machine its last packets come after its lifetime.
    for (person, bytes) in [("short", 200), ("tcp", 160)] {
        let session = one(person);
        assert_eq!(session.quality, Quality::Exact, "{what}: {person}");
        assert!(session.peer.tx_packets > 0, "{what}: {person}");
        assert_eq!(session.peer.tx_bytes, session.peer.tx_packets * bytes, "{what}: {person}");
    }
    for (person, packets, bytes) in [("busy", 1_500, 600), ("long", 140, 300)] {
        let LegCounters { rx_packets, rx_bytes, tx_packets, tx_bytes } = one(person).peer;
        let expected = (packets, packets * bytes);
        assert_eq!(
            ((rx_packets, rx_bytes), (tx_packets, tx_bytes)),
            (expected, expected),
            "{what}: {person}"
        );
    }
    let busy = one("busy");
    assert_eq!((busy.class, busy.quality), (Class::Relayed, Quality::Exact), "{what}");
    let unused = one("unused");
    assert_eq!((unused.class, unused.peer.bytes()), (Class::Unused, 0), "{what}");
    assert_eq!(one("quota").quality, Quality::Exact, "{what}");
    let killed = one("killed");
    assert_eq!(killed.ended.map(|(_, reason)| reason), Some(EndReason::Expired), "{what}: {killed:#?}");
    let long = one("long");
    assert!(long.held_ms() > u64::from(lab::LIFETIME_S) * 1_500, "{what}: {long:#?}");
    assert_eq!(long.ended.map(|(_, reason)| reason), Some(EndReason::Released), "{what}");
    let ruth = record.of("ruth");
    assert_eq!(ruth.len(), 2, "{what}: {ruth:#?}");
    assert_eq!(brief(&ruth)[0].0, "node-restart", "{what}");
    assert_eq!((brief(&ruth)[1].0, brief(&ruth)[1].3), ("released", Quality::Exact), "{what}");
}

fn until_closed(record: &Record, what: &str) {
    wait_for_none(&format!("{what}: every allocation has ended"), || record.open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_the_subscriber_and_coturns_log_agree() {
    let redis_dir = tempfile::tempdir().unwrap();
    let behind = Redis::start(redis_dir.path(), &[]);
    let mut redis = Redis::start(redis_dir.path(), &[]);
    let (listened, port) = Record::by_listener(Some(url(&behind))).await;
    let teed = Record::by_redis(&behind);
    let mut subscribed = Record::by_redis(&redis);
    let (mut direct, mut by_redis) = (Rig::new(port, 3), Rig::new(redis.port, 5));

    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for rig in [&mut direct, &mut by_redis] {
                scope.spawn(|| {
                    rig.ordinary_runs();
                    rig.killed_and_started_again();
                });
            }
        });
    });
    for (record, what) in [(&listened, "listener"), (&teed, "tee"), (&subscribed, "subscriber")] {
        tokio::task::block_in_place(|| until_closed(record, what));
    }
    let mut exact = Vec::new();
    for (rig, record, what) in
        [(&direct, &listened, "listener"), (&direct, &teed, "tee"), (&by_redis, &subscribed, "subscriber")]
    {
        check_ordinary(record, what);
        exact.push(agree(rig, record, what, &[]));
    }
    assert_eq!(exact[0], exact[1], "what is repeated to Redis is all of it");
    assert!(exact.iter().all(|exact| *exact > 10), "{exact:?}");
    tokio::task::block_in_place(|| {
        gaps(&by_redis, &mut subscribed, &mut redis);
        agree(&by_redis, &subscribed, "after gaps", &["within"]);
    });
    let input = listened.store.turn_monitor().snapshot().inputs.remove(0);
    assert_eq!((input.unreadable, input.tee_dropped, input.broken, input.gaps), (0, 0, 0, 1), "{input:#?}");
    for record in [listened, teed, subscribed] {
        record.close();
    }
}

/// Our subscriber is away, then the Redis server is started anew.
fn gaps(rig: &Rig, record: &mut Record, redis: &mut Redis) {
    let (paula, mut stays) = (rig.client("paula"), rig.client("stays"));
    stays.exchange(10, 100);
    wait_for("both are on record", || record.open().len() == 2);
    record.unsubscribe();
    paula.release();
    stays.refresh();
    let mut begun = rig.client("begun");
    begun.exchange(10, 100);
    std::thread::sleep(Duration::from_millis(1_500));
    record.subscribe(redis);
    wait_for("what ended meanwhile has ended", || record.of("paula")[0].ended.is_some());
    assert_eq!(brief(&record.of("paula"))[0], ("unseen", 1, Class::Unused, Quality::LowerBound));
    wait_for("what began meanwhile is known", || !record.of("begun").is_empty());
    for client in [stays, begun] {
        client.release();
    }
    wait_for_none("the rest ends", || record.open());
    for person in ["stays", "begun"] {
        assert_eq!(brief(&record.of(person))[0].3, Quality::Exact, "{person}");
    }

    let mut nina = rig.client("nina");
    nina.exchange(10, 100);
    wait_for("nina is on record", || record.open().len() == 1);
    redis.kill();
    let mut within = rig.client("within");
    within.exchange(10, 100);
    within.release();
    std::thread::sleep(Duration::from_millis(1_500));
    redis.start_again();
    let monitor = record.store.turn_monitor();
    wait_for("the subscriber is connected again", || monitor.snapshot().inputs.last().unwrap().connected);
    // coturn notices with its first messages that its connection is gone, and loses them.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        nina.refresh();
        nina.exchange(10, 100);
    }
    nina.release();
    wait_for_none("nina has ended", || record.open());
    let nina = record.of("nina");
    assert_eq!(nina.len(), 1, "{nina:#?}");
    assert_eq!(brief(&nina)[0], ("released", 1, Class::ChecksOnly, Quality::Exact));
    assert_eq!((nina[0].peer.tx_packets, nina[0].peer.tx_bytes), (50, 5_000));
    assert!(monitor.snapshot().inputs.last().unwrap().gaps >= 1);
}
