//! What of a peer's packets reaches the SCTP library, so that no packet costs more than its bytes are worth.
//!
//! The library keeps received chunks in sorted lists and looks through them for every chunk, keeps what it is asked to
//! do until the peer answers, and walks what a peer names. Each of these is bounded here, in front of it. What is left
//! out is left out by the rules of RFC 9260 §3.2, as if lost: an honest peer sends it again.

use super::check::{HEADER_BYTES, RawChunk, chunks};
use crate::limits::{
    FORWARDED_STREAMS_MAX, HEARTBEAT_BYTES_MAX, RECEIVE_WINDOW_BYTES, SCTP_DUPLICATES_MAX,
    SCTP_GAPS_SENT_MAX, SCTP_HELD_CHUNKS_MAX, SCTP_PACKET_WORK_MAX, SCTP_RECEIVED_BYTES_MAX,
    SCTP_SACK_EVERY_CHUNKS, SCTP_TSN_WINDOW, STREAMS_OPEN_MAX,
};
use bytes::Bytes;
use crc::{CRC_32_ISCSI, Crc, Table};

/// Chunk types (RFC 9260 §3.2, RFC 6525 §3, RFC 3758 §3.2).
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const INIT: u8 = 1;
    pub(in super::super) const INIT_ACK: u8 = 2;
    pub(in super::super) const SACK: u8 = 3;
    pub(in super::super) const HEARTBEAT: u8 = 4;
    pub(in super::super) const ABORT: u8 = 6;
    pub(in super::super) const SHUTDOWN: u8 = 7;
    pub(in super::super) const SHUTDOWN_ACK: u8 = 8;
    #[cfg(test)]
    pub(in super::super) const ERROR: u8 = 9;
    pub(in super::super) const COOKIE_ECHO: u8 = 10;
    pub(in super::super) const SHUTDOWN_COMPLETE: u8 = 14;
    pub(in super::super) const RE_CONFIG: u8 = 130;
    pub(in super::super) const FORWARD_TSN: u8 = 192;
}

/// The I bit of a DATA chunk: acknowledge at once (RFC 7053).
const IMMEDIATE: u8 = 8;
/// Set where a receiver that does not know the chunk type skips the chunk alone, not the rest of the packet.
const SKIP_IF_UNKNOWN: u8 = 0x80;
/// Parameters of RE-CONFIG (RFC 6525 §4).
const OUTGOING_RESET: u16 = 13;
const RECONFIG_RESPONSE: u16 = 16;
const RESULT_IN_PROGRESS: u32 = 6;

const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// The peer sent what no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation;

/// Follows one association by the packets that pass.
#[derive(Debug)]
pub(super) struct Guard {
    /// Up to here everything was received, as our last SACK or a FORWARD TSN said.
    cumulative: u32,
    /// The gap blocks of our last SACK, as offsets from `sack_base`.
    sack_base: u32,
    gaps: Vec<(u16, u16)>,
    since_sack: SinceSack,
    /// Chunks that the library holds and nobody has read yet; may be too high, never too low.
    held: usize,
    /// No room for data was announced.
    window_zero: bool,
    /// The request of ours that the peer has not answered.
    our_request: Option<u32>,
    /// The last request of the peer that passed.
    peer_request: Option<u32>,
    /// Chunks and packets that were left out.
    refused: u64,
}

#[derive(Debug, Default)]
struct SinceSack {
    chunks: usize,
    duplicates: usize,
    immediate: bool,
}

impl Guard {
    /// `initial_tsn` is of the peer's INIT.
    pub(super) fn new(initial_tsn: u32) -> Self {
        let cumulative = initial_tsn.wrapping_sub(1);
        Self {
            cumulative,
            sack_base: cumulative,
            gaps: Vec::new(),
            since_sack: SinceSack::default(),
            held: 0,
            window_zero: false,
            our_request: None,
            peer_request: None,
            refused: 0,
        }
    }

