//! From an announcement (`add_track`) to what others are told of the track.

use crate::codec;
use crate::input::AddTrack;
use crate::limits::{AUDIO_FEATURES_MAX, LAYERS_MAX, TRACK_CODECS_MAX, TRACK_TEXT_BYTES_MAX};
use crate::model::{CodecInfo, Kind, Permission, Source, TrackInfo, VideoLayer, VideoLayerMode};
use crate::output::RequestReason;
use fanlight_base::{Random, TrackSid, sid_suffix};

/// LiveKit's `AudioTrackFeature.TF_STEREO`.
pub(crate) const TF_STEREO: i32 = 0;
/// LiveKit's `AudioTrackFeature.TF_NO_DTX`.
pub(crate) const TF_NO_DTX: i32 = 1;
/// LiveKit's `BackupCodecPolicy.SIMULCAST`.
const POLICY_SIMULCAST: i32 = 1;
/// LiveKit's `BackupCodecPolicy.REGRESSION`.
const POLICY_REGRESSION: i32 = 2;

/// Why an announcement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: RequestReason,
    pub(crate) why: &'static str,
}

/// Whether a participant may publish this.
pub(crate) fn check(permission: &Permission, request: &AddTrack) -> Result<(), Refusal> {
    let refuse = |reason, why| Err(Refusal { reason, why });
    let sources = &permission.can_publish_sources;
    if !permission.can_publish {
        return refuse(RequestReason::NotAllowed, "may not publish");
    }
    if !sources.is_empty() && !sources.contains(&request.source) {
        return refuse(RequestReason::NotAllowed, "may not publish this source");
    }
    let texts = [&request.cid, &request.name, &request.stream];
    if texts.iter().any(|text| text.len() > TRACK_TEXT_BYTES_MAX) {
        return refuse(RequestReason::LimitExceeded, "TRACK_TEXT_BYTES_MAX 256");
    }
    let layers =
        request.simulcast_codecs.iter().map(|codec| codec.layers.len()).chain([request.layers.len()]);
    if layers.max() > Some(LAYERS_MAX) {
        return refuse(RequestReason::LimitExceeded, "LAYERS_MAX 8");
    }
    if request.simulcast_codecs.len() > TRACK_CODECS_MAX || request.audio_features.len() > AUDIO_FEATURES_MAX
    {
        return refuse(RequestReason::LimitExceeded, "TRACK_CODECS_MAX 8, AUDIO_FEATURES_MAX 32");
    }
    Ok(())
}

/// A new sid: `TR_`, kind, source, random part.
pub(crate) fn track_sid(random: &mut Random, kind: Kind, source: Source) -> TrackSid {
    let kind = match kind {
        Kind::Audio => 'A',
        Kind::Video => 'V',
    };
    TrackSid::from(format!("TR_{kind}{}{}", source.sid_letter(), sid_suffix(random)))
}

/// What is told of a track that is announced and does not flow yet.
pub(crate) fn track_info(request: &AddTrack, sid: TrackSid, enabled: &[String]) -> TrackInfo {
    let codecs = codecs(request, enabled);
    let layers = sorted(&request.layers);
    let svc = codecs.first().is_some_and(|codec| codec::is_svc(&codec.mime_type));
    TrackInfo {
        sid,
        kind: request.kind,
        name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast: request.kind == Kind::Video && !svc && layers.len() > 1,
        source: request.source,
        layers,
        mime_type: String::new(),
        mid: String::new(),
        codecs,
        stream: stream(request),
        disable_dtx: request.disable_dtx,
        stereo: request.stereo,
        disable_red: request.disable_red,
        encryption: request.encryption,
        version_unix_us: 0,
        audio_features: audio_features(request),
        backup_codec_policy: match request.kind {
            Kind::Audio if request.backup_codec_policy != POLICY_REGRESSION => POLICY_SIMULCAST,
            _ => request.backup_codec_policy,
        },
    }
}

