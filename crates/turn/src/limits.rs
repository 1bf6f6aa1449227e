//! Every maximum of the TURN server, with its reason.

use std::time::Duration;

/// Lifetime of an allocation whose client asked for none or for less (RFC 8656 §7.2).
pub const LIFETIME_DEFAULT_S: u32 = 600;
/// Longest lifetime granted (RFC 8656 §7.2 recommends one hour; coturn's default).
pub const LIFETIME_MAX_S: u32 = 3600;
/// How long a permission lasts (RFC 8656 §9).
pub const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// How long a channel binding lasts (RFC 8656 §12).
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// How old a nonce may be: as coturn's `stale-nonce`. A request overheard on the way can be played again that long.
pub const NONCE_LIFETIME_S: u64 = 600;
/// How long the shell may take to open a relay socket before the client is told that there is none.
pub const PENDING_MAX: Duration = Duration::from_secs(5);
/// How often an allocation with traffic says how much it was.
pub const TRAFFIC_REPORT: Duration = Duration::from_secs(10);
/// How often one user's hit quota becomes an event; every refusal is counted.
pub const QUOTA_EVENT: Duration = Duration::from_secs(60);

/// Allocations of one server, whatever the configuration says: about 2 kB each.
pub const ALLOCATIONS_MAX: u32 = 100_000;
/// Users remembered, with and without allocations. Only who has authenticated gets an entry.
pub const USERS_MAX: usize = 200_000;
/// Permissions of one allocation: ICE asks for one a remote address, browsers for a few dozen at most.
pub const PERMISSIONS_MAX: usize = 64;
/// Channels of one allocation; a browser binds one a remote candidate.
pub const CHANNELS_MAX: usize = 64;
/// Peer addresses in one CreatePermission request.
pub const PEERS_PER_REQUEST_MAX: usize = 32;
/// Attributes in one message; TURN's longest request has a dozen and its peer addresses.
pub const ATTRIBUTES_MAX: usize = 48;
/// Ports tried for one relay before the client is told that there is none.
pub const RELAY_TRIES_MAX: u8 = 10;
/// Outputs that may wait before requests are left unanswered: clients ask again, and the shell drains every turn.
pub const OUTPUTS_MAX: usize = 16_384;
/// Room above [`OUTPUTS_MAX`] for outputs of what is under way: retries and openings, two an allocation.
pub const OUTPUTS_RESERVE: usize = 4 * ALLOCATIONS_MAX as usize;
/// Timers handled in one call; the rest follow at once, in the next turn.
pub const TIMERS_PER_TURN: usize = 256;

/// User names: RFC 8489 §14.3 allows fewer than 509 bytes.
pub const USERNAME_BYTES_MAX: usize = 508;
/// Realms: so that a challenge fits in three times the shortest Allocate request (28 bytes: 20 + 8 + 36 + 20 = 84).
pub const REALM_BYTES_MAX: usize = 32;
/// No response is longer than the request times this, so that nobody is flooded through us.
pub const AMPLIFICATION_MAX: usize = 3;
/// Payload of one relayed packet: the largest UDP datagram that leaves room for a Data indication around it.
pub const PAYLOAD_BYTES_MAX: usize = 65_400;
/// Longest frame of a stream: header, 65,532 bytes and nothing more (ChannelData: 4 + 65,535 + padding is shorter).
pub const FRAME_BYTES_MAX: usize = 65_552;

/// Unauthenticated error responses a second to one source prefix (IPv4 /24, IPv6 /56): a spoofed prefix gets at most
/// 50 × 92 bytes a second, and a network that joins at once still gets its challenges.
pub const ERRORS_PER_S: u64 = 50;
/// Unauthenticated error responses to one source prefix at once.
pub const ERRORS_BURST: u64 = 200;
/// Counters of source prefixes; fixed, so that a flood of sources takes no memory. Two prefixes may share one.
pub const ERROR_BUCKETS: usize = 4096;
/// Least burst that a bandwidth limit lets through: one key frame of a second's worth may be shorter than its packets.
pub const BURST_BYTES_MIN: u64 = 65_536;
