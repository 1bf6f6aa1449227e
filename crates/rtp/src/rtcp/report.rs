//! Sender and receiver reports (RFC 3550 §6.4).

use crate::bytes::Reader;

/// Length of a report block in bytes.
pub(super) const BLOCK_LEN: usize = 24;

/// What a receiver says about one stream (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The stream reported on.
    pub ssrc: u32,
    /// Share of packets lost since the report before, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning, 24 bits signed: duplicates make it negative.
    pub cumulative_lost: i32,
    /// Highest sequence number received, wrap-arounds counted in the upper half.
    pub highest_sequence: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the NTP timestamp of the last sender report, 0 without one.
    pub last_sr: u32,
    /// Time since that report in 1/65,536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn parse(bytes: &[u8; BLOCK_LEN]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            ssrc: reader.u32()?,
            fraction_lost: reader.u8()?,
            // Sign-extends the 24 bits.
            cumulative_lost: ((reader.u24()? << 8) as i32) >> 8,
            highest_sequence: reader.u32()?,
            jitter: reader.u32()?,
            last_sr: reader.u32()?,
            delay_since_last_sr: reader.u32()?,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.ssrc.to_be_bytes());
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff);
        let [_, a, b, c] = lost.to_be_bytes();
        out.extend([self.fraction_lost, a, b, c]);
        for word in [self.highest_sequence, self.jitter, self.last_sr, self.delay_since_last_sr] {
            out.extend(word.to_be_bytes());
        }
    }
}

/// The report blocks of a packet, not yet read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlocks<'a> {
    blocks: &'a [[u8; BLOCK_LEN]],
}

impl<'a> ReportBlocks<'a> {
    fn parse(count: u8, bytes: &'a [u8]) -> Option<Self> {
        let (blocks, _) = bytes.as_chunks::<BLOCK_LEN>();
        blocks.get(..usize::from(count)).map(|blocks| Self { blocks })
    }

    /// The blocks in wire order.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        self.blocks.iter().filter_map(ReportBlock::parse)
    }

    /// Number of blocks.
    pub const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// The sender's part of a sender report (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// When the report was sent, a 32.32 NTP timestamp.
    pub ntp: u64,
    /// The same moment in timestamp units of the stream.
    pub rtp_timestamp: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Bytes of payload sent so far, headers and padding not counted.
    pub octets: u32,
}

/// A sender report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport<'a> {
    /// The sender.
    pub ssrc: u32,
    /// What it sent.
    pub info: SenderInfo,
    /// What it received.
    pub reports: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(Self {
            ssrc: reader.u32()?,
            info: SenderInfo {
                ntp: reader.u64()?,
                rtp_timestamp: reader.u32()?,
                packets: reader.u32()?,
                octets: reader.u32()?,
            },
            reports: ReportBlocks::parse(count, reader.rest())?,
        })
    }
}

/// A receiver report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverReport<'a> {
    /// The receiver.
    pub ssrc: u32,
    /// What it received.
    pub reports: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(Self { ssrc: reader.u32()?, reports: ReportBlocks::parse(count, reader.rest())? })
    }
}
