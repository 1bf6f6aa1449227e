//! RTP and RTCP of one room: what publishers send, chosen, rewritten and sealed for each subscriber.
//!
//! A room's media is driven like every core: [`RoomMedia::handle_rtp`], [`RoomMedia::handle_rtcp`] and
//! [`RoomMedia::handle_timeout`] write packets into the batch at once (there is no pacer yet); what signalling has to
//! hear is drained with [`RoomMedia::poll_event`]. The transports stand in a table of their own, because signalling and
//! data use them too.

mod slots;
pub(crate) mod spec;
pub(crate) mod transports;

pub use spec::{
    DownKey, MediaEvent, Publish, PublishCodec, PublishSsrc, Subscribe, SubscribeCodec, TrackKey,
};
pub use transports::{TransportId, Transports};

use crate::output::Why;
use fanlight_base::{Mono, Now, Random, SendBatch};
use fanlight_events::TrackCounters;

/// RTP and RTCP of one room.
#[derive(Debug)]
pub struct RoomMedia {}

impl RoomMedia {
    /// Media of an empty room; `random` gives first sequence numbers and timestamps.
    pub fn new(random: Random) -> Self;

    /// Begins to receive a track.
    pub fn publish(&mut self, now: Now, publish: Publish) -> TrackKey;

    /// The m-line was negotiated anew: codecs, ids, RIDs and SSRCs are taken over, streams go on.
    pub fn update_publish(&mut self, now: Now, track: TrackKey, publish: Publish);

    /// Ends a track and its subscriptions (their keys go stale: unsubscribe them first for their counters).
    pub fn unpublish(&mut self, track: TrackKey) -> TrackCounters;

    /// The publisher muted: nothing is forwarded until it unmutes.
    pub fn set_publisher_muted(&mut self, now: Now, track: TrackKey, muted: bool);

    /// Begins to send a track to a subscriber; `None` when the track is gone.
    pub fn subscribe(&mut self, now: Now, subscribe: Subscribe) -> Option<DownKey>;

    /// The m-line was negotiated anew: codecs, ids and mid are taken over; SSRCs stay.
    pub fn update_subscribe(&mut self, now: Now, down: DownKey, subscribe: Subscribe);

    /// What the subscriber wants now.
    pub fn set_settings(&mut self, now: Now, down: DownKey, enabled: bool, max_spatial: u8);

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, down: DownKey) -> TrackCounters;

    /// Forgets what is known of a transport; its tracks and subscriptions have to be ended too.
    pub fn remove_transport(&mut self, id: TransportId);

    /// A packet of a publisher, opened in place: header and payload.
    pub fn handle_rtp(
        &mut self, now: Now, transports: &mut Transports, from: TransportId, header: &RtpHeader, plain: &[u8],
        extended_sequence: u64, batch: &mut SendBatch,
    );

    /// A compound RTCP packet of a publisher or a subscriber, opened in place.
    pub fn handle_rtcp(
        &mut self, now: Now, transports: &mut Transports, from: TransportId, plain: &[u8], batch: &mut SendBatch,
    );

    /// Everything that is due.
    pub fn handle_timeout(&mut self, now: Now, transports: &mut Transports, batch: &mut SendBatch);

    /// When [`Self::handle_timeout`] is wanted, and what for.
    pub fn next_timeout(&self) -> (Mono, Why);

    /// The next event.
    pub fn poll_event(&mut self) -> Option<MediaEvent>;

    /// Counters of a published track so far.
    pub fn publish_counters(&self, track: TrackKey) -> Option<TrackCounters>;

    /// Counters of a subscription so far.
    pub fn subscribe_counters(&self, down: DownKey) -> Option<TrackCounters>;
}
