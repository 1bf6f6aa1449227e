//! A client's description as offers and answers deal with it: typed and bounded sections, read once.

use super::NegotiateError;
use super::codec::{self, Codec, Profile};
use super::parameters::{DataSection, RemoteTransport};
use crate::sdp::{
    Direction, ExtMap, Feedback, MediaKind, MediaSection, Msid, PayloadFormat, Rid, RidDirection,
    SECTION_ITEMS_MAX, SdpError, SessionDescription, Simulcast, SsrcGroup,
};
use fanlight_rtp::ExtensionKind;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest mid. Clients count, and a one-byte header extension holds 16 bytes (RFC 8843 §15.2).
pub(super) const MID_BYTES_MAX: usize = 64;
/// Longest stream or track id of an msid that is heeded; the ids of clients are UUIDs.
const MSID_BYTES_MAX: usize = 256;
/// The codec tables that a section's is compared with, so that equal ones are kept once: clients have one for audio and
/// two for video.
const TABLES_COMPARED: usize = 4;

/// Why a text is not a description that can be negotiated with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteDescriptionError {
    /// It is no session description, or too large a one.
    #[error(transparent)]
    Sdp(#[from] SdpError),
    /// It is one and lacks what a connection needs.
    #[error(transparent)]
    Unusable(#[from] NegotiateError),
}

/// What a client's offer or answer says, as far as it matters. Making one costs some µs a section and needs nothing of
/// the connection, so that it is done by whoever received the text and not by the media thread.
#[derive(Debug, Clone)]
pub struct RemoteDescription {
    transport: RemoteTransport,
    pub(super) sections: Vec<RemoteSection>,
    /// There is a BUNDLE group.
    pub(super) bundle: bool,
    /// `a=extmap-allow-mixed`.
    pub(super) mixed_extmap: bool,
    bytes: usize,
}

/// One m-line.
#[derive(Debug, Clone)]
pub(super) struct RemoteSection {
    pub(super) kind: MediaKind,
    /// Empty for none, which only a rejected section may have.
    pub(super) mid: String,
    pub(super) rejected: bool,
    /// Stands in the BUNDLE group.
    pub(super) bundled: bool,
    pub(super) direction: Direction,
    pub(super) line: MediaLine,
    pub(super) body: Body,
}

/// What an answer repeats of an m-line that it rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaLine {
    pub(super) media: String,
    pub(super) protocol: String,
    /// The first one.
    pub(super) format: String,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Rtp(Box<RemoteMedia>),
    Data(DataSection),
    /// Nothing we know.
    Other,
}

/// What is said of audio or video.
#[derive(Debug, Clone)]
pub(super) struct RemoteMedia {
    /// Those we know, in the client's order; shared by all sections of a description that say the same.
    pub(super) codecs: Arc<[RemoteCodec]>,
    /// Those we know.
    pub(super) extensions: Vec<RemoteExtension>,
    pub(super) stream_id: Option<String>,
    pub(super) track_id: Option<String>,
    /// RIDs the client sends, in the order of the `a=rid` lines.
    pub(super) rids: Vec<String>,
    /// RIDs the client sends, in the order of `a=simulcast` (first alternatives).
    pub(super) simulcast: Vec<String>,
    pub(super) ssrcs: Vec<u32>,
    pub(super) rtx_pairs: Vec<(u32, u32)>,
    pub(super) simulcast_ssrcs: Vec<u32>,
}

/// A payload type whose codec we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteCodec {
    pub(super) codec: Codec,
    pub(super) payload_type: u8,
    pub(super) rtx_payload_type: Option<u8>,
    pub(super) fmtp: Arc<str>,
    pub(super) profile: Profile,
    pub(super) feedback: Feedback,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteExtension {
    pub(super) id: u8,
    pub(super) direction: Option<Direction>,
    pub(super) kind: ExtensionKind,
}

impl RemoteDescription {
    /// Reads the text of an offer or answer.
    ///
    /// # Errors
    /// [`RemoteDescriptionError`]: no SDP within the limits of [`crate::sdp`], or one without m-line, ICE credentials,
    /// fingerprint or distinct mids.
    pub fn parse(text: &str) -> Result<Self, RemoteDescriptionError> {
        Ok(Self::read(&SessionDescription::parse(text)?)?)
    }

