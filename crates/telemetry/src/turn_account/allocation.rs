//! One allocation: what was said of it, and what follows.

use super::identity::Who;
use super::limits::{
    CLOSING_MS, DUPLICATE_OPENING_MS, DUPLICATE_TRAFFIC_MS, EXPIRY_MS, OVERDUE_MS, PEER_TOTAL_BITS,
    RATE_MS_MIN, RELEASE_MS, TOTALS_MS,
};
use super::record::{AllocationRecord, Class, End, EndReason, Quality, payload_of_client_leg};
use super::session::Session;
use fanlight_events::turn::{AllocationName, Leg, LegCounters, Path};
use smol_str::SmolStr;

/// Client addresses kept of an allocation that moves.
const MOVES_MAX: usize = 8;

/// How far an allocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Active,
    /// The client released it; the server has not deleted it yet.
    Closing,
    /// Deleted; totals follow.
    Deleted,
    /// Its end was not heard, and it is on record so; the end may still come.
    Lost,
    /// All of it is on record; what is still said of it was overtaken.
    Finished,
}

/// An allocation.
#[derive(Debug, Clone)]
pub(super) struct Allocation {
    pub(super) number: u64,
    /// Slot of its session.
    pub(super) session: u32,
    pub(super) node: SmolStr,
    pub(super) name: AllocationName,
    pub(super) path: Path,
    pub(super) started_ms: u64,
    pub(super) start_known: bool,
    pub(super) last_status_ms: u64,
    lifetime_s: u32,
    pub(super) expires_ms: u64,
    pub(super) refreshes: u64,
    pub(super) state: State,
    /// When its timer comes.
    pub(super) timer_ms: u64,
    /// Sums of traffic messages: client, peer.
    sums: [LegCounters; 2],
    latest: [Latest; 2],
    activity: Activity,
    late: Option<Box<Late>>,
    /// Messages of it may be missing: the input was away while it was open.
    pub(super) outage: bool,
    /// It is among those that have to be told.
    pub(super) changed: bool,
}

/// What an allocation has only after a move, or towards its end.
#[derive(Debug, Clone, Default)]
struct Late {
    moved_from: Vec<SmolStr>,
    released_ms: Option<u64>,
    end: Option<(End, EndReason)>,
    totals: [Option<LegCounters>; 2],
}

/// The latest traffic message of a leg, to know it again.
#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    ms: u64,
    /// Its counters; none is compared that does not fit.
    counters: [u32; 4],
}

/// When payload flowed.
#[derive(Debug, Clone, Copy, Default)]
struct Activity {
    /// The latest traffic message with payload, and the one before.
    latest_ms: u64,
    before_ms: u64,
    /// Packets of the latest one.
    packets: u64,
    /// Of the window before the latest one, packets per second.
    rate_before_pps: u64,
    rate_pps: u64,
    peak_bps: u64,
}

impl Allocation {
    pub(super) fn new(
        (number, session): (u64, u32),
        node: SmolStr,
        name: AllocationName,
        path: Path,
        (at_ms, start_known): (u64, bool),
        lifetime_s: u32,
    ) -> Self {
        Self {
            number,
            session,
            node,
            name,
            path,
            started_ms: at_ms,
            start_known,
            last_status_ms: at_ms,
            lifetime_s,
            expires_ms: at_ms + u64::from(lifetime_s) * 1000,
            refreshes: 0,
            state: State::Active,
            timer_ms: u64::MAX,
            sums: [LegCounters::default(); 2],
            latest: [Latest::default(); 2],
            activity: Activity { latest_ms: at_ms, before_ms: at_ms, ..Activity::default() },
            late: None,
            outage: false,
            changed: false,
        }
    }

