//! What an [`Sfu`](crate::Sfu) says to the outside: a closed list of small values.

use crate::input::{AddTrack, Target};
use crate::model::{DisconnectReason, ParticipantInfo, RoomInfo, SharedInfo, SharedRoomInfo, TrackInfo};
use fanlight_base::{Identity, Mono, ParticipantSid, PeerKey, RoomName, RoomSid, TrackSid};
use fanlight_events::Event;
use fanlight_transport::negotiate::LocalDescription;

/// One output; packets are in the `SendBatch` instead.
#[derive(Debug)]
pub enum Output {
    /// A message for a participant's signalling connection.
    Signal(PeerKey, Box<Signal>),
    /// For telemetry.
    Event(Box<Event>),
    /// For telemetry: what a participant's client has measured.
    Metrics(Box<ClientMetrics>),
    /// For `control`: a participant's session is over; its key will not be used again.
    Left {
        /// Whose.
        peer: PeerKey,
        /// Why.
        reason: DisconnectReason,
    },
    /// For `control`: a participant became active.
    Active {
        /// Who.
        peer: PeerKey,
    },
    /// For `control`: a room is gone.
    RoomClosed {
        /// Which; boxed to keep this enum small.
        room: Box<RoomSid>,
    },
    /// The batch is large enough: send and clear it, then go on polling. Its packets stay in it where that is not done.
    Transmit,
    /// Nothing more now; call `handle_timeout` at this time. Always the last one.
    Timeout(Mono, Why),
}

const _: () = assert!(size_of::<Output>() <= 64);

/// A batch of metrics, as a client sent it, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMetrics {
    /// The room.
    pub room: RoomSid,
    /// The room's name.
    pub room_name: RoomName,
    /// Who sent it.
    pub participant: ParticipantSid,
    /// The sender's identity.
    pub identity: Identity,
    /// The sender's SDK.
    pub sdk: String,
    /// Version of the SDK.
    pub version: String,
    /// When it came, in nanoseconds since the Unix epoch; at least [`METRICS_APART_NS`](crate::limits::METRICS_APART_NS)
    /// after the one before of the same participant.
    pub at_unix_ns: u64,
    /// LiveKit's `MetricsBatch`, not looked into; at most `DATA_BYTES_MAX`.
    pub batch: Vec<u8>,
}

/// What the next timeout is for; counted by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// ICE, DTLS or SCTP.
    Transport,
    /// Retransmission requests to publishers.
    Nack,
    /// Transport-wide feedback to publishers.
    Feedback,
    /// Sender and receiver reports.
    Reports,
    /// Key frame requests.
    KeyFrame,
    /// Layer activity.
    Layers,
    /// Counters.
    Samples,
    /// Room clocks: updates, counts, join timeouts.
    Room,
    /// Nothing is due.
    Idle,
}

/// Why a request was refused; the numbers are LiveKit's `RequestResponse.Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are LiveKit's and say it all")]
pub enum RequestReason {
    Ok = 0,
    NotFound = 1,
    NotAllowed = 2,
    LimitExceeded = 3,
    Queued = 4,
    UnsupportedType = 5,
    UnclassifiedError = 6,
}

/// What the client shall do about a leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveAction {
    /// Stay away.
    Disconnect,
    /// Resume the session.
    Resume,
    /// Join anew.
    Reconnect,
}

