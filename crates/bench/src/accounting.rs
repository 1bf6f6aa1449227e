//! `bench accounting`: what the accounting for TURN costs, in processor time for an event and in memory for an allocation.

use crate::Failure;
use crate::cpu::Stopwatch;
use crate::figures::{lower_quartile, print};
use crate::process::resident_bytes;
use fanlight_base::Random;
use fanlight_telemetry::decode::coturn::{Message, read};
use fanlight_telemetry::turn_account::{
    AllocationName, Leg, LegCounters, Output, Path, Settings, TurnAccount, TurnEvent,
};
use std::hint::black_box;
use std::process::Command;

const PARTS: &[&str] = &["ended", "open", "speed"];
/// Allocations that are open while it measures, each of a user of its own.
const OPEN: u64 = 100_000;
/// Events between two drains: as many as the store's thread takes in a turn.
const TURN_EVENTS: usize = 1_024;
/// Virtual time of a turn.
const TURN_MS: u64 = 10;
/// Turns of a sample.
const SAMPLE_TURNS: usize = 200;
const SAMPLES: usize = 13;
/// Allocations made and ended to see whether anything stays behind, after [`WARM_UP`] of them.
const ENDED: u64 = 1_000_000;
const WARM_UP: u64 = 1_000_000;
/// So many of them live and end within [`BETWEEN_MS`].
const ENDING_AT_ONCE: u64 = 1_000;
const BETWEEN_MS: u64 = 100;
/// An hour and a half: the last allocation that was lost is forgotten.
const FORGOTTEN_MS: u64 = 5_400_000;
const NODE: &str = "203.0.113.10:3478#0";
const LIFETIME_S: u32 = 600;
const EVENTS_GOAL: f64 = 1_000_000.0;
const OPEN_GOAL: f64 = 1_000.0;

/// All figures, each part in a process of its own: what one has freed would hide what the next one takes.
pub(crate) fn run() -> Result<(), Failure> {
    for part in PARTS {
        let status = Command::new(std::env::current_exe()?).args(["accounting", part]).status()?;
        if !status.success() {
            return Err(format!("{part} failed").into());
        }
    }
    Ok(())
}

/// One part of the figures.
pub(crate) fn run_part(part: &str) -> Result<(), Failure> {
    match part {
        "open" => open(),
        "speed" => speed(),
        "ended" => ended(),
        _ => Err(format!("accounting {}", PARTS.join("|")).into()),
    }
}

/// Memory of open allocations.
fn open() -> Result<(), Failure> {
    let mut world = World::new();
    let before = resident_bytes(std::process::id())?;
    world.open(0..OPEN);
    let grown = resident_bytes(std::process::id())? - before;
    print("accounting.open_allocations", OPEN as f64, "allocations");
    print("accounting.open_bytes", grown / OPEN as f64, "bytes");
    print("accounting.open_bytes.goal", OPEN_GOAL, "bytes");
    Ok(())
}

/// Processor time of events while so many are open.
fn speed() -> Result<(), Failure> {
    let mut world = World::new();
    world.open(0..OPEN);
    let traffic = world.events_per_second(World::traffic_turn);
    print("accounting.traffic.events_per_second", traffic, "events/s");
    let lives = world.events_per_second(World::lives_turn);
    print("accounting.lives.events_per_second", lives, "events/s");
    let mixed = world.events_per_second(World::mixed_turn);
    print("accounting.events_per_second", mixed, "events/s");
    print("accounting.events_per_second.goal", EVENTS_GOAL, "events/s");
    print("accounting.decode_ns", decode_ns()?, "ns");
    Ok(())
}

/// Memory after [`ENDED`] allocations made and ended, less that before.
fn ended() -> Result<(), Failure> {
    let mut world = World::new();
    world.live_and_end(WARM_UP);
    let before = resident_bytes(std::process::id())?;
    world.live_and_end(ENDED);
    let after = resident_bytes(std::process::id())?;
    let open = world.account.open_allocations().count();
    if open > 0 {
        return Err(format!("{open} allocations are open after their end").into());
    }
    print("accounting.ended", ENDED as f64, "allocations");
    print("accounting.ended.before_bytes", before, "bytes");
    print("accounting.ended.after_bytes", after, "bytes");
    print("accounting.ended.growth_bytes", (after - before) / ENDED as f64, "bytes");
    Ok(())
}

/// Reading one of coturn's messages, before it is an event.
fn decode_ns() -> Result<f64, Failure> {
    let channel =
        "turn/realm/example.org/user/1795231283:PA_J7mXq2Zk9LpQ/allocation/002000000000000017/traffic/peer";
    let payload = "rcvp=2048, rcvb=1048576, sentp=2048, sentb=1048576";
    let mut watch = Stopwatch::new();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        watch.start();
        for _ in 0..TURN_EVENTS {
            let message = read(black_box(channel), black_box(payload));
            if !matches!(black_box(message), Ok(Message::Event(..))) {
                return Err("coturn's message was not read".into());
            }
        }
        watch.stop();
        samples.push(watch.take() as f64 / TURN_EVENTS as f64);
    }
    Ok(lower_quartile(samples))
}

struct World {
    account: TurnAccount,
    random: Random,
    watch: Stopwatch,
    ms: u64,
    next: u64,
    drained: u64,
}

impl World {
    fn new() -> Self {
        Self {
            account: TurnAccount::new(Settings::default(), 1),
            random: Random::from_seed([7; 32]),
            watch: Stopwatch::new(),
            ms: 1_795_231_000_000,
            next: OPEN,
            drained: 0,
        }
    }

