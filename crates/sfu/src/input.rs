//! What the outside asks of an [`Sfu`](crate::Sfu): a closed list.

use crate::model::{DisconnectReason, Kind, ParticipantKind, Permission, RoomConfig, Source, VideoLayer};
use crate::output::LeaveAction;
use fanlight_base::{Identity, ParticipantSid, PeerKey, RoomSid, TrackSid};
use fanlight_events::ClientFacts;
use fanlight_transport::negotiate::RemoteDescription;
use std::collections::BTreeMap;

/// A command of `control`.
#[derive(Debug)]
pub enum Command {
    /// Makes a room; nothing happens when its sid is there already.
    CreateRoom(Box<RoomConfig>),
    /// Ends a room: every participant gets a leave with this reason.
    CloseRoom {
        /// Which.
        room: RoomSid,
        /// Told to clients.
        reason: DisconnectReason,
        /// What clients shall do.
        action: LeaveAction,
        /// Told to the record (`empty`, `departed`, `deleted`, `shutdown`).
        record: &'static str,
    },
    /// Admits a participant; answered with `Signal::Joined`, or `Signal::Leave` when the room is gone.
    Join(Box<Join>),
    /// A request of a participant.
    Request {
        /// Who asks.
        peer: PeerKey,
        /// What.
        request: Request,
    },
    /// Ends a session: leave with this reason is sent first.
    Disconnect {
        /// Whose.
        peer: PeerKey,
        /// Told to the client, the others and the record.
        reason: DisconnectReason,
    },
    /// The signalling connection is gone, without a leave.
    SignalClosed {
        /// Whose.
        peer: PeerKey,
    },
}

impl Command {
    /// What handling it costs, in small commands: [`Request::cost`] of a request, and the first offer of a join.
    pub fn cost(&self) -> u32 {
        match self {
            Self::Request { request, .. } => request.cost(),
            Self::Join(join) => 1 + join.publisher_offer.as_ref().map_or(0, |(_, sdp)| description_cost(sdp)),
            _ => 1,
        }
    }
}

impl Request {
    /// Whether it is an offer or an answer.
    pub fn is_description(&self) -> bool {
        matches!(self, Self::Offer { .. } | Self::Answer { .. })
    }

    /// What handling it costs, in small requests.
    pub fn cost(&self) -> u32 {
        match self {
            Self::Offer { sdp, .. } | Self::Answer { sdp, .. } => 1 + description_cost(sdp),
            _ => 1,
        }
    }
}

/// A section costs one µs, and up to eight with as many payload types as there are, where a small request costs one or two.
fn description_cost(sdp: &RemoteDescription) -> u32 {
    let sections = u32::try_from(sdp.sections()).unwrap_or(u32::MAX);
    let kilobytes = u32::try_from(sdp.bytes() / 1024).unwrap_or(u32::MAX);
    sections.saturating_add(kilobytes)
}

/// How a participant's transports are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Signalling v0: the client offers on one, the server on the other.
    Dual {
        /// The subscriber transport decides when the participant is active (protocol ≥ 3).
        subscriber_primary: bool,
    },
    /// Signalling v1: one, and the client offers.
    Single,
}

