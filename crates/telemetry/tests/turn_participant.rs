//! A TURN user whose name gives the sid of a participant of ours is that participant: its room and identity stand in the
//! rows of its session and of its allocations, whichever of the two was heard of first.

use fanlight_base::Now;
use fanlight_events::turn::{AllocationName, Leg, LegCounters, Path, TurnEvent, TurnInput};
use fanlight_events::{ClientFacts, Event, Fact, FactBody, ParticipantJoined, ParticipantLeft, RoomStarted};
use fanlight_telemetry::turn_account::{self, AllocationRecord, Identity, SessionRecord};
use fanlight_telemetry::{Limits, Output, Pipeline, Resume, Settings, TimelineRow, Written};
use std::collections::BTreeMap;

const UNIX_MS: u64 = 1_795_305_590_000;

struct Record {
    pipeline: Pipeline,
    ms: u64,
    sessions: BTreeMap<u64, SessionRecord>,
    allocations: BTreeMap<u64, AllocationRecord>,
    timeline: Vec<TimelineRow>,
}

impl Record {
    fn new(identity: Identity) -> Self {
        let settings = Settings {
            limits: Limits::NODE,
            retention_days: 0,
            resume: Resume { next_track: 1, next_timeline: 1, next_turn: 1 },
            turn: turn_account::Settings { identity, merge_gap_ms: 0 },
        };
        let (sessions, allocations) = (BTreeMap::new(), BTreeMap::new());
        Self { pipeline: Pipeline::new(now(0), settings), ms: 0, sessions, allocations, timeline: Vec::new() }
    }

    fn advance(&mut self, ms: u64) {
        self.ms += ms;
        self.pipeline.handle_timeout(now(self.ms));
        self.write();
    }

    fn write(&mut self) {
        while let Output::Write(batch) = self.pipeline.poll_output() {
            self.sessions.extend(batch.turn_sessions.into_iter().map(|row| (row.number, row)));
            self.allocations.extend(batch.turn_allocations.into_iter().map(|row| (row.number, row)));
            self.timeline.extend(batch.timeline);
            self.pipeline.handle_written(now(self.ms), Written::Stored);
        }
    }

    fn fact(&mut self, participant: &str, body: impl Into<FactBody>) {
        let fact = Fact {
            unix_ms: UNIX_MS + self.ms,
            room: "RM_1".into(),
            participant: participant.into(),
            track: "".into(),
            body: body.into(),
        };
        self.pipeline.handle_event(now(self.ms), Event::Fact(fact));
        self.advance(200);
    }

    fn room(&mut self) {
        self.fact("", RoomStarted { name: "demo".into() });
    }

    fn join(&mut self, participant: &str, identity: &str) {
        self.fact(
            participant,
            ParticipantJoined {
                identity: identity.into(),
                name: String::new(),
                kind: "standard".into(),
                hidden: false,
                signal_version: 1,
                client: ClientFacts::default(),
            },
        );
    }

    fn turn(&mut self, user: &str, event: TurnEvent) {
        let name = AllocationName { realm: "r".into(), user: user.into(), id: 1 };
        let input = TurnInput::Event { node: Some("n".into()), name, event };
        self.pipeline.handle_event(now(self.ms), Event::Turn(now(self.ms), input));
        self.advance(200);
    }

    fn open(&mut self, user: &str) {
        self.turn(user, TurnEvent::Opened { lifetime_s: 600, path: Path::default() });
    }

    fn end(&mut self, user: &str) {
        let bytes = LegCounters { rx_packets: 1, rx_bytes: 1_000, ..LegCounters::default() };
        self.turn(user, TurnEvent::Deleted);
        self.turn(user, TurnEvent::Total(Leg::Client, bytes));
        self.turn(user, TurnEvent::Total(Leg::Peer, bytes));
    }

