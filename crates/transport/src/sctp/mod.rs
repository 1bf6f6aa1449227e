//! SCTP over DTLS and its data channels: `rtc-sctp` with what it leaves to its user.
//!
//! That is: accepting only (two INITs that cross would make two associations), answering a repeated INIT, pacing,
//! bounds on what is buffered both ways, and the data channel protocol.

mod check;

use crate::dcep::{self, Message, Open, Reliability};
use crate::limits::{
    BUFFERED_LOW_BYTES, CHANNELS_MAX, MESSAGE_BYTES_MAX, RECEIVE_EXCESS_BYTES_MAX, RECEIVE_WINDOW_BYTES,
    SCTP_BURST_PACKETS, SCTP_PACKET_BYTES, SCTP_PACKETS_PER_MS, SEND_BUFFER_BYTES_MAX, STREAMS_MAX,
    STREAMS_OPEN_MAX,
};
use bytes::Bytes;
use rtc_sctp::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
    max_payload_size_for_mtu,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// SCTP runs inside DTLS; the addresses its library asks for mean nothing there.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));
const CHUNK_DATA: u8 = 0;
const CHUNK_INIT: u8 = 1;
const CHUNK_INIT_ACK: u8 = 2;
const CHUNK_SACK: u8 = 3;
/// Where the first chunk's type and the fields of a SACK and an INIT stand (RFC 9260 §3).
const FIRST_CHUNK_AT: usize = 12;
const INITIATE_TAG_AT: usize = 16;
const SACK_WINDOW_AT: usize = 20;
/// Credit that one SCTP packet costs, in nanoseconds.
const PACKET_CREDIT_NS: u64 = 1_000_000 / SCTP_PACKETS_PER_MS;

/// A data channel of one transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendDataError {
    /// The channel is not open (any more, or not yet).
    #[error("the channel is not open")]
    NotOpen,
    /// [`SEND_BUFFER_BYTES_MAX`] would be exceeded.
    #[error("the send buffer is full")]
    BufferFull,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message is too large")]
    TooLarge,
}

/// What happened to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelEvent {
    Opened { id: ChannelId, open: Open },
    Message { id: ChannelId, binary: bool, bytes: Vec<u8> },
    Closed { id: ChannelId },
    BufferedLow { id: ChannelId },
}

/// Data that was not delivered, and why. Counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SctpCounters {
    /// SCTP packets whose lengths do not fit.
    pub malformed: u64,
    /// Messages on streams without a channel.
    pub unknown_channel: u64,
    /// Messages longer than [`MESSAGE_BYTES_MAX`].
    pub too_large: u64,
    /// DCEP messages that were malformed, or asked for more than [`CHANNELS_MAX`] channels.
    pub refused_open: u64,
    /// Associations ended because the peer sent far beyond its window or used too many streams.
    pub violations: u64,
}

#[derive(Debug)]
struct Channel {
    stream: Option<u16>,
    open: Open,
    state: ChannelState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelState {
    /// Ours; waits for the association.
    Waiting,
    /// Ours; OPEN sent, so messages may follow (in order, RFC 8832 §6).
    Opening,
    Open,
    Closing,
}

/// The association with the peer, once it has begun one, and the channels.
pub(crate) struct Sctp {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    /// Initiate tag of the peer's INIT, and our answer as long as it may be needed again.
    initiate_tag: u32,
    init_ack: Option<Bytes>,
    established: bool,
    /// Low bit of the stream ids we choose: 0 as DTLS client, 1 as server (RFC 8832 §6).
    parity: u16,
    channels: BTreeMap<ChannelId, Channel>,
    next_channel: u32,
    readable: BTreeSet<u16>,
    urgent: VecDeque<Bytes>,
    paced: VecDeque<Bytes>,
    credit_ns: u64,
    credited: Option<Instant>,
    window_zero: bool,
    excess_bytes: u64,
    counters: SctpCounters,
}

impl Sctp {
    pub(crate) fn new() -> Self {
        Self {
            endpoint: endpoint(),
            association: None,
            initiate_tag: 0,
            init_ack: None,
            established: false,
            parity: 1,
            channels: BTreeMap::new(),
            next_channel: 0,
            readable: BTreeSet::new(),
            urgent: VecDeque::new(),
            paced: VecDeque::new(),
            credit_ns: SCTP_BURST_PACKETS * PACKET_CREDIT_NS,
            credited: None,
            window_zero: false,
            excess_bytes: 0,
            counters: SctpCounters::default(),
        }
    }

