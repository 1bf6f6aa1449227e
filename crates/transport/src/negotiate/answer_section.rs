//! One RTP m-line of an answer.

use super::answerer::{AnswererConfig, Mode, PublishDecision};
use super::codec::{self, Accepted, Codec, Use};
use super::extension::{self, Flow};
use super::opus;
use super::section::{NegotiatedCodec, PublishedSection};
use super::slots::Slot;
use crate::sdp::{Direction, Feedback, MediaKind, MediaSection, RidDirection};
use fanlight_rtp::ExtensionMap;

/// What the answer says about a section.
#[derive(Debug)]
pub(super) struct RtpAnswer {
    pub(super) codecs: Vec<NegotiatedCodec>,
    pub(super) extensions: ExtensionMap,
    /// RIDs in the order of the client's `a=rid` lines.
    pub(super) rids: Vec<String>,
    /// RIDs in the order of the client's `a=simulcast`.
    pub(super) simulcast: Vec<String>,
    /// Our direction.
    pub(super) direction: Direction,
}

/// What is known about a section besides the offer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) config: &'a AnswererConfig,
    /// The client has sent on it, or is about to.
    pub(super) published: bool,
    pub(super) decision: Option<PublishDecision>,
    pub(super) slot: &'a Slot,
    /// `a=extmap-allow-mixed` in the offer.
    pub(super) mixed_extmap: bool,
}

impl RtpAnswer {
    /// The answer to `section`; `None` when no codec of it is taken.
    pub(super) fn new(section: &MediaSection<'_>, known: Known<'_>) -> Option<Self> {
        let client = section.direction();
        let from_client = client.sends() || (known.published && !client.receives());
        let used = if from_client { Use::Published } else { Use::Subscribed };
        let formats = section.payload_formats();
        let mut accepted = codec::accept(section.kind(), &formats, &known.config.enabled, used);
        if from_client {
            prefer(section.kind(), &mut accepted, known);
        }
        if accepted.is_empty() {
            return None;
        }
        let flow = match (from_client, known.config.mode) {
            (true, Mode::DualPublisher) => Flow::FromClientDual,
            (true, Mode::Single) => Flow::FromClientSingle,
            (false, _) => Flow::ToClientSingle,
        };
        let (rids, simulcast) = if from_client { layers(section) } else { (Vec::new(), Vec::new()) };
        Some(Self {
            codecs: accepted.into_iter().map(|entry| negotiated(entry, client, flow, known)).collect(),
            extensions: extension::accept(section, flow, known.mixed_extmap),
            rids,
            simulcast,
            direction: direction(client, known),
        })
    }

    /// The section as its publisher described it.
    pub(super) fn published(&self, section: &MediaSection<'_>, mid: &str) -> PublishedSection {
        let msid = section.msid();
        let groups: Vec<_> = section.ssrc_groups().collect();
        let pair = |ssrcs: &[u32]| Some((*ssrcs.first()?, *ssrcs.get(1)?));
        PublishedSection {
            mid: mid.to_owned(),
            kind: section.kind(),
            direction: section.direction(),
            stream_id: msid.map(|msid| msid.stream.to_owned()),
            track_id: msid.and_then(|msid| msid.track).map(str::to_owned),
            codecs: self.codecs.clone(),
            extensions: self.extensions,
            rids: if self.simulcast.is_empty() { self.rids.clone() } else { self.simulcast.clone() },
            ssrcs: section.ssrcs(),
            rtx_pairs: groups
                .iter()
                .filter(|group| group.semantics == "FID")
                .filter_map(|group| pair(&group.ssrcs))
                .collect(),
            simulcast_ssrcs: groups
                .iter()
                .find(|group| group.semantics == "SIM")
                .map(|group| group.ssrcs.clone())
                .unwrap_or_default(),
        }
    }
}

