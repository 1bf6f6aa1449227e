//! Which shard a room lives on, who is in it, and when it ends.
//!
//! [`Control`] is the one owner of the room directory of this node. Signalling asks it to admit participants and hands it
//! their requests; shards tell it who left and which rooms are gone. It answers with commands for shards. The unit of
//! placement is a room; a directory shared by several nodes would stand behind the same functions.

mod config;
mod control;
mod directory;
mod output;

pub use config::{ControlConfig, Limits, PLAYABLE_CODECS, RoomDefaults, RoomOptions};
pub use control::{Control, JoinError, JoinRequest};
pub use directory::{Counts, RoomView};
pub use output::{Output, ShardHealth, ShardIndex, Why};
