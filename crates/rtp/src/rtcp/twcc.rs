//! The transport-wide congestion control feedback message, draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1.

use crate::bytes::Reader;

/// What the two symbol bits of a packet say; 3 is reserved.
pub(crate) const NOT_RECEIVED: u8 = 0;
pub(crate) const SMALL_DELTA: u8 = 1;
pub(crate) const LARGE_DELTA: u8 = 2;
/// Packets in one run-length chunk: 13 bits.
pub(crate) const RUN_MAX: usize = 0x1fff;

/// Which packets of the whole transport arrived, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportFeedback<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// A stream of the transport; without meaning.
    pub media_ssrc: u32,
    /// Number of the first packet reported on.
    pub base_sequence: u16,
    /// How many packets are reported on.
    pub packet_count: u16,
    /// Start of the time deltas in 64 ms, 24 bits signed.
    pub reference_time: i32,
    /// Counts feedback messages, wrapping.
    pub feedback_count: u8,
    chunks: &'a [[u8; 2]],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (sender_ssrc, media_ssrc) = (reader.u32()?, reader.u32()?);
        let (base_sequence, packet_count) = (reader.u16()?, reader.u16()?);
        let reference_time = ((reader.u24()? << 8) as i32) >> 8;
        let feedback_count = reader.u8()?;
        let (words, _) = reader.rest().as_chunks::<2>();
        let mut covered = 0_usize;
        let mut deltas_len = 0_usize;
        let mut chunks = 0_usize;
        while covered < usize::from(packet_count) {
            let chunk = Chunk::new(*words.get(chunks)?);
            chunks = chunks.saturating_add(1);
            let reported = chunk.len().min(usize::from(packet_count).saturating_sub(covered));
            deltas_len = deltas_len.saturating_add(chunk.deltas_len(reported));
            covered = covered.saturating_add(reported);
        }
        let (chunks, _) = words.split_at_checked(chunks)?;
        let deltas = reader.rest().get(chunks.len().saturating_mul(2)..)?;
        Some(Self {
            sender_ssrc,
            media_ssrc,
            base_sequence,
            packet_count,
            reference_time,
            feedback_count,
            chunks,
            deltas: deltas.get(..deltas_len)?,
        })
    }

    /// Every packet reported on: its number and, when it arrived, the time in 250 µs since the reference time's
    /// origin (24-bit reference time × 256 plus deltas).
    pub fn statuses(&self) -> StatusIter<'a> {
        StatusIter {
            chunks: self.chunks.iter(),
            chunk: None,
            position: 0,
            left: self.packet_count,
            sequence: self.base_sequence,
            ticks: i64::from(self.reference_time).saturating_mul(256),
            deltas: Reader::new(self.deltas),
        }
    }
}

/// Iterator over (number, arrival in 250 µs ticks) of a feedback message.
#[derive(Debug, Clone)]
pub struct StatusIter<'a> {
    chunks: std::slice::Iter<'a, [u8; 2]>,
    chunk: Option<Chunk>,
    position: usize,
    left: u16,
    sequence: u16,
    ticks: i64,
    deltas: Reader<'a>,
}

impl Iterator for StatusIter<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let chunk = match self.chunk {
            Some(chunk) if self.position < chunk.len() => chunk,
            _ => {
                self.position = 0;
                *self.chunk.insert(Chunk::new(*self.chunks.next()?))
            }
        };
        let symbol = chunk.symbol(self.position);
        self.position = self.position.saturating_add(1);
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let delta = match symbol {
            SMALL_DELTA => Some(i64::from(self.deltas.u8()?)),
            LARGE_DELTA => Some(i64::from(self.deltas.u16()? as i16)),
            _ => None,
        };
        self.ticks = self.ticks.saturating_add(delta.unwrap_or(0));
        Some((sequence, delta.map(|_| self.ticks)))
    }
}

/// A packet status chunk (§3.1.2 to §3.1.4).
#[derive(Debug, Clone, Copy)]
enum Chunk {
    Run { symbol: u8, len: u16 },
    OneBit { symbols: u16 },
    TwoBits { symbols: u16 },
}

impl Chunk {
    const fn new(bytes: [u8; 2]) -> Self {
        let word = u16::from_be_bytes(bytes);
        if word & 0x8000 == 0 {
            Self::Run { symbol: (word >> 13) as u8 & 3, len: word & 0x1fff }
        } else if word & 0x4000 == 0 {
            Self::OneBit { symbols: word & 0x3fff }
        } else {
            Self::TwoBits { symbols: word & 0x3fff }
        }
    }

    const fn len(self) -> usize {
        match self {
            // An empty run counts as one packet not received, so that every chunk makes progress.
            Self::Run { len: 0, .. } => 1,
            Self::Run { len, .. } => len as usize,
            Self::OneBit { .. } => 14,
            Self::TwoBits { .. } => 7,
        }
    }

    fn symbol(self, position: usize) -> u8 {
        match self {
            Self::Run { len: 0, .. } => NOT_RECEIVED,
            Self::Run { symbol, .. } => symbol,
            Self::OneBit { symbols } => {
                let shift = 13_u32.saturating_sub(position as u32);
                (symbols.checked_shr(shift).unwrap_or(0) & 1) as u8
            }
            Self::TwoBits { symbols } => {
                let shift = 12_u32.saturating_sub((position as u32).saturating_mul(2));
                (symbols.checked_shr(shift).unwrap_or(0) & 3) as u8
            }
        }
    }

    /// Bytes of delta that the first so many packets of this chunk take.
    fn deltas_len(self, packets: usize) -> usize {
        let len = |symbol| match symbol {
            SMALL_DELTA => 1,
            LARGE_DELTA => 2,
            _ => 0,
        };
        match self {
            Self::Run { .. } => packets.saturating_mul(len(self.symbol(0))),
            _ => (0..packets).map(|position| len(self.symbol(position))).sum(),
        }
    }
}
