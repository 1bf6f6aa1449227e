//! The pipeline from outside: events in, batches out, on a clock that the tests turn.

use fanlight_base::{Mono, Now, Random};
use fanlight_events::{
    ClientFacts, Direction, Event, Fact, FactBody, Kind, LayerCounters, ParticipantJoined, ParticipantLeft,
    RoomEnded, RoomStarted, Sample, SampleBody, TrackCounters, TrackMuted, TrackPublished, TrackSample,
    TrackSubscribed, TrackUnpublished, TrackUnsubscribed,
};
use fanlight_telemetry::{
    Batch, Limits, Output, Pipeline, QUEUE_SESSIONS, QUEUE_STORE_FACTS, QUEUE_STORE_LOST,
    QUEUE_STORE_SAMPLES, Resume, Settings, Why, Window, Written,
};
use std::collections::{BTreeMap, BTreeSet};

const START_MS: u64 = 1_700_000_000_000;

fn at(ms: u64) -> Now {
    Now { mono_ns: ms * 1_000_000, unix_ns: (START_MS + ms) * 1_000_000 }
}

fn mono(ms: u64) -> Mono {
    at(ms).mono()
}

fn settings() -> Settings {
    let resume = Resume { next_track: 1, next_timeline: 1, next_turn: 1 };
    Settings { limits: Limits::NODE, retention_days: 0, resume, turn: Default::default() }
}

fn small(limits: Limits) -> Settings {
    Settings { limits, ..settings() }
}

/// A pipeline whose first heartbeat is out of the way.
fn started(settings: Settings) -> Pipeline {
    let mut pipeline = Pipeline::new(at(0), settings);
    assert!(write(&mut pipeline, 0).is_some_and(|batch| batch.rows() == 0));
    pipeline
}

/// The batch that is due at this time, stored.
fn write(pipeline: &mut Pipeline, ms: u64) -> Option<Batch> {
    pipeline.handle_timeout(at(ms));
    let Output::Write(batch) = pipeline.poll_output() else { return None };
    pipeline.handle_written(at(ms), Written::Stored);
    Some(*batch)
}

fn timeout(pipeline: &mut Pipeline) -> (Mono, Why) {
    match pipeline.poll_output() {
        Output::Timeout(when, why) => (when, why),
        other => panic!("{other:?} instead of a timeout"),
    }
}

fn fact(ms: u64, participant: &str, track: &str, body: impl Into<FactBody>) -> Event {
    Event::Fact(Fact {
        unix_ms: START_MS + ms,
        room: "RM_1".into(),
        participant: participant.into(),
        track: track.into(),
        body: body.into(),
    })
}

fn room_started() -> RoomStarted {
    RoomStarted { name: "demo".into() }
}

fn room_ended(reason: &str) -> RoomEnded {
    RoomEnded { reason: reason.into() }
}

fn joined(identity: &str) -> ParticipantJoined {
    ParticipantJoined {
        identity: identity.into(),
        name: identity.to_uppercase(),
        kind: "standard".into(),
        hidden: false,
        signal_version: 1,
        client: ClientFacts { sdk: "js".into(), ..ClientFacts::default() },
    }
}

fn published() -> TrackPublished {
    TrackPublished {
        name: "cam".into(),
        kind: Kind::Video,
        source: "camera".into(),
        codec: "video/VP8".into(),
        width: 640,
        height: 360,
        simulcast: true,
        cid: "cid".into(),
        mids: vec!["1".into()],
    }
}

fn subscribed() -> TrackSubscribed {
    TrackSubscribed {
        publisher: "PA_a".into(),
        kind: Kind::Video,
        source: "camera".into(),
        codec: "video/VP8".into(),
        ssrc: 7,
    }
}

fn unsubscribed(reason: &str) -> TrackUnsubscribed {
    TrackUnsubscribed { reason: reason.into() }
}

fn sample(
    ms: u64,
    participant: &str,
    track: &str,
    direction: Direction,
    counters: TrackCounters,
    last: bool,
) -> Event {
    Event::Sample(Sample {
        unix_ms: START_MS + ms,
        room: "RM_1".into(),
        participant: participant.into(),
        body: SampleBody::Track(TrackSample { track: track.into(), direction, last, counters }),
    })
}

