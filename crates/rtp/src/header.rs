//! The RTP header (RFC 3550 §5.1) and its extension block (RFC 8285), read and written in place.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use crate::bytes::Reader;
use std::ops::Range;

/// Length of a header without CSRCs and extensions.
pub const FIXED_LEN: usize = 12;
/// `defined by profile` value of one-byte extension elements (RFC 8285 §4.2).
pub const PROFILE_ONE_BYTE: u16 = 0xbede;
/// The same for two-byte elements (RFC 8285 §4.3); the low four bits are for the application.
pub const PROFILE_TWO_BYTE: u16 = 0x1000;
/// Highest id a one-byte element can have (RFC 8285 §4.2: 15 is reserved).
pub const ONE_BYTE_ID_MAX: u8 = 14;
/// Longest value of a one-byte element.
pub const ONE_BYTE_VALUE_MAX: usize = 16;

/// Why bytes are not an RTP packet, or a header could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// The packet ends inside its header.
    #[error("RTP packet ends inside its header")]
    Truncated,
    /// The version is not 2.
    #[error("RTP version is not 2")]
    Version,
    /// The padding length is zero or longer than the payload.
    #[error("RTP padding is longer than the payload")]
    Padding,
    /// The caller's buffer is too short for the header.
    #[error("buffer too short for the RTP header")]
    BufferFull,
    /// The id or length of an extension element does not fit its form.
    #[error("extension element does not fit its form")]
    Element,
}

/// A parsed header; offsets are relative to the packet's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Marker bit.
    pub marker: bool,
    /// Whether the packet ends in padding; its length is readable only after decryption.
    pub has_padding: bool,
    /// Payload type, 7 bits.
    pub payload_type: u8,
    /// Sequence number as on the wire.
    pub sequence: u16,
    /// Media timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Number of contributing sources.
    pub csrc_count: u8,
    /// `defined by profile` of the extension block; meaningless without one.
    pub extension_profile: u16,
    extension_start: u32,
    extension_len: u32,
    /// Length of everything before the payload, in bytes.
    pub header_len: usize,
}

impl RtpHeader {
    /// Reads the header of a packet, encrypted or not.
    pub fn parse(packet: &[u8]) -> Result<Self, RtpError> {
        let mut reader = Reader::new(packet);
        let fixed: [u8; FIXED_LEN] = reader.array().ok_or(RtpError::Truncated)?;
        let [flags, marker_and_type, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = fixed;
        if flags >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let csrc_count = flags & 0x0f;
        let csrcs_len = usize::from(csrc_count).saturating_mul(4);
        reader.take(csrcs_len).ok_or(RtpError::Truncated)?;
        let mut header_len = FIXED_LEN.saturating_add(csrcs_len);
        let mut header = Self {
            marker: marker_and_type & 0x80 != 0,
            has_padding: flags & 0x20 != 0,
            payload_type: marker_and_type & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            csrc_count,
            extension_profile: 0,
            extension_start: 0,
            extension_len: 0,
            header_len,
        };
        if flags & 0x10 != 0 {
            header.extension_profile = reader.u16().ok_or(RtpError::Truncated)?;
            let len = u32::from(reader.u16().ok_or(RtpError::Truncated)?).saturating_mul(4);
            reader.take(len as usize).ok_or(RtpError::Truncated)?;
            header_len = header_len.saturating_add(4);
            header.extension_start = header_len as u32;
            header.extension_len = len;
            header.header_len = header_len.saturating_add(len as usize);
        }
        Ok(header)
    }

    /// Where the extension elements lie, without the four bytes that introduce them; `None` without an extension
    /// block.
    pub fn extension_range(&self) -> Option<Range<usize>> {
        let start = self.extension_start as usize;
        (start != 0).then(|| start..start.saturating_add(self.extension_len as usize))
    }

    /// The extension elements in wire order. `packet` is the one this header was parsed from.
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> ExtensionElements<'a> {
        let form = match self.extension_profile {
            PROFILE_ONE_BYTE => Some(ExtensionForm::OneByte),
            profile if profile & 0xfff0 == PROFILE_TWO_BYTE => Some(ExtensionForm::TwoByte),
            _ => None,
        };
        let range = self.extension_range().unwrap_or_default();
        match (form, packet.get(..range.end)) {
            (Some(form), Some(bytes)) => ExtensionElements { bytes, position: range.start, form },
            _ => ExtensionElements { bytes: &[], position: 0, form: ExtensionForm::OneByte },
        }
    }

