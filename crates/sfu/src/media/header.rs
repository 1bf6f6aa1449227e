//! The RTP header a subscriber gets: prepared once, completed for each packet.

use super::limits::PASSED_BYTES_MAX;
use fanlight_rtp::header::{FIXED_LEN, ONE_BYTE_ID_MAX, ONE_BYTE_VALUE_MAX, PROFILE_ONE_BYTE};
use fanlight_rtp::{ExtensionForm, ExtensionKind, ExtensionMap, HeaderFields, HeaderWriter};

/// Extensions that go through from publisher to subscriber unchanged but for their id.
const PASSED: [ExtensionKind; 5] = [
    ExtensionKind::AudioLevel,
    ExtensionKind::VideoOrientation,
    ExtensionKind::PlayoutDelay,
    ExtensionKind::DependencyDescriptor,
    ExtensionKind::AbsCaptureTime,
];

/// Where extension elements begin.
const ELEMENTS: usize = FIXED_LEN + 4;
/// Fixed part, introduction, transport-cc (3), abs-send-time (4) and a mid of up to 16 bytes (17), to whole words.
const TEMPLATE_BYTES: usize = 40;

/// Longest header written: the template, what is passed on with two bytes before each value, and padding.
pub(super) const HEADER_BYTES_MAX: usize = TEMPLATE_BYTES + PASSED_BYTES_MAX + 8;

/// Extension elements of one packet that go on to subscribers: for each a byte for its place in [`PASSED`], a byte for
/// its length, and its value.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    bytes: [u8; PASSED_BYTES_MAX],
    len: usize,
    /// Some value is too long for a one-byte element.
    long: bool,
}

impl Passed {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; PASSED_BYTES_MAX], len: 0, long: false }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.long = false;
    }

    /// Keeps an element, if it is one that is passed on and there is room.
    pub(super) fn add(&mut self, kind: ExtensionKind, value: &[u8]) {
        let Some(place) = PASSED.iter().position(|&passed| passed == kind) else { return };
        let (Ok(place), Ok(len)) = (u8::try_from(place), u8::try_from(value.len())) else { return };
        let end = self.len + 2 + value.len();
        let Some([to_place, to_len, to_value @ ..]) = self.bytes.get_mut(self.len..end) else { return };
        (*to_place, *to_len) = (place, len);
        to_value.copy_from_slice(value);
        self.len = end;
        self.long |= !(1..=ONE_BYTE_VALUE_MAX).contains(&value.len());
    }

    /// For keeping beside the payload.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn as_ref(&self) -> PassedRef<'_> {
        PassedRef { bytes: self.bytes(), long: self.long }
    }
}

/// Kept elements, read.
#[derive(Debug, Clone, Copy)]
pub(super) struct PassedRef<'a> {
    bytes: &'a [u8],
    long: bool,
}

impl<'a> PassedRef<'a> {
    /// What [`Passed::bytes`] gave.
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Self {
        let mut read = Self { bytes, long: false };
        read.long = read.iter().any(|(_, value)| !(1..=ONE_BYTE_VALUE_MAX).contains(&value.len()));
        read
    }

    fn iter(self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let [place, len, tail @ ..] = rest else { return None };
            let (value, tail) = tail.split_at_checked(usize::from(*len))?;
            rest = tail;
            Some((usize::from(*place), value))
        })
    }
}

/// What the header of a subscription is made from.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: [u8; TEMPLATE_BYTES],
    /// End of the elements without mid, and with it.
    ends: [u8; 2],
    transport_cc: u8,
    abs_send_time: u8,
    mid: u8,
    ids: [u8; PASSED.len()],
    /// An id does not fit the one-byte form.
    two_byte: bool,
}

/// What [`Template::write`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) len: usize,
    pub(super) transport_cc_offset: Option<usize>,
    pub(super) abs_send_time_offset: Option<usize>,
}

