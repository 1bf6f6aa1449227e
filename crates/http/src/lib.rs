//! HTTP and WebSocket: LiveKit's signalling paths, health, and the page at `/meet`.
//!
//! Whatever can be decided without a socket is decided in `livekit`; the rest of the process is reached through
//! [`backend::Backend`] alone.

mod app;
pub mod backend;
mod meet;
mod rtc;

pub use app::{App, ServeError, serve};
