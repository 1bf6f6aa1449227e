//! coturn's statistics, as they come in.

mod nodes;
mod resp_listener;

pub use resp_listener::{RespCounters, RespListener, RespSettings};
