//! Codecs: which are taken, which are offered, and how a payload type is recognised.

use super::remote::RemoteCodec;
use crate::sdp::{Feedback, MediaKind, PayloadFormat};
use std::sync::Arc;

/// A codec of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Opus (RFC 7587).
    Opus,
    /// Redundant audio around Opus (RFC 2198).
    Red,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// VP8 (RFC 7741).
    Vp8,
    /// H.264 (RFC 6184).
    H264,
    /// VP9 (RFC 9628).
    Vp9,
    /// AV1.
    Av1,
    /// H.265 (RFC 7798).
    H265,
}

impl Codec {
    /// All of them, in the order in which LiveKit lists video codecs.
    pub const ALL: [Self; 9] = [
        Self::Vp8,
        Self::H264,
        Self::Vp9,
        Self::Av1,
        Self::H265,
        Self::Pcmu,
        Self::Pcma,
        Self::Opus,
        Self::Red,
    ];

    /// Audio or video.
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::Opus | Self::Red | Self::Pcmu | Self::Pcma => MediaKind::Audio,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 | Self::H265 => MediaKind::Video,
        }
    }

    /// MIME type as LiveKit spells it.
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Opus => "audio/opus",
            Self::Red => "audio/red",
            Self::Pcmu => "audio/PCMU",
            Self::Pcma => "audio/PCMA",
            Self::Vp8 => "video/VP8",
            Self::H264 => "video/H264",
            Self::Vp9 => "video/VP9",
            Self::Av1 => "video/AV1",
            Self::H265 => "video/H265",
        }
    }

    /// Encoding name in `rtpmap`.
    pub fn name(self) -> &'static str {
        self.mime().split_once('/').map_or("", |(_, name)| name)
    }

    /// From `vp8`, `VP8` or `video/VP8`.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.rsplit('/').next()?;
        Self::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// RTP clock rate in Hz.
    pub const fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Opus | Self::Red => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 | Self::H265 => 90_000,
        }
    }

    /// Channels in `rtpmap`.
    pub const fn channels(self) -> u8 {
        match self {
            Self::Opus | Self::Red => 2,
            _ => 1,
        }
    }

    /// The codec of a payload type.
    pub(super) fn of(kind: MediaKind, format: &PayloadFormat<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| {
            codec.kind() == kind
                && codec.name().eq_ignore_ascii_case(format.name)
                && codec.clock_rate_hz() == format.clock_rate_hz
                && codec.channels() == format.channels
        })
    }
}

/// The codecs a node lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnabledCodecs(Vec<Codec>);

impl EnabledCodecs {
    /// Just these.
    pub fn new(codecs: impl IntoIterator<Item = Codec>) -> Self {
        let mut enabled: Vec<Codec> = Vec::new();
        for codec in codecs {
            if !enabled.contains(&codec) {
                enabled.push(codec);
            }
        }
        Self(enabled)
    }

    /// Whether this one is among them.
    pub fn contains(&self, codec: Codec) -> bool {
        self.0.contains(&codec)
    }

    /// The same without one codec.
    #[must_use]
    pub fn without(&self, codec: Codec) -> Self {
        Self(self.0.iter().copied().filter(|kept| *kept != codec).collect())
    }

    /// In the order given.
    pub fn iter(&self) -> impl Iterator<Item = Codec> {
        self.0.iter().copied()
    }
}

impl Default for EnabledCodecs {
    /// All but H.265, whose payload is not read yet.
    fn default() -> Self {
        Self::new(Codec::ALL).without(Codec::H265)
    }
}

/// Who sends with the codec: a publisher may use more profiles than we ask subscribers to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Published,
    Subscribed,
}

/// A payload type we take, with its RTX.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted<'a> {
    pub(super) offered: &'a RemoteCodec,
    pub(super) rtx_payload_type: Option<u8>,
}

/// The payload types of a section that we take, in its order, without the RTX ones.
pub(super) fn accept<'a>(codecs: &'a [RemoteCodec], enabled: &EnabledCodecs, used: Use) -> Vec<Accepted<'a>> {
    let is_taken = |entry: &RemoteCodec| match (entry.codec, used) {
        // Around what is not taken, RED says nothing.
        (Codec::Red, _) if !enabled.contains(Codec::Opus) => false,
        (codec, Use::Published) => entry.profile.from_publishers && enabled.contains(codec),
        (codec, Use::Subscribed) => entry.profile.to_subscribers && enabled.contains(codec),
    };
    codecs
        .iter()
        .filter(|entry| is_taken(entry))
        .map(|offered| Accepted { offered, rtx_payload_type: offered.rtx_payload_type })
        .collect()
}

/// Which way media of a format may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) from_publishers: bool,
    pub(super) to_subscribers: bool,
}

/// H.264 baseline both ways, high from publishers only; VP9 profile 0, for subscribers 1 too; AV1 main (recorded).
pub(super) fn profile(codec: Codec, fmtp: &str) -> Profile {
    let (from_publishers, to_subscribers) = match codec {
        Codec::H264 => match h264_profile(fmtp) {
            0x42 => (true, true),
            0x64 => (true, false),
            _ => (false, false),
        },
        Codec::Vp9 => match parameter(fmtp, "profile-id").unwrap_or("0") {
            "0" => (true, true),
            "1" => (false, true),
            _ => (false, false),
        },
        Codec::Av1 => {
            let main = parameter(fmtp, "profile").unwrap_or("0") == "0";
            (main, main)
        }
        _ => (true, true),
    };
    Profile { from_publishers, to_subscribers }
}

