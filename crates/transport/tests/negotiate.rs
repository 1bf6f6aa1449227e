//! Offer and answer seen from outside: roles, slots, reuse, refusals, and what an independent stack makes of our SDP.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "nothing here is compared with a recording")]
mod golden;

use fanlight_transport::negotiate::{
    Answer, Answerer, AnswererConfig, Codec, Mode, NegotiateError, OFFERED_SECTIONS_MAX, Offerer,
    OffererConfig, PublishDecision, RemoteDescription, RemoteDescriptionError, RemoteTransport,
    SectionsRequirement, TrackBinding,
};
use fanlight_transport::sdp::{Direction, MediaKind, SessionDescription};
use fanlight_transport::{DtlsRole, Setup};
use golden::{local, origin};
use std::time::Instant;
use str0m::change::{SdpAnswer, SdpOffer};

const FFMPEG: &str = include_str!("data/sdp/other/ffmpeg9-whip.sdp");
const CHROMIUM_SINGLE: &str = include_str!("data/sdp/c_chromium_v1/01_alice_client_offer.sdp");
const FIREFOX_SINGLE: &str = include_str!("data/sdp/c_firefox_v1/01_fay_client_offer.sdp");
const FIREFOX_ANSWER: &str = include_str!("data/sdp/c_firefox_v0/16_bob_client_answer.sdp");

/// What GStreamer's webrtcbin writes: named mids, later m-lines with port 0 and bundle-only.
const GSTREAMER: &str = "v=0\r\no=- 1 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-options:trickle\r\n\
a=group:BUNDLE video0 audio1 application2\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
a=rtcp-mux\r\na=rtcp-rsize\r\na=sendrecv\r\na=rtpmap:96 H264/90000\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\n\
a=rtcp-fb:96 transport-cc\r\na=fmtp:96 packetization-mode=1;profile-level-id=42c016\r\na=ssrc:1 msid:user webrtctransceiver0\r\n\
a=ssrc:1 cname:user\r\na=mid:video0\r\na=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
m=audio 0 UDP/TLS/RTP/SAVPF 97\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
a=bundle-only\r\na=rtcp-mux\r\na=sendrecv\r\na=rtpmap:97 OPUS/48000/2\r\na=mid:audio1\r\n\
m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=bundle-only\r\na=mid:application2\r\n\
a=sctp-port:5000\r\n";

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text).unwrap()
}

fn read(text: &str) -> RemoteDescription {
    RemoteDescription::parse(text).unwrap()
}

fn answerer(mode: Mode) -> Answerer {
    Answerer::new(AnswererConfig::new(mode), origin())
}

fn answer(answerer: &mut Answerer, offer: &str) -> Answer {
    answerer.answer(&read(offer), &mut |_| None, &local()).unwrap()
}

fn track(kind: MediaKind, number: u32) -> TrackBinding {
    TrackBinding {
        kind,
        track_id: format!("TR_{number}"),
        stream_id: format!("PA_x|TR_{number}"),
        ssrc: number,
        rtx_ssrc: (kind == MediaKind::Video).then_some(number + 1_000),
        stereo: false,
    }
}

fn directions(sdp: &str) -> Vec<Direction> {
    parse(sdp).sections().map(|section| section.direction()).collect()
}

fn mids(description: &SessionDescription) -> Vec<&str> {
    description.sections().map(|section| section.mid().unwrap()).collect()
}

#[test]
fn ffmpeg_is_answered_actively_and_with_what_it_offers() {
    let answer = answer(&mut answerer(Mode::DualPublisher), FFMPEG);
    assert_eq!(answer.dtls_role, DtlsRole::Active);
    let description = parse(&answer.sdp.to_string());
    assert!(description.sections().all(|section| section.attribute("setup") == Some("active")));
    let video = &answer.published[1];
    assert_eq!((video.codecs[0].codec, video.codecs[0].payload_type), (Codec::H264, 106));
    assert_eq!(video.codecs[0].rtx_payload_type, Some(105));
    assert!(video.codecs[0].feedback.nack && !video.codecs[0].feedback.nack_pli);
    assert_eq!(video.rtx_pairs, [(4_273_464_080, 4_273_464_081)]);
    assert_eq!((video.stream_id.as_deref(), video.track_id.as_deref()), (Some("FFmpeg"), Some("video")));
    assert_eq!(video.codec_of(105).map(|codec| codec.codec), Some(Codec::H264));
    assert_eq!(RemoteTransport::read(&parse(FFMPEG)).unwrap().parameters.setup, Setup::Passive);
}

