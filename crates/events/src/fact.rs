//! Facts: what happened to rooms, participants, tracks, transports and queues.

use crate::catalog::{EventDoc, FieldDoc, Lane};
use crate::turn::Quota;
use fanlight_base::{Identity, ParticipantSid, RoomName, RoomSid, TrackSid};
use serde::{Deserialize, Serialize};

/// A fact with its stamp and its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// When, by the wall clock of the node, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Room it belongs to; empty when it belongs to none.
    pub room: RoomSid,
    /// Participant it belongs to; empty when it belongs to none.
    pub participant: ParticipantSid,
    /// Track it belongs to; empty when it belongs to none.
    pub track: TrackSid,
    /// What happened.
    pub body: FactBody,
}

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

/// Which way media of a track flows, seen from the participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the participant to this server.
    Publish,
    /// From this server to the participant.
    Subscribe,
}

/// What a client says of itself at its join.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientFacts {
    /// SDK, lower case (`js`, `python`, …).
    pub sdk: String,
    /// Version of the SDK.
    pub version: String,
    /// LiveKit protocol number.
    pub protocol: u32,
    /// Operating system.
    pub os: String,
    /// Version of the operating system.
    pub os_version: String,
    /// Browser, when it is one.
    pub browser: String,
    /// Version of the browser.
    pub browser_version: String,
    /// Device model.
    pub device_model: String,
    /// Network type as the client names it.
    pub network: String,
    /// Address the signalling connection came from.
    pub address: String,
}