    /// Value of the first extension element with this id.
    pub fn extension<'a>(&self, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
        self.extensions(packet).find(|element| element.id == id).map(|element| element.value)
    }

    /// Contributing sources.
    pub fn csrcs<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        let (chunks, _) = packet.get(FIXED_LEN..).unwrap_or_default().as_chunks::<4>();
        chunks.iter().take(usize::from(self.csrc_count)).map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Where the payload lies in a decrypted packet, without padding; empty for a packet of padding alone.
    pub fn payload_range(&self, decrypted: &[u8]) -> Result<Range<usize>, RtpError> {
        let payload = decrypted.get(self.header_len..).ok_or(RtpError::Truncated)?;
        if !self.has_padding {
            return Ok(self.header_len..decrypted.len());
        }
        let padding = usize::from(*payload.last().ok_or(RtpError::Padding)?);
        if padding == 0 || padding > payload.len() {
            return Err(RtpError::Padding);
        }
        Ok(self.header_len..decrypted.len().saturating_sub(padding))
    }
}

/// How extension elements are introduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionForm {
    /// RFC 8285 §4.2: ids to 14, values of 1 to 16 bytes.
    OneByte,
    /// RFC 8285 §4.3: ids to 255, values of 0 to 255 bytes; only where `a=extmap-allow-mixed` was negotiated.
    TwoByte,
}

impl ExtensionForm {
    /// The smallest form that carries all elements, given as (id, value length in bytes).
    pub fn fitting(elements: impl IntoIterator<Item = (u8, usize)>) -> Self {
        let one_byte = elements.into_iter().all(|(id, len)| fits_one_byte(id, len));
        if one_byte { Self::OneByte } else { Self::TwoByte }
    }
}

fn fits_one_byte(id: u8, len: usize) -> bool {
    (1..=ONE_BYTE_ID_MAX).contains(&id) && (1..=ONE_BYTE_VALUE_MAX).contains(&len)
}

/// One extension element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionElement<'a> {
    /// Negotiated id.
    pub id: u8,
    /// Offset of the value in the packet, for patching in place.
    pub offset: usize,
    /// The value.
    pub value: &'a [u8],
}

/// Iterator over the elements of an extension block; ends at the first malformed one.
#[derive(Debug, Clone)]
pub struct ExtensionElements<'a> {
    /// The packet up to the end of the block.
    bytes: &'a [u8],
    position: usize,
    form: ExtensionForm,
}

impl<'a> Iterator for ExtensionElements<'a> {
    type Item = ExtensionElement<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = *self.bytes.get(self.position)?;
            self.position = self.position.saturating_add(1);
            if first == 0 {
                continue;
            }
            let (id, len) = match self.form {
                // RFC 8285 §4.2: id 15 ends the block whatever follows; id 0 with a length is skipped as padding is.
                ExtensionForm::OneByte if first >> 4 == 15 => {
                    self.position = self.bytes.len();
                    return None;
                }
                ExtensionForm::OneByte => (first >> 4, usize::from(first & 0x0f).saturating_add(1)),
                ExtensionForm::TwoByte => {
                    let len = usize::from(*self.bytes.get(self.position)?);
                    self.position = self.position.saturating_add(1);
                    (first, len)
                }
            };
            let offset = self.position;
            self.position = offset.saturating_add(len);
            let value = self.bytes.get(offset..self.position)?;
            if id != 0 {
                return Some(ExtensionElement { id, offset, value });
            }
        }
    }
}

