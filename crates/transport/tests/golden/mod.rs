//! Comparison of a description of ours with a recorded one.

use fanlight_base::Redacted;
use fanlight_transport::negotiate::{LocalParameters, Origin};
use fanlight_transport::sdp::{MediaKind, MediaSection, SessionDescription};
use std::collections::{BTreeMap, BTreeSet};

/// The `o=` line we begin with.
pub(crate) fn origin() -> Origin {
    Origin { session_id: 7_000_000_000_000_000_000, version: 1_795_241_457 }
}

/// Transport values as LiveKit's look.
pub(crate) fn local() -> LocalParameters {
    LocalParameters {
        ice_ufrag: "dOdYBQVFguvVbFZA".to_owned(),
        ice_pwd: Redacted::new("AyKXMOACBCuBFuEqIJMmqFEvAyTNlsZn".to_owned()),
        fingerprint: "sha-256 8F:A6".to_owned(),
        candidates: vec!["candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host".to_owned()],
        end_of_candidates: true,
        ice_lite: false,
    }
}

/// Some recordings hold one section only: it gets a session part.
pub(crate) fn whole(text: &str) -> String {
    if text.starts_with("v=") {
        return text.to_owned();
    }
    let mid = text.lines().find_map(|line| line.strip_prefix("a=mid:")).unwrap();
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=msid-semantic:WMS *\r\na=extmap-allow-mixed\r\na=group:BUNDLE {mid}\r\n{text}"
    )
}

/// What an offer says about each mid, as far as [`permitted`] needs it.
pub(crate) struct Sections(BTreeMap<String, (BTreeSet<String>, BTreeSet<u8>)>);

impl Sections {
    pub(crate) fn of(offer: &SessionDescription) -> Self {
        let entry = |section: MediaSection<'_>| {
            let uris = section.extensions().map(|extension| extension.uri.to_owned()).collect();
            let payload_types = section.formats().filter_map(|format| format.parse().ok()).collect();
            (section.mid().unwrap_or_default().to_owned(), (uris, payload_types))
        };
        Self(offer.sections().map(entry).collect())
    }
}

/// Format parameters that JS and Rust clients add to later offers, for their own encoder or decoder.
const CLIENT_ONLY: [&str; 2] = ["stereo=1", "x-google-start-bitrate=1000"];

/// Where we differ on purpose. Removes the line from LiveKit's section, or says that it is not compared.
///
/// | line | LiveKit | ours | why |
/// |---|---|---|---|
/// | `setup` in answers | active | passive | the passive side chooses the SRTP profile (checked apart) |
/// | `ice-ufrag`, `ice-pwd`, `candidate`, `end-of-candidates` | its own; every candidate twice | ours, once | values |
/// | codec H265 and its RTX | offered and taken | not | its payload is not read yet |
/// | order of RTX, of extensions, of feedback | random | fixed | compared as sets |
/// | order and repetition of Opus parameters | `stereo=1` may stand twice | once | same meaning, compared as sets |
/// | VP9 profile 2 under a payload type that the section does not offer | after a recvonly section had it | not | an answer must be a subset (RFC 3264 §6.1) |
/// | [`CLIENT_ONLY`] parameters where we send | as in the first offer | as in the last one | the client wrote them for itself; keeping the first offer's texts would cost memory for nothing |
/// | extension the section does not offer | from other sections | not | RFC 8285 §6 |
fn permitted(section: &MediaSection<'_>, line: &str, offered: Option<&Sections>) -> bool {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    if matches!(name, "setup" | "ice-ufrag" | "ice-pwd" | "candidate" | "end-of-candidates") {
        return true;
    }
    let payload_type = value.split(' ').next().and_then(|text| text.parse::<u8>().ok());
    if matches!(name, "rtpmap" | "fmtp" | "rtcp-fb")
        && payload_type.is_some_and(|pt| left_out(section, pt, offered))
    {
        return true;
    }
    let of_offer = section.mid().and_then(|mid| offered?.0.get(mid));
    name == "extmap" && of_offer.is_some_and(|(uris, _)| !uris.contains(value.split(' ').nth(1).unwrap()))
}

