//! Rooms, participants and track sessions that are open or ended a moment ago.
//!
//! Facts may be missing (a queue was full) or come late, so every entry can be made by the first fact that needs it, and
//! an end closes whatever below it is still open.

use crate::limits::{LINGER, Limits, PEAK_WINDOW_MS_MIN};
use crate::rows::{Batch, CountersRow, ParticipantRow, RoomRow, TrackRow};
use crate::turn_account::Participant;
use crate::window::{Window, advance};
use fanlight_base::{Identity, Mono, ParticipantSid, RoomName, RoomSid, TrackSid};
use fanlight_events::{
    ClientFacts, Direction, Fact, FactBody, ParticipantActive, ParticipantJoined, Sample, SampleBody,
    TrackCounters, TrackPublished, TrackSubscribed,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The sessions and which of them have to be written.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: Limits,
    rooms: BTreeMap<RoomSid, RoomRow>,
    participants: BTreeMap<ParticipantSid, ParticipantRow>,
    members: BTreeSet<(RoomSid, ParticipantSid)>,
    tracks: BTreeMap<u64, TrackSession>,
    /// The newest session of each track, direction and participant.
    newest: BTreeMap<TrackKey, u64>,
    next_track: u64,
    changed: BTreeSet<Entry>,
    ended: VecDeque<(Mono, Entry)>,
}

/// There is no room for another room, participant or track.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SessionsFull;

#[derive(Debug)]
struct TrackSession {
    row: TrackRow,
    samples: u64,
}

/// Ordered by participant first, so that all of one are a range.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TrackKey {
    participant: ParticipantSid,
    track: TrackSid,
    direction: Direction,
}

/// Ordered as they are written: rooms, participants, tracks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Room(RoomSid),
    Participant(ParticipantSid),
    Track(u64),
}

impl Sessions {
    pub(crate) fn new(limits: Limits, next_track: u64) -> Self {
        Self {
            limits,
            rooms: BTreeMap::new(),
            participants: BTreeMap::new(),
            members: BTreeSet::new(),
            tracks: BTreeMap::new(),
            newest: BTreeMap::new(),
            next_track,
            changed: BTreeSet::new(),
            ended: VecDeque::new(),
        }
    }

    /// Takes a fact over into the rows.
    pub(crate) fn fold(&mut self, now: Mono, fact: &Fact) -> Result<(), SessionsFull> {
        match &fact.body {
            FactBody::RoomStarted(body) => self.room_started(fact, &body.name)?,
            FactBody::RoomEnded(body) => self.room_ended(now, fact, &body.reason),
            FactBody::ParticipantJoined(body) => self.participant_joined(fact, body)?,
            FactBody::ParticipantActive(body) => self.participant_active(fact, body),
            FactBody::ParticipantLeft(body) => {
                self.participant_left(now, &fact.participant, fact.unix_ms, &body.reason);
            }
            FactBody::TransportSelected(body) => {
                if let Some(row) = self.participant_mut(&fact.participant) {
                    row.connection_type.clone_from(&body.protocol);
                    row.remote.clone_from(&body.remote);
                }
            }
            FactBody::TrackPublished(body) => self.track_published(fact, body)?,
            FactBody::TrackChanged(body) => {
                if let Some(row) = self.track_mut(&key(fact, Direction::Publish)) {
                    row.codec.clone_from(&body.codec);
                    row.layers.clone_from(&body.layers);
                }
            }
            FactBody::TrackUnpublished(body) => {
                self.track_ended(now, &key(fact, Direction::Publish), fact.unix_ms, &body.reason);
            }
            FactBody::TrackSubscribed(body) => self.track_subscribed(fact, body)?,
            FactBody::TrackUnsubscribed(body) => {
                self.track_ended(now, &key(fact, Direction::Subscribe), fact.unix_ms, &body.reason);
            }
            FactBody::TrackPublishRequested(_)
            | FactBody::TrackMuted(_)
            | FactBody::TrackUnmuted(_)
            | FactBody::Refused(_)
            | FactBody::QueueRefused(_)
            | FactBody::ServerThread(_)
            | FactBody::TurnSessionEnded(_)
            | FactBody::TurnQuotaHit(_) => {}
        }
        Ok(())
    }