    /// Chunks and packets that were left out, ever.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Our last SACK announced no room for data.
    pub(super) const fn window_is_zero(&self) -> bool {
        self.window_zero
    }

    /// A SACK should be polled before more chunks pass.
    pub(super) const fn wants_sack(&self) -> bool {
        self.since_sack.chunks >= SCTP_SACK_EVERY_CHUNKS
    }

    /// What the library may see of a packet whose lengths fit. `readable` says that whole messages wait to be read: then
    /// it is we who are behind.
    pub(super) fn pass(&mut self, packet: &[u8], readable: bool) -> Result<Option<Bytes>, Violation> {
        if packet.len() > SCTP_RECEIVED_BYTES_MAX {
            self.refused += 1;
            return Ok(None);
        }
        let data_passes = self.data_passes(packet, readable)?;
        let mut seen = [0u64; 4];
        let mut kept: Vec<&RawChunk<'_>> = Vec::new();
        let all: Vec<RawChunk<'_>> = chunks(packet).collect();
        let mut data = false;
        for chunk in &all {
            if !is_known(chunk.kind) && chunk.kind & SKIP_IF_UNKNOWN == 0 {
                break;
            }
            let keep = match chunk.kind {
                kind::DATA => data_passes && self.take_data(chunk.value),
                other => first_of_its_kind(&mut seen, other) && self.take_control(other, chunk.value),
            };
            if keep {
                data |= chunk.kind == kind::DATA;
                kept.push(chunk);
            }
        }
        let refused = all.len() - kept.len();
        self.refused += refused as u64;
        let ask = data && !self.since_sack.immediate;
        self.since_sack.immediate |= data;
        if kept.is_empty() {
            return Ok(None);
        }
        if refused == 0 && !ask {
            return Ok(Some(Bytes::copy_from_slice(packet)));
        }
        Ok(Some(rebuilt(packet, &kept, ask)))
    }

    /// Chunks that were read.
    pub(super) fn read(&mut self, chunks: usize) {
        self.held = self.held.saturating_sub(chunks);
    }

    /// The library gave up a request of ours.
    pub(super) fn request_given_up(&mut self) {
        self.our_request = None;
    }

    /// Learns from a packet of ours, and gives it back so that it fits one datagram.
    pub(super) fn sent(&mut self, packet: Bytes) -> Bytes {
        let Some(first) = chunks(&packet).next() else { return packet };
        match first.kind {
            kind::SACK => {
                if let Some(trimmed) = self.learn_sack(&packet, first.value) {
                    return trimmed;
                }
            }
            kind::RE_CONFIG => {
                for (parameter, value) in parameters(first.value) {
                    if parameter == OUTGOING_RESET {
                        self.our_request = be32(value, 0);
                    }
                }
            }
            _ => {}
        }
        packet
    }

    /// Whether the DATA chunks of this packet are taken at all. Each is compared with what is held, so that their number
    /// times that number is what the packet costs.
    fn data_passes(&self, packet: &[u8], readable: bool) -> Result<bool, Violation> {
        let mut new = 0;
        let mut next = false;
        for chunk in chunks(packet).filter(|chunk| chunk.kind == kind::DATA) {
            let Some(tsn) = be32(chunk.value, 0) else { continue };
            if !self.has(tsn) {
                new += 1;
                next |= tsn == self.cumulative.wrapping_add(1);
            }
        }
        if self.window_zero {
            return Ok(true);
        }
        if self.held + new > SCTP_HELD_CHUNKS_MAX {
            // Nobody has so many chunks under way of which none makes a message whole.
            return if readable { Ok(next) } else { Err(Violation) };
        }
        Ok(next || new * self.held <= SCTP_PACKET_WORK_MAX)
    }

