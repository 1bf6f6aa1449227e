//! One room: a value that needs nothing of other rooms.

use crate::ctx::{Ctx, Place};
use crate::demux::{Owner, RoomIndex};
use crate::limits::{COUNTS_INTERVAL, UPDATE_INTERVAL};
use crate::media::{DownKey, RoomMedia, TrackKey, TransportId, Transports};
use crate::model::{DisconnectReason, RoomConfig, RoomInfo};
use crate::output::{LeaveAction, Output, Signal, Why};
use crate::peer::{Link, Peer, Untold};
use crate::sampling::Round;
use crate::timers::{Timer, Timers};
use crate::tracks::Tracks;
use fanlight_base::{Addresses, Identity, Mono, Now, ParticipantSid, PeerKey, Random, SendBatch, TrackSid};
use fanlight_events::{RoomEnded, RoomStarted};
use fanlight_transport::{Ignored, Received};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A room with everything in it.
pub(crate) struct Room {
    pub(crate) index: RoomIndex,
    pub(crate) config: RoomConfig,
    pub(crate) created_at: Mono,
    pub(crate) random: Random,

    pub(crate) peers: BTreeMap<PeerKey, Peer>,
    pub(crate) identities: BTreeMap<Identity, PeerKey>,
    pub(crate) tracks: Tracks,

    pub(crate) media: RoomMedia,
    pub(crate) published: BTreeMap<TrackKey, (PeerKey, TrackSid)>,
    pub(crate) subscribed: BTreeMap<DownKey, (PeerKey, TrackSid)>,

    pub(crate) transports: Transports,
    pub(crate) links: BTreeMap<TransportId, Link>,
    /// Transports with something to drain.
    pub(crate) stirred: BTreeSet<TransportId>,
    /// Transports to be closed and removed.
    pub(crate) closing: Vec<TransportId>,
    /// Participants whose sections are to be brought in line with their subscriptions.
    pub(crate) unsettled: BTreeSet<PeerKey>,

    pub(crate) timers: Timers,
    /// Whose counters the record has heard in this round.
    pub(crate) sampled: Round,
    /// Changes that wait for the next batch.
    pub(crate) untold: Vec<Untold>,
    pub(crate) counts: Counts,
    /// The first tick of the counts has been.
    pub(crate) counts_told: bool,
    ended: bool,
}

/// What the room's clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) participants: u32,
    pub(crate) publishers: u32,
    pub(crate) recording: bool,
}

impl Room {
    /// A room without participants.
    pub(crate) fn new(ctx: &mut Ctx<'_>, index: RoomIndex, config: RoomConfig, mut random: Random) -> Self {
        let media = RoomMedia::new(random.fork());
        let room = Self {
            index,
            config,
            created_at: ctx.mono(),
            random,
            peers: BTreeMap::new(),
            identities: BTreeMap::new(),
            tracks: Tracks::default(),
            media,
            published: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            transports: Transports::new(),
            links: BTreeMap::new(),
            stirred: BTreeSet::new(),
            closing: Vec::new(),
            unsettled: BTreeSet::new(),
            timers: Timers::default(),
            sampled: Round::BEGIN,
            untold: Vec::new(),
            counts: Counts::default(),
            counts_told: false,
            ended: false,
        };
        ctx.fact(room.place(None, None), RoomStarted { name: room.config.name.clone() });
        room
    }

    /// As it is told to clients.
    pub(crate) fn info(&self) -> RoomInfo {
        RoomInfo {
            config: self.config.clone(),
            num_participants: self.counts.participants,
            num_publishers: self.counts.publishers,
            active_recording: self.counts.recording,
        }
    }