    /// Takes a sample over into its session; gives the counters as they stand then, or `None` when nobody is there
    /// (any more) whose sample it could be.
    pub(crate) fn sample(&mut self, sample: &Sample) -> Result<Option<CountersRow>, SessionsFull> {
        let SampleBody::Track(body) = &sample.body;
        let key = TrackKey {
            participant: sample.participant.clone(),
            track: body.track.clone(),
            direction: body.direction,
        };
        let id = match self.newest.get(&key) {
            Some(id) => *id,
            // The fact that began this session was lost, but not its participant's.
            None if self.is_present(&sample.participant) && !body.last => {
                self.open_track(&sample.room, key, sample.unix_ms)?
            }
            None => return Ok(None),
        };
        let Some(session) = self.tracks.get_mut(&id) else { return Ok(None) };
        session.take(sample.unix_ms, &body.counters);
        self.changed.insert(Entry::Track(id));
        Ok(Some(CountersRow {
            track_id: id,
            number: session.samples,
            t_ms: sample.unix_ms,
            counters: session.row.counters.clone(),
        }))
    }

    /// A participant, for TURN sessions of its sid; `None` when it is not here, or not any more.
    pub(crate) fn turn_participant(&self, sid: &ParticipantSid) -> Option<Participant> {
        let row = self.participants.get(sid)?;
        let room = self.rooms.get(&row.room).map(|room| room.name.clone()).unwrap_or_default();
        Some(Participant {
            sid: sid.clone(),
            identity: row.identity.clone(),
            room_sid: row.room.clone(),
            room,
        })
    }

    /// How many rows have to be written.
    pub(crate) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Moves changed rows into `batch` until it has `rows_max`.
    pub(crate) fn take_changed(&mut self, batch: &mut Batch, rows_max: usize) {
        while batch.rows() < rows_max
            && let Some(entry) = self.changed.pop_first()
        {
            match entry {
                Entry::Room(sid) => batch.rooms.extend(self.rooms.get(&sid).cloned()),
                Entry::Participant(sid) => batch.participants.extend(self.participants.get(&sid).cloned()),
                Entry::Track(id) => {
                    batch.tracks.extend(self.tracks.get(&id).map(|session| session.row.clone()));
                }
            }
        }
    }

    /// When [`Sessions::forget_ended`] has something to do.
    pub(crate) fn next_forget(&self) -> Mono {
        self.ended.front().map_or(Mono::NEVER, |(at, _)| *at)
    }

    /// Drops what ended long enough ago and is handed out for writing.
    pub(crate) fn forget_ended(&mut self, now: Mono) {
        while let Some((at, _)) = self.ended.front()
            && *at <= now
            && let Some((_, entry)) = self.ended.pop_front()
        {
            if self.changed.contains(&entry) {
                self.ended.push_back((now + LINGER, entry));
            } else {
                self.forget(&entry);
            }
        }
    }

    fn room_started(&mut self, fact: &Fact, name: &RoomName) -> Result<(), SessionsFull> {
        let row = self.open_room(&fact.room, fact.unix_ms)?;
        row.name.clone_from(name);
        row.started_ms = row.started_ms.min(fact.unix_ms);
        Ok(())
    }

    fn room_ended(&mut self, now: Mono, fact: &Fact, reason: &str) {
        let present: Vec<ParticipantSid> = self
            .members
            .range((fact.room.clone(), ParticipantSid::default())..)
            .take_while(|(room, _)| *room == fact.room)
            .map(|(_, participant)| participant.clone())
            .collect();
        for participant in present {
            self.participant_left(now, &participant, fact.unix_ms, left_with_room(reason));
        }
        let Some(row) = self.rooms.get_mut(&fact.room) else { return };
        if row.ended_ms.is_none() {
            row.ended_ms = Some(fact.unix_ms);
            row.reason = Some(reason.to_owned());
            self.end(now, Entry::Room(fact.room.clone()));
        }
    }

    fn participant_joined(&mut self, fact: &Fact, body: &ParticipantJoined) -> Result<(), SessionsFull> {
        let row = self.open_participant(&fact.room, &fact.participant, fact.unix_ms)?;
        row.identity.clone_from(&body.identity);
        row.name.clone_from(&body.name);
        row.kind.clone_from(&body.kind);
        row.hidden = body.hidden;
        row.signal_version = body.signal_version;
        row.client = ClientFacts::clone(&body.client);
        row.joined_ms = row.joined_ms.min(fact.unix_ms);
        Ok(())
    }

    fn participant_active(&mut self, fact: &Fact, body: &ParticipantActive) {
        if let Some(row) = self.participant_mut(&fact.participant)
            && row.active_ms.is_none()
        {
            row.active_ms = Some(fact.unix_ms);
            row.connect_ms = Some(body.connect_ms);
            row.connection_type.clone_from(&body.connection_type);
            row.srtp_profile.clone_from(&body.srtp_profile);
        }
    }

