//! Subscriptions of the single peer connection: which of the client's receiving m-lines carries which track.

use super::NegotiateError;
use super::section::TrackBinding;
use crate::sdp::{MediaKind, SECTIONS_MAX};

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
    bindings: Vec<TrackBinding>,
    asked: SectionsRequirement,
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
        if self.bindings.len() >= SECTIONS_MAX {
            return Err(NegotiateError::TooManySections);
        }
        self.bindings.push(binding);
        Ok(None)
    }

    /// Whether a track waits.
    pub(super) fn contains(&self, track_id: &str) -> bool {
        self.bindings.iter().any(|binding| binding.track_id == track_id)
    }

    /// Frees the slot of a track.
    pub(super) fn free(&mut self, slot: &mut Slot) {
        slot.binding = None;
        slot.draining = std::mem::take(&mut slot.announced);
        self.dirty = true;
    }

    /// Forgets a waiting track.
    pub(super) fn forget(&mut self, track_id: &str) {
        self.bindings.retain(|binding| binding.track_id != track_id);
    }

    /// A section with this binding is gone: it waits again, before all others.
    pub(super) fn displaced(&mut self, binding: TrackBinding) {
        self.bindings.insert(0, binding);
    }

    /// Gives free slots to those who wait longest.
    pub(super) fn assign<'a>(&mut self, slots: impl Iterator<Item = Place<'a>>, reuse: bool) {
        for (kind, slot) in slots.filter(|(_, slot)| slot.is_free(reuse)) {
            let next = self.bindings.iter().position(|binding| binding.kind == kind);
            if let Some(next) = next {
                slot.binding = Some(self.bindings.remove(next));
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
            self.dirty |= slot.is_free(reuse) && self.bindings.iter().any(|binding| binding.kind == kind);
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
        Some(delta)
    }

    /// How many bindings of each kind wait.
    pub(super) fn unmatched(&self) -> SectionsRequirement {
        let count = |kind| {
            let waiting = self.bindings.iter().filter(|binding| binding.kind == kind).count();
            u32::try_from(waiting).unwrap_or(u32::MAX)
        };
        SectionsRequirement { audios: count(MediaKind::Audio), videos: count(MediaKind::Video) }
    }
}
