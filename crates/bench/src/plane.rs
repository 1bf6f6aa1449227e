//! `bench plane`: what the media plane costs per packet, without sockets.

use crate::Failure;
use crate::figures::{lower_quartile, median, print};
use crate::floor::Floor;
use crate::hall::{Datagram, Hall, Role};
use crate::payload::{FRAME_PACKETS, Medium};
use std::time::Duration;

/// Packets that one loop turn receives: a frame, as GRO delivers it.
const TURN_PACKETS: usize = FRAME_PACKETS as usize;
/// Turns of one sample at most.
const TURNS_MAX: usize = 500;
/// Virtual time of one sample at most: connectivity checks are answered between samples only, and consent to send ends
/// after 30 s (RFC 7675 §5.1).
const SAMPLE_NS_MAX: u64 = 4_000_000_000;
/// Frames of every track until everybody has to get all of them.
const FRAMES_TO_BEGIN: usize = 100;
/// Receivers have reported by then.
const REPORTED_NS: u64 = 4_000_000_000;
/// One of so many forwarded packets is opened and looked at. A prime near 1,000, so that all receivers have their turn.
const OPENED_EVERY: u64 = 997;
/// Samples of each case.
const ROUNDS_MAX: usize = 61;
const ROUNDS_MIN: usize = 9;
/// A case with many subscribers takes fewer samples, so that it forwards about this many packets.
const FORWARDED: usize = 8_000_000;
/// Forwarding everywhere costs at most this many times a seal.
const FORWARD_GOAL: f64 = 2.2;
const RECEIVE_GOAL: f64 = 2.6;
const SPREAD_GOAL: f64 = 1.35;

/// One measured room.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    medium: Medium,
    tracks: usize,
    subscribers: usize,
}

const CASES: &[Case] = &[
    Case { name: "subscribers_1", medium: Medium::Video, tracks: 1, subscribers: 1 },
    Case { name: "subscribers_10", medium: Medium::Video, tracks: 1, subscribers: 10 },
    Case { name: "subscribers_100", medium: Medium::Video, tracks: 1, subscribers: 100 },
    Case { name: "subscribers_1000", medium: Medium::Video, tracks: 1, subscribers: 1000 },
    Case { name: "mlines_1", medium: Medium::Video, tracks: 1, subscribers: 10 },
    Case { name: "mlines_50", medium: Medium::Video, tracks: 50, subscribers: 10 },
    Case { name: "mlines_100", medium: Medium::Video, tracks: 100, subscribers: 10 },
    Case { name: "audio.subscribers_10", medium: Medium::Audio, tracks: 1, subscribers: 10 },
    Case { name: "audio.subscribers_100", medium: Medium::Audio, tracks: 1, subscribers: 100 },
    Case { name: "audio.mlines_50", medium: Medium::Audio, tracks: 50, subscribers: 10 },
];

/// Figures of a case, in nanoseconds and as multiples of its seal.
struct Outcome {
    seal_ns: f64,
    receive_ns: f64,
    receive_ratio: f64,
    forward_ns: f64,
    forward_ratio: f64,
}

