//! Which layer of a track a subscriber gets: the seam behind which the choice by bandwidth will stand.
//!
//! For now: the highest active layer that is wanted. A change of layer happens only at the first packet of a key frame.

/// Layers of a track as a set, bit n for spatial layer n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::media) struct LayerSet(u8);

impl LayerSet {
    /// The set with `layer` in it; layers above 7 do not exist.
    pub(in crate::media) const fn with(self, layer: u8) -> Self {
        if layer < 8 { Self(self.0 | (1 << layer)) } else { self }
    }

    pub(in crate::media) const fn without(self, layer: u8) -> Self {
        if layer < 8 { Self(self.0 & !(1 << layer)) } else { self }
    }

    pub(in crate::media) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(in crate::media) const fn contains(self, layer: u8) -> bool {
        layer < 8 && self.0 & (1 << layer) != 0
    }

    /// The highest one not above `max`, else the lowest one there is: something beats nothing.
    fn best(self, max: u8) -> Option<u8> {
        let below = if max >= 7 { self.0 } else { self.0 & ((1 << (max + 1)) - 1) };
        match (below, self.0) {
            (_, 0) => None,
            (0, all) => u8::try_from(all.trailing_zeros()).ok(),
            (some, _) => u8::try_from(some.ilog2()).ok(),
        }
    }
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) enum Choice {
    /// It belongs to the layer being forwarded.
    Forward,
    /// Forwarding of its layer begins with it.
    Switch,
    /// It is not for this subscriber.
    Drop(Unwanted),
}

/// Why a packet is not for a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) enum Unwanted {
    /// The subscriber wants nothing now.
    Disabled,
    /// Another layer is being forwarded.
    OtherLayer,
    /// Another layer is being forwarded until a key frame of this one begins.
    NextLayer,
    /// Nothing is forwarded until a key frame begins.
    NoKeyFrame,
}

/// The choice for one subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) struct Select {
    current: u8,
    target: u8,
    max_spatial: u8,
    enabled: bool,
}

/// No layer.
const NONE: u8 = u8::MAX;

impl Select {
    pub(in crate::media) fn new(enabled: bool, max_spatial: u8, active: LayerSet) -> Self {
        let mut select = Self { current: NONE, target: NONE, max_spatial, enabled };
        select.retarget(active);
        select
    }

    /// The subscriber changed its mind; `true` when nothing is forwarded from now on.
    pub(in crate::media) fn set(&mut self, enabled: bool, max_spatial: u8, active: LayerSet) {
        self.enabled = enabled;
        self.max_spatial = max_spatial;
        if !enabled {
            self.current = NONE;
        }
        self.retarget(active);
    }

    /// Other layers are active now.
    pub(in crate::media) fn retarget(&mut self, active: LayerSet) {
        self.target = active.best(self.max_spatial).unwrap_or(NONE);
    }

    /// The stream was interrupted (mute, new SSRC): it begins again with a key frame.
    pub(in crate::media) fn restart(&mut self) {
        self.current = NONE;
    }

    /// The stream of this layer was interrupted.
    pub(in crate::media) fn restart_layer(&mut self, layer: u8) {
        if self.current == layer {
            self.current = NONE;
        }
    }

    /// Decides about a packet; `entry` says that decoding can begin with it.
    #[inline]
    pub(in crate::media) fn choose(&mut self, layer: u8, entry: bool) -> Choice {
        if layer == self.current {
            return Choice::Forward;
        }
        self.choose_other(layer, entry)
    }

    /// The layer being forwarded.
    pub(in crate::media) fn current(&self) -> Option<u8> {
        (self.current != NONE).then_some(self.current)
    }

    /// The layer a key frame is needed of.
    pub(in crate::media) fn wanted(&self) -> Option<u8> {
        (self.enabled && self.target != NONE && self.target != self.current).then_some(self.target)
    }

    fn choose_other(&mut self, layer: u8, entry: bool) -> Choice {
        if !self.enabled {
            return Choice::Drop(Unwanted::Disabled);
        }
        if !self.leads_to_target(layer) {
            return Choice::Drop(Unwanted::OtherLayer);
        }
        if entry {
            self.current = layer;
            return Choice::Switch;
        }
        Choice::Drop(if self.current == NONE { Unwanted::NoKeyFrame } else { Unwanted::NextLayer })
    }