impl Template {
    /// A mid longer than 16 bytes is left out, as it does not fit an element.
    pub(super) fn new(ids: &ExtensionMap, mid: &str) -> Self {
        let id = |kind| ids.id(kind).unwrap_or(0);
        let mid_id = if (1..=ONE_BYTE_VALUE_MAX).contains(&mid.len()) { id(ExtensionKind::Mid) } else { 0 };
        let mut template = Self {
            bytes: [0; TEMPLATE_BYTES],
            ends: [0; 2],
            transport_cc: id(ExtensionKind::TransportCc),
            abs_send_time: id(ExtensionKind::AbsSendTime),
            mid: mid_id,
            ids: PASSED.map(id),
            two_byte: false,
        };
        let fixed = [template.transport_cc, template.abs_send_time, template.mid];
        template.two_byte = fixed.iter().chain(&template.ids).any(|&id| id > ONE_BYTE_ID_MAX);
        let [p0, p1] = PROFILE_ONE_BYTE.to_be_bytes();
        template.bytes[0] = 0x80;
        template.bytes[FIXED_LEN] = p0;
        template.bytes[FIXED_LEN + 1] = p1;
        let mut end = ELEMENTS;
        end = put(&mut template.bytes, end, template.transport_cc, &[0; 2]);
        end = put(&mut template.bytes, end, template.abs_send_time, &[0; 3]);
        let with_mid = put(&mut template.bytes, end, template.mid, mid.as_bytes());
        template.ends = [end as u8, with_mid as u8];
        template
    }

