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

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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

/// Counts a turn. Nobody but the thread itself writes there, so that it need not be one operation, which costs ten times more.
fn turned(turns: &AtomicU64) {
    turns.store(turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// A thread that is stuck keeps the process from ending so long; the last words of TURN take half of it at most.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// Waits for a thread that is asked to end, again and again; `false` when it had panicked or is stuck.
fn finish(thread: JoinHandle<()>, mut ask: impl FnMut()) -> bool {
    let until = Instant::now() + STOP_WITHIN;
    loop {
        ask();
        if thread.is_finished() {
            return thread.join().is_ok();
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
