//! Subscriptions of a participant: what it wants, what it may have, and the section that carries it.

use super::{Peer, Stage};
use crate::ctx::Ctx;
use crate::input::{Layout, TrackSettings};
use crate::limits::{SUBSCRIPTION_TIMEOUT, SUBSCRIPTIONS_MAX};
use crate::media::{DownKey, Subscribe, SubscribeCodec, TrackKey};
use crate::model::{Kind, TrackInfo};
use crate::output::Signal;
use crate::peer::announce::TF_STEREO;
use crate::room::Room;
use crate::spec::{max_spatial, subscribe_codecs, takes};
use crate::timers::Timer;
use fanlight_base::{Mono, PeerKey, TrackSid};
use fanlight_events::{Direction, SampleBody, TrackSample, TrackSubscribed, TrackUnsubscribed};
use fanlight_transport::negotiate::{NegotiatedSection, TrackBinding};
use fanlight_transport::sdp::MediaKind;

/// One participant's stand towards one track.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    /// What it asked for; by default what its join said of all tracks.
    desired: Option<bool>,
    settings: Option<TrackSettings>,
    /// What it was told about its right to the track.
    told: Option<bool>,
    /// It cannot take the codec; asking again tries again.
    failed: bool,
    /// Since when it is asked for and there is no such track.
    missing_since: Option<Mono>,
    pub(crate) binding: Option<Binding>,
}

/// A section for a subscribed track.
#[derive(Debug)]
pub(crate) struct Binding {
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    /// Media flows, once the section is negotiated.
    pub(crate) down: Option<Down>,
}

/// Media of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Down {
    pub(crate) key: DownKey,
    line: TrackKey,
}

impl Room {
    /// A participant became active: it gets what there is, if it wants all.
    pub(crate) fn subscribe_to_all(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let mut sids: Vec<TrackSid> = self.tracks.iter().map(|(sid, _)| sid.clone()).collect();
        if !peer.auto_subscribe {
            sids.retain(|sid| peer.subscriptions.contains_key(sid));
        }
        for sid in sids {
            self.reconcile(ctx, key, &sid);
        }
    }

    /// A track can be subscribed to: those who want all, or it, get it.
    pub(crate) fn track_available(&mut self, ctx: &mut Ctx<'_>, sid: &TrackSid) {
        let interested = self
            .peers
            .values()
            .filter(|peer| peer.is_active() && (peer.auto_subscribe || peer.subscriptions.contains_key(sid)));
        for key in interested.map(|peer| peer.key).collect::<Vec<_>>() {
            self.reconcile(ctx, key, sid);
        }
    }

    /// A request to subscribe or unsubscribe. Tracks that do not exist yet are remembered.
    pub(crate) fn update_subscription(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        tracks: Vec<TrackSid>,
        subscribe: bool,
    ) {
        for sid in tracks {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            if peer.subscriptions.len() >= SUBSCRIPTIONS_MAX && !peer.subscriptions.contains_key(&sid) {
                self.refuse(ctx, key, "subscription", "SUBSCRIPTIONS_MAX 2000");
                return;
            }
            let subscription = peer.subscriptions.entry(sid.clone()).or_default();
            if subscribe && subscription.desired == Some(false) {
                subscription.told = None;
            }
            subscription.desired = Some(subscribe);
            subscription.failed = false;
            if !subscribe || self.tracks.publisher(&sid).is_some() {
                subscription.missing_since = None;
            } else if subscription.missing_since.is_none() {
                subscription.missing_since = Some(ctx.mono());
                self.timers.start(Timer::Missing(key), ctx.mono() + SUBSCRIPTION_TIMEOUT);
            }
            self.reconcile(ctx, key, &sid);
        }
    }

    /// Some track that a participant asked for may not have come in time: it is told, and the wish is forgotten.
    pub(crate) fn tracks_missing(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let mut missing = Vec::new();
        let mut next = Mono::NEVER;
        for (sid, subscription) in &mut peer.subscriptions {
            let Some(since) = subscription.missing_since else { continue };
            if self.tracks.publisher(sid).is_some() {
                subscription.missing_since = None;
            } else if since + SUBSCRIPTION_TIMEOUT <= ctx.mono() {
                missing.push(sid.clone());
            } else {
                next = next.min(since + SUBSCRIPTION_TIMEOUT);
            }
        }
        for sid in &missing {
            peer.subscriptions.remove(sid);
        }
        self.timers.set(Timer::Missing(key), next);
        for track in missing {
            self.refuse(ctx, key, "subscription", "track not found");
            self.signal(ctx, key, Signal::SubscriptionFailed { track, codec_unsupported: false });
        }
    }

