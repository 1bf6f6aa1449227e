//! A disk that does not answer slows nobody: senders never wait, and afterwards everything is there or counted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::*;
use fanlight_events::{Direction, Event, FactBody, TrackMuted};
use fanlight_store::{DATABASE_FILE, EventSender, report};
use fanlight_telemetry::Report;
use rusqlite::Connection;
use std::path::Path;
use std::time::{Duration, Instant};

/// Keeps everybody else from writing until it is dropped.
fn hold(dir: &Path) -> Connection {
    let connection = Connection::open(dir.join(DATABASE_FILE)).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    connection
}

/// Sends and gives the longest time one call took, and how many were accepted.
fn send(sender: &EventSender, events: impl Iterator<Item = Event>) -> (Duration, u64) {
    let (mut longest, mut accepted) = (Duration::ZERO, 0);
    for event in events {
        let before = Instant::now();
        accepted += u64::from(sender.try_send(event));
        longest = longest.max(before.elapsed());
    }
    (longest, accepted)
}

fn muted(dir: &Path) -> u64 {
    let report = report(dir, "demo").unwrap();
    report.rooms[0].timeline.iter().filter(|event| event.event == "track_muted").count().try_into().unwrap()
}

/// The last count that the timeline tells for this queue.
fn told(report: &Report, queue: &str) -> u64 {
    let timeline = &report.rooms[0].timeline;
    let of_queue =
        timeline.iter().rev().find(|event| event.fields.get("queue").is_some_and(|name| name == queue));
    of_queue.and_then(|event| event.fields["refused"].as_u64()).unwrap_or(0)
}

fn mute() -> Event {
    fact("RM_1", "PA_1", "TR_1", FactBody::from(TrackMuted {}))
}

#[test]
fn a_held_lock_delays_rows_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sender = store.sender();
    assert!(sender.try_send(fact("RM_1", "", "", room_started("demo"))));
    wait_for("the room on record", || report(dir.path(), "demo").is_ok());

    let lock = hold(dir.path());
    let (longest, accepted) = send(&sender, (0..5_000).map(|_| mute()));
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!((accepted, muted(dir.path())), (5_000, 0));
    // A call takes microseconds; the bound is for a machine that gives the processor to somebody else.
    assert!(longest < Duration::from_millis(300), "{longest:?}");
    drop(lock);
    wait_for("the rows on record", || muted(dir.path()) == 5_000);
    assert_eq!(store.close().unwritten_rows, 0);
}

#[test]
fn what_does_not_fit_while_the_disk_is_away_is_counted_in_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sender = store.sender();
    assert!(sender.try_send(fact("RM_1", "", "", room_started("demo"))));
    assert!(sender.try_send(fact("RM_1", "PA_1", "", joined("alice"))));
    assert!(sender.try_send(fact("RM_1", "PA_1", "TR_1", published())));
    wait_for("the room on record", || {
        report(dir.path(), "demo").is_ok_and(|it| it.rooms[0].timeline.len() == 3)
    });

    let lock = hold(dir.path());
    let samples = (0..120_000).map(|n| sample(unix_ms(), "RM_1", "PA_1", "TR_1", Direction::Publish, n));
    let (longest_sample, _) = send(&sender, samples);
    let (longest_fact, _) = send(&sender, (0..120_000).map(|_| mute()));
    assert!(
        longest_sample.max(longest_fact) < Duration::from_millis(300),
        "{longest_sample:?} {longest_fact:?}"
    );
    // The end is accepted when nothing else is.
    assert!(sender.try_send(fact("RM_1", "PA_1", "", left())));
    drop(lock);
    assert_eq!(store.close().unwritten_rows, 0);

    let told_report = report(dir.path(), "demo").unwrap();
    let count = |queue| told(&told_report, queue);
    assert_eq!(
        muted(dir.path()) + count("event_facts") + count("store_facts"),
        120_000 + lost_left(&told_report)
    );
    assert!(count("event_facts") + count("store_facts") > 0, "the test is about refusals");
    assert!(count("event_samples") + count("store_samples") > 0, "the test is about refusals");
    assert_eq!(told_report.rooms[0].participants[0].reason.as_deref(), Some("client_initiated"));
}

/// The fact that ended the participant, when its row in the timeline was among the refused.
fn lost_left(report: &Report) -> u64 {
    u64::from(!report.rooms[0].timeline.iter().any(|event| event.event == "participant_left"))
}

#[test]
fn closing_does_not_wait_for_a_disk_that_never_answers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let lock = hold(dir.path());
    assert!(store.sender().try_send(fact("RM_1", "", "", room_started("demo"))));
    let before = Instant::now();
    assert_eq!(store.close().unwritten_rows, 2);
    assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
    drop(lock);
}

#[test]
fn a_data_directory_that_vanishes_is_told_at_once_and_nothing_is_lost_when_it_is_back() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, elsewhere) = (parent.path().join("data"), parent.path().join("elsewhere"));
    let store = open(&dir);
    let sender = store.sender();
    assert!(sender.try_send(fact("RM_1", "", "", room_started("demo"))));
    wait_for("the room on record", || report(&dir, "demo").is_ok());
    assert!(!sender.record_fails());

    std::fs::rename(&dir, &elsewhere).unwrap();
    // Also while nobody sends anything.
    wait_for("the trouble told", || sender.record_fails());
    assert_eq!(sender.record_failures(), 1);
    let accepted = send(&sender, (0..100).map(|_| mute())).1;
    // Another directory under its name is not the record either.
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(DATABASE_FILE), "").unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!((accepted, muted(&elsewhere)), (100, 0));

    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&elsewhere, &dir).unwrap();
    wait_for("the rows on record", || muted(&dir) == 100);
    wait_for("the trouble over", || !sender.record_fails());
    assert_eq!(store.close().unwritten_rows, 0);
}