    /// Reads a description.
    ///
    /// # Errors
    /// [`NegotiateError`].
    pub fn read(sdp: &SessionDescription) -> Result<Self, NegotiateError> {
        let transport = RemoteTransport::read(sdp)?;
        if sdp.sections().len() == 0 {
            return Err(NegotiateError::NoSections);
        }
        let bundle: Option<BTreeSet<&str>> = sdp.bundle().map(|mids| mids.into_iter().collect());
        let (mut mids, mut tables) = (BTreeSet::new(), Vec::new());
        let mut sections = Vec::with_capacity(sdp.sections().len());
        for section in sdp.sections() {
            let mid = section.mid().filter(|mid| mid.len() <= MID_BYTES_MAX);
            if !section.is_rejected() {
                let mid = mid.ok_or(NegotiateError::NoMid { index: section.index() })?;
                if !mids.insert(mid) {
                    return Err(NegotiateError::DuplicateMid { mid: mid.to_owned() });
                }
            }
            let bundled = bundle.as_ref().is_some_and(|mids| mid.is_some_and(|mid| mids.contains(mid)));
            sections.push(RemoteSection::read(&section, mid.unwrap_or_default(), bundled, &mut tables));
        }
        Ok(Self {
            transport,
            sections,
            bundle: bundle.is_some(),
            mixed_extmap: sdp.allows_mixed_extmap(),
            bytes: sdp.as_str().len(),
        })
    }

    /// How many m-lines it has.
    pub fn sections(&self) -> usize {
        self.sections.len()
    }

    /// Length of its text.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it says of ICE and DTLS.
    pub fn transport(&self) -> &RemoteTransport {
        &self.transport
    }

    /// How many codecs, header extensions, RIDs and SSRCs its sections have together: what is walked when it is
    /// negotiated. At most some hundred in each section.
    pub fn items(&self) -> usize {
        let of_section = |section: &RemoteSection| match &section.body {
            Body::Rtp(media) => [
                media.codecs.len(),
                media.extensions.len(),
                media.rids.len(),
                media.simulcast.len(),
                media.ssrcs.len(),
                media.rtx_pairs.len(),
                media.simulcast_ssrcs.len(),
            ]
            .into_iter()
            .fold(1, usize::saturating_add),
            Body::Data(_) | Body::Other => 1,
        };
        self.sections.iter().map(of_section).fold(0, usize::saturating_add)
    }
}

impl RemoteSection {
    fn read(
        section: &MediaSection<'_>,
        mid: &str,
        bundled: bool,
        tables: &mut Vec<Arc<[RemoteCodec]>>,
    ) -> Self {
        let body = if section.is_rejected() {
            Body::Other
        } else if is_rtp(section) {
            Body::Rtp(Box::new(RemoteMedia::read(section, tables)))
        } else if is_data(section) {
            Body::Data(DataSection::read(section))
        } else {
            Body::Other
        };
        Self {
            kind: section.kind(),
            mid: mid.to_owned(),
            rejected: section.is_rejected(),
            bundled,
            direction: section.direction(),
            line: MediaLine {
                media: section.media().to_owned(),
                protocol: section.protocol().to_owned(),
                format: section.formats().next().unwrap_or("0").to_owned(),
            },
            body,
        }
    }

    /// What it says of audio or video.
    pub(super) fn media(&self) -> Option<&RemoteMedia> {
        match &self.body {
            Body::Rtp(media) => Some(media),
            Body::Data(_) | Body::Other => None,
        }
    }
}

fn is_rtp(section: &MediaSection<'_>) -> bool {
    matches!(section.kind(), MediaKind::Audio | MediaKind::Video)
        && (section.protocol().ends_with("TLS/RTP/SAVPF") || section.protocol() == "RTP/SAVPF")
}

fn is_data(section: &MediaSection<'_>) -> bool {
    section.kind() == MediaKind::Application
        && section.protocol().ends_with("DTLS/SCTP")
        && section.formats().any(|format| format == "webrtc-datachannel")
}

impl RemoteMedia {
    /// Looks at each line once, and once more for the payload types.
    fn read(section: &MediaSection<'_>, tables: &mut Vec<Arc<[RemoteCodec]>>) -> Self {
        let mut lines = Lines::default();
        for (name, value) in section.attributes() {
            lines.take(name, value);
        }
        let simulcast: Vec<&str> = lines
            .simulcast
            .iter()
            .flat_map(|simulcast| &simulcast.send)
            .filter_map(|alternatives| alternatives.first().map(|stream| stream.rid))
            .filter(|rid| lines.rids.contains(rid))
            .collect();
        lines.rids.retain(|rid| simulcast.is_empty() || simulcast.contains(rid));
        let msid = lines.msid.or(lines.older_msid);
        let id = |text: &str| (text.len() <= MSID_BYTES_MAX).then(|| text.to_owned());
        let pair = |ssrcs: &[u32]| Some((*ssrcs.first()?, *ssrcs.get(1)?));
        Self {
            codecs: shared(codecs(section.kind(), &section.payload_formats()), tables),
            extensions: lines.extensions,
            stream_id: msid.and_then(|msid| id(msid.stream)),
            track_id: msid.and_then(|msid| id(msid.track?)),
            rids: lines.rids.into_iter().map(str::to_owned).collect(),
            simulcast: simulcast.into_iter().map(str::to_owned).collect(),
            ssrcs: lines.ssrcs,
            rtx_pairs: lines
                .groups
                .iter()
                .filter(|group| group.semantics == "FID")
                .filter_map(|group| pair(&group.ssrcs))
                .collect(),
            simulcast_ssrcs: lines
                .groups
                .into_iter()
                .find(|group| group.semantics == "SIM")
                .map(|group| group.ssrcs)
                .unwrap_or_default(),
        }
    }
}

