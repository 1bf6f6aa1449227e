//! What clients say of their calls: reports of `getStats()` objects, by Sora, by browsers and by LiveKit's clients.
//!
//! [`ClientReport`] is what every decoder makes and what the store takes. [`Dedup`] decides which of its objects say
//! something new. [`rates`] computes from stored objects what webrtc-internals shows.

mod canonical;
mod dedup;
pub mod limits;
pub mod measured;
mod object;
pub mod query;
pub mod rates;
mod report;
pub mod sides;

pub use dedup::{Dedup, DedupSettings, LastValue, LastValues, Planned};
pub use object::{Reason, StatsObject};
pub use report::{ClientReport, ConnectionEnvelope, ConnectionKey, Role, Source};
