//! Events in, batches out.

use crate::limits::{
    FLUSH_AFTER, FLUSH_ROWS, HEARTBEAT_EVERY, Limits, PRUNE_EVERY, PRUNE_PAUSE, RETRY_FIRST, RETRY_MAX,
};
use crate::refusals::{
    QUEUE_SESSIONS, QUEUE_STORE_FACTS, QUEUE_STORE_LOST, QUEUE_STORE_SAMPLES, QUEUE_STORE_TURN, Refusals,
};
use crate::rows::{Batch, CountersRow, TimelineRow};
use crate::sessions::Sessions;
use crate::turn::Turn;
use crate::turn_account::{self, AllocationRecord, SessionRecord};
use crate::turn_status::TurnStatus;
use fanlight_base::{Bounded, Mono, Now, ParticipantSid, RoomSid, TrackSid};
use fanlight_events::{Event, Fact, FactBody, QueueRefused, Sample};
use std::time::Duration;

const DAY_MS: u64 = 86_400_000;

/// Folds events into rows and decides when they are written.
///
/// One batch is under way at a time: after [`Output::Write`] the shell calls [`Pipeline::handle_written`]. While the disk
/// is away, rooms, participants and tracks are kept as they stand (nothing is queued for them), timeline and counters rows
/// up to a limit.
#[derive(Debug)]
pub struct Pipeline {
    settings: Settings,
    now: Now,
    sessions: Sessions,
    timeline: Bounded<TimelineRow>,
    counters: Bounded<CountersRow>,
    turn: Turn,
    refusals: Refusals,
    next_timeline: u64,
    /// When the oldest waiting row is due.
    flush_at: Option<Mono>,
    heartbeat_at: Mono,
    /// A batch that could not be written.
    failed: Option<Box<Batch>>,
    failures: u32,
    retry_at: Mono,
    writing: bool,
    pruning: bool,
    prune_at: Mono,
    closing: bool,
    /// While closing the database took nothing, so it will not take the count of that either.
    given_up: bool,
}

/// What a pipeline is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its maxima.
    pub limits: Limits,
    /// Rooms that ended so many days ago are forgotten; 0 keeps all.
    pub retention_days: u32,
    /// Where the database stands.
    pub resume: Resume,
    /// How TURN is accounted for.
    pub turn: turn_account::Settings,
}

/// The first free numbers of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// First free [`crate::TrackRow::id`].
    pub next_track: u64,
    /// First free [`TimelineRow::id`].
    pub next_timeline: u64,
    /// First free number of a TURN allocation or session.
    pub next_turn: u64,
}

/// What the shell has to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Write these rows in one transaction, the heartbeat with them, then call [`Pipeline::handle_written`].
    Write(Box<Batch>),
    /// Forget a portion of what ended before this time, then call [`Pipeline::handle_pruned`].
    Prune {
        /// Milliseconds since the Unix epoch.
        before_ms: u64,
    },
    /// Nothing until then: call [`Pipeline::handle_timeout`].
    Timeout(Mono, Why),
}

const _: () = assert!(size_of::<Output>() <= 64, "outputs are control values");

/// What the next wake-up is for. Of two for the same moment the first is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nothing before the shell has written the batch it holds.
    Write,
    /// Rows have waited long enough.
    Flush,
    /// *Last seen* is due.
    Heartbeat,
    /// A failed batch is tried again.
    Retry,
    /// An ended session is forgotten by the pipeline.
    Linger,
    /// A TURN allocation or session is due.
    Turn,
    /// Old rooms are looked for.
    Prune,
}

/// How writing a batch went.
#[derive(Debug, PartialEq)]
pub enum Written {
    /// It is committed.
    Stored,
    /// Nothing of it is committed; it is to be tried again.
    Failed(Box<Batch>),
    /// Nothing of it is committed and it never will be: so many rows are gone.
    Lost(usize),
}

impl Pipeline {
    /// A pipeline whose first heartbeat is due at once.
    pub fn new(now: Now, settings: Settings) -> Self {
        let limits = settings.limits;
        let turn = Turn::new(now, settings.turn.clone(), settings.resume.next_turn);
        Self {
            now,
            sessions: Sessions::new(limits, settings.resume.next_track),
            timeline: Bounded::new(limits.timeline_max),
            counters: Bounded::new(limits.counters_max),
            turn,
            refusals: Refusals::default(),
            next_timeline: settings.resume.next_timeline,
            flush_at: None,
            heartbeat_at: now.mono(),
            failed: None,
            failures: 0,
            retry_at: Mono::NEVER,
            writing: false,
            pruning: false,
            prune_at: if settings.retention_days == 0 { Mono::NEVER } else { now.mono() + PRUNE_PAUSE },
            closing: false,
            given_up: false,
            settings,
        }
    }

