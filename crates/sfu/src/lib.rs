//! The selective forwarding unit: rooms, participants, tracks and the packets between them, without a socket or a clock.
//!
//! [`Sfu`] is driven like every core: commands and datagrams go in with `handle_*`, signals, events and the next
//! deadline come out of [`Sfu::poll_output`], packets out of the caller's `SendBatch`. Inside, each room is a value of
//! its own: signalling in `room` and `peer`, RTP and RTCP in `media`.

mod codec;
mod config;
mod ctx;
mod demux;
mod drain;
pub mod envelope;
#[doc(hidden)]
pub mod fuzzing;
mod handshakes;
pub mod input;
pub mod limits;
mod media;
pub mod model;
pub mod output;
mod peer;
mod room;
mod sampling;
mod sfu;
mod spec;
#[cfg(test)]
mod testing;
mod timers;
mod tracks;

pub use config::{SfuConfig, TextLimits};
pub use sfu::{Sfu, SfuCounters, SfuLoad};