/// We receive what the client sends, and send where it receives and a track is bound; a slot that never had a track is
/// `sendonly` as LiveKit answers it.
fn direction(client: Direction, known: Known<'_>) -> Direction {
    let bound = known.slot.binding.is_some();
    let fresh = !known.slot.used && !client.sends();
    let sends = client.receives() && known.config.mode == Mode::Single && (bound || fresh);
    Direction::new(sends, client.sends())
}

/// Puts the codec first that the client is to use.
fn prefer(kind: MediaKind, accepted: &mut Vec<Accepted<'_>>, known: Known<'_>) {
    let Some(decision) = known.decision else { return };
    let has = |codec| accepted.iter().any(|entry: &Accepted<'_>| entry.codec == codec);
    let default = match kind {
        MediaKind::Audio if decision.red && has(Codec::Red) => Some(Codec::Red),
        MediaKind::Audio => Some(Codec::Opus),
        _ => None,
    };
    let Some(wanted) = decision.requested_codec.filter(|codec| has(*codec)).or(default) else { return };
    // Stable: within the two groups the client's order stays.
    accepted.sort_by_key(|entry| entry.codec != wanted);
    if known.config.requested_codec_only && kind == MediaKind::Video {
        accepted.retain(|entry| entry.codec == wanted);
        accepted.iter_mut().for_each(|entry| entry.rtx_payload_type = None);
    }
}

fn negotiated(entry: Accepted<'_>, client: Direction, flow: Flow, known: Known<'_>) -> NegotiatedCodec {
    let Accepted { codec, format, rtx_payload_type } = entry;
    let fmtp = match known.decision {
        Some(decision) if codec == Codec::Opus && client.sends() => {
            opus::answer_fmtp(format.fmtp, decision.dtx, decision.stereo)
        }
        _ => format.fmtp.to_owned(),
    };
    let feedback = match codec.kind() {
        MediaKind::Video => format.feedback.and(video_feedback(format.feedback, flow, known)),
        // LiveKit answers none: nobody offers NACK for audio.
        _ => Feedback::default(),
    };
    NegotiatedCodec {
        codec,
        payload_type: format.payload_type,
        rtx_payload_type,
        clock_rate_hz: format.clock_rate_hz,
        channels: format.channels,
        fmtp,
        feedback,
    }
}

fn video_feedback(offered: Feedback, flow: Flow, known: Known<'_>) -> Feedback {
    let all = Feedback { nack: true, nack_pli: true, ccm_fir: true, goog_remb: true, transport_cc: true };
    match flow {
        Flow::FromClientDual => Feedback { goog_remb: false, ..all },
        Flow::FromClientSingle => all,
        // Once a track is sent, one way of estimating is settled; before, everything is left open as LiveKit does.
        Flow::ToClientSingle if known.slot.used || known.slot.binding.is_some() => {
            let send_side = known.config.send_side_bwe && offered.transport_cc;
            Feedback { goog_remb: !send_side, transport_cc: send_side, ..all }
        }
        Flow::ToClientSingle => all,
    }
}

/// The RIDs the client sends: in the order of the `a=rid` lines, and in that of `a=simulcast` (first alternatives).
fn layers(section: &MediaSection<'_>) -> (Vec<String>, Vec<String>) {
    let sent: Vec<&str> =
        section.rids().filter(|rid| rid.direction == RidDirection::Send).map(|rid| rid.id).collect();
    let simulcast: Vec<String> = section
        .simulcast()
        .into_iter()
        .flat_map(|simulcast| simulcast.send)
        .filter_map(|alternatives| alternatives.first().map(|stream| stream.rid))
        .filter(|rid| sent.contains(rid))
        .map(str::to_owned)
        .collect();
    let keeps = |rid: &str| simulcast.is_empty() || simulcast.iter().any(|kept| kept == rid);
    (sent.into_iter().filter(|rid| keeps(rid)).map(str::to_owned).collect(), simulcast)
}
