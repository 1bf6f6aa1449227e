//! Writing RTCP.

use super::report::{ReportBlock, SenderInfo};
use super::sdes::{ITEM_CNAME, ITEM_MID};
use super::{feedback_type, packet_type, xr};

/// Report blocks, chunks or sources that the 5-bit count of one packet allows.
const COUNT_MAX: usize = 31;
/// Longest text of an SDES item.
const ITEM_MAX_BYTES: usize = 255;

/// Appends RTCP packets to a buffer; what does not fit one packet's count goes into several.
///
/// The caller keeps a compound below its MTU.
#[derive(Debug)]
pub struct RtcpWriter<'a> {
    out: &'a mut Vec<u8>,
}

/// What to say about one source in a source description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdesSource<'a> {
    /// The source.
    pub ssrc: u32,
    /// Canonical name.
    pub cname: &'a str,
    /// Media identification, SDES item 15.
    pub mid: Option<&'a str>,
}

impl<'a> RtcpWriter<'a> {
    /// Writes behind what `out` holds.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// SR with at most 31 report blocks; further ones follow in RRs.
    pub fn sender_report(&mut self, ssrc: u32, info: &SenderInfo, reports: &[ReportBlock]) {
        let (first, rest) = reports.split_at(reports.len().min(COUNT_MAX));
        self.packet(first.len() as u8, packet_type::SR, |out| {
            out.extend(ssrc.to_be_bytes());
            out.extend(info.ntp.to_be_bytes());
            for word in [info.rtp_timestamp, info.packets, info.octets] {
                out.extend(word.to_be_bytes());
            }
            first.iter().for_each(|block| block.write(out));
        });
        if !rest.is_empty() {
            self.receiver_report(ssrc, rest);
        }
    }

    /// RR, also without blocks; one packet per 31 blocks.
    pub fn receiver_report(&mut self, ssrc: u32, reports: &[ReportBlock]) {
        let (first, rest) = reports.split_at(reports.len().min(COUNT_MAX));
        for blocks in std::iter::once(first).chain(rest.chunks(COUNT_MAX)) {
            self.packet(blocks.len() as u8, packet_type::RR, |out| {
                out.extend(ssrc.to_be_bytes());
                blocks.iter().for_each(|block| block.write(out));
            });
        }
    }

