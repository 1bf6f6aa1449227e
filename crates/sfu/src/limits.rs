//! Every maximum of the SFU, with its reason.

use std::time::Duration;

/// Participants of one room on one shard. Above this the broadcast of one change to everybody no longer fits a loop
/// turn of a few milliseconds.
pub const PARTICIPANTS_MAX: usize = 3_000;

/// Rooms of one shard: bounds what a holder of a valid key can make us keep.
pub const ROOMS_MAX: usize = 10_000;

/// Tracks one participant publishes at a time. LiveKit's clients use four; load testers some dozens.
pub const PUBLISHED_TRACKS_MAX: usize = 100;

/// Tracks announced and not yet flowing (livekit.md §1.8).
pub const PENDING_TRACKS_MAX: usize = 20;

/// Announcements waiting for the end of an earlier track of the same client id (livekit.md §1.8).
pub const QUEUED_PER_CID_MAX: usize = 3;

/// Tracks one participant asks for, present or not.
pub const SUBSCRIPTIONS_MAX: usize = 2_000;

/// Lines of one publisher's allow list: one per participant of the largest room.
pub const PERMISSIONS_MAX: usize = PARTICIPANTS_MAX;

/// Bytes of a client's track id, a track's name or its stream name.
pub const TRACK_TEXT_BYTES_MAX: usize = 256;

/// Encodings of one codec; WebRTC simulcast has three.
pub const LAYERS_MAX: usize = 8;

/// Codecs announced for one track; clients send a first one and a backup.
pub const TRACK_CODECS_MAX: usize = 8;

/// Audio features of one track; LiveKit knows seven.
pub const AUDIO_FEATURES_MAX: usize = 32;

/// Bytes of a participant's metadata (LiveKit's `limit.max_metadata_size`).
pub const METADATA_BYTES_MAX: usize = 512 << 10;

/// Bytes of a participant's attributes, keys and values (LiveKit's `limit.max_attributes_size`).
pub const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

/// Bytes of a participant's name (LiveKit's `limit.max_participant_name_length`).
pub const NAME_BYTES_MAX: usize = 256;

/// Identities or sids one data packet may be addressed to; more is a broadcast in disguise.
pub const DESTINATIONS_MAX: usize = 256;

/// Bytes of a data packet (RFC 8841 §6.1 default, as LiveKit announces it).
pub const DATA_BYTES_MAX: usize = 65_535;

/// Batches of metrics a participant sends within [`METRICS_WINDOW`]. SDKs send one in some seconds.
pub const METRICS_PER_WINDOW_MAX: u32 = 100;

/// Bytes of these batches.
pub const METRICS_BYTES_PER_WINDOW_MAX: usize = 1 << 20;

/// Window of the two limits above.
pub const METRICS_WINDOW: Duration = Duration::from_secs(10);

/// Times of two batches of one participant differ by so many nanoseconds, so that parts of a batch can have times of their own.
pub const METRICS_APART_NS: u64 = 100_000;

/// Remote candidates that wait for the transport they are for. Browsers with many interfaces send about 30.
pub const WAITING_CANDIDATES_MAX: usize = 64;

/// A participant that is not active by then is sent away (livekit.md §2.1).
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a participant whose signalling broke off stays. Resuming a session is not offered, so a client comes back
/// with a new join, which ends this session at once; the grace only spares the others a flicker when it does.
pub const SIGNAL_GRACE: Duration = Duration::from_secs(5);

/// An offer of ours that is not answered by then ends the session with a full reconnect (livekit.md §2.1).
pub const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(15);

/// A subscription to a track that has not come by then has failed (livekit.md §2.8).
pub const SUBSCRIPTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Handshake datagrams of one turn: each costs up to 0.4 ms, and media shall wait 3 ms at most.
pub const HANDSHAKES_PER_TURN: usize = 8;

/// Handshake datagrams that wait for later turns: a thousand clients at once, each with a ClientHello in two parts. What
/// is dropped beyond that is sent again by DTLS.
pub const HANDSHAKES_WAITING_MAX: usize = 2048;

/// Longest handshake datagram that waits; they fit an Ethernet frame.
pub const HANDSHAKE_DATAGRAM_BYTES_MAX: usize = 2048;

/// Changes of participants that do not publish are told in batches (livekit.md §1.9).
pub const UPDATE_INTERVAL: Duration = Duration::from_secs(3);

/// A participant's changes are told at most this often: name, metadata, attributes, mute, layers, SSRCs. The newest state is
/// told then.
pub const CHANGES_INTERVAL: Duration = Duration::from_millis(100);

/// Tracks that begin or end are told at once, before their media, as long as a participant has no more than so many of
/// them within [`CHANGES_INTERVAL`] each: a client publishes camera, microphone and two tracks of its screen at once.
pub const TRACKS_AT_ONCE_MAX: u32 = 8;

/// Tracks that others get at once when they begin; one more each [`CHANGES_INTERVAL`]. Load testers publish all they may at
/// the same time.
pub const TRACKS_BEGIN_MAX: u32 = 100;

/// The room's counts are told at most this often (livekit.md §1.9).
pub const COUNTS_INTERVAL: Duration = Duration::from_secs(5);

/// A new token for reconnecting (livekit.md §1.3).
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Counters of every track go to the record this often; of a room with more than some 32,000 tracks as often as
/// [`SAMPLES_PER_STEP`] in each [`SAMPLE_STEP`] allow.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Of so many tracks at a time: each costs 3 µs, and media waits for them.
pub const SAMPLES_PER_STEP: usize = 64;

/// How soon the next ones of a room follow.
pub const SAMPLE_STEP: Duration = Duration::from_millis(10);

/// How soon a room is asked again that found no place in a turn: sooner than the others have their next step.
pub const SAMPLE_AGAIN: Duration = Duration::from_millis(1);

/// Refusals of one kind towards one participant are told once in this time, with their number.
pub const REFUSALS_INTERVAL: Duration = Duration::from_secs(5);

/// A 5-tuple goes over to whoever proves that it is there when nothing authentic has come from its owner for so long.
/// Media comes every 20 ms, so that nobody is taken over in the middle of a call.
pub const TUPLE_SILENCE: Duration = Duration::from_secs(1);

/// Rounds of events within one drain of a room. Each round handles what the one before caused; two suffice, and a
/// loop that does not end would stop the shard.
pub const DRAIN_ROUNDS_MAX: usize = 64;