fn packets(packets: u64) -> TrackCounters {
    TrackCounters { packets, bytes: packets * 1_000, ..TrackCounters::default() }
}

/// Alice publishes, Bob watches.
fn call(pipeline: &mut Pipeline) {
    pipeline.handle_event(at(0), fact(0, "", "", room_started()));
    pipeline.handle_event(at(0), fact(1, "PA_a", "", joined("alice")));
    pipeline.handle_event(at(0), fact(2, "PA_b", "", joined("bob")));
    pipeline.handle_event(at(0), fact(3, "PA_a", "TR_1", published()));
    pipeline.handle_event(at(0), fact(4, "PA_b", "TR_1", subscribed()));
}

#[test]
fn a_fact_waits_a_hundred_milliseconds_at_most() {
    let mut pipeline = started(settings());
    pipeline.handle_event(at(10), fact(10, "", "", room_started()));
    assert_eq!(timeout(&mut pipeline), (mono(110), Why::Flush));
    pipeline.handle_event(at(60), fact(60, "PA_a", "", joined("alice")));
    assert_eq!(timeout(&mut pipeline), (mono(110), Why::Flush));
    let batch = write(&mut pipeline, 110).unwrap();
    assert_eq!((batch.rooms.len(), batch.participants.len(), batch.timeline.len()), (1, 1, 2));
    assert_eq!(batch.seen_ms, START_MS + 110);
}

#[test]
fn many_rows_are_written_without_waiting() {
    let mut pipeline = started(settings());
    let mut sent = 0;
    while !matches!(pipeline.poll_output(), Output::Write(_)) {
        pipeline.handle_event(at(1), fact(1, "PA_a", "TR_1", TrackMuted {}));
        sent += 1;
        assert!(sent < 5_000);
    }
    assert_eq!(sent, 1_024);
}

#[test]
fn without_events_the_heartbeat_goes_on_each_second() {
    let mut pipeline = started(settings());
    for second in 1..4 {
        assert_eq!(timeout(&mut pipeline), (mono(second * 1_000), Why::Heartbeat));
        let batch = write(&mut pipeline, second * 1_000).unwrap();
        assert_eq!((batch.rows(), batch.seen_ms), (0, START_MS + second * 1_000));
    }
}

#[test]
fn one_batch_is_under_way_at_a_time() {
    let mut pipeline = Pipeline::new(at(0), settings());
    assert!(matches!(pipeline.poll_output(), Output::Write(_)));
    pipeline.handle_event(at(5_000), fact(1, "", "", room_started()));
    assert_eq!(timeout(&mut pipeline), (Mono::NEVER, Why::Write));
    pipeline.handle_written(at(5_000), Written::Stored);
    assert!(matches!(pipeline.poll_output(), Output::Write(_)));
}

