//! Header extensions: which exist, how their ids are negotiated, and what their values say.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::header::RtpHeader;
use fanlight_base::Now;

/// A header extension this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExtensionKind {
    /// Client-to-mixer audio level, RFC 6464.
    AudioLevel,
    /// Media identification, RFC 8843 §15.
    Mid,
    /// RTP stream id, RFC 8852 §3.1.
    Rid,
    /// Repaired RTP stream id, RFC 8852 §3.2.
    RepairedRid,
    /// Absolute send time, 24 bits of 6.18 seconds.
    AbsSendTime,
    /// Transport-wide sequence number, draft-holmer-rmcat-transport-wide-cc-extensions-01.
    TransportCc,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
    /// Playout delay limits.
    PlayoutDelay,
    /// Absolute capture time.
    AbsCaptureTime,
    /// Coordination of video orientation, 3GPP TS 26.114.
    VideoOrientation,
    /// Transmission time offset, RFC 5450.
    TransmissionOffset,
    /// Video content type.
    VideoContentType,
    /// Video timing.
    VideoTiming,
    /// Colour space.
    ColorSpace,
    /// Video layers allocation.
    VideoLayersAllocation,
    /// Mixer-to-client audio level, RFC 6465.
    CsrcAudioLevel,
    /// Frame marking, draft-ietf-avtext-framemarking.
    FrameMarking,
}

/// Number of kinds.
const KINDS: usize = 17;

impl ExtensionKind {
    /// Every kind, in order of declaration.
    pub const ALL: [Self; KINDS] = [
        Self::AudioLevel,
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AbsSendTime,
        Self::TransportCc,
        Self::DependencyDescriptor,
        Self::PlayoutDelay,
        Self::AbsCaptureTime,
        Self::VideoOrientation,
        Self::TransmissionOffset,
        Self::VideoContentType,
        Self::VideoTiming,
        Self::ColorSpace,
        Self::VideoLayersAllocation,
        Self::CsrcAudioLevel,
        Self::FrameMarking,
    ];

    /// The URI in `a=extmap`.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Self::VideoContentType => "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
            Self::VideoTiming => "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
            Self::ColorSpace => "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
            Self::VideoLayersAllocation => {
                "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00"
            }
            Self::CsrcAudioLevel => "urn:ietf:params:rtp-hdrext:csrc-audio-level",
            Self::FrameMarking => "urn:ietf:params:rtp-hdrext:framemarking",
        }
    }

    /// The kind a URI names.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.uri() == uri)
    }
}

/// Why an id could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Id 0 is padding (RFC 8285 §4.2).
    #[error("extension id 0 is reserved")]
    Reserved,
    /// The id stands for another extension already.
    #[error("extension id is in use")]
    InUse,
}

/// Which id stands for which extension, as one m-line negotiated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionMap {
    /// Id by kind, 0 where not negotiated.
    ids: [u8; KINDS],
    /// Kind by id for the ids of the one-byte form, which are nearly all there are.
    low: [Option<ExtensionKind>; 16],
}

impl Default for ExtensionMap {
    fn default() -> Self {
        Self::new()
    }
}

impl ExtensionMap {
    /// A map without extensions.
    pub const fn new() -> Self {
        Self { ids: [0; KINDS], low: [None; 16] }
    }

    /// Maps `id` (1..=255) to `kind`, replacing the id `kind` had.
    pub fn set(&mut self, id: u8, kind: ExtensionKind) -> Result<(), ExtensionError> {
        if id == 0 {
            return Err(ExtensionError::Reserved);
        }
        if self.kind(id).is_some_and(|other| other != kind) {
            return Err(ExtensionError::InUse);
        }
        self.remove(kind);
        if let Some(slot) = self.ids.get_mut(kind as usize) {
            *slot = id;
        }
        if let Some(slot) = self.low.get_mut(usize::from(id)) {
            *slot = Some(kind);
        }
        Ok(())
    }

    /// Forgets an extension.
    pub fn remove(&mut self, kind: ExtensionKind) {
        let Some(slot) = self.ids.get_mut(kind as usize) else { return };
        let id = std::mem::take(slot);
        if let Some(slot) = self.low.get_mut(usize::from(id)) {
            *slot = None;
        }
    }

