//! RTP header extensions: what is negotiated where, and under which ids.

use super::remote::RemoteExtension;
use crate::sdp::MediaKind;
use fanlight_rtp::{ExtensionKind, ExtensionMap};

/// Who sends RTP on the section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The client, on the publisher connection of v0.
    FromClientDual,
    /// The client, on the only connection of v1.
    FromClientSingle,
    /// We do, on the only connection of v1.
    ToClientSingle,
}

const AUDIO: &[ExtensionKind] =
    &[ExtensionKind::AudioLevel, ExtensionKind::Mid, ExtensionKind::AbsCaptureTime];
const VIDEO: &[ExtensionKind] = &[
    ExtensionKind::Mid,
    ExtensionKind::Rid,
    ExtensionKind::RepairedRid,
    ExtensionKind::DependencyDescriptor,
    ExtensionKind::TransportCc,
    ExtensionKind::AbsCaptureTime,
];

/// Whether LiveKit answers this extension to a client that offers it (recorded, v0 and v1).
fn is_accepted(flow: Flow, media: MediaKind, kind: ExtensionKind) -> bool {
    match media {
        MediaKind::Audio => AUDIO.contains(&kind),
        _ => VIDEO.contains(&kind) || (kind == ExtensionKind::AbsSendTime && flow != Flow::FromClientDual),
    }
}

/// The extensions of an offered section that we accept.
pub(super) fn accept(offered: &[RemoteExtension], media: MediaKind, flow: Flow, mixed: bool) -> ExtensionMap {
    // Ids above 14 need the two-byte form, which both sides must have agreed to mix (RFC 8285 §6).
    let id_max = if mixed { u8::MAX } else { 14 };
    let mut accepted = ExtensionMap::new();
    for extension in offered {
        let usable = extension.direction.is_none_or(|direction| match flow {
            Flow::ToClientSingle => direction.receives(),
            Flow::FromClientDual | Flow::FromClientSingle => direction.sends(),
        });
        // Id 15 ends a header in the one-byte form.
        if usable && extension.id <= id_max && extension.id != 15 {
            add(&mut accepted, extension, |kind| is_accepted(flow, media, kind));
        }
    }
    accepted
}

/// The extensions of our own offers (recorded: 1 dependency descriptor, 2 capture time, 3 send time).
pub(super) fn own(media: MediaKind, send_side_bwe: bool) -> ExtensionMap {
    let rate = if send_side_bwe { (4, ExtensionKind::TransportCc) } else { (3, ExtensionKind::AbsSendTime) };
    let all = [(1, ExtensionKind::DependencyDescriptor), (2, ExtensionKind::AbsCaptureTime), rate];
    let mut map = ExtensionMap::new();
    for (id, kind) in all {
        if media == MediaKind::Video || kind == ExtensionKind::AbsCaptureTime {
            // Ids and kinds of the table are distinct, so nothing is refused.
            let _ = map.set(id, kind);
        }
    }
    map
}

/// What of our offer the client's answer keeps.
pub(super) fn kept(offered: &ExtensionMap, answered: &[RemoteExtension]) -> ExtensionMap {
    let mut kept = ExtensionMap::new();
    for extension in answered {
        add(&mut kept, extension, |kind| offered.id(kind) == Some(extension.id));
    }
    kept
}

/// The first mention of an extension counts; a second use of its id is ignored.
fn add(map: &mut ExtensionMap, extension: &RemoteExtension, wanted: impl Fn(ExtensionKind) -> bool) {
    if wanted(extension.kind) && map.id(extension.kind).is_none() {
        let _ = map.set(extension.id, extension.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::Direction;

    fn pairs(map: &ExtensionMap) -> Vec<(u8, ExtensionKind)> {
        map.iter().collect()
    }

    fn line(id: u8, kind: ExtensionKind) -> RemoteExtension {
        RemoteExtension { id, direction: None, kind }
    }

    #[test]
    fn directions_and_large_ids_are_respected() {
        let towards = |id, direction, kind| RemoteExtension { direction: Some(direction), ..line(id, kind) };
        let offered = [
            towards(1, Direction::SendOnly, ExtensionKind::Mid),
            towards(2, Direction::RecvOnly, ExtensionKind::Rid),
            line(16, ExtensionKind::TransportCc),
            line(15, ExtensionKind::DependencyDescriptor),
        ];
        let published = accept(&offered, MediaKind::Video, Flow::FromClientDual, false);
        assert_eq!(pairs(&published), [(1, ExtensionKind::Mid)]);
        let subscribed = accept(&offered, MediaKind::Video, Flow::ToClientSingle, true);
        assert_eq!(pairs(&subscribed), [(2, ExtensionKind::Rid), (16, ExtensionKind::TransportCc)]);
    }

    #[test]
    fn an_answer_keeps_only_what_was_offered_under_that_id() {
        let answered = [line(3, ExtensionKind::AbsSendTime), line(9, ExtensionKind::AbsCaptureTime)];
        let kept = kept(&own(MediaKind::Video, false), &answered);
        assert_eq!(pairs(&kept), [(3, ExtensionKind::AbsSendTime)]);
    }

    #[test]
    fn the_first_use_of_an_id_counts() {
        let offered = [line(3, ExtensionKind::Mid), line(3, ExtensionKind::Rid), line(4, ExtensionKind::Mid)];
        let accepted = accept(&offered, MediaKind::Video, Flow::FromClientDual, true);
        assert_eq!(pairs(&accepted), [(3, ExtensionKind::Mid)]);
    }
}