#[test]
fn a_call_becomes_rows() {
    let mut pipeline = started(settings());
    call(&mut pipeline);
    pipeline.handle_event(at(50), sample(50, "PA_b", "TR_1", Direction::Subscribe, packets(7), false));
    let batch = write(&mut pipeline, 100).unwrap();
    assert_eq!(batch.rooms[0].name.as_str(), "demo");
    let who: Vec<_> =
        batch.participants.iter().map(|row| (row.identity.as_str(), row.joined_ms - START_MS)).collect();
    assert_eq!(who, [("alice", 1), ("bob", 2)]);
    let tracks: Vec<_> =
        batch.tracks.iter().map(|row| (row.id, row.direction, row.publisher.as_str())).collect();
    assert_eq!(tracks, [(1, Direction::Publish, "PA_a"), (2, Direction::Subscribe, "PA_a")]);
    assert_eq!((batch.tracks[0].width, batch.tracks[0].name.as_str()), (640, "cam"));
    assert_eq!(batch.tracks[1].counters.packets, 7);
    assert_eq!((batch.counters[0].track_id, batch.counters[0].number), (2, 1));
    let events: Vec<_> = batch.timeline.iter().map(|row| (row.id, row.event)).collect();
    assert_eq!(
        events,
        [
            (1, "room_started"),
            (2, "participant_joined"),
            (3, "participant_joined"),
            (4, "track_published"),
            (5, "track_subscribed"),
        ]
    );
    assert_eq!(batch.timeline[0].fields, r#"{"name":"demo"}"#);
}

#[test]
fn an_end_closes_what_is_still_open_below_it() {
    let mut pipeline = started(settings());
    call(&mut pipeline);
    pipeline.handle_event(
        at(10),
        fact(10, "PA_a", "", ParticipantLeft { reason: "client_initiated".into(), was_active: true }),
    );
    pipeline.handle_event(at(20), fact(20, "", "", room_ended("shutdown")));
    let batch = write(&mut pipeline, 100).unwrap();
    let tracks: Vec<_> = batch.tracks.iter().map(|row| (row.ended_ms, row.reason.as_deref())).collect();
    assert_eq!(tracks, [(Some(START_MS + 10), Some("left")), (Some(START_MS + 20), Some("left"))]);
    let left: Vec<_> = batch.participants.iter().map(|row| (row.left_ms, row.reason.as_deref())).collect();
    assert_eq!(
        left,
        [(Some(START_MS + 10), Some("client_initiated")), (Some(START_MS + 20), Some("server_shutdown"))]
    );
    assert_eq!(batch.rooms[0].ended_ms, Some(START_MS + 20));
    assert_eq!(batch.rooms[0].reason.as_deref(), Some("shutdown"));
}

#[test]
fn who_subscribes_again_has_a_second_session_with_counters_of_its_own() {
    let mut pipeline = started(settings());
    call(&mut pipeline);
    let direction = Direction::Subscribe;
    pipeline.handle_event(at(10), sample(10, "PA_b", "TR_1", direction, packets(50), true));
    pipeline.handle_event(at(10), fact(10, "PA_b", "TR_1", unsubscribed("unsubscribed")));
    pipeline.handle_event(at(20), fact(20, "PA_b", "TR_1", subscribed()));
    pipeline.handle_event(at(30), sample(30, "PA_b", "TR_1", direction, packets(3), false));
    let batch = write(&mut pipeline, 100).unwrap();
    let sessions: Vec<_> = batch
        .tracks
        .iter()
        .filter(|row| row.direction == direction)
        .map(|row| (row.id, row.ended_ms.is_some(), row.counters.packets))
        .collect();
    assert_eq!(sessions, [(2, true, 50), (3, false, 3)]);
}

#[test]
fn a_last_sample_after_the_end_still_counts_and_a_later_stray_one_opens_nothing() {
    let mut pipeline = started(settings());
    call(&mut pipeline);
    pipeline.handle_event(at(10), fact(10, "PA_b", "TR_1", unsubscribed("left")));
    pipeline.handle_event(at(11), sample(11, "PA_b", "TR_1", Direction::Subscribe, packets(9), true));
    let batch = write(&mut pipeline, 100).unwrap();
    assert_eq!(batch.tracks[1].counters.packets, 9);
    assert!(batch.tracks[1].ended_ms.is_some());
    pipeline.handle_event(at(200), fact(200, "", "", room_ended("empty")));
    assert!(write(&mut pipeline, 300).is_some());
    while write(&mut pipeline, 60_000).is_some() {}
    pipeline
        .handle_event(at(60_000), sample(60_000, "PA_b", "TR_1", Direction::Subscribe, packets(10), false));
    assert_eq!(pipeline.unwritten_rows(), 0);
}

#[test]
fn a_session_whose_begin_was_lost_is_opened_by_its_sample() {
    let mut pipeline = started(settings());
    pipeline.handle_event(at(0), fact(0, "PA_a", "", joined("alice")));
    pipeline.handle_event(at(5), sample(5, "PA_a", "TR_1", Direction::Publish, packets(2), false));
    pipeline.handle_event(at(6), fact(3, "PA_a", "TR_1", published()));
    let batch = write(&mut pipeline, 100).unwrap();
    assert_eq!(batch.tracks.len(), 1);
    let row = &batch.tracks[0];
    assert_eq!((row.kind, row.started_ms, row.counters.packets), (Some(Kind::Video), START_MS + 3, 2));
    assert_eq!(batch.rooms[0].name.as_str(), "");
}

#[test]
fn the_peak_is_the_highest_bitrate_of_a_window_of_a_second_or_more() {
    let mut pipeline = started(settings());
    call(&mut pipeline);
    // 10 kB in 5 s, 100 kB in 5 s, and 50 kB in 10 ms, which is too short to say anything.
    for (ms, count) in [(5_003, 10), (10_003, 110), (10_013, 160)] {
        pipeline.handle_event(at(ms), sample(ms, "PA_a", "TR_1", Direction::Publish, packets(count), false));
    }
    let batch = write(&mut pipeline, 10_100).unwrap();
    assert_eq!(batch.tracks[0].peak_bps, 160_000);
}

#[test]
fn a_failed_batch_is_tried_again_later_and_later_and_then_goes_on_in_order() {
    let mut pipeline = started(settings());
    pipeline.handle_event(at(0), fact(0, "", "", room_started()));
    pipeline.handle_timeout(at(100));
    let Output::Write(mut batch) = pipeline.poll_output() else { panic!("nothing to write") };
    let mut now_ms = 100;
    for pause_ms in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        pipeline.handle_written(at(now_ms), Written::Failed(batch));
        pipeline.handle_event(at(now_ms), fact(now_ms, "", "", TrackMuted {}));
        assert_eq!(timeout(&mut pipeline), (mono(now_ms + pause_ms), Why::Retry));
        now_ms += pause_ms;
        pipeline.handle_timeout(at(now_ms));
        let Output::Write(again) = pipeline.poll_output() else { panic!("not tried again") };
        assert_eq!((again.rooms.len(), again.timeline.len()), (1, 1));
        assert_eq!(again.seen_ms, START_MS + now_ms);
        batch = again;
    }
    pipeline.handle_written(at(now_ms), Written::Stored);
    let next = write(&mut pipeline, now_ms).unwrap();
    assert_eq!(next.timeline.len(), 8);
    assert!(pipeline.is_drained());
}