#[test]
fn bundle_only_sections_of_gstreamer_are_taken() {
    let answer = answer(&mut answerer(Mode::DualPublisher), GSTREAMER);
    assert_eq!(answer.dtls_role, DtlsRole::Passive);
    let description = parse(&answer.sdp.to_string());
    assert_eq!(mids(&description), ["video0", "audio1", "application2"]);
    assert_eq!(description.bundle().unwrap(), ["video0", "audio1", "application2"]);
    assert!(description.sections().all(|section| section.port() == 9));
    assert_eq!(answer.published[0].track_id.as_deref(), Some("webrtctransceiver0"));
    assert_eq!(&*answer.published[1].codecs[0].fmtp, "");
    assert_eq!(answer.data.unwrap().max_message_size_bytes, 65_536);
    assert_eq!(directions(&answer.sdp.to_string())[..2], [Direction::RecvOnly, Direction::RecvOnly]);
}

#[test]
fn what_is_not_understood_is_rejected_in_its_place() {
    let offer = format!(
        "{FFMPEG}m=text 9 UDP/TLS/RTP/SAVPF 98\r\na=mid:t\r\nm=video 9 UDP/TLS/RTP/SAVPF 99\r\na=mid:v\r\n\
         a=rtpmap:99 theora/90000\r\nm=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n\
         m=application 9 DTLS/SCTP 5000\r\na=mid:d\r\n"
    )
    .replace("BUNDLE 0 1", "BUNDLE 0 1 t v d");
    let answer = answer(&mut answerer(Mode::Single), &offer);
    let description = parse(&answer.sdp.to_string());
    let ports: Vec<u16> = description.sections().map(|section| section.port()).collect();
    assert_eq!(ports, [9, 9, 0, 0, 0, 0]);
    assert_eq!(description.bundle().unwrap(), ["0", "1"]);
    assert_eq!(description.sections().nth(2).unwrap().media(), "text");
    assert_eq!(answer.published.len(), 2);
}

#[test]
fn without_bundle_only_one_section_gets_a_transport() {
    let answer = answer(&mut answerer(Mode::DualPublisher), &FFMPEG.replace("a=group:BUNDLE 0 1\r\n", ""));
    let description = parse(&answer.sdp.to_string());
    assert_eq!(description.bundle(), None);
    assert!(!description.sections().next().unwrap().is_rejected());
    assert!(description.sections().nth(1).unwrap().is_rejected());
}

/// FFmpeg's offer with so many m-lines after its own two.
fn longer(receiving: usize) -> String {
    let mids: Vec<String> = (0..2 + receiving).map(|mid| mid.to_string()).collect();
    let mut text = FFMPEG.replace("a=group:BUNDLE 0 1", &format!("a=group:BUNDLE {}", mids.join(" ")));
    for mid in &mids[2..] {
        text.push_str("m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\na=recvonly\r\n");
        text.push_str(&format!("a=mid:{mid}\r\n"));
    }
    text
}

#[test]
fn a_client_adds_no_more_sections_by_itself_than_a_limit() {
    for mode in [Mode::DualPublisher, Mode::Single] {
        let mut answerer = answerer(mode);
        let offer = longer(OFFERED_SECTIONS_MAX - 1);
        let error = answerer.answer(&read(&offer), &mut |_| None, &local()).unwrap_err();
        assert_eq!(error, NegotiateError::TooManyOffered { found: 151, allowed: 150 });
        let text = "offer has 151 m-lines; 150 and those that the client was asked for make at most 150";
        assert_eq!(error.to_string(), text);
        let answered = answer(&mut answerer, &longer(OFFERED_SECTIONS_MAX - 2));
        assert_eq!(parse(&answered.sdp.to_string()).sections().len(), OFFERED_SECTIONS_MAX);
    }
}

