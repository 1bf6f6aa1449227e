//! A peer made by hand, for tests, fuzzing and benchmarks: it sends what no honest stack sends.

use super::guard::{be32, checksum, kind};
use super::{ChannelEvent, ChannelId, Sctp, SctpCounters};
use crate::dcep::{Open, Reliability};
use std::time::{Duration, Instant};

/// Initiate tag of the peer.
pub const PEER_TAG: u32 = 0x0102_0304;
/// First TSN of the peer.
pub const FIRST_TSN: u32 = 1_000;
/// Supported extensions (RFC 5061 §4.2.7): RE-CONFIG and FORWARD TSN.
pub const EXTENSIONS: [u8; 8] = [0x80, 8, 0, 6, 130, 192, 0, 0];

const HEADER_BYTES: usize = 12;
/// Messages read between two packets.
const READ_MAX: usize = 1_000;

/// Our side of an association, and what the peer at the other end has to know.
pub struct HandmadePeer {
    pub(super) sctp: Sctp,
    /// The clock, moved by [`HandmadePeer::pass`].
    pub(super) now: Instant,
    /// The verification tag that we expect.
    pub tag: u32,
    /// TSN of the peer's next DATA chunk.
    pub tsn: u32,
    /// First TSN of ours.
    pub first_tsn: u32,
    pub(super) events: Vec<ChannelEvent>,
}

impl HandmadePeer {
    /// Before the handshake.
    pub fn new(now: Instant) -> Self {
        let (sctp, events) = (Sctp::new(), Vec::new());
        Self { sctp, now, tag: 0, tsn: FIRST_TSN, first_tsn: 0, events }
    }

    /// After a handshake in which the peer said that its TSNs begin at `first_tsn`.
    pub fn established(now: Instant, first_tsn: u32) -> Self {
        let mut peer = Self::new(now);
        let answers = peer.feed(&init(PEER_TAG, first_tsn, &EXTENSIONS));
        peer.tsn = first_tsn;
        if let Some(init_ack) = answers.first() {
            peer.finish(init_ack);
        }
        peer
    }

    /// Answers our INIT ACK.
    pub fn finish(&mut self, init_ack: &[u8]) -> Vec<Vec<u8>> {
        let Some(ack) = InitAck::read(init_ack) else { return Vec::new() };
        (self.tag, self.first_tsn) = (ack.tag, ack.first_tsn);
        self.feed(&packet(ack.tag, &[chunk(kind::COOKIE_ECHO, 0, ack.cookie)]))
    }

    /// Gives us a packet of these chunks, and gives back what we send for it.
    pub fn feed_chunks(&mut self, chunks: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.feed(&packet(self.tag, chunks))
    }

    /// Sends one DATA chunk with the next TSN (see [`data`]).
    pub fn send(&mut self, stream: u16, flags: u8, ppid: u32, bytes: &[u8]) -> Vec<Vec<u8>> {
        let chunk = data(self.tsn, stream, flags, ppid, bytes);
        self.tsn = self.tsn.wrapping_add(1);
        self.feed_chunks(&[chunk])
    }

    /// Gives us a packet, and gives back what we send for it.
    pub fn feed(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.take(packet);
        self.poll()
    }

    /// Gives us a packet that is not the last of its turn.
    pub fn take(&mut self, packet: &[u8]) {
        self.sctp.receive(self.now, packet, &mut self.events);
        self.sctp.read(self.now, READ_MAX, &mut self.events);
    }

