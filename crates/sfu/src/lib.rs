//! The selective forwarding unit: rooms, participants, tracks and the packets between them, without a socket or a clock.

pub mod envelope;
pub mod input;
pub mod model;
pub mod output;