    fn take_data(&mut self, value: &[u8]) -> bool {
        let Some(tsn) = be32(value, 0) else { return false };
        if self.has(tsn) {
            // Our SACK was lost: one more chunk makes the library send another.
            self.since_sack.duplicates += 1;
            return self.since_sack.duplicates <= SCTP_DUPLICATES_MAX;
        }
        if tsn.wrapping_sub(self.cumulative) > SCTP_TSN_WINDOW {
            return false;
        }
        self.since_sack.chunks += 1;
        if !self.window_zero {
            self.held += 1;
        }
        true
    }

    fn take_control(&mut self, chunk: u8, value: &[u8]) -> bool {
        match chunk {
            kind::SACK => gaps(value).is_some(),
            kind::HEARTBEAT => value.len() <= HEARTBEAT_BYTES_MAX,
            kind::ABORT
            | kind::SHUTDOWN
            | kind::SHUTDOWN_ACK
            | kind::SHUTDOWN_COMPLETE
            | kind::COOKIE_ECHO => true,
            kind::RE_CONFIG => self.take_reconfig(value),
            kind::FORWARD_TSN => self.take_forward_tsn(value),
            // An INIT never gets here; the others answer what we never send, or say what nobody has to act on.
            _ => false,
        }
    }

    /// One request at a time each way (RFC 6525 §5.1.1), and only when everything before the reset was received: the
    /// library would set the rest apart, and go through it for every chunk.
    fn take_reconfig(&mut self, value: &[u8]) -> bool {
        let mut request = None;
        for (parameter, value) in parameters(value) {
            let Some(number) = be32(value, 0) else { return false };
            match parameter {
                RECONFIG_RESPONSE => {
                    if be32(value, 4) != Some(RESULT_IN_PROGRESS) && self.our_request == Some(number) {
                        self.our_request = None;
                    }
                }
                OUTGOING_RESET => {
                    let (Some(answers), Some(last_tsn)) = (be32(value, 4), be32(value, 8)) else {
                        return false;
                    };
                    let streams = value.len().saturating_sub(12) / 2;
                    if request.is_some() || streams > STREAMS_OPEN_MAX || is_after(last_tsn, self.cumulative)
                    {
                        return false;
                    }
                    // A request says by its second number that it has seen ours.
                    if self.our_request == Some(answers) {
                        self.our_request = None;
                    }
                    request = Some(number);
                }
                _ => return false,
            }
        }
        let Some(request) = request else { return true };
        if self.our_request.is_some() && self.peer_request != Some(request) {
            return false;
        }
        self.peer_request = Some(request);
        true
    }

    fn take_forward_tsn(&mut self, value: &[u8]) -> bool {
        let Some(new) = be32(value, 0) else { return false };
        if value.len().saturating_sub(4) / 4 > FORWARDED_STREAMS_MAX {
            return false;
        }
        if is_after(new, self.cumulative) {
            self.cumulative = new;
        }
        true
    }

    /// Whether our last SACK told of this TSN.
    fn has(&self, tsn: u32) -> bool {
        if !is_after(tsn, self.cumulative) {
            return true;
        }
        let Ok(offset) = u16::try_from(tsn.wrapping_sub(self.sack_base)) else { return false };
        let at = self.gaps.partition_point(|(_, end)| *end < offset);
        self.gaps.get(at).is_some_and(|(start, _)| *start <= offset)
    }

    /// Remembers what our SACK tells; with fewer gap blocks when they would not fit.
    fn learn_sack(&mut self, packet: &[u8], value: &[u8]) -> Option<Bytes> {
        let cumulative = be32(value, 0)?;
        let window = be32(value, 4)?;
        let gaps = gaps(value)?;
        if is_after(cumulative, self.cumulative) {
            self.cumulative = cumulative;
        }
        self.sack_base = cumulative;
        self.window_zero = window == 0;
        if window == RECEIVE_WINDOW_BYTES {
            self.held = 0;
        }
        self.since_sack = SinceSack::default();
        let trimmed = (gaps.len() > SCTP_GAPS_SENT_MAX).then(|| {
            let mut chunk = packet.get(..HEADER_BYTES + 12).unwrap_or_default().to_vec();
            chunk.extend((SCTP_GAPS_SENT_MAX as u16).to_be_bytes());
            chunk.extend([0, 0]);
            for (start, end) in gaps.iter().take(SCTP_GAPS_SENT_MAX) {
                chunk.extend(start.to_be_bytes());
                chunk.extend(end.to_be_bytes());
            }
            let len = (chunk.len() - HEADER_BYTES) as u16;
            if let Some(place) = chunk.get_mut(HEADER_BYTES + 2..HEADER_BYTES + 4) {
                place.copy_from_slice(&len.to_be_bytes());
            }
            with_checksum(chunk)
        });
        self.gaps = gaps;
        trimmed
    }
}

