//! coturn's statistics, as they come in.

mod backoff;
mod health;
mod nodes;
mod redis_subscriber;
mod redis_url;
mod resp_listener;
mod resync;
mod tee;

pub use health::{InputGauge, InputHealth, InputSnapshot, NodeSnapshot};
pub use redis_subscriber::{RedisSettings, RedisSubscriber};
pub use redis_url::{RedisUrl, RedisUrlError};
pub use resp_listener::{RespListener, RespSettings, TeeSettings};
