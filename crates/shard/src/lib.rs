//! One media thread: sockets around one [`Sfu`](fanlight_sfu::Sfu); and the TURN thread, around one
//! [`TurnServer`](fanlight_turn::TurnServer).
//!
//! The thread knows no protocol. Each turn it takes one [`Now`](fanlight_base::Now), feeds commands and datagrams to
//! the core, drains it once and sends what came out. It never waits on anyone: a full sink gives the value back.

mod acceptor;
mod backlog;
mod clock;
mod counters;
mod handover;
mod tcp;
mod turn;
mod udp;
mod worker;

use std::time::Duration;

pub use acceptor::{Acceptor, AcceptorError};
pub use clock::Clock;
pub use counters::{
    AcceptorCounters, Counters, Load, ShardCounters, ShardLoad, SharedAcceptorCounters, SharedTurnCounters,
    TurnCounters,
};
pub use turn::{ShardOf, TurnError, TurnGate, TurnListen, TurnSockets, TurnThread};
pub use udp::{Endpoint, UdpError, bind as bind_udp};
pub use worker::{
    Control, Message, MetricsSink, Requested, Shard, ShardError, ShardHandle, SignalSink, Sinks,
};

/// A thread that has nothing to do turns this often, so that it can be seen to live.
const TURN_EVERY: Duration = Duration::from_millis(500);