/// A participant on its way into a room.
#[derive(Debug)]
pub struct Join {
    /// Its key in this process, made by `control`.
    pub peer: PeerKey,
    /// The room, made before.
    pub room: RoomSid,
    /// Session id, made by `control`.
    pub sid: ParticipantSid,
    /// Identity; `control` has ended an older session of the same identity.
    pub identity: Identity,
    /// Display name.
    pub name: String,
    /// Metadata.
    pub metadata: String,
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Rights.
    pub permission: Permission,
    /// Kind.
    pub kind: ParticipantKind,
    /// LiveKit `KindDetail` numbers.
    pub kind_details: Vec<i32>,
    /// One or two peer connections.
    pub layout: Layout,
    /// LiveKit protocol number of the client.
    pub protocol: u32,
    /// Echoed to others.
    pub client_protocol: i32,
    /// Echoed to others.
    pub capabilities: Vec<i32>,
    /// For the record.
    pub client: ClientFacts,
    /// What this client cannot do or needs.
    pub quirks: Quirks,
    /// Subscribe to every track of the room.
    pub auto_subscribe: bool,
    /// The client reports what it shows; tracks begin at low quality.
    pub adaptive_stream: bool,
    /// ICE-lite, decided from configuration and client.
    pub ice_lite: bool,
    /// Tracks announced with the join.
    pub add_tracks: Vec<AddTrack>,
    /// The first offer, when the join carries it.
    pub publisher_offer: Option<(u32, Box<RemoteDescription>)>,
}

/// Client behaviour the media plane has to know (livekit.md §1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// No RED is sent to it (Firefox, Safari).
    pub no_red: bool,
    /// Answers keep the requested video codec only (Firefox on Linux and Android).
    pub requested_codec_only: bool,
    /// Freed sections are not used again (Safari, protocol < 4).
    pub no_section_reuse: bool,
    /// H264 is neither offered nor taken (Firefox on Linux).
    pub no_h264: bool,
}

/// Which peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The one the client offers on; the only one in v1.
    Publisher,
    /// The one the server offers on.
    Subscriber,
}

impl Target {
    /// Lower-case name for the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscriber => "subscriber",
        }
    }
}

/// A track a client is about to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddTrack {
    /// The client's id, found again in the SDP.
    pub cid: String,
    /// Name.
    pub name: String,
    /// Audio or video.
    pub kind: Kind,
    /// Source.
    pub source: Source,
    /// Begins muted.
    pub muted: bool,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// DTX must stay off.
    pub disable_dtx: bool,
    /// Stereo audio.
    pub stereo: bool,
    /// RED must stay off.
    pub disable_red: bool,
    /// Encodings, any order.
    pub layers: Vec<VideoLayer>,
    /// Codecs asked for, first one wanted most.
    pub simulcast_codecs: Vec<AddTrackCodec>,
    /// Set to add a codec to a track that exists.
    pub sid: TrackSid,
    /// LiveKit `Encryption.Type`.
    pub encryption: i32,
    /// Stream name, empty for the source's own.
    pub stream: String,
    /// LiveKit `BackupCodecPolicy`.
    pub backup_codec_policy: i32,
    /// LiveKit `AudioTrackFeature` numbers.
    pub audio_features: Vec<i32>,
}

impl AddTrack {
    /// A track of which nothing else is said.
    pub fn new(cid: String, kind: Kind, source: Source) -> Self {
        Self {
            cid,
            name: String::new(),
            kind,
            source,
            muted: false,
            width: 0,
            height: 0,
            disable_dtx: false,
            stereo: false,
            disable_red: false,
            layers: Vec::new(),
            simulcast_codecs: Vec::new(),
            sid: TrackSid::default(),
            encryption: 0,
            stream: String::new(),
            backup_codec_policy: 0,
            audio_features: Vec::new(),
        }
    }
}

/// One codec of an [`AddTrack`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddTrackCodec {
    /// As the client spells it: `vp8`, `video/vp8`.
    pub codec: String,
    /// The client's id of the track with this codec.
    pub cid: String,
    /// Encodings of this codec; empty for those of the track.
    pub layers: Vec<VideoLayer>,
}

/// What a subscriber wants of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackSettings {
    /// Nothing at all for now.
    pub disabled: bool,
    /// LiveKit `VideoQuality`; used when no size is given.
    pub quality: i32,
    /// Pixels shown; 0 when not said.
    pub width: u32,
    /// Pixels shown; 0 when not said.
    pub height: u32,
    /// Frames per second wanted; 0 when not said.
    pub fps: u32,
    /// Stored; larger is more important.
    pub priority: u32,
}

