//! What [`Control`](crate::Control) says to the outside: a closed list of small values.

use fanlight_base::Mono;
use fanlight_events::Event;
use fanlight_sfu::input::Command;

/// Number of a shard of this node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u16);

/// How a shard fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardHealth {
    /// It turns.
    Working,
    /// It does not turn, and may go on later.
    Stuck,
    /// It will not turn any more.
    Ended,
}

/// One output.
#[derive(Debug)]
pub enum Output {
    /// A command for a shard; commands of one shard keep their order.
    ToShard {
        /// Which shard.
        shard: ShardIndex,
        /// The command; boxed to keep this enum small.
        command: Box<Command>,
    },
    /// For telemetry.
    Event(Box<Event>),
    /// The node drains and its last room is gone; said once.
    Drained,
    /// Nothing more now; call `handle_timeout` at this time. Always the last one.
    Timeout(Mono, Why),
}

const _: () = assert!(size_of::<Output>() <= 64);

/// What the next timeout is for; counted by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A room nobody holds any more is due to end.
    RoomEnd,
    /// Nothing is due.
    Idle,
}
