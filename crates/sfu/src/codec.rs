//! MIME types of codecs as LiveKit spells them.

use crate::model::Kind;

/// Names the SFU knows, in LiveKit's spelling.
const KNOWN: [&str; 9] = [
    "audio/opus",
    "audio/red",
    "audio/PCMU",
    "audio/PCMA",
    "video/VP8",
    "video/H264",
    "video/VP9",
    "video/AV1",
    "video/H265",
];

/// LiveKit's spelling of a MIME type in any case; `None` when it is not known.
pub(crate) fn canonical(mime: &str) -> Option<&'static str> {
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(mime))
}

/// The MIME type of a codec as a client names it in `add_track`: with or without its kind, in any case. It is kept in
/// lower case, as LiveKit does until the track flows; what is not known or not enabled becomes the first enabled one.
pub(crate) fn announced(kind: Kind, codec: &str, enabled: &[String]) -> String {
    let mut mime = codec.to_ascii_lowercase();
    if !mime.contains('/') {
        mime.insert_str(0, prefix(kind));
    }
    let usable = canonical(&mime)
        .is_some_and(|known| known.starts_with(prefix(kind)) && enabled.iter().any(|other| other == known));
    if usable {
        return mime;
    }
    let first = enabled.iter().find(|other| other.starts_with(prefix(kind)));
    first.cloned().unwrap_or(mime)
}

/// Whether spatial layers of this codec travel in one stream.
pub(crate) fn is_svc(mime: &str) -> bool {
    mime.eq_ignore_ascii_case("video/VP9") || mime.eq_ignore_ascii_case("video/AV1")
}

const fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio/",
        Kind::Video => "video/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_is_found_in_any_spelling_and_an_unknown_one_is_replaced() {
        let enabled: Vec<String> = ["video/VP8", "video/VP9", "audio/opus"].map(String::from).to_vec();
        let of = |kind, codec| announced(kind, codec, &enabled);
        assert_eq!(of(Kind::Video, "vp9"), "video/vp9");
        assert_eq!(of(Kind::Video, "video/VP8"), "video/vp8");
        assert_eq!(of(Kind::Video, "theora"), "video/VP8");
        assert_eq!(of(Kind::Video, "h264"), "video/VP8", "not enabled");
        assert_eq!(of(Kind::Video, "audio/opus"), "video/VP8", "of the other kind");
        assert_eq!(of(Kind::Audio, "Opus"), "audio/opus");
        assert_eq!(
            (canonical("VIDEO/av1"), is_svc("video/av1"), is_svc("video/vp8")),
            (Some("video/AV1"), true, false)
        );
    }
}
