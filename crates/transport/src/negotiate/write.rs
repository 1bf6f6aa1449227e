//! Writing descriptions, line by line in LiveKit's order.

use super::parameters::{LocalParameters, Origin};
use super::remote::MediaLine;
use super::section::{NegotiatedCodec, TrackBinding};
use super::{MAX_MESSAGE_SIZE_BYTES, SCTP_PORT};
use crate::sdp::{Direction, MediaKind};
use crate::{DtlsRole, Setup};
use fanlight_rtp::ExtensionMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// `a=setup` of an answer.
pub(super) const fn setup_of(role: DtlsRole) -> Setup {
    match role {
        DtlsRole::Active => Setup::Active,
        DtlsRole::Passive => Setup::Passive,
    }
}

const fn value(setup: Setup) -> &'static str {
    match setup {
        Setup::ActPass => "actpass",
        Setup::Active => "active",
        Setup::Passive => "passive",
    }
}

/// A description of ours, decided and not written yet: the media thread makes it, whoever sends it writes it.
///
/// [`ToString::to_string`] writes it in LiveKit's order of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDescription {
    pub(super) local: LocalParameters,
    pub(super) setup: Setup,
    pub(super) origin: Origin,
    /// `a=extmap-allow-mixed`.
    pub(super) mixed_extmap: bool,
    /// All sections but the rejected ones are one BUNDLE group.
    pub(super) bundle: bool,
    pub(super) sections: Vec<LocalSection>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LocalSection {
    /// Not taken, and kept in its place (RFC 3264 §6).
    Rejected {
        line: MediaLine,
        mid: String,
    },
    Data {
        protocol: String,
        mid: String,
    },
    Rtp(Box<LocalMedia>),
}

/// An RTP section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalMedia {
    pub(super) kind: MediaKind,
    pub(super) protocol: String,
    pub(super) mid: String,
    pub(super) codecs: Arc<[NegotiatedCodec]>,
    /// RTX right after its codec, as in our offers; otherwise after all codecs, as in our answers.
    pub(super) rtx_interleaved: bool,
    pub(super) extensions: ExtensionMap,
    pub(super) binding: Option<TrackBinding>,
    pub(super) rids: Vec<String>,
    pub(super) simulcast: Vec<String>,
    pub(super) direction: Direction,
}

impl LocalDescription {
    /// How many m-lines it has.
    pub fn sections(&self) -> usize {
        self.sections.len()
    }

    /// About how long it is when it is written; in memory it is shorter.
    pub fn bytes(&self) -> usize {
        const SECTION_BYTES: usize = 700;
        const CODEC_BYTES: usize = 250;
        let of_section = |section: &LocalSection| match section {
            LocalSection::Rtp(media) => media.codecs.len().saturating_mul(CODEC_BYTES),
            LocalSection::Rejected { .. } | LocalSection::Data { .. } => 0,
        };
        let codecs = self.sections.iter().map(of_section).fold(0, usize::saturating_add);
        codecs.saturating_add(self.sections.len().saturating_mul(SECTION_BYTES))
    }

    fn bundled(&self) -> Vec<&str> {
        if self.bundle {
            self.sections.iter().filter_map(LocalSection::live_mid).collect()
        } else {
            Vec::new()
        }
    }
}

impl LocalSection {
    /// The mid of a section that is in use.
    fn live_mid(&self) -> Option<&str> {
        match self {
            Self::Rejected { .. } => None,
            Self::Data { mid, .. } => Some(mid),
            Self::Rtp(media) => Some(&media.mid),
        }
    }
}

impl fmt::Display for LocalDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = Writer::new(self);
        for section in &self.sections {
            match section {
                LocalSection::Rejected { line, mid } => writer.rejected(line, mid),
                LocalSection::Data { protocol, mid } => writer.data(protocol, mid),
                LocalSection::Rtp(media) => writer.rtp(media),
            }
        }
        f.write_str(&writer.out)
    }
}

/// A description being written.
#[derive(Debug)]
struct Writer<'a> {
    out: String,
    local: &'a LocalParameters,
    setup: Setup,
    candidates_due: bool,
}

impl<'a> Writer<'a> {
    fn new(description: &'a LocalDescription) -> Self {
        let LocalDescription { local, setup, .. } = description;
        let mut writer =
            Self { out: String::with_capacity(4_096), local, setup: *setup, candidates_due: true };
        let Origin { session_id, version } = description.origin;
        writer.line(format_args!("v=0"));
        writer.line(format_args!("o=- {session_id} {version} IN IP4 0.0.0.0"));
        writer.line(format_args!("s=-"));
        writer.line(format_args!("t=0 0"));
        if local.ice_lite {
            writer.line(format_args!("a=ice-lite"));
        }
        writer.line(format_args!("a=msid-semantic:WMS *"));
        writer.line(format_args!("a=fingerprint:{}", local.fingerprint));
        if description.mixed_extmap {
            writer.line(format_args!("a=extmap-allow-mixed"));
        }
        let bundle = description.bundled();
        if !bundle.is_empty() {
            writer.line(format_args!("a=group:BUNDLE {}", bundle.join(" ")));
        }
        writer
    }

    fn rejected(&mut self, line: &MediaLine, mid: &str) {
        let MediaLine { media, protocol, format } = line;
        self.line(format_args!("m={media} 0 {protocol} {format}"));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        if !mid.is_empty() {
            self.line(format_args!("a=mid:{mid}"));
        }
        self.line(format_args!("a=inactive"));
    }