    /// Says which end of DTLS we are, which decides the ids of streams we open.
    pub(crate) fn set_dtls_client(&mut self, client: bool) {
        self.parity = u16::from(!client);
    }

    pub(crate) const fn counters(&self) -> SctpCounters {
        self.counters
    }

    /// Takes a decrypted SCTP packet.
    pub(crate) fn receive(&mut self, now: Instant, packet: &[u8], events: &mut Vec<ChannelEvent>) {
        if !check::is_well_formed(packet) {
            self.counters.malformed += 1;
            return;
        }
        if packet.get(FIRST_CHUNK_AT) == Some(&CHUNK_INIT) && !self.prepare_for_init(packet, events) {
            return;
        }
        if self.window_zero {
            self.excess_bytes = self.excess_bytes.saturating_add(packet.len() as u64);
            if self.excess_bytes > RECEIVE_EXCESS_BYTES_MAX {
                self.counters.violations += 1;
                self.abort(now, events);
                return;
            }
        }
        match self.endpoint.handle(now, NOWHERE, None, Bytes::copy_from_slice(packet)) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                self.association = Some((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((known, association)) = &mut self.association
                    && *known == handle
                {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
        self.after_input(now, events);
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) {
        if let Some((_, association)) = &mut self.association {
            if association.poll_timeout().is_some_and(|deadline| deadline <= now) {
                association.handle_timeout(now);
            }
            self.after_input(now, events);
        }
    }

    /// Reads messages until `room` of them were read; true when more may wait.
    pub(crate) fn read(&mut self, now: Instant, room: usize, events: &mut Vec<ChannelEvent>) -> bool {
        let mut left = room;
        while let Some(&stream) = self.readable.first() {
            if left == 0 {
                return true;
            }
            let Some((_, association)) = &mut self.association else { break };
            let message = association.stream(stream).ok().and_then(|mut stream| stream.read().ok().flatten());
            let Some(chunks) = message else {
                self.readable.remove(&stream);
                continue;
            };
            left -= 1;
            if chunks.len() > MESSAGE_BYTES_MAX {
                self.counters.too_large += 1;
                continue;
            }
            let mut bytes = vec![0; chunks.len()];
            if chunks.read(&mut bytes).is_err() {
                continue;
            }
            self.deliver(now, stream, chunks.ppi, bytes, events);
        }
        self.readable.clear();
        false
    }

    /// The next packet for DTLS, within the pace.
    pub(crate) fn next_packet(&mut self, now: Instant) -> Option<Bytes> {
        self.gather(now);
        if let Some(packet) = self.urgent.pop_front() {
            return Some(packet);
        }
        if self.paced.is_empty() {
            return None;
        }
        self.refill(now);
        self.credit_ns = self.credit_ns.checked_sub(PACKET_CREDIT_NS)?;
        self.paced.pop_front()
    }

    /// When [`Sctp::tick`] or [`Sctp::next_packet`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let timer = self.association.as_ref().and_then(|(_, association)| association.poll_timeout());
        let pace = if self.paced.is_empty() {
            None
        } else {
            let missing = PACKET_CREDIT_NS.saturating_sub(self.credit_ns);
            self.credited.map(|at| at + Duration::from_nanos(missing))
        };
        [timer, pace].into_iter().flatten().min()
    }

    /// Opens a channel; before the association stands it waits. `None` when there are [`CHANNELS_MAX`].
    pub(crate) fn open(&mut self, now: Instant, open: Open) -> Option<ChannelId> {
        if self.channels.len() >= CHANNELS_MAX {
            return None;
        }
        let id = self.add_channel(Channel { stream: None, open, state: ChannelState::Waiting });
        if self.established {
            self.open_waiting(now);
        }
        Some(id)
    }

    /// Queues a message.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        id: ChannelId,
        binary: bool,
        bytes: &[u8],
    ) -> Result<(), SendDataError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SendDataError::TooLarge);
        }
        let stream = self.sending_stream(id).ok_or(SendDataError::NotOpen)?;
        if self.buffered_total().saturating_add(bytes.len()) > SEND_BUFFER_BYTES_MAX {
            return Err(SendDataError::BufferFull);
        }
        // SCTP cannot carry an empty message: one zero byte under a PPID that says so (RFC 8831 §6.6).
        let (ppid, bytes) = match (binary, bytes.is_empty()) {
            (false, false) => (Ppid::String, bytes),
            (true, false) => (Ppid::Binary, bytes),
            (false, true) => (Ppid::StringEmpty, &[0][..]),
            (true, true) => (Ppid::BinaryEmpty, &[0][..]),
        };
        let (_, association) = self.association.as_mut().ok_or(SendDataError::NotOpen)?;
        let mut stream = association.stream(stream).map_err(|_| SendDataError::NotOpen)?;
        stream.write_with_ppi(now, bytes, ppid).map(|_| ()).map_err(|_| SendDataError::NotOpen)
    }

    /// Bytes of a channel that are not acknowledged yet.
    pub(crate) fn buffered_bytes(&mut self, id: ChannelId) -> usize {
        let Some(stream) = self.sending_stream(id) else { return 0 };
        let Some((_, association)) = &mut self.association else { return 0 };
        association.stream(stream).ok().and_then(|stream| stream.buffered_amount().ok()).unwrap_or(0)
    }

    /// Closes a channel by resetting its stream (RFC 8831 §6.7); [`ChannelEvent::Closed`] follows.
    pub(crate) fn close_channel(&mut self, now: Instant, id: ChannelId, events: &mut Vec<ChannelEvent>) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if channel.state == ChannelState::Closing {
            return;
        }
        channel.state = ChannelState::Closing;
        let reset =
            channel.stream.zip(self.association.as_mut()).is_some_and(|(stream, (_, association))| {
                association.stream(stream).is_ok_and(|mut stream| stream.close(now).is_ok())
            });
        if !reset {
            self.channels.remove(&id);
            events.push(ChannelEvent::Closed { id });
        }
    }

    /// Ends the association with an ABORT, which [`Sctp::next_packet`] gives out; every channel closes.
    pub(crate) fn abort(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) {
        if let Some((_, mut association)) = self.association.take()
            && association.abort().is_ok()
        {
            while let Some(message) = association.poll_transmit(now) {
                if let Payload::RawEncode(packets) = message.message {
                    self.urgent.extend(packets);
                }
            }
        }
        self.forget_association(events);
    }

    /// Makes way for an INIT, or answers it here; true when the library shall see it.
    fn prepare_for_init(&mut self, packet: &[u8], events: &mut Vec<ChannelEvent>) -> bool {
        let Some(tag) = be32(packet, INITIATE_TAG_AT) else { return false };
        if self.association.is_none() {
            self.initiate_tag = tag;
            return true;
        }
        if tag == self.initiate_tag {
            // The same INIT again: the library would make a second association of it.
            if !self.established
                && let Some(init_ack) = &self.init_ack
            {
                self.urgent.push_back(init_ack.clone());
            }
            return false;
        }
        // The peer has begun anew. It is the DTLS peer that says so, hence nobody else can end the association.
        self.forget_association(events);
        self.initiate_tag = tag;
        true
    }

    fn forget_association(&mut self, events: &mut Vec<ChannelEvent>) {
        self.association = None;
        self.endpoint = endpoint();
        self.init_ack = None;
        self.established = false;
        self.window_zero = false;
        self.excess_bytes = 0;
        self.readable.clear();
        self.paced.clear();
        for (id, _) in std::mem::take(&mut self.channels) {
            events.push(ChannelEvent::Closed { id });
        }
    }

    fn after_input(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) {
        let mut closed = false;
        while let Some(event) = self.association.as_mut().and_then(|(_, association)| association.poll()) {
            match event {
                Event::Connected => {
                    self.established = true;
                    self.init_ack = None;
                    self.open_waiting(now);
                }
                Event::HandshakeFailed { .. } => closed = true,
                Event::AssociationLost { id, .. } => self.stream_gone(id, events),
                Event::Stream(StreamEvent::Readable { id }) => {
                    self.readable.insert(id);
                }
                Event::Stream(StreamEvent::BufferedAmountLow { id }) => {
                    if let Some(id) = self.channel_of(id) {
                        events.push(ChannelEvent::BufferedLow { id });
                    }
                }
                _ => {}
            }
        }
        let Some((_, association)) = &mut self.association else { return };
        let mut accepted = false;
        while association.accept_stream().is_some() {
            accepted = true;
        }
        while association.poll_endpoint_event().is_some() {}
        if accepted && association.stream_ids().len() > STREAMS_OPEN_MAX {
            self.counters.violations += 1;
            return self.abort(now, events);
        }
        let Some((_, association)) = &mut self.association else { return };
        // Before its first COOKIE ECHO an accepted association is closed as well, hence `established`.
        if closed || (self.established && association.is_closed()) {
            self.gather(now);
            self.forget_association(events);
        }
    }

    fn deliver(
        &mut self,
        now: Instant,
        stream: u16,
        ppid: Ppid,
        bytes: Vec<u8>,
        events: &mut Vec<ChannelEvent>,
    ) {
        let (binary, bytes) = match ppid {
            Ppid::Dcep => return self.handle_dcep(now, stream, &bytes, events),
            Ppid::String => (false, bytes),
            Ppid::Binary => (true, bytes),
            Ppid::StringEmpty => (false, Vec::new()),
            Ppid::BinaryEmpty => (true, Vec::new()),
            _ => {
                self.counters.unknown_channel += 1;
                return;
            }
        };
        match self.channel_of(stream) {
            Some(id) => events.push(ChannelEvent::Message { id, binary, bytes }),
            None => self.counters.unknown_channel += 1,
        }
    }

    fn handle_dcep(&mut self, now: Instant, stream: u16, bytes: &[u8], events: &mut Vec<ChannelEvent>) {
        match Message::parse(bytes) {
            Ok(Message::Open(open)) => self.handle_open(now, stream, open, events),
            Ok(Message::Ack) => self.handle_ack(stream, events),
            Err(_) => {
                self.counters.refused_open += 1;
                self.reset_stream(now, stream);
            }
        }
    }

    fn handle_open(&mut self, now: Instant, stream: u16, open: Open, events: &mut Vec<ChannelEvent>) {
        if self.channel_of(stream).is_some() || self.channels.len() >= CHANNELS_MAX {
            self.counters.refused_open += 1;
            if self.channel_of(stream).is_none() {
                self.reset_stream(now, stream);
            }
            return;
        }
        let Some((_, association)) = &mut self.association else { return };
        let Ok(mut handle) = association.stream(stream) else { return };
        let (kind, value) = parameters(open.reliability);
        let ready = handle.set_reliability_params(!open.ordered, kind, value).is_ok()
            && handle.set_buffered_amount_low_threshold(BUFFERED_LOW_BYTES).is_ok()
            && handle.write_with_ppi(now, &dcep::ACK, Ppid::Dcep).is_ok();
        if ready {
            let state = ChannelState::Open;
            let id = self.add_channel(Channel { stream: Some(stream), open: open.clone(), state });
            events.push(ChannelEvent::Opened { id, open });
        }
    }

    fn handle_ack(&mut self, stream: u16, events: &mut Vec<ChannelEvent>) {
        let Some(id) = self.channel_of(stream) else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if channel.state != ChannelState::Opening {
            return;
        }
        channel.state = ChannelState::Open;
        let open = channel.open.clone();
        // Until here messages had to stay in order behind the OPEN (RFC 8832 §6).
        let (kind, value) = parameters(open.reliability);
        if let Some((_, association)) = &mut self.association
            && let Ok(mut handle) = association.stream(stream)
        {
            let _ = handle.set_reliability_params(!open.ordered, kind, value);
        }
        events.push(ChannelEvent::Opened { id, open });
    }

    fn open_waiting(&mut self, now: Instant) {
        let Some((_, association)) = &mut self.association else { return };
        let mut stream_id = self.parity;
        for channel in self.channels.values_mut().filter(|channel| channel.state == ChannelState::Waiting) {
            while association.stream(stream_id).is_ok() {
                stream_id = stream_id.saturating_add(2);
            }
            let Ok(mut stream) = association.open_stream(stream_id, Ppid::Binary) else { continue };
            let _ = stream.set_buffered_amount_low_threshold(BUFFERED_LOW_BYTES);
            if stream.write_with_ppi(now, &channel.open.to_bytes(), Ppid::Dcep).is_ok() {
                channel.stream = Some(stream_id);
                channel.state = ChannelState::Opening;
            }
        }
    }

    fn stream_gone(&mut self, stream: u16, events: &mut Vec<ChannelEvent>) {
        self.readable.remove(&stream);
        if let Some(id) = self.channel_of(stream) {
            self.channels.remove(&id);
            events.push(ChannelEvent::Closed { id });
        }
    }

    fn reset_stream(&mut self, now: Instant, stream: u16) {
        if let Some((_, association)) = &mut self.association
            && let Ok(mut handle) = association.stream(stream)
        {
            let _ = handle.close(now);
        }
    }

    fn gather(&mut self, now: Instant) {
        let Some((_, association)) = &mut self.association else { return };
        while let Some(message) = association.poll_transmit(now) {
            let Payload::RawEncode(packets) = message.message else { continue };
            for packet in packets {
                match packet.get(FIRST_CHUNK_AT) {
                    Some(&CHUNK_DATA) => {
                        self.paced.push_back(packet);
                        continue;
                    }
                    Some(&CHUNK_INIT_ACK) => self.init_ack = Some(packet.clone()),
                    Some(&CHUNK_SACK) => {
                        self.window_zero = be32(&packet, SACK_WINDOW_AT) == Some(0);
                        if !self.window_zero {
                            self.excess_bytes = 0;
                        }
                    }
                    _ => {}
                }
                self.urgent.push_back(packet);
            }
        }
    }

    fn refill(&mut self, now: Instant) {
        const CREDIT_MAX_NS: u64 = SCTP_BURST_PACKETS * PACKET_CREDIT_NS;
        let elapsed = self.credited.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.credit_ns = self.credit_ns.saturating_add(elapsed_ns).min(CREDIT_MAX_NS);
        self.credited = Some(now);
    }

    fn add_channel(&mut self, channel: Channel) -> ChannelId {
        let id = ChannelId(self.next_channel);
        self.next_channel = self.next_channel.wrapping_add(1);
        self.channels.insert(id, channel);
        id
    }

    fn channel_of(&self, stream: u16) -> Option<ChannelId> {
        self.channels.iter().find(|(_, channel)| channel.stream == Some(stream)).map(|(id, _)| *id)
    }

    fn sending_stream(&self, id: ChannelId) -> Option<u16> {
        let channel = self.channels.get(&id)?;
        match channel.state {
            ChannelState::Opening | ChannelState::Open => channel.stream,
            ChannelState::Waiting | ChannelState::Closing => None,
        }
    }

    fn buffered_total(&mut self) -> usize {
        let Some((_, association)) = &mut self.association else { return 0 };
        let streams = self.channels.values().filter_map(|channel| channel.stream);
        streams
            .filter_map(|stream| association.stream(stream).ok()?.buffered_amount().ok())
            .fold(0, usize::saturating_add)
    }
}

fn endpoint() -> Endpoint {
    let mut config = EndpointConfig::new();
    config.max_payload_size(max_payload_size_for_mtu(SCTP_PACKET_BYTES));
    let transport = TransportConfig::default()
        .with_max_receive_buffer_size(RECEIVE_WINDOW_BYTES)
        .with_max_message_size(MESSAGE_BYTES_MAX as u32)
        .with_max_num_outbound_streams(STREAMS_MAX)
        .with_max_num_inbound_streams(STREAMS_MAX);
    let server = ServerConfig::new(transport);
    Endpoint::new(NOWHERE, Default::default(), Arc::new(config), Some(Arc::new(server)))
}

const fn parameters(reliability: Reliability) -> (ReliabilityType, u32) {
    match reliability {
        Reliability::Reliable => (ReliabilityType::Reliable, 0),
        Reliability::Retransmits(count) => (ReliabilityType::Rexmit, count),
        Reliability::LifetimeMs(ms) => (ReliabilityType::Timed, ms),
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests;
