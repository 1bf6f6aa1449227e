//! `bench memory`: what a participant and a subscription keep of the real server's memory.

use crate::Failure;
use crate::crowd::Crowd;
use crate::figures::print;
use crate::joins::fill;
use crate::payload::Medium;
use crate::process::resident_bytes;
use crate::server::Server;
use crate::websocket::WebSocket;
use std::time::{Duration, Instant};

/// Idle participants: so many in a room, so many rooms.
const ROOM_PARTICIPANTS: usize = 10;
const ROOMS: usize = 50;
/// One more room first, for what is needed once.
const WARM_UP_ROOMS: usize = 1;
/// Updates, reports and the record come to rest.
const SETTLE: Duration = Duration::from_secs(6);
/// Everybody is subscribed to everything within this, or it has failed.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(30);
const BETWEEN_FRAMES: Duration = Duration::from_millis(500);
/// Participants of the room with subscriptions, those of them that publish, and tracks of each.
const AUDIENCE: usize = 40;
const PUBLISHERS: usize = 10;
const TRACKS: usize = 4;
const PARTICIPANT_GOAL: f64 = 150_000.0;
const SUBSCRIPTION_GOAL: f64 = 10_000.0;

pub(crate) fn run() -> Result<(), Failure> {
    participants()?;
    subscriptions()
}

fn participants() -> Result<(), Failure> {
    let server = Server::start()?;
    let mut crowd = Crowd::new()?;
    print("memory.server_bytes", resident_bytes(server.pid)?, "bytes");
    fill(&server, &mut crowd, "warm", WARM_UP_ROOMS, ROOM_PARTICIPANTS)?;
    crowd.run(SETTLE)?;
    let before = resident_bytes(server.pid)?;
    fill(&server, &mut crowd, "room", ROOMS, ROOM_PARTICIPANTS)?;
    crowd.run(SETTLE)?;
    let grown = resident_bytes(server.pid)? - before;
    let participants = (ROOMS * ROOM_PARTICIPANTS) as f64;
    print("memory.participants", participants, "participants");
    print("memory.participant_bytes", grown / participants, "bytes");
    print("memory.participant_bytes.goal", PARTICIPANT_GOAL, "bytes");
    Ok(())
}

fn subscriptions() -> Result<(), Failure> {
    let server = Server::start()?;
    let mut crowd = Crowd::new()?;
    for member in 0..AUDIENCE {
        let socket = WebSocket::join_dual(server.address, "audience", &format!("participant-{member}"))?;
        crowd.add_dual(socket, member < PUBLISHERS, true)?;
        crowd.run_until(|crowd| crowd.connecting() == 0)?;
    }
    crowd.run(SETTLE)?;
    let before = resident_bytes(server.pid)?;
    for member in 0..PUBLISHERS {
        crowd.publish(member, Medium::Video, TRACKS)?;
    }
    crowd.run_until(|crowd| crowd.connecting() == 0)?;
    let expected = PUBLISHERS * TRACKS * (AUDIENCE - 1);
    // A track is offered to others when its first packet has come; a frame or two are all that ever flows.
    let started = Instant::now();
    while crowd.sections() < expected {
        if started.elapsed() > SUBSCRIBE_MAX {
            return Err(format!("{} of {expected} tracks offered", crowd.sections()).into());
        }
        (0..PUBLISHERS).try_for_each(|member| crowd.send_frame(member, TRACKS))?;
        crowd.run(BETWEEN_FRAMES)?;
    }
    crowd.run(SETTLE)?;
    let grown = resident_bytes(server.pid)? - before;
    print("memory.subscriptions", expected as f64, "subscriptions");
    print("memory.subscription_bytes", grown / expected as f64, "bytes");
    print("memory.subscription_bytes.goal", SUBSCRIPTION_GOAL, "bytes");
    Ok(())
}