/// A packet with this one chunk, for a peer that expects `tag` and whose INIT began with these ports.
pub(super) fn packet_of(init: &[u8], tag: u32, chunk: u8) -> Option<Bytes> {
    let [s0, s1, d0, d1] = *init.first_chunk()?;
    let mut packet = vec![d0, d1, s0, s1];
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0, 0, 4]);
    Some(with_checksum(packet))
}

/// A big-endian number of 32 bits.
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

/// CRC-32C of a packet whose checksum is zero (RFC 9260 appendix A).
pub(super) fn checksum(packet: &[u8]) -> u32 {
    CRC32C.checksum(packet)
}

/// Serial number arithmetic (RFC 1982).
const fn is_after(left: u32, right: u32) -> bool {
    let ahead = left.wrapping_sub(right);
    ahead != 0 && ahead < 1 << 31
}

const fn is_known(chunk: u8) -> bool {
    chunk <= kind::SHUTDOWN_COMPLETE || matches!(chunk, kind::RE_CONFIG | kind::FORWARD_TSN)
}

/// No packet needs two chunks of one type, but of DATA.
fn first_of_its_kind(seen: &mut [u64; 4], chunk: u8) -> bool {
    let bit = 1 << (chunk % 64);
    let word = &mut seen[usize::from(chunk / 64)];
    let first = *word & bit == 0;
    *word |= bit;
    first
}

/// The gap blocks of a SACK; `None` unless they are in order and apart, so that each TSN is looked up once.
fn gaps(value: &[u8]) -> Option<Vec<(u16, u16)>> {
    let count = usize::from(u16::from_be_bytes(*value.get(8..)?.first_chunk()?));
    let blocks = value.get(12..)?.get(..4 * count)?;
    let mut gaps = Vec::with_capacity(count);
    let mut last = 0;
    for block in blocks.chunks_exact(4) {
        let &[s0, s1, e0, e1] = block else { return None };
        let (start, end) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([e0, e1]));
        if start <= last || end < start {
            return None;
        }
        last = end;
        gaps.push((start, end));
    }
    Some(gaps)
}

/// Type and value of the parameters of a chunk whose lengths fit.
fn parameters(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let &[k0, k1, high, low] = rest.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([k0, k1]), value))
    })
}

/// The packet with these chunks only; the first DATA chunk asks to be acknowledged at once.
fn rebuilt(packet: &[u8], kept: &[&RawChunk<'_>], ask: bool) -> Bytes {
    let mut bytes = Vec::with_capacity(packet.len());
    bytes.extend_from_slice(packet.get(..HEADER_BYTES).unwrap_or_default());
    let mut ask = ask;
    for chunk in kept {
        let at = bytes.len();
        bytes.extend_from_slice(chunk.whole);
        if chunk.kind == kind::DATA
            && std::mem::take(&mut ask)
            && let Some(flags) = bytes.get_mut(at + 1)
        {
            *flags |= IMMEDIATE;
        }
    }
    with_checksum(bytes)
}

fn with_checksum(mut packet: Vec<u8>) -> Bytes {
    if let Some(place) = packet.get_mut(8..HEADER_BYTES) {
        place.fill(0);
    }
    let checksum = checksum(&packet);
    if let Some(place) = packet.get_mut(8..HEADER_BYTES) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    packet.into()
}
