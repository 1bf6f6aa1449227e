//! What others say of calls, read into our own terms.

pub mod browser;
pub mod coturn;
pub mod kohaku;
pub mod livekit_metrics;
pub mod recording;
pub mod release;
pub mod resp;
pub mod rtcstats;
