//! What an SFU is made with.

use crate::envelope::DataEnvelope;
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
    /// How data packets are read.
    pub envelope: DataEnvelope,
}