    /// What a subscriber wants of tracks; remembered for those it has not subscribed to.
    pub(crate) fn update_settings(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        tracks: &[TrackSid],
        settings: TrackSettings,
    ) {
        for sid in tracks {
            let Some(peer) = self.peers.get_mut(&key) else { return };
            if peer.subscriptions.len() >= SUBSCRIPTIONS_MAX && !peer.subscriptions.contains_key(sid) {
                self.refuse(ctx, key, "track_settings", "SUBSCRIPTIONS_MAX 2000");
                return;
            }
            let subscription = peer.subscriptions.entry(sid.clone()).or_default();
            let was_disabled = subscription.settings.is_some_and(|settings| settings.disabled);
            subscription.settings = Some(settings);
            let adaptive = peer.adaptive_stream;
            let down = subscription.binding.as_ref().and_then(|binding| binding.down.clone());
            let Some(down) = down else { continue };
            let publisher = self.tracks.publisher(sid);
            let info = publisher.and_then(|key| self.peers.get(&key)?.track(sid)).map(|track| &track.info);
            let spatial = info.map_or(u8::MAX, |info| max_spatial(info, Some(&settings), adaptive));
            self.media.set_settings(ctx.now, down.key, !settings.disabled, spatial);
            if was_disabled && !settings.disabled {
                self.tell_playing_to(ctx, key, sid);
            }
        }
    }

