//! What the media plane knows of a transport: whose SSRCs come in and go out on it.

use super::clock::PeerClock;
use super::limits::SSRCS_MAX;
use super::spec::{DownKey, Publish, TrackKey};
use super::timers::Alarm;
use super::transports::TransportId;
use fanlight_base::Mono;
use fanlight_rtp::ExtensionMap;
use fanlight_rtp::twcc::FeedbackBuilder;
use rustc_hash::FxHashMap;

/// What an incoming SSRC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A layer of a track.
    Media { track: TrackKey, layer: u8 },
    /// RTX of a layer.
    Repair { track: TrackKey, layer: u8 },
    /// A layer of this track was sent under it before.
    Past { track: TrackKey },
}

impl Incoming {
    /// The track it belongs to.
    pub(super) const fn track(self) -> TrackKey {
        let (Self::Media { track, .. } | Self::Repair { track, .. } | Self::Past { track }) = self;
        track
    }
}

/// What an outgoing SSRC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Media of a subscription.
    Media(DownKey),
    /// Its RTX.
    Repair(DownKey),
}

/// A transport as the media plane sees it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: TransportId,
    /// Extensions of all m-lines; RFC 8843 §9.2 makes an id mean the same in all sections of a bundle.
    pub(super) extensions: ExtensionMap,
    incoming: FxHashMap<u32, Incoming>,
    /// The keys of `incoming`.
    ssrcs: Vec<u32>,
    outgoing: FxHashMap<u32, Outgoing>,
    /// Outgoing SSRCs of the past and where their sequence numbers ended: the keys live on, and a number used twice
    /// would be a nonce used twice.
    retired: FxHashMap<u32, u64>,
    pub(super) published: Vec<TrackKey>,
    pub(super) downs: Vec<DownKey>,
    pub(super) clock: PeerClock,
    /// Some m-line of it negotiated transport-wide feedback.
    pub(super) transport_cc: bool,
    pub(super) feedback: FeedbackBuilder,
    /// SSRC of the latest packet. Feedback carries it as media source: libwebrtc takes feedback only when it names one
    /// of the SSRCs it sends.
    pub(super) feedback_ssrc: u32,
    pub(super) feedback_alarm: Alarm,
    pub(super) reports_alarm: Alarm,
    pub(super) sender_reports: u32,
    pub(super) next_sender_report: Mono,
    /// Receiver's estimate of the path to it (goog-remb), bits per second.
    pub(super) remb_bps: Option<u64>,
    /// Packets dropped because nobody knows their stream.
    pub(super) unknown_packets: u64,
}

impl Peer {
    pub(super) fn new(id: TransportId) -> Self {
        Self {
            id,
            extensions: ExtensionMap::new(),
            incoming: FxHashMap::default(),
            ssrcs: Vec::new(),
            outgoing: FxHashMap::default(),
            retired: FxHashMap::default(),
            published: Vec::new(),
            downs: Vec::new(),
            clock: PeerClock::default(),
            transport_cc: false,
            feedback: FeedbackBuilder::new(),
            feedback_ssrc: 0,
            feedback_alarm: Alarm::default(),
            reports_alarm: Alarm::default(),
            sender_reports: 0,
            next_sender_report: Mono::default(),
            remb_bps: None,
            unknown_packets: 0,
        }
    }

    /// Takes over what an m-line declares: extension ids (an id that means something else already keeps its meaning)
    /// and SSRCs.
    pub(super) fn learn(&mut self, track: TrackKey, publish: &Publish) {
        for (id, kind) in publish.extensions.iter() {
            let _ = self.extensions.set(id, kind);
        }
        self.transport_cc |= publish.transport_cc;
        for declared in &publish.ssrcs {
            let layer = declared.spatial;
            self.learn_incoming(declared.ssrc, Incoming::Media { track, layer });
            if let Some(repair) = declared.repair_ssrc {
                self.learn_incoming(repair, Incoming::Repair { track, layer });
            }
        }
    }

    #[inline]
    pub(super) fn incoming(&self, ssrc: u32) -> Option<Incoming> {
        self.incoming.get(&ssrc).copied()
    }

    /// Remembers an SSRC; `false` when there are too many.
    pub(super) fn learn_incoming(&mut self, ssrc: u32, incoming: Incoming) -> bool {
        if !self.incoming.contains_key(&ssrc) {
            if self.ssrcs.len() >= SSRCS_MAX {
                return false;
            }
            self.ssrcs.push(ssrc);
        }
        self.incoming.insert(ssrc, incoming);
        true
    }

    pub(super) fn forget_track(&mut self, track: TrackKey) {
        let incoming = &mut self.incoming;
        self.ssrcs.retain(|ssrc| {
            let forgotten = incoming.get(ssrc).is_some_and(|incoming| incoming.track() == track);
            if forgotten {
                incoming.remove(ssrc);
            }
            !forgotten
        });
        self.published.retain(|&published| published != track);
    }

    pub(super) fn outgoing(&self, ssrc: u32) -> Option<Outgoing> {
        self.outgoing.get(&ssrc).copied()
    }

    /// Claims an SSRC for sending and says after which sequence number it goes on, if it was ever used; `None` when it
    /// is in use.
    pub(super) fn claim(&mut self, ssrc: u32, outgoing: Outgoing) -> Option<Option<u64>> {
        if self.outgoing.contains_key(&ssrc) {
            return None;
        }
        self.outgoing.insert(ssrc, outgoing);
        Some(self.retired.get(&ssrc).copied())
    }

    /// Takes a claim back under which nothing was sent.
    pub(super) fn unclaim(&mut self, ssrc: u32) {
        self.outgoing.remove(&ssrc);
    }

    /// Gives an SSRC back; `last` is the last sequence number used.
    pub(super) fn retire(&mut self, ssrc: u32, last: u64) {
        self.outgoing.remove(&ssrc);
        self.retired.insert(ssrc, last);
    }

    pub(super) fn forget_down(&mut self, down: DownKey) {
        self.downs.retain(|&of| of != down);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::slots::Slots;

    #[test]
    fn an_ssrc_used_again_goes_on_where_it_ended() {
        let mut slots = Slots::default();
        let mut peer = Peer::new(TransportId(slots.insert(())));
        let down = DownKey(slots.insert(()));
        assert_eq!(peer.claim(7, Outgoing::Media(down)), Some(None));
        assert_eq!(peer.claim(7, Outgoing::Repair(down)), None);
        peer.retire(7, 70_000);
        assert_eq!(peer.claim(7, Outgoing::Media(down)), Some(Some(70_000)));
    }

    #[test]
    fn a_publisher_cannot_fill_the_table_of_ssrcs() {
        let mut slots = Slots::default();
        let mut peer = Peer::new(TransportId(slots.insert(())));
        let media = Incoming::Media { track: TrackKey(slots.insert(())), layer: 0 };
        assert!((0..SSRCS_MAX as u32).all(|ssrc| peer.learn_incoming(ssrc, media)));
        assert!(!peer.learn_incoming(u32::MAX, media));
        assert!(peer.learn_incoming(0, media));
    }
}
