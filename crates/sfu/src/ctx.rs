//! What a room's code has at hand during one call.

use crate::config::SfuConfig;
use crate::demux::Demux;
use crate::output::Output;
use crate::sfu::SfuCounters;
use fanlight_base::{Mono, Now, ParticipantSid, RoomSid, TrackSid};
use fanlight_events::{Event, Fact, FactBody, Sample, SampleBody};
use std::collections::VecDeque;

/// Time, configuration, and where outputs go.
pub(crate) struct Ctx<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a SfuConfig,
    pub(crate) demux: &'a mut Demux,
    pub(crate) out: &'a mut VecDeque<Output>,
    pub(crate) counters: &'a mut SfuCounters,
    /// Samples that this turn still takes, of all rooms.
    pub(crate) samples_left: &'a mut usize,
}

/// Where a fact belongs.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) room: &'a RoomSid,
    pub(crate) participant: Option<&'a ParticipantSid>,
    pub(crate) track: Option<&'a TrackSid>,
}

impl Ctx<'_> {
    pub(crate) fn mono(&self) -> Mono {
        self.now.mono()
    }

    pub(crate) fn fact(&mut self, place: Place<'_>, body: impl Into<FactBody>) {
        let fact = Fact {
            unix_ms: self.now.unix_ms(),
            room: place.room.clone(),
            participant: place.participant.cloned().unwrap_or_default(),
            track: place.track.cloned().unwrap_or_default(),
            body: body.into(),
        };
        self.out.push_back(Output::Event(Box::new(Event::Fact(fact))));
    }

    pub(crate) fn sample(&mut self, room: &RoomSid, participant: &ParticipantSid, body: SampleBody) {
        let sample = Sample {
            unix_ms: self.now.unix_ms(),
            room: room.clone(),
            participant: participant.clone(),
            body,
        };
        self.out.push_back(Output::Event(Box::new(Event::Sample(sample))));
    }
}
