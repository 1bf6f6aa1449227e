//! A user's session: all allocations of one person from the first opening until none is left.

use super::identity::Who;
use super::limits::{PEAK_STEP_MS, PEAK_STEPS, PEAK_WINDOW_MS};
use super::participant::Participant;
use super::record::{AllocationRecord, Class, End, EndReason, Quality, SessionRecord, payload_of_client_leg};
use fanlight_events::turn::LegCounters;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// A session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) realm: SmolStr,
    pub(super) who: Who,
    /// The participant that the person is, once it is known.
    pub(super) participant: Option<Box<Participant>>,
    started_ms: u64,
    start_known: bool,
    /// How many of its allocations are open.
    open: u64,
    /// Of allocations whose end is certain; `None` before the first.
    settled: Option<Box<Sum>>,
    /// Allocations that are lost: their end may still be heard.
    doubtful: BTreeMap<u64, Sum>,
    max_concurrent: u64,
    youngest_ms: u64,
    peak: Peak,
    /// It is over unless another allocation opens until then.
    pub(super) closes_ms: Option<u64>,
    pub(super) closed: bool,
}

/// What ended allocations add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    low_ms: u64,
    high_ms: u64,
    /// Of the last one.
    reason: Option<EndReason>,
    active_until_ms: u64,
    allocations: u64,
    leftovers: u64,
    client: LegCounters,
    peer: LegCounters,
    /// Of the peers, or about as much where the server does not tell of them.
    payload: u64,
    quality: Quality,
}

/// Payload by steps of time.
#[derive(Debug, Clone, Default)]
struct Peak {
    /// Number of the latest step that had any.
    latest: u64,
    /// The steps of the window that ends with it, itself first.
    steps: [u64; PEAK_STEPS],
    /// Of the busiest window.
    most: u64,
}

impl Session {
    pub(super) fn new(number: u64, realm: SmolStr, who: Who) -> Self {
        Self {
            number,
            realm,
            who,
            participant: None,
            started_ms: u64::MAX,
            start_known: true,
            open: 0,
            settled: None,
            doubtful: BTreeMap::new(),
            max_concurrent: 0,
            youngest_ms: 0,
            peak: Peak::default(),
            closes_ms: None,
            closed: false,
        }
    }

    /// A session that was open when we last stood; its open allocations follow.
    pub(super) fn restore(record: SessionRecord) -> Self {
        let mut session = Self::new(record.number, record.realm, record.who);
        session.participant = record.participant;
        (session.started_ms, session.start_known) = (record.started_ms, record.start_known);
        session.max_concurrent = record.max_concurrent;
        session.peak.most = record.peak_bps.saturating_mul(PEAK_WINDOW_MS) / 8000;
        session.settled = Some(Box::new(Sum {
            low_ms: record.end.low_ms,
            high_ms: record.end.high_ms,
            reason: None,
            active_until_ms: record.effective_end_ms,
            allocations: record.allocations,
            leftovers: record.leftovers,
            client: record.client,
            peer: record.peer,
            payload: record.peer.bytes(),
            quality: record.quality,
        }));
        session
    }

    /// An allocation opens, or is first heard of.
    pub(super) fn open(&mut self, started_ms: u64, start_known: bool) {
        if started_ms < self.started_ms {
            (self.started_ms, self.start_known) = (started_ms, start_known);
        }
        self.youngest_ms = self.youngest_ms.max(started_ms);
        self.open += 1;
        self.max_concurrent = self.max_concurrent.max(self.open);
        self.closes_ms = None;
    }

    /// Whether some allocation began after this time.
    pub(super) fn has_younger_than(&self, ms: u64) -> bool {
        self.youngest_ms > ms
    }

    /// Payload of one of its allocations; whether it makes a new peak.
    pub(super) fn note(&mut self, at_ms: u64, bytes: u64) -> bool {
        self.peak.add(at_ms, bytes)
    }

    /// An allocation has ended, for certain or as far as is known now.
    pub(super) fn end(&mut self, record: &AllocationRecord, certain: bool) {
        let was_open = self.doubtful.remove(&record.number).is_none();
        self.open = self.open.saturating_sub(u64::from(was_open));
        if certain {
            self.add(Sum::of(record));
        } else {
            self.doubtful.insert(record.number, Sum::of(record));
        }
    }

