//! Our subscriber and the tee at real Redis servers: passwords, TLS, databases, what eviction by frequency hides, and
//! servers that are not there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;
mod lab;

use fanlight_base::{Random, Redacted};
use fanlight_store::coturn::{
    RedisSettings, RedisSubscriber, RedisUrl, RespListener, RespSettings, TeeSettings,
};
use fanlight_store::{Store, turn_sessions};
use fanlight_telemetry::turn_account::SessionRecord;
use fanlight_telemetry::turn_query::{Filter, Slice};
use lab::Redis;
use lab::process::wait_for;
use redis::Commands;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OPENED: &str =
    "new lifetime=600, type=UDP, local=10.0.0.1:3478, remote=10.9.9.9:1, ssl=NONE, cipher=NONE";

fn key(user: &str, id: u64) -> String {
    format!("turn/realm/r/user/{user}/allocation/{id:018}/status")
}

fn sessions(dir: &Path) -> Vec<SessionRecord> {
    turn_sessions(dir, &Filter::default(), Slice::ALL).unwrap().rows
}

fn random() -> Random {
    Random::from_seed([5; 32])
}

fn url(text: &str, ca_pem: Option<Vec<u8>>) -> RedisUrl {
    RedisUrl::new(&Redacted::new(text.to_owned()), ca_pem).unwrap()
}

/// A record fed by a subscriber.
struct Subscribed {
    dir: tempfile::TempDir,
    store: Store,
}

