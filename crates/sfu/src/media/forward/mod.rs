//! What a subscriber gets of a track: which layer, and under which numbers.

pub(super) mod rewrite;
pub(super) mod select;
