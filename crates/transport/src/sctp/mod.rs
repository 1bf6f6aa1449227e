//! SCTP over DTLS and its data channels: a library behind [`Association`], with what it leaves to its user.
//!
//! That is: accepting only (two INITs that cross would make two associations), answering a repeated INIT, pacing,
//! bounds on what a peer can cost, and the data channel protocol.

mod association;
mod check;
mod guard;
#[doc(hidden)]
pub mod handmade;
mod proto;

use crate::dcep::{self, Message, Open};
use crate::limits::{
    CHANNELS_MAX, MESSAGE_BYTES_MAX, RECEIVE_EXCESS_BYTES_MAX, SCTP_BURST_PACKETS, SCTP_PACKETS_PER_MS,
    SEND_BUFFER_BYTES_MAX, STREAMS_OPEN_MAX,
};
use association::{Association, AssociationEvent, Ppid};
use bytes::Bytes;
use guard::{Guard, be32, kind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Where the first chunk's type and the fields of an INIT stand (RFC 9260 §3).
const FIRST_CHUNK_AT: usize = 12;
const INITIATE_TAG_AT: usize = 16;
const INITIAL_TSN_AT: usize = 28;
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
    /// Associations ended because the peer sent far beyond its window, used too many streams, or sent chunks without end that
    /// make no message.
    pub violations: u64,
    /// Chunks and packets that were left out as if lost: out of place, not needed, or dearer than they are worth.
    pub refused: u64,
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
    association: Option<Box<dyn Association>>,
    guard: Guard,
    /// The peer's INIT and its initiate tag, and our answer as long as it may be needed again.
    init: Bytes,
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
    excess_bytes: u64,
    counters: SctpCounters,
}

impl Sctp {
    pub(crate) fn new() -> Self {
        Self {
            association: None,
            guard: Guard::new(0),
            init: Bytes::new(),
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
            excess_bytes: 0,
            counters: SctpCounters::default(),
        }
    }

    /// Says which end of DTLS we are, which decides the ids of streams we open.
    pub(crate) fn set_dtls_client(&mut self, client: bool) {
        self.parity = u16::from(!client);
    }

    pub(crate) fn counters(&self) -> SctpCounters {
        SctpCounters { refused: self.counters.refused + self.guard.refused(), ..self.counters }
    }