#[test]
fn what_does_not_fit_is_counted_and_said_when_the_disk_is_back() {
    let limits = Limits { timeline_max: 4, counters_max: 2, ..Limits::NODE };
    let mut pipeline = started(small(limits));
    call(&mut pipeline);
    for ms in 5..12 {
        pipeline.handle_event(at(ms), sample(ms, "PA_a", "TR_1", Direction::Publish, packets(ms), false));
    }
    assert_eq!((pipeline.refused(QUEUE_STORE_FACTS), pipeline.refused(QUEUE_STORE_SAMPLES)), (1, 5));
    pipeline.handle_refused(at(12), "event_facts", 3);
    let batch = write(&mut pipeline, 100).unwrap();
    // The session knows the counters of every sample, also of those without a row.
    assert_eq!(batch.tracks[0].counters.packets, 11);
    let told: Vec<_> = batch
        .timeline
        .iter()
        .filter(|row| row.event == "queue_refused")
        .map(|row| row.fields.as_str())
        .collect();
    assert_eq!(
        told,
        [
            r#"{"queue":"event_facts","refused":3}"#,
            r#"{"queue":"store_facts","refused":1}"#,
            r#"{"queue":"store_samples","refused":5}"#,
        ]
    );
    assert!(write(&mut pipeline, 1_100).unwrap().timeline.is_empty());
}

#[test]
fn sessions_are_bounded_and_ended_ones_make_place() {
    let limits = Limits { participants_max: 2, tracks_max: 2, ..Limits::NODE };
    let mut pipeline = started(small(limits));
    call(&mut pipeline);
    pipeline.handle_event(at(5), fact(5, "PA_c", "", joined("carol")));
    pipeline.handle_event(at(5), fact(5, "PA_b", "TR_2", published()));
    assert_eq!(pipeline.refused(QUEUE_SESSIONS), 2);
    pipeline
        .handle_event(at(6), fact(6, "PA_b", "", ParticipantLeft { reason: "x".into(), was_active: true }));
    assert!(write(&mut pipeline, 110).is_some());
    pipeline.handle_event(at(120), fact(120, "PA_d", "", joined("dave")));
    pipeline.handle_event(at(120), fact(120, "PA_d", "TR_3", published()));
    assert_eq!(pipeline.refused(QUEUE_SESSIONS), 2);
}

