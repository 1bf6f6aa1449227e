//! The vocabulary every other crate shares: time, ids, addresses, the send batch, bounded queues and randomness.
//!
//! Nothing here reads a clock, opens a socket or draws unseeded random numbers. A core gets [`Now`] as an argument,
//! writes packets into a [`SendBatch`] and draws from a [`Random`] that its shell has seeded.

mod addresses;
mod batch;
mod bounded;
mod id;
mod random;
mod redact;
mod time;

pub use addresses::{Addresses, Protocol};
pub use batch::{Run, RunHint, SendBatch};
pub use bounded::{Bounded, Full};
pub use id::{Identity, NodeId, ParticipantSid, PeerKey, RoomName, RoomSid, TrackSid, sid_suffix};
pub use random::Random;
pub use redact::Redacted;
pub use time::{Mono, Now};
