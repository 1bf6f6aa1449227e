//! The life of a session: join, activity, end.

use super::Peer;
use crate::ctx::Ctx;
use crate::input::{Join, Layout, Target};
use crate::limits::{JOIN_TIMEOUT, PARTICIPANTS_MAX, SIGNAL_GRACE};
use crate::media::TransportId;
use crate::model::{DisconnectReason, ParticipantKind, ParticipantState, SharedInfo};
use crate::output::{Joined, LeaveAction, Output, Signal};
use crate::room::Room;
use crate::timers::Timer;
use fanlight_base::{PeerKey, Protocol};
use fanlight_events::{ParticipantActive, ParticipantJoined, ParticipantLeft, Refused};

impl Room {
    /// Admits a participant.
    pub(crate) fn join(&mut self, ctx: &mut Ctx<'_>, mut join: Join) {
        let key = join.peer;
        if self.peers.len() >= PARTICIPANTS_MAX || self.is_ended() {
            let why = format!("PARTICIPANTS_MAX {PARTICIPANTS_MAX}");
            ctx.fact(self.place(None, None), Refused { what: "join".to_owned(), why });
            let leave =
                Signal::Leave { reason: DisconnectReason::JoinFailure, action: LeaveAction::Disconnect };
            ctx.out.push_back(Output::Signal(key, Box::new(leave)));
            ctx.out.push_back(Output::Left { peer: key, reason: DisconnectReason::JoinFailure });
            return;
        }
        let add_tracks = std::mem::take(&mut join.add_tracks);
        let offer = join.publisher_offer.take();
        let peer = Peer::new(ctx.now, join);
        let identity = peer.identity.clone();
        ctx.fact(self.place(Some(&peer.sid), None), joined_fact(&peer));
        self.peers.insert(key, peer);
        // `control` has ended the older session; should it not have, data goes to the newer one.
        self.identities.insert(identity, key);
        self.timers.set(Timer::JoinTimeout(key), ctx.mono() + JOIN_TIMEOUT);
        self.tell_joined(ctx, key);
        self.refresh_token(ctx, key);
        self.open_subscriber(ctx, key);
        for request in add_tracks {
            self.add_track(ctx, key, request);
        }
        if let Some((id, sdp)) = offer {
            self.handle_offer(ctx, key, id, &sdp);
        }
        self.start_counts(ctx.mono());
        self.start_samples(ctx.mono());
    }

    fn tell_joined(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let visible = self.peers.values_mut().filter(|peer| {
            peer.key != key && !peer.permission.hidden && peer.state >= ParticipantState::Joined
        });
        let others = visible.map(|peer| peer.shared_info(ctx.config.encode_info)).collect();
        let room = self.info();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let joined =
            Joined { room, participant: peer.info(), others, subscriber_primary: peer.subscriber_primary() };
        ctx.out.push_back(Output::Signal(key, Box::new(Signal::Joined(Box::new(joined)))));
        peer.state = ParticipantState::Joined;
        self.changed(ctx, key);
    }

    /// A transport of a participant is connected.
    pub(crate) fn link_connected(&mut self, ctx: &mut Ctx<'_>, id: TransportId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.connected = true;
        let key = link.peer;
        self.media.transport_connected(ctx.now, id);
        self.unsettled.insert(key);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.primary() == Some(id) && peer.state == ParticipantState::Joined {
            peer.state = ParticipantState::Active;
            self.timers.stop(Timer::JoinTimeout(key));
            self.tell_active(ctx, key, id);
            self.changed(ctx, key);
            self.subscribe_to_all(ctx, key);
        }
    }

    fn tell_active(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, id: TransportId) {
        let (Some(peer), Some(transport)) = (self.peers.get(&key), self.transports.get(id)) else { return };
        let connection_type = match transport.selected().map(|addresses| addresses.protocol) {
            Some(Protocol::Tcp) => "tcp",
            _ => "udp",
        };
        let profile = transport.negotiated().and_then(|(profile, _)| profile);
        let connect_ms = ctx.mono().since(peer.joined_at).as_millis();
        let fact = ParticipantActive {
            connect_ms: u64::try_from(connect_ms).unwrap_or(u64::MAX),
            connection_type: connection_type.to_owned(),
            srtp_profile: profile.map(|profile| format!("{profile:?}")).unwrap_or_default(),
        };
        ctx.fact(self.place(Some(&peer.sid), None), fact);
        ctx.out.push_back(Output::Active { peer: key });
    }

    /// No pair of addresses works any more, or the connection broke. A client that resumed would be told to join anew
    /// (resuming is not offered), so it is told at once, where LiveKit says RESUME and waits five seconds.
    pub(crate) fn link_failed(&mut self, ctx: &mut Ctx<'_>, id: TransportId) {
        if let Some(link) = self.links.get(&id) {
            self.end_peer(ctx, link.peer, DisconnectReason::ConnectionTimeout, LeaveAction::Reconnect);
        }
    }

