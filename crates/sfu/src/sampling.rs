//! The counters of a room's tracks on their way to the record: all of them in [`SAMPLE_INTERVAL`], some at a time, because a
//! room of N has about N² of them.

use crate::ctx::Ctx;
use crate::limits::{SAMPLE_AGAIN, SAMPLE_INTERVAL, SAMPLE_STEP, SAMPLES_PER_STEP};
use crate::media::{DownKey, TrackKey};
use crate::room::Room;
use crate::timers::Timer;
use fanlight_base::{Mono, PeerKey};
use fanlight_events::{Direction, SampleBody, TrackSample};
use std::ops::Bound::{Excluded, Unbounded};

/// How far a round through the tracks has come: published ones first, each in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Published(Option<TrackKey>),
    Subscribed(Option<DownKey>),
}

impl Round {
    pub(crate) const BEGIN: Self = Self::Published(None);
}

impl Room {
    /// Starts the clock of the samples.
    pub(crate) fn start_samples(&mut self, now: Mono) {
        self.timers.start(Timer::Samples, self.tick(now, SAMPLE_INTERVAL));
    }

    /// Tells the record how some of the tracks stand, and of the next ones later. What ends meanwhile is told where it ends.
    pub(crate) fn sample(&mut self, ctx: &mut Ctx<'_>) {
        if self.peers.is_empty() {
            self.sampled = Round::BEGIN;
            return;
        }
        if *ctx.samples_left == 0 {
            // Other rooms have used up this turn.
            return self.timers.set(Timer::Samples, ctx.mono() + SAMPLE_AGAIN);
        }
        for _ in 0..SAMPLES_PER_STEP.min(*ctx.samples_left) {
            *ctx.samples_left -= 1;
            let Some((peer, sample)) = self.next_sample() else {
                self.sampled = Round::BEGIN;
                return self.start_samples(ctx.mono());
            };
            if let (Some(peer), Some(sample)) = (self.peers.get(&peer), sample) {
                ctx.sample(&self.config.sid, &peer.sid, SampleBody::Track(sample));
            }
        }
        self.timers.set(Timer::Samples, ctx.mono() + SAMPLE_STEP);
    }

    /// The next track and its sample, if there is anything to say of it; `None` at the end of the round.
    fn next_sample(&mut self) -> Option<(PeerKey, Option<TrackSample>)> {
        if let Round::Published(after) = self.sampled {
            let from = after.map_or(Unbounded, Excluded);
            if let Some((line, (peer, sid))) = self.published.range((from, Unbounded)).next() {
                self.sampled = Round::Published(Some(*line));
                return Some((*peer, self.published_sample(*peer, sid, *line)));
            }
            self.sampled = Round::Subscribed(None);
        }
        let Round::Subscribed(after) = self.sampled else { return None };
        let from = after.map_or(Unbounded, Excluded);
        let (down, (peer, sid)) = self.subscribed.range((from, Unbounded)).next()?;
        self.sampled = Round::Subscribed(Some(*down));
        let sample = self.media.subscribe_counters(*down).map(|counters| TrackSample {
            track: sid.clone(),
            direction: Direction::Subscribe,
            last: false,
            counters,
        });
        Some((*peer, sample))
    }
}
