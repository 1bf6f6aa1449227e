//! What unit tests need and only other crates can make.

use crate::media::{TransportId, Transports};
use fanlight_base::{Mono, Random};
use fanlight_transport::{Certificate, ClockAnchor, DtlsRole, Transport, TransportConfig};
use std::time::Instant;

/// Ids of so many transports of one room.
#[allow(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made without the clock; its value is arbitrary"
)]
pub(crate) fn transport_ids(count: usize) -> Vec<TransportId> {
    let config = TransportConfig {
        anchor: ClockAnchor::new(Instant::now(), Mono { ns: 0 }),
        shard: 0,
        ice_lite: false,
        offerer: false,
        role: DtlsRole::Passive,
        certificate: Certificate::generate().expect("a certificate"),
    };
    let mut random = Random::from_seed([1; 32]);
    let mut transports = Transports::new();
    (0..count).map(|_| transports.insert(Transport::new(config.clone(), &mut random))).collect()
}