/// Measures all cases, or those whose name contains `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<(), Failure> {
    let (mut video, mut opened) = (Vec::new(), 0);
    for case in CASES.iter().filter(|case| filter.is_none_or(|filter| case.name.contains(filter))) {
        let (outcome, good) = measure(case)?;
        opened += good;
        print(&format!("plane.seal_ns.{}", case.name), outcome.seal_ns, "ns");
        print(&format!("plane.receive_ns.{}", case.name), outcome.receive_ns, "ns");
        print(&format!("plane.receive_ratio.{}", case.name), outcome.receive_ratio, "seals");
        print(&format!("plane.forward_ns.{}", case.name), outcome.forward_ns, "ns");
        print(&format!("plane.forward_ratio.{}", case.name), outcome.forward_ratio, "seals");
        if case.medium == Medium::Video {
            video.push(outcome);
        }
    }
    let column = |of: fn(&Outcome) -> f64| video.iter().map(of).collect::<Vec<f64>>();
    let most = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max);
    let least = |values: Vec<f64>| values.into_iter().fold(f64::MAX, f64::min);
    print("plane.opened", opened as f64, "packets");
    if !video.is_empty() {
        print("plane.seal_ns", median(column(|it| it.seal_ns)), "ns");
        print("plane.receive_ns", median(column(|it| it.receive_ns)), "ns");
        print("plane.receive_ratio.max", most(column(|it| it.receive_ratio)), "seals");
        print("plane.receive_ratio.goal", RECEIVE_GOAL, "seals");
        print("plane.forward_ratio.max", most(column(|it| it.forward_ratio)), "seals");
        print("plane.forward_ratio.goal", FORWARD_GOAL, "seals");
        let ratios = column(|it| it.forward_ratio);
        print("plane.forward_spread", most(ratios.clone()) / least(ratios), "max/min");
        print("plane.forward_spread.goal", SPREAD_GOAL, "max/min");
    }
    Ok(())
}

fn measure(case: &Case) -> Result<(Outcome, u64), Failure> {
    let mut floor = Floor::new(case.medium.bytes())?;
    let mut none = Scene::new(case, 0)?;
    let mut full = Scene::new(case, case.subscribers)?;
    let forwarded = full.turns() * TURN_PACKETS * case.subscribers;
    let rounds = (FORWARDED / forwarded).clamp(ROUNDS_MIN, ROUNDS_MAX);
    let mut samples: [Vec<f64>; 3] = Default::default();
    for round in 0..=rounds {
        let values = [floor.sample(&mut full.hall.watch)?, none.sample()?, full.sample()?];
        // The first one warms up.
        if round > 0 {
            samples.iter_mut().zip(values).for_each(|(samples, value)| samples.push(value));
        }
    }
    let good = full.judge(case)?;
    // Whoever else runs on the machine only ever adds, to the caches' misses if not to the time.
    let [seal_ns, receive_ns, full_ns] = samples.map(lower_quartile);
    let forward_ns = (full_ns - receive_ns) / case.subscribers as f64;
    let (receive_ratio, forward_ratio) = (receive_ns / seal_ns, forward_ns / seal_ns);
    Ok((Outcome { seal_ns, receive_ns, receive_ratio, forward_ns, forward_ratio }, good))
}

/// A room whose tracks all flow.
struct Scene {
    hall: Hall,
    medium: Medium,
    tracks: usize,
    subscribers: usize,
    /// Packets sent to the room in measured turns.
    sent: u64,
    /// RTP packets that left it.
    forwarded: u64,
    to_open: u64,
    next_track: usize,
}

impl Scene {
    fn new(case: &Case, subscribers: usize) -> Result<Self, Failure> {
        let mut hall = Hall::new(case.medium)?;
        for _ in 0..case.tracks {
            hall.join(Role::Publisher { tracks: 1 })?;
        }
        hall.settle()?;
        for _ in 0..subscribers {
            hall.join(Role::Subscriber)?;
        }
        hall.settle()?;
        let (medium, tracks) = (case.medium, case.tracks);
        let mut scene = Self {
            hall,
            medium,
            tracks,
            subscribers,
            sent: 0,
            forwarded: 0,
            to_open: OPENED_EVERY,
            next_track: 0,
        };
        scene.begin()?;
        Ok(scene)
    }

    /// Tracks flow until everybody gets all of them; the receivers' reports arrive too.
    fn begin(&mut self) -> Result<(), Failure> {
        let every = (self.tracks * self.subscribers) as u64;
        for _ in 0..FRAMES_TO_BEGIN {
            let before = self.heard();
            for _ in 0..FRAME_PACKETS {
                for track in 0..self.tracks {
                    self.write(track)?;
                }
                self.hall.pass(Duration::from_nanos(self.medium.spacing_ns()))?;
            }
            self.hall.pass(Duration::from_millis(100))?;
            if self.heard() - before == every * FRAME_PACKETS && self.hall.now().mono_ns > REPORTED_NS {
                self.hall.quiet = true;
                return Ok(());
            }
        }
        let streams = self.hall.participants.iter().map(|it| it.streams()).sum::<usize>();
        Err(format!("{streams} of {every} streams flow").into())
    }

