//! One m-line and the lines below it.

use super::attribute::{self, Direction, ExtMap, IceCredentials, Msid, Rid, Simulcast, SsrcGroup};
use super::format::{self, PayloadFormat};
use super::{FORMATS_MAX, MEDIA_WORD_BYTES_MAX, SECTION_ITEMS_MAX, SdpError, SessionDescription};
use crate::Setup;

/// What an m-line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
    /// `m=application`: data channels.
    Application,
    /// Anything else.
    Other,
}

impl MediaKind {
    fn parse(text: &str) -> Self {
        match text {
            "audio" => Self::Audio,
            "video" => Self::Video,
            "application" => Self::Application,
            _ => Self::Other,
        }
    }
}

/// The m-line itself, and what is asked of every section time and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaHeader {
    kind: MediaKind,
    media: String,
    port: u16,
    protocol: String,
    formats: String,
    mid: Option<String>,
    direction: Option<Direction>,
    bundle_only: bool,
}

impl MediaHeader {
    pub(super) fn parse(value: &str, line: usize) -> Result<Self, SdpError> {
        let bad = SdpError::BadMediaLine { line };
        let mut fields = value.splitn(4, ' ');
        let word = |text: &&str| (1..=MEDIA_WORD_BYTES_MAX).contains(&text.len());
        let media = fields.next().filter(word).ok_or(bad)?;
        let port = fields.next().ok_or(bad)?;
        // `<port>/<count>` asks for a range of ports, which BUNDLE makes meaningless.
        let port = port.split('/').next().and_then(|port| port.parse().ok()).ok_or(bad)?;
        let protocol = fields.next().filter(word).ok_or(bad)?;
        let formats = fields.next().unwrap_or_default();
        if !formats.split_ascii_whitespace().all(|format| word(&format)) {
            return Err(bad);
        }
        if formats.split_ascii_whitespace().count() > FORMATS_MAX {
            return Err(SdpError::TooManyFormats { line });
        }
        Ok(Self {
            kind: MediaKind::parse(media),
            media: media.to_owned(),
            port,
            protocol: protocol.to_owned(),
            formats: formats.to_owned(),
            mid: None,
            direction: None,
            bundle_only: false,
        })
    }

    /// Notes an attribute below the m-line; the first of a name counts.
    pub(super) fn note(&mut self, attribute: &str) {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "mid" if self.mid.is_none() => self.mid = Some(value.trim().to_owned()),
            "bundle-only" => self.bundle_only = true,
            _ => self.direction = self.direction.or_else(|| Direction::parse(name)),
        }
    }
}

/// A view of one section.
#[derive(Debug, Clone, Copy)]
pub struct MediaSection<'a> {
    description: &'a SessionDescription,
    header: &'a MediaHeader,
    body: &'a str,
    index: usize,
}

impl<'a> MediaSection<'a> {
    pub(super) fn new(
        description: &'a SessionDescription,
        header: &'a MediaHeader,
        body: &'a str,
        index: usize,
    ) -> Self {
        Self { description, header, body, index }
    }

    /// Position among the m-lines, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What it is about.
    pub fn kind(&self) -> MediaKind {
        self.header.kind
    }