/// Payload types that LiveKit has and we leave out.
fn left_out(section: &MediaSection<'_>, payload_type: u8, offered: Option<&Sections>) -> bool {
    let formats = section.payload_formats();
    let find = |payload_type| formats.iter().find(|format| format.payload_type == payload_type);
    let Some(format) = find(payload_type) else { return false };
    let primary = match format.parameter("apt").and_then(|apt| apt.parse().ok()) {
        Some(apt) => find(apt).unwrap(),
        None => format,
    };
    let of_offer = section.mid().and_then(|mid| offered?.0.get(mid));
    let unknown = of_offer.is_some_and(|(_, known)| !known.contains(&primary.payload_type));
    primary.name == "H265" || (primary.name == "VP9" && unknown)
}

/// Fails with the lines that only one side has.
pub(crate) fn compare(name: &str, recorded: &SessionDescription, ours: &str, offered: Option<&Sections>) {
    let ours = SessionDescription::parse(ours).unwrap();
    let session = |description: &SessionDescription| -> BTreeSet<String> {
        let lines = description.attributes().map(|(name, value)| format!("{name}:{value}"));
        lines.filter(|line| !line.starts_with("fingerprint:")).collect()
    };
    assert_eq!(session(recorded), session(&ours), "{name}: session part");
    assert_eq!(ours.fingerprint(), Some("sha-256 8F:A6"), "{name}");
    assert_eq!(recorded.sections().len(), ours.sections().len(), "{name}: m-lines");
    for (index, (theirs, ours)) in recorded.sections().zip(ours.sections()).enumerate() {
        let name = format!("{name} section {index}");
        let setup = if offered.is_some() { "passive" } else { "actpass" };
        assert_eq!(ours.attribute("setup"), Some(setup), "{name}");
        assert_eq!(ours.attribute("ice-ufrag"), Some("dOdYBQVFguvVbFZA"), "{name}");
        assert_eq!(ours.candidates().count(), usize::from(index == 0), "{name}");
        let head = |section: &MediaSection<'_>| {
            (
                section.media().to_owned(),
                section.port(),
                section.protocol().to_owned(),
                primaries(section, offered),
            )
        };
        assert_eq!(head(&theirs), head(&ours), "{name}: m-line");
        let (theirs, ours) = (lines(&theirs, offered), lines(&ours, offered));
        let missing: Vec<_> = theirs.difference(&ours).collect();
        let added: Vec<_> = ours.difference(&theirs).collect();
        assert!(missing.is_empty() && added.is_empty(), "{name}\nmissing: {missing:#?}\nadded: {added:#?}");
    }
}

/// Formats without RTX, in order.
fn primaries(section: &MediaSection<'_>, offered: Option<&Sections>) -> Vec<String> {
    if section.kind() == MediaKind::Application {
        return section.formats().map(str::to_owned).collect();
    }
    let formats = section.payload_formats();
    let primary = formats.iter().filter(|format| format.name != "rtx");
    primary
        .filter(|format| !left_out(section, format.payload_type, offered))
        .map(|format| format.payload_type.to_string())
        .collect()
}

fn lines(section: &MediaSection<'_>, offered: Option<&Sections>) -> BTreeSet<String> {
    let attributes = section
        .attributes()
        .map(|(name, value)| if value.is_empty() { name.to_owned() } else { format!("{name}:{value}") });
    let kept = attributes.filter(|line| !permitted(section, line, offered));
    let we_send = offered.is_some() && section.attribute("rid").is_none() && !section.direction().receives();
    kept.filter_map(
        |line| if line.starts_with("fmtp:") { sorted_parameters(&line, we_send) } else { Some(line) },
    )
    .collect()
}

/// `fmtp` with its parameters as a set; `None` when nothing is left to compare.
fn sorted_parameters(line: &str, we_send: bool) -> Option<String> {
    let (payload_type, parameters) = line.split_once(' ').unwrap();
    let parameters = parameters.split(';').map(str::trim);
    let parameters: BTreeSet<&str> =
        parameters.filter(|text| !we_send || !CLIENT_ONLY.contains(text)).collect();
    (!parameters.is_empty()).then(|| format!("{payload_type} {parameters:?}"))
}