/// Adds the codecs of a later announcement to a track that exists; whether anything was new.
pub(crate) fn add_codecs(info: &mut TrackInfo, request: &AddTrack, enabled: &[String]) -> bool {
    let mut changed = false;
    for added in codecs(request, enabled) {
        let count = info.codecs.len();
        match info.codecs.iter_mut().find(|codec| codec.mime_type.eq_ignore_ascii_case(&added.mime_type)) {
            Some(codec) if codec.cid.is_empty() => {
                codec.cid = added.cid;
                codec.layers = added.layers;
                changed = true;
            }
            Some(_) => {}
            None if count < TRACK_CODECS_MAX => {
                info.codecs.push(added);
                changed = true;
            }
            None => {}
        }
    }
    changed
}

fn codecs(request: &AddTrack, enabled: &[String]) -> Vec<CodecInfo> {
    let mut codecs: Vec<CodecInfo> = Vec::new();
    for asked in &request.simulcast_codecs {
        let mime_type = codec::announced(request.kind, &asked.codec, enabled);
        if codecs.iter().any(|codec| codec.mime_type.eq_ignore_ascii_case(&mime_type)) {
            continue;
        }
        let layers = if asked.layers.is_empty() { &request.layers } else { &asked.layers };
        codecs.push(CodecInfo {
            video_layer_mode: layer_mode(&mime_type),
            mime_type,
            cid: asked.cid.clone(),
            layers: sorted(layers),
            ..CodecInfo::default()
        });
    }
    if codecs.is_empty() {
        codecs.push(CodecInfo {
            cid: request.cid.clone(),
            video_layer_mode: VideoLayerMode::OneSpatialLayerPerStream,
            layers: sorted(&request.layers),
            ..CodecInfo::default()
        });
    }
    codecs
}

/// How layers of a codec travel; LiveKit says so of audio too.
pub(crate) fn layer_mode(mime: &str) -> VideoLayerMode {
    if codec::is_svc(mime) {
        VideoLayerMode::MultipleSpatialLayersPerStream
    } else {
        VideoLayerMode::OneSpatialLayerPerStream
    }
}

fn sorted(layers: &[VideoLayer]) -> Vec<VideoLayer> {
    let mut layers = layers.to_vec();
    layers.sort_by_key(|layer| layer.quality);
    layers
}

fn stream(request: &AddTrack) -> String {
    if !request.stream.is_empty() {
        return request.stream.clone();
    }
    match request.source {
        Source::CAMERA | Source::MICROPHONE => "camera",
        Source::SCREEN_SHARE | Source::SCREEN_SHARE_AUDIO => "screen",
        _ => "unknown",
    }
    .to_owned()
}

