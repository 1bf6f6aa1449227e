//! What an SFU is made with.

use crate::envelope::{DataEnvelope, EncodeInfo};
use crate::limits::{ATTRIBUTES_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::{Certificate, ClockAnchor};

/// Configuration of one [`Sfu`](crate::Sfu); it never changes.
#[derive(Debug, Clone)]
pub struct SfuConfig {
    /// Number of this shard; our ICE ufrags carry it, so that a TCP connection finds its way.
    pub shard: u16,
    /// Seeds everything random: credentials, SSRCs, sids. From the system in a shell, fixed in a simulator.
    pub seed: [u8; 32],
    /// Our DTLS certificate.
    pub certificate: Certificate,
    /// Turns our time into that of the ICE, DTLS and SCTP libraries.
    pub anchor: ClockAnchor,
    /// Our candidates, in the order in which they are told.
    pub candidates: Vec<LocalCandidate>,
    /// How long a participant's texts may become when it changes them itself.
    pub texts: TextLimits,
    /// How data packets are read.
    pub envelope: DataEnvelope,
    /// How participants are told to clients.
    pub encode_info: EncodeInfo,
}

/// Bytes of a participant's texts, as LiveKit's `limit.*`; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLimits {
    /// Display name.
    pub name_bytes: usize,
    /// Metadata.
    pub metadata_bytes: usize,
    /// Keys and values of the attributes together.
    pub attributes_bytes: usize,
}

impl Default for TextLimits {
    fn default() -> Self {
        Self {
            name_bytes: NAME_BYTES_MAX,
            metadata_bytes: METADATA_BYTES_MAX,
            attributes_bytes: ATTRIBUTES_BYTES_MAX,
        }
    }
}
