//! Keys for tests of neighbouring modules.

use super::slots::Slots;
use super::transports::TransportId;

/// The id of the n-th transport of a fresh table.
pub(crate) fn transport_id(n: usize) -> TransportId {
    let mut slots = Slots::default();
    let mut last = slots.insert(());
    for _ in 0..n {
        last = slots.insert(());
    }
    TransportId(last)
}