/// The fixed fields of a header to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderFields {
    /// Marker bit.
    pub marker: bool,
    /// Whether the packet will end in padding.
    pub has_padding: bool,
    /// Payload type, 7 bits.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Media timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl HeaderFields {
    fn to_bytes(self, has_extensions: bool) -> [u8; FIXED_LEN] {
        let flags = 0x80 | (u8::from(self.has_padding) << 5) | (u8::from(has_extensions) << 4);
        let marker_and_type = (u8::from(self.marker) << 7) | (self.payload_type & 0x7f);
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        [flags, marker_and_type, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
    }
}

/// What [`HeaderWriter::finish`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenHeader {
    /// Length of the header in bytes; the payload goes behind it.
    pub len: usize,
    /// Offset of the two bytes of the transport-wide sequence number, see [`patch_transport_cc`].
    pub transport_cc_offset: Option<usize>,
    /// Offset of the three bytes of the absolute send time, see [`patch_abs_send_time`].
    pub abs_send_time_offset: Option<usize>,
}

/// Writes a header into a buffer, extension elements one by one.
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    buffer: &'a mut [u8],
    fields: HeaderFields,
    form: ExtensionForm,
    position: usize,
    transport_cc_offset: Option<usize>,
    abs_send_time_offset: Option<usize>,
}

/// Where extension elements begin in a header we write (no CSRCs).
const ELEMENTS_START: usize = FIXED_LEN + 4;

impl<'a> HeaderWriter<'a> {
    /// Starts a header at the front of `buffer`.
    pub fn new(buffer: &'a mut [u8], fields: HeaderFields, form: ExtensionForm) -> Self {
        Self {
            buffer,
            fields,
            form,
            position: ELEMENTS_START,
            transport_cc_offset: None,
            abs_send_time_offset: None,
        }
    }

    /// Adds an extension element and says where its value lies.
    pub fn element(&mut self, id: u8, value: &[u8]) -> Result<usize, RtpError> {
        let target = self.reserve(id, value.len())?;
        let offset = target.start;
        self.buffer.get_mut(target).ok_or(RtpError::BufferFull)?.copy_from_slice(value);
        Ok(offset)
    }

    /// Adds an empty transport-wide sequence number, to be patched when the packet is released.
    pub fn transport_cc(&mut self, id: u8) -> Result<(), RtpError> {
        self.transport_cc_offset = Some(self.element(id, &[0; 2])?);
        Ok(())
    }

    /// Adds an empty absolute send time, to be patched when the packet is released.
    pub fn abs_send_time(&mut self, id: u8) -> Result<(), RtpError> {
        self.abs_send_time_offset = Some(self.element(id, &[0; 3])?);
        Ok(())
    }

    /// Completes the header.
    pub fn finish(self) -> Result<WrittenHeader, RtpError> {
        let has_extensions = self.position > ELEMENTS_START;
        let fixed = self.buffer.first_chunk_mut::<FIXED_LEN>().ok_or(RtpError::BufferFull)?;
        *fixed = self.fields.to_bytes(has_extensions);
        if !has_extensions {
            return Ok(WrittenHeader {
                len: FIXED_LEN,
                transport_cc_offset: None,
                abs_send_time_offset: None,
            });
        }
        let len = self.position.next_multiple_of(4);
        self.buffer.get_mut(self.position..len).ok_or(RtpError::BufferFull)?.fill(0);
        let words = u16::try_from(len.saturating_sub(ELEMENTS_START) / 4).map_err(|_| RtpError::Element)?;
        let profile = match self.form {
            ExtensionForm::OneByte => PROFILE_ONE_BYTE,
            ExtensionForm::TwoByte => PROFILE_TWO_BYTE,
        };
        let ([p0, p1], [w0, w1]) = (profile.to_be_bytes(), words.to_be_bytes());
        let introduction = self.buffer.get_mut(FIXED_LEN..ELEMENTS_START).ok_or(RtpError::BufferFull)?;
        introduction.copy_from_slice(&[p0, p1, w0, w1]);
        Ok(WrittenHeader {
            len,
            transport_cc_offset: self.transport_cc_offset,
            abs_send_time_offset: self.abs_send_time_offset,
        })
    }

