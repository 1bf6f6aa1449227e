//! The whole server core under a virtual clock, with a seeded network and clients on another WebRTC stack.
//!
//! One [`World`] holds one `Control`, one `Sfu` and any number of clients on `str0m`. Nothing in it reads a clock: a
//! run is a function of its [`Scenario`] and its seed. [`oracle`] says what must be true of every run.

#![expect(clippy::expect_used, reason = "a run that cannot go on ends the test it is part of")]

mod attacker;
mod client;
pub mod determinism;
mod media;
mod message;
mod network;
mod offer;
pub mod oracle;
mod outcome;
mod scenario;
mod trace;
mod wire;
mod world;

pub use media::Tag;
pub use message::Message;
pub use network::{Link, Network};
pub use outcome::{Heard, Offered, Outcome, Seen, Sent};
pub use scenario::Scenario;
pub use trace::{Trace, TraceEntry};
pub use wire::{Carried, Nonce, Nonces, Stream, Wire};
pub use world::World;