#[test]
fn a_room_of_three_hundred_has_as_many_sections_as_it_asked_for() {
    let mut answerer = answerer(Mode::Single);
    answer(&mut answerer, FFMPEG);
    for number in 0..300 {
        assert_eq!(answerer.bind(track(MediaKind::Video, number)).unwrap(), None);
    }
    assert_eq!(answerer.requirement(), Some(SectionsRequirement { audios: 0, videos: 300 }));
    let answered = answer(&mut answerer, &longer(300));
    assert_eq!(answered.subscribed.len(), 300);
    let own = OFFERED_SECTIONS_MAX - 2;
    assert_eq!(parse(&answer(&mut answerer, &longer(300 + own)).sdp.to_string()).sections().len(), 450);
    let error = answerer.answer(&read(&longer(301 + own)), &mut |_| None, &local()).unwrap_err();
    assert_eq!(error, NegotiateError::TooManyOffered { found: 451, allowed: 450 });
    // Asking is not repeated by dropping and wanting the same tracks again, nor is what it allows.
    for number in 0..300 {
        answerer.unbind(&format!("TR_{number}"));
    }
    answer(&mut answerer, &longer(300 + own));
    for number in 0..300 {
        answerer.bind(track(MediaKind::Video, number)).unwrap();
    }
    assert_eq!(answerer.requirement(), Some(SectionsRequirement::default()));
    assert_eq!(answer(&mut answerer, &longer(300 + own)).subscribed.len(), 300);
    assert!(answerer.answer(&read(&longer(301 + own)), &mut |_| None, &local()).is_err());
}

#[test]
fn descriptions_that_cannot_be_used_change_nothing() {
    let mut answerer = answerer(Mode::Single);
    let first = answer(&mut answerer, FFMPEG);
    let (audio, _) = FFMPEG.split_once("m=video").unwrap();
    let fewer = answerer.answer(&read(audio), &mut |_| None, &local()).unwrap_err();
    assert_eq!(fewer, NegotiateError::SectionsMissing { known: 2, found: 1 });
    let second = answer(&mut answerer, FFMPEG);
    assert_eq!(first.sdp.to_string().replace("1795241457", "1795241458"), second.sdp.to_string());
    let read = |text: &str| match RemoteDescription::parse(text) {
        Err(RemoteDescriptionError::Unusable(error)) => error,
        other => panic!("{other:?}"),
    };
    let (session, _) = FFMPEG.split_once("m=audio").unwrap();
    assert_eq!(read(session), NegotiateError::NoIce);
    let fingerprint = fingerprint();
    let session = format!("{session}a=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:{fingerprint}\r\n");
    assert_eq!(read(&session), NegotiateError::NoSections);
    assert_eq!(read(&FFMPEG.replace("a=mid:1\r\n", "")), NegotiateError::NoMid { index: 1 });
    let long = format!("a=mid:{}", "1".repeat(65));
    assert_eq!(read(&FFMPEG.replace("a=mid:1", &long)), NegotiateError::NoMid { index: 1 });
    let twice = FFMPEG.replace("a=mid:1", "a=mid:0");
    assert_eq!(read(&twice), NegotiateError::DuplicateMid { mid: "0".to_owned() });
    assert_eq!(read(&FFMPEG.replace("a=ice-pwd", "a=x")), NegotiateError::NoIce);
    assert_eq!(
        read(&FFMPEG.replace("a=fingerprint:sha-256 9F", "a=fingerprint:sha-256 9")),
        NegotiateError::NoFingerprint
    );
}

#[test]
fn subscriptions_take_the_lowest_free_section_of_their_kind() {
    let mut answerer = answerer(Mode::Single);
    assert_eq!(answerer.bind(track(MediaKind::Video, 1)), Ok(None));
    let first = answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(first.subscribed.iter().map(|section| section.mid.as_str()).collect::<Vec<_>>(), ["3"]);
    assert_eq!(answerer.requirement(), None);
    assert_eq!(answerer.bind(track(MediaKind::Audio, 2)), Ok(Some("0".to_owned())));
    assert_eq!(answerer.bind(track(MediaKind::Audio, 2)), Ok(Some("0".to_owned())));
    assert_eq!(answerer.requirement(), Some(SectionsRequirement::default()));
    assert_eq!(answerer.requirement(), None);
    let second = answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(second.subscribed.len(), 2);
    let map = answerer.mid_to_track_id();
    assert_eq!((map["0"].as_str(), map["3"].as_str()), ("TR_2", "TR_1"));
}