fn audio_features(request: &AddTrack) -> Vec<i32> {
    let mut features = request.audio_features.clone();
    for (asked, feature) in [(request.stereo, TF_STEREO), (request.disable_dtx, TF_NO_DTX)] {
        if asked && !features.contains(&feature) {
            features.push(feature);
        }
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::AddTrackCodec;

    fn enabled() -> Vec<String> {
        ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus", "audio/red"]
            .map(String::from)
            .to_vec()
    }

    fn request(kind: Kind, source: Source) -> AddTrack {
        AddTrack::new("c".into(), kind, source)
    }

    fn layer(quality: i32) -> VideoLayer {
        VideoLayer { quality, width: 320 << quality, ..VideoLayer::default() }
    }

    fn asked(codec: &str, cid: &str) -> AddTrackCodec {
        AddTrackCodec { codec: codec.into(), cid: cid.into(), layers: Vec::new() }
    }

    #[test]
    fn a_sid_names_kind_and_source() {
        let mut random = Random::from_seed([1; 32]);
        let mut sid = |kind, source| track_sid(&mut random, kind, source).as_str().to_owned();
        assert!(sid(Kind::Audio, Source::MICROPHONE).starts_with("TR_AM"));
        assert!(sid(Kind::Video, Source::SCREEN_SHARE).starts_with("TR_VS"));
        assert!(sid(Kind::Audio, Source::SCREEN_SHARE_AUDIO).starts_with("TR_As"));
        assert_eq!(sid(Kind::Audio, Source::UNKNOWN).len(), "TR_A".len() + 12);
    }

    #[test]
    fn a_microphone_is_told_as_livekit_tells_it() {
        let info = track_info(&request(Kind::Audio, Source::MICROPHONE), "TR_AM1".into(), &enabled());
        assert_eq!(
            (info.stream.as_str(), info.backup_codec_policy, info.mime_type.as_str()),
            ("camera", 1, "")
        );
        let codec = &info.codecs[0];
        assert_eq!(
            (codec.cid.as_str(), codec.mime_type.as_str(), codec.video_layer_mode),
            ("c", "", VideoLayerMode::OneSpatialLayerPerStream)
        );
        assert!(!info.simulcast && info.layers.is_empty() && info.version_unix_us == 0);
    }

    #[test]
    fn stereo_and_dtx_show_among_the_features() {
        let mut request = request(Kind::Audio, Source::SCREEN_SHARE_AUDIO);
        (request.stereo, request.disable_dtx) = (true, true);
        let info = track_info(&request, "TR_As1".into(), &enabled());
        assert_eq!(
            (info.audio_features.as_slice(), info.stream.as_str()),
            ([TF_STEREO, TF_NO_DTX].as_slice(), "screen")
        );
    }

    #[test]
    fn a_camera_with_three_layers_is_simulcast_unless_it_is_svc() {
        let mut request = request(Kind::Video, Source::CAMERA);
        request.layers = vec![layer(2), layer(1), layer(0)];
        request.simulcast_codecs = vec![asked("vp8", "c")];
        let info = track_info(&request, "TR_VC1".into(), &enabled());
        assert!(info.simulcast);
        assert_eq!(info.layers.iter().map(|layer| layer.quality).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((info.codecs[0].mime_type.as_str(), info.codecs[0].layers.len()), ("video/vp8", 3));

        request.simulcast_codecs = vec![asked("vp9", "c"), asked("vp8", ""), asked("video/VP8", "again")];
        let info = track_info(&request, "TR_VC2".into(), &enabled());
        assert!(!info.simulcast);
        assert_eq!(info.codecs.len(), 2, "one for each distinct codec");
        assert_eq!(info.codecs[0].video_layer_mode, VideoLayerMode::MultipleSpatialLayersPerStream);
        assert_eq!(info.codecs[1].video_layer_mode, VideoLayerMode::OneSpatialLayerPerStream);
    }

    #[test]
    fn a_backup_codec_takes_its_place_in_the_track() {
        let mut first = request(Kind::Video, Source::CAMERA);
        first.simulcast_codecs = vec![asked("av1", "c"), asked("vp8", "")];
        let mut info = track_info(&first, "TR_VC1".into(), &enabled());
        let mut second = request(Kind::Video, Source::CAMERA);
        second.simulcast_codecs = vec![asked("vp8", "backup")];
        assert!(add_codecs(&mut info, &second, &enabled()));
        assert_eq!((info.codecs.len(), info.codecs[1].cid.as_str()), (2, "backup"));
        assert!(!add_codecs(&mut info, &second, &enabled()));
    }

    #[test]
    fn only_what_the_grants_and_limits_allow_is_taken() {
        let all = Permission { can_publish: true, ..Permission::default() };
        let camera = request(Kind::Video, Source::CAMERA);
        let reason = |permission: &Permission, request: &AddTrack| {
            check(permission, request).err().map(|refusal| refusal.reason)
        };
        assert_eq!(reason(&all, &camera), None);
        assert_eq!(reason(&Permission::default(), &camera), Some(RequestReason::NotAllowed));
        let microphone = Permission { can_publish_sources: vec![Source::MICROPHONE], ..all.clone() };
        assert_eq!(reason(&microphone, &camera), Some(RequestReason::NotAllowed));
        assert_eq!(reason(&microphone, &request(Kind::Audio, Source::MICROPHONE)), None);
        let mut long = camera.clone();
        long.name = "x".repeat(257);
        assert_eq!(reason(&all, &long), Some(RequestReason::LimitExceeded));
        let mut many = camera;
        many.layers = vec![layer(0); 9];
        assert_eq!(reason(&all, &many), Some(RequestReason::LimitExceeded));
    }
}
