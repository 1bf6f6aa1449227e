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
    /// Data messages each client sends to all others.
    pub messages: u32,
    /// Somebody on the path repeats datagrams to the server, whole, cut, changed and from elsewhere.
    pub attacked: bool,
}

impl Scenario {
    /// Three rooms of five, 5 % loss, 50 ms each way.
    pub const MEETING: Self = Self {
        rooms: 3,
        participants: 5,
        link: Link { delay_ns: 50_000_000, jitter_ns: 2_000_000, loss_ppm: 50_000, capacity_bps: None },
        run_ms: 6_000,
        settle_ms: 2_000,
        messages: 6,
        attacked: false,
    };

    /// Links that nothing gets lost on and that keep the order.
    pub const CALM: Self = Self {
        rooms: 2,
        participants: 3,
        link: Link { delay_ns: 20_000_000, jitter_ns: 0, loss_ppm: 0, capacity_bps: None },
        run_ms: 4_000,
        settle_ms: 1_000,
        messages: 6,
        attacked: false,
    };

    /// Links just wide enough for what everybody sends, on which packets overtake each other by more than a picture.
    pub const NARROW: Self = Self {
        rooms: 2,
        participants: 4,
        link: Link {
            delay_ns: 30_000_000,
            jitter_ns: 40_000_000,
            loss_ppm: 10_000,
            capacity_bps: Some(3_500_000),
        },
        run_ms: 6_000,
        settle_ms: 2_000,
        messages: 6,
        attacked: false,
    };

    /// As calm, but for an attacker.
    pub const ATTACKED: Self = Self { attacked: true, ..Self::CALM };
}
