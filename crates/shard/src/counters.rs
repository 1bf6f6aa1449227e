//! What a shard counts; every number only grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A snapshot of a shard's counters.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ShardCounters { $($(#[$doc])* pub $name: u64,)+ }

        #[derive(Debug, Default)]
        struct Cells { $($name: AtomicU64,)+ }

        /// Written by the shard once a turn, read by anybody.
        #[derive(Debug, Clone, Default)]
        pub struct Counters(Arc<Cells>);

        impl Counters {
            /// The counters as last published.
            pub fn snapshot(&self) -> ShardCounters {
                ShardCounters { $($name: self.0.$name.load(Ordering::Relaxed),)+ }
            }

            pub(crate) fn publish(&self, counters: &ShardCounters) {
                $(self.0.$name.store(counters.$name, Ordering::Relaxed);)+
            }
        }
    };
}

counters! {
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
    /// Packets the kernel dropped because our receive buffer was full.
    udp_kernel_drops,
    /// Packets for an address none of our sockets has.
    unroutable,
    /// Frames received over ICE-TCP.
    tcp_frames_in,
    /// Frames sent over ICE-TCP.
    tcp_frames_out,
    /// Frames not sent because a TCP connection was too slow.
    tcp_dropped,
    /// Events refused by the store's queue.
    events_refused,
    /// Signals whose connection was gone or too slow.
    signals_refused,
    /// Nanoseconds spent in the core.
    core_ns,
    /// Nanoseconds spent sending and receiving.
    socket_ns,
}
