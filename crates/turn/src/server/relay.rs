//! Payload between clients and peers.

use super::{TurnServer, get_mut};
use crate::allocation::{Allocation, count_rx, count_tx};
use crate::counters::Drop;
use crate::filter::{Peer, Scope};
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::output::{Family, Outgoing, Quota, RelayKey};
use crate::wire;
use fanlight_base::{Addresses, Mono, Now, Protocol, RunHint};
use std::net::SocketAddr;
use stun_types::attribute::AttributeExt;
use stun_types::message::{
    Message, MessageClass, MessageType, MessageWriteExt, MessageWriteMutSlice, TransactionId,
};
use turn_types::attribute::{Data, XorPeerAddress};
use turn_types::message::DATA;

/// Bytes before the payload of ChannelData.
const CHANNEL_HEADER: usize = 4;

/// Over which channel or by which permission payload goes.
#[derive(Debug, Clone, Copy)]
enum Via {
    Channel(u16),
    Permission,
}

impl TurnServer {
    /// A datagram that arrived on a relay's socket.
    pub fn handle_relayed(
        &mut self,
        now: Now,
        key: RelayKey,
        from: SocketAddr,
        payload: &[u8],
        out: &mut Outgoing,
    ) {
        let now = now.mono();
        let Some(allocation) =
            get_mut(&mut self.slots, key.slot).filter(|one| one.name.id == key.id && one.open)
        else {
            return self.drop_payload(Drop::NoRelay);
        };
        let via = match allocation.permissions.number(now, from) {
            Some(number) => Via::Channel(number),
            None => match allocation.permissions.scope(now, from.ip()) {
                Some(Scope::AnyPort) => Via::Permission,
                Some(Scope::MediaOnly) if matches!(self.filter.judge(from), Ok(Peer::Media(_))) => {
                    Via::Permission
                }
                _ => return self.drop_payload(Drop::NoPermission),
            },
        };
        self.deliver(now, key.slot, from, via, payload, out);
    }

    /// A datagram that a media socket of this node sends to a relayed address, handed over inside the process. False
    /// when the address is not relayed here.
    pub fn handle_from_media(
        &mut self,
        now: Now,
        media: SocketAddr,
        relayed: SocketAddr,
        payload: &[u8],
        out: &mut Outgoing,
    ) -> bool {
        let Some(key) = self.by_relay.get(&relayed).copied() else { return false };
        let now = now.mono();
        let Some(allocation) =
            get_mut(&mut self.slots, key.slot).filter(|one| one.name.id == key.id && one.open)
        else {
            self.drop_payload(Drop::NoRelay);
            return true;
        };
        let names = || self.filter.advertised(media).filter(|name| Family::of(*name) == key.family);
        let bound = names().find_map(|name| {
            let number = allocation.permissions.number(now, name)?;
            Some((name, Via::Channel(number)))
        });
        let permitted = || {
            let name = names().find(|name| allocation.permissions.scope(now, name.ip()).is_some())?;
            Some((name, Via::Permission))
        };
        match bound.or_else(permitted) {
            Some((name, via)) => self.deliver(now, key.slot, name, via, payload, out),
            None => self.drop_payload(Drop::NoPermission),
        }
        true
    }

    pub(super) fn handle_channel_data(
        &mut self,
        now: Mono,
        slot: Option<u32>,
        number: u16,
        payload: &[u8],
        out: &mut Outgoing,
    ) {
        let Some(allocation) = slot.and_then(|slot| get_mut(&mut self.slots, slot)) else {
            return self.drop_payload(Drop::NoAllocation);
        };
        let Some(channel) = allocation.permissions.channel(now, number) else {
            return self.drop_payload(Drop::NoChannel);
        };
        let (peer, way, slot) = (channel.peer, channel.way, allocation.slot);
        self.forward(now, slot, (peer, way, Via::Channel(number)), payload, out);
    }

    pub(super) fn handle_send(
        &mut self,
        now: Mono,
        slot: Option<u32>,
        message: &Message<'_>,
        out: &mut Outgoing,
    ) {
        let Some(allocation) = slot.and_then(|slot| get_mut(&mut self.slots, slot)).filter(|one| one.open)
        else {
            return self.drop_payload(Drop::NoAllocation);
        };
        let peer = wire::peer(message);
        let data = wire::attribute::<Data<'_>>(message).ok().flatten();
        let (Some(peer), Some(data), true) = (peer, data, wire::not_understood(message).is_empty()) else {
            return self.drop_payload(Drop::BadIndication);
        };
        let way = match allocation.permissions.scope(now, peer.ip()) {
            None => return self.drop_payload(Drop::NoPermission),
            // The address was judged when the permission was given; what it says of ports is judged here.
            Some(Scope::AnyPort) if peer.port() != 0 => Peer::Outside,
            Some(_) => match self.filter.judge(peer) {
                Ok(way) => way,
                Err(_) => return self.drop_payload(Drop::Forbidden),
            },
        };
        let slot = allocation.slot;
        self.forward(now, slot, (peer, way, Via::Permission), data.data(), out);
    }

