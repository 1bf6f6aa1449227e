//! A temporary data directory and events as the cores say them.
#![allow(dead_code, reason = "each test program uses a part of it")]

use fanlight_events::{
    ClientFacts, Direction, Event, Fact, FactBody, Kind, LayerCounters, ParticipantActive, ParticipantJoined,
    ParticipantLeft, RoomEnded, RoomStarted, Sample, SampleBody, TrackCounters, TrackPublished, TrackSample,
    TrackSubscribed,
};
use fanlight_store::{Settings, Store};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn settings() -> Settings {
    Settings { node: "ND_test".into(), retention_days: 0, turn: Default::default() }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir, settings()).unwrap()
}

pub(crate) fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Waits for what another thread or process does, for ten seconds at most.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < limit, "{what} did not happen in ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn fact(room: &str, participant: &str, track: &str, body: impl Into<FactBody>) -> Event {
    fact_at(unix_ms(), room, participant, track, body)
}

pub(crate) fn fact_at(
    unix_ms: u64,
    room: &str,
    participant: &str,
    track: &str,
    body: impl Into<FactBody>,
) -> Event {
    Event::Fact(Fact {
        unix_ms,
        room: room.into(),
        participant: participant.into(),
        track: track.into(),
        body: body.into(),
    })
}

pub(crate) fn room_started(name: &str) -> RoomStarted {
    RoomStarted { name: name.into() }
}

pub(crate) fn room_ended(reason: &str) -> RoomEnded {
    RoomEnded { reason: reason.into() }
}

pub(crate) fn joined(identity: &str) -> ParticipantJoined {
    ParticipantJoined {
        identity: identity.into(),
        name: "O'Brien \"; DROP TABLE rooms; --\0".into(),
        kind: "standard".into(),
        hidden: false,
        signal_version: 1,
        client: ClientFacts { sdk: "js".into(), version: "2.15.0".into(), ..ClientFacts::default() },
    }
}

pub(crate) fn active() -> ParticipantActive {
    ParticipantActive {
        connect_ms: 321,
        connection_type: "udp".into(),
        srtp_profile: "AEAD_AES_128_GCM".into(),
    }
}

pub(crate) fn left() -> ParticipantLeft {
    ParticipantLeft { reason: "client_initiated".into(), was_active: true }
}

pub(crate) fn published() -> TrackPublished {
    TrackPublished {
        name: "cam".into(),
        kind: Kind::Video,
        source: "camera".into(),
        codec: "video/VP8".into(),
        width: 1280,
        height: 720,
        simulcast: true,
        cid: "cid".into(),
        mids: vec!["1".into()],
    }
}

pub(crate) fn subscribed(publisher: &str) -> TrackSubscribed {
    TrackSubscribed {
        publisher: publisher.into(),
        kind: Kind::Video,
        source: "camera".into(),
        codec: "video/VP8".into(),
        ssrc: 7,
    }
}

pub(crate) fn sample(
    unix_ms: u64,
    room: &str,
    participant: &str,
    track: &str,
    direction: Direction,
    packets: u64,
) -> Event {
    Event::Sample(Sample {
        unix_ms,
        room: room.into(),
        participant: participant.into(),
        body: SampleBody::Track(TrackSample {
            track: track.into(),
            direction,
            last: false,
            counters: counters(packets),
        }),
    })
}

/// Counters that differ from each other, so that swapped columns show.
pub(crate) fn counters(packets: u64) -> TrackCounters {
    TrackCounters {
        packets,
        bytes: packets * 1_000,
        header_bytes: packets * 20,
        retransmitted: 4,
        retransmitted_bytes: 4_001,
        padding: 6,
        padding_bytes: 607,
        lost: 8,
        out_of_order: 9,
        duplicates: 10,
        dropped: 11,
        nacks: 12,
        plis: 13,
        firs: 14,
        frames: 15,
        key_frames: 16,
        jitter_us: 17,
        rtt_us: 18,
        layers: vec![LayerCounters { rid: "h".into(), spatial: 1, packets, ..LayerCounters::default() }],
    }
}
