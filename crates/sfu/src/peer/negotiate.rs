//! Offers, answers and candidates of a participant's connections.

use super::{Channel, Link, Peer};
use crate::codec;
use crate::ctx::Ctx;
use crate::input::{Layout, Target};
use crate::limits::{NEGOTIATION_TIMEOUT, WAITING_CANDIDATES_MAX};
use crate::media::TransportId;
use crate::model::DisconnectReason;
use crate::output::{LeaveAction, Signal};
use crate::room::Room;
use crate::timers::Timer;
use fanlight_base::{PeerKey, Redacted, TrackSid};
use fanlight_transport::negotiate::{
    Answerer, AnswererConfig, Codec, EnabledCodecs, LocalParameters, Mode, NegotiateError, OfferedTrack,
    Offerer, OffererConfig, Origin, PublishDecision, PublishedSection, RemoteDescription,
};
use fanlight_transport::{DtlsRole, Reliability, RemoteSet, Transport, TransportConfig};
use std::collections::{BTreeMap, BTreeSet};

/// The connection on which the client offers.
#[derive(Debug)]
pub(crate) struct PublisherSide {
    pub(crate) transport: TransportId,
    pub(crate) answerer: Answerer,
    /// Sections on which the client sends or has sent, by the last answer.
    pub(crate) sections: Vec<PublishedSection>,
}

/// The connection on which we offer.
#[derive(Debug)]
pub(crate) struct SubscriberSide {
    pub(crate) transport: TransportId,
    pub(crate) offerer: Offerer,
    /// Number of the last offer.
    offer_id: u32,
    /// An offer was made.
    offered: bool,
}

impl Room {
    /// Makes the subscriber connection of signalling v0, with its data channels, and offers it.
    pub(crate) fn open_subscriber(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if !peer.subscriber_primary() {
            return;
        }
        self.make_subscriber(ctx, key);
        self.settle(ctx, key);
    }

