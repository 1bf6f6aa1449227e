//! What a run is made of.

use crate::network::Link;

/// Rooms full of clients that all publish, for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// Number of rooms.
    pub rooms: u32,
    /// Clients in each.
    pub participants: u32,
    /// How every link behaves.
    pub link: Link,
    /// Virtual time during which media is sent, in milliseconds.
    pub run_ms: u64,
    /// Virtual time afterwards in which losses are made good, in milliseconds.
    pub settle_ms: u64,
}

impl Scenario {
    /// Three rooms of five, 5 % loss, 50 ms each way.
    pub const MEETING: Self = Self {
        rooms: 3,
        participants: 5,
        link: Link { delay_ns: 50_000_000, jitter_ns: 2_000_000, loss_ppm: 50_000, capacity_bps: None },
        run_ms: 6_000,
        settle_ms: 2_000,
    };
}
