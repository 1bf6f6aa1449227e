//! `bench joins`: what it costs the real server to let a participant in.

use crate::Failure;
use crate::crowd::Crowd;
use crate::figures::print;
use crate::process::Cpu;
use crate::server::Server;
use crate::websocket::WebSocket;
use std::time::{Duration, Instant};

/// Participants of one room, and rooms.
const ROOM_PARTICIPANTS: usize = 10;
const ROOMS: usize = 50;
/// Joins before the measurement: the server's allocator, threads and record are warm then.
const WARM_UP_ROOMS: usize = 3;
/// Joins under way at a time.
const CONCURRENT_MAX: usize = 16;
/// What follows a join (updates to the others, the record) is its cost too.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn run() -> Result<(), Failure> {
    let server = Server::start()?;
    let mut crowd = Crowd::new()?;
    fill(&server, &mut crowd, "warm", WARM_UP_ROOMS, ROOM_PARTICIPANTS)?;
    crowd.run(SETTLE)?;
    let (idle_cpu, idle_s) = idle(&server, &mut crowd)?;
    let before = Cpu::of_threads(server.pid, "")?;
    let shards_before = Cpu::of_threads(server.pid, "shard-")?;
    let started = Instant::now();
    fill(&server, &mut crowd, "room", ROOMS, ROOM_PARTICIPANTS)?;
    let joined_s = started.elapsed().as_secs_f64();
    crowd.run(SETTLE)?;
    let spent = Cpu::of_threads(server.pid, "")?.since(&before);
    let shards = Cpu::of_threads(server.pid, "shard-")?.since(&shards_before);
    let joins = (ROOMS * ROOM_PARTICIPANTS) as f64;
    let (user_s, kernel_s) = spent.split();
    print("joins.participants", joins, "joins");
    print("joins.per_cpu_second", joins / spent.total_s, "joins/CPU s");
    print("joins.cpu_us", spent.total_s / joins * 1e6, "µs");
    print("joins.cpu_us.user", user_s / joins * 1e6, "µs");
    print("joins.cpu_us.kernel", kernel_s / joins * 1e6, "µs");
    print("joins.cpu_us.shards", shards.total_s / joins * 1e6, "µs");
    print("joins.per_second", joins / joined_s, "joins/s");
    print("joins.idle_cpu_percent", idle_cpu / idle_s * 100.0, "%");
    Ok(())
}

/// So many rooms of so many participants, all of them connected.
pub(crate) fn fill(
    server: &Server,
    crowd: &mut Crowd<WebSocket>,
    name: &str,
    rooms: usize,
    participants: usize,
) -> Result<(), Failure> {
    for room in 0..rooms {
        let room = format!("{name}-{room}");
        for participant in 0..participants {
            let identity = format!("participant-{participant}");
            crowd.add_single(|offer| WebSocket::join_single(server.address, &room, &identity, offer))?;
            crowd.run_until(|crowd| crowd.connecting() < CONCURRENT_MAX)?;
        }
    }
    crowd.run_until(|crowd| crowd.connecting() == 0)
}

/// What the server does while nobody does anything, which no join is to blame for.
fn idle(server: &Server, crowd: &mut Crowd<WebSocket>) -> Result<(f64, f64), Failure> {
    let (before, started) = (Cpu::of_threads(server.pid, "")?, Instant::now());
    crowd.run(SETTLE)?;
    let spent = Cpu::of_threads(server.pid, "")?.since(&before);
    Ok((spent.total_s, started.elapsed().as_secs_f64()))
}
