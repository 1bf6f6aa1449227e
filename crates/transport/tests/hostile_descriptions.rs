//! What clients may write to make a description dear: what is kept of it, and walked when it is negotiated, is bounded.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "nothing here is compared with a recording")]
mod golden;

use fanlight_transport::negotiate::{
    Answerer, AnswererConfig, Mode, NegotiateError, OFFERED_SECTIONS_MAX, RemoteDescription,
    RemoteDescriptionError,
};
use fanlight_transport::sdp::{
    DESCRIPTION_BYTES_MAX, LINE_BYTES_MAX, SECTION_BYTES_MAX, SECTION_ITEMS_MAX, SECTION_LINES_MAX,
    SECTIONS_MAX, SdpError,
};
use golden::{local, origin};
use std::fmt::Write as _;

const FORMATS: &str = "96 97";
/// Codecs, header extensions, RIDs and SSRCs that Chromium's largest section leads us to walk.
const HONEST_ITEMS: usize = 40;

/// A line with its number.
type Line = fn(usize) -> String;

fn session() -> String {
    let fingerprint = vec!["00"; 32].join(":");
    format!("v=0\r\na=fingerprint:sha-256 {fingerprint}\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n")
}

fn video(mid: &str, formats: &str, lines: &str) -> String {
    format!(
        "m=video 9 UDP/TLS/RTP/SAVPF {formats}\r\na=mid:{mid}\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n\
         a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n{lines}"
    )
}

fn one(lines: &str) -> Result<RemoteDescription, RemoteDescriptionError> {
    RemoteDescription::parse(&format!("{}{}", session(), video("0", FORMATS, lines)))
}

fn repeated(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let _ = write!(text, "a={}\r\n", line(number));
        text
    })
}

#[test]
fn however_often_a_line_is_repeated_little_of_it_is_kept() {
    let lines: [(&str, Line); 9] = [
        ("candidates", |n| format!("candidate:{n} 1 udp 1 10.0.0.1 {n} typ host")),
        ("SSRCs", |n| format!("ssrc:{n} cname:x")),
        ("SSRC groups", |n| format!("ssrc-group:FID {n} {n}")),
        ("format parameters", |n| format!("fmtp:96 a={n}")),
        ("feedback", |_| "rtcp-fb:* nack pli".to_owned()),
        ("encodings", |n| format!("rtpmap:96 VP{n}/90000")),
        ("header extensions", |n| format!("extmap:{} urn:x:{n}", n % 255 + 1)),
        ("known header extensions", |n| {
            format!("extmap:{} urn:ietf:params:rtp-hdrext:sdes:mid", n % 255 + 1)
        }),
        ("RIDs", |n| format!("rid:{n} send")),
    ];
    for (name, line) in lines {
        for count in [500, SECTION_LINES_MAX - 10] {
            match one(&repeated(count, line)) {
                Ok(read) => {
                    let candidates = read.transport().candidates.len();
                    assert!(read.items() <= 2 * SECTION_ITEMS_MAX + HONEST_ITEMS, "{name}: {}", read.items());
                    assert!(candidates <= 128, "{name}: {candidates} candidates");
                }
                Err(error) => {
                    let too_long =
                        matches!(error, RemoteDescriptionError::Sdp(SdpError::SectionTooLong { .. }));
                    assert!(too_long, "{name}: {error}");
                }
            }
        }
    }
}

#[test]
fn one_line_with_many_values_says_no_more_than_many_lines() {
    let numbers = |separator: &str| (0..800).map(|n| n.to_string()).collect::<Vec<_>>().join(separator);
    let lines = [
        format!("a=ssrc-group:SIM {}\r\n", numbers(" ")),
        format!("{}a=simulcast:send {}\r\n", repeated(64, |n| format!("rid:{n} send")), numbers(";")),
        format!("{}a=simulcast:send {}\r\n", repeated(64, |n| format!("rid:{n} send")), numbers(",")),
        format!("a=fmtp:96 {}\r\n", numbers(";")),
        format!("a=msid:{} {}\r\n", "s".repeat(2_000), "t".repeat(2_000)),
    ];
    for line in lines {
        let read = one(&line).unwrap();
        assert!(read.items() <= 2 * SECTION_ITEMS_MAX + HONEST_ITEMS, "{}: {line:.40}", read.items());
    }
    let formats: Vec<String> = (0..128).map(|payload_type| payload_type.to_string()).collect();
    let encodings = repeated(128, |n| format!("rtpmap:{n} VP8/90000"));
    let text = format!("{}{}", session(), video("0", &formats.join(" "), &encodings));
    assert!(RemoteDescription::parse(&text).unwrap().items() <= 128 + HONEST_ITEMS);
}