    /// Goes on with the TURN sessions and allocations that were open when the last process ended.
    pub fn restore_turn(
        &mut self,
        now: Now,
        sessions: Vec<SessionRecord>,
        allocations: Vec<AllocationRecord>,
    ) {
        self.now = now;
        self.turn.restore(now, (sessions, allocations));
        self.tell_turn_facts();
    }

    /// Something happened.
    pub fn handle_event(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Fact(fact) => self.handle_fact(&fact),
            Event::Sample(sample) => self.handle_sample(&sample),
            Event::Turn(heard, input) => self.turn.handle_input(heard, input),
        }
        self.tell_turn_facts();
        self.wait_for_company();
    }

    /// A queue before this pipeline has refused `total` events so far. `queue` is one of a few names.
    pub fn handle_refused(&mut self, now: Now, queue: &'static str, total: u64) {
        self.now = now;
        self.refusals.set(queue, total);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.sessions.forget_ended(now.mono());
        self.turn.handle_timeout(now);
        self.tell_turn_facts();
        self.wait_for_company();
    }

    /// How writing the last batch went.
    pub fn handle_written(&mut self, now: Now, written: Written) {
        self.now = now;
        self.writing = false;
        match written {
            Written::Stored => self.failures = 0,
            Written::Failed(batch) => {
                self.retry_at = now.mono() + backoff(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.failed = Some(batch);
            }
            Written::Lost(rows) => {
                self.failures = 0;
                self.given_up = self.closing;
                self.refusals.add(QUEUE_STORE_LOST, u64::try_from(rows).unwrap_or(u64::MAX));
            }
        }
    }

    /// A portion of old rows is gone; `more` when others are left.
    pub fn handle_pruned(&mut self, now: Now, more: bool) {
        self.now = now;
        self.pruning = false;
        self.prune_at = now.mono() + if more { PRUNE_PAUSE } else { PRUNE_EVERY };
    }

    /// The process ends: everything that waits is written without delay.
    pub fn handle_close(&mut self, now: Now) {
        self.now = now;
        self.closing = true;
    }

    /// What to do next; the last one is always [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        if !self.writing
            && let Some(batch) = self.due_batch()
        {
            self.writing = true;
            self.heartbeat_at = self.now.mono() + HEARTBEAT_EVERY;
            return Output::Write(batch);
        }
        if !self.pruning && !self.closing && self.failed.is_none() && self.prune_at <= self.now.mono() {
            self.pruning = true;
            let kept_ms = u64::from(self.settings.retention_days) * DAY_MS;
            return Output::Prune { before_ms: self.now.unix_ms().saturating_sub(kept_ms) };
        }
        let (when, why) = self.next_timeout();
        Output::Timeout(when, why)
    }

    /// Whether everything that came is written, or given up.
    pub fn is_drained(&self) -> bool {
        !self.writing && self.failed.is_none() && self.waiting_rows() == 0 && !self.must_tell()
    }

    /// Rows that wait for the disk, the failed batch included.
    pub fn unwritten_rows(&self) -> usize {
        self.waiting_rows() + self.failed.as_ref().map_or(0, |batch| batch.rows())
    }

    /// How many `queue` has refused so far, as far as this pipeline knows.
    pub fn refused(&self, queue: &str) -> u64 {
        self.refusals.total(queue)
    }

    /// How TURN fares.
    pub fn turn_status(&self) -> &TurnStatus {
        self.turn.status()
    }

    /// Answers whose participants the accounting asked for, then tells what it has to tell in the timeline.
    fn tell_turn_facts(&mut self) {
        for sid in self.turn.take_asked() {
            self.tie_to_turn(&sid);
        }
        for fact in self.turn.take_facts() {
            self.handle_fact(&fact);
        }
    }

    /// TURN sessions of this participant, if it is known, are its own.
    fn tie_to_turn(&mut self, sid: &ParticipantSid) {
        if let Some(participant) = self.sessions.turn_participant(sid) {
            self.turn.handle_participant(self.now, &participant);
        }
    }

    fn wait_for_company(&mut self) {
        self.refusals.set(QUEUE_STORE_TURN, self.turn.refused);
        if self.flush_at.is_none() && self.waiting_rows() > 0 {
            self.flush_at = Some(self.now.mono() + FLUSH_AFTER);
        }
    }

    fn handle_fact(&mut self, fact: &Fact) {
        if let FactBody::TurnQuotaHit(hit) = &fact.body {
            self.turn.quota_hit(hit.quota);
        }
        if self.sessions.fold(self.now.mono(), fact).is_err() {
            self.refusals.add(QUEUE_SESSIONS, 1);
        }
        if matches!(fact.body, FactBody::ParticipantJoined(_)) {
            self.tie_to_turn(&fact.participant);
        }
        let row = self.timeline_row(
            fact.unix_ms,
            (self.room_of(fact), fact.participant.clone(), fact.track.clone()),
            &fact.body,
        );
        if self.timeline.push(row).is_err() {
            self.refusals.add(QUEUE_STORE_FACTS, 1);
        }
    }

    /// A TURN server knows participants, but no rooms.
    fn room_of(&self, fact: &Fact) -> RoomSid {
        if !fact.room.as_str().is_empty() || fact.participant.as_str().is_empty() {
            return fact.room.clone();
        }
        self.sessions.turn_participant(&fact.participant).map(|one| one.room_sid).unwrap_or_default()
    }

    fn handle_sample(&mut self, sample: &Sample) {
        let Ok(row) = self.sessions.sample(sample) else {
            self.refusals.add(QUEUE_SESSIONS, 1);
            return;
        };
        if let Some(row) = row
            && self.counters.push(row).is_err()
        {
            self.refusals.add(QUEUE_STORE_SAMPLES, 1);
        }
    }

    fn timeline_row(
        &mut self,
        t_ms: u64,
        place: (RoomSid, ParticipantSid, TrackSid),
        body: &FactBody,
    ) -> TimelineRow {
        let id = self.next_timeline;
        self.next_timeline += 1;
        let (room, participant, track) = place;
        TimelineRow { id, t_ms, room, participant, track, event: body.name(), fields: fields(body) }
    }

    fn waiting_rows(&self) -> usize {
        self.sessions.changed() + self.timeline.len() + self.counters.len() + self.turn.waiting()
    }

    fn must_tell(&self) -> bool {
        self.refusals.untold() && !self.given_up
    }

    fn due_batch(&mut self) -> Option<Box<Batch>> {
        let now = self.now.mono();
        if self.failed.is_some() {
            return if self.retry_at <= now { self.retried_batch() } else { None };
        }
        let waiting = self.waiting_rows();
        let due = waiting >= FLUSH_ROWS
            || self.flush_at.is_some_and(|at| at <= now)
            || self.heartbeat_at <= now
            || (self.closing && (waiting > 0 || self.must_tell()));
        due.then(|| self.next_batch())
    }

    fn retried_batch(&mut self) -> Option<Box<Batch>> {
        let mut batch = self.failed.take()?;
        batch.seen_ms = self.now.unix_ms();
        Some(batch)
    }

    fn next_batch(&mut self) -> Box<Batch> {
        let mut batch = Box::new(Batch { seen_ms: self.now.unix_ms(), ..Batch::default() });
        let rows_max = self.settings.limits.batch_rows_max;
        self.sessions.take_changed(&mut batch, rows_max);
        while batch.rows() < rows_max
            && let Some(row) = self.timeline.pop()
        {
            batch.timeline.push(row);
        }
        while batch.rows() < rows_max
            && let Some(row) = self.counters.pop()
        {
            batch.counters.push(row);
        }
        self.turn.take(self.now, &mut batch, rows_max);
        // Past the limit by the number of queues at most: what was refused must be said when the disk is back.
        for (queue, refused) in self.refusals.tell(self.now.mono(), self.closing) {
            let body = FactBody::from(QueueRefused { queue: queue.to_owned(), refused });
            let row = self.timeline_row(self.now.unix_ms(), Default::default(), &body);
            batch.timeline.push(row);
        }
        self.flush_at = (self.waiting_rows() > 0).then(|| self.now.mono());
        batch
    }

    fn next_timeout(&self) -> (Mono, Why) {
        let linger = (self.sessions.next_forget(), Why::Linger).min((self.turn.next_timeout(), Why::Turn));
        if self.writing {
            return linger.min((Mono::NEVER, Why::Write));
        }
        if self.failed.is_some() {
            return linger.min((self.retry_at, Why::Retry));
        }
        let prune_at = if self.pruning || self.closing { Mono::NEVER } else { self.prune_at };
        linger
            .min((self.flush_at.unwrap_or(Mono::NEVER), Why::Flush))
            .min((self.heartbeat_at, Why::Heartbeat))
            .min((prune_at, Why::Prune))
    }
}

fn backoff(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(RETRY_MAX)
}

/// The fields of a fact as a JSON object, its name left out.
fn fields(body: &FactBody) -> String {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::to_value(body) else {
        return "{}".to_owned();
    };
    fields.remove("event");
    serde_json::Value::Object(fields).to_string()
}