    /// What we send now.
    pub fn poll(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.sctp.next_packet(self.now)).map(|packet| packet.to_vec()).collect()
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.sctp.tick(self.now, &mut self.events);
    }

    /// Opens a channel from our side.
    pub fn open(&mut self) -> Option<ChannelId> {
        let reliability = Reliability::Retransmits(1);
        let open = Open { ordered: true, reliability, label: "l".to_string(), protocol: String::new() };
        self.sctp.open(self.now, open)
    }

    /// Sends a message from our side, if there is room.
    pub fn send_ours(&mut self, id: ChannelId, bytes: &[u8]) -> bool {
        self.sctp.send(self.now, id, true, bytes).is_ok()
    }

    /// Whether the association stands, or has not begun.
    pub fn is_ended(&self) -> bool {
        self.sctp.association.is_none()
    }

    /// What was left out.
    pub fn counters(&self) -> SctpCounters {
        self.sctp.counters()
    }

    /// Forgets what channels told.
    pub fn clear_events(&mut self) {
        self.events.clear();
    }
}

/// What a peer needs of our INIT ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitAck<'a> {
    /// The verification tag that we expect.
    pub tag: u32,
    /// First TSN of ours.
    pub first_tsn: u32,
    /// To be sent back in a COOKIE ECHO.
    pub cookie: &'a [u8],
}

impl<'a> InitAck<'a> {
    /// Reads a packet that begins with an INIT ACK.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        if packet.get(HEADER_BYTES) != Some(&kind::INIT_ACK) {
            return None;
        }
        let (tag, first_tsn) = (be32(packet, 16)?, be32(packet, 28)?);
        let mut parameters = packet.get(32..)?;
        while let Some(&[k0, k1, high, low]) = parameters.first_chunk() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            if [k0, k1] == [0, 7] {
                return Some(Self { tag, first_tsn, cookie: parameters.get(4..len)? });
            }
            parameters = parameters.get(len.max(4).next_multiple_of(4)..)?;
        }
        None
    }
}

/// A packet with the right checksum.
pub fn packet(tag: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = vec![0x13, 0x88, 0x13, 0x88];
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    for chunk in chunks {
        packet.extend(chunk);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    seal(&mut packet);
    packet
}

/// Writes the checksum of a packet.
pub fn seal(packet: &mut [u8]) {
    if let Some(place) = packet.get_mut(8..HEADER_BYTES) {
        place.fill(0);
        let checksum = checksum(packet);
        if let Some(place) = packet.get_mut(8..HEADER_BYTES) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// A chunk, without its padding.
pub fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend((value.len() as u16 + 4).to_be_bytes());
    chunk.extend(value);
    chunk
}

/// An INIT in its packet.
pub fn init(tag: u32, first_tsn: u32, parameters: &[u8]) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend(1_000_000u32.to_be_bytes());
    value.extend([4, 0, 4, 0]);
    value.extend(first_tsn.to_be_bytes());
    value.extend(parameters);
    packet(0, &[chunk(kind::INIT, 0, &value)])
}

/// A DATA chunk; flags: 1 ends a message, 2 begins one, 4 is unordered.
pub fn data(tsn: u32, stream: u16, flags: u8, ppid: u32, bytes: &[u8]) -> Vec<u8> {
    ordered_data(tsn, stream, 0, flags, ppid, bytes)
}

/// A DATA chunk with its number within the stream.
pub fn ordered_data(tsn: u32, stream: u16, number: u16, flags: u8, ppid: u32, bytes: &[u8]) -> Vec<u8> {
    let mut value = tsn.to_be_bytes().to_vec();
    value.extend(stream.to_be_bytes());
    value.extend(number.to_be_bytes());
    value.extend(ppid.to_be_bytes());
    value.extend(bytes);
    chunk(kind::DATA, flags, &value)
}

/// An outgoing reset request (RFC 6525 §4.1); the peer's first number is its first TSN.
pub fn reset_request(number: u32, answers: u32, last_tsn: u32, streams: &[u16]) -> Vec<u8> {
    let mut parameter = vec![0, 13];
    parameter.extend((16 + 2 * streams.len() as u16).to_be_bytes());
    for word in [number, answers, last_tsn] {
        parameter.extend(word.to_be_bytes());
    }
    parameter.extend(streams.iter().flat_map(|stream| stream.to_be_bytes()));
    chunk(kind::RE_CONFIG, 0, &parameter)
}