/// A message to a client, before it is a LiveKit `SignalResponse`.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// The join is accepted; everything else comes after it.
    Joined(Box<Joined>),
    /// Answer on the publisher connection.
    Answer {
        /// Of the offer.
        id: u32,
        /// To be written.
        sdp: Box<LocalDescription>,
        /// Sections that carry subscribed tracks.
        mid_to_track: Vec<(String, TrackSid)>,
    },
    /// Offer on the subscriber connection.
    Offer {
        /// To be echoed.
        id: u32,
        /// To be written.
        sdp: Box<LocalDescription>,
        /// Sections that carry subscribed tracks.
        mid_to_track: Vec<(String, TrackSid)>,
    },
    /// A local candidate.
    Trickle {
        /// Which connection.
        target: Target,
        /// The `candidate:` line.
        candidate: String,
        /// The last one.
        last: bool,
    },
    /// Participants that changed, for `update`.
    Participants(Vec<SharedInfo>),
    /// The room changed.
    Room(SharedRoomInfo),
    /// A track may be sent now.
    TrackPublished {
        /// The client's id.
        cid: String,
        /// As accepted.
        track: Box<TrackInfo>,
    },
    /// The server ended a track of this participant.
    TrackUnpublished(TrackSid),
    /// Somebody received the first media of this participant's track.
    TrackSubscribed(TrackSid),
    /// Whether this participant may see a track it wants.
    SubscriptionPermission {
        /// The publisher.
        participant: fanlight_base::ParticipantSid,
        /// The track.
        track: TrackSid,
        /// Yes or no.
        allowed: bool,
    },
    /// A subscription failed.
    SubscriptionFailed {
        /// The track.
        track: TrackSid,
        /// Its codec cannot be received, or the track does not exist.
        codec_unsupported: bool,
    },
    /// v1: the client has to add sections and offer again.
    MediaSections {
        /// Audio sections to add.
        audios: u32,
        /// Video sections to add.
        videos: u32,
    },
    /// A subscribed video track plays or pauses.
    StreamState {
        /// Who publishes, which track, and whether it is active.
        streams: Vec<(fanlight_base::ParticipantSid, TrackSid, bool)>,
    },
    /// Answer to a request.
    RequestResponse {
        /// Of the request; 0 when it had none.
        request_id: u32,
        /// Outcome.
        reason: RequestReason,
        /// Why, for people.
        message: String,
        /// The request, echoed where LiveKit echoes it.
        request: EchoedRequest,
    },
    /// A new token is due: at the start, every five minutes, after each change of claims.
    RefreshToken(SharedInfo),
    /// The session ends; the connection is closed after this message.
    Leave {
        /// Why.
        reason: DisconnectReason,
        /// What to do.
        action: LeaveAction,
    },
}

impl Signal {
    /// About how many bytes it takes on its way to the client; shared parts count in full.
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Joined(joined) => {
                let others = joined.others.iter().map(SharedInfo::bytes).sum::<usize>();
                joined.room.config.metadata.len() + joined.participant.bytes() + others
            }
            Self::Answer { sdp, mid_to_track, .. } | Self::Offer { sdp, mid_to_track, .. } => {
                sdp.bytes() + size_of_val(mid_to_track.as_slice())
            }
            Self::Participants(infos) => infos.iter().map(SharedInfo::bytes).sum(),
            Self::Room(info) => info.config.metadata.len(),
            Self::TrackPublished { track, .. } => track.bytes(),
            Self::StreamState { streams } => size_of_val(streams.as_slice()),
            Self::RequestResponse { message, request, .. } => message.len() + request.bytes(),
            Self::RefreshToken(info) => info.bytes(),
            Self::Trickle { .. }
            | Self::TrackUnpublished(_)
            | Self::TrackSubscribed(_)
            | Self::SubscriptionPermission { .. }
            | Self::SubscriptionFailed { .. }
            | Self::MediaSections { .. }
            | Self::Leave { .. } => 0,
        };
        content + SIGNAL_BYTES
    }
}

/// What a signal takes beside its content, about.
const SIGNAL_BYTES: usize = 256;

impl EchoedRequest {
    fn bytes(&self) -> usize {
        match self {
            Self::UpdateMetadata { name, metadata, attributes } => {
                let attributes = attributes.iter().map(|(key, value)| key.len() + value.len());
                name.len() + metadata.len() + attributes.sum::<usize>()
            }
            Self::AddTrack(_) => size_of::<AddTrack>(),
            Self::None | Self::Mute { .. } | Self::Trickle { .. } => 0,
        }
    }
}

/// The request a [`Signal::RequestResponse`] carries back.
#[derive(Debug, Clone, PartialEq)]
pub enum EchoedRequest {
    /// None.
    None,
    /// `add_track`.
    AddTrack(Box<AddTrack>),
    /// `mute`.
    Mute {
        /// The track.
        track: TrackSid,
        /// The wish.
        muted: bool,
    },
    /// `update_metadata`.
    UpdateMetadata {
        /// As asked.
        name: String,
        /// As asked.
        metadata: String,
        /// As asked.
        attributes: std::collections::BTreeMap<String, String>,
    },
    /// `trickle`.
    Trickle {
        /// Which connection.
        target: Target,
    },
}

/// What a `JoinResponse` is made of, beside what `livekit` knows itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// The room.
    pub room: RoomInfo,
    /// The participant itself, still joining.
    pub participant: ParticipantInfo,
    /// Everybody else who is not hidden.
    pub others: Vec<SharedInfo>,
    /// v0 and may subscribe.
    pub subscriber_primary: bool,
}
