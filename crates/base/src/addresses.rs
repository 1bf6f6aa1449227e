//! The 5-tuple of a datagram.

use std::net::SocketAddr;

/// How bytes travel between the two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// One datagram per packet.
    Udp,
    /// ICE over TCP, framed as RFC 4571 says.
    Tcp,
}

/// Where a datagram came from and to, as seen by this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addresses {
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// UDP or TCP.
    pub protocol: Protocol,
}