#[test]
fn missing_sections_are_asked_for_once_and_taken_when_they_come() {
    let mut answerer = answerer(Mode::Single);
    answer(&mut answerer, CHROMIUM_SINGLE);
    for number in 0..5 {
        answerer.bind(track(MediaKind::Audio, number)).unwrap();
    }
    assert_eq!(answerer.unmatched(), SectionsRequirement { audios: 2, videos: 0 });
    assert_eq!(answerer.requirement(), Some(SectionsRequirement { audios: 2, videos: 0 }));
    assert_eq!(answerer.requirement(), None);
    // An offer that was on its way already brings none.
    assert_eq!(answer(&mut answerer, CHROMIUM_SINGLE).subscribed.len(), 3);
    assert_eq!(answerer.requirement(), None);
    let audio = CHROMIUM_SINGLE.split("m=").nth(1).unwrap();
    let more = |mid: &str| format!("m={}", audio.replace("a=mid:0", &format!("a=mid:{mid}")));
    let offer = format!("{CHROMIUM_SINGLE}{}{}", more("7"), more("8")).replace(" 5 6\r\n", " 5 6 7 8\r\n");
    let answer = answer(&mut answerer, &offer);
    let mids: Vec<_> = answer.subscribed.iter().map(|section| section.mid.as_str()).collect();
    assert_eq!(mids, ["0", "1", "2", "7", "8"]);
    assert_eq!((answerer.unmatched(), answerer.requirement()), (SectionsRequirement::default(), None));
}

#[test]
fn a_freed_section_is_inactive_once_before_it_is_used_again() {
    let mut answerer = answerer(Mode::Single);
    answerer.bind(track(MediaKind::Video, 1)).unwrap();
    answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(answerer.unbind("TR_1"), Some("3".to_owned()));
    assert_eq!(answerer.bind(track(MediaKind::Video, 2)), Ok(Some("4".to_owned())));
    let freed = answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(directions(&freed.sdp.to_string())[3..5], [Direction::Inactive, Direction::SendOnly]);
    assert_eq!(answerer.bind(track(MediaKind::Video, 3)), Ok(Some("3".to_owned())));
    let reused = answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(directions(&reused.sdp.to_string())[3], Direction::SendOnly);
    assert_eq!(parse(&reused.sdp.to_string()).sections().nth(3).unwrap().ssrcs(), [3, 1_003]);
}

#[test]
fn a_full_house_waits_for_the_freed_section_and_asks_for_offers_only() {
    let mut answerer = answerer(Mode::Single);
    for number in 0..3 {
        answerer.bind(track(MediaKind::Audio, number)).unwrap();
    }
    answer(&mut answerer, CHROMIUM_SINGLE);
    answerer.unbind("TR_1").unwrap();
    assert_eq!(answerer.bind(track(MediaKind::Audio, 9)), Ok(None));
    assert_eq!(answerer.requirement(), Some(SectionsRequirement::default()));
    assert_eq!(directions(&answer(&mut answerer, CHROMIUM_SINGLE).sdp.to_string())[1], Direction::Inactive);
    assert_eq!(answerer.requirement(), Some(SectionsRequirement::default()));
    let reused = answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(reused.subscribed[1].binding.track_id, "TR_9");
    assert_eq!(answerer.requirement(), None);
}

#[test]
fn clients_that_cannot_reuse_sections_get_new_ones() {
    let config = AnswererConfig { no_section_reuse: true, ..AnswererConfig::new(Mode::Single) };
    let mut answerer = Answerer::new(config, origin());
    answerer.bind(track(MediaKind::Audio, 1)).unwrap();
    answer(&mut answerer, CHROMIUM_SINGLE);
    answerer.unbind("TR_1").unwrap();
    answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(answerer.bind(track(MediaKind::Audio, 2)), Ok(Some("1".to_owned())));
}

#[test]
fn a_track_unbound_before_any_answer_leaves_no_trace() {
    let mut answerer = answerer(Mode::Single);
    answer(&mut answerer, CHROMIUM_SINGLE);
    assert_eq!(answerer.bind(track(MediaKind::Audio, 1)), Ok(Some("0".to_owned())));
    assert_eq!(answerer.unbind("TR_1"), Some("0".to_owned()));
    assert_eq!(answerer.bind(track(MediaKind::Audio, 2)), Ok(Some("0".to_owned())));
    assert_eq!(answerer.unbind("TR_1"), None);
}

