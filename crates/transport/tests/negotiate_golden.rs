//! Replays sessions recorded from LiveKit 1.13.5 and compares what we write with what it wrote, section by section and
//! as sets of lines. `golden/mod.rs` lists every difference.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod golden;

use fanlight_transport::negotiate::{
    Answerer, AnswererConfig, Codec, Mode, Offerer, OffererConfig, PublishDecision, RemoteDescription,
    TrackBinding,
};
use fanlight_transport::sdp::{MediaKind, MediaSection, SessionDescription};
use golden::{Sections, compare, local, origin};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a participant's signalling said, which is not in the SDP.
#[derive(Clone, Copy)]
struct Scenario {
    folder: &'static str,
    mode: Mode,
    /// Codec requested by mid; the default for video otherwise.
    video: Codec,
    firefox_on_linux: bool,
    /// The subscriber takes RED.
    red: bool,
}

const CHROMIUM_V0: Scenario = Scenario {
    folder: "c_chromium_v0",
    mode: Mode::DualPublisher,
    video: Codec::Vp8,
    firefox_on_linux: false,
    red: true,
};

/// `add_track` of each published section: what it requested.
fn decision(scenario: &Scenario, who: &str, section: &MediaSection<'_>) -> Option<PublishDecision> {
    let mid = section.mid().unwrap_or_default();
    let audio = PublishDecision { requested_codec: None, red: true, stereo: false, dtx: true };
    let stereo = PublishDecision { stereo: true, ..audio };
    let video = PublishDecision { requested_codec: Some(scenario.video), ..PublishDecision::default() };
    Some(match (scenario.folder, who, section.kind(), mid) {
        ("c_chromium_v0", "bob", MediaKind::Audio, _) => stereo,
        ("c_audio_red_stereo_v0", _, MediaKind::Audio, "2") => PublishDecision { red: false, ..stereo },
        ("c_audio_red_stereo_v1_last_section_only", _, _, "8") => PublishDecision { red: false, ..stereo },
        ("c_audio_red_stereo_v1_last_section_only", _, _, "9") => {
            PublishDecision { red: false, dtx: false, ..stereo }
        }
        ("c_audio_red_stereo_v1_last_section_only", _, _, "10") => PublishDecision { dtx: false, ..stereo },
        ("c_audio_red_stereo_v0" | "c_audio_red_stereo_v1_last_section_only", ..) => stereo,
        ("c_backup_codec_av1_v0", _, _, "2") => {
            PublishDecision { requested_codec: Some(Codec::Vp8), ..video }
        }
        (_, _, MediaKind::Audio, _) => audio,
        _ => video,
    })
}

/// One participant of a recording with our two halves.
struct Peer {
    answerer: Answerer,
    offer: Option<SessionDescription>,
    offerer: Offerer,
    offerer_bound: BTreeMap<String, TrackBinding>,
    answerer_bound: BTreeMap<String, TrackBinding>,
}

impl Peer {
    fn new(scenario: &Scenario) -> Self {
        let config = AnswererConfig {
            requested_codec_only: scenario.firefox_on_linux,
            ..AnswererConfig::new(scenario.mode)
        };
        let offerer = OffererConfig { red: scenario.red, ..OffererConfig::default() };
        Self {
            answerer: Answerer::new(config, origin()),
            offer: None,
            offerer: Offerer::new(&offerer, origin()),
            offerer_bound: BTreeMap::new(),
            answerer_bound: BTreeMap::new(),
        }
    }

    /// The recorded answer names the tracks bound; ours must put them on the same m-lines by itself.
    fn answer(&mut self, scenario: &Scenario, who: &str, recorded: &SessionDescription) -> Option<String> {
        let offer = self.offer.clone()?;
        if offer.sections().len() != recorded.sections().len() {
            return None;
        }
        let wanted = bindings(recorded);
        let gone: Vec<String> =
            self.answerer_bound.keys().filter(|track| !wanted.contains_key(*track)).cloned().collect();
        for track in gone {
            self.answerer_bound.remove(&track);
            self.answerer.unbind(&track);
        }
        for (track, binding) in wanted {
            if self.answerer_bound.insert(track, binding.clone()).is_none() {
                self.answerer.bind(binding).unwrap();
            }
        }
        let mut decide = |track: &fanlight_transport::negotiate::OfferedTrack<'_>| {
            let section = offer.sections().find(|section| section.mid() == Some(track.mid)).unwrap();
            decision(scenario, who, &section)
        };
        Some(self.answerer.answer(&read(&offer), &mut decide, &local()).unwrap().sdp.to_string())
    }

    /// The recorded offer names the subscribed tracks, in order of their mids.
    fn offer(&mut self, recorded: &SessionDescription) -> String {
        let wanted = bindings(recorded);
        let gone: Vec<String> =
            self.offerer_bound.keys().filter(|track| !wanted.contains_key(*track)).cloned().collect();
        for track in gone {
            self.offerer_bound.remove(&track);
            self.offerer.unbind(&track).unwrap();
        }
        for section in recorded.sections() {
            let Some(binding) = binding(&section) else { continue };
            if self.offerer_bound.insert(binding.track_id.clone(), binding.clone()).is_none() {
                let mid = self.offerer.bind(binding).unwrap();
                assert_eq!(Some(mid.as_str()), section.mid());
            }
        }
        if self.offerer.is_outstanding() {
            self.offerer.abandon();
        }
        self.offerer.offer(&local()).unwrap().to_string()
    }
}

