//! What happened, in numbers that only grow.

use std::collections::BTreeMap;

/// Counters of one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams and frames from clients.
    pub received: u64,
    /// Of those, neither STUN nor ChannelData.
    pub foreign: u64,
    /// Of those, STUN or ChannelData that breaks its own rules.
    pub malformed: u64,
    /// Messages that a server does not take: responses, methods of TCP relays (RFC 6062) and others.
    pub unsupported: u64,
    /// Binding requests answered.
    pub bindings: u64,
    /// Allocate, Refresh, CreatePermission and ChannelBind requests.
    pub requests: u64,
    /// Of those, answered with success.
    pub successes: u64,
    /// Error responses by code.
    pub errors: BTreeMap<u16, u64>,
    /// Responses not sent: longer than three times their request.
    pub amplifying: u64,
    /// Unauthenticated errors not sent: too many to that source prefix.
    pub rate_limited: u64,
    /// Requests left unanswered: the shell has not drained the outputs.
    pub overloaded: u64,
    /// Allocations made.
    pub allocations: u64,
    /// Allocations ended, by reason.
    pub ended: BTreeMap<EndReason, u64>,
    /// Relay sockets that could not be opened.
    pub relays_refused: u64,
    /// Payload packets from clients to peers.
    pub to_peers: u64,
    /// Payload packets from clients to media sockets of this node.
    pub to_media: u64,
    /// Payload packets from peers and media to clients.
    pub to_clients: u64,
    /// Payload dropped, by reason.
    pub dropped: BTreeMap<Drop, u64>,
    /// Quotas hit, whether or not an event said so.
    pub quota_hits: u64,
    /// Outputs that found no room; 0 as long as the shell drains every turn.
    pub outputs_refused: u64,
}

/// Why an allocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndReason {
    /// Its client released it.
    Released,
    /// Its lifetime ended.
    Expired,
    /// Its stream closed.
    Closed,
    /// Its user used up the bytes.
    Quota,
    /// No relay socket could be opened.
    NoRelay,
    /// The server ended.
    Shutdown,
}

/// Why payload was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drop {
    /// The client has no allocation.
    NoAllocation,
    /// No channel of that number.
    NoChannel,
    /// No permission for the peer.
    NoPermission,
    /// The peer may not be reached.
    Forbidden,
    /// The peer's address family has no relay.
    Family,
    /// An indication without an address or data, or with attributes that are not understood.
    BadIndication,
    /// Beyond the bandwidth limit.
    Bandwidth,
    /// Longer than a datagram can be.
    TooLong,
    /// For a relay that is gone.
    NoRelay,
}

impl Counters {
    pub(crate) fn error(&mut self, code: u16) {
        *self.errors.entry(code).or_default() += 1;
    }

    pub(crate) fn end(&mut self, why: EndReason) {
        *self.ended.entry(why).or_default() += 1;
    }

    pub(crate) fn drop_payload(&mut self, why: Drop) {
        *self.dropped.entry(why).or_default() += 1;
    }

    /// How many payload packets were dropped for this reason.
    pub fn dropped(&self, why: Drop) -> u64 {
        self.dropped.get(&why).copied().unwrap_or(0)
    }

    /// How many error responses had this code.
    pub fn errors(&self, code: u16) -> u64 {
        self.errors.get(&code).copied().unwrap_or(0)
    }

    /// How many allocations ended for this reason.
    pub fn ended(&self, why: EndReason) -> u64 {
        self.ended.get(&why).copied().unwrap_or(0)
    }
}