    /// The client closed a connection. A leave usually follows, over signalling and so perhaps later.
    pub(crate) fn link_closed(&mut self, ctx: &mut Ctx<'_>, id: TransportId) {
        if let Some(link) = self.links.get(&id) {
            self.timers.start(Timer::Grace(link.peer), ctx.mono() + SIGNAL_GRACE);
        }
    }

    /// Signalling broke off without a leave.
    pub(crate) fn signal_closed(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.signal_open = false;
        let connected = peer.transports().any(|id| self.links.get(&id).is_some_and(|link| link.connected));
        if connected {
            self.timers.start(Timer::Grace(key), ctx.mono() + SIGNAL_GRACE);
        } else {
            self.end_peer(ctx, key, DisconnectReason::SignalClose, LeaveAction::Disconnect);
        }
    }

    /// What was gone did not come back.
    pub(crate) fn grace_ended(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        if peer.signal_open {
            self.end_peer(ctx, key, DisconnectReason::ConnectionTimeout, LeaveAction::Reconnect);
        } else {
            self.end_peer(ctx, key, DisconnectReason::SignalClose, LeaveAction::Disconnect);
        }
    }

    /// It should be active by now.
    pub(crate) fn join_timed_out(&mut self, ctx: &mut Ctx<'_>, key: PeerKey) {
        if self.peers.get(&key).is_some_and(|peer| !peer.is_active()) {
            self.refuse(ctx, key, "join", "JOIN_TIMEOUT 60 s");
            self.end_peer(ctx, key, DisconnectReason::JoinFailure, LeaveAction::Disconnect);
        }
    }

    /// Ends a session: the client hears it first, then everything of it ends, then the others hear it.
    pub(crate) fn end_peer(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: PeerKey,
        reason: DisconnectReason,
        action: LeaveAction,
    ) {
        if !self.peers.contains_key(&key) {
            return;
        }
        self.signal(ctx, key, Signal::Leave { reason, action });
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.signal_open = false;
        }
        self.tell_refusals(ctx, key);
        self.unsubscribe_all(ctx, key, "left");
        self.unpublish_all(ctx, key, "left");
        let Some(mut peer) = self.peers.remove(&key) else { return };
        if self.identities.get(&peer.identity) == Some(&key) {
            self.identities.remove(&peer.identity);
        }
        for id in peer.transports() {
            self.drop_link(ctx, id);
        }
        for timer in [
            Timer::Changes(key),
            Timer::AllowList(key),
            Timer::JoinTimeout(key),
            Timer::Grace(key),
            Timer::Negotiation(key),
            Timer::Missing(key),
            Timer::RefreshToken(key),
            Timer::Refusals(key),
        ] {
            self.timers.stop(timer);
        }
        self.unsettled.remove(&key);
        let left = ParticipantLeft { reason: reason.as_str().to_owned(), was_active: peer.is_active() };
        ctx.fact(self.place(Some(&peer.sid), None), left);
        ctx.out.push_back(Output::Left { peer: key, reason });
        peer.version += 1;
        self.tell_gone(ctx, SharedInfo::new(peer.gone_info(reason), ctx.config.encode_info));
        if !self.is_ended() {
            self.count(ctx, false);
        }
    }

    /// Lets go of a transport; it is closed when the room is drained.
    pub(crate) fn drop_link(&mut self, ctx: &mut Ctx<'_>, id: TransportId) {
        self.links.remove(&id);
        self.media.remove_transport(id);
        ctx.demux.forget(self.owner(id));
        self.timers.stop(Timer::Transport(id));
        self.stirred.remove(&id);
        self.closing.push(id);
    }

    /// Which transport a candidate or description of this target is for.
    pub(crate) fn transport_of(&self, key: PeerKey, target: Target) -> Option<TransportId> {
        let peer = self.peers.get(&key)?;
        match (peer.layout, target) {
            (Layout::Dual { .. }, Target::Subscriber) => peer.subscriber.as_ref().map(|side| side.transport),
            // A client of v1 has one connection, whatever it calls it.
            _ => peer.publisher.as_ref().map(|side| side.transport),
        }
    }
}

fn joined_fact(peer: &Peer) -> ParticipantJoined {
    let kind = match peer.kind {
        ParticipantKind::Standard => "standard",
        ParticipantKind::Ingress => "ingress",
        ParticipantKind::Egress => "egress",
        ParticipantKind::Sip => "sip",
        ParticipantKind::Agent => "agent",
        ParticipantKind::Connector => "connector",
        ParticipantKind::Bridge => "bridge",
    };
    ParticipantJoined {
        identity: peer.identity.clone(),
        name: peer.name.clone(),
        kind: kind.to_owned(),
        hidden: peer.permission.hidden,
        signal_version: u8::from(peer.layout == Layout::Single),
        client: peer.client.clone(),
    }
}
