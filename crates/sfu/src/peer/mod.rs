//! A participant inside its room: what is known of it, and the room's work on its behalf.

mod allow;
pub(crate) mod announce;
mod data;
mod join;
mod link;
mod metrics;
mod negotiate;
mod publish;
mod refuse;
mod request;
mod subscribe;
mod updates;

pub(crate) use allow::AllowList;
pub(crate) use link::{Channel, Link};
use metrics::MetricsIntake;
pub(crate) use negotiate::{PublisherSide, SubscriberSide};
pub(crate) use publish::{LocalTrack, SeenLayer, Stage};
pub(crate) use refuse::Refusals;
pub(crate) use subscribe::Subscription;
pub(crate) use updates::{Telling, Untold};

use crate::envelope::EncodeInfo;
use crate::input::{AddTrack, Join, Layout, Quirks, Target};
use crate::media::TransportId;
use crate::model::{
    DisconnectReason, ParticipantInfo, ParticipantKind, ParticipantState, Permission, SharedInfo,
};
use fanlight_base::{Identity, Mono, Now, ParticipantSid, PeerKey, TrackSid};
use fanlight_events::ClientFacts;
use std::collections::{BTreeMap, VecDeque};

/// A participant of a room.
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    pub(crate) sid: ParticipantSid,
    pub(crate) identity: Identity,
    pub(crate) name: String,
    pub(crate) metadata: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) permission: Permission,
    pub(crate) kind: ParticipantKind,
    pub(crate) kind_details: Vec<i32>,
    pub(crate) layout: Layout,
    pub(crate) protocol: u32,
    pub(crate) client_protocol: i32,
    pub(crate) capabilities: Vec<i32>,
    pub(crate) client: ClientFacts,
    pub(crate) quirks: Quirks,
    pub(crate) auto_subscribe: bool,
    pub(crate) adaptive_stream: bool,
    pub(crate) ice_lite: bool,

    pub(crate) state: ParticipantState,
    pub(crate) version: u32,
    /// As it was told last.
    shared: Option<SharedInfo>,
    pub(crate) telling: Telling,
    pub(crate) joined_ms: u64,
    pub(crate) joined_at: Mono,
    pub(crate) is_publisher: bool,
    /// Its signalling connection is there.
    pub(crate) signal_open: bool,
    pub(crate) signal_rtt_ms: u32,

    pub(crate) publisher: Option<PublisherSide>,
    pub(crate) subscriber: Option<SubscriberSide>,
    /// Candidates of the client for a transport that is not made yet.
    pub(crate) waiting_candidates: Vec<(Target, String)>,

    /// Tracks it publishes or has announced, in the order of the announcements.
    pub(crate) tracks: Vec<LocalTrack>,
    /// Announcements that wait for the end of a track with the same client id.
    pub(crate) queued: VecDeque<AddTrack>,
    pub(crate) allow: AllowList,

    pub(crate) subscriptions: BTreeMap<TrackSid, Subscription>,
    /// Number of the last reliable data packet that had one.
    pub(crate) last_sequence: u32,
    metrics: MetricsIntake,

    pub(crate) refusals: Refusals,
}

impl Peer {
    /// A participant that is not told of yet.
    pub(crate) fn new(now: Now, join: Join) -> Self {
        // Who may not subscribe has nothing to wait for on a subscriber connection.
        let layout = match join.layout {
            Layout::Dual { .. } if !join.permission.can_subscribe => {
                Layout::Dual { subscriber_primary: false }
            }
            layout => layout,
        };
        Self {
            key: join.peer,
            sid: join.sid,
            identity: join.identity,
            name: join.name,
            metadata: join.metadata,
            attributes: join.attributes,
            permission: join.permission,
            kind: join.kind,
            kind_details: join.kind_details,
            layout,
            protocol: join.protocol,
            client_protocol: join.client_protocol,
            capabilities: join.capabilities,
            client: join.client,
            quirks: join.quirks,
            auto_subscribe: join.auto_subscribe,
            adaptive_stream: join.adaptive_stream,
            ice_lite: join.ice_lite,
            state: ParticipantState::Joining,
            version: 0,
            shared: None,
            telling: Telling::default(),
            joined_ms: now.unix_ms(),
            joined_at: now.mono(),
            is_publisher: false,
            signal_open: true,
            signal_rtt_ms: 0,
            publisher: None,
            subscriber: None,
            waiting_candidates: Vec::new(),
            tracks: Vec::new(),
            queued: VecDeque::new(),
            allow: AllowList::default(),
            subscriptions: BTreeMap::new(),
            last_sequence: 0,
            metrics: MetricsIntake::default(),
            refusals: Refusals::default(),
        }
    }

