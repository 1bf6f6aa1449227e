//! Maximums of the collector's listener.

use std::time::Duration;

/// Bodies that are being read or stored, all together, half of it by one host: a slow store costs senders a 503, never memory without bound.
pub(super) const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A body comes within this.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(30);
/// A TLS handshake takes no longer.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Connections, half of them by one host; further ones are closed. Sora opens five.
pub(super) const CONNECTIONS_MAX: usize = 4_096;
/// Names and values of a request's header fields, together.
pub(super) const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// Read buffer of an HTTP/1.1 connection, in which its head must fit: 64 MiB of all of them.
pub(super) const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Streams that a client may give up beyond those it let us answer; after that its connection is closed (CVE-2023-44487).
pub(super) const RESETS_MAX: u64 = 100;
/// What a client may send ahead on one stream.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// And on all streams of a connection.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// How long requests may take to end once the listener is told to stop, or the connection was idle for too long.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Seconds after which a refused report should be sent again.
pub(super) const RETRY_AFTER_S: &str = "5";
/// Hosts that have series of their own; others are `(other)`.
pub(super) const HOSTS_MAX: usize = 16;

/// Streams that one connection may have open, as Kohaku's example has it.
pub(super) const STREAMS_DEFAULT: u32 = 250;
/// Largest HTTP/2 frame that is taken, as Kohaku's example has it.
pub(super) const FRAME_BYTES_DEFAULT: u32 = 1024 * 1024;
/// Bounds of that size (RFC 9113, section 6.5.2).
pub const FRAME_BYTES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;
/// A connection without a request is kept for this long, as Kohaku's example has it.
pub(super) const IDLE_DEFAULT: Duration = Duration::from_secs(60);
