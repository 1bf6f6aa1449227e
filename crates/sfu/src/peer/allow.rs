//! Whom a publisher lets subscribe to its tracks.

use super::Peer;
use crate::ctx::Ctx;
use crate::input::TrackPermission;
use crate::limits::PERMISSIONS_MAX;
use crate::room::Room;
use crate::timers::Timer;
use fanlight_base::{Identity, ParticipantSid, PeerKey, TrackSid};
use std::collections::{BTreeMap, BTreeSet};

/// Who may subscribe to a publisher's tracks; everybody unless it says otherwise.
#[derive(Debug, Default)]
pub(crate) struct AllowList {
    /// `None` allows everybody.
    lines: Option<Lines>,
}

/// Found by name: a list has as many lines as a room has participants, and is asked about each of them.
#[derive(Debug, Default)]
struct Lines {
    by_sid: BTreeMap<ParticipantSid, Allowed>,
    by_identity: BTreeMap<Identity, Allowed>,
}

#[derive(Debug, Default)]
struct Allowed {
    all: bool,
    tracks: BTreeSet<TrackSid>,
}

impl AllowList {
    /// Of so many lines; an empty list allows nobody.
    fn of(permissions: Vec<TrackPermission>) -> Self {
        let mut lines = Lines::default();
        for permission in permissions {
            if !permission.participant_sid.is_empty() {
                lines.by_sid.entry(permission.participant_sid.clone()).or_default().add(&permission);
            }
            if !permission.identity.is_empty() {
                lines.by_identity.entry(permission.identity.clone()).or_default().add(&permission);
            }
        }
        Self { lines: Some(lines) }
    }

    /// Whether this participant may have this track.
    pub(crate) fn allows(&self, subscriber: &Peer, track: &TrackSid) -> bool {
        let Some(lines) = &self.lines else { return true };
        let of = [lines.by_sid.get(&subscriber.sid), lines.by_identity.get(&subscriber.identity)];
        subscriber.is_recorder()
            || of.into_iter().flatten().any(|line| line.all || line.tracks.contains(track))
    }
}

impl Allowed {
    fn add(&mut self, permission: &TrackPermission) {
        self.all |= permission.all_tracks;
        self.tracks.extend(permission.tracks.iter().cloned());
    }
}

impl Room {
    /// A publisher's allow list. What it no longer allows ends at once, however often it changes; what subscribers are told,
    /// and what is granted, as soon as it may.
    pub(crate) fn update_allow_list(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        all: bool,
        lines: Vec<TrackPermission>,
    ) {
        if lines.len() > PERMISSIONS_MAX {
            self.refuse(ctx, key, "subscription_permission", "PERMISSIONS_MAX 3000");
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.allow = if all { AllowList::default() } else { AllowList::of(lines) };
        match peer.telling.grant(ctx.mono()) {
            Ok(()) => self.apply_allow_list(ctx, key),
            Err(at) => {
                self.timers.start(Timer::AllowList(key), at);
                self.revoke(ctx, key);
            }
        }
    }

    /// The time has come to apply the newest allow list.
    pub(crate) fn allow_list_due(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match peer.telling.grant(ctx.mono()) {
            Ok(()) => self.apply_allow_list(ctx, key),
            Err(at) => self.timers.start(Timer::AllowList(key), at),
        }
    }

    /// Brings all subscribers in line with a publisher's allow list.
    fn apply_allow_list(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        self.timers.stop(Timer::AllowList(key));
        for sid in self.subscribable(key) {
            self.track_available(ctx, &sid);
        }
    }

    /// Ends what the list does not allow.
    fn revoke(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        for sid in self.subscribable(key) {
            let Some(from) = self.peers.get(&key) else { return };
            let refused = self.peers.values().filter(|peer| {
                peer.subscriptions.get(&sid).is_some_and(|known| known.binding.is_some())
                    && !from.allow.allows(peer, &sid)
            });
            for subscriber in refused.map(|peer| peer.key).collect::<Vec<_>>() {
                self.unbind(ctx, subscriber, &sid, "permission");
            }
        }
    }

    /// Tracks of a publisher that can be subscribed to.
    fn subscribable(&self, key: PeerKey) -> Vec<TrackSid> {
        let Some(peer) = self.peers.get(&key) else { return Vec::new() };
        let sids = peer.tracks.iter().filter(|track| track.is_flowing()).map(|track| &track.info.sid);
        sids.filter(|sid| self.tracks.publisher(sid) == Some(key)).cloned().collect()
    }
}
