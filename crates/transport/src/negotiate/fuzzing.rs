//! Fuzz targets of descriptions: nothing may panic, whatever the text.

use super::{
    Answerer, AnswererConfig, Codec, LocalParameters, Mode, Offerer, OffererConfig, Origin, PublishDecision,
    RemoteDescription, TrackBinding,
};
use crate::sdp::{MediaKind, SdpError, SessionDescription};
use fanlight_base::Redacted;

/// Parses a description, reads everything out of it, answers it in both modes, and takes it for an answer.
pub fn fuzz_sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(description) = SessionDescription::parse(&text) else { return };
    assert_eq!(description.as_str(), text);
    let _ = (description.origin(), description.candidates().count());
    for section in description.sections() {
        let _ = (section.extensions().count(), section.simulcast(), section.max_message_size_bytes());
    }
    let Ok(description) = RemoteDescription::read(&description) else { return };
    assert!(description.items() <= description.sections() * SECTION_WALKED_MAX);
    answer(&description, Mode::DualPublisher);
    answer(&description, Mode::Single);
    let mut offerer = Offerer::new(&OffererConfig::default(), ORIGIN);
    for kind in [MediaKind::Audio, MediaKind::Video] {
        let _ = offerer.bind(binding(kind, 1));
    }
    let _ = offerer.offer(&local());
    let _ = offerer.handle_answer(&description);
    if offerer.needs_offer() && offerer.offer(&local()).is_err() {
        offerer.abandon();
    }
}

/// What a section may have to be walked: 128 payload types, and six lists of 64.
const SECTION_WALKED_MAX: usize = 513;

const ORIGIN: Origin = Origin { session_id: 1, version: 1 };

/// Answers twice with tracks bound; what we write must parse, with as many m-lines as the offer has.
fn answer(offer: &RemoteDescription, mode: Mode) {
    let mut answerer = Answerer::new(AnswererConfig::new(mode), ORIGIN);
    let decision = PublishDecision { requested_codec: Some(Codec::Vp9), red: true, stereo: true, dtx: true };
    for round in 0..2 {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let _ = answerer.bind(binding(kind, round));
        }
        let Ok(answer) = answerer.answer(offer, &mut |_| Some(decision), &local()) else { return };
        match SessionDescription::parse(&answer.sdp.to_string()) {
            Ok(answer) => assert_eq!(answer.sections().len(), offer.sections()),
            // What we add may push an offer at the limits beyond them.
            Err(error) => assert!(matches!(
                error,
                SdpError::TooLong { .. } | SdpError::LineTooLong { .. } | SdpError::SectionTooLong { .. }
            )),
        }
        for section in &answer.subscribed {
            let _ = section.send_parameters(Codec::H264, "packetization-mode=1");
        }
        let _ = (answerer.unbind("TR_0"), answerer.requirement(), answerer.mid_to_track_id());
    }
}

fn binding(kind: MediaKind, number: u32) -> TrackBinding {
    let prefix = if kind == MediaKind::Audio { "TR_" } else { "TR_V" };
    let track_id = format!("{prefix}{number}");
    let stream_id = format!("PA_1|{track_id}");
    TrackBinding { kind, track_id, stream_id, ssrc: number, rtx_ssrc: Some(number ^ 1), stereo: true }
}

fn local() -> LocalParameters {
    LocalParameters {
        ice_ufrag: "ufrag".to_owned(),
        ice_pwd: Redacted::new("password".to_owned()),
        fingerprint: "sha-256 00".to_owned(),
        candidates: vec!["candidate:1 1 udp 1 127.0.0.1 9 typ host".to_owned()],
        end_of_candidates: true,
        ice_lite: true,
    }
}