impl Subscribed {
    fn new(url: RedisUrl) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), common::settings()).unwrap();
        let settings = RedisSettings { url, release: None, random: random() };
        let monitor = store.turn_monitor();
        tokio::spawn(RedisSubscriber::new(settings, store.sender(), monitor.inputs()).run());
        Self { dir, store }
    }

    fn is_connected(&self) -> bool {
        self.store.turn_monitor().snapshot().inputs[0].connected
    }

    fn people(&self) -> Vec<(String, bool)> {
        let mut people: Vec<(String, bool)> = sessions(self.dir.path())
            .into_iter()
            .map(|session| (session.who.person.to_string(), session.ended.is_none()))
            .collect();
        people.sort();
        people
    }

    fn wait_for_people(&self, expected: &[(&str, bool)]) {
        let expected: Vec<(String, bool)> =
            expected.iter().map(|(person, open)| ((*person).to_owned(), *open)).collect();
        wait_for(&format!("{expected:?} are on record"), || self.people() == expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_database_is_read_unless_the_address_names_one() {
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(dir.path(), &["--maxmemory-policy", "allkeys-lfu"]);
    let mut connection = redis.connect();
    for (database, user) in [(0, "zero"), (11, "eleven")] {
        redis::cmd("SELECT").arg(database).exec(&mut connection).unwrap();
        let _: () = connection.set(key(user, 1), OPENED).unwrap();
        let _: () = connection.set("turn/realm/r/user/x/allocation/1/status", "someone else's").unwrap();
    }
    let all = Subscribed::new(url(&format!("redis://127.0.0.1:{}", redis.port), None));
    all.wait_for_people(&[("eleven", true), ("zero", true)]);
    let one = Subscribed::new(url(&format!("redis://127.0.0.1:{}/11", redis.port), None));
    one.wait_for_people(&[("eleven", true)]);
    // Messages reach every subscriber, whatever the database.
    let _: () = connection.publish(key("zero", 1), "deleted").unwrap();
    all.wait_for_people(&[("eleven", true), ("zero", false)]);
    one.wait_for_people(&[("eleven", true), ("zero", false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_a_user_and_tls_let_in_and_their_lack_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, secret) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, issued.cert.pem()).unwrap();
    std::fs::write(&secret, issued.signing_key.serialize_pem()).unwrap();
    let tls_port = lab::free_port();
    let redis = Redis::start(
        dir.path(),
        &[
            "--requirepass",
            "p@ss",
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            certificate.to_str().unwrap(),
            "--tls-key-file",
            secret.to_str().unwrap(),
            "--tls-auth-clients",
            "no",
            "--user",
            "fanlight",
            "on",
            ">secret",
            "allkeys",
            "allchannels",
            "+@all",
        ],
    );
    let pem = std::fs::read(&certificate).unwrap();
    let good = [
        url(&format!("redis://:p%40ss@127.0.0.1:{}", redis.port), None),
        url(&format!("redis://fanlight:secret@127.0.0.1:{}", redis.port), None),
        url(&format!("rediss://fanlight:secret@localhost:{tls_port}"), Some(pem)),
    ];
    for url in good {
        let subscribed = Subscribed::new(url.clone());
        wait_for(&format!("{url} lets in"), || subscribed.is_connected());
    }
    let bad = [
        url(&format!("redis://127.0.0.1:{}", redis.port), None),
        url(&format!("redis://fanlight:wrong@127.0.0.1:{}", redis.port), None),
        // Its certificate is nobody's whom this machine trusts.
        url(&format!("rediss://fanlight:secret@localhost:{tls_port}"), None),
    ];
    for url in bad {
        let subscribed = Subscribed::new(url.clone());
        let gaps = || subscribed.store.turn_monitor().snapshot().inputs[0].gaps;
        wait_for(&format!("{url} is given up once"), || gaps() == 1);
        assert!(!subscribed.is_connected(), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_read_before_keep_their_age() {
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(dir.path(), &[]);
    let mut connection = redis.connect();
    // Redis tells since when it runs in whole seconds; what was written in the first of them may be of an earlier run.
    std::thread::sleep(Duration::from_millis(1_200));
    let _: () = connection.set(key("old", 1), OPENED).unwrap();
    let subscribed = Subscribed::new(url(&format!("redis://127.0.0.1:{}", redis.port), None));
    subscribed.wait_for_people(&[("old", true)]);
    let cut = |connection: &mut redis::Connection| {
        let gaps = || subscribed.store.turn_monitor().snapshot().inputs[0].gaps;
        let before = gaps();
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(connection).unwrap();
        wait_for("the subscriber notices", || gaps() > before && subscribed.is_connected());
    };
    // The second reading must not take the first one for a refresh.
    std::thread::sleep(Duration::from_secs(4));
    let _: () = connection.set(key("new", 2), OPENED).unwrap();
    cut(&mut connection);
    subscribed.wait_for_people(&[("new", true), ("old", true)]);
    let _: () = connection.del(key("old", 1)).unwrap();
    cut(&mut connection);
    subscribed.wait_for_people(&[("new", true), ("old", false)]);
    let old =
        sessions(subscribed.dir.path()).into_iter().find(|session| session.who.person == "old").unwrap();
    let (end, _) = old.ended.unwrap();
    assert!(end.low_ms - old.started_ms < 2_500, "alive at the latest when it was first read: {old:#?}");
    assert!(end.high_ms - old.started_ms >= 3_900, "{old:#?}");
}

async fn say(stream: &mut TcpStream, words: &[&str]) {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = [0; 64];
    assert!(stream.read(&mut answer).await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_coturn_says_is_repeated_and_a_redis_that_is_away_delays_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(dir.path(), &["--databases", "8"]);
    let store_dir = tempfile::tempdir().unwrap();
    let store = Store::open(store_dir.path(), common::settings()).unwrap();
    let tee = TeeSettings { url: url(&format!("redis://127.0.0.1:{}", redis.port), None), random: random() };
    let settings =
        RespSettings { address: ([127, 0, 0, 1], 0).into(), password: None, release: None, tee: Some(tee) };
    let monitor = store.turn_monitor();
    let listener = RespListener::bind(settings, store.sender(), monitor.inputs()).await.unwrap();
    let address = listener.address().unwrap();
    tokio::spawn(listener.run());

    let mut connection = redis.connect();
    redis::cmd("SELECT").arg(3).exec(&mut connection).unwrap();
    let _: () = connection.set(key("leftover", 9), OPENED).unwrap();
    let heard = Listening::to(&redis);
    let mut coturn = TcpStream::connect(address).await.unwrap();
    let alice = key("alice", 1);
    for words in [
        &["SELECT", "3"][..],
        &["KEYS", "turn/*/allocation/*/status"],
        &["SET", &alice, OPENED],
        &["PUBLISH", &alice, OPENED],
    ] {
        say(&mut coturn, words).await;
    }
    wait_for("the key is there", || connection.exists(&alice).unwrap());
    assert!(!connection.exists::<_, bool>(key("leftover", 9)).unwrap(), "coturn would have deleted it");
    assert_eq!(connection.get::<_, String>(&alice).unwrap(), OPENED);
    wait_for("the message came through", || heard.has(&alice, OPENED));
    say(&mut coturn, &["DEL", &alice, ""]).await;
    wait_for("the key is gone", || !connection.exists::<_, bool>(&alice).unwrap());

    // A database that the server does not have: no key of it gets into another one, and messages still come.
    let bob = key("bob", 2);
    let mut other = TcpStream::connect(address).await.unwrap();
    for words in [&["SELECT", "42"][..], &["SET", &bob, OPENED], &["PUBLISH", &bob, OPENED]] {
        say(&mut other, words).await;
    }
    wait_for("the message came through", || heard.has(&bob, OPENED));
    assert!(!connection.exists::<_, bool>(&bob).unwrap());
    assert_eq!(monitor.snapshot().inputs[0].tee_dropped, 1);

    redis.kill();
    let carol = key("carol", 3);
    say(&mut coturn, &["PUBLISH", &carol, OPENED]).await;
    wait_for("it is on record", || sessions(store_dir.path()).iter().any(|one| one.who.person == "carol"));
    wait_for("it is counted", || monitor.snapshot().inputs[0].tee_dropped > 1);
    redis.start_again();
    let heard = Listening::to(&redis);
    let mut id = 10;
    wait_for("later ones come through", || {
        id += 1;
        let key = key("dave", id);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(say(&mut coturn, &["PUBLISH", &key, OPENED]));
        });
        heard.any()
    });
    store.close();
}

/// A subscriber as operators have them.
struct Listening {
    messages: Arc<Mutex<Vec<(String, String)>>>,
    stop: Arc<AtomicBool>,
}

impl Listening {
    fn to(redis: &Redis) -> Self {
        let mut connection = redis.connect();
        connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let listening = Self { messages: Arc::default(), stop: Arc::default() };
        let (messages, stop) = (Arc::clone(&listening.messages), Arc::clone(&listening.stop));
        let subscribed = Arc::new(AtomicBool::new(false));
        let ready = Arc::clone(&subscribed);
        std::thread::spawn(move || {
            let mut pubsub = connection.as_pubsub();
            pubsub.psubscribe("turn/*").unwrap();
            ready.store(true, Ordering::SeqCst);
            while !stop.load(Ordering::SeqCst) {
                match pubsub.get_message() {
                    Ok(message) => {
                        let one = (message.get_channel_name().to_owned(), message.get_payload().unwrap());
                        messages.lock().unwrap().push(one);
                    }
                    Err(error) if error.is_timeout() => {}
                    Err(_) => return,
                }
            }
        });
        wait_for("a subscriber listens", || subscribed.load(Ordering::SeqCst));
        listening
    }

    fn has(&self, channel: &str, payload: &str) -> bool {
        self.messages.lock().unwrap().iter().any(|(name, text)| name == channel && text == payload)
    }

    fn any(&self) -> bool {
        !self.messages.lock().unwrap().is_empty()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
