//! Transport-wide congestion control, draft-holmer-rmcat-transport-wide-cc-extensions-01: both ends.
//!
//! [`FeedbackBuilder`] notes when a publisher's packets arrive and writes the feedback; [`SendLog`] numbers what leaves
//! for a subscriber and turns its feedback into [`PacketResult`]s for the bandwidth estimate.

mod receive;
mod send;

pub use receive::FeedbackBuilder;
pub use send::{PacketResult, SEND_LOG_PACKETS_MAX, SendLog};
