//! Telling participants of each other and of their room.

use crate::ctx::Ctx;
use crate::limits::{CHANGES_INTERVAL, REFRESH_INTERVAL, TRACKS_AT_ONCE_MAX, TRACKS_BEGIN_MAX};
use crate::model::{DisconnectReason, ParticipantState, SharedInfo, SharedRoomInfo};
use crate::output::Signal;
use crate::room::{Counts, Room};
use crate::timers::Timer;
use fanlight_base::{Mono, PeerKey, TrackSid};
use std::collections::{BTreeSet, VecDeque};

/// From this protocol on a client knows its peers by identity and is not told that a replaced session ended.
const PROTOCOL_IDENTITY_RECONNECT: u32 = 12;

/// A change that waits for the next batch.
#[derive(Debug)]
pub(crate) enum Untold {
    /// Of somebody who is there; told as it is then.
    Changed(PeerKey),
    /// Of somebody who is gone.
    Gone(SharedInfo),
}

/// What others have yet to hear of a participant, and when they may: what it does often costs them a bounded number of
/// messages.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// Changes may be told from then on.
    next: Mono,
    /// Tellings that need not wait.
    at_once: Bucket,
    /// Its allow list may let somebody in from then on.
    grants: Mono,
    /// Tracks that others may get.
    begins: Bucket,
    /// Tracks that flow, and that nobody can subscribe to before everybody has been told of them.
    begun: VecDeque<TrackSid>,
    /// Tracks unmuted since the last telling.
    unmuted: BTreeSet<TrackSid>,
}

impl Telling {
    /// A track flows.
    pub(crate) fn begun(&mut self, track: TrackSid) {
        self.begun.push_back(track);
    }

    /// A track is not muted any more.
    pub(crate) fn unmuted(&mut self, track: TrackSid) {
        self.unmuted.insert(track);
    }

    /// Whether the allow list may let somebody in now; if not, when.
    pub(crate) fn grant(&mut self, now: Mono) -> Result<(), Mono> {
        if self.grants > now {
            return Err(self.grants);
        }
        self.grants = now + CHANGES_INTERVAL;
        Ok(())
    }

    fn note(&mut self, now: Mono) {
        self.next = now + CHANGES_INTERVAL;
        self.at_once.charge(now);
    }
}

/// A bucket into which one comes back each [`CHANGES_INTERVAL`].
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    full_at: Mono,
}

impl Bucket {
    /// Whether there is one left in a bucket of so many; if not, when.
    fn ready(self, now: Mono, size: u32) -> Result<(), Mono> {
        let most = CHANGES_INTERVAL.saturating_mul(size.saturating_sub(1));
        let wait = self.full_at.since(now).saturating_sub(most);
        if wait.is_zero() { Ok(()) } else { Err(now + wait) }
    }

    fn charge(&mut self, now: Mono) {
        self.full_at = self.full_at.max(now) + CHANGES_INTERVAL;
    }
}

impl Room {
    /// A participant changed: raises its version and tells at once if it publishes, else with the next batch.
    pub(crate) fn changed(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.version += 1;
        if entry.is_publisher {
            self.tell_soon(ctx, peer);
            return;
        }
        let waits =
            self.untold.iter().any(|untold| matches!(untold, Untold::Changed(other) if *other == peer));
        if !waits {
            self.untold.push(Untold::Changed(peer));
            self.start_updates(ctx.mono());
        }
    }

