//! One RTP m-line of an answer.

use super::answerer::{AnswererConfig, Mode, PublishDecision};
use super::codec::{self, Accepted, Codec, Use};
use super::extension::{self, Flow};
use super::opus;
use super::remote::{RemoteMedia, RemoteSection};
use super::section::{NegotiatedCodec, PublishedSection};
use super::slots::Slot;
use crate::sdp::{Direction, Feedback, MediaKind};
use fanlight_rtp::ExtensionMap;
use std::sync::Arc;

/// What the answer says about a section.
#[derive(Debug)]
pub(super) struct RtpAnswer {
    pub(super) codecs: Arc<[NegotiatedCodec]>,
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
    pub(super) fn new(section: &RemoteSection, media: &RemoteMedia, known: Known<'_>) -> Option<Self> {
        let client = section.direction;
        let from_client = client.sends() || (known.published && !client.receives());
        let used = if from_client { Use::Published } else { Use::Subscribed };
        let mut accepted = codec::accept(&media.codecs, &known.config.enabled, used);
        if from_client {
            prefer(section.kind, &mut accepted, known);
        }
        if accepted.is_empty() {
            return None;
        }
        let flow = match (from_client, known.config.mode) {
            (true, Mode::DualPublisher) => Flow::FromClientDual,
            (true, Mode::Single) => Flow::FromClientSingle,
            (false, _) => Flow::ToClientSingle,
        };
        let (rids, simulcast) = if from_client {
            (media.rids.clone(), media.simulcast.clone())
        } else {
            (Vec::new(), Vec::new())
        };
        Some(Self {
            codecs: accepted.into_iter().map(|entry| negotiated(entry, client, flow, known)).collect(),
            extensions: extension::accept(&media.extensions, section.kind, flow, known.mixed_extmap),
            rids,
            simulcast,
            direction: direction(client, known),
        })
    }

    /// The section as its publisher described it.
    pub(super) fn published(&self, section: &RemoteSection, media: &RemoteMedia) -> PublishedSection {
        PublishedSection {
            mid: section.mid.clone(),
            kind: section.kind,
            direction: section.direction,
            stream_id: media.stream_id.clone(),
            track_id: media.track_id.clone(),
            codecs: Arc::clone(&self.codecs),
            extensions: self.extensions,
            rids: if self.simulcast.is_empty() { self.rids.clone() } else { self.simulcast.clone() },
            ssrcs: media.ssrcs.clone(),
            rtx_pairs: media.rtx_pairs.clone(),
            simulcast_ssrcs: media.simulcast_ssrcs.clone(),
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
    let has = |codec| accepted.iter().any(|entry: &Accepted<'_>| entry.offered.codec == codec);
    let default = match kind {
        MediaKind::Audio if decision.red && has(Codec::Red) => Some(Codec::Red),
        MediaKind::Audio => Some(Codec::Opus),
        _ => None,
    };
    let Some(wanted) = decision.requested_codec.filter(|codec| has(*codec)).or(default) else { return };
    // Stable: within the two groups the client's order stays.
    accepted.sort_by_key(|entry| entry.offered.codec != wanted);
    if known.config.requested_codec_only && kind == MediaKind::Video {
        accepted.retain(|entry| entry.offered.codec == wanted);
        accepted.iter_mut().for_each(|entry| entry.rtx_payload_type = None);
    }
}

fn negotiated(entry: Accepted<'_>, client: Direction, flow: Flow, known: Known<'_>) -> NegotiatedCodec {
    let Accepted { offered, rtx_payload_type } = entry;
    let codec = offered.codec;
    let fmtp = match known.decision {
        Some(decision) if codec == Codec::Opus && client.sends() => {
            opus::answer_fmtp(&offered.fmtp, decision.dtx, decision.stereo).into()
        }
        _ => Arc::clone(&offered.fmtp),
    };
    let feedback = match codec.kind() {
        MediaKind::Video => offered.feedback.and(video_feedback(offered.feedback, flow, known)),
        // LiveKit answers none: nobody offers NACK for audio.
        _ => Feedback::default(),
    };
    NegotiatedCodec {
        codec,
        payload_type: offered.payload_type,
        rtx_payload_type,
        clock_rate_hz: codec.clock_rate_hz(),
        channels: codec.channels(),
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
