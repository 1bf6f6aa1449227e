//! What happens in a room after its inputs of a turn: transports and media tell, sections settle, packets leave.

use crate::ctx::Ctx;
use crate::limits::DRAIN_ROUNDS_MAX;
use crate::media::{MediaEvent, TransportId};
use crate::peer::{Channel, SeenLayer};
use crate::room::Room;
use crate::timers::Timer;
use fanlight_base::{Addresses, Protocol, SendBatch};
use fanlight_events::TransportSelected;
use fanlight_transport::{IceState, TransportEvent};

impl Room {
    /// Handles everything that the turn's inputs have caused. False when the batch is to be sent before it goes on.
    pub(crate) fn drain(&mut self, ctx: &mut Ctx<'_>, batch: &mut SendBatch) -> bool {
        if !self.media.flush_part(ctx.now, &mut self.transports, batch) {
            return false;
        }
        for _ in 0..DRAIN_ROUNDS_MAX {
            let mut quiet = true;
            for id in std::mem::take(&mut self.stirred) {
                self.drain_transport(ctx, id, batch);
                quiet = false;
            }
            while let Some(event) = self.media.poll_event() {
                self.media_event(ctx, event);
                quiet = false;
            }
            for key in std::mem::take(&mut self.unsettled) {
                self.settle(ctx, key);
                quiet = false;
            }
            if quiet {
                break;
            }
        }
        for id in std::mem::take(&mut self.closing) {
            if let Some(mut transport) = self.transports.remove(id) {
                transport.close(ctx.now, batch);
            }
        }
        true
    }

    fn drain_transport(&mut self, ctx: &mut Ctx<'_>, id: TransportId, batch: &mut SendBatch) {
        let Some(transport) = self.transports.get_mut(id) else { return };
        if transport.poll_timeout().0 <= ctx.mono() {
            transport.handle_timeout(ctx.now, batch);
        }
        while let Some(event) =
            self.transports.get_mut(id).and_then(fanlight_transport::Transport::poll_event)
        {
            self.transport_event(ctx, id, event, batch);
        }
        // It may have been let go meanwhile.
        if self.links.contains_key(&id)
            && let Some(transport) = self.transports.get(id)
        {
            self.timers.set(Timer::Transport(id), transport.poll_timeout().0);
        }
    }

    fn transport_event(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: TransportId,
        event: TransportEvent,
        batch: &mut SendBatch,
    ) {
        if !self.links.contains_key(&id) {
            return;
        }
        match event {
            TransportEvent::Check(transaction) => ctx.demux.expect(self.owner(id), transaction),
            TransportEvent::Selected(addresses) => self.tell_selected(ctx, id, addresses),
            TransportEvent::Connected { .. } => self.link_connected(ctx, id),
            TransportEvent::DataChannelOpen { id: channel, label, .. } => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.channels.insert(channel, Channel::of(&label));
                }
            }
            TransportEvent::Data { id: channel, bytes, .. } => self.data(ctx, id, channel, &bytes, batch),
            TransportEvent::DataChannelClosed { id: channel } => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.channels.remove(&channel);
                }
            }
            TransportEvent::IceState(IceState::Disconnected) | TransportEvent::Failed(_) => {
                self.link_failed(ctx, id);
            }
            TransportEvent::Closed => self.link_closed(ctx, id),
            TransportEvent::IceState(_) | TransportEvent::BufferedLow { .. } => {}
        }
    }

    fn tell_selected(&self, ctx: &mut Ctx<'_>, id: TransportId, addresses: Addresses) {
        let Some(link) = self.links.get(&id) else { return };
        let Some(peer) = self.peers.get(&link.peer) else { return };
        let protocol = match addresses.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        let fact = TransportSelected {
            target: link.target.as_str().to_owned(),
            protocol: protocol.to_owned(),
            remote: addresses.remote.to_string(),
        };
        ctx.fact(self.place(Some(&peer.sid), None), fact);
    }

    fn media_event(&mut self, ctx: &mut Ctx<'_>, event: MediaEvent) {
        match event {
            MediaEvent::FirstPacket { track, mime, rid, spatial, ssrc } => {
                self.first_packet(ctx, track, &mime, SeenLayer { rid, spatial, ssrc, repair_ssrc: 0 });
            }
            MediaEvent::LayerSeen { track, rid, spatial, ssrc, repair_ssrc } => {
                self.layer_seen(ctx, track, &SeenLayer { rid, spatial, ssrc, repair_ssrc });
            }
            MediaEvent::CodecChanged { track, mime } => self.codec_changed(ctx, track, &mime),
            MediaEvent::FirstForwarded { .. } => {}
        }
    }

    /// A 5-tuple that a transport proved is another's, who uses it.
    pub(crate) fn tuple_refused(&mut self, ctx: &mut Ctx<'_>, id: TransportId) {
        if let Some(peer) = self.links.get(&id).map(|link| link.peer) {
            self.refuse(ctx, peer, "tuple", "address of another transport");
        }
    }

    /// A TCP connection is gone.
    pub(crate) fn tuple_closed(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: TransportId,
        addresses: Addresses,
        batch: &mut SendBatch,
    ) {
        if let Some(transport) = self.transports.get_mut(id) {
            transport.remove_tuple(ctx.now, addresses, batch);
            self.stirred.insert(id);
        }
    }
}