    /// The subscriber connection, made where it is missing.
    pub(crate) fn make_subscriber(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if peer.subscriber.is_some() || peer.layout == Layout::Single {
            return;
        }
        let config = OffererConfig {
            enabled: self.enabled(peer),
            red: !peer.quirks.no_red,
            no_section_reuse: peer.quirks.no_section_reuse,
            ..OffererConfig::default()
        };
        let origin = self.origin(ctx);
        let transport = self.make_transport(ctx, key, Target::Subscriber);
        self.open_channels(ctx, transport);
        let offer_id = u32::try_from(self.random.below(256)).unwrap_or(0);
        let offerer = Offerer::new(&config, origin);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.subscriber = Some(SubscriberSide { transport, offerer, offer_id, offered: false });
        }
    }

    fn open_channels(&mut self, ctx: &Ctx<'_>, id: TransportId) {
        let (Some(transport), Some(link)) = (self.transports.get_mut(id), self.links.get_mut(&id)) else {
            return;
        };
        let channels = [
            (Channel::RELIABLE, Channel::Reliable, true, Reliability::Reliable),
            (Channel::LOSSY, Channel::Lossy, false, Reliability::Retransmits(0)),
        ];
        for (label, channel, ordered, reliability) in channels {
            if let Some(opened) = transport.open_data_channel(ctx.now, label, ordered, reliability) {
                link.channels.insert(opened, channel);
            }
        }
        self.stirred.insert(id);
    }

    fn make_publisher(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if peer.publisher.is_some() {
            return;
        }
        let mode = if peer.layout == Layout::Single { Mode::Single } else { Mode::DualPublisher };
        let config = AnswererConfig {
            enabled: self.enabled(peer),
            requested_codec_only: peer.quirks.requested_codec_only,
            no_section_reuse: peer.quirks.no_section_reuse,
            ..AnswererConfig::new(mode)
        };
        let origin = self.origin(ctx);
        let transport = self.make_transport(ctx, key, Target::Publisher);
        if let Some(peer) = self.peers.get_mut(&key) {
            let answerer = Answerer::new(config, origin);
            peer.publisher = Some(PublisherSide { transport, answerer, sections: Vec::new() });
        }
    }

    fn make_transport(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, target: Target) -> TransportId {
        let config = TransportConfig {
            anchor: ctx.config.anchor,
            shard: ctx.config.shard,
            ice_lite: self.peers.get(&key).is_some_and(|peer| peer.ice_lite),
            offerer: target == Target::Subscriber,
            role: DtlsRole::Passive,
            certificate: ctx.config.certificate.clone(),
        };
        let mut transport = Transport::new(config, &mut self.random);
        for candidate in &ctx.config.candidates {
            transport.add_local_candidate(*candidate);
        }
        let ufrag = transport.local_ufrag().to_owned();
        let id = self.transports.insert(transport);
        ctx.demux.set_ufrag(self.owner(id), &ufrag);
        self.links.insert(id, Link::new(key, target));
        self.stirred.insert(id);
        id
    }

    /// Codecs of the room that this client takes.
    fn enabled(&self, peer: &Peer) -> EnabledCodecs {
        let known =
            self.config.enabled_codecs.iter().filter_map(|mime| Codec::parse(codec::canonical(mime)?));
        let enabled = EnabledCodecs::new(known);
        if peer.quirks.no_h264 { enabled.without(Codec::H264) } else { enabled }
    }

    fn origin(&mut self, ctx: &Ctx<'_>) -> Origin {
        Origin { session_id: self.random.u64() >> 1, version: ctx.now.unix_s() }
    }

    /// What our descriptions say of a transport. Candidates trickle at first and stand in later descriptions.
    fn local_parameters(&self, ctx: &Ctx<'_>, id: TransportId) -> Option<LocalParameters> {
        let transport = self.transports.get(id)?;
        let link = self.links.get(&id)?;
        let told = if link.trickled { transport.local_candidates() } else { &[] };
        let ufrag = transport.local_ufrag();
        Some(LocalParameters {
            ice_ufrag: ufrag.to_owned(),
            ice_pwd: Redacted::new(transport.local_password().to_owned()),
            fingerprint: ctx.config.certificate.fingerprint().to_string(),
            candidates: told
                .iter()
                .flat_map(|candidate| [1, 2].map(|component| candidate.attribute(component, ufrag)))
                .collect(),
            end_of_candidates: link.trickled,
            ice_lite: self.peers.get(&link.peer).is_some_and(|peer| peer.ice_lite),
        })
    }

    /// Tells our candidates, once for each transport; the last one says so.
    fn trickle_ours(&mut self, ctx: &mut Ctx<'_>, id: TransportId) {
        let (Some(transport), Some(link)) = (self.transports.get(id), self.links.get_mut(&id)) else {
            return;
        };
        if std::mem::replace(&mut link.trickled, true) {
            return;
        }
        let (key, target) = (link.peer, link.target);
        let ufrag = transport.local_ufrag();
        let lines = transport.local_candidates().iter().map(|candidate| candidate.attribute(1, ufrag));
        let lines: Vec<String> = lines.collect();
        let count = lines.len();
        for (index, candidate) in lines.into_iter().enumerate() {
            self.signal(ctx, key, Signal::Trickle { target, candidate, last: index + 1 == count });
        }
    }

    /// Takes the client's transport parameters; whether they could be used.
    fn take_remote(&mut self, ctx: &mut Ctx<'_>, id: TransportId, sdp: &RemoteDescription) -> bool {
        let remote = sdp.transport();
        let owner = self.owner(id);
        let (Some(transport), Some(link)) = (self.transports.get_mut(id), self.links.get_mut(&id)) else {
            return false;
        };
        match transport.set_remote(ctx.now, &remote.parameters) {
            Ok(RemoteSet::Restarted) => ctx.demux.set_ufrag(owner, transport.local_ufrag()),
            Ok(_) => {}
            Err(_) => return false,
        }
        link.has_remote = true;
        let (key, target) = (link.peer, link.target);
        let waiting = self.peers.get_mut(&key).map(|peer| std::mem::take(&mut peer.waiting_candidates));
        let (ours, others) =
            waiting.unwrap_or_default().into_iter().partition::<Vec<_>, _>(|(of, _)| *of == target);
        for line in remote.candidates.iter().chain(ours.iter().map(|(_, line)| line)) {
            // What is ignored ends nothing: checks teach the agent the rest.
            let _ = transport.add_remote_candidate(ctx.now, line);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.waiting_candidates = others;
        }
        self.stirred.insert(id);
        true
    }

    /// An offer for the publisher connection.
    pub(crate) fn handle_offer(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, id: u32, sdp: &RemoteDescription) {
        self.make_publisher(ctx, key);
        let side = self.peers.get(&key).and_then(|peer| peer.publisher.as_ref());
        let Some(transport) = side.map(|side| side.transport) else { return };
        if !self.take_remote(ctx, transport, sdp) {
            self.mismatch(ctx, key, "offer with another fingerprint");
            return;
        }
        let Some(local) = self.local_parameters(ctx, transport) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(side) = peer.publisher.as_mut() else { return };
        let mut claimed = BTreeSet::new();
        let tracks = &peer.tracks;
        let mut decide = |offered: &OfferedTrack<'_>| -> Option<PublishDecision> {
            let found = super::publish::find(tracks, &claimed, offered.mid, offered.kind, offered.track_id)?;
            claimed.insert(found);
            tracks.get(found).map(super::LocalTrack::decision)
        };
        let answer = match side.answerer.answer(sdp, &mut decide, &local) {
            Ok(answer) => answer,
            Err(error) => {
                self.mismatch(ctx, key, why_unanswered(&error));
                return;
            }
        };
        side.sections = answer.published;
        let mid_to_track = by_mid(side.answerer.mid_to_track_id());
        self.signal(ctx, key, Signal::Answer { id, sdp: Box::new(answer.sdp), mid_to_track });
        self.trickle_ours(ctx, transport);
        self.bind_published(ctx, key);
        for section in &answer.subscribed {
            self.section_bound(ctx, key, section);
        }
        self.unsettled.insert(key);
    }

    /// An answer to our offer on the subscriber connection.
    pub(crate) fn handle_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        id: u32,
        sdp: &RemoteDescription,
    ) {
        let Some(peer) = self.peers.get(&key) else { return };
        let Some(side) = peer.subscriber.as_ref() else {
            self.refuse(ctx, key, "answer", "no offer was made");
            return;
        };
        let (transport, asked) = (side.transport, side.offer_id);
        if id != 0 && id != asked {
            // As LiveKit does: most clients send no number at all, so the number decides nothing.
            self.refuse(ctx, key, "answer_id", "not the number of the offer; the answer is taken");
        }
        let outstanding = self.peers.get(&key).and_then(|peer| peer.subscriber.as_ref());
        if !outstanding.is_some_and(|side| side.offerer.is_outstanding()) {
            self.mismatch(ctx, key, "answer without an offer");
            return;
        }
        if !self.take_remote(ctx, transport, sdp) {
            self.mismatch(ctx, key, "answer with another fingerprint");
            return;
        }
        let side = self.peers.get_mut(&key).and_then(|peer| peer.subscriber.as_mut());
        let Some(side) = side else { return };
        let tracks = side.offerer.mid_to_track_id();
        let Ok(answered) = side.offerer.handle_answer(sdp) else {
            self.mismatch(ctx, key, "answer that does not fit the offer");
            return;
        };
        self.timers.stop(Timer::Negotiation(key));
        for section in &answered.sections {
            self.section_bound(ctx, key, section);
        }
        for mid in &answered.refused {
            if let Some(sid) = tracks.get(mid) {
                self.codec_unsupported(ctx, key, &TrackSid::from(sid));
            }
        }
        self.unsettled.insert(key);
    }

    /// A candidate of the client.
    pub(crate) fn trickle(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, target: Target, candidate: String) {
        let Some(peer) = self.peers.get(&key) else { return };
        let target = if peer.layout == Layout::Single { Target::Publisher } else { target };
        let ready = self.transport_of(key, target);
        let ready = ready.filter(|id| self.links.get(id).is_some_and(|link| link.has_remote));
        match ready {
            Some(id) => {
                if let Some(transport) = self.transports.get_mut(id) {
                    let _ = transport.add_remote_candidate(ctx.now, &candidate);
                    self.stirred.insert(id);
                }
            }
            None => {
                let waiting = self.peers.get_mut(&key).map(|peer| &mut peer.waiting_candidates);
                match waiting {
                    Some(waiting) if waiting.len() < WAITING_CANDIDATES_MAX => {
                        waiting.push((target, candidate))
                    }
                    _ => self.refuse(ctx, key, "candidate", "WAITING_CANDIDATES_MAX 64"),
                }
            }
        }
    }

    /// Brings a participant's sections in line with its subscriptions: an offer in v0, a wish for one in v1.
    pub(crate) fn settle(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match peer.layout {
            Layout::Single => {
                let Some(side) = peer.publisher.as_mut() else { return };
                if let Some(need) = side.answerer.requirement() {
                    self.signal(ctx, key, Signal::MediaSections { audios: need.audios, videos: need.videos });
                }
            }
            Layout::Dual { .. } => self.settle_offer(ctx, key),
        }
    }

    fn settle_offer(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let Some(side) = peer.subscriber.as_ref() else { return };
        let transport = side.transport;
        let connected = self.links.get(&transport).is_some_and(|link| link.connected);
        // The first offer makes the connection; changes are offered once it stands.
        if !side.offerer.needs_offer() || (side.offered && !connected) {
            return;
        }
        let Some(local) = self.local_parameters(ctx, transport) else { return };
        let side = self.peers.get_mut(&key).and_then(|peer| peer.subscriber.as_mut());
        let Some(side) = side else { return };
        let Ok(sdp) = side.offerer.offer(&local).map(Box::new) else { return };
        side.offer_id = side.offer_id.wrapping_add(1).max(1);
        side.offered = true;
        let (id, mid_to_track) = (side.offer_id, by_mid(side.offerer.mid_to_track_id()));
        self.timers.set(Timer::Negotiation(key), ctx.mono() + NEGOTIATION_TIMEOUT);
        self.signal(ctx, key, Signal::Offer { id, sdp, mid_to_track });
        self.trickle_ours(ctx, transport);
    }

    /// Our offer was not answered. A client that never became active is left to the join's own timeout.
    pub(crate) fn negotiation_timed_out(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        if self.peers.get(&key).is_some_and(Peer::is_active) {
            self.refuse(ctx, key, "negotiation", "NEGOTIATION_TIMEOUT 15 s");
            self.end_peer(ctx, key, DisconnectReason::StateMismatch, LeaveAction::Reconnect);
        }
    }
}

/// Why an offer is not answered, for the record.
const fn why_unanswered(error: &NegotiateError) -> &'static str {
    match error {
        NegotiateError::TooManyOffered { .. } => {
            "offer with more m-lines than OFFERED_SECTIONS_MAX 150 and those that were asked for"
        }
        NegotiateError::SectionsMissing { .. } => "offer with fewer m-lines than the one before",
        _ => "offer that cannot be answered",
    }
}

fn by_mid(tracks: BTreeMap<String, String>) -> Vec<(String, TrackSid)> {
    tracks.into_iter().map(|(mid, track)| (mid, TrackSid::from(track))).collect()
}
