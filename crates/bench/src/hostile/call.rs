//! The honest call: two rooms, one for each media thread, in which everybody sends sound and video to everybody.

use super::target::Site;
use crate::Failure;
use crate::crowd::Crowd;
use crate::figures::percentile;
use crate::payload::{FRAME_PACKETS, Medium};
use crate::websocket::WebSocket;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const ROOMS: usize = 2;
const ROOM_MEMBERS: usize = 3;
/// Tracks of a member, in the order in which it publishes them.
const TRACKS: [(Medium, u64, Duration); 2] = [
    (Medium::Audio, 1, Duration::from_millis(20)),
    (Medium::Video, FRAME_PACKETS, Duration::from_micros(33_333)),
];
const PING_EVERY: Duration = Duration::from_millis(500);
/// Every track has reached everybody within this, or the call has failed.
const FLOW_MAX: Duration = Duration::from_secs(20);

/// The name of a room of the call.
pub(super) fn room(number: usize) -> String {
    format!("call-{number}")
}

pub(super) struct Call {
    crowd: Crowd<WebSocket>,
    /// When each track sends next, by member and track.
    due: Vec<Instant>,
    pings_due: Instant,
    /// Packets of the window by track and number, while one is open.
    sent: FxHashMap<(u32, u64), Sent>,
    is_counting: bool,
    delays_ms: Vec<f64>,
    /// Pings so far, and those that had no answer before the window.
    pings: u64,
    open_before: u64,
    is_settling: bool,
    /// Members that were gone before the window.
    gone_before: usize,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    /// Others in the room that have it.
    reached: usize,
}

/// What the call has gone through in a while.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    /// From the sender's socket to the receiver's, in milliseconds.
    pub(super) p99_ms: f64,
    pub(super) worst_ms: f64,
    /// Packets that should have reached somebody, and those that did not.
    pub(super) expected: u64,
    pub(super) lost: u64,
    /// Members whose WebSocket or connection ended.
    pub(super) closed: usize,
    /// Pings over WebSocket that were not answered.
    pub(super) unanswered: u64,
    /// Why the first of those who are gone is.
    pub(super) reason: Option<String>,
}

impl Call {
    /// All rooms, with every track flowing to everybody.
    pub(super) fn start(site: &Site) -> Result<Self, Failure> {
        let mut crowd = Crowd::new()?;
        // Whoever comes first in a room takes the least loaded media thread for it: rooms begin in turn.
        for member in 0..ROOM_MEMBERS {
            for number in 0..ROOMS {
                let identity = format!("honest-{member}");
                let line = WebSocket::join_dual(site.server.address, &room(number), &identity)?;
                crowd.add_dual(line, true, true)?;
                crowd.run_until(|crowd| crowd.connecting() == 0)?;
            }
        }
        for (medium, ..) in TRACKS {
            for member in 0..ROOMS * ROOM_MEMBERS {
                crowd.publish(member, medium, 1)?;
                crowd.run_until(|crowd| crowd.connecting() == 0)?;
            }
        }
        crowd.keep_arrivals();
        let now = Instant::now();
        let tracks = ROOMS * ROOM_MEMBERS * TRACKS.len();
        // Spread over a frame's time, as senders are who know nothing of each other.
        let due = (0..tracks).map(|track| now + TRACKS[1].2 * track as u32 / tracks as u32).collect();
        let mut call = Self {
            crowd,
            due,
            pings_due: now,
            sent: FxHashMap::default(),
            is_counting: false,
            delays_ms: Vec::new(),
            pings: 0,
            open_before: 0,
            is_settling: false,
            gone_before: 0,
        };
        call.flow()?;
        call.check_threads(site)?;
        call.crowd.forgiving = true;
        Ok(call)
    }