#[test]
fn rows_that_the_database_will_never_take_are_given_up_and_counted() {
    let mut pipeline = started(settings());
    pipeline.handle_event(at(0), fact(0, "", "", room_started()));
    pipeline.handle_timeout(at(100));
    let Output::Write(batch) = pipeline.poll_output() else { panic!("nothing to write") };
    pipeline.handle_written(at(100), Written::Lost(batch.rows()));
    let batch = write(&mut pipeline, 1_100).unwrap();
    assert_eq!(batch.timeline[0].fields, format!(r#"{{"queue":"{QUEUE_STORE_LOST}","refused":2}}"#));
}

#[test]
fn closing_writes_everything_at_once_and_ends_even_when_nothing_is_taken() {
    let mut pipeline = started(settings());
    call(&mut pipeline);
    pipeline.handle_close(at(1));
    assert!(write(&mut pipeline, 1).is_some());
    assert!(pipeline.is_drained());

    let mut pipeline = started(settings());
    call(&mut pipeline);
    pipeline.handle_close(at(1));
    let Output::Write(batch) = pipeline.poll_output() else { panic!("nothing to write") };
    pipeline.handle_written(at(1), Written::Lost(batch.rows()));
    assert!(matches!(pipeline.poll_output(), Output::Timeout(..)));
    assert!(pipeline.is_drained());
}

#[test]
fn old_rooms_are_pruned_in_portions_and_then_again_in_an_hour() {
    let mut pipeline = started(Settings { retention_days: 30, ..settings() });
    pipeline.handle_timeout(at(250));
    let before_ms = START_MS + 250 - 30 * 86_400_000;
    assert_eq!(pipeline.poll_output(), Output::Prune { before_ms });
    assert!(matches!(pipeline.poll_output(), Output::Timeout(..)));
    pipeline.handle_pruned(at(300), true);
    pipeline.handle_timeout(at(550));
    assert!(matches!(pipeline.poll_output(), Output::Prune { .. }));
    pipeline.handle_pruned(at(600), false);
    let mut hour = 3_600_600;
    assert!(write(&mut pipeline, hour - 1).is_some());
    assert_eq!(timeout(&mut pipeline), (mono(hour), Why::Prune));
    hour += 5;
    pipeline.handle_timeout(at(hour));
    assert!(matches!(pipeline.poll_output(), Output::Prune { .. }));
}

/// What the property test remembers of the rows it was given.
#[derive(Default)]
struct Ledger {
    timeline: u64,
    last_timeline: u64,
    ids: BTreeSet<u64>,
    series: BTreeMap<u64, Vec<(u64, u64, TrackCounters)>>,
    tracks: BTreeMap<u64, TrackCounters>,
    ended: BTreeMap<u64, u64>,
}

impl Ledger {
    fn take(&mut self, batch: &Batch) {
        for row in &batch.timeline {
            assert!(self.ids.insert(row.id), "no row is written over another");
            if row.event != "queue_refused" {
                assert!(row.id > self.last_timeline, "the timeline keeps the order of arrival");
                self.last_timeline = row.id;
                self.timeline += 1;
            }
        }
        for row in &batch.counters {
            let series = self.series.entry(row.track_id).or_default();
            if let Some((number, _, before)) = series.last() {
                assert!(row.number > *number);
                assert_not_fallen(before, &row.counters);
            }
            series.push((row.number, row.t_ms, row.counters.clone()));
        }
        for row in &batch.tracks {
            if let Some(before) = self.tracks.insert(row.id, row.counters.clone()) {
                assert_not_fallen(&before, &row.counters);
            }
            if let Some(ended_ms) = row.ended_ms {
                assert_eq!(*self.ended.entry(row.id).or_insert(ended_ms), ended_ms, "an end does not move");
            }
        }
    }

    /// Differences between neighbours add up to the difference of the ends.
    fn assert_windows_add_up(&self) {
        for series in self.series.values() {
            let windows = series.windows(2).map(|pair| {
                let [(_, from_ms, before), (_, to_ms, after)] = pair else { unreachable!() };
                Window::between((*from_ms, before), (*to_ms, after))
            });
            let total: u64 = windows.map(|window| window.counters.packets).sum();
            let (Some(first), Some(last)) = (series.first(), series.last()) else { continue };
            assert_eq!(total, last.2.packets - first.2.packets);
        }
    }
}

fn assert_not_fallen(before: &TrackCounters, after: &TrackCounters) {
    assert!(after.packets >= before.packets && after.bytes >= before.bytes && after.lost >= before.lost);
    for layer in &before.layers {
        let same = after.layers.iter().find(|other| other.rid == layer.rid && other.spatial == layer.spatial);
        assert!(same.is_some_and(|other| other.packets >= layer.packets && other.frames >= layer.frames));
    }
}

fn random_event(random: &mut Random, ms: u64) -> Event {
    let participant = ["PA_a", "PA_b", "PA_c"][random.below(3) as usize];
    let track = ["TR_1", "TR_2"][random.below(2) as usize];
    let layer = |random: &mut Random| LayerCounters {
        rid: ["q", "h", "f"][random.below(3) as usize].into(),
        packets: random.below(1_000),
        frames: random.below(1_000),
        ..LayerCounters::default()
    };
    match random.below(16) {
        0 => fact(ms, "", "", room_started()),
        1 => fact(ms, participant, "", joined(participant)),
        2 => fact(ms, participant, track, published()),
        3 => fact(ms, participant, track, subscribed()),
        4 => fact(ms, participant, track, unsubscribed("unsubscribed")),
        5 => fact(ms, participant, track, TrackUnpublished { reason: "unpublished".into() }),
        6 if random.below(8) == 0 => {
            fact(ms, participant, "", ParticipantLeft { reason: "client_initiated".into(), was_active: true })
        }
        7 if random.below(32) == 0 => fact(ms, "", "", room_ended("empty")),
        _ => {
            let direction = if random.below(2) == 0 { Direction::Publish } else { Direction::Subscribe };
            let counters = TrackCounters {
                packets: random.below(10_000),
                bytes: random.below(10_000_000),
                lost: random.below(100),
                layers: (0..random.below(4)).map(|_| layer(random)).collect(),
                ..TrackCounters::default()
            };
            sample(ms, participant, track, direction, counters, random.below(10) == 0)
        }
    }
}

#[test]
fn whatever_comes_in_whatever_order_counters_never_fall_and_every_fact_is_written_or_counted() {
    for seed in 0..40 {
        let mut random = Random::from_seed([seed; 32]);
        let limits = Limits {
            participants_max: 3,
            tracks_max: 8,
            timeline_max: 24,
            counters_max: 16,
            batch_rows_max: 16,
            ..Limits::NODE
        };
        let mut pipeline = started(small(limits));
        let mut ledger = Ledger::default();
        let (mut ms, mut facts) = (0, 0);
        for _ in 0..3_000 {
            ms += random.below(40);
            let event = random_event(&mut random, ms);
            facts += u64::from(matches!(event, Event::Fact(_)));
            pipeline.handle_event(at(ms), event);
            if random.below(4) == 0 {
                pipeline.handle_timeout(at(ms));
                turn(&mut pipeline, &mut ledger, &mut random, ms);
            }
            assert!(pipeline.unwritten_rows() <= 24 + 16 + 16 + 8 + 3 + 8, "memory is bounded");
        }
        pipeline.handle_close(at(ms));
        while !pipeline.is_drained() {
            ms += 5_000;
            pipeline.handle_timeout(at(ms));
            turn(&mut pipeline, &mut ledger, &mut random, ms);
        }
        assert_eq!(ledger.timeline + pipeline.refused(QUEUE_STORE_FACTS), facts);
        assert!(ledger.series.len() > 10);
        ledger.assert_windows_add_up();
    }
}

/// Drains the pipeline against a disk that is away half of the time.
fn turn(pipeline: &mut Pipeline, ledger: &mut Ledger, random: &mut Random, ms: u64) {
    while let Output::Write(batch) = pipeline.poll_output() {
        if random.below(2) == 0 {
            pipeline.handle_written(at(ms), Written::Failed(batch));
        } else {
            ledger.take(&batch);
            pipeline.handle_written(at(ms), Written::Stored);
        }
    }
}
