//! What is configured.

use crate::credential::Credentials;
use crate::filter::{NodeAddresses, PeerRules};
use crate::limits::REALM_BYTES_MAX;
use crate::ports::PortRange;
use crate::users::ByteQuota;
use smol_str::SmolStr;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Settings of one server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Realm of the credentials; LiveKit's is `livekit`.
    pub realm: SmolStr,
    /// Whom the server believes.
    pub credentials: Credentials,
    /// Where relays are opened.
    pub relays: Relays,
    /// Which peers may be reached.
    pub peers: PeerRules,
    /// What this node calls its own; the relays' addresses need not be repeated.
    pub node: NodeAddresses,
    /// How much a user may take.
    pub quotas: Quotas,
    /// Number of the first allocation: two servers of one node begin far from each other, as coturn's threads do.
    pub first_id: u64,
}

/// Where relays are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relays {
    /// IPv4, when relays may have it.
    pub v4: Option<RelayAddress<Ipv4Addr>>,
    /// IPv6, when relays may have it.
    pub v6: Option<RelayAddress<Ipv6Addr>>,
    /// `turn.relay_range_start` and `relay_range_end`.
    pub ports: PortRange,
}

/// An address of relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress<A> {
    /// What sockets are bound to.
    pub bind: A,
    /// What clients and peers are told: another one behind a one-to-one NAT.
    pub advertised: A,
}

/// How much may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Allocations of one user at a time (LiveKit's `per_user_relay_allocation_limit`).
    pub user_allocations: u32,
    /// Allocations of all users at a time.
    pub total_allocations: u32,
    /// Bits a second of one allocation, each direction by itself; packets beyond are dropped.
    pub allocation_bps: Option<u64>,
    /// Bytes of one user; who has used them up loses the relay.
    pub user_bytes: Option<ByteQuota>,
}

impl Default for Quotas {
    /// LiveKit's limit of allocations of one user, and no other than the server's own.
    fn default() -> Self {
        Self {
            user_allocations: 12,
            total_allocations: crate::limits::ALLOCATIONS_MAX,
            allocation_bps: None,
            user_bytes: None,
        }
    }
}

/// The configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Longer than a challenge may be.
    #[error(
        "the TURN realm has {0} bytes, more than {REALM_BYTES_MAX}: a challenge would be too long for its request"
    )]
    Realm(usize),
    /// No port.
    #[error("the TURN relay range {0} to {1} has no port")]
    Range(u16, u16),
    /// No address.
    #[error("TURN relays have neither an IPv4 nor an IPv6 address")]
    NoAddress,
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.realm.len() > REALM_BYTES_MAX || self.realm.is_empty() {
            return Err(ConfigError::Realm(self.realm.len()));
        }
        let ports = self.relays.ports;
        if ports.is_empty() {
            return Err(ConfigError::Range(ports.first, ports.last));
        }
        if self.relays.v4.is_none() && self.relays.v6.is_none() {
            return Err(ConfigError::NoAddress);
        }
        Ok(())
    }
}