    fn participant_left(&mut self, now: Mono, sid: &ParticipantSid, unix_ms: u64, reason: &str) {
        let first =
            TrackKey { participant: sid.clone(), track: TrackSid::default(), direction: Direction::Publish };
        let open: Vec<TrackKey> = self
            .newest
            .range(first..)
            .take_while(|(key, _)| key.participant == *sid)
            .map(|(key, _)| key.clone())
            .collect();
        for key in open {
            self.track_ended(now, &key, unix_ms, "left");
        }
        if let Some(row) = self.participants.get_mut(sid)
            && row.left_ms.is_none()
        {
            row.left_ms = Some(unix_ms);
            row.reason = Some(reason.to_owned());
            self.end(now, Entry::Participant(sid.clone()));
        }
    }

    fn track_published(&mut self, fact: &Fact, body: &TrackPublished) -> Result<(), SessionsFull> {
        let row = self.begin_track(fact, Direction::Publish)?;
        row.publisher.clone_from(&fact.participant);
        row.kind = Some(body.kind);
        row.name.clone_from(&body.name);
        row.source.clone_from(&body.source);
        row.codec.clone_from(&body.codec);
        (row.width, row.height, row.simulcast) = (body.width, body.height, body.simulcast);
        Ok(())
    }

    fn track_subscribed(&mut self, fact: &Fact, body: &TrackSubscribed) -> Result<(), SessionsFull> {
        let row = self.begin_track(fact, Direction::Subscribe)?;
        row.publisher.clone_from(&body.publisher);
        row.kind = Some(body.kind);
        row.source.clone_from(&body.source);
        row.codec.clone_from(&body.codec);
        Ok(())
    }

    fn track_ended(&mut self, now: Mono, key: &TrackKey, unix_ms: u64, reason: &str) {
        let Some(row) = self.track_mut(key) else { return };
        if row.ended_ms.is_none() {
            row.ended_ms = Some(unix_ms);
            row.reason = Some(reason.to_owned());
            let entry = Entry::Track(row.id);
            self.end(now, entry);
        }
    }

    fn open_room(&mut self, sid: &RoomSid, unix_ms: u64) -> Result<&mut RoomRow, SessionsFull> {
        if self.rooms.len() >= self.limits.rooms_max && !self.rooms.contains_key(sid) {
            self.forget_one(|entry| matches!(entry, Entry::Room(_)))?;
        }
        self.changed.insert(Entry::Room(sid.clone()));
        Ok(self.rooms.entry(sid.clone()).or_insert_with(|| RoomRow {
            sid: sid.clone(),
            name: RoomName::default(),
            started_ms: unix_ms,
            ended_ms: None,
            reason: None,
        }))
    }

    fn open_participant(
        &mut self,
        room: &RoomSid,
        sid: &ParticipantSid,
        unix_ms: u64,
    ) -> Result<&mut ParticipantRow, SessionsFull> {
        self.open_room(room, unix_ms)?;
        if self.participants.len() >= self.limits.participants_max && !self.participants.contains_key(sid) {
            self.forget_one(|entry| matches!(entry, Entry::Participant(_)))?;
        }
        self.changed.insert(Entry::Participant(sid.clone()));
        self.members.insert((room.clone(), sid.clone()));
        Ok(self.participants.entry(sid.clone()).or_insert_with(|| ParticipantRow {
            sid: sid.clone(),
            room: room.clone(),
            identity: Identity::default(),
            name: String::new(),
            kind: String::new(),
            hidden: false,
            signal_version: 0,
            client: ClientFacts::default(),
            joined_ms: unix_ms,
            active_ms: None,
            connect_ms: None,
            connection_type: String::new(),
            srtp_profile: String::new(),
            remote: String::new(),
            left_ms: None,
            reason: None,
        }))
    }

    /// The open session of this fact's track, a new one when there is none.
    fn begin_track(&mut self, fact: &Fact, direction: Direction) -> Result<&mut TrackRow, SessionsFull> {
        if !self.participants.contains_key(&fact.participant) {
            self.open_participant(&fact.room, &fact.participant, fact.unix_ms)?;
        }
        let key = key(fact, direction);
        let open = self.newest.get(&key).copied().filter(|id| self.is_open(*id));
        let id = match open {
            Some(id) => id,
            None => self.open_track(&fact.room, key, fact.unix_ms)?,
        };
        self.changed.insert(Entry::Track(id));
        let row = self.tracks.get_mut(&id).map(|session| &mut session.row).ok_or(SessionsFull)?;
        row.started_ms = row.started_ms.min(fact.unix_ms);
        Ok(row)
    }