    /// The id of an extension, if negotiated.
    pub fn id(&self, kind: ExtensionKind) -> Option<u8> {
        self.ids.get(kind as usize).copied().filter(|id| *id != 0)
    }

    /// The extension an id stands for.
    pub fn kind(&self, id: u8) -> Option<ExtensionKind> {
        match self.low.get(usize::from(id)) {
            Some(kind) => *kind,
            None => ExtensionKind::ALL.into_iter().find(|kind| self.id(*kind) == Some(id)),
        }
    }

    /// All pairs of id and extension, in order of declaration of the kinds.
    pub fn iter(&self) -> impl Iterator<Item = (u8, ExtensionKind)> + '_ {
        ExtensionKind::ALL.into_iter().filter_map(|kind| self.id(kind).map(|id| (id, kind)))
    }

    /// Value of an extension in a packet.
    pub fn find<'a>(&self, header: &RtpHeader, packet: &'a [u8], kind: ExtensionKind) -> Option<&'a [u8]> {
        header.extension(packet, self.id(kind)?)
    }
}

/// Loudness of an audio packet (RFC 6464 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// The sender thinks it holds speech.
    pub voice: bool,
    /// Level below overload in dB: 0 loudest, 127 silence.
    pub level_below_overload_db: u8,
}

impl AudioLevel {
    /// Reads the value of the extension.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let byte = *value.first()?;
        Some(Self { voice: byte & 0x80 != 0, level_below_overload_db: byte & 0x7f })
    }

    /// The value of the extension.
    pub fn to_bytes(self) -> [u8; 1] {
        [(u8::from(self.voice) << 7) | self.level_below_overload_db.min(127)]
    }
}

/// The absolute send time of `now`: 24 bits of seconds as 6.18 fixed point.
///
/// Receivers use differences only, so it follows the monotonic clock: a wall clock that jumps must not look like
/// congestion.
pub const fn abs_send_time(now: Now) -> u32 {
    let seconds = (now.mono_ns / 1_000_000_000) & 0x3f;
    let fraction = ((now.mono_ns % 1_000_000_000) << 18) / 1_000_000_000;
    ((seconds << 18) | fraction) as u32
}

/// Reads an absolute send time (24 bits, 6.18 seconds).
pub fn read_abs_send_time(value: &[u8]) -> Option<u32> {
    let [a, b, c] = *value.first_chunk::<3>()?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

/// Reads a transport-wide sequence number.
pub fn read_transport_cc(value: &[u8]) -> Option<u16> {
    value.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Longest mid or rid we read: what a one-byte element carries.
pub const TEXT_MAX_BYTES: usize = 16;

/// Reads a mid, rid or repaired rid: 1 to 16 visible ASCII characters.
pub fn read_text(value: &[u8]) -> Option<&str> {
    let sized = (1..=TEXT_MAX_BYTES).contains(&value.len());
    let text = std::str::from_utf8(value).ok()?;
    (sized && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(text)
}

/// Limits for the receiver's jitter buffer, in milliseconds; steps of 10, at most 40,950.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// Least delay in milliseconds.
    pub min_ms: u16,
    /// Greatest delay in milliseconds.
    pub max_ms: u16,
}

impl PlayoutDelay {
    /// Reads the value of the extension.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [a, b, c] = *value.first_chunk::<3>()?;
        let (low, high) = (u16::from_be_bytes([a, b]) >> 4, u16::from_be_bytes([b & 0x0f, c]));
        Some(Self { min_ms: low.saturating_mul(10), max_ms: high.saturating_mul(10) })
    }

    /// The value of the extension.
    pub fn to_bytes(self) -> [u8; 3] {
        let steps = |ms: u16| u32::from((ms / 10).min(0xfff));
        let [_, a, b, c] = ((steps(self.min_ms) << 12) | steps(self.max_ms)).to_be_bytes();
        [a, b, c]
    }
}

/// When a frame was captured, on the capturer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// Capture time as a 32.32 NTP timestamp.
    pub ntp: u64,
    /// Estimated offset between the capturer's and the sender's clock, 32.32 signed seconds.
    pub clock_offset: Option<i64>,
}