    /// A participant changed in a way that everybody hears at once, or as soon as [`CHANGES_INTERVAL`] has passed since
    /// its last change.
    pub(crate) fn changed_now(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.version += 1;
            self.tell_soon(ctx, peer);
        }
    }

    /// Tracks of a participant began or ended: everybody hears it before their media, unless it does so all the time.
    pub(crate) fn tracks_changed(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.version += 1;
        if entry.telling.at_once.ready(ctx.mono(), TRACKS_AT_ONCE_MAX).is_ok() {
            self.tell_now(ctx, peer);
        } else {
            self.tell_soon(ctx, peer);
        }
    }

    fn tell_soon(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        let Some(entry) = self.peers.get(&peer) else { return };
        if entry.telling.next <= ctx.mono() {
            self.tell_now(ctx, peer);
        } else {
            self.timers.start(Timer::Changes(peer), entry.telling.next);
        }
    }

    /// Tells everybody of a participant as it is.
    pub(crate) fn tell_now(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        self.untold.retain(|untold| !matches!(untold, Untold::Changed(other) if *other == peer));
        self.timers.stop(Timer::Changes(peer));
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.telling.note(ctx.mono());
        let unmuted = std::mem::take(&mut entry.telling.unmuted);
        let info = entry.shared_info(ctx.config.encode_info);
        let receivers = if entry.permission.hidden { vec![peer] } else { self.listeners() };
        for receiver in receivers {
            self.signal(ctx, receiver, Signal::Participants(vec![info.clone()]));
        }
        for sid in unmuted {
            self.tell_playing(ctx, &sid);
        }
        self.begin_tracks(ctx, peer);
    }

    /// Lets others subscribe to the tracks they have been told of: so no offer comes before the update that explains it.
    fn begin_tracks(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        while let Some(peer) = self.peers.get_mut(&key)
            && let Some(sid) = peer.telling.begun.front()
        {
            if let Err(at) = peer.telling.begins.ready(ctx.mono(), TRACKS_BEGIN_MAX) {
                self.timers.start(Timer::Changes(key), at);
                return;
            }
            let sid = sid.clone();
            peer.telling.begun.pop_front();
            // It may have ended meanwhile.
            if peer.track(&sid).is_none() {
                continue;
            }
            peer.telling.begins.charge(ctx.mono());
            if self.tracks.add(&sid, key) {
                self.track_available(ctx, &sid);
            }
        }
    }

    /// Somebody is gone: those who knew of it are told, at once if it published.
    pub(crate) fn tell_gone(&mut self, ctx: &mut Ctx<'_>, info: SharedInfo) {
        // Of a room that ends, everybody hears the end only.
        if info.permission.hidden || self.is_ended() {
            return;
        }
        if !info.is_publisher {
            self.untold.push(Untold::Gone(info));
            self.start_updates(ctx.mono());
            return;
        }
        for receiver in self.listeners() {
            if self.hears_of(receiver, &info) {
                self.signal(ctx, receiver, Signal::Participants(vec![info.clone()]));
            }
        }
    }

    /// Tells everybody what changed since the last batch.
    pub(crate) fn tell_untold(&mut self, ctx: &mut Ctx<'_>) {
        // A hidden participant hears of itself, and nobody else does.
        let mut infos: Vec<(Option<PeerKey>, SharedInfo)> = Vec::new();
        for untold in std::mem::take(&mut self.untold) {
            match untold {
                Untold::Changed(peer) => {
                    if let Some(entry) = self.peers.get_mut(&peer) {
                        let info = entry.shared_info(ctx.config.encode_info);
                        infos.push((info.permission.hidden.then_some(peer), info));
                    }
                }
                Untold::Gone(info) => infos.push((None, info)),
            }
        }
        for receiver in self.listeners() {
            let visible = infos.iter().filter(|(only, info)| {
                only.is_none_or(|only| only == receiver) && self.hears_of(receiver, info)
            });
            let visible: Vec<SharedInfo> = visible.map(|(_, info)| info.clone()).collect();
            if !visible.is_empty() {
                self.signal(ctx, receiver, Signal::Participants(visible));
            }
        }
    }

    /// Who has got its join and can be told of others.
    fn listeners(&self) -> Vec<PeerKey> {
        let joined =
            self.peers.values().filter(|peer| peer.state >= ParticipantState::Joined && peer.signal_open);
        joined.map(|peer| peer.key).collect()
    }

    /// A replaced session is not told to clients that know their peers by identity.
    fn hears_of(&self, receiver: PeerKey, info: &SharedInfo) -> bool {
        info.disconnect_reason != Some(DisconnectReason::DuplicateIdentity)
            || self.peers.get(&receiver).is_some_and(|peer| peer.protocol < PROTOCOL_IDENTITY_RECONNECT)
    }

    /// Counts participants and publishers anew; tells everybody if they changed, or if asked to.
    pub(crate) fn count(&mut self, ctx: &mut Ctx<'_>, tick: bool) {
        let counted =
            self.peers.values().filter(|peer| peer.state >= ParticipantState::Joined && peer.counts());
        let (mut participants, mut publishers) = (0, 0);
        for peer in counted {
            participants += 1;
            publishers += u32::from(peer.is_publisher);
        }
        let recording =
            self.peers.values().any(|peer| peer.state >= ParticipantState::Joined && peer.is_recorder());
        let counts = Counts { participants, publishers, recording };
        let first_tick = tick && !self.counts_told;
        self.counts_told |= tick;
        if counts == self.counts && !first_tick {
            return;
        }
        self.counts = counts;
        let info = SharedRoomInfo::new(self.info());
        for receiver in self.listeners() {
            self.signal(ctx, receiver, Signal::Room(SharedRoomInfo::clone(&info)));
        }
    }

    /// Hands out a token for reconnecting, now and again later.
    pub(crate) fn refresh_token(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let info = entry.shared_info(ctx.config.encode_info);
        self.signal(ctx, peer, Signal::RefreshToken(info));
        self.timers.set(Timer::RefreshToken(peer), ctx.mono() + REFRESH_INTERVAL);
    }
}
