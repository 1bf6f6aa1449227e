//! Data packets between participants: by label, stamped with their sender, to those they are for.

use super::Channel;
use crate::ctx::Ctx;
use crate::envelope::{Routed, Sender};
use crate::limits::{DATA_BYTES_MAX, DESTINATIONS_MAX};
use crate::media::TransportId;
use crate::room::Room;
use fanlight_base::{Identity, ParticipantSid, PeerKey, SendBatch};
use fanlight_transport::{ChannelId, SendDataError};

impl Room {
    /// A message on a data channel.
    pub(crate) fn data(
        &mut self,
        ctx: &mut Ctx<'_>,
        from: TransportId,
        id: ChannelId,
        bytes: &[u8],
        batch: &mut SendBatch,
    ) {
        let Some(link) = self.links.get(&from) else { return };
        let key = link.peer;
        let channel = link.channels.get(&id).copied().unwrap_or(Channel::Other);
        let Some(sender) = self.peers.get(&key) else { return };
        if channel == Channel::Other {
            self.refuse(ctx, key, "data", "channel without a known label");
            return;
        }
        if !sender.permission.can_publish_data {
            self.refuse(ctx, key, "data", "may not publish data");
            return;
        }
        let Some(mut routed) = self.route(ctx, key, channel, bytes) else { return };
        if let Some(batch) = routed.metrics.take() {
            self.tell_metrics(ctx, key, batch);
            return;
        }
        for receiver in self.receivers(key, &routed) {
            self.send_data(ctx, receiver, channel, &routed.bytes, batch);
        }
    }

    fn route(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, channel: Channel, bytes: &[u8]) -> Option<Routed> {
        let peer = self.peers.get_mut(&key)?;
        let (no_sid, nobody) = (ParticipantSid::default(), Identity::default());
        let hidden = peer.permission.hidden;
        let sender = Sender {
            sid: if hidden { &no_sid } else { &peer.sid },
            identity: if hidden { &nobody } else { &peer.identity },
            reliable: channel == Channel::Reliable,
        };
        let Ok(routed) = (ctx.config.envelope.route)(bytes, &sender) else {
            self.refuse(ctx, key, "data", "not a data packet");
            return None;
        };
        if channel == Channel::Reliable && routed.sequence > 0 {
            // What a client sends again after a break has arrived already.
            if routed.sequence <= peer.last_sequence {
                self.refuse(ctx, key, "data", "repeated sequence number");
                return None;
            }
            peer.last_sequence = routed.sequence;
        }
        if routed.destinations.len().saturating_add(routed.destination_sids.len()) > DESTINATIONS_MAX {
            self.refuse(ctx, key, "data", "DESTINATIONS_MAX 256");
            return None;
        }
        if routed.bytes.len() > DATA_BYTES_MAX {
            self.refuse(ctx, key, "data", "DATA_BYTES_MAX 65535");
            return None;
        }
        Some(routed)
    }

    /// Who a packet is for; never its sender.
    fn receivers(&self, sender: PeerKey, routed: &Routed) -> Vec<PeerKey> {
        let everybody = routed.destinations.is_empty() && routed.destination_sids.is_empty();
        if everybody {
            let others = self.peers.values().filter(|peer| peer.key != sender && peer.is_active());
            return others.map(|peer| peer.key).collect();
        }
        let named = routed.destinations.iter().filter_map(|identity| self.identities.get(identity).copied());
        let mut receivers: Vec<PeerKey> = named.collect();
        if !routed.destination_sids.is_empty() {
            let listed = self.peers.values().filter(|peer| routed.destination_sids.contains(&peer.sid));
            receivers.extend(listed.map(|peer| peer.key));
        }
        receivers.sort_unstable();
        receivers.dedup();
        receivers.retain(|key| *key != sender && self.peers.get(key).is_some_and(super::Peer::is_active));
        receivers
    }

    fn send_data(
        &mut self,
        ctx: &mut Ctx<'_>,
        receiver: PeerKey,
        channel: Channel,
        bytes: &[u8],
        batch: &mut SendBatch,
    ) {
        let Some(transport_id) = self.peers.get(&receiver).and_then(super::Peer::primary) else { return };
        let id = self.links.get(&transport_id).and_then(|link| link.channel(channel));
        let (Some(id), Some(transport)) = (id, self.transports.get_mut(transport_id)) else {
            self.refuse(ctx, receiver, "data_received", "channel not open");
            return;
        };
        let sent = transport.send_data(ctx.now, batch, id, true, bytes);
        self.stirred.insert(transport_id);
        match sent {
            Ok(()) => {}
            Err(SendDataError::BufferFull) => self.refuse(ctx, receiver, "data_received", "send buffer full"),
            Err(SendDataError::NotOpen) => self.refuse(ctx, receiver, "data_received", "channel not open"),
            Err(SendDataError::TooLarge) => self.refuse(ctx, receiver, "data_received", "message too large"),
        }
    }
}
