//! Session descriptions (RFC 8866, RFC 8829): parsed within bounds, kept as text, read through typed views.
//!
//! [`SessionDescription::parse`] checks the form and the limits and remembers where the lines are; nothing is rewritten,
//! so what a client wrote (an `fmtp` above all) is handed on character by character. Attributes nobody asks for
//! (`goog-sped-v1`, `sctp-init`, `rtcp-xr`, …) cost nothing and are ignored.

mod attribute;
mod description;
mod error;
mod format;
mod media;

pub use attribute::{
    Direction, ExtMap, IceCredentials, Msid, Rid, RidDirection, Simulcast, SimulcastStream, SsrcGroup,
};
pub use description::SessionDescription;
pub use error::SdpError;
pub(crate) use format::parameters as format_parameters;
pub use format::{Feedback, PayloadFormat};
pub use media::{MediaKind, MediaSection};

/// Longest description: Chromium needs about 2.6 kB for each m-line, so this is room for some 400 of them.
pub const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
/// Most m-lines; what fits into [`DESCRIPTION_BYTES_MAX`] with m-lines of usual size. That is for those we ask for: of its own a
/// client adds at most [`OFFERED_SECTIONS_MAX`](crate::negotiate::OFFERED_SECTIONS_MAX).
pub const SECTIONS_MAX: usize = 512;
/// Longest section, and longest part before the first one: Chromium writes up to 8 kB about a simulcast video.
pub const SECTION_BYTES_MAX: usize = 32 << 10;
/// Most lines of one section; Chromium writes about 200 when it offers every codec.
pub const SECTION_LINES_MAX: usize = 2_000;
/// Longest line; the longest seen is the format list of a video m-line with 150 bytes.
pub const LINE_BYTES_MAX: usize = 4_096;
/// Longest media type, protocol or format of an m-line; `UDP/TLS/RTP/SAVPF` and `webrtc-datachannel` have 17 and 18 bytes.
pub const MEDIA_WORD_BYTES_MAX: usize = 64;
/// Most formats of one m-line: RTP has no more payload types (RFC 3550 §5.1).
pub const FORMATS_MAX: usize = 128;
/// Most RIDs, SSRC groups, SSRCs or header extensions read from one section; simulcast uses 3, 3, 6 and 14.
pub const SECTION_ITEMS_MAX: usize = 64;
