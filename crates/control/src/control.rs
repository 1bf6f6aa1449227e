//! Admission, routing and the end of rooms.

use crate::config::{ControlConfig, Limits, RoomDefaults, RoomOptions};
use crate::directory::{Counts, Occupant, Room, RoomView};
use crate::output::{Output, ShardHealth, ShardIndex, Why};
use fanlight_base::{
    Mono, NodeId, Now, ParticipantSid, PeerKey, Random, Redacted, RoomName, RoomSid, sid_suffix,
};
use fanlight_events::{Event, Fact, FactBody, ParticipantLeft, Refused, RoomEnded};
use fanlight_sfu::input::{Command, Join};
use fanlight_sfu::model::{DisconnectReason, ParticipantKind, RoomConfig};
use fanlight_sfu::output::LeaveAction;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Length of `turn_password` and `sif_trailer`, as LiveKit makes them most of the time.
const ROOM_SECRET_CHARS: usize = 43;

/// A participant that asks to come in.
#[derive(Debug)]
pub struct JoinRequest {
    /// Name of the room, from the token.
    pub room: RoomName,
    /// `roomConfig` of the token: applied when this join makes the room.
    pub options: RoomOptions,
    /// `roomPreset` of the token; empty for none.
    pub preset: String,
    /// The token grants `roomCreate`.
    pub may_create: bool,
    /// The participant; `peer`, `room` and `sid` are filled in by [`Control::handle_join`].
    pub join: Box<Join>,
}

/// Why a join was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The room is not there, and neither configuration nor token lets the join make it.
    #[error("requested room does not exist")]
    RoomNotFound,
    /// `limit.num_tracks` or `limit.bytes_per_sec` is reached.
    #[error("node has exceeded its configured limit")]
    NodeLimit,
    /// `max_participants` is reached.
    #[error("room is full")]
    RoomFull,
    /// `roomPreset` names no configuration.
    #[error("unknown room preset")]
    UnknownPreset,
    /// Metadata or attributes are over `limit.max_metadata_size` or `limit.max_attributes_size`.
    #[error("metadata or attributes are too long")]
    MetadataTooLong,
    /// The room's media thread does not turn.
    #[error("the media thread of this room does not answer; try again later")]
    RoomUnavailable,
    /// No media thread turns that could take the room.
    #[error("no media thread of this node answers; try again later")]
    NodeUnavailable,
    /// The node is shutting down.
    #[error("node is shutting down")]
    Draining,
}

impl JoinError {
    /// Lower-case name for the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoomNotFound => "room_not_found",
            Self::NodeLimit => "node_limit",
            Self::RoomFull => "room_full",
            Self::UnknownPreset => "unknown_preset",
            Self::MetadataTooLong => "metadata_too_long",
            Self::RoomUnavailable => "room_unavailable",
            Self::NodeUnavailable => "node_unavailable",
            Self::Draining => "draining",
        }
    }
}

/// The room directory of this node.
///
/// Call `handle_*`, then drain [`Control::poll_output`] until it gives [`Output::Timeout`].
#[derive(Debug)]
pub struct Control {
    node: NodeId,
    limits: Limits,
    defaults: RoomDefaults,
    random: Random,
    rooms: BTreeMap<RoomSid, Room>,
    /// Rooms that may be joined; a closing one is only in `rooms`.
    names: BTreeMap<RoomName, RoomSid>,
    peers: BTreeMap<PeerKey, Occupant>,
    /// When rooms nobody holds end.
    ends: BTreeSet<(Mono, RoomSid)>,
    /// Sessions of each shard, for placement.
    load: Vec<u32>,
    /// How each shard fares.
    health: Vec<ShardHealth>,
    next_peer: u64,
    tracks: u32,
    bytes_per_s: u64,
    draining: bool,
    drained_said: bool,
    joins_admitted: u64,
    joins_refused: u64,
    unknown_peers: u64,
    outputs: VecDeque<Output>,
}

impl Control {
    /// An empty directory.
    pub fn new(config: ControlConfig) -> Self {
        Self {
            node: config.node,
            limits: config.limits,
            defaults: config.room,
            random: config.random,
            rooms: BTreeMap::new(),
            names: BTreeMap::new(),
            peers: BTreeMap::new(),
            ends: BTreeSet::new(),
            load: vec![0; usize::from(config.shards.max(1))],
            health: vec![ShardHealth::Working; usize::from(config.shards.max(1))],
            next_peer: 1,
            tracks: 0,
            bytes_per_s: 0,
            draining: false,
            drained_said: false,
            joins_admitted: 0,
            joins_refused: 0,
            unknown_peers: 0,
            outputs: VecDeque::new(),
        }
    }

