//! From negotiated sections to what the media plane is told.

use crate::input::TrackSettings;
use crate::media::{Publish, PublishCodec, PublishSsrc, SubscribeCodec, TransportId};
use crate::model::{Kind, TrackInfo};
use fanlight_rtp::ExtensionKind;
use fanlight_transport::negotiate::{Codec, NegotiatedSection, PublishedSection};

/// A track to be received on this section.
pub(crate) fn publish_spec(transport: TransportId, kind: Kind, section: &PublishedSection) -> Publish {
    Publish {
        transport,
        kind,
        mid: section.mid.clone(),
        codecs: section
            .codecs
            .iter()
            .map(|codec| PublishCodec {
                payload_type: codec.payload_type,
                rtx_payload_type: codec.rtx_payload_type,
                mime: codec.codec.mime().to_owned(),
                clock_rate: codec.clock_rate_hz,
                nack: codec.feedback.nack,
            })
            .collect(),
        extensions: section.extensions,
        rids: section.rids.clone(),
        ssrcs: ssrcs(section),
        transport_cc: section.extensions.id(ExtensionKind::TransportCc).is_some()
            && section.codecs.iter().any(|codec| codec.feedback.transport_cc),
    }
}

/// The media SSRCs of a section with their RTX; with RIDs they are learnt from packets instead.
fn ssrcs(section: &PublishedSection) -> Vec<PublishSsrc> {
    if !section.rids.is_empty() {
        return Vec::new();
    }
    let is_rtx = |ssrc: u32| section.rtx_pairs.iter().any(|(_, repair)| *repair == ssrc);
    let first = section.ssrcs.iter().copied().find(|ssrc| !is_rtx(*ssrc));
    let media: Vec<u32> = if section.simulcast_ssrcs.is_empty() {
        first.into_iter().collect()
    } else {
        section.simulcast_ssrcs.clone()
    };
    (0..)
        .zip(media)
        .map(|(spatial, ssrc)| PublishSsrc {
            ssrc,
            repair_ssrc: section
                .rtx_pairs
                .iter()
                .find(|(media, _)| *media == ssrc)
                .map(|(_, repair)| *repair),
            spatial,
        })
        .collect()
}

/// What a subscriber gets for each codec of a publisher's section; codecs it does not take are missing.
pub(crate) fn subscribe_codecs(
    section: &NegotiatedSection,
    published: &PublishedSection,
    info: &TrackInfo,
    no_red: bool,
) -> Vec<SubscribeCodec> {
    let mut codecs = Vec::new();
    for codec in published.codecs.iter() {
        let direct = section.send_parameters(codec.codec, &codec.fmtp);
        let direct = direct.filter(|_| codec.codec != Codec::Red || !no_red);
        // An encrypted block cannot be taken out of its packet: the frame was encrypted as a whole.
        let strip = codec.codec == Codec::Red && direct.is_none() && info.encryption == 0;
        let opus = || strip.then(|| section.send_parameters(Codec::Opus, ""))?;
        if let Some(parameters) = direct.or_else(opus) {
            codecs.push(SubscribeCodec {
                published: codec.payload_type,
                payload_type: parameters.payload_type,
                rtx_payload_type: parameters.rtx.map(|(_, payload_type)| payload_type),
                strip_red: strip,
            });
        }
    }
    codecs
}

/// Whether one of these codecs is what the publisher sends.
pub(crate) fn takes(codecs: &[SubscribeCodec], published: &PublishedSection, mime: &str) -> bool {
    let sent = published.codecs.iter().filter(|codec| codec.codec.mime().eq_ignore_ascii_case(mime));
    let mut sent = sent.map(|codec| codec.payload_type);
    sent.any(|payload_type| codecs.iter().any(|codec| codec.published == payload_type))
}

/// LiveKit's `VideoQuality.LOW`.
const QUALITY_LOW: i32 = 0;
/// LiveKit's `VideoQuality.HIGH`.
const QUALITY_HIGH: i32 = 2;