    /// An allocation that was held for lost is open.
    pub(super) fn reopen(&mut self, allocation: u64) {
        self.doubtful.remove(&allocation);
        self.open += 1;
        self.max_concurrent = self.max_concurrent.max(self.open);
        (self.closes_ms, self.closed) = (None, false);
    }

    /// What is known of a lost allocation's end stays.
    pub(super) fn settle(&mut self, allocation: u64) {
        if let Some(sum) = self.doubtful.remove(&allocation) {
            self.add(sum);
        }
    }

    fn add(&mut self, sum: Sum) {
        match &mut self.settled {
            Some(settled) => **settled += sum,
            None => self.settled = Some(Box::new(sum)),
        }
    }

    pub(super) fn has_open(&self) -> bool {
        self.open > 0
    }

    pub(super) fn has_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    pub(super) fn record(&self) -> SessionRecord {
        let mut all = self.settled.as_deref().copied().unwrap_or_default();
        self.doubtful.values().for_each(|sum| all += *sum);
        let end = End { low_ms: all.low_ms.max(self.started_ms), high_ms: all.high_ms.max(self.started_ms) };
        SessionRecord {
            number: self.number,
            realm: self.realm.clone(),
            who: self.who.clone(),
            participant: self.participant.clone(),
            started_ms: self.started_ms,
            start_known: self.start_known,
            ended: self.closed.then(|| (end, all.reason.unwrap_or(EndReason::Unseen))),
            end,
            effective_end_ms: all.active_until_ms.max(self.started_ms),
            allocations: all.allocations,
            max_concurrent: self.max_concurrent,
            leftovers: all.leftovers,
            client: all.client,
            peer: all.peer,
            quality: all.quality,
            peak_bps: self.peak.most.saturating_mul(8000) / PEAK_WINDOW_MS,
            class: Class::of(all.payload, end.low_ms - self.started_ms),
        }
    }
}

impl Sum {
    fn of(record: &AllocationRecord) -> Self {
        let (end, reason) = record.ended.unwrap_or((End::at(record.last_status_ms), EndReason::Unseen));
        Self {
            low_ms: end.low_ms,
            high_ms: end.high_ms,
            reason: Some(reason),
            active_until_ms: if record.leftover { 0 } else { record.active_until_ms },
            allocations: 1,
            leftovers: u64::from(record.leftover),
            client: record.client,
            peer: record.peer,
            payload: match record.class {
                Class::Unused => 0,
                _ if record.peer != LegCounters::default() => record.peer.bytes(),
                _ => payload_of_client_leg(&record.client, record.refreshes, record.held_ms()),
            },
            quality: record.quality,
        }
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        if other.low_ms >= self.low_ms {
            (self.low_ms, self.reason) = (other.low_ms, other.reason);
        }
        self.high_ms = self.high_ms.max(other.high_ms);
        self.active_until_ms = self.active_until_ms.max(other.active_until_ms);
        self.allocations += other.allocations;
        self.leftovers += other.leftovers;
        self.client += other.client;
        self.peer += other.peer;
        self.payload = self.payload.saturating_add(other.payload);
        self.quality = self.quality.max(other.quality);
    }
}

impl Peak {
    fn add(&mut self, at_ms: u64, bytes: u64) -> bool {
        if bytes == 0 {
            return false;
        }
        let step = at_ms / PEAK_STEP_MS;
        let passed = usize::try_from(step.saturating_sub(self.latest)).unwrap_or(PEAK_STEPS).min(PEAK_STEPS);
        self.steps.rotate_right(passed);
        self.steps.iter_mut().take(passed).for_each(|step| *step = 0);
        self.latest = self.latest.max(step);
        let [latest, ..] = &mut self.steps;
        *latest = latest.saturating_add(bytes);
        let sum = self.steps.iter().fold(0, |sum: u64, step| sum.saturating_add(*step));
        let grown = sum > self.most;
        self.most = self.most.max(sum);
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_busiest_ten_seconds() {
        let mut peak = Peak::default();
        for (at_ms, bytes) in [(0, 100), (5_000, 200), (9_999, 300), (10_000, 50), (60_000, 400)] {
            peak.add(at_ms, bytes);
        }
        assert_eq!(peak.most, 600);
    }
}
