//! Extended reports (RFC 3611): those that measure the round trip of a receiver that sends nothing.

use crate::bytes::Reader;

/// Block types (RFC 3611 §4.4, §4.5).
pub(super) const BLOCK_RRTR: u8 = 4;
pub(super) const BLOCK_DLRR: u8 = 5;

/// An extended report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    blocks: &'a [u8],
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(Self { ssrc: reader.u32()?, blocks: reader.rest() })
    }

    /// The blocks of known types; ends at the first malformed one.
    pub const fn blocks(&self) -> XrBlocks<'a> {
        XrBlocks { reader: Reader::new(self.blocks) }
    }
}

/// Iterator over the blocks of an extended report.
#[derive(Debug, Clone)]
pub struct XrBlocks<'a> {
    reader: Reader<'a>,
}

/// A block of an extended report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XrBlock<'a> {
    /// Receiver reference time: a 32.32 NTP timestamp to be echoed.
    ReceiverReferenceTime {
        /// When the report was sent.
        ntp: u64,
    },
    /// Delay since the last receiver reference time: the echoes.
    Dlrr(Dlrr<'a>),
}

/// Echoes of receiver reference times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dlrr<'a> {
    entries: &'a [[u8; 12]],
}

impl<'a> Dlrr<'a> {
    /// (receiver's ssrc, middle 32 bits of its reference time, time since then in 1/65,536 s).
    pub fn entries(&self) -> impl Iterator<Item = (u32, u32, u32)> + 'a {
        self.entries.iter().filter_map(|bytes| {
            let mut reader = Reader::new(bytes);
            Some((reader.u32()?, reader.u32()?, reader.u32()?))
        })
    }
}

impl<'a> Iterator for XrBlocks<'a> {
    type Item = XrBlock<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let [block_type, _] = self.reader.array()?;
            let len = usize::from(self.reader.u16()?).saturating_mul(4);
            let mut body = Reader::new(self.reader.take(len)?);
            match block_type {
                BLOCK_RRTR => return Some(XrBlock::ReceiverReferenceTime { ntp: body.u64()? }),
                BLOCK_DLRR => {
                    let (entries, _) = body.rest().as_chunks::<12>();
                    return Some(XrBlock::Dlrr(Dlrr { entries }));
                }
                _ => {}
            }
        }
    }
}
