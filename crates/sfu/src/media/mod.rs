//! RTP and RTCP of one room: what publishers send, chosen, rewritten and sealed for each subscriber.
//!
//! A room's media is driven like every core: [`RoomMedia::handle_rtp`], [`RoomMedia::handle_rtcp`] and
//! [`RoomMedia::handle_timeout`] write packets into the batch (there is no pacer yet), packets in the middle of a video
//! stream with [`RoomMedia::flush_part`] at the turn's end; what signalling has to hear is drained with
//! [`RoomMedia::poll_event`]. The transports stand in a table of their own, because signalling and
//! data use them too.
//!
//! A packet's way: `uplink` finds its track and layer and enters it into its stream, `packet` reads the payload's
//! descriptor once and keeps the payload in the room's store, and each `down` (a subscription) asks `forward/select`
//! whether it wants it and `forward/rewrite` for its numbers, writes a header and has it sealed. `feedback` reads RTCP,
//! `due` and `reports` do what time brings.

mod arrivals;
mod awaited;
mod burst;
mod clock;
mod compact;
mod down;
mod due;
mod feedback;
mod forward;
mod header;
mod keyframe;
mod layer;
mod limits;
mod packet;
mod peer;
mod peers;
mod reports;
mod slots;
mod spec;
mod store;
mod subscriptions;
#[cfg(test)]
mod tests;
mod timers;
mod track;
mod transports;
mod uplink;

pub(crate) use spec::{
    DownKey, MediaEvent, Publish, PublishCodec, PublishSsrc, Subscribe, SubscribeCodec, TrackKey,
};
pub(crate) use transports::{TransportId, Transports};

use crate::output::Why;
use burst::Bursts;
use fanlight_base::{Bounded, Mono, Now, Random, SendBatch};
use fanlight_events::TrackCounters;
use fanlight_rtp::RtpHeader;
use fanlight_rtp::rtcp::ReportBlock;
use fanlight_rtp::twcc::PacketResult;
use header::{HEADER_BYTES_MAX, Passed};
use limits::EVENTS_MAX;
use peers::Peers;
use slots::Slots;
use store::Store;
use timers::Timers;
use track::Track;

/// RTP and RTCP of one room.
#[derive(Debug)]
pub(crate) struct RoomMedia {
    peers: Peers,
    tracks: Slots<Track>,
    /// Where a subscription stands: its track, and its place in the track's list.
    downs: Slots<DownPlace>,
    store: Store,
    timers: Timers<Task>,
    bursts: Bursts,
    events: Events,
    random: Random,
    /// SSRC under which we report to publishers.
    our_ssrc: u32,
    /// CNAME of that SSRC.
    our_cname: String,
    // Buffers that are used again for every packet.
    header: Box<[u8; HEADER_BYTES_MAX]>,
    passed: Passed,
    feedback_results: Vec<PacketResult>,
    rtcp: Vec<u8>,
    sequences: Vec<u16>,
    blocks: Vec<ReportBlock>,
}

#[derive(Debug, Clone, Copy)]
struct DownPlace {
    track: TrackKey,
    index: usize,
}

/// What can be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Nack(TrackKey, u8),
    Feedback(TransportId),
    Reports(TransportId),
    KeyFrame(TrackKey),
    Layers(TrackKey),
}

impl Task {
    const fn why(self) -> Why {
        match self {
            Self::Nack(..) => Why::Nack,
            Self::Feedback(_) => Why::Feedback,
            Self::Reports(_) => Why::Reports,
            Self::KeyFrame(_) => Why::KeyFrame,
            Self::Layers(_) => Why::Layers,
        }
    }
}

/// Events that wait to be polled.
#[derive(Debug)]
struct Events(Bounded<MediaEvent>);

impl Events {
    /// A full queue counts what it refuses; the room polls it in every turn.
    fn push(&mut self, event: MediaEvent) {
        let _ = self.0.push(event);
    }

    fn extend(&mut self, event: Option<MediaEvent>) {
        if let Some(event) = event {
            self.push(event);
        }
    }
}