    /// SDES, one packet per 31 sources.
    pub fn source_description(&mut self, sources: &[SdesSource<'_>]) {
        for sources in sources.chunks(COUNT_MAX) {
            self.packet(sources.len() as u8, packet_type::SDES, |out| {
                for source in sources {
                    let start = out.len();
                    out.extend(source.ssrc.to_be_bytes());
                    write_item(out, ITEM_CNAME, source.cname);
                    if let Some(mid) = source.mid {
                        write_item(out, ITEM_MID, mid);
                    }
                    // One to four zero bytes end the chunk on a word.
                    let len = out.len().saturating_sub(start);
                    let padding = 4_usize.saturating_sub(len & 3);
                    out.extend(std::iter::repeat_n(0, padding));
                }
            });
        }
    }

    /// BYE without a reason, one packet per 31 sources.
    pub fn bye(&mut self, ssrcs: &[u32]) {
        for ssrcs in ssrcs.chunks(COUNT_MAX) {
            self.packet(ssrcs.len() as u8, packet_type::BYE, |out| {
                out.extend(ssrcs.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
            });
        }
    }

    /// Generic NACK for sequence numbers in ascending (wrapping) order; nothing for none.
    pub fn nack(&mut self, sender_ssrc: u32, media_ssrc: u32, sequences: &[u16]) {
        if sequences.is_empty() {
            return;
        }
        self.feedback(packet_type::RTPFB, feedback_type::NACK, sender_ssrc, media_ssrc, |out| {
            let mut pair: Option<(u16, u16)> = None;
            for sequence in sequences {
                pair = match pair {
                    Some((first, following)) => {
                        let distance = sequence.wrapping_sub(first);
                        match distance.checked_sub(1) {
                            None => Some((first, following)),
                            Some(bit) if bit < 16 => Some((first, following | (1 << bit))),
                            Some(_) => {
                                write_pair(out, first, following);
                                Some((*sequence, 0))
                            }
                        }
                    }
                    None => Some((*sequence, 0)),
                };
            }
            if let Some((first, following)) = pair {
                write_pair(out, first, following);
            }
        });
    }

    /// PLI.
    pub fn pli(&mut self, sender_ssrc: u32, media_ssrc: u32) {
        self.feedback(packet_type::PSFB, feedback_type::PLI, sender_ssrc, media_ssrc, |_| {});
    }

    /// FIR for one stream; `sequence` grows with each new request.
    pub fn fir(&mut self, sender_ssrc: u32, media_ssrc: u32, sequence: u8) {
        // RFC 5104 §4.3.1.2: the media source of the common header is unused and 0.
        self.feedback(packet_type::PSFB, feedback_type::FIR, sender_ssrc, 0, |out| {
            out.extend(media_ssrc.to_be_bytes());
            out.extend([sequence, 0, 0, 0]);
        });
    }

    /// REMB about at most 255 streams.
    pub fn remb(&mut self, sender_ssrc: u32, bitrate_bps: u64, ssrcs: &[u32]) {
        let ssrcs = ssrcs.get(..255).unwrap_or(ssrcs);
        self.feedback(packet_type::PSFB, feedback_type::APPLICATION, sender_ssrc, 0, |out| {
            let exponent = 46_u32.saturating_sub(bitrate_bps.leading_zeros());
            let mantissa = bitrate_bps.checked_shr(exponent).unwrap_or(0) as u32;
            let [_, a, b, c] = ((exponent << 18) | (mantissa & 0x3_ffff)).to_be_bytes();
            out.extend(*b"REMB");
            out.extend([ssrcs.len() as u8, a, b, c]);
            out.extend(ssrcs.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
        });
    }

    /// XR with a receiver reference time.
    pub fn receiver_reference_time(&mut self, ssrc: u32, ntp: u64) {
        self.packet(0, packet_type::XR, |out| {
            out.extend(ssrc.to_be_bytes());
            out.extend([xr::BLOCK_RRTR, 0, 0, 2]);
            out.extend(ntp.to_be_bytes());
        });
    }

    /// XR with the echo of one receiver reference time: the receiver, the middle 32 bits of its time, and the time
    /// since then in 1/65,536 s.
    pub fn dlrr(&mut self, ssrc: u32, receiver_ssrc: u32, last_rr: u32, delay_since_last_rr: u32) {
        self.packet(0, packet_type::XR, |out| {
            out.extend(ssrc.to_be_bytes());
            out.extend([xr::BLOCK_DLRR, 0, 0, 3]);
            for word in [receiver_ssrc, last_rr, delay_since_last_rr] {
                out.extend(word.to_be_bytes());
            }
        });
    }

    /// Transport-wide feedback whose part behind the SSRCs is written by `body`.
    pub(crate) fn transport_feedback(
        &mut self,
        sender_ssrc: u32,
        media_ssrc: u32,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.feedback(packet_type::RTPFB, feedback_type::TRANSPORT_CC, sender_ssrc, media_ssrc, body);
    }

    fn feedback(
        &mut self,
        packet_type: u8,
        format: u8,
        sender_ssrc: u32,
        media_ssrc: u32,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.packet(format, packet_type, |out| {
            out.extend(sender_ssrc.to_be_bytes());
            out.extend(media_ssrc.to_be_bytes());
            body(out);
        });
    }

    /// Writes the common header around a body, padding it to whole words.
    fn packet(&mut self, count: u8, packet_type: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend([0x80 | count, packet_type, 0, 0]);
        body(self.out);
        let padding = self.out.len().saturating_sub(start).wrapping_neg() & 3;
        if let Some(zeros) = padding.checked_sub(1) {
            self.out.extend(std::iter::repeat_n(0, zeros));
            self.out.push(padding as u8);
        }
        let words = (self.out.len().saturating_sub(start) / 4).saturating_sub(1) as u16;
        let flags = if padding == 0 { 0x80 } else { 0xa0 };
        if let Some(header) = self.out.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            let [a, b] = words.to_be_bytes();
            *header = [flags | count, packet_type, a, b];
        }
    }
}

fn write_pair(out: &mut Vec<u8>, first: u16, following: u16) {
    out.extend(first.to_be_bytes());
    out.extend(following.to_be_bytes());
}

/// Writes an item, cut at a character boundary when it is too long.
fn write_item(out: &mut Vec<u8>, item_type: u8, text: &str) {
    let end = text.floor_char_boundary(ITEM_MAX_BYTES);
    let text = text.get(..end).unwrap_or_default();
    out.extend([item_type, text.len() as u8]);
    out.extend(text.as_bytes());
}
