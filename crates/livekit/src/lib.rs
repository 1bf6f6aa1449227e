//! LiveKit's protocol as pure functions: tokens, admission, signalling sessions, messages and data packets.
//!
//! Only this crate names LiveKit's protobufs and tokens. A shell goes through it in this order: [`http_rules::front`],
//! [`admission::step`], `control`, then one [`session::Session`] for each WebSocket.

pub mod admission;
pub mod client;
pub mod convert;
pub mod data;
#[doc(hidden)]
pub mod fuzzing;
pub mod head;
pub mod http_rules;
pub mod join_request;
pub mod pace;
pub mod server;
pub mod session;
pub mod token;