    /// Strictly towards the target; layers between are taken as they come. At the beginning any layer not above what
    /// is wanted will do.
    fn leads_to_target(&self, layer: u8) -> bool {
        if layer == self.target {
            return true;
        }
        match (self.current, self.target) {
            (NONE, _) => layer <= self.max_spatial,
            (_, NONE) => false,
            (current, target) if current < target => current < layer && layer < target,
            (current, target) => target < layer && layer < current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(layers: &[u8]) -> LayerSet {
        layers.iter().fold(LayerSet::default(), |set, &layer| set.with(layer))
    }

    #[test]
    fn the_target_is_the_highest_active_layer_that_is_wanted() {
        assert_eq!(set(&[0, 1, 2]).best(2), Some(2));
        assert_eq!(set(&[0, 1, 2]).best(1), Some(1));
        assert_eq!(set(&[0, 2]).best(1), Some(0));
        assert_eq!(set(&[2]).best(0), Some(2));
        assert_eq!(set(&[]).best(2), None);
        assert_eq!(set(&[0, 7]).best(200), Some(7));
    }

    #[test]
    fn a_layer_change_waits_for_a_key_frame() {
        let mut select = Select::new(true, 2, set(&[0, 1, 2]));
        assert_eq!(select.choose(2, false), Choice::Drop(Unwanted::NoKeyFrame));
        assert_eq!(select.choose(0, true), Choice::Switch);
        assert_eq!(select.choose(2, false), Choice::Drop(Unwanted::NextLayer));
        assert_eq!(select.choose(0, false), Choice::Forward);
        assert_eq!(select.choose(2, true), Choice::Switch);
        assert_eq!(select.choose(0, true), Choice::Drop(Unwanted::OtherLayer));
    }

    #[test]
    fn a_silent_layer_is_left_at_the_next_key_frame_of_a_lower_one_and_taken_again_when_it_is_back() {
        let mut select = Select::new(true, 2, set(&[0, 1, 2]));
        assert_eq!(select.choose(2, true), Choice::Switch);
        select.retarget(set(&[0, 1]));
        assert_eq!(select.wanted(), Some(1));
        assert_eq!(select.choose(0, true), Choice::Drop(Unwanted::OtherLayer));
        assert_eq!(select.choose(1, true), Choice::Switch);
        select.retarget(set(&[0, 1, 2]));
        assert_eq!(select.wanted(), Some(2));
        assert_eq!(select.choose(2, true), Choice::Switch);
        assert_eq!(select.wanted(), None);
    }

    #[test]
    fn a_disabled_subscription_takes_nothing_and_begins_with_a_key_frame_later() {
        let mut select = Select::new(true, 1, set(&[0, 1]));
        assert_eq!(select.choose(1, true), Choice::Switch);
        select.set(false, 1, set(&[0, 1]));
        assert_eq!(select.choose(1, true), Choice::Drop(Unwanted::Disabled));
        select.set(true, 0, set(&[0, 1]));
        assert_eq!(select.choose(0, false), Choice::Drop(Unwanted::NoKeyFrame));
        assert_eq!(select.choose(1, true), Choice::Drop(Unwanted::OtherLayer));
        assert_eq!(select.choose(0, true), Choice::Switch);
    }

    #[test]
    fn layers_between_are_taken_on_the_way_down_as_on_the_way_up() {
        let mut select = Select::new(true, 2, set(&[0, 1, 2]));
        assert_eq!(select.choose(0, true), Choice::Switch);
        assert_eq!(select.choose(1, true), Choice::Switch);
        assert_eq!(select.choose(2, true), Choice::Switch);
        select.set(true, 0, set(&[0, 1, 2]));
        assert_eq!(select.choose(2, false), Choice::Forward);
        assert_eq!(select.choose(1, true), Choice::Switch);
        assert_eq!(select.choose(0, true), Choice::Switch);
    }
}