    /// This node.
    pub const fn node(&self) -> &NodeId {
        &self.node
    }

    /// Whether a join to `room` would find a place, as `/rtc/validate` answers: a full room and an unknown preset are not
    /// looked at.
    pub fn check(&self, room: &RoomName, may_create: bool) -> Result<(), JoinError> {
        if self.draining {
            return Err(JoinError::Draining);
        }
        if !self.names.contains_key(room) && !self.defaults.auto_create && !may_create {
            return Err(JoinError::RoomNotFound);
        }
        if self.over_limit() {
            return Err(JoinError::NodeLimit);
        }
        self.place(room).map(drop)
    }

    /// Admits a participant: makes the room if need be, ends an older session of the same identity and sends the join to
    /// the room's shard.
    ///
    /// The key is what every later call names the session by. Nobody in the room hears of a refused join.
    pub fn handle_join(&mut self, now: Now, request: JoinRequest) -> Result<PeerKey, JoinError> {
        match self.admit(now, request) {
            Ok(peer) => {
                self.joins_admitted += 1;
                Ok(peer)
            }
            Err(error) => {
                self.joins_refused += 1;
                self.refused(now, error);
                Err(error)
            }
        }
    }

    /// Makes a room without joining it, or finds the one of that name, which stays as it is.
    pub fn handle_create_room(
        &mut self,
        now: Now,
        name: &RoomName,
        options: &RoomOptions,
        preset: &str,
    ) -> Result<RoomSid, JoinError> {
        if self.draining {
            return Err(JoinError::Draining);
        }
        if self.over_limit() {
            return Err(JoinError::NodeLimit);
        }
        let options = self.with_preset(options, preset)?;
        let shard = self.place(name)?;
        Ok(match self.names.get(name) {
            Some(sid) => sid.clone(),
            None => self.create_room(now, name, &options, shard),
        })
    }

    /// Ends a room: everybody in it is told `reason`. Returns whether there was such a room.
    pub fn handle_close_room(
        &mut self,
        name: &RoomName,
        reason: DisconnectReason,
        record: &'static str,
    ) -> bool {
        let Some(sid) = self.names.get(name).cloned() else { return false };
        self.close_room(&sid, (reason, LeaveAction::Disconnect), record);
        true
    }

    /// The signalling connection is gone without a leave.
    pub fn handle_signal_closed(&mut self, peer: PeerKey) {
        self.send_to_peer(peer, Command::SignalClosed { peer });
    }

    /// Ends a session for a reason of the server's.
    pub fn handle_disconnect(&mut self, peer: PeerKey, reason: DisconnectReason) {
        self.send_to_peer(peer, Command::Disconnect { peer, reason });
    }

    /// A shard says that a session is over.
    pub fn handle_left(&mut self, now: Now, peer: PeerKey) {
        let Some(occupant) = self.peers.remove(&peer) else { return };
        let Some(room) = self.rooms.get_mut(&occupant.room) else { return };
        let before = room.ends_at();
        room.leave(now.mono(), peer, &occupant);
        let after = room.ends_at();
        if let Some(load) = self.load.get_mut(usize::from(room.shard.0)) {
            *load = load.saturating_sub(1);
        }
        self.set_end(&occupant.room, before, after);
    }

    /// A shard says that a session's transport is connected.
    pub fn handle_active(&mut self, peer: PeerKey) {
        match self.peers.get_mut(&peer) {
            Some(occupant) => occupant.active = true,
            None => self.unknown_peers += 1,
        }
    }

    /// A shard says that a room is gone, closed by us or not.
    pub fn handle_room_closed(&mut self, now: Now, sid: &RoomSid) {
        let Some(room) = self.rooms.get(sid) else { return };
        let left: Vec<PeerKey> = room.occupants.keys().copied().collect();
        for peer in left {
            self.handle_left(now, peer);
        }
        let Some(room) = self.rooms.remove(sid) else { return };
        if let Some(at) = room.ends_at() {
            self.ends.remove(&(at, sid.clone()));
        }
        if self.names.get(&room.name) == Some(sid) {
            self.names.remove(&room.name);
        }
        self.say_drained();
    }

