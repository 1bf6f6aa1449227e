//! Cumulative counters of one track in one direction.

use serde::{Deserialize, Serialize};

/// Counters since the track (or the subscription to it) began; they only grow, apart from the gauges named so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrackCounters {
    /// RTP packets with media, first transmissions only.
    pub packets: u64,
    /// Payload bytes of `packets`, without RTP header and padding, as getStats counts them.
    pub bytes: u64,
    /// RTP header bytes of `packets`, extensions included.
    pub header_bytes: u64,
    /// Retransmitted packets (RTX, or the same packet again where the codec has no RTX), asked for or sent to probe the
    /// path.
    pub retransmitted: u64,
    /// Payload bytes of `retransmitted`.
    pub retransmitted_bytes: u64,
    /// Packets that carried padding only.
    pub padding: u64,
    /// Bytes of padding.
    pub padding_bytes: u64,
    /// Packets known to be missing: by our own count upstream, by receiver reports downstream.
    pub lost: u64,
    /// Packets that came after a later one.
    pub out_of_order: u64,
    /// Packets that had come before, retransmissions that nobody missed among them.
    pub duplicates: u64,
    /// Packets not forwarded to this subscriber, or not taken from this publisher, with a reason.
    pub dropped: u64,
    /// Sequence numbers asked for again with NACK.
    pub nacks: u64,
    /// Picture loss indications.
    pub plis: u64,
    /// Full intra requests.
    pub firs: u64,
    /// Frames whose last packet passed.
    pub frames: u64,
    /// Key frames begun.
    pub key_frames: u64,
    /// Gauge: interarrival jitter in microseconds.
    pub jitter_us: u64,
    /// Gauge: round-trip time in microseconds, 0 when not known.
    pub rtt_us: u64,
    /// One entry for each layer seen, lowest first; empty for audio.
    pub layers: Vec<LayerCounters>,
}

/// What one layer of a published track brought, or how much of it was forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerCounters {
    /// RID as the publisher names it; empty without simulcast.
    pub rid: String,
    /// Spatial layer, 0 is the lowest.
    pub spatial: u8,
    /// RTP packets with media.
    pub packets: u64,
    /// Payload bytes of `packets`.
    pub bytes: u64,
    /// Retransmitted packets.
    pub retransmitted: u64,
    /// Frames completed.
    pub frames: u64,
}
