//! Source descriptions and goodbyes (RFC 3550 §6.5, §6.6).

use crate::bytes::Reader;

/// Item types (RFC 3550 §6.5, RFC 8843 §15).
pub(super) const ITEM_CNAME: u8 = 1;
pub(super) const ITEM_MID: u8 = 15;

/// A source description packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceDescription<'a> {
    count: u8,
    body: &'a [u8],
}

impl<'a> SourceDescription<'a> {
    pub(super) const fn new(count: u8, body: &'a [u8]) -> Self {
        Self { count, body }
    }

    /// Its chunks, one per source; ends at the first malformed one.
    pub const fn chunks(&self) -> SdesChunks<'a> {
        SdesChunks { left: self.count, reader: Reader::new(self.body) }
    }
}

/// Iterator over the chunks of a source description.
#[derive(Debug, Clone)]
pub struct SdesChunks<'a> {
    left: u8,
    reader: Reader<'a>,
}

/// What is said about one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdesChunk<'a> {
    /// The source.
    pub ssrc: u32,
    items: &'a [u8],
}

impl<'a> SdesChunk<'a> {
    /// The items that are texts we use.
    pub const fn items(&self) -> SdesItems<'a> {
        SdesItems { reader: Reader::new(self.items) }
    }
}

impl<'a> Iterator for SdesChunks<'a> {
    type Item = SdesChunk<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let ssrc = self.reader.u32()?;
        let items = self.reader.rest();
        let mut len = 0_usize;
        loop {
            let item_type = self.reader.u8()?;
            if item_type == 0 {
                break;
            }
            let item_len = usize::from(self.reader.u8()?);
            self.reader.take(item_len)?;
            len = len.saturating_add(2).saturating_add(item_len);
        }
        // The list ends with one to four zero bytes, up to the next word; one has been read.
        let padding = 3_usize.saturating_sub(len & 3);
        self.reader.take(padding)?;
        Some(SdesChunk { ssrc, items: items.get(..len)? })
    }
}

/// One item about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SdesItem<'a> {
    /// Canonical name.
    Cname(&'a str),
    /// Media identification.
    Mid(&'a str),
}

/// Iterator over the known items of a chunk.
#[derive(Debug, Clone)]
pub struct SdesItems<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for SdesItems<'a> {
    type Item = SdesItem<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let item_type = self.reader.u8()?;
            let len = usize::from(self.reader.u8()?);
            let value = self.reader.take(len)?;
            match (item_type, std::str::from_utf8(value)) {
                (ITEM_CNAME, Ok(text)) => return Some(SdesItem::Cname(text)),
                (ITEM_MID, Ok(text)) => return Some(SdesItem::Mid(text)),
                _ => {}
            }
        }
    }
}

/// Sources that leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bye<'a> {
    ssrcs: &'a [[u8; 4]],
}

impl<'a> Bye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let (words, _) = body.as_chunks::<4>();
        words.get(..usize::from(count)).map(|ssrcs| Self { ssrcs })
    }

    /// The sources.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + 'a {
        self.ssrcs.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }
}
