//! Subscriptions of the single peer connection: which of the client's receiving m-lines carries which track.

use super::NegotiateError;
use super::section::TrackBinding;
use crate::sdp::{MediaKind, SECTIONS_MAX};
use std::collections::VecDeque;

/// Most m-lines of a client's offer beside those it was asked to add: what it publishes, ended sections included, and what
/// it adds by itself. A client publishes at most 100 tracks; SDKs add six receiving ones at the start.
pub const OFFERED_SECTIONS_MAX: usize = 150;

/// Receiving m-lines the client has to add, for LiveKit's `media_sections_requirement`; 0 and 0 ask for a mere offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SectionsRequirement {
    /// For audio.
    pub audios: u32,
    /// For video.
    pub videos: u32,
}

/// The sending half of one m-line.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    /// The client receives here, by its last offer.
    pub(super) receives: bool,
    /// The track.
    pub(super) binding: Option<TrackBinding>,
    /// The binding stands in an answer already.
    pub(super) announced: bool,
    /// A track was announced here once: from then on an empty slot is `inactive`.
    pub(super) used: bool,
    /// Freed, and no answer has said so yet. Browsers fire `track` only when a section comes back from inactive, so it
    /// is not reused before.
    pub(super) draining: bool,
}

impl Slot {
    fn is_free(&self, reuse: bool) -> bool {
        self.receives && self.binding.is_none() && !self.draining && (reuse || !self.used)
    }

    fn is_about_to_be_free(&self, reuse: bool) -> bool {
        self.receives && self.binding.is_none() && self.draining && reuse
    }
}

/// Bindings that have no slot yet, and what the client was asked for.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    audios: VecDeque<TrackBinding>,
    videos: VecDeque<TrackBinding>,
    /// Asked for and not there yet.
    asked: SectionsRequirement,
    /// Asked for since the connection was made.
    asked_ever: usize,
    /// Something changed that only an answer can tell.
    dirty: bool,
    /// The client was asked for an offer that has not come.
    offer_asked: bool,
}

/// A slot with what it belongs to.
pub(super) type Place<'a> = (MediaKind, &'a mut Slot);

impl Waiting {
    /// Binds to the first free slot; otherwise the binding waits.
    pub(super) fn bind<'a>(
        &mut self,
        mut slots: impl Iterator<Item = Place<'a>>,
        binding: TrackBinding,
        reuse: bool,
    ) -> Result<Option<usize>, NegotiateError> {
        let kind = binding.kind;
        let free = slots.by_ref().enumerate().find(|(_, (of, slot))| *of == kind && slot.is_free(reuse));
        if let Some((index, (_, slot))) = free {
            slot.binding = Some(binding);
            slot.announced = false;
            self.dirty = true;
            return Ok(Some(index));
        }
        if self.audios.len().saturating_add(self.videos.len()) >= SECTIONS_MAX {
            return Err(NegotiateError::TooManySections);
        }
        if let Some(queue) = self.queue(kind) {
            queue.push_back(binding);
        }
        Ok(None)
    }

    /// Whether a track waits.
    pub(super) fn contains(&self, track_id: &str) -> bool {
        self.audios.iter().chain(&self.videos).any(|binding| binding.track_id == track_id)
    }

    /// How many m-lines the client was asked for since the connection was made.
    pub(super) fn asked_for(&self) -> usize {
        self.asked_ever
    }

    /// Frees the slot of a track.
    pub(super) fn free(&mut self, slot: &mut Slot) {
        slot.binding = None;
        slot.draining = std::mem::take(&mut slot.announced);
        self.dirty = true;
    }

    /// Forgets a waiting track.
    pub(super) fn forget(&mut self, track_id: &str) {
        self.audios.retain(|binding| binding.track_id != track_id);
        self.videos.retain(|binding| binding.track_id != track_id);
    }

    /// A section with this binding is gone: it waits again, before all others.
    pub(super) fn displaced(&mut self, binding: TrackBinding) {
        if let Some(queue) = self.queue(binding.kind) {
            queue.push_front(binding);
        }
    }

    /// Gives free slots to those who wait longest.
    pub(super) fn assign<'a>(&mut self, slots: impl Iterator<Item = Place<'a>>, reuse: bool) {
        for (kind, slot) in slots.filter(|(_, slot)| slot.is_free(reuse)) {
            if let Some(next) = self.queue(kind).and_then(VecDeque::pop_front) {
                slot.binding = Some(next);
                slot.announced = false;
            }
        }
    }

    /// An answer has been written: what it says is known to the client.
    pub(super) fn answered<'a>(
        &mut self,
        slots: impl Iterator<Item = Place<'a>>,
        added: SectionsRequirement,
        reuse: bool,
    ) {
        self.asked.audios = self.asked.audios.saturating_sub(added.audios);
        self.asked.videos = self.asked.videos.saturating_sub(added.videos);
        self.offer_asked = false;
        self.dirty = false;
        for (kind, slot) in slots {
            slot.draining = false;
            slot.announced = slot.binding.is_some();
            slot.used |= slot.announced;
            self.dirty |= slot.is_free(reuse) && self.queue(kind).is_some_and(|queue| !queue.is_empty());
        }
    }

    /// What to ask the client for, if anything; each need is asked for once.
    pub(super) fn requirement<'a>(
        &mut self,
        slots: impl Iterator<Item = (MediaKind, &'a Slot)>,
        reuse: bool,
    ) -> Option<SectionsRequirement> {
        let mut need = self.unmatched();
        for (kind, _) in slots.filter(|(_, slot)| slot.is_free(reuse) || slot.is_about_to_be_free(reuse)) {
            let count = if kind == MediaKind::Audio { &mut need.audios } else { &mut need.videos };
            *count = count.saturating_sub(1);
        }
        let delta = SectionsRequirement {
            audios: need.audios.saturating_sub(self.asked.audios),
            videos: need.videos.saturating_sub(self.asked.videos),
        };
        let more = delta != SectionsRequirement::default();
        if !more && (!self.dirty || self.offer_asked) {
            return None;
        }
        self.asked.audios = self.asked.audios.saturating_add(delta.audios);
        self.asked.videos = self.asked.videos.saturating_add(delta.videos);
        self.offer_asked = true;
        let added = usize::try_from(delta.audios.saturating_add(delta.videos)).unwrap_or(usize::MAX);
        self.asked_ever = self.asked_ever.saturating_add(added);
        Some(delta)
    }

    /// How many bindings of each kind wait.
    pub(super) fn unmatched(&self) -> SectionsRequirement {
        let count = |waiting: &VecDeque<_>| u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        SectionsRequirement { audios: count(&self.audios), videos: count(&self.videos) }
    }

    fn queue(&mut self, kind: MediaKind) -> Option<&mut VecDeque<TrackBinding>> {
        match kind {
            MediaKind::Audio => Some(&mut self.audios),
            MediaKind::Video => Some(&mut self.videos),
            MediaKind::Application | MediaKind::Other => None,
        }
    }
}