#[test]
fn a_section_may_turn_from_receiving_to_both_and_back() {
    let mut answerer = answerer(Mode::Single);
    answerer.bind(track(MediaKind::Audio, 1)).unwrap();
    answer(&mut answerer, FIREFOX_SINGLE);
    let both = FIREFOX_SINGLE.replacen("a=recvonly", "a=sendrecv\r\na=msid:- cid", 1);
    let decision = PublishDecision { dtx: true, ..PublishDecision::default() };
    let mut seen = Vec::new();
    let answered = answerer
        .answer(
            &read(&both),
            &mut |track| {
                seen.push((track.mid.to_owned(), track.track_id.map(str::to_owned)));
                Some(decision)
            },
            &local(),
        )
        .unwrap();
    assert_eq!(seen, [("0".to_owned(), Some("cid".to_owned()))]);
    assert_eq!(directions(&answered.sdp.to_string())[0], Direction::SendRecv);
    assert_eq!((answered.published.len(), answered.subscribed.len()), (1, 1));
    assert!(answered.published[0].codecs[0].fmtp.ends_with(";usedtx=1"));
    let back = answer(&mut answerer, FIREFOX_SINGLE);
    assert_eq!(directions(&back.sdp.to_string())[0], Direction::SendOnly);
    assert!(!back.published[0].direction.sends());
}

#[test]
fn a_track_moves_on_when_its_section_ends() {
    let mut answerer = answerer(Mode::Single);
    answerer.bind(track(MediaKind::Audio, 1)).unwrap();
    answer(&mut answerer, CHROMIUM_SINGLE);
    let ended = CHROMIUM_SINGLE.replacen("m=audio 9", "m=audio 0", 1).replace("BUNDLE 0 1", "BUNDLE 1");
    let moved = answer(&mut answerer, &ended);
    assert_eq!(moved.subscribed[0].mid, "1");
    let recycled = CHROMIUM_SINGLE.replacen("a=mid:0", "a=mid:x", 1).replace("BUNDLE 0", "BUNDLE x");
    let kept = answer(&mut answerer, &recycled);
    assert_eq!((kept.subscribed[0].mid.as_str(), mids(&parse(&kept.sdp.to_string()))[0]), ("1", "x"));
}

#[test]
fn an_ice_lite_server_says_so_and_candidates_stand_in_the_first_section() {
    let parameters = fanlight_transport::negotiate::LocalParameters { ice_lite: true, ..local() };
    let mut answerer = answerer(Mode::Single);
    let sdp = answerer.answer(&read(CHROMIUM_SINGLE), &mut |_| None, &parameters).unwrap().sdp.to_string();
    let description = parse(&sdp);
    assert!(description.is_ice_lite());
    let counts: Vec<usize> = description.sections().map(|section| section.candidates().count()).collect();
    assert_eq!(counts, [1, 0, 0, 0, 0, 0, 0]);
    assert!(description.sections().next().unwrap().ends_candidates());
}

#[test]
fn packets_are_sent_with_the_clients_payload_types_and_ids() {
    let mut answerer = answerer(Mode::Single);
    answerer.bind(track(MediaKind::Audio, 1)).unwrap();
    answerer.bind(track(MediaKind::Video, 2)).unwrap();
    let subscribed = answer(&mut answerer, FIREFOX_SINGLE).subscribed;
    let opus = subscribed[0].send_parameters(Codec::Opus, "").unwrap();
    assert_eq!(
        (opus.mid.as_str(), opus.payload_type, opus.rtx, opus.clock_rate_hz),
        ("0", 109, None, 48_000)
    );
    assert_eq!(subscribed[0].send_parameters(Codec::Red, ""), None);
    let vp9 = subscribed[1].send_parameters(Codec::Vp9, "profile-id=0").unwrap();
    assert_eq!((vp9.payload_type, vp9.ssrc, vp9.rtx), (121, 2, Some((1_002, 125))));
    assert!(vp9.feedback.goog_remb && !vp9.feedback.transport_cc);
    let ids: Vec<_> = vp9.extensions.iter().map(|(id, kind)| (id, format!("{kind:?}"))).collect();
    assert_eq!(ids, [(3, "Mid".to_owned()), (4, "AbsSendTime".to_owned())]);
    assert_eq!(subscribed[1].send_parameters(Codec::H264, ""), None);
}

