//! RTCP packets: a compound is read as an iterator of borrowed packets and written by a [`RtcpWriter`].
//!
//! Reduced-size compounds (RFC 5506) are accepted, unknown packet types skipped, malformed packets skipped and counted.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod feedback;
mod report;
mod sdes;
mod twcc;
mod write;
mod xr;

pub use feedback::{Fir, FirEntry, Nack, Pli, Remb};
pub use report::{ReceiverReport, ReportBlock, ReportBlocks, SenderInfo, SenderReport};
pub use sdes::{Bye, SdesChunk, SdesChunks, SdesItem, SdesItems, SourceDescription};
pub use twcc::{StatusIter, TransportFeedback};
pub use write::{RtcpWriter, SdesSource};
pub use xr::{Dlrr, ExtendedReport, XrBlock, XrBlocks};

use crate::bytes::Reader;

/// Packet status symbols, for the builder of feedback.
pub(crate) mod status {
    pub(crate) use super::twcc::{LARGE_DELTA, NOT_RECEIVED, RUN_MAX, SMALL_DELTA};
}

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1, RFC 3611 §2).
pub mod packet_type {
    /// Sender report.
    pub const SR: u8 = 200;
    /// Receiver report.
    pub const RR: u8 = 201;
    /// Source description.
    pub const SDES: u8 = 202;
    /// Goodbye.
    pub const BYE: u8 = 203;
    /// Application-defined.
    pub const APP: u8 = 204;
    /// Transport-layer feedback.
    pub const RTPFB: u8 = 205;
    /// Payload-specific feedback.
    pub const PSFB: u8 = 206;
    /// Extended report.
    pub const XR: u8 = 207;
}

/// Feedback message types (RFC 4585 §6.2, §6.3; RFC 5104 §4.3.1; the drafts for the last two).
mod feedback_type {
    pub(super) const NACK: u8 = 1;
    pub(super) const TRANSPORT_CC: u8 = 15;
    pub(super) const PLI: u8 = 1;
    pub(super) const FIR: u8 = 4;
    pub(super) const APPLICATION: u8 = 15;
}

/// One packet of a compound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RtcpPacket<'a> {
    /// SR.
    SenderReport(SenderReport<'a>),
    /// RR.
    ReceiverReport(ReceiverReport<'a>),
    /// SDES.
    SourceDescription(SourceDescription<'a>),
    /// BYE.
    Bye(Bye<'a>),
    /// Generic NACK.
    Nack(Nack<'a>),
    /// Picture loss indication.
    Pli(Pli),
    /// Full intra request.
    Fir(Fir<'a>),
    /// Receiver estimated maximum bitrate.
    Remb(Remb<'a>),
    /// Transport-wide congestion control feedback.
    TransportFeedback(TransportFeedback<'a>),
    /// XR.
    ExtendedReport(ExtendedReport<'a>),
}

/// The packets of a compound that are of a known type, in wire order.
#[derive(Debug, Clone)]
pub struct RtcpPackets<'a> {
    reader: Reader<'a>,
    malformed: u32,
}

impl<'a> RtcpPackets<'a> {
    /// Reads a decrypted compound.
    pub const fn new(compound: &'a [u8]) -> Self {
        Self { reader: Reader::new(compound), malformed: 0 }
    }

    /// How many malformed packets the iteration has met so far; a wrong length ends it.
    pub const fn malformed(&self) -> u32 {
        self.malformed
    }

    /// The next packet of any type: (count or format, packet type, body without padding).
    fn next_raw(&mut self) -> Option<(u8, u8, &'a [u8])> {
        if self.reader.is_empty() {
            return None;
        }
        let raw = self.read_raw();
        if raw.is_none() {
            self.malformed = self.malformed.saturating_add(1);
            self.reader = Reader::new(&[]);
        }
        raw
    }

    fn read_raw(&mut self) -> Option<(u8, u8, &'a [u8])> {
        let [flags, packet_type] = self.reader.array()?;
        let body_len = usize::from(self.reader.u16()?).saturating_mul(4);
        let body = self.reader.take(body_len)?;
        if flags >> 6 != 2 {
            return None;
        }
        let padding = match flags & 0x20 {
            0 => 0,
            _ => usize::from(*body.last()?),
        };
        let body = body.get(..body.len().checked_sub(padding)?)?;
        Some((flags & 0x1f, packet_type, body))
    }
}

impl<'a> Iterator for RtcpPackets<'a> {
    type Item = RtcpPacket<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (count, packet_type, body) = self.next_raw()?;
            match parse_body(count, packet_type, body) {
                Parsed::Packet(packet) => return Some(packet),
                Parsed::Unknown => {}
                Parsed::Malformed => self.malformed = self.malformed.saturating_add(1),
            }
        }
    }
}

enum Parsed<'a> {
    Packet(RtcpPacket<'a>),
    Unknown,
    Malformed,
}

fn parse_body(count: u8, packet_type: u8, body: &[u8]) -> Parsed<'_> {
    let packet = match (packet_type, count) {
        (packet_type::SR, _) => SenderReport::parse(count, body).map(RtcpPacket::SenderReport),
        (packet_type::RR, _) => ReceiverReport::parse(count, body).map(RtcpPacket::ReceiverReport),
        (packet_type::SDES, _) => Some(RtcpPacket::SourceDescription(SourceDescription::new(count, body))),
        (packet_type::BYE, _) => Bye::parse(count, body).map(RtcpPacket::Bye),
        (packet_type::RTPFB, feedback_type::NACK) => Nack::parse(body).map(RtcpPacket::Nack),
        (packet_type::RTPFB, feedback_type::TRANSPORT_CC) => {
            TransportFeedback::parse(body).map(RtcpPacket::TransportFeedback)
        }
        (packet_type::PSFB, feedback_type::PLI) => Pli::parse(body).map(RtcpPacket::Pli),
        (packet_type::PSFB, feedback_type::FIR) => Fir::parse(body).map(RtcpPacket::Fir),
        (packet_type::PSFB, feedback_type::APPLICATION) => match Remb::parse(body) {
            Some(remb) => Some(RtcpPacket::Remb(remb)),
            None if body.get(8..12) == Some(b"REMB") => None,
            None => return Parsed::Unknown,
        },
        (packet_type::XR, _) => ExtendedReport::parse(body).map(RtcpPacket::ExtendedReport),
        _ => return Parsed::Unknown,
    };
    packet.map_or(Parsed::Malformed, Parsed::Packet)
}

#[cfg(test)]
mod tests;