impl AbsCaptureTime {
    /// Reads the value of the extension.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (ntp, rest) = value.split_first_chunk::<8>()?;
        let clock_offset = rest.first_chunk::<8>().map(|bytes| i64::from_be_bytes(*bytes));
        Some(Self { ntp: u64::from_be_bytes(*ntp), clock_offset })
    }

    /// The value of the extension; with a missing offset only the first 8 bytes count.
    pub fn to_bytes(self) -> ([u8; 16], usize) {
        let mut bytes = [0; 16];
        let (ntp, offset) = bytes.split_at_mut(8);
        ntp.copy_from_slice(&self.ntp.to_be_bytes());
        offset.copy_from_slice(&self.clock_offset.unwrap_or_default().to_be_bytes());
        (bytes, if self.clock_offset.is_some() { 16 } else { 8 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_uri_names_its_kind_and_only_that() {
        for (index, kind) in ExtensionKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(ExtensionKind::from_uri(kind.uri()), Some(kind));
        }
        assert_eq!(ExtensionKind::from_uri("urn:example:none"), None);
    }

    #[test]
    fn a_map_answers_both_ways_for_low_and_high_ids() {
        let mut map = ExtensionMap::new();
        map.set(4, ExtensionKind::Mid).unwrap();
        map.set(200, ExtensionKind::Rid).unwrap();
        assert_eq!(map.id(ExtensionKind::Mid), Some(4));
        assert_eq!(map.kind(200), Some(ExtensionKind::Rid));
        assert_eq!(map.kind(5), None);
        assert_eq!(map.kind(0), None);
        assert_eq!(map.iter().collect::<Vec<_>>(), [(4, ExtensionKind::Mid), (200, ExtensionKind::Rid)]);
    }

    #[test]
    fn an_id_in_use_is_refused_and_a_kind_may_move() {
        let mut map = ExtensionMap::new();
        map.set(4, ExtensionKind::Mid).unwrap();
        assert_eq!(map.set(4, ExtensionKind::Rid), Err(ExtensionError::InUse));
        assert_eq!(map.set(0, ExtensionKind::Rid), Err(ExtensionError::Reserved));
        map.set(9, ExtensionKind::Mid).unwrap();
        assert_eq!((map.kind(4), map.kind(9)), (None, Some(ExtensionKind::Mid)));
    }

    #[test]
    fn audio_levels_read_back() {
        let level = AudioLevel { voice: true, level_below_overload_db: 37 };
        assert_eq!(AudioLevel::parse(&level.to_bytes()), Some(level));
        assert_eq!(AudioLevel::parse(&[]), None);
    }

    #[test]
    fn absolute_send_time_counts_64_seconds_and_wraps() {
        let at = |mono_ns| abs_send_time(Now { mono_ns, unix_ns: 0 });
        assert_eq!(at(0), 0);
        assert_eq!(at(1_500_000_000), (1 << 18) + (1 << 17));
        assert_eq!(at(64_000_000_000), 0);
        assert_eq!(read_abs_send_time(&[0x06, 0, 0]), Some(at(1_500_000_000)));
    }

    #[test]
    fn texts_are_short_visible_ascii() {
        assert_eq!(read_text(b"0"), Some("0"));
        assert_eq!(read_text(b"0123456789abcdef"), Some("0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcdefg", b"a b", b"\xff", "é".as_bytes()] {
            assert_eq!(read_text(wrong), None);
        }
    }

    #[test]
    fn playout_delay_and_capture_time_read_back() {
        let delay = PlayoutDelay { min_ms: 120, max_ms: 2_000 };
        assert_eq!(PlayoutDelay::parse(&delay.to_bytes()), Some(delay));
        for clock_offset in [None, Some(-5)] {
            let time = AbsCaptureTime { ntp: 0x0102_0304_0506_0708, clock_offset };
            let (bytes, len) = time.to_bytes();
            assert_eq!(AbsCaptureTime::parse(&bytes[..len]), Some(time));
        }
    }
}
