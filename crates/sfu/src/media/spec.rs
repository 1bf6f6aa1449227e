//! What the room tells its media plane, and what it hears back: plain values.

use crate::model::Kind;
use fanlight_rtp::ExtensionMap;

pub(crate) use super::slots::Slot;

/// A published track inside this room's media (one for each m-line; a backup codec is another one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TrackKey(pub(super) Slot);

/// A subscription to a track inside this room's media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DownKey(pub(super) Slot);

/// One codec a publisher may send on an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishCodec {
    /// Payload type.
    pub(crate) payload_type: u8,
    /// Payload type of its RTX (`apt`).
    pub(crate) rtx_payload_type: Option<u8>,
    /// MIME type as LiveKit writes it: `video/VP8`, `audio/opus`, `audio/red`, …
    pub(crate) mime: String,
    /// Clock rate in Hz.
    pub(crate) clock_rate: u32,
    /// `a=rtcp-fb … nack` stands in our answer.
    pub(crate) nack: bool,
}

/// An SSRC that the description declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublishSsrc {
    /// Of the media.
    pub(crate) ssrc: u32,
    /// Of its RTX (`ssrc-group:FID`).
    pub(crate) repair_ssrc: Option<u32>,
    /// 0 is the lowest; the place in `ssrc-group:SIM`.
    pub(crate) spatial: u8,
}

/// A track to be received, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Transport it comes on.
    pub(crate) transport: super::TransportId,
    /// Audio or video.
    pub(crate) kind: Kind,
    /// Its m-line.
    pub(crate) mid: String,
    /// Codecs of the m-line.
    pub(crate) codecs: Vec<PublishCodec>,
    /// Ids of the m-line.
    pub(crate) extensions: ExtensionMap,
    /// `a=rid` of the m-line in the order of the description; empty without simulcast. The quality order is made here:
    /// `q` < `h` < `f`, `2` < `1` < `0`, otherwise as declared.
    pub(crate) rids: Vec<String>,
    /// SSRCs that the description declares; those of RID simulcast are learnt from packets.
    pub(crate) ssrcs: Vec<PublishSsrc>,
    /// `transport-cc` stands in our answer for this m-line.
    pub(crate) transport_cc: bool,
}

/// What a subscriber gets for a codec of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscribeCodec {
    /// The publisher's payload type.
    pub(crate) published: u8,
    /// The subscriber's payload type.
    pub(crate) payload_type: u8,
    /// The subscriber's payload type of RTX.
    pub(crate) rtx_payload_type: Option<u8>,
    /// The publisher sends RED (RFC 2198) and the subscriber takes the primary block only.
    pub(crate) strip_red: bool,
}

/// A track to be sent, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscribe {
    /// Transport it goes out on.
    pub(crate) transport: super::TransportId,
    /// The track.
    pub(crate) track: TrackKey,
    /// SSRC announced to the subscriber.
    pub(crate) ssrc: u32,
    /// SSRC of its RTX; needed where a codec has an RTX payload type.
    pub(crate) rtx_ssrc: Option<u32>,
    /// Codecs the subscriber takes; packets with others are dropped with a reason.
    pub(crate) codecs: Vec<SubscribeCodec>,
    /// Ids of the subscriber's m-line.
    pub(crate) extensions: ExtensionMap,
    /// Its m-line.
    pub(crate) mid: String,
    /// CNAME announced with the SSRC (`a=ssrc:… cname:`).
    pub(crate) cname: String,
    /// Highest spatial layer wanted, 0 is the lowest.
    pub(crate) max_spatial: u8,
    /// Whether anything is sent at all for now.
    pub(crate) enabled: bool,
}

/// What happened to media that signalling or the record has to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MediaEvent {
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