    /// Writes a header into `out`; `None` when it does not fit, which the limits rule out.
    #[inline]
    pub(super) fn write(
        &self,
        out: &mut [u8; HEADER_BYTES_MAX],
        fields: &HeaderFields,
        with_mid: bool,
        passed: PassedRef<'_>,
    ) -> Option<Written> {
        if self.two_byte || passed.long {
            return self.write_two_byte(out, fields, with_mid, passed);
        }
        *out.first_chunk_mut::<TEMPLATE_BYTES>()? = self.bytes;
        let mut end = usize::from(self.ends[usize::from(with_mid)]);
        for (place, value) in passed.iter() {
            end = put(out, end, self.ids.get(place).copied().unwrap_or(0), value);
        }
        let len = if end == ELEMENTS { FIXED_LEN } else { end.next_multiple_of(4) };
        out.get_mut(end..len.max(end))?.fill(0);
        let words = (len.saturating_sub(ELEMENTS) / 4) as u8;
        let fixed = out.first_chunk_mut::<ELEMENTS>()?;
        fixed[0] = if end == ELEMENTS { 0x80 } else { 0x90 };
        fixed[1] = (u8::from(fields.marker) << 7) | (fields.payload_type & 0x7f);
        fixed[2..4].copy_from_slice(&fields.sequence.to_be_bytes());
        fixed[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        fixed[8..12].copy_from_slice(&fields.ssrc.to_be_bytes());
        fixed[15] = words;
        Some(Written {
            len,
            transport_cc_offset: (self.transport_cc != 0).then_some(ELEMENTS + 1),
            abs_send_time_offset: (self.abs_send_time != 0).then_some(if self.transport_cc != 0 {
                ELEMENTS + 4
            } else {
                ELEMENTS + 1
            }),
        })
    }

    #[cold]
    fn write_two_byte(
        &self,
        out: &mut [u8; HEADER_BYTES_MAX],
        fields: &HeaderFields,
        with_mid: bool,
        passed: PassedRef<'_>,
    ) -> Option<Written> {
        let mut writer = HeaderWriter::new(out, *fields, ExtensionForm::TwoByte);
        if self.transport_cc != 0 {
            writer.transport_cc(self.transport_cc).ok()?;
        }
        if self.abs_send_time != 0 {
            writer.abs_send_time(self.abs_send_time).ok()?;
        }
        if with_mid && self.mid != 0 {
            let (start, end) = (usize::from(self.ends[0]) + 1, usize::from(self.ends[1]));
            writer.element(self.mid, self.bytes.get(start..end)?).ok()?;
        }
        for (place, value) in passed.iter() {
            let id = self.ids.get(place).copied().unwrap_or(0);
            if id != 0 {
                writer.element(id, value).ok()?;
            }
        }
        let written = writer.finish().ok()?;
        Some(Written {
            len: written.len,
            transport_cc_offset: written.transport_cc_offset,
            abs_send_time_offset: written.abs_send_time_offset,
        })
    }
}

/// Adds a one-byte element at `at` and gives its end; adds nothing for id 0.
#[inline]
fn put(out: &mut [u8], at: usize, id: u8, value: &[u8]) -> usize {
    if id == 0 {
        return at;
    }
    let end = at + 1 + value.len();
    let Some([first, rest @ ..]) = out.get_mut(at..end) else { return at };
    *first = (id << 4) | (value.len().wrapping_sub(1) as u8 & 0x0f);
    rest.copy_from_slice(value);
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_rtp::RtpHeader;

    const FIELDS: HeaderFields = HeaderFields {
        marker: true,
        has_padding: false,
        payload_type: 96,
        sequence: 0x1234,
        timestamp: 0xdead_beef,
        ssrc: 0xcafe_0001,
    };

    fn map(pairs: &[(u8, ExtensionKind)]) -> ExtensionMap {
        let mut map = ExtensionMap::new();
        pairs.iter().for_each(|&(id, kind)| map.set(id, kind).unwrap());
        map
    }

    fn write(template: &Template, with_mid: bool, passed: &Passed) -> (Vec<u8>, Written) {
        let mut out = [0xff; HEADER_BYTES_MAX];
        let written = template.write(&mut out, &FIELDS, with_mid, passed.as_ref()).unwrap();
        (out[..written.len].to_vec(), written)
    }

    #[test]
    fn a_header_without_extensions_has_twelve_bytes() {
        let (bytes, written) = write(&Template::new(&ExtensionMap::new(), "0"), true, &Passed::new());
        assert_eq!(written, Written { len: 12, transport_cc_offset: None, abs_send_time_offset: None });
        let header = RtpHeader::parse(&bytes).unwrap();
        assert_eq!((header.marker, header.payload_type, header.sequence), (true, 96, 0x1234));
        assert_eq!((header.timestamp, header.ssrc), (0xdead_beef, 0xcafe_0001));
    }

    #[test]
    fn every_extension_is_read_back_in_both_forms() {
        for (dd_id, dd) in [(9, vec![7; 3]), (9, vec![7; 100]), (20, vec![7; 3])] {
            let ids = map(&[
                (1, ExtensionKind::AudioLevel),
                (3, ExtensionKind::TransportCc),
                (2, ExtensionKind::AbsSendTime),
                (4, ExtensionKind::Mid),
                (dd_id, ExtensionKind::DependencyDescriptor),
            ]);
            let mut passed = Passed::new();
            passed.add(ExtensionKind::AudioLevel, &[0x85]);
            passed.add(ExtensionKind::Rid, b"h");
            passed.add(ExtensionKind::VideoOrientation, &[1]);
            passed.add(ExtensionKind::DependencyDescriptor, &dd);
            let (bytes, written) = write(&Template::new(&ids, "12"), true, &passed);
            let header = RtpHeader::parse(&bytes).unwrap();
            assert_eq!(header.header_len, bytes.len());
            assert_eq!(header.extensions(&bytes).count(), 5);
            assert_eq!(header.extension(&bytes, 4), Some(&b"12"[..]));
            assert_eq!(header.extension(&bytes, 1), Some(&[0x85][..]));
            assert_eq!(header.extension(&bytes, dd_id), Some(&dd[..]));
            let offset =
                |id| header.extensions(&bytes).find(|element| element.id == id).map(|element| element.offset);
            assert_eq!((written.transport_cc_offset, written.abs_send_time_offset), (offset(3), offset(2)));
            let kept = PassedRef::from_bytes(passed.bytes());
            assert_eq!(kept.long, dd.len() > 16);
        }
    }

    #[test]
    fn mid_is_left_out_when_it_is_not_asked_for() {
        let ids = map(&[(4, ExtensionKind::Mid)]);
        let (bytes, _) = write(&Template::new(&ids, "mid"), false, &Passed::new());
        assert_eq!(bytes.len(), 12);
    }
}
