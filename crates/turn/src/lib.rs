//! A TURN server (RFC 8656) that accounts for every byte, as a pure core.
//!
//! [`TurnServer`] follows the contract of every core: `handle_*` takes time and packets, [`TurnServer::poll_output`] is
//! drained to [`Output::Timeout`]. The shell owns the sockets: a UDP socket and streams for clients (TLS is the shell's),
//! and one UDP socket for each [`Output::OpenRelay`]. Packets go into [`Outgoing`]; those between a client and a media
//! socket of this node never touch a relay's socket.
//!
//! What is not served: relays over TCP (RFC 6062), mobility (RFC 8016), DTLS to clients, DONT-FRAGMENT, reservations
//! (EVEN-PORT with its R bit is answered with 508), and SHA-256 for passwords: offering it would make the challenge
//! longer than three times the shortest request, and browsers do not take the offer.

mod allocation;
mod base62;
mod binding;
mod bucket;
mod cidr;
mod config;
mod counters;
mod credential;
mod filter;
pub mod framing;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
mod nonce;
mod output;
mod permission;
mod ports;
mod server;
mod users;
mod wire;

pub use binding::BindingQuery;
pub use cidr::{Cidr, NotCidr};
pub use config::{Config, ConfigError, Quotas, RelayAddress, Relays};
pub use counters::{Counters, Drop, EndReason};
pub use credential::{ApiKey, Credential, Credentials, participant_credential, shared_credential};
pub use filter::{MediaSocket, NodeAddresses, Peer, PeerFilter, PeerRules, Refused, Scope};
pub use output::{Account, Family, Outgoing, Output, Quota, RelayKey, Why};
pub use ports::PortRange;
pub use server::{Tls, TurnServer};
pub use users::ByteQuota;
