//! HTTP and WebSocket: LiveKit's signalling paths, health, the record's API, metrics, and the pages.
//!
//! Whatever can be decided without a socket is decided in `livekit`; the rest of the process is reached through
//! [`backend`] alone.

mod api;
mod app;
pub mod backend;
pub mod collector;
mod meet;
mod metrics;
mod page;
mod rtc;

pub use api::client_stats::{ClientStats, ClientStatsCounts, CollectorKey};
pub use api::rtcstats::{RtcStatsCounts, RtcStatsSnapshot};
pub use app::{App, ServeError, serve};
pub use metrics::{MetricsApp, serve_metrics};