    /// The word after `m=`.
    pub fn media(&self) -> &'a str {
        &self.header.media
    }

    /// The port of the m-line.
    pub fn port(&self) -> u16 {
        self.header.port
    }

    /// The transport protocol, such as `UDP/TLS/RTP/SAVPF`.
    pub fn protocol(&self) -> &'a str {
        &self.header.protocol
    }

    /// The formats of the m-line, payload types for RTP.
    pub fn formats(&self) -> impl Iterator<Item = &'a str> {
        self.header.formats.split_ascii_whitespace()
    }

    /// Every attribute as name and value (empty when there is none).
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        attribute::lines(self.body)
    }

    /// The values of all attributes of this name.
    pub fn values(&self, name: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.attributes().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The value of the first attribute of this name.
    pub fn attribute(&self, name: &'static str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// Whether an attribute of this name is there.
    pub fn has(&self, name: &'static str) -> bool {
        self.attribute(name).is_some()
    }

    /// `a=mid` (RFC 5888).
    pub fn mid(&self) -> Option<&'a str> {
        self.header.mid.as_deref().filter(|mid| !mid.is_empty())
    }

    /// Whether port 0 is only because the section has no transport of its own (RFC 9143 §6).
    pub fn is_bundle_only(&self) -> bool {
        self.header.bundle_only
    }

    /// Whether the writer rejected or ended the section: port 0 without `bundle-only`.
    pub fn is_rejected(&self) -> bool {
        self.header.port == 0 && !self.is_bundle_only()
    }

    /// The direction, `sendrecv` when neither section nor session says one (RFC 8866 §6.7).
    pub fn direction(&self) -> Direction {
        self.header.direction.or(self.description.session_direction()).unwrap_or(Direction::SendRecv)
    }

    /// The payload types with their `rtpmap`, `fmtp` and `rtcp-fb`, in the order of the m-line.
    pub fn payload_formats(&self) -> Vec<PayloadFormat<'a>> {
        format::read(*self)
    }

    /// Header extensions (RFC 8285).
    pub fn extensions(&self) -> impl Iterator<Item = ExtMap<'a>> + use<'a> {
        self.values("extmap").filter_map(ExtMap::parse).take(SECTION_ITEMS_MAX)
    }

    /// `a=msid` (RFC 8830), or the older form below `a=ssrc`.
    pub fn msid(&self) -> Option<Msid<'a>> {
        self.attribute("msid")
            .or_else(|| self.values("ssrc").find_map(|value| value.split_once(' ')?.1.strip_prefix("msid:")))
            .and_then(Msid::parse)
    }

    /// The SSRCs of `a=ssrc` in order of first mention (RFC 5576).
    pub fn ssrcs(&self) -> Vec<u32> {
        let mut found: Vec<u32> = Vec::new();
        for value in self.values("ssrc") {
            let ssrc = value.split(' ').next().and_then(|ssrc| ssrc.parse().ok());
            if let Some(ssrc) = ssrc.filter(|ssrc| found.len() < SECTION_ITEMS_MAX && !found.contains(ssrc)) {
                found.push(ssrc);
            }
        }
        found
    }

    /// The `cname` of the first `a=ssrc` line that has one.
    pub fn cname(&self) -> Option<&'a str> {
        self.values("ssrc").find_map(|value| value.split_once(' ')?.1.strip_prefix("cname:"))
    }

    /// `a=ssrc-group` lines: FID pairs media with RTX, SIM lists simulcast layers (RFC 5576).
    pub fn ssrc_groups(&self) -> impl Iterator<Item = SsrcGroup<'a>> + use<'a> {
        self.values("ssrc-group").filter_map(SsrcGroup::parse).take(SECTION_ITEMS_MAX)
    }

    /// `a=rid` lines in order (RFC 8851).
    pub fn rids(&self) -> impl Iterator<Item = Rid<'a>> + use<'a> {
        self.values("rid").filter_map(Rid::parse).take(SECTION_ITEMS_MAX)
    }

    /// `a=simulcast` (RFC 8853).
    pub fn simulcast(&self) -> Option<Simulcast<'a>> {
        self.attribute("simulcast").map(Simulcast::parse)
    }

    /// `a=sctp-port` (RFC 8841).
    pub fn sctp_port(&self) -> Option<u16> {
        self.attribute("sctp-port").and_then(|port| port.trim().parse().ok())
    }

    /// `a=max-message-size` in bytes (RFC 8841); 0 means no limit.
    pub fn max_message_size_bytes(&self) -> Option<u64> {
        self.attribute("max-message-size").and_then(|size| size.trim().parse().ok())
    }

    /// ICE credentials of the section, else those of the session.
    pub fn ice_credentials(&self) -> Option<IceCredentials<'a>> {
        self.own_ice_credentials().or_else(|| self.description.session_ice_credentials())
    }

    pub(super) fn own_ice_credentials(&self) -> Option<IceCredentials<'a>> {
        IceCredentials::new(self.attribute("ice-ufrag"), self.attribute("ice-pwd"))
    }

    /// The fingerprint of the section, else that of the session.
    pub fn fingerprint(&self) -> Option<&'a str> {
        self.own_fingerprint().or_else(|| self.description.session_fingerprint())
    }

    pub(super) fn own_fingerprint(&self) -> Option<&'a str> {
        self.attribute("fingerprint").map(str::trim)
    }

    /// The DTLS role of the section, else that of the session.
    pub fn setup(&self) -> Option<Setup> {
        self.own_setup().or_else(|| self.description.session_setup())
    }

    pub(super) fn own_setup(&self) -> Option<Setup> {
        self.attribute("setup").and_then(attribute::setup)
    }

    /// Candidates, `candidate:…` without `a=`.
    pub fn candidates(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("a="))
            .filter(|attribute| attribute.starts_with("candidate:"))
    }

    /// Whether no more candidates come (RFC 8840 §8.2).
    pub fn ends_candidates(&self) -> bool {
        self.has("end-of-candidates")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(lines: &str) -> SessionDescription {
        SessionDescription::parse(&format!(
            "v=0\r\na=recvonly\r\nm=video 9/2 UDP/TLS/RTP/SAVPF 96 97\r\n{lines}"
        ))
        .unwrap()
    }

    #[test]
    fn an_m_line_is_read_with_its_port_range() {
        let description = section("a=mid: 7\r\n");
        let video = description.sections().next().unwrap();
        assert_eq!((video.kind(), video.port(), video.mid()), (MediaKind::Video, 9, Some("7")));
        assert_eq!(video.protocol(), "UDP/TLS/RTP/SAVPF");
        assert_eq!(video.formats().collect::<Vec<_>>(), ["96", "97"]);
        assert_eq!(video.direction(), Direction::RecvOnly);
    }

    #[test]
    fn the_older_msid_below_ssrc_is_found() {
        let description = section("a=ssrc:1 cname:c\r\na=ssrc:1 msid:stream track\r\na=ssrc:2 cname:c\r\n");
        let video = description.sections().next().unwrap();
        let msid = video.msid().unwrap();
        assert_eq!((msid.stream, msid.track), ("stream", Some("track")));
        assert_eq!((video.ssrcs(), video.cname()), (vec![1, 2], Some("c")));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let description =
            section("a=ssrc:x y\r\na=extmap:x y\r\na=ssrc-group:FID\r\na=rid:\r\na=sctp-port:99999\r\n");
        let video = description.sections().next().unwrap();
        assert!(video.ssrcs().is_empty());
        assert_eq!(video.extensions().count(), 0);
        assert_eq!(video.ssrc_groups().count(), 0);
        assert_eq!(video.rids().count(), 0);
        assert_eq!((video.sctp_port(), video.mid()), (None, None));
    }

    #[test]
    fn candidates_keep_their_prefix() {
        let description = section("a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n");
        let video = description.sections().next().unwrap();
        assert_eq!(video.candidates().collect::<Vec<_>>(), ["candidate:1 1 udp 1 127.0.0.1 9 typ host"]);
        assert!(video.ends_candidates());
    }
}
