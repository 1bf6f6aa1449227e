//! What shards and the acceptor count, which only grows, and what a shard carries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($snapshot:ident, $cells:ident, $shared:ident, $of:literal; $($(#[doc = $doc:literal])* $name:ident,)+) => {
        #[doc = concat!("A snapshot of ", $of, ".")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $snapshot { $($(#[doc = $doc])* pub $name: u64,)+ }

        impl $snapshot {
            /// Each with its name and what it counts.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                [$((stringify!($name), concat!($($doc),*), self.$name),)+].into_iter()
            }
        }

        #[derive(Debug, Default)]
        struct $cells { $($name: AtomicU64,)+ }

        #[doc = concat!("Shared by ", $of, ": written by its thread once a turn, read by anybody.")]
        #[derive(Debug, Clone, Default)]
        pub struct $shared(Arc<$cells>);

        impl $shared {
            /// As last published.
            pub fn snapshot(&self) -> $snapshot {
                $snapshot { $($name: self.0.$name.load(Ordering::Relaxed),)+ }
            }

            pub(crate) fn publish(&self, counters: &$snapshot) {
                $(self.0.$name.store(counters.$name, Ordering::Relaxed);)+
            }
        }
    };
}

counters! {
    AcceptorCounters, AcceptorCells, SharedAcceptorCounters, "what the acceptor counts";
    /// Connections accepted.
    accepted,
    /// Connections handed to a shard.
    handed_over,
    /// Connections closed at once: too many wait, in all, from one address or for their shard.
    refused_full,
    /// Connections closed because they did not begin with a check for one of our shards.
    refused_frame,
    /// Connections closed because their first check did not come in time.
    timed_out,
    /// Connections that a shard closed because their first check proved nothing.
    failed,
    /// Connections closed at once because too many of their host had failed.
    refused_failing,
}

counters! {
    ShardCounters, ShardCells, Counters, "what a shard counts";
    /// Loop turns.
    turns,
    /// UDP packets received.
    udp_packets_in,
    /// UDP bytes received.
    udp_bytes_in,
    /// System calls that received something.
    udp_receives,
    /// UDP packets sent.
    udp_packets_out,
    /// UDP bytes sent.
    udp_bytes_out,
    /// System calls that sent: runs, or single packets where the kernel has no GSO.
    udp_sends,
    /// Packets not sent because the socket buffer was full.
    udp_blocked,
    /// Packets the kernel would not send: no route, a firewall, or an error it had learnt about that address.
    udp_failed,
    /// Packets the kernel dropped because our receive buffer was full.
    udp_kernel_drops,
    /// Packets for an address none of our sockets has.
    unroutable,
    /// Frames received over ICE-TCP.
    tcp_frames_in,
    /// Bytes of these frames.
    tcp_bytes_in,
    /// Frames sent over ICE-TCP.
    tcp_frames_out,
    /// Bytes of these frames.
    tcp_bytes_out,
    /// Frames not sent because a TCP connection was too slow.
    tcp_dropped,
    /// ICE-TCP connections closed: too many, or for no session here.
    tcp_refused,
    /// ICE-TCP connections closed because their first check proved nothing.
    tcp_failed,
    /// Packets that came through our own TURN server, without a socket in between.
    turn_packets_in,
    /// Packets handed to our own TURN server.
    turn_packets_out,
    /// Packets not handed over because the TURN thread was too far behind.
    turn_dropped,
    /// Events refused by the store's queue.
    events_refused,
    /// Signals whose connection was gone or too slow.
    signals_refused,
    /// Datagrams of nobody here.
    datagrams_unknown,
    /// Checks from an address that another session uses: it keeps it.
    tuples_refused,
    /// Addresses that went over from a silent session to one that proved to be there.
    tuples_moved,
    /// Rooms that ended by a bug.
    rooms_panicked,
    /// Handshake datagrams that waited for a later turn.
    handshakes_waited,
    /// Handshake datagrams dropped because too many waited.
    handshakes_dropped,
    /// Batches of clients' metrics refused because their sender had sent too many.
    metrics_refused,
}

counters! {
    TurnCounters, TurnCells, SharedTurnCounters, "what the TURN thread counts";
    /// Loop turns.
    turns,
    /// Allocations there are.
    allocations_open,
    /// Allocations made.
    allocations,
    /// Datagrams and frames from clients.
    received,
    /// Of those, neither STUN nor ChannelData, or against their rules.
    unreadable,
    /// Binding requests answered.
    bindings,
    /// Allocate, Refresh, CreatePermission and ChannelBind requests.
    requests,
    /// Of those, answered with success.
    successes,
    /// Error responses.
    errors,
    /// Unauthenticated errors not sent: too many to that network.
    errors_withheld,
    /// Payload packets from clients to peers.
    to_peers,
    /// Payload packets from clients to media of this node.
    to_media,
    /// Payload packets to clients.
    to_clients,
    /// Payload packets dropped, for whatever reason.
    dropped,
    /// Quotas hit.
    quota_hits,
    /// Relay sockets that could not be opened.
    relays_refused,
    /// Packets for media dropped because its thread was too far behind.
    media_dropped,
    /// Packets not sent because a socket buffer was full.
    udp_blocked,
    /// Packets the kernel would not send.
    udp_failed,
    /// Streams accepted.
    streams,
    /// Streams closed at once: too many, in all or from one address.
    streams_refused,
    /// Streams closed for what they sent, or because their TLS failed.
    streams_broken,
    /// Streams closed because they made no allocation in time.
    streams_idle,
    /// Frames not sent because a stream was too slow.
    frames_dropped,
    /// Events the store's queue had no room for at once; they wait.
    events_waited,
    /// Events dropped because too many waited.
    events_dropped,
}

counters! {
    ShardLoad, LoadCells, Load, "what a shard carries";
    /// Tracks published to it.
    tracks_in,
    /// Tracks it forwards, one for each subscription.
    tracks_out,
}
