//! The whole server core under a virtual clock, with a seeded network and clients on another WebRTC stack.
//!
//! One [`World`] holds one `Control`, one `Sfu` and any number of [`Client`]s on `str0m`. Nothing in it reads a clock: a
//! run is a function of its [`Scenario`] and its seed. [`oracle`] says what must be true of every run.

mod client;
pub mod determinism;
mod media;
mod network;
pub mod oracle;
mod scenario;
mod trace;
mod world;

pub use client::{Client, Heard};
pub use network::{Link, Network};
pub use scenario::Scenario;
pub use trace::{Trace, TraceEntry};
pub use world::World;