    /// From a client to a peer.
    fn forward(
        &mut self,
        now: Mono,
        slot: u32,
        (peer, way, via): (SocketAddr, Peer, Via),
        payload: &[u8],
        out: &mut Outgoing,
    ) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        let Some(relay) = allocation.relay(Family::of(peer)).copied() else {
            return self.drop_payload(Drop::Family);
        };
        if payload.len() > PAYLOAD_BYTES_MAX {
            return self.drop_payload(Drop::TooLong);
        }
        if allocation.up.as_mut().is_some_and(|bucket| !bucket.take(now, payload.len() as u64)) {
            return self.over_bandwidth(now, slot);
        }
        let channel = match via {
            Via::Channel(number) => allocation.permissions.channel(now, number),
            Via::Permission => None,
        };
        let hint = channel.map_or(&mut allocation.peer_hint, |channel| &mut channel.hint);
        let (batch, addresses) = match way {
            Peer::Outside => {
                self.counters.to_peers += 1;
                (&mut out.peers, Addresses { local: relay.bind, remote: peer, protocol: Protocol::Udp })
            }
            Peer::Media(local) => {
                self.counters.to_media += 1;
                (&mut out.media, Addresses { local, remote: relay.advertised, protocol: Protocol::Udp })
            }
        };
        batch.push(addresses, hint, payload.len()).copy_from_slice(payload);
        count_tx(&mut allocation.peer_leg, payload.len());
        let user = allocation.user;
        self.charge(now, user, payload.len());
    }

    /// From a peer to a client.
    fn deliver(
        &mut self,
        now: Mono,
        slot: u32,
        from: SocketAddr,
        via: Via,
        payload: &[u8],
        out: &mut Outgoing,
    ) {
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        count_rx(&mut allocation.peer_leg, payload.len());
        if payload.len() > PAYLOAD_BYTES_MAX {
            return self.drop_payload(Drop::TooLong);
        }
        if allocation.down.as_mut().is_some_and(|bucket| !bucket.take(now, payload.len() as u64)) {
            return self.over_bandwidth(now, slot);
        }
        let sent = match via {
            Via::Channel(number) => Some(write_channel_data(allocation, number, payload, out)),
            Via::Permission => {
                let transaction = u128::from(self.random.u64()) << 32 | u128::from(self.random.u32());
                write_data(allocation, transaction.into(), from, payload, out)
            }
        };
        let Some(sent) = sent else { return self.drop_payload(Drop::TooLong) };
        count_tx(&mut allocation.client_leg, sent);
        self.counters.to_clients += 1;
        let user = allocation.user;
        self.charge(now, user, payload.len());
    }

    fn over_bandwidth(&mut self, now: Mono, slot: u32) {
        self.drop_payload(Drop::Bandwidth);
        let Some(allocation) = get_mut(&mut self.slots, slot) else { return };
        // Said once a minute, and counted with the dropped packets: naming the user is not for each of them.
        if self.users.may_say(now, &allocation.caller.person) {
            let caller = allocation.caller.clone();
            self.push_quota(&caller, Quota::Bandwidth, self.quotas.allocation_bps.unwrap_or(0));
        }
    }

    fn charge(&mut self, now: Mono, user: u32, bytes: usize) {
        if self.users.charge(now, user, bytes as u64) {
            self.cut_off(now, user);
        }
    }
}

/// Writes ChannelData, padded on a stream; gives its length.
fn write_channel_data(allocation: &mut Allocation, number: u16, payload: &[u8], out: &mut Outgoing) -> usize {
    let plain = CHANNEL_HEADER + payload.len();
    let len = match allocation.client.protocol {
        Protocol::Udp => plain,
        Protocol::Tcp => plain.next_multiple_of(4),
    };
    let place = out.clients.push(allocation.client, &mut allocation.client_hint, len);
    let (header, rest) = place.split_at_mut(CHANNEL_HEADER);
    let (body, padding) = rest.split_at_mut(payload.len());
    let [a, b] = number.to_be_bytes();
    // The payload is no longer than PAYLOAD_BYTES_MAX.
    let [c, d] = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    header.copy_from_slice(&[a, b, c, d]);
    body.copy_from_slice(payload);
    padding.fill(0);
    len
}

/// Writes a Data indication in place; gives its length.
fn write_data(
    allocation: &mut Allocation,
    transaction: TransactionId,
    from: SocketAddr,
    payload: &[u8],
    out: &mut Outgoing,
) -> Option<usize> {
    let peer = XorPeerAddress::new(from, transaction);
    let data = Data::new(payload);
    let len = stun_types::message::MessageHeader::LENGTH + peer.padded_len() + data.padded_len();
    let mut hint: RunHint = allocation.client_hint;
    let place = out.clients.push(allocation.client, &mut hint, len);
    place.fill(0);
    let kind = MessageType::from_class_method(MessageClass::Indication, DATA);
    let mut write = Message::builder(kind, transaction, MessageWriteMutSlice::new(place));
    let written = write.add_attribute(&peer).and_then(|()| write.add_attribute(&data));
    allocation.client_hint = hint;
    if written.is_err() {
        out.clients.undo(&hint, len);
        return None;
    }
    Some(len)
}