    /// Writes the element's introduction and gives the range of its value.
    fn reserve(&mut self, id: u8, len: usize) -> Result<Range<usize>, RtpError> {
        let start = match self.form {
            ExtensionForm::OneByte => {
                if !fits_one_byte(id, len) {
                    return Err(RtpError::Element);
                }
                let introduction = self.buffer.get_mut(self.position).ok_or(RtpError::BufferFull)?;
                *introduction = (id << 4) | (len.saturating_sub(1) as u8);
                self.position.saturating_add(1)
            }
            ExtensionForm::TwoByte => {
                let len = u8::try_from(len).map_err(|_| RtpError::Element)?;
                if id == 0 {
                    return Err(RtpError::Element);
                }
                let end = self.position.saturating_add(2);
                let introduction = self.buffer.get_mut(self.position..end).ok_or(RtpError::BufferFull)?;
                introduction.copy_from_slice(&[id, len]);
                end
            }
        };
        let end = start.saturating_add(len);
        if end > self.buffer.len() {
            return Err(RtpError::BufferFull);
        }
        self.position = end;
        Ok(start..end)
    }
}

/// Writes the transport-wide sequence number at the offset [`WrittenHeader`] gave.
pub fn patch_transport_cc(packet: &mut [u8], offset: usize, number: u16) {
    if let Some(target) = packet.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        *target = number.to_be_bytes();
    }
}