macro_rules! facts {
    ($($(#[doc = $doc:literal])+ $name:ident = $wire:literal { $($(#[doc = $field_doc:literal])+ $field:ident: $kind:ty,)* })+) => {
        /// What happened.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "event")]
        pub enum FactBody {
            $($(#[doc = $doc])+ #[serde(rename = $wire)] $name($name),)+
        }

        impl FactBody {
            /// Name in the timeline and in the store.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => $wire,)+ }
            }
        }

        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct $name { $($(#[doc = $field_doc])+ pub $field: $kind,)* }

            impl From<$name> for FactBody {
                fn from(fact: $name) -> Self { Self::$name(fact) }
            }
        )+

        pub(crate) const FACTS: &[EventDoc] = &[$(EventDoc {
            name: $wire,
            lane: Lane::Fact,
            doc: concat!($($doc, "\n"),+),
            fields: &[$(FieldDoc { name: stringify!($field), kind: stringify!($kind), doc: concat!($($field_doc),+) },)*],
        },)+];
    };
}

facts! {
    /// A room began on this node.
    RoomStarted = "room_started" {
        /// Name of the room.
        name: RoomName,
    }
    /// A room ended.
    RoomEnded = "room_ended" {
        /// Why: `empty`, `departed`, `deleted`, `shutdown`, `panic`, `crash`.
        reason: String,
    }
    /// A participant's join was accepted.
    ParticipantJoined = "participant_joined" {
        /// Identity from its token.
        identity: Identity,
        /// Display name.
        name: String,
        /// Kind from its token (`standard`, `agent`, …).
        kind: String,
        /// Whether others may not see it.
        hidden: bool,
        /// Signalling version: 0 with two peer connections, 1 with one.
        signal_version: u8,
        /// What the client says of itself.
        client: ClientFacts,
    }
    /// A participant's first transport is connected: media can flow.
    ParticipantActive = "participant_active" {
        /// From join to connected transport, in milliseconds.
        connect_ms: u64,
        /// `udp` or `tcp`.
        connection_type: String,
        /// SRTP profile of the transport.
        srtp_profile: String,
    }
    /// A participant's session ended.
    ParticipantLeft = "participant_left" {
        /// LiveKit's disconnect reason, lower case (`client_initiated`, `connection_timeout`, …), or `crash`.
        reason: String,
        /// Whether it had been active.
        was_active: bool,
    }
    /// ICE chose a path, the first one or a new one.
    TransportSelected = "transport_selected" {
        /// `publisher` or `subscriber`.
        target: String,
        /// `udp` or `tcp`.
        protocol: String,
        /// Remote address and port.
        remote: String,
    }
    /// A participant asked to publish a track.
    TrackPublishRequested = "track_publish_requested" {
        /// Audio or video.
        kind: Kind,
        /// Source, lower case (`camera`, `microphone`, …).
        source: String,
    }
    /// The first packet of a published track came.
    TrackPublished = "track_published" {
        /// Name given by the publisher.
        name: String,
        /// Audio or video.
        kind: Kind,
        /// Source, lower case.
        source: String,
        /// MIME type of the codec.
        codec: String,
        /// Width as announced, pixels.
        width: u32,
        /// Height as announced, pixels.
        height: u32,
        /// Whether several encodings are sent.
        simulcast: bool,
        /// The publisher's own id of it.
        cid: String,
        /// `mid` of its m-lines so far, one for each codec: by them it is found in the publisher's getStats.
        mids: Vec<String>,
    }
    /// What is known of a published track changed (codec, size, layers).
    TrackChanged = "track_changed" {
        /// MIME type of the codec.
        codec: String,
        /// RIDs or spatial layers seen so far.
        layers: Vec<String>,
        /// `mid` of its m-lines so far.
        mids: Vec<String>,
    }
    /// A publisher muted a track.
    TrackMuted = "track_muted" {}
    /// A publisher unmuted a track.
    TrackUnmuted = "track_unmuted" {}
    /// A published track ended.
    TrackUnpublished = "track_unpublished" {
        /// Why: `unpublished`, `left`, `permission`, `crash`.
        reason: String,
    }
    /// A subscription is bound: the subscriber's answer took it.
    TrackSubscribed = "track_subscribed" {
        /// Publisher of the track.
        publisher: ParticipantSid,
        /// Audio or video.
        kind: Kind,
        /// Source, lower case.
        source: String,
        /// MIME type sent to the subscriber.
        codec: String,
        /// SSRC it is sent with: by it it is found in the subscriber's getStats.
        ssrc: u32,
    }
    /// A subscription ended.
    TrackUnsubscribed = "track_unsubscribed" {
        /// Why: `unsubscribed`, `unpublished`, `left`, `permission`, `codec_unsupported`, `crash`.
        reason: String,
    }
    /// Something was refused because of a limit or a rule.
    Refused = "refused" {
        /// What was refused (`join`, `offer`, `add_track`, `data`, …).
        what: String,
        /// The rule or limit with its value.
        why: String,
    }
    /// A thread of the server makes no turns, has ended, or makes turns again.
    ServerThread = "server_thread" {
        /// Its name.
        thread: String,
        /// `stuck`, `ended` or `working`.
        state: String,
    }
    /// A bounded queue was full; the count is cumulative for this process.
    QueueRefused = "queue_refused" {
        /// Name of the queue as wire.rs declares it.
        queue: String,
        /// How many were refused so far.
        refused: u64,
    }
    /// A user's time on a TURN relay ended: all of its allocations are gone.
    TurnSessionEnded = "turn_session_ended" {
        /// Number of the session in the record.
        session: u64,
        /// Realm of the credentials.
        realm: String,
        /// Whose it was: a participant's identity, else the person that the user name stands for.
        user: String,
        /// Name of the room; empty when it is not known.
        room_name: String,
        /// First allocation, in milliseconds since the Unix epoch.
        started_ms: u64,
        /// From there to the last end, as far as is certain, in milliseconds.
        held_ms: u64,
        /// From there to the last traffic, in milliseconds.
        active_ms: u64,
        /// Allocations.
        allocations: u64,
        /// Payload from peers, in bytes.
        peer_rx_bytes: u64,
        /// Payload to peers, in bytes.
        peer_tx_bytes: u64,
        /// `unused`, `checks-only` or `relayed`.
        class: String,
        /// How far the bytes can be trusted: `exact`, `deltas` or `lower-bound`.
        quality: String,
        /// How the last allocation ended (`released`, `expired`, `closed`, `node-restart`, …).
        reason: String,
    }
    /// A TURN user was refused or cut off by a quota; said once for a user in a while, not for each request.
    TurnQuotaHit = "turn_quota_hit" {
        /// The TURN server.
        node: String,
        /// Realm of the credentials.
        realm: String,
        /// User name as authenticated; of a participant, its id.
        user: String,
        /// Which quota.
        quota: Quota,
        /// The quota itself: allocations, bits per second or bytes.
        limit: u64,
    }
}