    /// Sends until everybody receives every track.
    fn flow(&mut self) -> Result<(), Failure> {
        let wanted = ROOMS * ROOM_MEMBERS * (ROOM_MEMBERS - 1) * TRACKS.len();
        let started = Instant::now();
        while self.crowd.streams() < wanted {
            if started.elapsed() > FLOW_MAX {
                return Err(format!("{} of {wanted} tracks flow", self.crowd.streams()).into());
            }
            self.run(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Each room has a media thread of its own.
    fn check_threads(&self, site: &Site) -> Result<(), Failure> {
        let remotes = self.crowd.remotes();
        let mut threads: Vec<_> =
            site.server.media.iter().map(|media| remotes.iter().filter(|it| *it == media).count()).collect();
        threads.sort_unstable();
        if threads.ends_with(&[2 * ROOM_MEMBERS; ROOMS]) {
            Ok(())
        } else {
            Err(format!("connections of the media threads: {threads:?}").into())
        }
    }

    /// Where its members send from and receive.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.crowd.addresses()
    }

    /// What is sent from now on counts.
    pub(super) fn begin(&mut self) {
        self.sent.clear();
        self.delays_ms.clear();
        self.is_counting = true;
        self.open_before = self.pings.saturating_sub(self.crowd.pongs());
        self.gone_before = self.gone().count();
    }

    /// What was sent until now is all that counts; who has to get something again has so much time for it.
    pub(super) fn end(&mut self, grace: Duration) -> Result<Window, Failure> {
        self.is_counting = false;
        self.is_settling = true;
        self.run(grace)?;
        self.is_settling = false;
        let others = (ROOM_MEMBERS - 1) as u64;
        let reached: u64 = self.sent.values().map(|sent| sent.reached as u64).sum();
        let expected = self.sent.len() as u64 * others;
        let delays = std::mem::take(&mut self.delays_ms);
        Ok(Window {
            p99_ms: percentile(delays.clone(), 99),
            worst_ms: percentile(delays, 100),
            expected,
            lost: expected.saturating_sub(reached),
            closed: self.gone().count() - self.gone_before,
            unanswered: self.pings.saturating_sub(self.crowd.pongs()).saturating_sub(self.open_before),
            reason: self.gone().next().map(str::to_owned),
        })
    }

    fn gone(&self) -> impl Iterator<Item = &str> {
        (0..ROOMS * ROOM_MEMBERS).filter_map(|member| self.crowd.gone(member))
    }

    /// Goes on with the call.
    pub(super) fn run(&mut self, time: Duration) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < time {
            self.send_due();
            self.ping_due();
            self.crowd.turn()?;
            self.count_arrivals();
        }
        Ok(())
    }

    fn send_due(&mut self) {
        for place in 0..self.due.len() {
            let (member, track) = (place / TRACKS.len(), place % TRACKS.len());
            let (_, packets, spacing) = TRACKS[track];
            let now = Instant::now();
            if self.due[place] > now || self.crowd.gone(member).is_some() {
                continue;
            }
            self.due[place] += spacing;
            if self.due[place] + spacing < now {
                // A sender that was held up sends what it has now, not all that it missed.
                self.due[place] = now;
            }
            // Of one whose connection has just ended nothing more is sent.
            let Ok((at, first)) = self.crowd.send(member, track, place as u32, packets) else { continue };
            if self.is_counting {
                let numbers = first..first + packets;
                self.sent.extend(numbers.map(|number| ((place as u32, number), Sent { at, reached: 0 })));
            }
        }
    }

    fn ping_due(&mut self) {
        if self.is_settling || self.pings_due > Instant::now() {
            return;
        }
        self.pings_due = Instant::now() + PING_EVERY;
        for member in 0..ROOMS * ROOM_MEMBERS {
            let is_here = self.crowd.gone(member).is_none();
            if is_here && self.crowd.line(member).is_some_and(|line| line.ping().is_ok()) {
                self.pings += 1;
            }
        }
    }

    fn count_arrivals(&mut self) {
        for (_, arrivals) in self.crowd.take_arrivals() {
            for arrival in arrivals {
                if let Some(sent) = self.sent.get_mut(&(arrival.track, arrival.number)) {
                    sent.reached += 1;
                    let delay = arrival.at.saturating_duration_since(sent.at);
                    self.delays_ms.push(delay.as_secs_f64() * 1e3);
                }
            }
        }
    }
}