    /// An allocation that was open when we last stood; what was said of it since is not known.
    pub(super) fn restore(record: AllocationRecord, session: u32) -> Self {
        let start = (record.started_ms, record.start_known);
        let numbers = (record.number, session);
        let mut allocation =
            Self::new(numbers, record.node, record.name, record.path, start, record.lifetime_s);
        if !record.moved_from.is_empty() {
            allocation.late_mut().moved_from = record.moved_from;
        }
        allocation.refreshes = record.refreshes;
        allocation.last_status_ms = record.last_status_ms;
        allocation.expires_ms = record.last_status_ms + u64::from(record.lifetime_s) * 1000;
        allocation.sums = [record.client, record.peer];
        allocation.activity.latest_ms = record.active_until_ms;
        allocation.activity.peak_bps = record.peak_bps;
        allocation.outage = true;
        if let Some(released_ms) = record.released_ms {
            allocation.state = State::Closing;
            allocation.late_mut().released_ms = Some(released_ms);
            allocation.expires_ms = released_ms + RELEASE_MS;
        }
        allocation
    }

    /// Whether it goes on, as far as is known.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Active | State::Closing)
    }

    fn late_mut(&mut self) -> &mut Late {
        self.late.get_or_insert_default()
    }

    fn end(&self) -> Option<(End, EndReason)> {
        self.late.as_deref().and_then(|late| late.end)
    }

    fn released_ms(&self) -> Option<u64> {
        self.late.as_deref().and_then(|late| late.released_ms)
    }

    fn totals(&self) -> [Option<LegCounters>; 2] {
        self.late.as_deref().map_or([None; 2], |late| late.totals)
    }

    fn moved_from(&self) -> &[SmolStr] {
        self.late.as_deref().map_or(&[], |late| &late.moved_from)
    }

    /// Whether the same opening was heard a moment ago.
    pub(super) fn is_same_opening(&self, at_ms: u64, lifetime_s: u32, path: &Path) -> bool {
        self.start_known
            && at_ms.saturating_sub(self.started_ms) <= DUPLICATE_OPENING_MS
            && (self.refreshes > 0 || self.lifetime_s == lifetime_s)
            && self.path.local == path.local
            && (self.path.remote == path.remote || self.moved_from().contains(&path.remote))
    }

    /// Whether this is the opening of an allocation that was first heard of by a message that overtook it.
    pub(super) fn is_overtaken_opening(&self, at_ms: u64) -> bool {
        !self.start_known && at_ms.saturating_sub(self.started_ms) <= DUPLICATE_OPENING_MS
    }

    /// Its opening comes after all.
    pub(super) fn open_late(&mut self, path: Path) {
        self.start_known = true;
        if self.path == Path::default() {
            self.path = path;
        }
    }

    /// It is refreshed, or with 0 released.
    pub(super) fn refresh(&mut self, at_ms: u64, lifetime_s: u32, path: Path) {
        self.refreshes += 1;
        if self.state == State::Deleted {
            // Its own end overtook it.
            return;
        }
        self.last_status_ms = at_ms;
        if self.path.remote != path.remote && !path.remote.is_empty() {
            let before = std::mem::replace(&mut self.path, path);
            if !before.remote.is_empty() && self.moved_from().len() < MOVES_MAX {
                self.late_mut().moved_from.push(before.remote);
            }
        }
        if lifetime_s > 0 {
            self.lifetime_s = lifetime_s;
            self.expires_ms = at_ms + u64::from(lifetime_s) * 1000;
        } else if self.state == State::Active {
            self.state = State::Closing;
            self.late_mut().released_ms = Some(at_ms);
            self.expires_ms = at_ms + RELEASE_MS;
        }
    }

    /// What the store of the TURN server says of it now: so long ago it was refreshed with so much.
    pub(super) fn resync(&mut self, status_ms: u64, lifetime_s: u32) {
        self.last_status_ms = self.last_status_ms.max(status_ms);
        self.expires_ms = self.expires_ms.max(status_ms + u64::from(lifetime_s) * 1000);
    }

    /// A traffic message; `false` for one that comes twice. Bytes of payload since the one before come with `true`.
    pub(super) fn add(&mut self, at_ms: u64, leg: Leg, counters: LegCounters) -> Option<u64> {
        let place = index(leg);
        if self.latest[place].is_same(at_ms, &counters) {
            return None;
        }
        self.latest[place] = Latest { ms: at_ms, counters: short(&counters) };
        self.sums[place] += counters;
        if leg == Leg::Client || counters.bytes() == 0 {
            return Some(0);
        }
        self.activity.note(at_ms, &counters);
        Some(counters.bytes())
    }

    /// The server deleted it.
    pub(super) fn delete(&mut self, at_ms: u64) {
        let released_ms = self.released_ms();
        let reason = if released_ms.is_some() {
            EndReason::Released
        } else if at_ms.abs_diff(self.expires_ms) < EXPIRY_MS {
            EndReason::Expired
        } else {
            EndReason::Closed
        };
        self.late_mut().end = Some((End::at(released_ms.unwrap_or(at_ms)), reason));
        self.state = State::Deleted;
        self.expires_ms = at_ms + TOTALS_MS;
    }

    /// Totals came.
    pub(super) fn total(&mut self, leg: Leg, totals: LegCounters) {
        let totals = match leg {
            Leg::Client => totals,
            Leg::Peer => unwrap_totals(self.sums[index(leg)], totals),
        };
        self.late_mut().totals[index(leg)] = Some(totals);
    }

    /// Nothing more is to be expected: it was opened and deleted, and all totals are there.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Deleted && self.start_known && self.totals().iter().all(Option::is_some)
    }

    /// Ends it without a word of the server.
    pub(super) fn end_unheard(&mut self, end: End, reason: EndReason) {
        let released = self.released_ms().map(|ms| (End::at(ms), EndReason::Released));
        let low_ms = end.low_ms.max(self.started_ms);
        let bounds = End { low_ms, high_ms: end.high_ms.max(low_ms) };
        self.late_mut().end.get_or_insert(released.unwrap_or((bounds, reason)));
        self.state = State::Lost;
    }

    /// Whether it ended because its server, or the server's next process, gave its name anew.
    pub(super) fn is_replaced(&self) -> bool {
        let replaced = |(_, reason)| matches!(reason, EndReason::NodeRestart | EndReason::Superseded);
        self.state == State::Lost && self.end().is_some_and(replaced)
    }

    /// It was held for lost, but lives: what was said of it in between was missed.
    pub(super) fn revive(&mut self) {
        (self.state, self.outage) = (State::Active, true);
        self.late_mut().end = None;
        self.expires_ms = self.last_status_ms + u64::from(self.lifetime_s) * 1000;
    }

    /// When it ended if its time is over and nobody said so.
    pub(super) fn overdue_end(&self) -> End {
        let low_ms = if self.outage { self.last_status_ms } else { self.expires_ms };
        End { low_ms, high_ms: self.expires_ms }
    }

    /// When it has to be looked at although nobody speaks of it.
    pub(super) fn deadline_ms(&self) -> u64 {
        match self.state {
            State::Active => self.expires_ms + OVERDUE_MS,
            State::Closing | State::Deleted | State::Lost | State::Finished => self.expires_ms,
        }
    }

    /// What is known of it by now; `younger` says that its session had one that began after its last status,
    /// `with_peer` that its server tells of the peer leg at all (coturn from 4.5.1.2).
    pub(super) fn record(
        &self,
        who: Who,
        session: &Session,
        (younger, with_peer): (bool, bool),
    ) -> AllocationRecord {
        let [client, peer] = self.counters();
        let totals = self.totals();
        let complete = totals[0].is_some() && (totals[1].is_some() || !with_peer);
        let ended = self.end();
        let reason = ended.map(|(_, reason)| reason);
        let quality = match reason {
            _ if complete && self.sums_fit() => Quality::Exact,
            None | Some(EndReason::Lost | EndReason::Unseen | EndReason::Superseded) => Quality::LowerBound,
            Some(_) if self.outage => Quality::LowerBound,
            Some(_) => Quality::Deltas,
        };
        let until_ms = ended.map_or(self.last_status_ms.max(self.activity.latest_ms), |(end, _)| end.low_ms);
        let duration_ms = until_ms.saturating_sub(self.started_ms);
        let payload = if with_peer || peer != LegCounters::default() {
            peer.bytes()
        } else {
            payload_of_client_leg(&client, self.refreshes, duration_ms)
        };
        // Without reports of payload nobody knows when it ended.
        let active_until_ms = if payload > peer.bytes() { until_ms } else { self.active_until_ms() };
        AllocationRecord {
            number: self.number,
            session: session.number,
            node: self.node.clone(),
            name: self.name.clone(),
            who,
            participant: session.participant.clone(),
            path: self.path.clone(),
            moved_from: self.moved_from().to_vec(),
            started_ms: self.started_ms,
            start_known: self.start_known,
            last_status_ms: self.last_status_ms,
            lifetime_s: self.lifetime_s,
            released_ms: self.released_ms(),
            ended,
            active_until_ms,
            refreshes: self.refreshes,
            client,
            peer,
            deltas_match: complete.then(|| self.sums == [client, peer]),
            quality,
            peak_bps: self.activity.peak_bps,
            leftover: reason == Some(EndReason::Expired) && younger,
            class: Class::of(payload, duration_ms),
        }
    }

    fn counters(&self) -> [LegCounters; 2] {
        let (totals, sums) = (self.totals(), self.sums);
        [0, 1].map(|leg| totals[leg].unwrap_or(sums[leg]))
    }

    /// Totals below what their parts add up to are not totals of the same thing.
    fn sums_fit(&self) -> bool {
        let fits = |total: &LegCounters, sum: LegCounters| {
            total.fields().iter().zip(sum.fields()).all(|(total, sum)| *total >= sum)
        };
        let totals = self.totals();
        [0, 1].iter().all(|&leg| totals[leg].is_none_or(|total| fits(&total, self.sums[leg])))
    }

    fn active_until_ms(&self) -> u64 {
        match self.end() {
            Some((end, EndReason::Released | EndReason::Closed)) => end.low_ms,
            Some((end, _)) => self.activity.until(end.low_ms, self.started_ms),
            None => self.activity.latest_ms,
        }
    }
}