    fn heard(&self) -> u64 {
        self.hall.participants.iter().map(|it| it.witness.good).sum()
    }

    /// Virtual time of a turn: as long as the tracks take to send its packets.
    fn step_ns(&self) -> u64 {
        self.medium.spacing_ns() * TURN_PACKETS as u64 / self.tracks as u64
    }

    /// Turns of a sample.
    fn turns(&self) -> usize {
        TURNS_MAX.min((SAMPLE_NS_MAX / self.step_ns()) as usize)
    }

    /// Nanoseconds per packet received, over a sample of turns.
    fn sample(&mut self) -> Result<f64, Failure> {
        // What the publishers send is sealed beforehand, at the times at which it will be sent.
        let step_ns = self.step_ns();
        let begin_ns = self.hall.now().mono_ns;
        let mut turns: Vec<(u64, Vec<Datagram>)> = Vec::with_capacity(TURNS_MAX);
        let anchor = self.hall.instant();
        for turn in 1..=self.turns() as u64 {
            let at = anchor + Duration::from_nanos(turn * step_ns);
            turns.push((begin_ns + turn * step_ns, self.seal_turn(at)?));
        }
        self.hall.watch.take();
        let mut received: Vec<Datagram> = (0..TURN_PACKETS)
            .map(|_| Datagram { from: self.hall.server, bytes: Vec::with_capacity(2_048) })
            .collect();
        let mut packets = 0;
        for (at_ns, arrived) in &turns {
            self.hall.set_time(*at_ns);
            // As the kernel does, into a buffer that is used again and again.
            for (to, from) in received.iter_mut().zip(arrived) {
                to.from = from.from;
                to.bytes.clone_from(&from.bytes);
            }
            let count = arrived.len().min(received.len());
            packets += count;
            let to_open = &mut self.to_open;
            self.forwarded += self.hall.turn(received.get_mut(..count).unwrap_or_default(), || {
                *to_open -= 1;
                let open = *to_open == 0;
                if open {
                    *to_open = OPENED_EVERY;
                }
                open
            });
        }
        let total_ns = self.hall.watch.take();
        self.sent += packets as u64;
        self.hall.pass(Duration::from_millis(100))?;
        Ok(total_ns as f64 / packets as f64)
    }

    /// The packets of one turn, of one track after the other.
    fn seal_turn(&mut self, at: std::time::Instant) -> Result<Vec<Datagram>, Failure> {
        for _ in 0..TURN_PACKETS {
            let track = self.next_track;
            self.next_track = (track + 1) % self.tracks;
            self.write_at(track, at)?;
        }
        self.hall.advance_publishers(at)?;
        Ok(self.hall.take_rtp())
    }

    fn write(&mut self, track: usize) -> Result<(), Failure> {
        let at = self.hall.instant();
        self.write_at(track, at)
    }

    fn write_at(&mut self, track: usize, at: std::time::Instant) -> Result<(), Failure> {
        let participant = self.hall.participants.get_mut(track).ok_or("no such publisher")?;
        let publisher = participant.publisher.as_mut().ok_or("does not publish")?;
        publisher.write(at, 0, track as u32)?;
        Ok(())
    }

    /// Everything was forwarded to everybody, and what was opened was what had been sent.
    fn judge(&self, case: &Case) -> Result<u64, Failure> {
        let expected = self.sent * self.subscribers as u64;
        if self.forwarded != expected {
            return Err(format!("{}: {} of {expected} packets forwarded", case.name, self.forwarded).into());
        }
        let (mut good, mut bad) = (0, 0);
        for participant in &self.hall.participants {
            good += participant.witness.good;
            bad += participant.witness.bad;
        }
        let least = expected / OPENED_EVERY;
        if bad > 0 || good < least {
            return Err(format!("{}: of {least} samples {good} were right, {bad} wrong", case.name).into());
        }
        Ok(good)
    }
}
