//! What a TURN server says of an allocation: the vocabulary that coturn's messages and our own server's are put in.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::ops::{Add, AddAssign};

/// What the TURN server calls an allocation. Ids begin again with the process, and two servers give the same ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AllocationName {
    /// Realm of the credentials; empty without.
    pub realm: SmolStr,
    /// User name as authenticated, a REST user's expiry time included.
    pub user: SmolStr,
    /// coturn: relay thread × 10^15 + a counter from 1.
    pub id: u64,
}

/// Between which two ends bytes were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// Client and server: TURN framing and control messages included.
    Client,
    /// Relayed address and peers: payload only.
    Peer,
}

/// Traffic of one leg. `rx` is into the TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LegCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl LegCounters {
    /// Both directions.
    pub const fn bytes(&self) -> u64 {
        self.rx_bytes.saturating_add(self.tx_bytes)
    }

    /// Both directions.
    pub const fn packets(&self) -> u64 {
        self.rx_packets.saturating_add(self.tx_packets)
    }

    /// In the order of declaration.
    pub fn fields(self) -> [u64; 4] {
        [self.rx_packets, self.rx_bytes, self.tx_packets, self.tx_bytes]
    }

    /// Field by field with `other`.
    #[must_use]
    pub fn zip(self, other: Self, apply: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            rx_packets: apply(self.rx_packets, other.rx_packets),
            rx_bytes: apply(self.rx_bytes, other.rx_bytes),
            tx_packets: apply(self.tx_packets, other.tx_packets),
            tx_bytes: apply(self.tx_bytes, other.tx_bytes),
        }
    }
}

impl Add for LegCounters {
    type Output = Self;

    /// What comes from outside may be any number: sums stop at the largest.
    fn add(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}

impl AddAssign for LegCounters {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// How the client reaches the server; fields that the server does not tell are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Path {
    /// `UDP`, `TCP`, `TLS/TCP`, `DTLS/UDP`.
    pub transport: SmolStr,
    /// The server's address.
    pub local: SmolStr,
    /// The client's.
    pub remote: SmolStr,
    /// TLS version, `NONE` without.
    pub tls: SmolStr,
    /// Cipher suite, `NONE` without.
    pub cipher: SmolStr,
}

/// Something that happened to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnEvent {
    /// It was granted.
    Opened {
        /// Granted lifetime.
        lifetime_s: u32,
        /// How the client came.
        path: Path,
    },
    /// It was refreshed; 0 seconds release it.
    Refreshed {
        /// Granted lifetime.
        lifetime_s: u32,
        /// How the client came.
        path: Path,
    },
    /// It is gone: released, expired, or its connection closed.
    Deleted,
    /// Traffic since the last such message.
    Traffic(Leg, LegCounters),
    /// Traffic of the whole allocation, after its end.
    Total(Leg, LegCounters),
}

/// A limit of a TURN server. Who hits one is told as the fact [`TurnQuotaHit`](crate::TurnQuotaHit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// Allocations of one user.
    UserAllocations,
    /// Allocations of all users.
    TotalAllocations,
    /// Bits a second of one allocation.
    Bandwidth,
    /// Bytes of one user.
    UserBytes,
}

impl Quota {
    /// As it stands in facts and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserAllocations => "user_allocations",
            Self::TotalAllocations => "total_allocations",
            Self::Bandwidth => "bandwidth",
            Self::UserBytes => "user_bytes",
        }
    }
}

/// What a TURN server's store still has of an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAllocation {
    /// Its name.
    pub name: AllocationName,
    /// The last status said of it.
    pub status: TurnEvent,
    /// Since when, as far as the store tells; milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What an input says of TURN servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnInput {
    /// Something happened to an allocation.
    Event {
        /// The server's name, where the input tells servers apart.
        node: Option<SmolStr>,
        /// Which allocation.
        name: AllocationName,
        /// What happened.
        event: TurnEvent,
    },
    /// A server has just started.
    NodeStarted(SmolStr),
    /// All connections of a server closed.
    NodeGone(SmolStr),
    /// A server is connected.
    NodeBack(SmolStr),
    /// Nothing is heard of any server.
    Lost,
    /// Servers are heard again.
    Back,
    /// What the servers' store has after a gap.
    Resync {
        /// Since when the store lives, where that is known: allocations whose last status was said after that, and that it
        /// lacks, have ended. Milliseconds since the Unix epoch.
        complete_since_ms: Option<u64>,
        /// What it has.
        stored: Vec<StoredAllocation>,
    },
}
