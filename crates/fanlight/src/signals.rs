//! Which WebSocket a participant's signals go to.

use fanlight_base::PeerKey;
use fanlight_sfu::output::Signal;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Shared by the control thread, which adds and removes, and the shards, which deliver.
#[derive(Debug, Clone, Default)]
pub(crate) struct SignalRouter(Arc<Mutex<HashMap<PeerKey, mpsc::Sender<Signal>>>>);

impl SignalRouter {
    /// Signals of this participant go to `sender` from now on.
    pub(crate) fn insert(&self, peer: PeerKey, sender: mpsc::Sender<Signal>) {
        self.locked().insert(peer, sender);
    }

    /// No more signals for this participant; its connection closes once it has written what is queued.
    pub(crate) fn remove(&self, peer: PeerKey) {
        self.locked().remove(&peer);
    }

    /// Delivers without waiting; a connection whose queue is full is given up, so that its client joins anew.
    pub(crate) fn deliver(&self, peer: PeerKey, signal: Signal) -> bool {
        let mut senders = self.locked();
        let Some(sender) = senders.get(&peer) else { return false };
        if sender.try_send(signal).is_ok() {
            return true;
        }
        senders.remove(&peer);
        false
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<PeerKey, mpsc::Sender<Signal>>> {
        // The map is whole after every operation, whatever happened to the thread that held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_base::TrackSid;

    #[test]
    fn a_connection_that_does_not_read_is_given_up() {
        let router = SignalRouter::default();
        let (sender, mut receiver) = mpsc::channel(1);
        router.insert(PeerKey(1), sender);
        let signal = || Signal::TrackSubscribed(TrackSid::from("TR_1"));
        assert!(router.deliver(PeerKey(1), signal()));
        assert!(!router.deliver(PeerKey(1), signal()));
        assert!(receiver.try_recv().is_ok());
        assert!(receiver.blocking_recv().is_none(), "the sender is gone");
    }
}
