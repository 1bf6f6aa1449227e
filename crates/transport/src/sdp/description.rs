//! The whole description.

use super::attribute::{self, Direction, IceCredentials};
use super::media::{MediaHeader, MediaSection};
use super::{
    DESCRIPTION_BYTES_MAX, LINE_BYTES_MAX, SECTION_BYTES_MAX, SECTION_LINES_MAX, SECTIONS_MAX, SdpError,
};
use crate::Setup;
use std::fmt;
use std::ops::Range;

/// A parsed description: the text and where its sections are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDescription {
    text: String,
    session: Range<usize>,
    session_direction: Option<Direction>,
    sections: Vec<Section>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    header: MediaHeader,
    body: Range<usize>,
}

impl SessionDescription {
    /// Checks form and limits of `text` (lines may end in CRLF or LF).
    ///
    /// # Errors
    /// [`SdpError`] names the line or the limit.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > DESCRIPTION_BYTES_MAX {
            return Err(SdpError::TooLong { bytes: text.len() });
        }
        if text.trim().is_empty() {
            return Err(SdpError::Empty);
        }
        let mut sections: Vec<Section> = Vec::new();
        let mut session = 0..text.len();
        let mut session_direction = None;
        let (mut offset, mut begin, mut lines_of_section) = (0usize, 0usize, 0usize);
        for (index, raw) in text.split_inclusive('\n').enumerate() {
            let line = index.saturating_add(1);
            let next = offset.saturating_add(raw.len());
            let content = raw.trim_end_matches(['\r', '\n']);
            check_line(content, line)?;
            if let Some(value) = content.strip_prefix("m=") {
                let header = MediaHeader::parse(value, line)?;
                match sections.last_mut() {
                    Some(last) => last.body.end = offset,
                    None => session.end = offset,
                }
                if sections.len() >= SECTIONS_MAX {
                    return Err(SdpError::TooManySections);
                }
                sections.push(Section { header, body: next..text.len() });
                (begin, lines_of_section) = (offset, 0);
            } else if let Some(attribute) = content.strip_prefix("a=") {
                match sections.last_mut() {
                    Some(section) => section.header.note(attribute),
                    None => session_direction = session_direction.or_else(|| Direction::parse(attribute)),
                }
            }
            lines_of_section = lines_of_section.saturating_add(1);
            if next.saturating_sub(begin) > SECTION_BYTES_MAX {
                return Err(SdpError::SectionTooLong { line });
            }
            if lines_of_section > SECTION_LINES_MAX {
                return Err(SdpError::TooManyLines { line });
            }
            offset = next;
        }
        Ok(Self { text: text.to_owned(), session, session_direction, sections })
    }

    /// The text, unchanged.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The m-lines with what follows them, in order.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = MediaSection<'_>> {
        self.sections.iter().enumerate().map(|(index, section)| {
            let body = self.text.get(section.body.clone()).unwrap_or_default();
            MediaSection::new(self, &section.header, body, index)
        })
    }

    /// Every attribute of the session part as name and value (empty when there is none).
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        attribute::lines(self.text.get(self.session.clone()).unwrap_or_default())
    }

    /// The first attribute of this name in the session part.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// `o=`: session id and version, as text.
    pub fn origin(&self) -> Option<(&str, &str)> {
        let session = self.text.get(self.session.clone())?;
        let value = session.lines().find_map(|line| line.strip_prefix("o="))?;
        let mut fields = value.split_ascii_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    }

    /// The mids of the first `a=group:BUNDLE` (RFC 9143), or `None` when there is no such group.
    pub fn bundle(&self) -> Option<Vec<&str>> {
        let group = self.attributes().find_map(|(name, value)| {
            let mut fields = value.split_ascii_whitespace();
            (name == "group" && fields.next() == Some("BUNDLE")).then_some(fields)
        });
        group.map(Iterator::collect)
    }

    /// Whether the session part has `a=extmap-allow-mixed` (RFC 8285 §6).
    pub fn allows_mixed_extmap(&self) -> bool {
        self.attribute("extmap-allow-mixed").is_some()
    }

    /// Whether the writer is an ICE-lite agent (RFC 8839 §5.3).
    pub fn is_ice_lite(&self) -> bool {
        self.attribute("ice-lite").is_some()
    }

    /// ICE credentials: of the session part, else of the first section in use that has them.
    pub fn ice_credentials(&self) -> Option<IceCredentials<'_>> {
        self.session_ice_credentials()
            .or_else(|| self.live().find_map(|section| section.own_ice_credentials()))
    }

    /// `a=fingerprint` (RFC 8122): of the session part, else of the first section in use that has one.
    pub fn fingerprint(&self) -> Option<&str> {
        self.session_fingerprint().or_else(|| self.live().find_map(|section| section.own_fingerprint()))
    }

    /// The DTLS role (RFC 8842): of the first section in use that says it, else of the session part.
    pub fn setup(&self) -> Option<Setup> {
        self.live().find_map(|section| section.own_setup()).or_else(|| self.session_setup())
    }

    /// Every candidate of every section, `candidate:…` without `a=`; a session with BUNDLE has one transport.
    pub fn candidates(&self) -> impl Iterator<Item = &str> {
        self.sections().flat_map(|section| section.candidates().collect::<Vec<_>>())
    }

    pub(super) fn session_ice_credentials(&self) -> Option<IceCredentials<'_>> {
        IceCredentials::new(self.attribute("ice-ufrag"), self.attribute("ice-pwd"))
    }

    pub(super) fn session_fingerprint(&self) -> Option<&str> {
        self.attribute("fingerprint").map(str::trim)
    }

    /// The direction of the session part.
    pub(super) fn session_direction(&self) -> Option<Direction> {
        self.session_direction
    }

    pub(super) fn session_setup(&self) -> Option<Setup> {
        self.attribute("setup").and_then(attribute::setup)
    }

    fn live(&self) -> impl Iterator<Item = MediaSection<'_>> {
        self.sections().filter(|section| !section.is_rejected())
    }
}