#[test]
fn bytes_lines_and_sections_are_limited_each_and_together() {
    let error = |text: &str| match RemoteDescription::parse(text) {
        Err(RemoteDescriptionError::Sdp(error)) => error,
        other => panic!("{other:?}"),
    };
    let sections = |count: usize, lines: &str| {
        let bodies: String = (0..count).map(|mid| video(&mid.to_string(), FORMATS, lines)).collect();
        format!("{}{bodies}", session())
    };
    assert_eq!(error(&sections(SECTIONS_MAX + 1, "")), SdpError::TooManySections);
    let heavy = repeated(9, |_| "x".repeat(LINE_BYTES_MAX - 10));
    assert!(matches!(error(&sections(1, &heavy)), SdpError::SectionTooLong { .. }));
    let full = repeated(SECTION_BYTES_MAX / 4_000 - 1, |_| "x".repeat(3_990));
    assert!(matches!(error(&sections(40, &full)), SdpError::TooLong { .. }));
    let long = format!("a={}\r\n", "x".repeat(LINE_BYTES_MAX));
    assert!(matches!(error(&sections(1, &long)), SdpError::LineTooLong { .. }));
    assert!(matches!(error(&sections(1, &"a=\r\n".repeat(2_000))), SdpError::TooManyLines { .. }));
    let session_part = format!("{}{}", session(), "a=ice-lite\r\n".repeat(SECTION_LINES_MAX));
    assert!(matches!(error(&session_part), SdpError::TooManyLines { .. }));
}

#[test]
fn a_mid_stands_once_and_is_short() {
    let twice = format!("{}{}{}", session(), video("a", FORMATS, ""), video("a", FORMATS, ""));
    let error = RemoteDescription::parse(&twice).unwrap_err();
    let duplicate = NegotiateError::DuplicateMid { mid: "a".to_owned() };
    assert_eq!(error, RemoteDescriptionError::Unusable(duplicate));
    let long = format!("{}{}", session(), video(&"m".repeat(65), FORMATS, ""));
    let error = RemoteDescription::parse(&long).unwrap_err();
    assert_eq!(error, RemoteDescriptionError::Unusable(NegotiateError::NoMid { index: 0 }));
}

/// The dearest offer a client may make: as many sections as it may add, each with all that is read.
#[test]
fn the_answer_to_the_dearest_offer_is_bounded_by_its_sections() {
    let formats: Vec<String> = (0..128).map(|payload_type| payload_type.to_string()).collect();
    let lines = repeated(128, |n| format!("rtpmap:{n} VP8/90000"));
    let mids: Vec<String> = (0..OFFERED_SECTIONS_MAX).map(|mid| mid.to_string()).collect();
    let mut text = format!("{}a=group:BUNDLE {}\r\n", session(), mids.join(" "));
    for mid in &mids {
        text.push_str(&video(mid, &formats.join(" "), &lines));
    }
    assert!(text.len() <= DESCRIPTION_BYTES_MAX, "{}", text.len());
    let read = RemoteDescription::parse(&text).unwrap();
    assert!(read.items() <= OFFERED_SECTIONS_MAX * (128 + HONEST_ITEMS), "{}", read.items());
    let mut answerer = Answerer::new(AnswererConfig::new(Mode::Single), origin());
    let answer = answerer.answer(&read, &mut |_| None, &local()).unwrap();
    let codecs: usize = answer.published.iter().map(|section| section.codecs.len()).sum();
    assert!(codecs <= read.items(), "{codecs}");
    let sdp = answer.sdp.to_string();
    assert!(sdp.len() <= 3 * text.len(), "{} bytes answer {}", sdp.len(), text.len());
}