    fn data(&mut self, protocol: &str, mid: &str) {
        self.line(format_args!("m=application 9 {protocol} webrtc-datachannel"));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.line(format_args!("a=setup:{}", value(self.setup)));
        self.line(format_args!("a=mid:{mid}"));
        self.line(format_args!("a=sendrecv"));
        self.line(format_args!("a=sctp-port:{SCTP_PORT}"));
        self.line(format_args!("a=max-message-size:{MAX_MESSAGE_SIZE_BYTES}"));
        self.credentials();
        self.candidates();
    }

    fn rtp(&mut self, part: &LocalMedia) {
        self.media_line(part);
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.line(format_args!("a=setup:{}", value(self.setup)));
        self.line(format_args!("a=mid:{}", part.mid));
        self.credentials();
        self.line(format_args!("a=rtcp-mux"));
        // Also to Firefox, which does not offer it for audio and does not mind (recorded).
        self.line(format_args!("a=rtcp-rsize"));
        for codec in part.codecs.iter() {
            self.codec(codec);
            if part.rtx_interleaved {
                self.rtx(codec);
            }
        }
        if !part.rtx_interleaved {
            part.codecs.iter().for_each(|codec| self.rtx(codec));
        }
        for (id, kind) in part.extensions.iter() {
            self.line(format_args!("a=extmap:{id} {}", kind.uri()));
        }
        if let Some(binding) = &part.binding {
            self.binding(binding, part.codecs.iter().any(|codec| codec.rtx_payload_type.is_some()));
        }
        for rid in &part.rids {
            self.line(format_args!("a=rid:{rid} recv"));
        }
        if !part.simulcast.is_empty() {
            self.line(format_args!("a=simulcast:recv {}", part.simulcast.join(";")));
        }
        self.line(format_args!("a={}", part.direction.as_str()));
        self.candidates();
    }

    fn media_line(&mut self, part: &LocalMedia) {
        let media = if part.kind == MediaKind::Audio { "audio" } else { "video" };
        let rtx = part.codecs.iter().filter_map(|codec| codec.rtx_payload_type);
        let formats: Vec<String> = if part.rtx_interleaved {
            let pairs =
                part.codecs.iter().flat_map(|codec| [Some(codec.payload_type), codec.rtx_payload_type]);
            pairs.flatten().map(|payload_type| payload_type.to_string()).collect()
        } else {
            let primary = part.codecs.iter().map(|codec| codec.payload_type);
            primary.chain(rtx).map(|payload_type| payload_type.to_string()).collect()
        };
        self.line(format_args!("m={media} 9 {} {}", part.protocol, formats.join(" ")));
    }

    fn codec(&mut self, codec: &NegotiatedCodec) {
        let NegotiatedCodec { payload_type, clock_rate_hz, .. } = codec;
        let name = codec.codec.name();
        match codec.channels {
            1 => self.line(format_args!("a=rtpmap:{payload_type} {name}/{clock_rate_hz}")),
            channels => self.line(format_args!("a=rtpmap:{payload_type} {name}/{clock_rate_hz}/{channels}")),
        }
        if !codec.fmtp.is_empty() {
            self.line(format_args!("a=fmtp:{payload_type} {}", codec.fmtp));
        }
        for value in codec.feedback.values() {
            self.line(format_args!("a=rtcp-fb:{payload_type} {value}"));
        }
    }

    fn rtx(&mut self, codec: &NegotiatedCodec) {
        let Some(rtx) = codec.rtx_payload_type else { return };
        self.line(format_args!("a=rtpmap:{rtx} rtx/{}", codec.clock_rate_hz));
        self.line(format_args!("a=fmtp:{rtx} apt={}", codec.payload_type));
    }

    fn binding(&mut self, binding: &TrackBinding, rtx_taken: bool) {
        let TrackBinding { track_id, stream_id, ssrc, .. } = binding;
        let rtx = binding.rtx_ssrc.filter(|_| rtx_taken);
        if let Some(rtx) = rtx {
            self.line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
        }
        for ssrc in std::iter::once(*ssrc).chain(rtx) {
            self.line(format_args!("a=ssrc:{ssrc} cname:{stream_id}"));
            self.line(format_args!("a=ssrc:{ssrc} msid:{stream_id} {track_id}"));
            self.line(format_args!("a=ssrc:{ssrc} mslabel:{stream_id}"));
            self.line(format_args!("a=ssrc:{ssrc} label:{track_id}"));
        }
        self.line(format_args!("a=msid:{stream_id} {track_id}"));
    }

    fn credentials(&mut self) {
        let local = self.local;
        self.line(format_args!("a=ice-ufrag:{}", local.ice_ufrag));
        self.line(format_args!("a=ice-pwd:{}", local.ice_pwd.reveal()));
    }

    /// Into the first section in use: with BUNDLE it carries the transport of all.
    fn candidates(&mut self) {
        if !std::mem::take(&mut self.candidates_due) {
            return;
        }
        let local = self.local;
        for candidate in &local.candidates {
            self.line(format_args!("a={candidate}"));
        }
        if local.end_of_candidates {
            self.line(format_args!("a=end-of-candidates"));
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _ = self.out.write_fmt(line);
        self.out.push_str("\r\n");
    }
}