fn read(description: &SessionDescription) -> RemoteDescription {
    RemoteDescription::read(description).unwrap()
}

fn binding(section: &MediaSection<'_>) -> Option<TrackBinding> {
    let msid = section.msid()?;
    let ssrcs = section.ssrcs();
    Some(TrackBinding {
        kind: section.kind(),
        track_id: msid.track?.to_owned(),
        stream_id: msid.stream.to_owned(),
        ssrc: *ssrcs.first()?,
        rtx_ssrc: ssrcs.get(1).copied(),
        stereo: section.payload_formats().iter().any(|format| format.parameter("sprop-stereo").is_some()),
    })
}

fn bindings(recorded: &SessionDescription) -> BTreeMap<String, TrackBinding> {
    recorded.sections().filter_map(|section| binding(&section)).map(|b| (b.track_id.clone(), b)).collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sdp").join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Replays a recording; returns how many of LiveKit's descriptions were compared.
fn replay(scenario: Scenario) -> usize {
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    let mut compared = 0;
    for path in files(scenario.folder) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let fields: Vec<&str> = name.split_once('_').unwrap().1.rsplitn(3, '_').collect();
        let [kind, side, who] = fields[..] else { panic!("unexpected file name {name}") };
        let text = golden::whole(&fs::read_to_string(&path).unwrap());
        let recorded = SessionDescription::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let peer = peers.entry(who.to_owned()).or_insert_with(|| Peer::new(&scenario));
        let ours = match (side, kind) {
            ("client", "offer") => {
                peer.offer = Some(recorded);
                continue;
            }
            ("client", _) => {
                peer.offerer
                    .handle_answer(&read(&recorded))
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                continue;
            }
            ("server", "offer") => Some(peer.offer(&recorded)),
            _ => peer.answer(&scenario, who, &recorded),
        };
        let Some(ours) = ours else { continue };
        let offer = (kind == "answer").then(|| Sections::of(peer.offer.as_ref().unwrap()));
        compare(&format!("{}/{name}", scenario.folder), &recorded, &ours, offer.as_ref());
        compared += 1;
    }
    compared
}

#[test]
fn chromium_with_two_connections() {
    assert_eq!(replay(CHROMIUM_V0), 11);
}

#[test]
fn chromium_with_one_connection() {
    assert_eq!(replay(Scenario { folder: "c_chromium_v1", mode: Mode::Single, ..CHROMIUM_V0 }), 6);
}

#[test]
fn firefox_with_two_connections() {
    let scenario = Scenario { folder: "c_firefox_v0", firefox_on_linux: true, red: false, ..CHROMIUM_V0 };
    assert_eq!(replay(scenario), 8);
}

#[test]
fn firefox_with_one_connection() {
    let scenario = Scenario {
        folder: "c_firefox_v1",
        mode: Mode::Single,
        firefox_on_linux: true,
        red: false,
        ..CHROMIUM_V0
    };
    assert_eq!(replay(scenario), 5);
}

#[test]
fn python_with_two_connections() {
    assert_eq!(replay(Scenario { folder: "a_python_v0", ..CHROMIUM_V0 }), 9);
}

#[test]
fn python_with_one_connection() {
    assert_eq!(replay(Scenario { folder: "a_python_v1", mode: Mode::Single, ..CHROMIUM_V0 }), 4);
}

#[test]
fn node_with_one_connection() {
    assert_eq!(replay(Scenario { folder: "b_node_v1", mode: Mode::Single, ..CHROMIUM_V0 }), 1);
}

#[test]
fn the_requested_codec_comes_first() {
    assert_eq!(replay(Scenario { folder: "c_codec_vp9svc_v0", video: Codec::Vp9, ..CHROMIUM_V0 }), 1);
    assert_eq!(replay(Scenario { folder: "c_codec_h264_v0", video: Codec::H264, ..CHROMIUM_V0 }), 1);
    assert_eq!(replay(Scenario { folder: "c_codec_av1nobackup_v0", video: Codec::Av1, ..CHROMIUM_V0 }), 1);
    assert_eq!(replay(Scenario { folder: "c_backup_codec_av1_v0", video: Codec::Av1, ..CHROMIUM_V0 }), 2);
}

#[test]
fn red_stereo_and_dtx_of_audio() {
    assert_eq!(replay(Scenario { folder: "c_audio_red_stereo_v0", ..CHROMIUM_V0 }), 8);
    let single =
        Scenario { folder: "c_audio_red_stereo_v1_last_section_only", mode: Mode::Single, ..CHROMIUM_V0 };
    assert_eq!(replay(single), 8);
}

#[test]
fn go_publishes_and_subscribes() {
    let scenario = Scenario { folder: "d_go_publish_demo", video: Codec::H264, red: false, ..CHROMIUM_V0 };
    assert_eq!(replay(scenario), 3);
    assert_eq!(replay(Scenario { folder: "d_go_load_test", ..CHROMIUM_V0 }), 1);
}
