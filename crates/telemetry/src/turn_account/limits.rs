//! Every maximum and every period of the accounting, with its reason.

/// Allocations that are open or still waited for; a kilobyte each, its session included. More are counted as refused.
pub(super) const ALLOCATIONS_MAX: usize = 1_000_000;
/// Names of traffic without an allocation that are remembered.
pub(super) const ORPHANS_MAX: usize = 10_000;
/// TURN servers told apart.
pub(super) const NODES_MAX: usize = 1_024;
/// Relay threads of one server; coturn has at most 128.
pub(super) const THREADS_MAX: usize = 256;
/// Ids of a thread that are remembered to tell a late one from a used one.
pub(super) const IDS_MAX: usize = 1_024;

/// The same opening within this time is a duplicate.
pub(super) const DUPLICATE_OPENING_MS: u64 = 2_000;
/// The same traffic within this time is a duplicate.
pub(super) const DUPLICATE_TRAFFIC_MS: u64 = 20;
/// Messages of several relay threads overtake each other by at most this.
pub(super) const REORDER_MS: u64 = 1_000;
/// Totals follow the end within a millisecond; after this they do not come any more.
pub(super) const TOTALS_MS: u64 = 2_000;
/// A released allocation is deleted within this; with mobility coturn takes 60 s.
pub(super) const RELEASE_MS: u64 = 90_000;
/// So long after its lifetime an allocation is lost: nobody said its end.
pub(super) const OVERDUE_MS: u64 = 30_000;
/// A lost allocation's end is still taken for so long.
pub(super) const LATE_END_MS: u64 = 3_600_000;
/// Traffic without an allocation waits so long for a `deleted` that owns it.
pub(super) const ORPHAN_MS: u64 = 120_000;
/// A server whose connections are all gone comes back within this, or is down.
pub(super) const RECONNECT_MS: u64 = 15_000;
/// An end this close to the lifetime's is an expiry.
pub(super) const EXPIRY_MS: u64 = 3_000;
/// The traffic message that a closing allocation sends comes this soon before its end.
pub(super) const CLOSING_MS: u64 = 1_000;
/// A rate over less time says little.
pub(super) const RATE_MS_MIN: u64 = 500;
/// A session's peak is its busiest so long.
pub(super) const PEAK_WINDOW_MS: u64 = PEAK_STEP_MS * PEAK_STEPS as u64;
/// Payload is added up for it in steps of this.
pub(super) const PEAK_STEP_MS: u64 = 1_000;
/// So many of them.
pub(super) const PEAK_STEPS: usize = 10;

/// Less payload than this, or a lower rate than [`CHECKS_BPS`], is ICE's own checks: the media went directly.
pub(super) const CHECKS_BYTES: u64 = 64_000;
/// In bytes per second.
pub(super) const CHECKS_BPS: u64 = 500;
/// Control messages each way until media can flow: two allocations, a permission, a release.
pub(super) const CONTROL_OPENING: u64 = 4;
/// Permissions and channels are refreshed about so often.
pub(super) const CONTROL_EVERY_MS: u64 = 240_000;
/// Mean size of a control message.
pub(super) const CONTROL_BYTES: u64 = 120;
/// Peer totals of coturn are 32 bits wide.
pub(super) const PEER_TOTAL_BITS: u32 = 32;
/// coturn's ids: relay thread × this + counter.
pub(super) const THREAD_FACTOR: u64 = 1_000_000_000_000_000;