    /// As it is told to clients, made once for each version.
    pub(crate) fn shared_info(&mut self, encode: EncodeInfo) -> SharedInfo {
        match &self.shared {
            Some(shared) if shared.version == self.version => shared.clone(),
            _ => self.shared.insert(SharedInfo::new(self.info(), encode)).clone(),
        }
    }

    /// As it is told to itself when it joins.
    pub(crate) fn info(&self) -> ParticipantInfo {
        let published = self.tracks.iter().filter(|track| track.stage == Stage::Flowing);
        self.info_with(published.map(|track| track.info.clone()).collect(), self.state, None)
    }

    /// As it is told when it is gone.
    pub(crate) fn gone_info(&self, reason: DisconnectReason) -> ParticipantInfo {
        self.info_with(Vec::new(), ParticipantState::Disconnected, Some(reason))
    }

    fn info_with(
        &self,
        tracks: Vec<crate::model::TrackInfo>,
        state: ParticipantState,
        disconnect_reason: Option<DisconnectReason>,
    ) -> ParticipantInfo {
        ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.identity.clone(),
            state,
            tracks,
            metadata: self.metadata.clone(),
            joined_ms: self.joined_ms,
            name: self.name.clone(),
            version: self.version,
            permission: self.permission.clone(),
            is_publisher: self.is_publisher,
            kind: self.kind,
            kind_details: self.kind_details.clone(),
            attributes: self.attributes.clone(),
            disconnect_reason,
            client_protocol: self.client_protocol,
            capabilities: self.capabilities.clone(),
        }
    }

    /// Whether it counts for the room: agents, egress, recorders and hidden ones do not.
    pub(crate) fn counts(&self) -> bool {
        !self.permission.hidden && !self.is_dependent()
    }

    /// Whether it serves the room rather than taking part.
    pub(crate) fn is_dependent(&self) -> bool {
        self.permission.agent || self.is_recorder() || matches!(self.kind, ParticipantKind::Agent)
    }

    /// Whether it records; publishers' allow lists do not bind it.
    pub(crate) fn is_recorder(&self) -> bool {
        self.permission.recorder || matches!(self.kind, ParticipantKind::Egress)
    }

    /// Whether media flows, or may.
    pub(crate) fn is_active(&self) -> bool {
        self.state == ParticipantState::Active
    }

    /// Whether the subscriber transport decides when it is active.
    pub(crate) fn subscriber_primary(&self) -> bool {
        matches!(self.layout, Layout::Dual { subscriber_primary: true })
    }

    /// The connection on which it hears from us: data goes out there.
    pub(crate) fn primary(&self) -> Option<TransportId> {
        if self.subscriber_primary() {
            self.subscriber.as_ref().map(|side| side.transport)
        } else {
            self.publisher.as_ref().map(|side| side.transport)
        }
    }

    /// All its transports.
    pub(crate) fn transports(&self) -> impl Iterator<Item = TransportId> {
        let publisher = self.publisher.as_ref().map(|side| side.transport);
        publisher.into_iter().chain(self.subscriber.as_ref().map(|side| side.transport))
    }

    /// The track with this sid.
    pub(crate) fn track(&self, sid: &TrackSid) -> Option<&LocalTrack> {
        self.tracks.iter().find(|track| track.info.sid == *sid)
    }

    /// The track with this sid.
    pub(crate) fn track_mut(&mut self, sid: &TrackSid) -> Option<&mut LocalTrack> {
        self.tracks.iter_mut().find(|track| track.info.sid == *sid)
    }
}