    /// Ends every session and the room with them.
    pub(crate) fn close(
        &mut self,
        ctx: &mut Ctx<'_>,
        reason: DisconnectReason,
        action: LeaveAction,
        record: &str,
    ) {
        if self.ended {
            return;
        }
        self.ended = true;
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.end_peer(ctx, peer, reason, action);
        }
        ctx.fact(self.place(None, None), RoomEnded { reason: record.to_owned() });
        ctx.out.push_back(Output::RoomClosed { room: Box::new(self.config.sid.clone()) });
    }

    /// Whether nothing more will come of it once it is drained.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// A datagram of one of its transports. Media is forwarded at once.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Now,
        id: TransportId,
        addresses: Addresses,
        bytes: &mut [u8],
        batch: &mut SendBatch,
    ) -> Option<Vec<Addresses>> {
        let transport = self.transports.get_mut(id)?;
        match transport.handle_datagram(now, addresses, bytes, batch) {
            Received::Rtp(rtp) => {
                let (header, plain, sequence) = (&rtp.header, &*rtp.packet, rtp.extended_sequence);
                self.media.handle_rtp(now, &mut self.transports, id, header, plain, sequence, batch);
            }
            Received::Rtcp(plain) => self.media.handle_rtcp(now, &mut self.transports, id, plain, batch),
            Received::Check => {
                self.stirred.insert(id);
                return Some(transport.take_forgotten());
            }
            Received::Nothing(Ignored::Handled) => {
                self.stirred.insert(id);
            }
            Received::Nothing(_) => {}
        }
        None
    }

    /// Everything that is due.
    pub(crate) fn handle_timeout(&mut self, ctx: &mut Ctx<'_>, batch: &mut SendBatch) {
        if self.media.next_timeout().0 <= ctx.mono() {
            self.media.handle_timeout(ctx.now, &mut self.transports, batch);
        }
        while let Some(timer) = self.timers.pop(ctx.mono()) {
            match timer {
                // What is due is driven when the room is drained.
                Timer::Transport(id) => {
                    self.stirred.insert(id);
                }
                Timer::Changes(peer) => self.tell_now(ctx, peer),
                Timer::AllowList(peer) => self.allow_list_due(ctx, peer),
                Timer::Updates => self.tell_untold(ctx),
                Timer::Counts => self.count(ctx, true),
                Timer::Samples => self.sample(ctx),
                Timer::JoinTimeout(peer) => self.join_timed_out(ctx, peer),
                Timer::Grace(peer) => self.grace_ended(ctx, peer),
                Timer::Negotiation(peer) => self.negotiation_timed_out(ctx, peer),
                Timer::Missing(peer) => self.tracks_missing(ctx, peer),
                Timer::RefreshToken(peer) => self.refresh_token(ctx, peer),
                Timer::Refusals(peer) => self.tell_refusals(ctx, peer),
            }
        }
    }

    /// When [`Room::handle_timeout`] is wanted, and what for.
    pub(crate) fn next_timeout(&self) -> (Mono, Why) {
        self.timers.next().min(self.media.next_timeout())
    }

    /// Sends a signal, if there is anybody to hear it.
    pub(crate) fn signal(&self, ctx: &mut Ctx<'_>, peer: PeerKey, signal: Signal) {
        if self.peers.get(&peer).is_some_and(|peer| peer.signal_open) {
            ctx.out.push_back(Output::Signal(peer, Box::new(signal)));
        }
    }

    /// Where a fact of this room belongs.
    pub(crate) fn place<'a>(
        &'a self,
        participant: Option<&'a ParticipantSid>,
        track: Option<&'a TrackSid>,
    ) -> Place<'a> {
        Place { room: &self.config.sid, participant, track }
    }

    /// A transport's name in the shard.
    pub(crate) const fn owner(&self, transport: TransportId) -> Owner {
        Owner { room: self.index, transport }
    }

    /// Starts the 3 s clock of batched updates.
    pub(crate) fn start_updates(&mut self, now: Mono) {
        self.timers.start(Timer::Updates, self.tick(now, UPDATE_INTERVAL));
    }

    /// Starts the 5 s clock of the counts.
    pub(crate) fn start_counts(&mut self, now: Mono) {
        self.timers.start(Timer::Counts, self.tick(now, COUNTS_INTERVAL));
    }

    /// The next tick of a clock that began with the room.
    pub(crate) fn tick(&self, now: Mono, interval: Duration) -> Mono {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let ticks = now.ns.saturating_sub(self.created_at.ns) / interval_ns + 1;
        Mono { ns: self.created_at.ns.saturating_add(ticks.saturating_mul(interval_ns)) }
    }
}
