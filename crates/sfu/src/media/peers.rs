//! The transports as the media plane sees them, found by id without hashing.

use super::peer::Peer;
use super::transports::TransportId;

/// One place for each place in [`super::Transports`].
#[derive(Debug, Default)]
pub(super) struct Peers(Vec<Option<Box<Peer>>>);

impl Peers {
    /// The peer of this transport, made when it is new; one of an earlier transport at the same place is forgotten.
    pub(super) fn entry(&mut self, id: TransportId) -> &mut Peer {
        let index = id.0.index();
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        let place = &mut self.0[index];
        if place.as_ref().is_some_and(|peer| peer.id != id) {
            *place = None;
        }
        place.get_or_insert_with(|| Box::new(Peer::new(id)))
    }

    pub(super) fn get(&self, id: TransportId) -> Option<&Peer> {
        self.0.get(id.0.index())?.as_deref().filter(|peer| peer.id == id)
    }

    pub(super) fn get_mut(&mut self, id: TransportId) -> Option<&mut Peer> {
        self.0.get_mut(id.0.index())?.as_deref_mut().filter(|peer| peer.id == id)
    }

    pub(super) fn remove(&mut self, id: TransportId) {
        if self.get(id).is_some()
            && let Some(place) = self.0.get_mut(id.0.index())
        {
            *place = None;
        }
    }
}