    fn open(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.account.handle_event(self.ms, Some(NODE), &name(number), opened(number));
            if number % 1_000 == 999 {
                self.pass(TURN_MS);
            }
        }
        self.pass(TURN_MS);
    }

    /// Lets time pass and takes what there is to tell.
    fn pass(&mut self, ms: u64) {
        self.ms += ms;
        self.account.handle_timeout(self.ms);
        loop {
            match self.account.poll_output() {
                Output::Timeout(_) => return,
                output => self.drained += u64::from(black_box(output) != Output::Timeout(0)),
            }
        }
    }

    /// By the lower quartile of the samples' time: whoever else runs on the machine only adds. A turn's events are made
    /// before it is timed.
    fn events_per_second(&mut self, turn: fn(&mut Self) -> Vec<(AllocationName, TurnEvent)>) -> f64 {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            let mut events = 0;
            for _ in 0..SAMPLE_TURNS {
                let turn = turn(self);
                events += turn.len();
                self.watch.start();
                for (name, event) in turn {
                    self.account.handle_event(self.ms, Some(NODE), &name, event);
                }
                self.pass(TURN_MS);
                self.watch.stop();
            }
            samples.push(self.watch.take() as f64 / events as f64);
        }
        1e9 / lower_quartile(samples)
    }

    /// What coturn says of relays in use: both legs of one allocation, one after the other.
    fn traffic_turn(&mut self) -> Vec<(AllocationName, TurnEvent)> {
        let mut events = Vec::with_capacity(TURN_EVENTS);
        while events.len() < TURN_EVENTS {
            let number = self.random.below(OPEN);
            let bytes = 100_000 + self.random.below(4_000_000);
            events.push((name(number), TurnEvent::Traffic(Leg::Client, leg(bytes + 40_000))));
            events.push((name(number), TurnEvent::Traffic(Leg::Peer, leg(bytes))));
        }
        events
    }

    /// Short lives, all said at once: opening, traffic, release, end and totals, eight events each.
    fn lives_turn(&mut self) -> Vec<(AllocationName, TurnEvent)> {
        let mut events = Vec::with_capacity(TURN_EVENTS);
        while events.len() < TURN_EVENTS {
            events.extend(life(self.next));
            self.next += 1;
        }
        events
    }

    /// A busy server: of sixteen events fourteen are traffic and two refreshes, and one allocation lives and ends in 64.
    fn mixed_turn(&mut self) -> Vec<(AllocationName, TurnEvent)> {
        let mut events = Vec::with_capacity(TURN_EVENTS + 8);
        while events.len() < TURN_EVENTS {
            for _ in 0..4 {
                for _ in 0..7 {
                    let number = self.random.below(OPEN);
                    let bytes = 100_000 + self.random.below(4_000_000);
                    events.push((name(number), TurnEvent::Traffic(Leg::Client, leg(bytes + 40_000))));
                    events.push((name(number), TurnEvent::Traffic(Leg::Peer, leg(bytes))));
                }
                for _ in 0..2 {
                    let number = self.random.below(OPEN);
                    events.push((name(number), refreshed(number, LIFETIME_S)));
                }
            }
            events.extend(life(self.next));
            self.next += 1;
        }
        events
    }

    fn live_and_end(&mut self, allocations: u64) {
        for number in 0..allocations {
            for (name, event) in life(self.next + number) {
                self.account.handle_event(self.ms, Some(NODE), &name, event);
            }
            if number % ENDING_AT_ONCE == 0 {
                self.pass(BETWEEN_MS);
            }
        }
        self.next += allocations;
        self.pass(FORGOTTEN_MS);
    }
}

/// All that is said of an allocation of a short call.
fn life(number: u64) -> [(AllocationName, TurnEvent); 8] {
    let events = [
        opened(number),
        TurnEvent::Traffic(Leg::Client, leg(1_040_000)),
        TurnEvent::Traffic(Leg::Peer, leg(1_000_000)),
        refreshed(number, LIFETIME_S),
        refreshed(number, 0),
        TurnEvent::Deleted,
        TurnEvent::Total(Leg::Client, leg(1_240_000)),
        TurnEvent::Total(Leg::Peer, leg(1_200_000)),
    ];
    events.map(|event| (name(number), event))
}

/// As coturn has it for a participant of ours.
fn name(number: u64) -> AllocationName {
    AllocationName {
        realm: "example.org".into(),
        user: format!("1795231283:PA_{number:012}").into(),
        id: 2_000_000_000_000_000 + number + 1,
    }
}

fn path(number: u64) -> Path {
    let [.., a, b, c] = number.to_be_bytes();
    Path {
        transport: "UDP".into(),
        local: "203.0.113.10:3478".into(),
        remote: format!("10.{a}.{b}.{c}:{}", 49_152 + number % 16_384).into(),
        ..Path::default()
    }
}

fn opened(number: u64) -> TurnEvent {
    TurnEvent::Opened { lifetime_s: LIFETIME_S, path: path(number) }
}

fn refreshed(number: u64, lifetime_s: u32) -> TurnEvent {
    TurnEvent::Refreshed { lifetime_s, path: path(number) }
}

fn leg(bytes: u64) -> LegCounters {
    let packets = bytes / 1_000;
    LegCounters { rx_packets: packets, rx_bytes: bytes, tx_packets: packets / 50, tx_bytes: packets * 2 }
}