/// Writes an absolute send time (24 bits, [`crate::extension::abs_send_time`]) at the offset [`WrittenHeader`] gave.
pub fn patch_abs_send_time(packet: &mut [u8], offset: usize, abs_send_time: u32) {
    if let Some(target) = packet.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<3>()) {
        let [_, a, b, c] = abs_send_time.to_be_bytes();
        *target = [a, b, c];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: HeaderFields = HeaderFields {
        marker: true,
        has_padding: false,
        payload_type: 96,
        sequence: 0x1234,
        timestamp: 0xdead_beef,
        ssrc: 0xcafe_babe,
    };

    #[test]
    fn a_written_header_reads_back() {
        let mut buffer = [0xff; 64];
        let mut writer = HeaderWriter::new(&mut buffer, FIELDS, ExtensionForm::OneByte);
        writer.transport_cc(3).unwrap();
        writer.abs_send_time(2).unwrap();
        writer.element(4, b"0").unwrap();
        let written = writer.finish().unwrap();
        assert_eq!(written.len % 4, 0);
        patch_transport_cc(&mut buffer, written.transport_cc_offset.unwrap(), 0xabcd);
        patch_abs_send_time(&mut buffer, written.abs_send_time_offset.unwrap(), 0x00_01_02_03);
        let header = RtpHeader::parse(&buffer).unwrap();
        assert_eq!(header.header_len, written.len);
        assert_eq!(
            (header.marker, header.payload_type, header.sequence, header.timestamp, header.ssrc),
            (true, 96, 0x1234, 0xdead_beef, 0xcafe_babe)
        );
        assert_eq!(header.extension(&buffer, 3), Some(&[0xab, 0xcd][..]));
        assert_eq!(header.extension(&buffer, 2), Some(&[1, 2, 3][..]));
        assert_eq!(header.extension(&buffer, 4), Some(&b"0"[..]));
        assert_eq!(header.extension(&buffer, 5), None);
    }

    #[test]
    fn a_long_element_needs_the_two_byte_form() {
        let value = [7; 40];
        assert_eq!(ExtensionForm::fitting([(12, 40)]), ExtensionForm::TwoByte);
        assert_eq!(ExtensionForm::fitting([(12, 16), (1, 1)]), ExtensionForm::OneByte);
        let mut buffer = [0; 80];
        let mut writer = HeaderWriter::new(&mut buffer, FIELDS, ExtensionForm::OneByte);
        assert_eq!(writer.element(12, &value), Err(RtpError::Element));
        let mut writer = HeaderWriter::new(&mut buffer, FIELDS, ExtensionForm::TwoByte);
        writer.element(200, &value).unwrap();
        writer.element(1, &[]).unwrap();
        let written = writer.finish().unwrap();
        let header = RtpHeader::parse(&buffer[..written.len]).unwrap();
        let found: Vec<_> = header.extensions(&buffer).map(|element| (element.id, element.value)).collect();
        assert_eq!(found, [(200, &value[..]), (1, &[][..])]);
    }

    #[test]
    fn a_header_without_elements_has_no_extension_block() {
        let mut buffer = [0; 12];
        let written = HeaderWriter::new(&mut buffer, FIELDS, ExtensionForm::OneByte).finish().unwrap();
        assert_eq!(written.len, 12);
        assert_eq!(RtpHeader::parse(&buffer).unwrap().extension_range(), None);
    }

    #[test]
    fn a_full_buffer_is_an_error_and_not_a_panic() {
        for len in 0..20 {
            let mut buffer = vec![0; len];
            let mut writer = HeaderWriter::new(&mut buffer, FIELDS, ExtensionForm::OneByte);
            let element = writer.element(1, &[0; 4]);
            assert!(element.is_err() || writer.finish().is_err(), "{len}");
        }
    }

    #[test]
    fn csrcs_and_extensions_count_into_the_header_length() {
        let packet = [
            0x91, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, // fixed, one CSRC, extensions
            0, 0, 0, 9, // CSRC
            0xbe, 0xde, 0, 2, // two words
            0x10, 0xaa, 0, 0, 0x21, 0xbb, 0xcc, 0, // padding between elements
            1, 2, 3,
        ];
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(header.header_len, 28);
        assert_eq!(header.csrcs(&packet).collect::<Vec<_>>(), [9]);
        let found: Vec<_> = header.extensions(&packet).map(|e| (e.id, e.offset, e.value)).collect();
        assert_eq!(found, [(1, 21, &[0xaa][..]), (2, 25, &[0xbb, 0xcc][..])]);
        assert_eq!(header.payload_range(&packet), Ok(28..31));
    }

    #[test]
    fn id_fifteen_ends_a_one_byte_block_and_an_overlong_element_too() {
        for tail in [[0xf0, 0xaa, 0x10, 0xbb], [0x1f, 1, 2, 3]] {
            let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xbe, 0xde, 0, 1];
            packet.extend(tail);
            let header = RtpHeader::parse(&packet).unwrap();
            assert_eq!(header.extensions(&packet).count(), 0);
        }
    }

    #[test]
    fn padding_is_cut_off_and_checked() {
        let mut packet = vec![0xa0, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 9, 9, 0, 2];
        let header = RtpHeader::parse(&packet).unwrap();
        assert_eq!(header.payload_range(&packet), Ok(12..14));
        packet[15] = 4;
        assert_eq!(header.payload_range(&packet), Ok(12..12));
        for wrong in [0, 5] {
            packet[15] = wrong;
            assert_eq!(header.payload_range(&packet), Err(RtpError::Padding));
        }
        assert_eq!(header.payload_range(&packet[..12]), Err(RtpError::Padding));
    }

    #[test]
    fn truncated_packets_and_other_versions_are_refused() {
        let packet = [0x91, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 9, 0xbe, 0xde, 0, 1, 0, 0, 0, 0];
        for len in 0..packet.len() {
            assert_eq!(RtpHeader::parse(&packet[..len]), Err(RtpError::Truncated), "{len}");
        }
        assert!(RtpHeader::parse(&packet).is_ok());
        assert_eq!(RtpHeader::parse(&[0x40; 20]), Err(RtpError::Version));
    }
}
