//! What the server says.

pub use fanlight_events::turn::Quota;

use fanlight_base::{Mono, ParticipantSid, SendBatch};
use fanlight_events::turn::{AllocationName, TurnEvent};
use smol_str::SmolStr;
use std::net::SocketAddr;

/// Packets of one loop turn, by where they go.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// To clients: `addresses` are the client's. A run of a stream ([`fanlight_base::Protocol::Tcp`]) is written as it
    /// is, frames back to back.
    pub clients: SendBatch,
    /// To peers: `local` is what the relay's socket is bound to.
    pub peers: SendBatch,
    /// To media sockets of this node, without a socket in between: `local` is the media socket, `remote` the relayed
    /// address, as if the packets had come over the network.
    pub media: SendBatch,
}

impl Outgoing {
    /// Empty batches.
    pub fn new() -> Self {
        Self { clients: SendBatch::new(), peers: SendBatch::new(), media: SendBatch::new() }
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.peers.is_empty() && self.media.is_empty()
    }

    /// Forgets all packets, keeping their buffers.
    pub fn clear(&mut self) {
        self.clients.clear();
        self.peers.clear();
        self.media.clear();
    }
}

/// Address family of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }
}

/// A relay's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayKey {
    pub(crate) slot: u32,
    pub(crate) family: Family,
    /// Number of the allocation: a slot is used again, a number is not.
    pub(crate) id: u64,
}

/// What the server wants done.
#[derive(Debug)]
pub enum Output {
    /// Bind a UDP socket to this address; answer with `handle_relay_opened` or `handle_relay_refused`.
    OpenRelay {
        /// The relay.
        key: RelayKey,
        /// Address and port.
        address: SocketAddr,
    },
    /// Close the relay's socket.
    CloseRelay {
        /// The relay.
        key: RelayKey,
    },
    /// For the accounting.
    Account(Box<Account>),
    /// Nothing more now; `handle_timeout` is wanted at this time.
    Timeout(Mono, Why),
}

const _: () = assert!(size_of::<Output>() <= 64, "a control value, not a packet");

/// What the server waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nothing.
    Idle,
    /// An allocation's expiry, traffic report or relay socket.
    Allocation,
    /// The end of a user's quota window.
    User,
}

/// Something that the accounting takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// It happened to an allocation.
    Allocation {
        /// Which one.
        name: AllocationName,
        /// Whose it is, when the user name is a participant's.
        participant: Option<ParticipantSid>,
        /// What happened.
        event: TurnEvent,
    },
    /// A user was refused or cut off.
    QuotaHit {
        /// Realm of the credentials.
        realm: SmolStr,
        /// User name as authenticated.
        user: SmolStr,
        /// Whose it is, when the user name is a participant's.
        participant: Option<ParticipantSid>,
        /// Which quota.
        quota: Quota,
        /// The quota itself, in its unit.
        limit: u64,
    },
}