    /// Identity, sid and name of the room of the only session and the only allocation, which agree.
    fn tied(&self) -> (&str, &str, &str) {
        let (session, allocation) = (self.sessions.values().next(), self.allocations.values().next());
        let (Some(session), Some(allocation)) = (session, allocation) else { panic!("no rows") };
        assert_eq!((self.sessions.len(), self.allocations.len()), (1, 1));
        assert_eq!(session.participant, allocation.participant);
        assert_eq!(session.room(), allocation.room());
        let room_sid = session.participant.as_deref().map_or("", |one| one.room_sid.as_str());
        (session.user(), room_sid, session.room())
    }
}

fn now(ms: u64) -> Now {
    Now { mono_ns: ms * 1_000_000, unix_ns: (UNIX_MS + ms) * 1_000_000 }
}

#[test]
fn a_participant_that_is_there_is_known_from_the_opening() {
    let mut record = Record::new(Identity::default());
    record.room();
    record.join("PA_ann", "ann");
    record.open("1795305890:PA_ann");
    assert_eq!(record.tied(), ("ann", "RM_1", "demo"));
}

#[test]
fn our_own_server_names_the_sid_itself() {
    let mut record = Record::new(Identity::default());
    record.room();
    record.join("PA_ann", "ann");
    record.open("PA_ann");
    assert_eq!(record.tied(), ("ann", "RM_1", "demo"));
}

#[test]
fn a_join_that_is_heard_of_later_ties_what_is_open() {
    let mut record = Record::new(Identity::default());
    record.room();
    record.open("1795305890:PA_ann");
    assert_eq!(record.tied(), ("PA_ann", "", ""));
    record.join("PA_bob", "bob");
    assert_eq!(record.tied(), ("PA_ann", "", ""));
    record.join("PA_ann", "ann");
    assert_eq!(record.tied(), ("ann", "RM_1", "demo"));
}

#[test]
fn an_allocation_that_outlives_its_participant_stays_its_own_and_the_timeline_says_its_end() {
    let mut record = Record::new(Identity::default());
    record.room();
    record.join("PA_ann", "ann");
    record.open("1795305890:PA_ann");
    record.fact("PA_ann", ParticipantLeft { reason: "client_initiated".into(), was_active: true });
    // Long after the pipeline has forgotten the participant.
    record.advance(300_000);
    record.end("1795305890:PA_ann");
    assert_eq!(record.tied(), ("ann", "RM_1", "demo"));
    assert!(record.sessions.values().all(|session| session.ended.is_some()));
    let told = record.timeline.iter().find(|row| row.event == "turn_session_ended").unwrap();
    assert_eq!((told.room.as_str(), told.participant.as_str()), ("RM_1", "PA_ann"));
    assert!(told.fields.contains("\"room_name\":\"demo\""), "{}", told.fields);
}

#[test]
fn a_room_that_the_user_name_gives_gives_way_to_the_participants_alone() {
    let mut record = Record::new(Identity { room_separator: Some('/'), ..Identity::default() });
    record.room();
    record.open("1795305890:lobby/PA_ann");
    assert_eq!(record.tied(), ("PA_ann", "", "lobby"));
    record.join("PA_bob", "bob");
    assert_eq!(record.tied(), ("PA_ann", "", "lobby"));
    record.join("PA_ann", "ann");
    assert_eq!(record.tied(), ("ann", "RM_1", "demo"));
}

#[test]
fn the_tie_survives_a_restart_of_ours() {
    let mut record = Record::new(Identity::default());
    record.room();
    record.join("PA_ann", "ann");
    record.open("1795305890:PA_ann");
    let open = (record.sessions.values().cloned().collect(), record.allocations.values().cloned().collect());
    let mut record = Record::new(Identity::default());
    record.pipeline.restore_turn(now(0), open.0, open.1);
    record.end("1795305890:PA_ann");
    assert_eq!(record.tied(), ("ann", "RM_1", "demo"));
}
