//! Feedback about loss, pictures and bitrate (RFC 4585, RFC 5104, draft-alvestrand-rmcat-remb-03).

use crate::bytes::Reader;

/// Packets to send again (RFC 4585 §6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    /// The stream whose packets are missing.
    pub media_ssrc: u32,
    pairs: &'a [[u8; 4]],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (sender_ssrc, media_ssrc) = (reader.u32()?, reader.u32()?);
        let (pairs, _) = reader.rest().as_chunks::<4>();
        Some(Self { sender_ssrc, media_ssrc, pairs })
    }

    /// The missing sequence numbers in wire order.
    pub fn sequences(&self) -> impl Iterator<Item = u16> + 'a {
        self.pairs.iter().flat_map(|[a, b, c, d]| {
            let (first, following) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            std::iter::once(first).chain(
                (0..16_u16)
                    .filter(move |bit| following & (1 << bit) != 0)
                    .map(move |bit| first.wrapping_add(bit).wrapping_add(1)),
            )
        })
    }
}

/// A picture was lost (RFC 4585 §6.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pli {
    /// Who asks.
    pub sender_ssrc: u32,
    /// The stream that needs a key frame.
    pub media_ssrc: u32,
}

impl Pli {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        Some(Self { sender_ssrc: reader.u32()?, media_ssrc: reader.u32()? })
    }
}

/// Key frames wanted (RFC 5104 §4.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fir<'a> {
    /// Who asks.
    pub sender_ssrc: u32,
    entries: &'a [[u8; 8]],
}

/// One request of a [`Fir`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirEntry {
    /// The stream that needs a key frame.
    pub ssrc: u32,
    /// Grows with each new request; equal numbers are repetitions.
    pub sequence: u8,
}

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (sender_ssrc, _unused) = (reader.u32()?, reader.u32()?);
        let (entries, _) = reader.rest().as_chunks::<8>();
        Some(Self { sender_ssrc, entries })
    }

    /// The requests in wire order.
    pub fn entries(&self) -> impl Iterator<Item = FirEntry> + 'a {
        self.entries.iter().map(|[a, b, c, d, sequence, ..]| FirEntry {
            ssrc: u32::from_be_bytes([*a, *b, *c, *d]),
            sequence: *sequence,
        })
    }
}

/// The bitrate a receiver thinks it can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remb<'a> {
    /// Who says it.
    pub sender_ssrc: u32,
    /// The limit for all streams together, in bits per second.
    pub bitrate_bps: u64,
    ssrcs: &'a [[u8; 4]],
}

impl<'a> Remb<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let (sender_ssrc, _unused) = (reader.u32()?, reader.u32()?);
        if reader.array()? != *b"REMB" {
            return None;
        }
        let count = usize::from(reader.u8()?);
        let packed = reader.u24()?;
        let (exponent, mantissa) = (packed >> 18, u64::from(packed & 0x3_ffff));
        // 64 bits and more would be sent only to confuse: the largest number stands for them.
        let bitrate_bps = match mantissa.leading_zeros() {
            zeros if zeros < exponent => u64::MAX,
            _ => mantissa.checked_shl(exponent).unwrap_or(0),
        };
        let (words, _) = reader.rest().as_chunks::<4>();
        Some(Self { sender_ssrc, bitrate_bps, ssrcs: words.get(..count)? })
    }

    /// The streams it is about.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + 'a {
        self.ssrcs.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }
}