/// The highest spatial layer a subscriber wants: by the size it shows if it says so, else by quality; before it says
/// anything, the lowest with adaptive streams and the highest without (livekit.md §2.5).
pub(crate) fn max_spatial(info: &TrackInfo, settings: Option<&TrackSettings>, adaptive: bool) -> u8 {
    let default = if adaptive { QUALITY_LOW } else { QUALITY_HIGH };
    let portrait = info.width < info.height;
    let side = |width: u32, height: u32| if portrait { width } else { height };
    let enough = match settings {
        Some(settings) if settings.width > 0 && settings.height > 0 => {
            let wanted = side(settings.width, settings.height);
            info.layers.iter().position(|layer| side(layer.width, layer.height) >= wanted)
        }
        _ => {
            let quality = settings.map_or(default, |settings| settings.quality);
            info.layers.iter().position(|layer| layer.quality >= quality)
        }
    };
    match enough {
        // The last layer declared means all there are: clients may send more than they declare.
        Some(index) if index + 1 < info.layers.len() => u8::try_from(index).unwrap_or(u8::MAX),
        _ => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Source, VideoLayer};
    use fanlight_base::TrackSid;
    use fanlight_rtp::ExtensionMap;
    use fanlight_transport::negotiate::{NegotiatedCodec, TrackBinding};
    use fanlight_transport::sdp::{Direction, Feedback, MediaKind};

    fn info() -> TrackInfo {
        let layer = |quality, width, height| VideoLayer { quality, width, height, ..VideoLayer::default() };
        TrackInfo {
            sid: TrackSid::from("TR_VC1"),
            kind: Kind::Video,
            name: String::new(),
            muted: false,
            width: 1280,
            height: 720,
            simulcast: true,
            source: Source::CAMERA,
            layers: vec![layer(0, 320, 180), layer(1, 640, 360), layer(2, 1280, 720)],
            mime_type: String::new(),
            mid: String::new(),
            codecs: Vec::new(),
            stream: String::new(),
            disable_dtx: false,
            stereo: false,
            disable_red: false,
            encryption: 0,
            version_unix_us: 0,
            audio_features: Vec::new(),
            backup_codec_policy: 0,
        }
    }

    fn codec(codec: Codec, payload_type: u8, rtx: Option<u8>) -> NegotiatedCodec {
        NegotiatedCodec {
            codec,
            payload_type,
            rtx_payload_type: rtx,
            clock_rate_hz: codec.clock_rate_hz(),
            channels: codec.channels(),
            fmtp: "".into(),
            feedback: Feedback::default(),
        }
    }

    fn published(codecs: Vec<NegotiatedCodec>) -> PublishedSection {
        PublishedSection {
            mid: "1".into(),
            kind: MediaKind::Audio,
            direction: Direction::SendOnly,
            stream_id: None,
            track_id: None,
            codecs: codecs.into(),
            extensions: ExtensionMap::new(),
            rids: Vec::new(),
            ssrcs: vec![5, 6, 7],
            rtx_pairs: vec![(5, 6)],
            simulcast_ssrcs: Vec::new(),
        }
    }

    fn section(codecs: Vec<NegotiatedCodec>) -> NegotiatedSection {
        NegotiatedSection {
            mid: "1".into(),
            binding: TrackBinding {
                kind: MediaKind::Audio,
                track_id: "TR_AM1".into(),
                stream_id: "PA_1|TR_AM1".into(),
                ssrc: 1,
                rtx_ssrc: Some(2),
                stereo: false,
            },
            codecs: codecs.into(),
            extensions: ExtensionMap::new(),
        }
    }

    #[test]
    fn a_subscriber_gets_the_layer_it_shows() {
        let shown = |width, height| {
            let settings = TrackSettings { width, height, ..TrackSettings::default() };
            max_spatial(&info(), Some(&settings), true)
        };
        assert_eq!(
            (shown(100, 100), shown(640, 360), shown(641, 361), shown(4000, 3000)),
            (0, 1, u8::MAX, u8::MAX)
        );
        let quality = |quality| {
            let settings = TrackSettings { quality, ..TrackSettings::default() };
            max_spatial(&info(), Some(&settings), false)
        };
        assert_eq!((quality(0), quality(1), quality(2)), (0, 1, u8::MAX));
        assert_eq!((max_spatial(&info(), None, true), max_spatial(&info(), None, false)), (0, u8::MAX));
    }

    #[test]
    fn red_is_passed_taken_apart_or_dropped() {
        let from = published(vec![codec(Codec::Red, 63, None), codec(Codec::Opus, 111, None)]);
        let mut info = info();
        let both = section(vec![codec(Codec::Opus, 109, None), codec(Codec::Red, 60, None)]);
        let passed = subscribe_codecs(&both, &from, &info, false);
        assert_eq!(
            passed.iter().map(|c| (c.published, c.payload_type, c.strip_red)).collect::<Vec<_>>(),
            [(63, 60, false), (111, 109, false)]
        );
        let apart = subscribe_codecs(&both, &from, &info, true);
        assert_eq!((apart[0].published, apart[0].payload_type, apart[0].strip_red), (63, 109, true));
        assert!(takes(&apart, &from, "audio/red"));

        info.encryption = 1;
        let dropped = subscribe_codecs(&both, &from, &info, true);
        assert!(!takes(&dropped, &from, "audio/red") && takes(&dropped, &from, "audio/opus"));
    }

    #[test]
    fn ssrcs_are_declared_only_without_rids() {
        let mut section = published(vec![codec(Codec::Vp8, 96, Some(97))]);
        assert_eq!(ssrcs(&section), [PublishSsrc { ssrc: 5, repair_ssrc: Some(6), spatial: 0 }]);
        section.simulcast_ssrcs = vec![5, 7];
        assert_eq!(ssrcs(&section).len(), 2);
        section.rids = vec!["q".into()];
        assert!(ssrcs(&section).is_empty());
    }
}