    fn open_track(&mut self, room: &RoomSid, key: TrackKey, unix_ms: u64) -> Result<u64, SessionsFull> {
        if self.tracks.len() >= self.limits.tracks_max {
            self.forget_one(|entry| matches!(entry, Entry::Track(_)))?;
        }
        let id = self.next_track;
        self.next_track += 1;
        let row = TrackRow {
            id,
            sid: key.track.clone(),
            room: room.clone(),
            participant: key.participant.clone(),
            direction: key.direction,
            publisher: ParticipantSid::default(),
            kind: None,
            source: String::new(),
            codec: String::new(),
            name: String::new(),
            width: 0,
            height: 0,
            simulcast: false,
            layers: Vec::new(),
            started_ms: unix_ms,
            ended_ms: None,
            reason: None,
            counters: TrackCounters::default(),
            counters_ms: None,
            peak_bps: 0,
        };
        self.tracks.insert(id, TrackSession { row, samples: 0 });
        self.newest.insert(key, id);
        self.changed.insert(Entry::Track(id));
        Ok(id)
    }

    fn participant_mut(&mut self, sid: &ParticipantSid) -> Option<&mut ParticipantRow> {
        let row = self.participants.get_mut(sid)?;
        self.changed.insert(Entry::Participant(sid.clone()));
        Some(row)
    }

    fn track_mut(&mut self, key: &TrackKey) -> Option<&mut TrackRow> {
        let id = *self.newest.get(key)?;
        let session = self.tracks.get_mut(&id)?;
        self.changed.insert(Entry::Track(id));
        Some(&mut session.row)
    }

    fn is_open(&self, id: u64) -> bool {
        self.tracks.get(&id).is_some_and(|session| session.row.ended_ms.is_none())
    }

    fn is_present(&self, sid: &ParticipantSid) -> bool {
        self.participants.get(sid).is_some_and(|row| row.left_ms.is_none())
    }

    fn end(&mut self, now: Mono, entry: Entry) {
        self.changed.insert(entry.clone());
        self.ended.push_back((now + LINGER, entry));
    }

    /// Makes place by dropping the entry of this kind that ended first and is handed out for writing.
    fn forget_one(&mut self, of_kind: fn(&Entry) -> bool) -> Result<(), SessionsFull> {
        let place = self.ended.iter().position(|(_, entry)| of_kind(entry) && !self.changed.contains(entry));
        let (_, entry) = place.and_then(|index| self.ended.remove(index)).ok_or(SessionsFull)?;
        self.forget(&entry);
        Ok(())
    }

    fn forget(&mut self, entry: &Entry) {
        match entry {
            Entry::Room(sid) => {
                self.rooms.remove(sid);
            }
            Entry::Participant(sid) => {
                if let Some(row) = self.participants.remove(sid) {
                    self.members.remove(&(row.room, row.sid));
                }
            }
            Entry::Track(id) => {
                let Some(TrackSession { row, .. }) = self.tracks.remove(id) else { return };
                let key = TrackKey { participant: row.participant, track: row.sid, direction: row.direction };
                if self.newest.get(&key) == Some(id) {
                    self.newest.remove(&key);
                }
            }
        }
    }
}

impl TrackSession {
    fn take(&mut self, unix_ms: u64, counters: &TrackCounters) {
        let row = &mut self.row;
        let before = std::mem::take(&mut row.counters);
        row.counters.clone_from(&before);
        advance(&mut row.counters, counters);
        let from_ms = row.counters_ms.unwrap_or(row.started_ms);
        let window = Window::between((from_ms, &before), (unix_ms, &row.counters));
        if window.duration_ms >= PEAK_WINDOW_MS_MIN {
            row.peak_bps = row.peak_bps.max(window.bitrate_bps());
        }
        row.counters_ms = Some(unix_ms);
        self.samples += 1;
    }
}

fn key(fact: &Fact, direction: Direction) -> TrackKey {
    TrackKey { participant: fact.participant.clone(), track: fact.track.clone(), direction }
}

/// Why participants are gone whose own end was not told before their room's.
fn left_with_room(reason: &str) -> &'static str {
    match reason {
        "shutdown" => "server_shutdown",
        "deleted" => "room_deleted",
        "crash" => "crash",
        _ => "room_closed",
    }
}