impl Latest {
    fn is_same(&self, at_ms: u64, counters: &LegCounters) -> bool {
        let counters = short(counters);
        self.ms != 0
            && at_ms.saturating_sub(self.ms) <= DUPLICATE_TRAFFIC_MS
            && self.counters == counters
            && !counters.contains(&u32::MAX)
    }
}

/// Counters of one message; those that do not fit are the largest number.
fn short(counters: &LegCounters) -> [u32; 4] {
    counters.fields().map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

impl Activity {
    fn note(&mut self, at_ms: u64, counters: &LegCounters) {
        let elapsed_ms = at_ms.saturating_sub(self.latest_ms);
        (self.before_ms, self.latest_ms) = (self.latest_ms, at_ms);
        (self.rate_before_pps, self.packets) = (self.rate_pps, counters.packets());
        if elapsed_ms >= RATE_MS_MIN {
            self.rate_pps = counters.packets().saturating_mul(1000) / elapsed_ms;
            self.peak_bps = self.peak_bps.max(counters.bytes().saturating_mul(8000) / elapsed_ms);
        }
    }

    /// The last moment of payload. What a closing allocation reports lies anywhere since the message before: as many
    /// packets as that are needed at the rate before.
    fn until(&self, end_ms: u64, started_ms: u64) -> u64 {
        if self.packets == 0 {
            return started_ms;
        }
        if end_ms.saturating_sub(self.latest_ms) > CLOSING_MS {
            return self.latest_ms.min(end_ms);
        }
        match self.packets.saturating_mul(1000).checked_div(self.rate_before_pps) {
            Some(needed_ms) => self.before_ms.saturating_add(needed_ms).min(end_ms),
            // One message in all: it says nothing about when.
            None => end_ms,
        }
    }
}

/// coturn's peer totals are 32 bits wide: the true ones are the least above what was summed. Totals that are above it
/// already are taken as they are.
fn unwrap_totals(sums: LegCounters, totals: LegCounters) -> LegCounters {
    let modulus = 1_u64 << PEER_TOTAL_BITS;
    sums.zip(totals, |sum, total| {
        if total >= sum || total >= modulus {
            return total;
        }
        let wraps = (sum - total).div_ceil(modulus);
        total.saturating_add(wraps.saturating_mul(modulus))
    })
}

const fn index(leg: Leg) -> usize {
    match leg {
        Leg::Client => 0,
        Leg::Peer => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(packets: u64, bytes: u64) -> LegCounters {
        LegCounters { rx_packets: packets, rx_bytes: bytes, ..LegCounters::default() }
    }

    fn allocation() -> Allocation {
        let name = AllocationName { realm: "r".into(), user: "u".into(), id: 1 };
        Allocation::new((1, 0), "n".into(), name, Path::default(), (1_000, true), 600)
    }

    fn record(allocation: &Allocation) -> AllocationRecord {
        let session = Session::new(2, "r".into(), Who::default());
        allocation.record(Who::default(), &session, (false, true))
    }

    #[test]
    fn totals_that_wrapped_are_the_least_above_the_sum() {
        let unwrapped = |sum, total| unwrap_totals(counters(0, sum), counters(0, total)).rx_bytes;
        assert_eq!(unwrapped(4_602_300_000, 307_332_704), 4_602_300_000);
        assert_eq!(unwrapped(4_602_000_000, 307_332_704), 4_602_300_000);
        assert_eq!(unwrapped(100, 307_332_704), 307_332_704);
        assert_eq!(unwrapped(10_000_000_000, 5_000_000_000), 5_000_000_000);
        assert_eq!(unwrapped(9_000_000_000, 1_410_065_408), 10_000_000_000);
    }

    #[test]
    fn the_same_traffic_a_moment_later_is_a_duplicate_and_later_it_is_not() {
        let mut allocation = allocation();
        assert_eq!(allocation.add(5_000, Leg::Peer, counters(5, 500)), Some(500));
        assert_eq!(allocation.add(5_020, Leg::Peer, counters(5, 500)), None);
        assert_eq!(allocation.add(5_041, Leg::Peer, counters(5, 500)), Some(500));
        assert_eq!(allocation.counters()[1].rx_bytes, 1_000);
    }

    #[test]
    fn an_expired_allocation_was_active_until_its_last_packets_at_the_rate_before() {
        let mut allocation = allocation();
        allocation.add(11_000, Leg::Peer, counters(1_000, 100_000));
        allocation.add(601_000, Leg::Peer, counters(500, 50_000));
        allocation.delete(601_000);
        let record = record(&allocation);
        assert_eq!(record.ended, Some((End::at(601_000), EndReason::Expired)));
        assert_eq!(record.active_until_ms, 16_000);
        assert_eq!((record.peak_bps, record.held_ms()), (80_000, 600_000));
    }

    #[test]
    fn totals_make_it_exact_and_their_lack_a_sum() {
        let mut allocation = allocation();
        allocation.add(2_000, Leg::Client, counters(5, 500));
        allocation.delete(3_000);
        assert_eq!(record(&allocation).quality, Quality::Deltas);
        allocation.total(Leg::Client, counters(9, 900));
        assert!(!allocation.is_complete());
        allocation.total(Leg::Peer, counters(0, 0));
        assert!(allocation.is_complete());
        let record = record(&allocation);
        assert_eq!(
            (record.quality, record.client.rx_bytes, record.deltas_match),
            (Quality::Exact, 900, Some(false))
        );
    }
}
