//! What a forwarder must know of payloads: where frames and key frames begin, which layer a packet belongs to.
//!
//! Readers take decrypted payloads without padding; end-to-end encrypted frames keep these descriptors readable.

pub mod av1;
pub mod dependency_descriptor;
pub mod h264;
pub mod opus;
pub mod red;
pub mod vp8;
pub mod vp9;
