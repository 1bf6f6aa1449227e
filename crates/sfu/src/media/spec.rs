//! What the room tells its media plane, and what it hears back: plain values.

use crate::model::Kind;
use fanlight_rtp::ExtensionMap;

pub use super::slots::Slot;

/// A published track inside this room's media (one for each m-line; a backup codec is another one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackKey(pub(super) Slot);

/// A subscription to a track inside this room's media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DownKey(pub(super) Slot);

/// One codec a publisher may send on an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishCodec {
    /// Payload type.
    pub payload_type: u8,
    /// Payload type of its RTX (`apt`).
    pub rtx_payload_type: Option<u8>,
    /// MIME type as LiveKit writes it: `video/VP8`, `audio/opus`, `audio/red`, …
    pub mime: String,
    /// Clock rate in Hz.
    pub clock_rate: u32,
    /// `a=rtcp-fb … nack` stands in our answer.
    pub nack: bool,
}

/// An SSRC that the description declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishSsrc {
    /// Of the media.
    pub ssrc: u32,
    /// Of its RTX (`ssrc-group:FID`).
    pub repair_ssrc: Option<u32>,
    /// 0 is the lowest; the place in `ssrc-group:SIM`.
    pub spatial: u8,
}

/// A track to be received, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Transport it comes on.
    pub transport: super::TransportId,
    /// Audio or video.
    pub kind: Kind,
    /// Its m-line.
    pub mid: String,
    /// Codecs of the m-line.
    pub codecs: Vec<PublishCodec>,
    /// Ids of the m-line.
    pub extensions: ExtensionMap,
    /// `a=rid` of the m-line in the order of the description; empty without simulcast. The quality order is made here:
    /// `q` < `h` < `f`, `2` < `1` < `0`, otherwise as declared.
    pub rids: Vec<String>,
    /// SSRCs that the description declares; those of RID simulcast are learnt from packets.
    pub ssrcs: Vec<PublishSsrc>,
    /// `transport-cc` stands in our answer for this m-line.
    pub transport_cc: bool,
}

/// What a subscriber gets for a codec of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeCodec {
    /// The publisher's payload type.
    pub published: u8,
    /// The subscriber's payload type.
    pub payload_type: u8,
    /// The subscriber's payload type of RTX.
    pub rtx_payload_type: Option<u8>,
    /// The publisher sends RED (RFC 2198) and the subscriber takes the primary block only.
    pub strip_red: bool,
}

/// A track to be sent, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Transport it goes out on.
    pub transport: super::TransportId,
    /// The track.
    pub track: TrackKey,
    /// SSRC announced to the subscriber.
    pub ssrc: u32,
    /// SSRC of its RTX; needed where a codec has an RTX payload type.
    pub rtx_ssrc: Option<u32>,
    /// Codecs the subscriber takes; packets with others are dropped with a reason.
    pub codecs: Vec<SubscribeCodec>,
    /// Ids of the subscriber's m-line.
    pub extensions: ExtensionMap,
    /// Its m-line.
    pub mid: String,
    /// CNAME announced with the SSRC (`a=ssrc:… cname:`).
    pub cname: String,
    /// Highest spatial layer wanted, 0 is the lowest.
    pub max_spatial: u8,
    /// Whether anything is sent at all for now.
    pub enabled: bool,
}

/// What happened to media that signalling or the record has to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    /// The first packet with media of a track came.
    FirstPacket {
        /// The track.
        track: TrackKey,
        /// MIME type of its codec.
        mime: String,
        /// RID, empty without simulcast.
        rid: String,
        /// Spatial layer.
        spatial: u8,
        /// SSRC.
        ssrc: u32,
    },
    /// A layer was seen for the first time, or under a new SSRC, or its RTX SSRC became known.
    LayerSeen {
        /// The track.
        track: TrackKey,
        /// RID, empty without simulcast.
        rid: String,
        /// Spatial layer.
        spatial: u8,
        /// SSRC.
        ssrc: u32,
        /// SSRC of its RTX; 0 until known.
        repair_ssrc: u32,
    },
    /// The publisher sends another codec of the m-line now.
    CodecChanged {
        /// The track.
        track: TrackKey,
        /// MIME type.
        mime: String,
    },
    /// The first packet of a subscription went out.
    FirstForwarded {
        /// The subscription.
        down: DownKey,
    },
}
