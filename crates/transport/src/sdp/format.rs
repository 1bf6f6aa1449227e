//! Payload types of an m-line with what is said about each.

use super::media::MediaSection;

/// `a=rtcp-fb` kinds an SFU deals with (RFC 4585, RFC 5104); others are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Feedback {
    /// `nack`.
    pub nack: bool,
    /// `nack pli`.
    pub nack_pli: bool,
    /// `ccm fir`.
    pub ccm_fir: bool,
    /// `goog-remb`.
    pub goog_remb: bool,
    /// `transport-cc`.
    pub transport_cc: bool,
}

impl Feedback {
    /// What both have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            nack: self.nack && other.nack,
            nack_pli: self.nack_pli && other.nack_pli,
            ccm_fir: self.ccm_fir && other.ccm_fir,
            goog_remb: self.goog_remb && other.goog_remb,
            transport_cc: self.transport_cc && other.transport_cc,
        }
    }

    /// The values of the `rtcp-fb` lines.
    pub fn values(self) -> impl Iterator<Item = &'static str> {
        [
            (self.goog_remb, "goog-remb"),
            (self.transport_cc, "transport-cc"),
            (self.ccm_fir, "ccm fir"),
            (self.nack, "nack"),
            (self.nack_pli, "nack pli"),
        ]
        .into_iter()
        .filter_map(|(set, value)| set.then_some(value))
    }

    fn add(&mut self, value: &str) {
        match value.trim_end() {
            "nack" => self.nack = true,
            "nack pli" => self.nack_pli = true,
            "ccm fir" => self.ccm_fir = true,
            "goog-remb" => self.goog_remb = true,
            "transport-cc" => self.transport_cc = true,
            _ => {}
        }
    }
}

/// One payload type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadFormat<'a> {
    /// The payload type, 0–127.
    pub payload_type: u8,
    /// Encoding name as written, `VP8`.
    pub name: &'a str,
    /// Clock rate in Hz.
    pub clock_rate_hz: u32,
    /// Channels; 1 when not said.
    pub channels: u8,
    /// Format parameters exactly as written; empty when there are none.
    pub fmtp: &'a str,
    /// RTCP feedback, `a=rtcp-fb:*` included.
    pub feedback: Feedback,
}

impl<'a> PayloadFormat<'a> {
    /// The value of a format parameter (`a=1;b=2`); names are compared without case.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        parameters(self.fmtp).find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The parameters of an `fmtp` as name and value.
pub(crate) fn parameters(fmtp: &str) -> impl Iterator<Item = (&str, &str)> {
    fmtp.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Reads all payload types in one pass over the section's lines.
pub(super) fn read(section: MediaSection<'_>) -> Vec<PayloadFormat<'_>> {
    let mut formats: Vec<PayloadFormat<'_>> = Vec::new();
    let mut position = [None::<usize>; 128];
    for payload_type in section.formats().filter_map(|text| text.parse::<u8>().ok()) {
        if let Some(slot) = position.get_mut(usize::from(payload_type)).filter(|slot| slot.is_none()) {
            *slot = Some(formats.len());
            let (name, clock_rate_hz) = static_encoding(payload_type);
            formats.push(PayloadFormat {
                payload_type,
                name,
                clock_rate_hz,
                channels: 1,
                fmtp: "",
                feedback: Feedback::default(),
            });
        }
    }
    let mut for_all = Feedback::default();
    for (name, value) in section.attributes() {
        if !matches!(name, "rtpmap" | "fmtp" | "rtcp-fb") {
            continue;
        }
        let Some((payload_type, rest)) = value.split_once(' ') else { continue };
        if payload_type == "*" && name == "rtcp-fb" {
            for_all.add(rest);
            continue;
        }
        let index = payload_type.parse::<usize>().ok().and_then(|index| *position.get(index)?);
        let Some(format) = index.and_then(|index| formats.get_mut(index)) else { continue };
        match name {
            "rtpmap" => set_encoding(format, rest),
            "fmtp" if format.fmtp.is_empty() => format.fmtp = rest,
            "rtcp-fb" => format.feedback.add(rest),
            _ => {}
        }
    }
    for value in for_all.values() {
        formats.iter_mut().for_each(|format| format.feedback.add(value));
    }
    formats.retain(|format| !format.name.is_empty());
    formats
}

fn set_encoding<'a>(format: &mut PayloadFormat<'a>, rtpmap: &'a str) {
    let mut fields = rtpmap.trim().split('/');
    let (Some(name), Some(Ok(clock_rate_hz))) = (fields.next(), fields.next().map(str::parse)) else {
        return;
    };
    format.name = name;
    format.clock_rate_hz = clock_rate_hz;
    format.channels = fields.next().and_then(|channels| channels.parse().ok()).unwrap_or(1);
}

/// The payload types that need no `rtpmap` (RFC 3551 §6) and that we know.
fn static_encoding(payload_type: u8) -> (&'static str, u32) {
    match payload_type {
        0 => ("PCMU", 8_000),
        8 => ("PCMA", 8_000),
        _ => ("", 0),
    }
}

#[cfg(test)]
mod tests {
    use crate::sdp::{Feedback, SessionDescription};

    #[test]
    fn payload_types_collect_their_lines_in_any_order() {
        let text = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 97 0 96 96 300 x\r\na=rtcp-fb:* nack\r\na=fmtp:97 apt=96 ; b\r\n\
            a=rtcp-fb:96 nack pli\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=rtpmap:98 none/1\r\n\
            a=fmtp:97 second=1\r\na=rtpmap:0\r\n";
        let description = SessionDescription::parse(text).unwrap();
        let formats = description.sections().next().unwrap().payload_formats();
        let names: Vec<_> = formats.iter().map(|format| (format.payload_type, format.name)).collect();
        assert_eq!(names, [(97, "rtx"), (0, "PCMU"), (96, "VP8")]);
        assert_eq!(formats[0].fmtp, "apt=96 ; b");
        assert_eq!((formats[0].parameter("APT"), formats[0].parameter("b")), (Some("96"), Some("")));
        assert_eq!(formats[2].feedback, Feedback { nack: true, nack_pli: true, ..Feedback::default() });
        assert_eq!(formats[1].feedback, Feedback { nack: true, ..Feedback::default() });
    }
}
