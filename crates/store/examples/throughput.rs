//! How many rows per second go from `try_send` to disk: 100,000 events of a busy node into a new database.
//!
//! `cargo run --release -p fanlight-store --example throughput [DIR]`
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use fanlight_base::NodeId;
use fanlight_events::{
    ClientFacts, Direction, Event, Fact, FactBody, Kind, ParticipantJoined, RoomStarted, Sample, SampleBody,
    TrackCounters, TrackMuted, TrackSample, TrackSubscribed,
};
use fanlight_store::{DATABASE_FILE, EventSender, Settings, Store};
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const EVENTS: u64 = 100_000;
const ROOMS: u64 = 20;
const PARTICIPANTS: u64 = 400;
const TRACKS: u64 = 4_000;
const START_MS: u64 = 1_795_305_590_000;

fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = given
        .unwrap_or_else(|| std::env::temp_dir().join(format!("fanlight-throughput-{}", std::process::id())));
    let store = Store::open(
        &dir,
        Settings { node: NodeId::from("ND_bench"), retention_days: 0, turn: Default::default() },
    )?;
    let sender = store.sender();
    let started = Instant::now();
    let sending: Duration = (0..EVENTS).map(|n| send(&sender, event(n))).sum();
    let unwritten = store.close().unwritten_rows;
    let elapsed_s = started.elapsed().as_secs_f64();
    let (rows, bytes) = written(&dir)?;
    println!("store.events_per_s\t{:.0}\tevents/s", EVENTS as f64 / elapsed_s);
    println!("store.rows_per_s\t{:.0}\trows/s", rows as f64 / elapsed_s);
    println!("store.try_send_ns\t{:.0}\tns", sending.as_secs_f64() * 1e9 / EVENTS as f64);
    println!("store.bytes_per_event\t{:.0}\tbytes", bytes as f64 / EVENTS as f64);
    println!("store.unwritten\t{unwritten}\trows");
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Sends, and again after a pause when the queue is full; the time of the calls that succeed.
fn send(sender: &EventSender, event: Event) -> Duration {
    loop {
        let copy = event.clone();
        let before = Instant::now();
        if sender.try_send(copy) {
            return before.elapsed();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Rows inserted, and the size of the file. Each sample is two rows: one of the series, and its track session anew.
fn written(dir: &std::path::Path) -> Result<(u64, u64), Box<dyn Error>> {
    let path = dir.join(DATABASE_FILE);
    let database = rusqlite::Connection::open(&path)?;
    let count = |table: &str| -> Result<u64, rusqlite::Error> {
        let sql = format!("SELECT count(*) FROM {table}");
        database.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    let samples = count("counters")?;
    let rows = 2 * samples + count("rooms")? + count("participants")? + count("tracks")? + count("timeline")?;
    Ok((rows, std::fs::metadata(path)?.len()))
}

/// A node fills up, then 90 of 100 events are samples.
fn event(n: u64) -> Event {
    let (room, participant, track) = (n % ROOMS, n % PARTICIPANTS, n % TRACKS);
    let fact = |participant: String, track: String, body: FactBody| {
        Event::Fact(Fact {
            unix_ms: START_MS + n,
            room: format!("RM_{room:012}").into(),
            participant: participant.into(),
            track: track.into(),
            body,
        })
    };
    let (participant, track) = (format!("PA_{participant:012}"), format!("TR_{track:012}"));
    match n {
        _ if n < ROOMS => {
            fact(String::new(), String::new(), RoomStarted { name: format!("room {n}").into() }.into())
        }
        _ if n < ROOMS + PARTICIPANTS => fact(participant, String::new(), joined(n).into()),
        _ if n < ROOMS + PARTICIPANTS + TRACKS => fact(participant, track, subscribed().into()),
        _ if n.is_multiple_of(10) => fact(participant, track, TrackMuted {}.into()),
        _ => Event::Sample(Sample {
            unix_ms: START_MS + n,
            room: format!("RM_{room:012}").into(),
            participant: participant.into(),
            body: SampleBody::Track(TrackSample {
                track: track.into(),
                direction: Direction::Subscribe,
                last: false,
                counters: TrackCounters {
                    packets: n,
                    bytes: n * 1_100,
                    frames: n / 30,
                    ..TrackCounters::default()
                },
            }),
        }),
    }
}

fn joined(n: u64) -> ParticipantJoined {
    ParticipantJoined {
        identity: format!("participant {n}").into(),
        name: format!("Participant {n}"),
        kind: "standard".into(),
        hidden: false,
        signal_version: 1,
        client: ClientFacts {
            sdk: "js".into(),
            version: "2.15.0".into(),
            os: "linux".into(),
            ..ClientFacts::default()
        },
    }
}

fn subscribed() -> TrackSubscribed {
    TrackSubscribed {
        publisher: "PA_publisher0000".into(),
        kind: Kind::Video,
        source: "camera".into(),
        codec: "video/VP8".into(),
        ssrc: 0,
    }
}