/// What the lines of a section have said so far.
#[derive(Default)]
struct Lines<'a> {
    extensions: Vec<RemoteExtension>,
    msid: Option<Msid<'a>>,
    older_msid: Option<Msid<'a>>,
    rids: Vec<&'a str>,
    simulcast: Option<Simulcast<'a>>,
    ssrcs: Vec<u32>,
    groups: Vec<SsrcGroup<'a>>,
}

impl<'a> Lines<'a> {
    fn take(&mut self, name: &str, value: &'a str) {
        match name {
            "extmap" if self.extensions.len() < SECTION_ITEMS_MAX => {
                self.extensions.extend(ExtMap::parse(value).and_then(RemoteExtension::new));
            }
            "msid" if self.msid.is_none() => self.msid = Msid::parse(value),
            "ssrc" => self.take_ssrc(value),
            "ssrc-group" if self.groups.len() < SECTION_ITEMS_MAX => {
                self.groups.extend(SsrcGroup::parse(value));
            }
            "rid" if self.rids.len() < SECTION_ITEMS_MAX => {
                let sent = Rid::parse(value).filter(|rid| rid.direction == RidDirection::Send);
                self.rids.extend(sent.map(|rid| rid.id));
            }
            "simulcast" if self.simulcast.is_none() => self.simulcast = Some(Simulcast::parse(value)),
            _ => {}
        }
    }

    fn take_ssrc(&mut self, value: &'a str) {
        let (ssrc, about) = value.split_once(' ').unwrap_or((value, ""));
        let ssrc = ssrc.parse().ok();
        if let Some(ssrc) =
            ssrc.filter(|ssrc| self.ssrcs.len() < SECTION_ITEMS_MAX && !self.ssrcs.contains(ssrc))
        {
            self.ssrcs.push(ssrc);
        }
        if self.older_msid.is_none() {
            self.older_msid = about.strip_prefix("msid:").and_then(Msid::parse);
        }
    }
}

impl RemoteExtension {
    fn new(line: ExtMap<'_>) -> Option<Self> {
        let kind = ExtensionKind::from_uri(line.uri)?;
        Some(Self { id: line.id, direction: line.direction, kind })
    }
}

/// The payload types whose codec we know, with their RTX.
fn codecs(kind: MediaKind, formats: &[PayloadFormat<'_>]) -> Vec<RemoteCodec> {
    let known = |format: &PayloadFormat<'_>| {
        Codec::of(kind, format).map(|codec| RemoteCodec {
            codec,
            payload_type: format.payload_type,
            rtx_payload_type: None,
            fmtp: format.fmtp.into(),
            profile: codec::profile(codec, format.fmtp),
            feedback: format.feedback,
        })
    };
    let mut codecs: Vec<RemoteCodec> = formats.iter().filter_map(known).collect();
    for rtx in formats.iter().filter(|format| format.name.eq_ignore_ascii_case("rtx")) {
        let primary = rtx.parameter("apt").and_then(|payload_type| payload_type.parse::<u8>().ok());
        let found = codecs.iter_mut().find(|entry| Some(entry.payload_type) == primary);
        if let Some(entry) = found {
            entry.rtx_payload_type.get_or_insert(rtx.payload_type);
        }
    }
    // RED without the Opus it wraps says nothing.
    let opus: Vec<u8> =
        codecs.iter().filter(|entry| entry.codec == Codec::Opus).map(|entry| entry.payload_type).collect();
    codecs.retain(|entry| entry.codec != Codec::Red || red_wraps(&entry.fmtp, &opus));
    codecs
}

fn red_wraps(fmtp: &str, opus: &[u8]) -> bool {
    fmtp.split('/').all(|block| block.trim().parse::<u8>().is_ok_and(|block| opus.contains(&block)))
}

/// The same table as an earlier section's where they are equal.
fn shared(codecs: Vec<RemoteCodec>, tables: &mut Vec<Arc<[RemoteCodec]>>) -> Arc<[RemoteCodec]> {
    let known = tables.iter().rev().take(TABLES_COMPARED).find(|table| ***table == *codecs);
    if let Some(known) = known {
        return Arc::clone(known);
    }
    let table: Arc<[RemoteCodec]> = codecs.into();
    tables.push(Arc::clone(&table));
    table
}
