//! What must be true of every run.

mod bytes;
mod data;
mod media;
mod nonces;
#[cfg(test)]
mod tests;

use crate::outcome::{Outcome, Seen};

/// Everything that is wrong with a run; empty when nothing is.
pub fn check(run: &Outcome) -> Vec<String> {
    let mut faults = Vec::new();
    media::isolation(run, &mut faults);
    media::arrival(run, &mut faults);
    media::continuity(run, &mut faults);
    bytes::conservation(run, &mut faults);
    nonces::uniqueness(run, &mut faults);
    data::delivery(run, &mut faults);
    faults
}

fn name(client: &Seen) -> String {
    format!("client {} of room {}", client.number, client.room)
}

/// Everybody else in the room of `client`.
fn others<'a>(run: &'a Outcome, client: &'a Seen) -> impl Iterator<Item = &'a Seen> {
    run.clients.iter().filter(|other| other.room == client.room && other.number != client.number)
}