impl RoomMedia {
    /// Media of an empty room; `random` gives first sequence numbers and timestamps.
    pub(crate) fn new(mut random: Random) -> Self {
        Self {
            peers: Peers::default(),
            tracks: Slots::default(),
            downs: Slots::default(),
            store: Store::new(),
            timers: Timers::new(),
            bursts: Bursts::default(),
            events: Events(Bounded::new(EVENTS_MAX)),
            our_ssrc: random.u32() | 1,
            our_cname: random.alphanumeric(16),
            random,
            header: Box::new([0; HEADER_BYTES_MAX]),
            passed: Passed::new(),
            feedback_results: Vec::new(),
            rtcp: Vec::new(),
            sequences: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Begins to receive a track.
    pub(crate) fn publish(&mut self, now: Now, publish: Publish) -> TrackKey {
        let key = TrackKey(self.tracks.insert_with(|slot| Track::new(TrackKey(slot), &publish)));
        let peer = self.peers.entry(publish.transport);
        peer.published.push(key);
        peer.learn(key, &publish);
        let when = now.mono() + limits::RECEIVER_REPORT_PERIOD;
        self.timers.arm(&mut peer.reports_alarm, when, Task::Reports(publish.transport));
        key
    }

    /// The m-line was negotiated anew: codecs, ids, RIDs and SSRCs are taken over, streams go on.
    pub(crate) fn update_publish(&mut self, _now: Now, track: TrackKey, publish: Publish) {
        if let Some(known) = self.tracks.get_mut(track.0) {
            known.update(&publish);
            self.peers.entry(publish.transport).learn(track, &publish);
        }
    }

    /// Ends a track and its subscriptions, whose keys go stale: unsubscribe them first for their counters. Packets of
    /// this turn that were not flushed end with it.
    pub(crate) fn unpublish(&mut self, track: TrackKey) -> TrackCounters {
        let Some(mut track) = self.tracks.remove(track.0) else { return TrackCounters::default() };
        for down in std::mem::take(&mut track.downs) {
            self.downs.remove(down.key.0);
            self.release(&down);
        }
        if let Some(peer) = self.peers.get_mut(track.transport) {
            peer.forget_track(track.key);
        }
        track.totals()
    }

    /// The publisher muted: nothing is forwarded until it unmutes.
    pub(crate) fn set_publisher_muted(&mut self, now: Now, track: TrackKey, muted: bool) {
        let Some(known) = self.tracks.get_mut(track.0) else { return };
        if known.muted == muted {
            return;
        }
        known.muted = muted;
        known.downs.iter_mut().for_each(|down| down.select.restart());
        self.want_key_frames(now, track);
    }

    /// A packet of a publisher, opened in place: `plain` is header and payload, `extended_sequence` has the roll-over
    /// count.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a transport gives for a packet, and where packets go"
    )]
    pub(crate) fn handle_rtp(
        &mut self,
        now: Now,
        transports: &mut Transports,
        from: TransportId,
        header: &RtpHeader,
        plain: &[u8],
        extended_sequence: u64,
        batch: &mut SendBatch,
    ) {
        self.receive_rtp(now, transports, from, &RtpIn { header, plain, extended_sequence }, batch);
    }

    /// A compound RTCP packet of a publisher or a subscriber, opened in place.
    pub(crate) fn handle_rtcp(
        &mut self,
        now: Now,
        transports: &mut Transports,
        from: TransportId,
        plain: &[u8],
        batch: &mut SendBatch,
    ) {
        self.receive_rtcp(now, transports, from, plain, batch);
    }

    /// Everything that is due.
    pub(crate) fn handle_timeout(&mut self, now: Now, transports: &mut Transports, batch: &mut SendBatch) {
        while let Some((when, task)) = self.timers.pop_due(now.mono()) {
            self.run(now, transports, when, task, batch);
        }
    }

    /// When [`Self::handle_timeout`] is wanted, and what for.
    pub(crate) fn next_timeout(&self) -> (Mono, Why) {
        self.timers.next().map_or((Mono::NEVER, Why::Idle), |(when, task)| (when, task.why()))
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.0.pop()
    }

    /// Counters of a published track so far.
    pub(crate) fn publish_counters(&self, track: TrackKey) -> Option<TrackCounters> {
        self.tracks.get(track.0).map(Track::totals)
    }

    /// Forgets what is known of a transport; its tracks and subscriptions end with it.
    pub(crate) fn remove_transport(&mut self, id: TransportId) {
        let Some(peer) = self.peers.get(id) else { return };
        let (published, downs) = (peer.published.clone(), peer.downs.clone());
        for down in downs {
            self.unsubscribe(down);
        }
        for track in published {
            self.unpublish(track);
        }
        self.peers.remove(id);
    }
}

/// An opened RTP packet, as the transport gives it.
#[derive(Debug, Clone, Copy)]
struct RtpIn<'a> {
    header: &'a RtpHeader,
    plain: &'a [u8],
    extended_sequence: u64,
}
