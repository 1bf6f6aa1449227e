//! HTTP and WebSocket: LiveKit's signalling paths, health, the record's API, metrics, and the pages.
//!
//! Whatever can be decided without a socket is decided in `livekit`; the rest of the process is reached through
//! [`backend`] alone.

mod api;
mod app;
pub mod backend;
mod body;
pub mod collector;
mod gate;
mod meet;
mod metrics;
mod page;
mod rtc;
pub mod signals;
mod stream;
mod tally;

pub use api::client_stats::{ClientStats, ClientStatsCounts, CollectorKey};
pub use api::rtcstats::{RtcStatsCounts, RtcStatsSnapshot};
pub use app::{App, ServeError, serve};
pub use gate::{Gate, GateSnapshot, HeldSnapshot};
pub use metrics::{MetricsApp, serve_metrics};
