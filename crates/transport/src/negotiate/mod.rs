//! Offer and answer (RFC 8829) for one peer connection: which m-line carries what, in both of LiveKit's modes.
//!
//! [`Answerer`] serves connections on which the client offers: the publisher connection of signalling v0 and the only
//! one of v1, where the client's receiving m-lines are slots to which subscriptions are bound. [`Offerer`] serves the
//! subscriber connection of v0. What they write is what LiveKit 1.13.5 was recorded to write, but for the differences
//! that `tests/golden/mod.rs` lists. Nothing here knows ICE or DTLS: credentials, fingerprint and candidates come
//! in as [`LocalParameters`] and go out as [`RemoteTransport`]. What a client wrote comes in as [`RemoteDescription`], and what it is to
//! read goes out as [`LocalDescription`].

mod answer_section;
mod answerer;
mod codec;
mod error;
mod extension;
#[doc(hidden)]
pub mod fuzzing;
mod offerer;
mod opus;
mod parameters;
mod remote;
mod section;
mod slots;
mod write;

pub use answerer::{Answer, Answerer, AnswererConfig, Mode, OfferedTrack, PublishDecision};
pub use codec::{Codec, EnabledCodecs};
pub use error::NegotiateError;
pub use offerer::{Answered, Offerer, OffererConfig};
pub use parameters::{DataSection, LocalParameters, Origin, RemoteTransport};
pub use remote::{RemoteDescription, RemoteDescriptionError};
pub use section::{NegotiatedCodec, NegotiatedSection, PublishedSection, SendParameters, TrackBinding};
pub use slots::{OFFERED_SECTIONS_MAX, SectionsRequirement};
pub use write::LocalDescription;

/// Largest SCTP message we take, as LiveKit announces it (recorded: `max-message-size:65535`).
pub const MAX_MESSAGE_SIZE_BYTES: u32 = 65_535;
/// SCTP port of every data channel section (RFC 8841 leaves it free; everybody says 5000).
pub const SCTP_PORT: u16 = 5_000;
