//! Every telemetry event as a type.
//!
//! Two lanes: a **fact** says that something happened and is never dropped silently; a **sample** carries cumulative
//! counters, so that a lost one costs only staleness. [`catalog`] describes all of them and generates
//! `docs/events.md`; a golden test keeps name, fields and units from changing unnoticed.

mod catalog;
mod counters;
mod fact;
mod sample;
pub mod turn;

pub use catalog::{EventDoc, FieldDoc, Lane, catalog, markdown};
pub use counters::{LayerCounters, TrackCounters};
pub use fact::{
    ClientFacts, Direction, Fact, FactBody, Kind, ParticipantActive, ParticipantJoined, ParticipantLeft,
    QueueRefused, Refused, RoomEnded, RoomStarted, ServerThread, TrackChanged, TrackMuted,
    TrackPublishRequested, TrackPublished, TrackSubscribed, TrackUnmuted, TrackUnpublished,
    TrackUnsubscribed, TransportSelected, TurnQuotaHit, TurnSessionEnded,
};
pub use sample::{Sample, SampleBody, TrackSample};

use fanlight_base::Now;

/// What travels from a core to telemetry.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Something happened.
    Fact(Fact),
    /// Counters as they stand.
    Sample(Sample),
    /// What a TURN server said, and when it was heard; the pipeline makes allocations and sessions of it.
    Turn(Now, turn::TurnInput),
}
