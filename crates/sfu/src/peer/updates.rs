//! Telling participants of each other and of their room.

use crate::ctx::Ctx;
use crate::limits::{CHANGES_INTERVAL, REFRESH_INTERVAL, TRACKS_AT_ONCE_MAX};
use crate::model::{DisconnectReason, ParticipantState, SharedInfo};
use crate::output::Signal;
use crate::room::{Counts, Room};
use crate::timers::Timer;
use fanlight_base::{Mono, PeerKey};

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

/// When everybody was told of a participant, so that what it does often costs others a bounded number of messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ToldAt {
    /// Changes may be told from then on.
    next: Mono,
    /// Whom its allow list lets in may be brought in line from then on.
    allowed: Mono,
    /// When all tellings at once are refilled, one each [`CHANGES_INTERVAL`].
    refilled: Mono,
}

impl ToldAt {
    fn note(&mut self, now: Mono) {
        self.next = now + CHANGES_INTERVAL;
        self.refilled = self.refilled.max(now) + CHANGES_INTERVAL;
    }

    /// Whether subscribers may be brought in line with the allow list now; if not, when.
    pub(crate) fn allow_list(&mut self, now: Mono) -> Result<(), Mono> {
        if self.allowed > now {
            return Err(self.allowed);
        }
        self.allowed = now + CHANGES_INTERVAL;
        Ok(())
    }

    fn may_at_once(self, now: Mono) -> bool {
        self.refilled.since(now) < CHANGES_INTERVAL.saturating_mul(TRACKS_AT_ONCE_MAX)
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
        if entry.told.may_at_once(ctx.mono()) {
            self.tell_now(ctx, peer);
        } else {
            self.tell_soon(ctx, peer);
        }
    }

    fn tell_soon(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        let Some(entry) = self.peers.get(&peer) else { return };
        if entry.told.next <= ctx.mono() {
            self.tell_now(ctx, peer);
        } else {
            self.timers.start(Timer::Changes(peer), entry.told.next);
        }
    }

    /// Tells everybody of a participant as it is.
    pub(crate) fn tell_now(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        self.untold.retain(|untold| !matches!(untold, Untold::Changed(other) if *other == peer));
        self.timers.stop(Timer::Changes(peer));
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.told.note(ctx.mono());
        let unmuted = std::mem::take(&mut entry.unmuted);
        let info = SharedInfo::new(entry.info());
        let receivers = if entry.permission.hidden { vec![peer] } else { self.listeners() };
        for receiver in receivers {
            self.signal(ctx, receiver, Signal::Participants(vec![SharedInfo::clone(&info)]));
        }
        for sid in unmuted {
            self.tell_playing(ctx, &sid);
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
                    if let Some(entry) = self.peers.get(&peer) {
                        infos.push((entry.permission.hidden.then_some(peer), SharedInfo::new(entry.info())));
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
        let info = self.info();
        for receiver in self.listeners() {
            self.signal(ctx, receiver, Signal::Room(Box::new(info.clone())));
        }
    }

    /// Hands out a token for reconnecting, now and again later.
    pub(crate) fn refresh_token(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        let Some(entry) = self.peers.get(&peer) else { return };
        let info = entry.info();
        self.signal(ctx, peer, Signal::RefreshToken(Box::new(info)));
        self.timers.set(Timer::RefreshToken(peer), ctx.mono() + REFRESH_INTERVAL);
    }
}
