//! The clocks of a room.

use crate::media::TransportId;
use crate::output::Why;
use fanlight_base::{Mono, PeerKey};
use std::collections::{BTreeMap, BTreeSet};

/// What a room waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A transport wants to be driven (ICE, DTLS, SCTP).
    Transport(TransportId),
    /// What a participant changed since it was last told is to be told.
    Changes(PeerKey),
    /// Subscribers are to be told of the participant's allow list.
    AllowList(PeerKey),
    /// Participants that do not publish have changed: tell everybody.
    Updates,
    /// Count participants and publishers anew.
    Counts,
    /// Counters of every track are due.
    Samples,
    /// The participant should be active by now.
    JoinTimeout(PeerKey),
    /// Its signalling or its transport has been gone for long enough.
    Grace(PeerKey),
    /// Our offer should be answered by now.
    Negotiation(PeerKey),
    /// A new token is due.
    RefreshToken(PeerKey),
    /// Tracks it subscribed to should be there by now.
    Missing(PeerKey),
    /// Refusals since the last report are to be told.
    Refusals(PeerKey),
}

impl Timer {
    const fn why(self) -> Why {
        match self {
            Self::Transport(_) => Why::Transport,
            Self::Samples => Why::Samples,
            _ => Why::Room,
        }
    }
}

/// Deadlines in order; each timer has one at most.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    order: BTreeSet<(Mono, Timer)>,
    deadlines: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Sets or moves a timer; [`Mono::NEVER`] stops it.
    pub(crate) fn set(&mut self, timer: Timer, at: Mono) {
        if self.deadlines.get(&timer) == Some(&at) {
            return;
        }
        self.stop(timer);
        if at != Mono::NEVER {
            self.deadlines.insert(timer, at);
            self.order.insert((at, timer));
        }
    }

    /// Sets a timer that is not running.
    pub(crate) fn start(&mut self, timer: Timer, at: Mono) {
        if !self.deadlines.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    /// Stops a timer.
    pub(crate) fn stop(&mut self, timer: Timer) {
        if let Some(at) = self.deadlines.remove(&timer) {
            self.order.remove(&(at, timer));
        }
    }

    /// Takes the next timer that is due.
    pub(crate) fn pop(&mut self, now: Mono) -> Option<Timer> {
        let (at, timer) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }

    /// The next deadline and what it is for.
    pub(crate) fn next(&self) -> (Mono, Why) {
        self.order.first().map_or((Mono::NEVER, Why::Idle), |(at, timer)| (*at, timer.why()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Mono {
        Mono { ns }
    }

    #[test]
    fn timers_come_due_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Counts, at(5));
        timers.set(Timer::Samples, at(3));
        timers.set(Timer::Counts, at(2));
        assert_eq!(timers.next(), (at(2), Why::Room));
        assert_eq!(
            (timers.pop(at(1)), timers.pop(at(4)), timers.pop(at(4))),
            (None, Some(Timer::Counts), Some(Timer::Samples))
        );
        assert_eq!((timers.pop(at(9)), timers.next()), (None, (Mono::NEVER, Why::Idle)));
    }

    #[test]
    fn starting_a_running_timer_does_not_move_it() {
        let mut timers = Timers::default();
        timers.start(Timer::Updates, at(3));
        timers.start(Timer::Updates, at(9));
        assert_eq!(timers.next().0, at(3));
        timers.set(Timer::Updates, Mono::NEVER);
        assert_eq!(timers.next().0, Mono::NEVER);
    }
}
