//! What a negotiated section is to the rest of the server.

use super::codec::{Codec, suitability};
use crate::sdp::{Direction, Feedback, MediaKind};
use fanlight_rtp::{ExtensionKind, ExtensionMap};
use std::sync::Arc;

/// A payload type both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedCodec {
    /// The codec.
    pub codec: Codec,
    /// Its payload type.
    pub payload_type: u8,
    /// Payload type of its retransmissions (RFC 4588).
    pub rtx_payload_type: Option<u8>,
    /// RTP clock rate in Hz.
    pub clock_rate_hz: u32,
    /// Channels.
    pub channels: u8,
    /// Format parameters as they stand in our description.
    pub fmtp: Arc<str>,
    /// RTCP feedback agreed on.
    pub feedback: Feedback,
}

/// A section on which the client sends, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedSection {
    /// The mid.
    pub mid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// The client's direction; without sending, the track is unpublished.
    pub direction: Direction,
    /// First part of the msid, `-` for none.
    pub stream_id: Option<String>,
    /// Second part of the msid: the `cid` of LiveKit's clients.
    pub track_id: Option<String>,
    /// What the client may send, the preferred one first.
    pub codecs: Arc<[NegotiatedCodec]>,
    /// Header extension ids.
    pub extensions: ExtensionMap,
    /// RIDs of the simulcast layers in the client's order.
    pub rids: Vec<String>,
    /// SSRCs the client announced, in its order; empty with RIDs in most clients.
    pub ssrcs: Vec<u32>,
    /// Pairs of media SSRC and RTX SSRC.
    pub rtx_pairs: Vec<(u32, u32)>,
    /// SSRCs of simulcast layers announced without RIDs (`SIM` group).
    pub simulcast_ssrcs: Vec<u32>,
}

/// A subscribed track on its way into a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackBinding {
    /// Audio or video.
    pub kind: MediaKind,
    /// Track sid, `TR_…`: second part of the msid.
    pub track_id: String,
    /// `PA_…|TR_…`: first part of the msid, and the cname.
    pub stream_id: String,
    /// SSRC we send with.
    pub ssrc: u32,
    /// SSRC of retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// The publisher sends stereo Opus.
    pub stereo: bool,
}

/// A section on which we send a subscribed track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedSection {
    /// The mid.
    pub mid: String,
    /// The track.
    pub binding: TrackBinding,
    /// What the client takes.
    pub codecs: Arc<[NegotiatedCodec]>,
    /// Header extension ids.
    pub extensions: ExtensionMap,
}

/// How a stream is sent on a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendParameters {
    /// The mid, for the header extension and for SDES.
    pub mid: String,
    /// SSRC.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// SSRC and payload type of retransmissions, when the client takes them.
    pub rtx: Option<(u32, u8)>,
    /// RTP clock rate in Hz.
    pub clock_rate_hz: u32,
    /// RTCP feedback the client may send.
    pub feedback: Feedback,
    /// Header extension ids.
    pub extensions: ExtensionMap,
}

impl NegotiatedSection {
    /// How a stream of this codec and `fmtp` (of the publisher) is sent here; `None` when the client does not take it.
    pub fn send_parameters(&self, codec: Codec, fmtp: &str) -> Option<SendParameters> {
        let rank = |entry: &NegotiatedCodec| suitability((entry.codec, &entry.fmtp), (codec, fmtp));
        // max_by_key takes the last of equals; the client's order wants the first.
        let chosen =
            self.codecs.iter().rev().filter(|entry| rank(entry).is_some()).max_by_key(|entry| rank(entry))?;
        let mut extensions = self.extensions;
        // One way of estimating at a time: an extension without its feedback would only cost bytes.
        if !chosen.feedback.transport_cc {
            extensions.remove(ExtensionKind::TransportCc);
        }
        Some(SendParameters {
            mid: self.mid.clone(),
            ssrc: self.binding.ssrc,
            payload_type: chosen.payload_type,
            rtx: self.binding.rtx_ssrc.zip(chosen.rtx_payload_type),
            clock_rate_hz: chosen.clock_rate_hz,
            feedback: chosen.feedback,
            extensions,
        })
    }
}

impl PublishedSection {
    /// The codec of a payload type, RTX ones included.
    pub fn codec_of(&self, payload_type: u8) -> Option<&NegotiatedCodec> {
        self.codecs
            .iter()
            .find(|codec| codec.payload_type == payload_type || codec.rtx_payload_type == Some(payload_type))
    }
}