    /// Brings one subscription in line with what is wanted and allowed.
    fn reconcile(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid) {
        let Some(publisher) = self.tracks.publisher(sid) else { return };
        let (Some(peer), Some(from)) = (self.peers.get(&key), self.peers.get(&publisher)) else { return };
        let automatic = peer.auto_subscribe && publisher != key && !from.permission.hidden;
        let known = peer.subscriptions.get(sid);
        let desired = known.and_then(|subscription| subscription.desired).unwrap_or(automatic);
        let failed = known.is_some_and(|subscription| subscription.failed);
        let bound = known.is_some_and(|subscription| subscription.binding.is_some());
        let told = known.and_then(|subscription| subscription.told);
        let allowed = from.allow.allows(peer, sid);
        let wanted = desired && allowed && !failed && peer.permission.can_subscribe && peer.is_active();
        let participant = from.sid.clone();
        if desired && peer.permission.can_subscribe && peer.is_active() && told != Some(allowed) {
            let track = sid.clone();
            self.signal(ctx, key, Signal::SubscriptionPermission { participant, track, allowed });
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.subscriptions.entry(sid.clone()).or_default().told = Some(allowed);
            }
        }
        match (wanted, bound) {
            (true, false) => self.bind(ctx, key, publisher, sid),
            (false, true) => {
                let reason = if desired { "permission" } else { "unsubscribed" };
                self.unbind(ctx, key, sid, reason);
            }
            _ => {}
        }
    }

    fn bind(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, publisher: PeerKey, sid: &TrackSid) {
        self.make_subscriber(ctx, key);
        let from =
            self.peers.get(&publisher).and_then(|from| Some((from.sid.clone(), &from.track(sid)?.info)));
        let Some((participant, info)) = from else { return };
        let (ssrc, rtx_ssrc) = (ssrc(&mut self.random), ssrc(&mut self.random));
        let rtx_ssrc = (info.kind == Kind::Video).then_some(rtx_ssrc);
        let binding = TrackBinding {
            kind: match info.kind {
                Kind::Audio => MediaKind::Audio,
                Kind::Video => MediaKind::Video,
            },
            track_id: sid.as_str().to_owned(),
            stream_id: format!("{participant}|{sid}"),
            ssrc,
            rtx_ssrc,
            stereo: info.stereo || info.audio_features.contains(&TF_STEREO),
        };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let bound = match (peer.layout, peer.publisher.as_mut(), peer.subscriber.as_mut()) {
            (Layout::Single, Some(side), _) => side.answerer.bind(binding).map(|_| ()),
            (Layout::Dual { .. }, _, Some(side)) => side.offerer.bind(binding).map(|_| ()),
            _ => return,
        };
        if bound.is_err() {
            self.refuse(ctx, key, "subscription", "SECTIONS_MAX 512");
            return;
        }
        let subscription = peer.subscriptions.entry(sid.clone()).or_default();
        subscription.binding = Some(Binding { ssrc, rtx_ssrc, down: None });
        self.unsettled.insert(key);
    }

    /// A section with a subscribed track is negotiated, for the first time or again.
    pub(crate) fn section_bound(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, section: &NegotiatedSection) {
        let sid = TrackSid::from(&section.binding.track_id);
        let Some(publisher) = self.tracks.publisher(&sid) else { return };
        let (Some(peer), Some(from)) = (self.peers.get(&key), self.peers.get(&publisher)) else { return };
        let Some(track) = from.track(&sid) else { return };
        let Some(binding) = peer.subscriptions.get(&sid).and_then(|known| known.binding.as_ref()) else {
            return;
        };
        if binding.ssrc != section.binding.ssrc {
            return;
        }
        let usable = track.lines.iter().find_map(|line| {
            let codecs = subscribe_codecs(section, &line.section, &track.info, peer.quirks.no_red);
            takes(&codecs, &line.section, &line.mime).then_some((line.key, codecs, line.mime.clone()))
        });
        let Some((line, codecs, mime)) = usable else {
            self.codec_unsupported(ctx, key, &sid);
            return;
        };
        let Some(spec) = self.subscribe_spec(key, &sid, &track.info, section, (line, codecs)) else { return };
        let known = binding.down.clone();
        match known {
            Some(down) if down.line == line => {
                self.media.update_subscribe(ctx.now, down.key, spec);
                return;
            }
            Some(_) => self.end_down(ctx, key, &sid, "codec_changed"),
            None => {}
        }
        let Some(down) = self.media.subscribe(ctx.now, spec) else { return };
        self.subscribed.insert(down, (key, sid.clone()));
        let binding =
            self.peers.get_mut(&key).and_then(|peer| peer.subscriptions.get_mut(&sid)?.binding.as_mut());
        if let Some(binding) = binding {
            binding.down = Some(Down { key: down, line });
        }
        self.tell_subscribed(ctx, key, publisher, &sid, mime);
    }

    fn subscribe_spec(
        &self,
        key: PeerKey,
        sid: &TrackSid,
        info: &TrackInfo,
        section: &NegotiatedSection,
        (track, codecs): (TrackKey, Vec<SubscribeCodec>),
    ) -> Option<Subscribe> {
        let peer = self.peers.get(&key)?;
        let transport = match peer.layout {
            Layout::Single => peer.publisher.as_ref()?.transport,
            Layout::Dual { .. } => peer.subscriber.as_ref()?.transport,
        };
        let subscription = peer.subscriptions.get(sid)?;
        let settings = subscription.settings.as_ref();
        let binding = subscription.binding.as_ref()?;
        Some(Subscribe {
            transport,
            track,
            ssrc: binding.ssrc,
            rtx_ssrc: binding
                .rtx_ssrc
                .filter(|_| codecs.iter().any(|codec| codec.rtx_payload_type.is_some())),
            codecs,
            extensions: section.extensions,
            mid: section.mid.clone(),
            cname: section.binding.stream_id.clone(),
            max_spatial: max_spatial(info, settings, peer.adaptive_stream),
            enabled: !settings.is_some_and(|settings| settings.disabled),
        })
    }

    fn tell_subscribed(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        publisher: PeerKey,
        sid: &TrackSid,
        codec: String,
    ) {
        let (Some(peer), Some(from)) = (self.peers.get(&key), self.peers.get(&publisher)) else { return };
        let Some(track) = from.track(sid) else { return };
        let binding = peer.subscriptions.get(sid).and_then(|known| known.binding.as_ref());
        let fact = TrackSubscribed {
            publisher: from.sid.clone(),
            kind: track.info.kind,
            source: track.info.source.as_str().to_owned(),
            codec,
            ssrc: binding.map_or(0, |binding| binding.ssrc),
        };
        let heard = track.heard || peer.permission.hidden;
        ctx.fact(self.place(Some(&peer.sid), Some(sid)), fact);
        self.tell_playing_to(ctx, key, sid);
        if heard {
            return;
        }
        self.signal(ctx, publisher, Signal::TrackSubscribed(sid.clone()));
        if let Some(track) = self.peers.get_mut(&publisher).and_then(|from| from.track_mut(sid)) {
            track.heard = true;
        }
    }

    /// The client cannot take the track's codec.
    pub(crate) fn codec_unsupported(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid) {
        let subscription = self.peers.get_mut(&key).and_then(|peer| peer.subscriptions.get_mut(sid));
        let Some(subscription) = subscription.filter(|known| known.binding.is_some()) else { return };
        subscription.failed = true;
        self.signal(ctx, key, Signal::SubscriptionFailed { track: sid.clone(), codec_unsupported: true });
        self.refuse(ctx, key, "subscription", "codec unsupported");
        self.unbind(ctx, key, sid, "codec_unsupported");
    }

    /// Ends a subscription's media and frees its section.
    pub(crate) fn unbind(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid, reason: &'static str) {
        self.end_down(ctx, key, sid, reason);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(subscription) = peer.subscriptions.get_mut(sid) {
            subscription.binding = None;
        }
        match (peer.layout, peer.publisher.as_mut(), peer.subscriber.as_mut()) {
            (Layout::Single, Some(side), _) => side.answerer.unbind(sid.as_str()),
            (Layout::Dual { .. }, _, Some(side)) => side.offerer.unbind(sid.as_str()),
            _ => None,
        };
        self.unsettled.insert(key);
    }

    fn end_down(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid, reason: &'static str) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let binding = peer.subscriptions.get_mut(sid).and_then(|known| known.binding.as_mut());
        let Some(down) = binding.and_then(|binding| binding.down.take()) else { return };
        self.subscribed.remove(&down.key);
        let counters = self.media.unsubscribe(down.key);
        let Some(peer) = self.peers.get(&key) else { return };
        let (track, direction) = (sid.clone(), Direction::Subscribe);
        let sample = TrackSample { track, direction, last: true, counters };
        ctx.sample(&self.config.sid, &peer.sid, SampleBody::Track(sample));
        let fact = TrackUnsubscribed { reason: reason.to_owned() };
        ctx.fact(self.place(Some(&peer.sid), Some(sid)), fact);
    }

    /// Ends all subscriptions of a participant that leaves.
    pub(crate) fn unsubscribe_all(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, reason: &'static str) {
        let Some(peer) = self.peers.get(&key) else { return };
        for sid in peer.subscriptions.keys().cloned().collect::<Vec<_>>() {
            self.end_down(ctx, key, &sid, reason);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.subscriptions.clear();
        }
    }

    /// A track ends: so do all subscriptions to it, and what was wanted of it is forgotten.
    pub(crate) fn unsubscribe_everybody(&mut self, ctx: &mut Ctx<'_>, sid: &TrackSid, reason: &'static str) {
        let subscribers = self.peers.values().filter(|peer| peer.subscriptions.contains_key(sid));
        for key in subscribers.map(|peer| peer.key).collect::<Vec<_>>() {
            let known = self.peers.get(&key).and_then(|peer| peer.subscriptions.get(sid));
            if known.is_some_and(|subscription| subscription.binding.is_some()) {
                self.unbind(ctx, key, sid, reason);
            }
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.subscriptions.remove(sid);
            }
        }
    }

    /// One codec of a track ends: those who got it are unbound and may be bound to another one.
    pub(crate) fn unsubscribe_line(&mut self, ctx: &mut Ctx<'_>, sid: &TrackSid, line: TrackKey) {
        let on_line = |peer: &&Peer| {
            let binding = peer.subscriptions.get(sid).and_then(|known| known.binding.as_ref());
            binding.and_then(|binding| binding.down.as_ref()).is_some_and(|down| down.line == line)
        };
        for key in self.peers.values().filter(on_line).map(|peer| peer.key).collect::<Vec<_>>() {
            self.unbind(ctx, key, sid, "codec_changed");
        }
    }

    /// A video track plays for those who receive it: told to clients of signalling v0.
    pub(crate) fn tell_playing(&mut self, ctx: &mut Ctx<'_>, sid: &TrackSid) {
        let subscribers = self.peers.values().filter(|peer| peer.subscriptions.contains_key(sid));
        for key in subscribers.map(|peer| peer.key).collect::<Vec<_>>() {
            self.tell_playing_to(ctx, key, sid);
        }
    }

    fn tell_playing_to(&self, ctx: &mut Ctx<'_>, key: PeerKey, sid: &TrackSid) {
        let Some(peer) = self.peers.get(&key) else { return };
        let subscription = peer.subscriptions.get(sid);
        let enabled = subscription.is_some_and(|known| {
            !known.settings.is_some_and(|settings| settings.disabled)
                && known.binding.as_ref().is_some_and(|binding| binding.down.is_some())
        });
        let publisher = self.tracks.publisher(sid).and_then(|publisher| self.peers.get(&publisher));
        let Some(from) = publisher else { return };
        let plays = from.track(sid).is_some_and(|track| {
            track.stage == Stage::Flowing && track.info.kind == Kind::Video && !track.info.muted
        });
        if enabled && plays && peer.layout != Layout::Single {
            let streams = vec![(from.sid.clone(), sid.clone(), true)];
            self.signal(ctx, key, Signal::StreamState { streams });
        }
    }
}

fn ssrc(random: &mut fanlight_base::Random) -> u32 {
    random.u32().max(1)
}