    /// How a shard fares. One that is not working gets no joins; the rooms of one that has ended are lost, and nothing comes
    /// after that.
    pub fn handle_shard_health(&mut self, now: Now, shard: ShardIndex, health: ShardHealth) {
        let Some(known) = self.health.get_mut(usize::from(shard.0)) else { return };
        if *known == ShardHealth::Ended {
            return;
        }
        *known = health;
        if health == ShardHealth::Ended {
            let lost = self.rooms.iter().filter(|(_, room)| room.shard == shard);
            for sid in lost.map(|(sid, _)| sid.clone()).collect::<Vec<_>>() {
                self.lose_room(now, &sid);
            }
        }
    }

    /// What this node carries, as its shards counted it; for `limit.num_tracks` and `limit.bytes_per_sec`.
    pub const fn handle_load(&mut self, tracks: u32, bytes_per_s: u64) {
        self.tracks = tracks;
        self.bytes_per_s = bytes_per_s;
    }

    /// No more joins; every room is closed with [`DisconnectReason::ServerShutdown`], clients are told what to do then, and
    /// [`Output::Drained`] says when the last one is gone.
    pub fn handle_shutdown(&mut self, action: LeaveAction) {
        self.draining = true;
        let open: Vec<RoomSid> = self.names.values().cloned().collect();
        for sid in open {
            self.close_room(&sid, (DisconnectReason::ServerShutdown, action), "shutdown");
        }
        self.say_drained();
    }

