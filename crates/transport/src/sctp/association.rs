//! What we ask of an SCTP implementation, so that another can take its place: one association, accepted from a peer.
//!
//! Channels, pacing and everything that keeps a hostile peer's cost down stay on our side.

use crate::dcep::Reliability;
use bytes::Bytes;
use std::time::Instant;

/// Payload protocol identifier of WebRTC (RFC 8831 §8, RFC 8832 §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ppid {
    Dcep,
    String,
    Binary,
    StringEmpty,
    BinaryEmpty,
    Unknown,
}

/// A message of the peer.
#[derive(Debug)]
pub(super) struct StreamMessage {
    pub(super) ppid: Ppid,
    /// At most the receive window.
    pub(super) bytes: Vec<u8>,
    /// DATA chunks it came in.
    pub(super) chunks: usize,
}

/// What happened to the association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AssociationEvent {
    /// The handshake is complete.
    Connected,
    /// The handshake failed, or the association is over.
    Ended,
    /// The peer filled our window with what makes no message; the association is over, and an ABORT waits to be sent.
    Overfilled,
    /// A message may be read from this stream.
    Readable(u16),
    /// What is buffered for this stream fell to
    /// [`BUFFERED_LOW_BYTES`](crate::limits::BUFFERED_LOW_BYTES).
    BufferedLow(u16),
    /// The stream was reset.
    StreamGone(u16),
    /// Our request to reset streams was not answered and is given up.
    ResetFailed,
}

/// One association. Call `handle_*`, then poll until both polls are empty.
pub(super) trait Association: Send {
    /// Takes a packet whose lengths fit.
    fn handle_packet(&mut self, now: Instant, packet: Bytes);

    /// Lets time pass; needed at [`Association::poll_timeout`].
    fn handle_timeout(&mut self, now: Instant);

    fn poll_timeout(&self) -> Option<Instant>;

    fn poll_event(&mut self) -> Option<AssociationEvent>;

    /// Packets to be sent, in order; empty when there are none.
    fn poll_packets(&mut self, now: Instant) -> Vec<Bytes>;

    /// Nothing comes any more. An association that has not seen its COOKIE ECHO counts as closed too.
    fn is_closed(&self) -> bool;

    /// Streams with state, opened by either side.
    fn stream_count(&self) -> usize;

    fn has_stream(&mut self, stream: u16) -> bool;

    /// False when the stream is there already, or still being reset.
    fn open_stream(&mut self, stream: u16) -> bool;

    /// How later messages of ours are sent; false without such a stream.
    fn set_reliability(&mut self, stream: u16, ordered: bool, reliability: Reliability) -> bool;

    /// Queues a message that is not empty; false without such a stream.
    fn write(&mut self, now: Instant, stream: u16, ppid: Ppid, bytes: &[u8]) -> bool;

    /// The next whole message.
    fn read(&mut self, stream: u16) -> Option<StreamMessage>;

    /// Bytes written to a stream and not acknowledged.
    fn buffered_bytes(&mut self, stream: u16) -> usize;

    /// Asks the peer to reset the stream (RFC 6525); false without such a stream.
    fn reset_stream(&mut self, now: Instant, stream: u16) -> bool;
}