#[test]
fn transport_wide_feedback_replaces_remb_when_we_estimate() {
    let config = AnswererConfig { send_side_bwe: true, ..AnswererConfig::new(Mode::Single) };
    let mut answerer = Answerer::new(config, origin());
    answerer.bind(track(MediaKind::Video, 2)).unwrap();
    let subscribed = answer(&mut answerer, CHROMIUM_SINGLE).subscribed;
    let vp8 = subscribed[0].send_parameters(Codec::Vp8, "").unwrap();
    assert!(vp8.feedback.transport_cc && !vp8.feedback.goog_remb);
    assert!(vp8.extensions.iter().any(|(id, kind)| id == 3 && format!("{kind:?}") == "TransportCc"));
    let mut offerer =
        Offerer::new(&OffererConfig { send_side_bwe: true, ..OffererConfig::default() }, origin());
    offerer.bind(track(MediaKind::Video, 2)).unwrap();
    let offer = offerer.offer(&local()).unwrap().to_string();
    assert!(offer.contains("a=rtcp-fb:96 transport-cc") && !offer.contains("goog-remb"));
    assert!(offer.contains("transport-wide-cc-extensions-01") && !offer.contains("abs-send-time"));
}

#[test]
fn one_offer_is_outstanding_at_a_time() {
    let mut offerer = Offerer::new(&OffererConfig::default(), origin());
    assert!(offerer.needs_offer());
    assert!(matches!(offerer.handle_answer(&read(FIREFOX_ANSWER)), Err(NegotiateError::NoOffer)));
    assert_eq!(offerer.bind(track(MediaKind::Audio, 1)).unwrap(), "1");
    assert_eq!(offerer.bind(track(MediaKind::Video, 2)).unwrap(), "2");
    offerer.offer(&local()).unwrap().to_string();
    assert!(!offerer.needs_offer());
    assert!(matches!(offerer.offer(&local()), Err(NegotiateError::OfferOutstanding)));
    assert_eq!(offerer.bind(track(MediaKind::Video, 3)).unwrap(), "3");
    assert!(!offerer.needs_offer());
    let answered = offerer.handle_answer(&read(FIREFOX_ANSWER)).unwrap();
    assert!(answered.offer_needed && offerer.needs_offer() && answered.refused.is_empty());
    assert_eq!(answered.dtls_role, DtlsRole::Passive);
    assert_eq!(answered.data.unwrap().max_message_size_bytes, 1_073_741_823);
    let video = &answered.sections[1];
    let vp8 = video.send_parameters(Codec::Vp8, "").unwrap();
    assert_eq!((vp8.payload_type, vp8.rtx), (96, Some((1_002, 97))));
    assert_eq!(video.send_parameters(Codec::H264, "packetization-mode=1"), None);
    assert_eq!(offerer.mid_to_track_id().len(), 3);
}

#[test]
fn an_answer_that_does_not_fit_leaves_the_offer_outstanding() {
    let mut offerer = Offerer::new(&OffererConfig::default(), origin());
    offerer.bind(track(MediaKind::Video, 1)).unwrap();
    offerer.bind(track(MediaKind::Audio, 2)).unwrap();
    offerer.offer(&local()).unwrap().to_string();
    let swapped = offerer.handle_answer(&read(FIREFOX_ANSWER)).unwrap_err();
    assert_eq!(swapped, NegotiateError::Mismatch { index: 1 });
    let (short, _) = FIREFOX_ANSWER.split_once("m=video").unwrap();
    let missing = offerer.handle_answer(&read(short)).unwrap_err();
    assert_eq!(missing, NegotiateError::SectionsMissing { known: 3, found: 2 });
    assert!(offerer.is_outstanding());
    offerer.abandon();
    assert!(offerer.needs_offer());
}

#[test]
fn a_refused_track_is_named() {
    let mut offerer = Offerer::new(&OffererConfig::default(), origin());
    offerer.bind(track(MediaKind::Audio, 1)).unwrap();
    offerer.bind(track(MediaKind::Video, 2)).unwrap();
    offerer.offer(&local()).unwrap().to_string();
    let refusing = FIREFOX_ANSWER.replace("m=video 9", "m=video 0");
    let answered = offerer.handle_answer(&read(&refusing)).unwrap();
    assert_eq!((answered.sections.len(), answered.refused), (1, vec!["2".to_owned()]));
    assert_eq!(offerer.bind(track(MediaKind::Video, 3)).unwrap(), "3");
    let offer = parse(&offerer.offer(&local()).unwrap().to_string());
    assert!(offer.sections().nth(2).unwrap().is_rejected());
    assert_eq!(offer.bundle().unwrap(), ["0", "1", "3"]);
}