    /// Ends the rooms that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((at, sid)) = self.ends.first().cloned() {
            if at > now.mono() {
                return;
            }
            self.ends.remove(&(at, sid.clone()));
            let Some(room) = self.rooms.get(&sid) else { continue };
            let record = room.end_reason();
            self.close_room(&sid, (DisconnectReason::RoomClosed, LeaveAction::Disconnect), record);
        }
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        match self.ends.first() {
            Some((at, _)) => Output::Timeout(*at, Why::RoomEnd),
            None => Output::Timeout(Mono::NEVER, Why::Idle),
        }
    }

    /// Where a session lives.
    pub fn shard_of(&self, peer: PeerKey) -> Option<ShardIndex> {
        let occupant = self.peers.get(&peer)?;
        Some(self.rooms.get(&occupant.room)?.shard)
    }

    /// Where a participant of this room would live: a shell refuses joins for a shard that is behind.
    /// `None` when no shard that works may have it.
    pub fn shard_for(&self, name: &RoomName) -> Option<ShardIndex> {
        self.place(name).ok()
    }

    /// Session id of a participant.
    pub fn participant_sid(&self, peer: PeerKey) -> Option<&ParticipantSid> {
        self.peers.get(&peer).map(|occupant| &occupant.sid)
    }

    /// The room of this name that may be joined.
    pub fn room(&self, name: &RoomName) -> Option<RoomView> {
        let sid = self.names.get(name)?;
        let room = self.rooms.get(sid)?;
        Some(RoomView {
            sid: sid.clone(),
            name: room.name.clone(),
            shard: room.shard,
            max_participants: room.max_participants,
            participants: self.counted(room, None),
            occupants: u32::try_from(room.occupants.len()).unwrap_or(u32::MAX),
        })
    }

    /// The rooms that may be joined, by name.
    pub fn rooms(&self) -> impl Iterator<Item = RoomView> {
        self.names.keys().filter_map(|name| self.room(name))
    }

    /// How much of everything there is.
    pub fn counts(&self) -> Counts {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        Counts {
            rooms: count(self.rooms.len()),
            participants: count(self.peers.len()),
            active: count(self.peers.values().filter(|occupant| occupant.active).count()),
            participants_by_shard: self.load.clone(),
            joins_admitted: self.joins_admitted,
            joins_refused: self.joins_refused,
            unknown_peers: self.unknown_peers,
        }
    }

    fn admit(&mut self, now: Now, request: JoinRequest) -> Result<PeerKey, JoinError> {
        self.check(&request.room, request.may_create)?;
        let options = self.with_preset(&request.options, &request.preset)?;
        let mut join = request.join;
        if !self.limits.take(&join.metadata, &join.attributes) {
            return Err(JoinError::MetadataTooLong);
        }
        let dependent = join.permission.agent
            || join.permission.recorder
            || matches!(join.kind, ParticipantKind::Agent | ParticipantKind::Egress);
        let counted = !dependent && !join.permission.hidden;
        let found = self.names.get(&request.room).cloned();
        if let Some(room) = found.as_ref().and_then(|sid| self.rooms.get(sid)) {
            let others = self.counted(room, Some(&join.identity));
            let repeated = room.occupants.values().any(|identity| *identity == join.identity);
            if counted && !repeated && room.max_participants > 0 && others >= room.max_participants {
                return Err(JoinError::RoomFull);
            }
        }
        let sid = match found {
            Some(sid) => sid,
            None => {
                let shard = self.place(&request.room)?;
                self.create_room(now, &request.room, &options, shard)
            }
        };
        self.end_older(&sid, &join);

        let peer = PeerKey(self.next_peer);
        self.next_peer += 1;
        join.peer = peer;
        join.room = sid.clone();
        join.sid = ParticipantSid::from(format!("PA_{}", sid_suffix(&mut self.random)));
        let occupant = Occupant {
            room: sid.clone(),
            identity: join.identity.clone(),
            sid: join.sid.clone(),
            dependent,
            counted,
            active: false,
            ending: false,
        };
        self.enter(peer, occupant);
        self.send_to_peer(peer, Command::Join(join));
        Ok(peer)
    }

    fn enter(&mut self, peer: PeerKey, occupant: Occupant) {
        let Some(room) = self.rooms.get_mut(&occupant.room) else { return };
        let before = room.ends_at();
        room.enter(peer, &occupant);
        let after = room.ends_at();
        if let Some(load) = self.load.get_mut(usize::from(room.shard.0)) {
            *load = load.saturating_add(1);
        }
        let sid = occupant.room.clone();
        self.peers.insert(peer, occupant);
        self.set_end(&sid, before, after);
    }

    fn end_older(&mut self, sid: &RoomSid, join: &Join) {
        let Some(room) = self.rooms.get(sid) else { return };
        let older: Vec<PeerKey> = room
            .occupants
            .iter()
            .filter(|(_, identity)| **identity == join.identity)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in older {
            let reason = DisconnectReason::DuplicateIdentity;
            self.send_to_peer(peer, Command::Disconnect { peer, reason });
        }
    }

    fn create_room(
        &mut self,
        now: Now,
        name: &RoomName,
        options: &RoomOptions,
        shard: ShardIndex,
    ) -> RoomSid {
        let sid = RoomSid::from(format!("RM_{}", sid_suffix(&mut self.random)));
        let empty_timeout_s = options.empty_timeout_s.unwrap_or(self.defaults.empty_timeout_s);
        let departure_timeout_s = options.departure_timeout_s.unwrap_or(self.defaults.departure_timeout_s);
        let max_participants = options.max_participants.unwrap_or(self.defaults.max_participants);
        let config = RoomConfig {
            sid: sid.clone(),
            name: name.clone(),
            empty_timeout_s,
            departure_timeout_s,
            max_participants,
            created_ms: now.unix_ms(),
            turn_password: Redacted::new(self.random.alphanumeric(ROOM_SECRET_CHARS)),
            sif_trailer: self.random.alphanumeric(ROOM_SECRET_CHARS),
            enabled_codecs: self.defaults.enabled_codecs.clone(),
            metadata: options.metadata.clone().unwrap_or_default(),
        };
        let timeouts_s = (empty_timeout_s, departure_timeout_s);
        let room = Room::new(now.mono(), name.clone(), shard, max_participants, timeouts_s);
        let ends_at = room.ends_at();
        self.rooms.insert(sid.clone(), room);
        self.names.insert(name.clone(), sid.clone());
        self.set_end(&sid, None, ends_at);
        self.send_to_shard(shard, Command::CreateRoom(Box::new(config)));
        sid
    }

    /// The room is out of the directory at once, so that the next join makes a new one; it is forgotten when its shard
    /// says that it is gone.
    fn close_room(
        &mut self,
        sid: &RoomSid,
        (reason, action): (DisconnectReason, LeaveAction),
        record: &'static str,
    ) {
        let Some(room) = self.rooms.get_mut(sid) else { return };
        if room.closing {
            return;
        }
        let before = room.ends_at();
        room.closing = true;
        let (shard, name) = (room.shard, room.name.clone());
        for peer in room.occupants.keys() {
            if let Some(occupant) = self.peers.get_mut(peer) {
                occupant.ending = true;
            }
        }
        self.set_end(sid, before, None);
        self.names.remove(&name);
        self.send_to_shard(shard, Command::CloseRoom { room: sid.clone(), reason, action, record });
    }

    /// The record hears the end of everybody in it, which the room's shard does not say any more.
    fn lose_room(&mut self, now: Now, sid: &RoomSid) {
        let Some(room) = self.rooms.get(sid) else { return };
        for peer in room.occupants.keys() {
            let Some(occupant) = self.peers.get(peer) else { continue };
            let left = ParticipantLeft { reason: "crash".to_owned(), was_active: occupant.active };
            self.outputs.push_back(fact(now, sid.clone(), occupant.sid.clone(), left));
        }
        let ended = RoomEnded { reason: "crash".to_owned() };
        self.outputs.push_back(fact(now, sid.clone(), ParticipantSid::default(), ended));
        self.handle_room_closed(now, sid);
    }

    /// The shard of this room, if there is one, or where it would be made.
    fn place(&self, name: &RoomName) -> Result<ShardIndex, JoinError> {
        match self.names.get(name).and_then(|sid| self.rooms.get(sid)) {
            Some(room) if self.works(room.shard) => Ok(room.shard),
            Some(_) => Err(JoinError::RoomUnavailable),
            None => self.least_loaded().ok_or(JoinError::NodeUnavailable),
        }
    }

    fn works(&self, shard: ShardIndex) -> bool {
        self.health.get(usize::from(shard.0)) == Some(&ShardHealth::Working)
    }

    /// Of those that work: fewest sessions, then fewest rooms, then the lowest number.
    fn least_loaded(&self) -> Option<ShardIndex> {
        let rooms_on = |shard: u16| self.rooms.values().filter(|room| room.shard.0 == shard).count();
        (0u16..)
            .zip(&self.load)
            .filter(|(shard, _)| self.works(ShardIndex(*shard)))
            .min_by_key(|(shard, load)| (**load, rooms_on(*shard)))
            .map(|(shard, _)| ShardIndex(shard))
    }

    fn counted(&self, room: &Room, except: Option<&fanlight_base::Identity>) -> u32 {
        let counts = |(peer, identity): (&PeerKey, &fanlight_base::Identity)| {
            Some(identity) != except
                && self.peers.get(peer).is_some_and(|occupant| occupant.counted && !occupant.ending)
        };
        u32::try_from(room.occupants.iter().filter(|entry| counts(*entry)).count()).unwrap_or(u32::MAX)
    }

    fn with_preset(&self, options: &RoomOptions, preset: &str) -> Result<RoomOptions, JoinError> {
        if preset.is_empty() {
            return Ok(options.clone());
        }
        self.defaults.presets.get(preset).map(|preset| options.or(preset)).ok_or(JoinError::UnknownPreset)
    }

    const fn over_limit(&self) -> bool {
        let tracks = self.limits.num_tracks > 0 && self.tracks >= self.limits.num_tracks;
        let bytes = self.limits.bytes_per_s > 0 && self.bytes_per_s >= self.limits.bytes_per_s;
        tracks || bytes
    }

    fn set_end(&mut self, sid: &RoomSid, before: Option<Mono>, after: Option<Mono>) {
        if before == after {
            return;
        }
        if let Some(at) = before {
            self.ends.remove(&(at, sid.clone()));
        }
        if let Some(at) = after {
            self.ends.insert((at, sid.clone()));
        }
    }

    fn send_to_peer(&mut self, peer: PeerKey, command: Command) {
        let shard = self.peers.get_mut(&peer).and_then(|occupant| {
            let shard = self.rooms.get(&occupant.room)?.shard;
            occupant.ending |= matches!(command, Command::Disconnect { .. });
            Some(shard)
        });
        match shard {
            Some(shard) => self.send_to_shard(shard, command),
            None => self.unknown_peers += 1,
        }
    }

    fn send_to_shard(&mut self, shard: ShardIndex, command: Command) {
        self.outputs.push_back(Output::ToShard { shard, command: Box::new(command) });
    }

    fn refused(&mut self, now: Now, error: JoinError) {
        let refused = Refused { what: "join".to_owned(), why: error.as_str().to_owned() };
        self.outputs.push_back(fact(now, RoomSid::default(), ParticipantSid::default(), refused));
    }

    fn say_drained(&mut self) {
        if self.draining && self.rooms.is_empty() && !self.drained_said {
            self.drained_said = true;
            self.outputs.push_back(Output::Drained);
        }
    }
}

fn fact(now: Now, room: RoomSid, participant: ParticipantSid, body: impl Into<FactBody>) -> Output {
    let track = fanlight_base::TrackSid::default();
    let fact = Fact { unix_ms: now.unix_ms(), room, participant, track, body: body.into() };
    Output::Event(Box::new(Event::Fact(fact)))
}
