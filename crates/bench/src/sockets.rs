//! `bench sockets`: what a forwarded packet costs through the real media thread and real sockets on loopback.

use crate::Failure;
use crate::crowd::{Crowd, Line};
use crate::figures::print;
use crate::floor::Floor;
use crate::payload::{FRAME_PACKETS, Medium};
use crate::process::Cpu;
use crate::stage::{Stage, THREAD};
use crate::udp::Udp;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Publishers of one track each, and subscribers to all of them.
const PUBLISHERS: usize = 10;
const SUBSCRIBERS: usize = 40;
/// Each publisher sends a frame so often; their frames are spread evenly over it.
const FRAME_TIME: Duration = Duration::from_nanos(33_333_333);
/// Frames of every publisher before the measurement: subscriptions are negotiated and key frames asked for.
const WARM_UP: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(10);
/// Part of the packets that may miss, or be too many, in a run that counts.
const OFF_MAX: f64 = 0.01;
const FLOOR_THREAD: &str = "bench-floor";

pub(crate) fn run() -> Result<(), Failure> {
    let mut stage = Stage::start(PUBLISHERS + SUBSCRIBERS)?;
    let mut crowd = Crowd::new()?;
    for number in 0..PUBLISHERS + SUBSCRIBERS {
        let publishes = number < PUBLISHERS;
        let line = stage.join(number, !publishes)?;
        crowd.add_dual(line, publishes, !publishes)?;
        crowd.run_until(|crowd| crowd.connecting() == 0)?;
    }
    for number in 0..PUBLISHERS {
        crowd.publish(number, Medium::Video, 1)?;
    }
    crowd.run_until(|crowd| crowd.connecting() == 0)?;
    play(&mut crowd, WARM_UP)?;
    crowd.samples = true;
    play(&mut crowd, FRAME_TIME * 10)?;
    measure(&stage, &mut crowd)?;
    floor(&mut crowd)?;
    if stage.shard.stop() { Ok(()) } else { Err("the media thread panicked".into()) }
}

fn measure(stage: &Stage, crowd: &mut Crowd<impl Line>) -> Result<(), Failure> {
    let own = std::process::id();
    let (received, counters) = (crowd.received, stage.shard.counters.snapshot());
    let before = Cpu::of_threads(own, THREAD)?;
    let frames = play(crowd, MEASURED)?;
    let spent = Cpu::of_threads(own, THREAD)?.since(&before);
    let after = stage.shard.counters.snapshot();
    crowd.run(FRAME_TIME)?;
    let expected = (frames * FRAME_PACKETS * SUBSCRIBERS as u64) as f64;
    let packets = (crowd.received.packets - received.packets) as f64;
    let runs = (crowd.received.runs - received.runs) as f64;
    let (good, bad) = crowd.opened();
    if bad > 0 || (packets / expected - 1.0).abs() > OFF_MAX {
        return Err(
            format!("{packets} of {expected} packets arrived; {bad} of {} were wrong", good + bad).into()
        );
    }
    let (user_s, kernel_s) = spent.split();
    let each = |seconds: f64| seconds / packets * 1e6;
    print("sockets.packets_per_second", packets / MEASURED.as_secs_f64(), "packets/s");
    print("sockets.cpu_us", each(spent.total_s), "µs");
    print("sockets.cpu_us.user", each(user_s), "µs");
    print("sockets.cpu_us.kernel", each(kernel_s), "µs");
    print("sockets.cpu_percent", spent.total_s / MEASURED.as_secs_f64() * 100.0, "%");
    let ratio = |of: u64, by: u64| of as f64 / by.max(1) as f64;
    let sent = after.udp_packets_out - counters.udp_packets_out;
    print("sockets.gso_run", ratio(sent, after.udp_sends - counters.udp_sends), "packets/send");
    let came = after.udp_packets_in - counters.udp_packets_in;
    print("sockets.gro_run", ratio(came, after.udp_receives - counters.udp_receives), "packets/receive");
    print("sockets.gso_run.received", packets / runs, "packets/receive");
    print("sockets.turns_per_second", ratio(after.turns - counters.turns, MEASURED.as_secs()), "turns/s");
    print("sockets.kernel_drops", (after.udp_kernel_drops - counters.udp_kernel_drops) as f64, "packets");
    print("sockets.opened", good as f64, "packets");
    Ok(())
}

/// Publishers send for a while; how many frames that were comes back.
fn play(crowd: &mut Crowd<impl Line>, time: Duration) -> Result<u64, Failure> {
    let started = Instant::now();
    let (mut frames, step) = (0, FRAME_TIME / PUBLISHERS as u32);
    while started.elapsed() < time {
        while step * u32::try_from(frames)? < started.elapsed() {
            crowd.send_frame(frames as usize % PUBLISHERS, 1)?;
            frames += 1;
        }
        crowd.turn()?;
    }
    Ok(frames)
}

/// The same packets, at the same times and to the same receivers, sealed and sent by nothing but a loop.
fn floor(crowd: &mut Crowd<impl Line>) -> Result<(), Failure> {
    let receivers = crowd.subscriber_addresses();
    let before = Cpu::of_threads(std::process::id(), FLOOR_THREAD)?;
    let (send, done) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(FLOOR_THREAD.to_owned()).spawn(move || {
        let sent = flood(&receivers).map_err(|failure| failure.to_string());
        // The thread's time is read while it still stands there.
        let _ = send.send(sent);
        std::thread::park();
    })?;
    let sent = loop {
        crowd.turn()?;
        if let Ok(sent) = done.try_recv() {
            break sent?;
        }
    };
    let spent = Cpu::of_threads(std::process::id(), FLOOR_THREAD)?.since(&before);
    thread.thread().unpark();
    let (user_s, kernel_s) = spent.split();
    let each = |seconds: f64| seconds / sent as f64 * 1e6;
    print("sockets.floor_us", each(spent.total_s), "µs");
    print("sockets.floor_us.user", each(user_s), "µs");
    print("sockets.floor_us.kernel", each(kernel_s), "µs");
    Ok(())
}

fn flood(receivers: &[SocketAddr]) -> Result<u64, Failure> {
    let udp = Udp::new()?;
    let mut floor = Floor::new(Medium::Video.bytes())?;
    let (mut run, mut sent, mut frames) = (Vec::new(), 0, 0);
    let (started, step) = (Instant::now(), FRAME_TIME / PUBLISHERS as u32);
    while started.elapsed() < MEASURED {
        let due = step * frames;
        if let Some(wait) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(wait);
        }
        frames += 1;
        for receiver in receivers {
            run.clear();
            let mut bytes = 0;
            for _ in 0..FRAME_PACKETS {
                bytes = floor.seal_onto(&mut run)?;
            }
            udp.send(*receiver, &run, bytes)?;
            sent += FRAME_PACKETS;
        }
    }
    Ok(sent)
}
