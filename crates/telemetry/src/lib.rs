//! From events to a record: folds facts and samples into rows, decides when a batch is written, and tells rooms as
//! reports.
//!
//! [`Pipeline`] follows the contract of every core: mutate it with `handle_*`, then drain [`Pipeline::poll_output`] to
//! [`Output::Timeout`]. It knows no database: a shell writes each [`Batch`] and says how that went.
//!
//! [`Report`] is what `fanlight report` prints: a shell fills it from its database, the shape and the text are here.

mod calendar;
pub mod collector;
pub mod decode;
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod pipeline;
mod refusals;
pub mod report;
mod rows;
mod sessions;
mod turn;
pub mod turn_account;
pub mod turn_query;
mod turn_status;
mod window;

pub use limits::Limits;
pub use pipeline::{Output, Pipeline, Resume, Settings, Why, Written};
pub use refusals::{
    QUEUE_SESSIONS, QUEUE_STORE_FACTS, QUEUE_STORE_LOST, QUEUE_STORE_SAMPLES, QUEUE_STORE_TURN,
};
pub use report::Report;
pub use rows::{
    Batch, CountersRow, ParticipantRow, RoomRow, TimelineRow, TrackRow, direction_name, kind_name,
};
pub use turn_status::{Traffic, TurnStatus};
pub use window::{Window, advance};
