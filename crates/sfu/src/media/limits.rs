//! Every maximum and every period of a room's media, with its reason.

use std::time::Duration;

/// Payload bytes a room keeps for retransmission at most: two thirds of a second of a hundred 2 Mbit/s streams. Older
/// payloads are overwritten; what asks for them then is not answered.
pub(super) const SLAB_BYTES_MAX: usize = 16 << 20;
/// And to begin with: a second of one 1 Mbit/s stream.
pub(super) const SLAB_BYTES_MIN: usize = 128 << 10;
/// Payloads are kept this long as far as [`SLAB_BYTES_MAX`] lets them: NACKs come within a second.
pub(super) const SLAB_KEEP: Duration = Duration::from_secs(1);

/// SSRCs of one publisher transport. LiveKit's clients use two for each encoding; this is 40 cameras of three layers.
pub(super) const SSRCS_MAX: usize = 256;

/// Clock rate in Hz a codec can have; 192 kHz is the highest in use.
pub(super) const CLOCK_RATE_MAX: u32 = 1_000_000;

/// Changes of codec a publisher can have told of one track.
pub(super) const CODEC_CHANGES_MAX: u32 = 64;

/// Spatial layers of a track (LiveKit: q, h, f).
pub(super) const LAYERS_MAX: usize = 3;

/// Packets remembered for retransmission to one video subscriber (LiveKit's bucket).
pub(super) const HISTORY_PACKETS: usize = 512;

/// Packets of a layer held for those who wait for its key frame: half a second of 2 Mbit/s, in which a lost packet comes
/// again, and the largest key frames.
pub(super) const AWAITED_PACKETS_MAX: usize = 256;

/// Sequence numbers of one NACK that are looked at; a NACK item names 17, and a datagram holds about 300 items.
pub(super) const NACKS_PER_PACKET_MAX: usize = 1024;

/// A layer is silent after this, provided that other layers went on ([`OTHER_FRAMES_MIN`]).
pub(super) const LAYER_SILENCE: Duration = Duration::from_millis(500);

/// Frames that other layers have to begin before silence of one counts: at one frame per second all layers pause
/// together, and up to two layers run ahead of the third by a packet.
pub(super) const OTHER_FRAMES_MIN: u32 = 3;

/// How often the activity of layers is looked at.
pub(super) const LAYER_PERIOD: Duration = Duration::from_millis(100);

/// Least time between key frame requests for the lowest layer (LiveKit's throttle).
pub(super) const KEY_FRAME_LOW: Duration = Duration::from_millis(500);
/// The same for the others.
pub(super) const KEY_FRAME_HIGH: Duration = Duration::from_secs(1);

/// How often receivers' wish for a key frame is looked at again while they wait for one.
pub(super) const KEY_FRAME_RETRY: Duration = Duration::from_millis(500);

/// Receiver reports to publishers (LiveKit).
pub(super) const RECEIVER_REPORT_PERIOD: Duration = Duration::from_secs(1);

/// Sender reports to subscribers (LiveKit).
pub(super) const SENDER_REPORT_PERIOD: Duration = Duration::from_secs(3);
/// The first ones come sooner: lips move with the voice only after them.
pub(super) const SENDER_REPORT_PERIOD_EARLY: Duration = Duration::from_secs(1);
/// How many are early.
pub(super) const SENDER_REPORTS_EARLY: u32 = 5;

/// Round-trip time to a subscriber that spaces retransmissions until one is measured.
pub(super) const ROUND_TRIP_DEFAULT: Duration = Duration::from_millis(50);

/// RTCP packets are kept below this, as all packets are, so that they pass every path.
pub(super) const RTCP_BYTES_MAX: usize = 1100;

/// Events that wait to be polled; a room's command makes a few, and they are polled in the same turn.
pub(super) const EVENTS_MAX: usize = 4096;

/// Bytes of passed-on header extensions of one packet: a dependency descriptor with its template structure
/// (at most 255) and the short ones.
pub(super) const PASSED_BYTES_MAX: usize = 320;
