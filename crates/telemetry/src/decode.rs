//! What others say of calls, read into our own terms.

pub mod coturn;
pub mod recording;
pub mod resp;
