//! The table of transports of a room.

use super::slots::{Slot, Slots};
use fanlight_transport::Transport;

/// Names a transport in its [`Transports`]; never used again after [`Transports::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransportId(pub(super) Slot);

/// Transports by id.
#[derive(Debug, Default)]
pub(crate) struct Transports(Slots<Transport>);

impl Transports {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a transport.
    pub(crate) fn insert(&mut self, transport: Transport) -> TransportId {
        TransportId(self.0.insert(transport))
    }

    /// The transport, unless it was removed.
    pub(crate) fn get(&self, id: TransportId) -> Option<&Transport> {
        self.0.get(id.0)
    }

    /// The transport, unless it was removed.
    pub(crate) fn get_mut(&mut self, id: TransportId) -> Option<&mut Transport> {
        self.0.get_mut(id.0)
    }

    /// Takes a transport out; [`super::RoomMedia::remove_transport`] has to be told first.
    pub(crate) fn remove(&mut self, id: TransportId) -> Option<Transport> {
        self.0.remove(id.0)
    }
}