/// One line of a publisher's allow list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrackPermission {
    /// By session; empty when by identity.
    pub participant_sid: ParticipantSid,
    /// By identity; empty when by session.
    pub identity: Identity,
    /// Every track, those to come included.
    pub all_tracks: bool,
    /// Just these.
    pub tracks: Vec<TrackSid>,
}

/// A request of a participant, already checked for form.
#[derive(Debug)]
pub enum Request {
    /// An offer for the publisher connection; `id` is echoed in the answer.
    Offer {
        /// The client's number for it; 0 when it gives none.
        id: u32,
        /// Parsed.
        sdp: Box<RemoteDescription>,
    },
    /// An answer to the subscriber connection's offer.
    Answer {
        /// The number of our offer, or 0.
        id: u32,
        /// Parsed.
        sdp: Box<RemoteDescription>,
    },
    /// SDP that parses but cannot be used (wrong type, empty, without ICE or fingerprint), or cannot be used here: the
    /// client is told to reconnect fully.
    BadDescription,
    /// A remote candidate: the `candidate:` line.
    Trickle {
        /// Which connection.
        target: Target,
        /// Without `a=`.
        candidate: String,
    },
    /// A track is coming.
    AddTrack(Box<AddTrack>),
    /// The publisher mutes or unmutes; unknown tracks get `NOT_FOUND`.
    Mute {
        /// Which track.
        track: TrackSid,
        /// Muted or not.
        muted: bool,
        /// For the refusal.
        request_id: u32,
    },
    /// Subscribe or unsubscribe.
    Subscribe {
        /// Which tracks.
        tracks: Vec<TrackSid>,
        /// Yes or no.
        subscribe: bool,
    },
    /// Settings of subscribed tracks.
    TrackSettings {
        /// Which tracks.
        tracks: Vec<TrackSid>,
        /// The settings.
        settings: TrackSettings,
    },
    /// A publisher's allow list.
    SubscriptionPermission {
        /// Everybody may.
        all_participants: bool,
        /// Otherwise these.
        permissions: Vec<TrackPermission>,
    },
    /// Name, metadata and attributes of the participant itself; always answered.
    UpdateMetadata {
        /// Echoed in the answer.
        request_id: u32,
        /// Empty leaves it.
        name: String,
        /// Empty leaves it.
        metadata: String,
        /// An empty value deletes the key.
        attributes: BTreeMap<String, String>,
    },
    /// Features of a published audio track.
    UpdateAudioTrack {
        /// Which.
        track: TrackSid,
        /// LiveKit `AudioTrackFeature` numbers.
        features: Vec<i32>,
    },
    /// Size of a published video track.
    UpdateVideoTrack {
        /// Which.
        track: TrackSid,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Signalling round-trip time.
    SignalRtt {
        /// Milliseconds.
        rtt_ms: u32,
    },
    /// The client leaves.
    Leave {
        /// Its reason, already reduced to those LiveKit honours.
        reason: DisconnectReason,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_costs_by_its_sections_and_bytes() {
        let offer = |sections: usize, line: &str| {
            let mut text = "v=0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n".to_owned();
            text.push_str(&format!("a=fingerprint:sha-256 {}00\r\n", "00:".repeat(31)));
            for mid in 0..sections {
                text.push_str(&format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{mid}\r\n{line}"));
            }
            let sdp = Box::new(RemoteDescription::parse(&text).expect("a description"));
            Command::Request { peer: PeerKey(1), request: Request::Offer { id: 1, sdp } }.cost()
        };
        let mute = Request::Mute { track: TrackSid::from("TR_1"), muted: true, request_id: 1 };
        assert_eq!(mute.cost(), 1);
        assert!(offer(500, "") >= 100 * offer(1, ""));
        assert!(offer(10, &format!("a={}\r\n", "x".repeat(3_000))) > offer(10, ""));
    }
}