impl fmt::Display for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn check_line(content: &str, line: usize) -> Result<(), SdpError> {
    if content.len() > LINE_BYTES_MAX {
        return Err(SdpError::LineTooLong { line });
    }
    if line == 1 {
        return if content == "v=0" { Ok(()) } else { Err(SdpError::Version) };
    }
    // Blank lines stand at the end of what some clients send.
    if content.is_empty() {
        return Ok(());
    }
    let mut bytes = content.bytes();
    let typed = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic()) && bytes.next() == Some(b'=');
    if !typed || content.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(SdpError::BadLine { line });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = "v=0\r\no=- 42 7 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a b\r\n\
        a=extmap-allow-mixed\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:b\r\na=bundle-only\r\n";

    #[test]
    fn a_description_is_kept_character_by_character() {
        let parsed = SessionDescription::parse(SHORT).unwrap();
        assert_eq!(parsed.to_string(), SHORT);
        assert_eq!(parsed.origin(), Some(("42", "7")));
        assert_eq!(parsed.bundle(), Some(vec!["a", "b"]));
        assert!(parsed.allows_mixed_extmap());
        assert_eq!(parsed.sections().len(), 2);
    }

    #[test]
    fn credentials_are_found_in_a_section_when_the_session_has_none() {
        let parsed = SessionDescription::parse(SHORT).unwrap();
        let credentials = parsed.ice_credentials().unwrap();
        assert_eq!((credentials.ufrag, credentials.pwd), ("u", "p"));
    }

    #[test]
    fn port_zero_with_bundle_only_is_not_a_rejection() {
        let parsed = SessionDescription::parse(SHORT).unwrap();
        assert!(parsed.sections().all(|section| !section.is_rejected()));
        let without = SHORT.replace("a=bundle-only\r\n", "");
        assert!(SessionDescription::parse(&without).unwrap().sections().nth(1).unwrap().is_rejected());
    }

    #[test]
    fn line_feeds_alone_are_taken_too() {
        let parsed = SessionDescription::parse(&SHORT.replace('\r', "")).unwrap();
        assert_eq!(parsed.sections().next().unwrap().mid(), Some("a"));
    }

    #[test]
    fn every_limit_has_its_own_error() {
        let error = |text: &str| SessionDescription::parse(text).unwrap_err();
        assert_eq!(error(" \n"), SdpError::Empty);
        assert_eq!(error("hello"), SdpError::Version);
        assert_eq!(error("v=0\r\nhello"), SdpError::BadLine { line: 2 });
        assert_eq!(error("v=0\r\na=x\0y"), SdpError::BadLine { line: 2 });
        assert_eq!(error("v=0\r\nm=audio"), SdpError::BadMediaLine { line: 2 });
        assert_eq!(error("v=0\r\nm=audio 99999 RTP/AVP 0"), SdpError::BadMediaLine { line: 2 });
        assert_eq!(error(&"v".repeat(DESCRIPTION_BYTES_MAX + 1)), SdpError::TooLong { bytes: 1_048_577 });
        let long = format!("v=0\na={}", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(error(&long), SdpError::LineTooLong { line: 2 });
        let many = format!("v=0\n{}", "m=audio 9 RTP/AVP 0\n".repeat(SECTIONS_MAX + 1));
        assert_eq!(error(&many), SdpError::TooManySections);
        let lines = format!("v=0\n{}", "a=x\n".repeat(SECTION_LINES_MAX));
        assert_eq!(error(&lines), SdpError::TooManyLines { line: SECTION_LINES_MAX + 1 });
        let heavy = format!("v=0\n{}", format!("a={}\n", "x".repeat(4_000)).repeat(9));
        assert_eq!(error(&heavy), SdpError::SectionTooLong { line: 10 });
        let word = format!("v=0\nm=audio 9 {} 0", "x".repeat(65));
        assert_eq!(error(&word), SdpError::BadMediaLine { line: 2 });
        let formats = format!("v=0\nm=audio 9 RTP/AVP{}", " 1".repeat(129));
        assert_eq!(error(&formats), SdpError::TooManyFormats { line: 2 });
    }
}
