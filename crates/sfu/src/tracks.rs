//! Which track a sid means: the registry of a room.

use fanlight_base::{PeerKey, TrackSid};
use std::collections::BTreeMap;

/// Published tracks of a room by sid.
///
/// One sid may be listed twice while a track moves (a session that is found again while its old copy closes). Then the
/// earliest entry wins until it is gone, so that subscribers are never switched back and forth.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    entries: BTreeMap<TrackSid, Vec<PeerKey>>,
}

/// What removing an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// There was no such entry.
    Nothing,
    /// A younger entry is gone; the sid means what it meant.
    Shadowed,
    /// The sid means nothing now.
    Last,
    /// The sid means this publisher's track now.
    HandedTo(PeerKey),
}

impl Tracks {
    /// Lists a track; a publisher lists a sid once. Whether the sid means this track now.
    pub(crate) fn add(&mut self, sid: &TrackSid, publisher: PeerKey) -> bool {
        let entries = self.entries.entry(sid.clone()).or_default();
        if !entries.contains(&publisher) {
            entries.push(publisher);
        }
        entries.first() == Some(&publisher)
    }

    /// Takes a track off the list.
    pub(crate) fn remove(&mut self, sid: &TrackSid, publisher: PeerKey) -> Removed {
        let Some(entries) = self.entries.get_mut(sid) else { return Removed::Nothing };
        let Some(at) = entries.iter().position(|entry| *entry == publisher) else { return Removed::Nothing };
        entries.remove(at);
        match (at, entries.first()) {
            (_, None) => {
                self.entries.remove(sid);
                Removed::Last
            }
            (0, Some(next)) => Removed::HandedTo(*next),
            _ => Removed::Shadowed,
        }
    }

    /// Whose track a sid means.
    pub(crate) fn publisher(&self, sid: &TrackSid) -> Option<PeerKey> {
        self.entries.get(sid)?.first().copied()
    }

    /// All sids and whose they are, in the order of the sids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TrackSid, PeerKey)> {
        self.entries.iter().filter_map(|(sid, entries)| Some((sid, *entries.first()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_entry_of_a_sid_wins_until_it_is_gone() {
        let sid = TrackSid::from("TR_VC1");
        let mut tracks = Tracks::default();
        assert!(tracks.add(&sid, PeerKey(1)));
        assert!(!tracks.add(&sid, PeerKey(2)));
        assert_eq!(tracks.publisher(&sid), Some(PeerKey(1)));
        assert_eq!(tracks.remove(&sid, PeerKey(1)), Removed::HandedTo(PeerKey(2)));
        assert_eq!(tracks.publisher(&sid), Some(PeerKey(2)));
        assert_eq!(tracks.remove(&sid, PeerKey(2)), Removed::Last);
        assert_eq!(tracks.publisher(&sid), None);
    }

    #[test]
    fn removing_what_is_not_meant_changes_nothing() {
        let sid = TrackSid::from("TR_AM1");
        let mut tracks = Tracks::default();
        assert_eq!(tracks.remove(&sid, PeerKey(1)), Removed::Nothing);
        tracks.add(&sid, PeerKey(1));
        tracks.add(&sid, PeerKey(1));
        tracks.add(&sid, PeerKey(2));
        assert_eq!(tracks.remove(&sid, PeerKey(2)), Removed::Shadowed);
        assert_eq!(tracks.remove(&sid, PeerKey(1)), Removed::Last);
    }
}