#[test]
fn a_freed_section_is_offered_free_before_it_is_used_again() {
    let mut offerer = Offerer::new(&OffererConfig::default(), origin());
    offerer.bind(track(MediaKind::Audio, 1)).unwrap();
    offerer.bind(track(MediaKind::Video, 2)).unwrap();
    offerer.offer(&local()).unwrap().to_string();
    offerer.handle_answer(&read(FIREFOX_ANSWER)).unwrap();
    assert_eq!(offerer.unbind("TR_1"), Some("1".to_owned()));
    assert_eq!(offerer.bind(track(MediaKind::Audio, 3)).unwrap(), "3");
    let offer = offerer.offer(&local()).unwrap().to_string();
    assert_eq!(directions(&offer)[1], Direction::RecvOnly);
    assert_eq!(offerer.bind(track(MediaKind::Audio, 4)).unwrap(), "1");
}

#[allow(
    clippy::disallowed_methods,
    reason = "str0m wants an Instant, which cannot be made without the clock"
)]
fn client() -> str0m::Rtc {
    str0m::RtcConfig::new().build(Instant::now())
}

#[test]
fn an_independent_stack_takes_our_answer() {
    for mode in [Mode::DualPublisher, Mode::Single] {
        let mut client = client();
        let mut api = client.sdp_api();
        let (send, receive) = (str0m::media::Direction::SendOnly, str0m::media::Direction::RecvOnly);
        api.add_channel("_reliable".to_owned());
        api.add_media(str0m::media::MediaKind::Audio, send, Some("s".to_owned()), Some("a".to_owned()), None);
        api.add_media(str0m::media::MediaKind::Video, send, Some("s".to_owned()), Some("v".to_owned()), None);
        api.add_media(str0m::media::MediaKind::Video, receive, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let mut answerer = answerer(mode);
        answerer.bind(track(MediaKind::Video, 5)).unwrap();
        let offer = read(&offer.to_sdp_string());
        let decision =
            PublishDecision { red: true, dtx: true, requested_codec: Some(Codec::Vp8), stereo: true };
        let valid = fanlight_transport::negotiate::LocalParameters { fingerprint: fingerprint(), ..local() };
        let answer = answerer.answer(&offer, &mut |_| Some(decision), &valid).unwrap();
        assert_eq!(answer.published.len(), 2);
        assert_eq!(answer.subscribed.len(), usize::from(mode == Mode::Single));
        let taken = SdpAnswer::from_sdp_string(&answer.sdp.to_string()).unwrap();
        client.sdp_api().accept_answer(pending, taken).unwrap();
    }
}

#[test]
fn an_independent_stack_answers_our_offers() {
    let mut client = client();
    let mut offerer = Offerer::new(&OffererConfig::default(), origin());
    let valid = fanlight_transport::negotiate::LocalParameters { fingerprint: fingerprint(), ..local() };
    for round in 0..3 {
        if round == 1 {
            offerer.bind(track(MediaKind::Audio, 1)).unwrap();
            offerer.bind(track(MediaKind::Video, 2)).unwrap();
        }
        let offer = SdpOffer::from_sdp_string(&offerer.offer(&valid).unwrap().to_string()).unwrap();
        let answer = client.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        let answered = offerer.handle_answer(&read(&answer)).unwrap();
        assert_eq!(answered.sections.len(), if round == 0 { 0 } else { 2 });
        if let [audio, video] = &answered.sections[..] {
            assert_eq!(audio.send_parameters(Codec::Opus, "").unwrap().payload_type, 111);
            assert_eq!(video.send_parameters(Codec::Vp8, "").unwrap().rtx, Some((1_002, 97)));
        }
    }
}

fn fingerprint() -> String {
    let pairs: Vec<String> = (0..32).map(|byte| format!("{byte:02X}")).collect();
    format!("sha-256 {}", pairs.join(":"))
}