    /// Takes a decrypted SCTP packet.
    pub(crate) fn receive(&mut self, now: Instant, packet: &[u8], events: &mut Vec<ChannelEvent>) {
        if !check::is_well_formed(packet) {
            self.counters.malformed += 1;
            return;
        }
        if packet.get(FIRST_CHUNK_AT) == Some(&kind::INIT) {
            self.receive_init(now, packet, events);
        } else {
            self.receive_other(now, packet, events);
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) {
        if let Some(association) = &mut self.association {
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
            let Some(association) = &mut self.association else { break };
            let Some(message) = association.read(stream) else {
                self.readable.remove(&stream);
                continue;
            };
            left -= 1;
            self.guard.read(message.chunks);
            if message.bytes.len() > MESSAGE_BYTES_MAX {
                self.counters.too_large += 1;
                continue;
            }
            self.deliver(now, stream, message.ppid, message.bytes, events);
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
        let timer = self.association.as_ref().and_then(|association| association.poll_timeout());
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
        let association = self.association.as_mut().ok_or(SendDataError::NotOpen)?;
        if association.write(now, stream, ppid, bytes) { Ok(()) } else { Err(SendDataError::NotOpen) }
    }

    /// Bytes of a channel that are not acknowledged yet.
    pub(crate) fn buffered_bytes(&mut self, id: ChannelId) -> usize {
        let Some(stream) = self.sending_stream(id) else { return 0 };
        self.association.as_mut().map_or(0, |association| association.buffered_bytes(stream))
    }

    /// Closes a channel by resetting its stream (RFC 8831 §6.7); [`ChannelEvent::Closed`] follows.
    pub(crate) fn close_channel(&mut self, now: Instant, id: ChannelId, events: &mut Vec<ChannelEvent>) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if channel.state == ChannelState::Closing {
            return;
        }
        channel.state = ChannelState::Closing;
        let reset = channel
            .stream
            .zip(self.association.as_mut())
            .is_some_and(|(stream, association)| association.reset_stream(now, stream));
        if !reset {
            self.channels.remove(&id);
            events.push(ChannelEvent::Closed { id });
        }
    }

    /// Ends the association with an ABORT, which [`Sctp::next_packet`] gives out; every channel closes.
    pub(crate) fn abort(&mut self, events: &mut Vec<ChannelEvent>) {
        if self.association.take().is_some() {
            self.urgent.extend(guard::packet_of(&self.init, self.initiate_tag, kind::ABORT));
        }
        self.forget_association(events);
    }

    /// Begins the association that an INIT asks for, or answers an INIT that comes again.
    fn receive_init(&mut self, now: Instant, packet: &[u8], events: &mut Vec<ChannelEvent>) {
        let (Some(tag), Some(initial_tsn)) = (be32(packet, INITIATE_TAG_AT), be32(packet, INITIAL_TSN_AT))
        else {
            return;
        };
        if self.association.is_some() {
            if tag == self.initiate_tag {
                // The same INIT again: the library would make a second association of it.
                if !self.established
                    && let Some(init_ack) = &self.init_ack
                {
                    self.urgent.push_back(init_ack.clone());
                }
                return;
            }
            // The peer has begun anew. It is the DTLS peer that says so, hence nobody else can end the association.
            self.forget_association(events);
        }
        self.initiate_tag = tag;
        self.init = Bytes::copy_from_slice(packet);
        self.counters.refused += self.guard.refused();
        self.guard = Guard::new(initial_tsn);
        self.association = proto::accept(now, self.init.clone());
        self.after_input(now, events);
    }

    fn receive_other(&mut self, now: Instant, packet: &[u8], events: &mut Vec<ChannelEvent>) {
        if self.association.is_none() {
            return;
        }
        if self.guard.window_is_zero() {
            self.excess_bytes = self.excess_bytes.saturating_add(packet.len() as u64);
        } else {
            self.excess_bytes = 0;
        }
        if self.excess_bytes > RECEIVE_EXCESS_BYTES_MAX {
            return self.violation(events);
        }
        if self.guard.wants_sack() || packet.get(FIRST_CHUNK_AT) == Some(&kind::RE_CONFIG) {
            // The guard knows what was received by what we acknowledge.
            self.gather(now);
        }
        match self.guard.pass(packet, !self.readable.is_empty()) {
            Ok(Some(packet)) => {
                if let Some(association) = &mut self.association {
                    association.handle_packet(now, packet);
                }
                self.after_input(now, events);
            }
            Ok(None) => {}
            Err(guard::Violation) => self.violation(events),
        }
    }

    fn violation(&mut self, events: &mut Vec<ChannelEvent>) {
        self.counters.violations += 1;
        self.abort(events);
    }

    fn forget_association(&mut self, events: &mut Vec<ChannelEvent>) {
        self.association = None;
        self.init_ack = None;
        self.established = false;
        self.excess_bytes = 0;
        self.readable.clear();
        self.paced.clear();
        for (id, _) in std::mem::take(&mut self.channels) {
            events.push(ChannelEvent::Closed { id });
        }
    }

    fn after_input(&mut self, now: Instant, events: &mut Vec<ChannelEvent>) {
        let mut closed = false;
        while let Some(event) = self.association.as_mut().and_then(|association| association.poll_event()) {
            match event {
                AssociationEvent::Connected => {
                    self.established = true;
                    self.init_ack = None;
                    self.open_waiting(now);
                }
                AssociationEvent::Ended => closed = true,
                AssociationEvent::Overfilled => {
                    self.counters.violations += 1;
                    closed = true;
                }
                AssociationEvent::StreamGone(stream) => self.stream_gone(stream, events),
                AssociationEvent::Readable(stream) => {
                    self.readable.insert(stream);
                }
                AssociationEvent::BufferedLow(stream) => {
                    if let Some(id) = self.channel_of(stream) {
                        events.push(ChannelEvent::BufferedLow { id });
                    }
                }
                AssociationEvent::ResetFailed => self.guard.request_given_up(),
            }
        }
        let Some(association) = &mut self.association else { return };
        if association.stream_count() > STREAMS_OPEN_MAX {
            return self.violation(events);
        }
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
        let Some(association) = &mut self.association else { return };
        let ready = association.set_reliability(stream, open.ordered, open.reliability)
            && association.write(now, stream, Ppid::Dcep, &dcep::ACK);
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
        if let Some(association) = &mut self.association {
            association.set_reliability(stream, open.ordered, open.reliability);
        }
        events.push(ChannelEvent::Opened { id, open });
    }

    fn open_waiting(&mut self, now: Instant) {
        let Some(association) = &mut self.association else { return };
        let mut stream_id = self.parity;
        for channel in self.channels.values_mut().filter(|channel| channel.state == ChannelState::Waiting) {
            // At most `STREAMS_OPEN_MAX` are in use.
            while association.has_stream(stream_id) {
                stream_id = stream_id.saturating_add(2);
            }
            if association.open_stream(stream_id)
                && association.write(now, stream_id, Ppid::Dcep, &channel.open.to_bytes())
            {
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
        if let Some(association) = &mut self.association {
            association.reset_stream(now, stream);
        }
    }

    fn gather(&mut self, now: Instant) {
        let Some(association) = &mut self.association else { return };
        for packet in association.poll_packets(now) {
            let packet = self.guard.sent(packet);
            match packet.get(FIRST_CHUNK_AT) {
                Some(&kind::DATA) => {
                    self.paced.push_back(packet);
                    continue;
                }
                Some(&kind::INIT_ACK) => self.init_ack = Some(packet.clone()),
                _ => {}
            }
            self.urgent.push_back(packet);
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
        let Some(association) = &mut self.association else { return 0 };
        let streams = self.channels.values().filter_map(|channel| channel.stream);
        streams.map(|stream| association.buffered_bytes(stream)).fold(0, usize::saturating_add)
    }
}

#[cfg(test)]
mod tests;