/// `profile_idc` of `profile-level-id`; baseline when missing (RFC 6184 §8.1).
fn h264_profile(fmtp: &str) -> u8 {
    parameter(fmtp, "profile-level-id")
        .and_then(|id| id.get(..2))
        .and_then(|profile| u8::from_str_radix(profile, 16).ok())
        .unwrap_or(0x42)
}

/// How well a payload type suits a stream of this codec and format; `None`: not at all, larger is better.
pub(super) fn suitability(offered: (Codec, &str), stream: (Codec, &str)) -> Option<u8> {
    if offered.0 != stream.0 {
        return None;
    }
    let (offered_fmtp, stream_fmtp) = (offered.1, stream.1);
    let same = |name, default| {
        parameter(offered_fmtp, name).unwrap_or(default) == parameter(stream_fmtp, name).unwrap_or(default)
    };
    match stream.0 {
        Codec::H264 => {
            let mode = |fmtp, default| parameter(fmtp, "packetization-mode").unwrap_or(default) == "1";
            // A mode 0 receiver may fail on fragmented units; what a publisher does not say is taken for mode 1.
            let (takes, sends) = (mode(offered_fmtp, "0"), mode(stream_fmtp, "1"));
            if sends && !takes {
                return None;
            }
            let profile = u8::from(h264_profile(offered_fmtp) == h264_profile(stream_fmtp));
            let constraints = u8::from(constraints(offered_fmtp) == constraints(stream_fmtp));
            Some(u8::from(takes == sends) * 4 + profile * 2 + constraints)
        }
        Codec::Vp9 => same("profile-id", "0").then_some(0),
        Codec::Av1 => same("profile", "0").then_some(0),
        _ => Some(0),
    }
}

fn constraints(fmtp: &str) -> &str {
    parameter(fmtp, "profile-level-id").and_then(|id| id.get(..4)).unwrap_or("42e0")
}

fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    crate::sdp::format_parameters(fmtp)
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// One codec of our own offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnCodec {
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
    pub(super) rtx_payload_type: Option<u8>,
    pub(super) fmtp: Arc<str>,
    pub(super) feedback: Feedback,
}

/// LiveKit's payload types (livekit.md §2.2); RTX is the next number.
const OWN: &[(Codec, u8, &str)] = &[
    (Codec::Opus, 111, "minptime=10;useinbandfec=1"),
    (Codec::Red, 63, "111/111"),
    (Codec::Pcmu, 0, ""),
    (Codec::Pcma, 8, ""),
    (Codec::Vp8, 96, ""),
    (Codec::Vp9, 98, "profile-id=0"),
    (Codec::Vp9, 100, "profile-id=1"),
    (Codec::H264, 125, "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f"),
    (Codec::H264, 108, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
    (Codec::H264, 104, "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f"),
    (Codec::H264, 102, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
    (Codec::Av1, 35, ""),
    (Codec::H265, 116, ""),
];

/// What our offers begin with. `red` says whether the client takes RED: if so, lost Opus is not asked for again.
pub(super) fn own(kind: MediaKind, enabled: &EnabledCodecs, red: bool, send_side_bwe: bool) -> Vec<OwnCodec> {
    let video = Feedback {
        nack: true,
        nack_pli: true,
        ccm_fir: true,
        goog_remb: !send_side_bwe,
        transport_cc: send_side_bwe,
    };
    OWN.iter()
        .filter(|(codec, ..)| codec.kind() == kind && enabled.contains(*codec))
        .filter(|(codec, ..)| *codec != Codec::Red || enabled.contains(Codec::Opus))
        .map(|(codec, payload_type, fmtp)| OwnCodec {
            codec: *codec,
            payload_type: *payload_type,
            rtx_payload_type: (kind == MediaKind::Video).then(|| payload_type.saturating_add(1)),
            fmtp: (*fmtp).into(),
            feedback: match codec.kind() {
                MediaKind::Video => video,
                _ => Feedback { nack: audio_nack(*codec, red), ..Feedback::default() },
            },
        })
        .collect()
}

fn audio_nack(codec: Codec, red: bool) -> bool {
    match codec {
        Codec::Opus => !red,
        Codec::Pcmu | Codec::Pcma => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_is_recognised_however_it_is_spelled() {
        assert_eq!(Codec::parse("vp8"), Some(Codec::Vp8));
        assert_eq!(Codec::parse("audio/OPUS"), Some(Codec::Opus));
        assert_eq!(Codec::parse("video/theora"), None);
    }

    #[test]
    fn h264_modes_are_not_mixed_up() {
        let mode1 = "packetization-mode=1;profile-level-id=42e01f";
        let mode0 = "packetization-mode=0;profile-level-id=42e01f";
        let suits = |offered, stream| suitability((Codec::H264, offered), (Codec::H264, stream));
        assert_eq!(suits(mode0, mode1), None);
        assert_eq!(suits(mode1, mode1), Some(7));
        assert_eq!(suits(mode1, "packetization-mode=1;profile-level-id=42001f"), Some(6));
        assert_eq!(suits(mode1, mode0), Some(3));
        assert_eq!(suits("", mode0), Some(7));
    }

    #[test]
    fn own_payload_types_are_unique() {
        let codecs: Vec<_> = [MediaKind::Audio, MediaKind::Video]
            .into_iter()
            .flat_map(|kind| own(kind, &EnabledCodecs::new(Codec::ALL), true, false))
            .flat_map(|codec| [Some(codec.payload_type), codec.rtx_payload_type])
            .flatten()
            .collect();
        let mut unique = codecs.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), codecs.len());
        assert!(unique.iter().all(|payload_type| *payload_type < 128));
    }
}
