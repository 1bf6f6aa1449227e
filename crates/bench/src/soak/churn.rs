//! People who join, send video and go, until the server is dead.

use super::ledger::Room;
use crate::Failure;
use crate::crowd::Crowd;
use crate::payload::Medium;
use crate::server::Server;
use crate::websocket::WebSocket;
use fanlight_base::Random;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Who come together.
const WAVE: u64 = 3;
const STAY_MS: u64 = 300;

/// Gives how many were connected. What goes wrong while the server dies is what is wanted; before that, the next wave comes.
pub(super) fn run(server: &Server, room: &Room, over: &AtomicBool, random: &mut Random) -> u64 {
    let (mut wave, mut connected) = (0, 0);
    while !over.load(Ordering::Acquire) {
        wave += 1;
        match come_and_go(server, room, wave, random) {
            Ok(people) => connected += people,
            // Of a server that is on its way out, the listener is closed already.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    connected
}

fn come_and_go(server: &Server, room: &Room, wave: u64, random: &mut Random) -> Result<u64, Failure> {
    let mut crowd = Crowd::new()?;
    let people = 1 + random.below(WAVE);
    for person in 0..people {
        let identity = format!("wave-{wave}-{person}");
        crowd.add_single(|offer| WebSocket::join_single(server.address, &room.name, &identity, offer))?;
    }
    crowd.run(Duration::from_millis(random.below(STAY_MS)))?;
    let connected = people - crowd.connecting() as u64;
    if connected == people {
        crowd.publish(0, Medium::Video, 1)?;
        crowd.run(Duration::from_millis(random.below(STAY_MS)))?;
    }
    Ok(connected)
}
