//! A publisher's packet on its way to subscriptions, and what is kept of it.

use super::forward::rewrite::{Numbers, Vp8Numbers};
use super::header::PassedRef;
use fanlight_rtp::SlotRef;
use fanlight_rtp::payload::vp8::Vp8Descriptor;
use fanlight_rtp::payload::vp9::Vp9Descriptor;
use fanlight_rtp::payload::{av1, h264, red};

/// How payloads of a codec are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Any packet may be the first one (audio).
    Sound,
    Vp8,
    Vp9,
    H264,
    Av1,
    /// Video whose key frames cannot be told.
    Opaque,
}

/// What the payload's descriptor says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// A key frame begins here.
    pub(super) key_frame: bool,
    /// Nobody can say whether one does.
    pub(super) opaque: bool,
    pub(super) vp8: Option<Vp8Descriptor>,
}

impl Format {
    pub(super) fn of(mime: &str) -> Self {
        let (kind, name) = mime.split_once('/').unwrap_or(("", mime));
        match name.to_ascii_lowercase().as_str() {
            _ if kind.eq_ignore_ascii_case("audio") => Self::Sound,
            "vp8" => Self::Vp8,
            "vp9" => Self::Vp9,
            "h264" => Self::H264,
            "av1" => Self::Av1,
            _ => Self::Opaque,
        }
    }

    pub(super) fn read(self, payload: &[u8]) -> Facts {
        let vp8 = if self == Self::Vp8 { Vp8Descriptor::parse(payload) } else { None };
        let key_frame = match self {
            Self::Sound | Self::Opaque => false,
            Self::Vp8 => vp8.is_some_and(|descriptor| descriptor.starts_key_frame(payload)),
            Self::Vp9 => {
                Vp9Descriptor::parse(payload).is_some_and(|descriptor| descriptor.starts_key_frame())
            }
            Self::H264 => h264::H264Payload::parse(payload).is_some_and(|payload| payload.starts_key_frame()),
            Self::Av1 => av1::starts_key_frame(payload),
        };
        Facts { key_frame, opaque: self == Self::Opaque, vp8 }
    }
}

impl Facts {
    /// The packet's numbers as the source has them.
    pub(super) fn numbers(&self, sequence: u64, timestamp: u32) -> Numbers {
        let vp8 = self.vp8.map_or_else(Vp8Numbers::default, |descriptor| Vp8Numbers {
            picture_id: descriptor.picture_id.map_or(0, |id| id.value),
            tl0_pic_idx: descriptor.tl0_picture_index.unwrap_or(0),
            key_idx: descriptor.key_index.unwrap_or(0),
        });
        Numbers { sequence, timestamp, vp8 }
    }
}

/// A packet as every subscription meets it.
pub(super) struct Packet<'a> {
    pub(super) layer: u8,
    /// Names the stream it belongs to.
    pub(super) source: u32,
    pub(super) numbers: Numbers,
    /// It came after a later one.
    pub(super) late: bool,
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    /// Decoding can begin with it.
    pub(super) entry: bool,
    pub(super) key_frame: bool,
    pub(super) frame_end: bool,
    pub(super) vp8: Option<Vp8Descriptor>,
    pub(super) passed: PassedRef<'a>,
    pub(super) payload: &'a [u8],
    /// Where the [`Record`] is kept.
    pub(super) slot: SlotRef,
}

impl<'a> Packet<'a> {
    /// The primary block of a RED payload.
    pub(super) fn red_primary(&self) -> Option<&'a [u8]> {
        red::primary(self.payload).map(|block| block.payload)
    }
}

/// The original sequence number of a retransmission (RFC 4588 §4) and a VP8 descriptor of six bytes.
const PREFIX_BYTES_MAX: usize = 8;

/// What stands before the payload for one subscriber.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    bytes: [u8; PREFIX_BYTES_MAX],
    len: usize,
}

impl Prefix {
    /// Of a retransmission.
    pub(super) fn of_resent(sequence: u64) -> Self {
        let [high, low] = (sequence as u16).to_be_bytes();
        Self { bytes: [high, low, 0, 0, 0, 0, 0, 0], len: 2 }
    }

    /// Adds the payload's descriptor with a subscriber's numbers; the rest of the payload comes back.
    #[inline]
    pub(super) fn add_vp8<'a>(
        &mut self,
        payload: &'a [u8],
        descriptor: &Vp8Descriptor,
        numbers: Vp8Numbers,
    ) -> &'a [u8] {
        let Some((front, rest)) = payload.split_at_checked(descriptor.len) else { return payload };
        let end = self.len + front.len();
        let Some(target) = self.bytes.get_mut(self.len..end) else { return payload };
        target.copy_from_slice(front);
        descriptor.rewrite(target, numbers.picture_id, numbers.tl0_pic_idx, numbers.key_idx);
        self.len = end;
        rest
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Bits of a history entry's word: picture id (15), TL0PICIDX (8), KEYIDX (5), and that there are such.
const TL0_SHIFT: u32 = 15;
const KEY_SHIFT: u32 = 23;
const HAS_VP8: u32 = 1 << 28;

/// Numbers as a word, to be written again when the packet is sent again.
pub(super) const fn vp8_word(numbers: Vp8Numbers) -> u32 {
    (numbers.picture_id as u32 & 0x7fff)
        | (numbers.tl0_pic_idx as u32) << TL0_SHIFT
        | (numbers.key_idx as u32 & 0x1f) << KEY_SHIFT
        | HAS_VP8
}

/// The numbers of a word, if there are such.
pub(super) const fn vp8_numbers(word: u32) -> Option<Vp8Numbers> {
    if word & HAS_VP8 == 0 {
        return None;
    }
    Some(Vp8Numbers {
        picture_id: (word & 0x7fff) as u16,
        tl0_pic_idx: (word >> TL0_SHIFT) as u8,
        key_idx: (word >> KEY_SHIFT) as u8 & 0x1f,
    })
}

/// What the slab keeps of a packet: a byte pair with the length of the passed-on extensions, those, the payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) passed: PassedRef<'a>,
    pub(super) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Bytes that [`Record::write`] needs.
    pub(super) const fn len(passed: &[u8], payload: &[u8]) -> usize {
        2 + passed.len() + payload.len()
    }

    /// Lays a record out.
    pub(super) fn write(out: &mut [u8], passed: &[u8], payload: &[u8]) {
        let Some((len, rest)) = out.split_first_chunk_mut::<2>() else { return };
        *len = (passed.len() as u16).to_be_bytes();
        let Some((to_passed, to_payload)) = rest.split_at_mut_checked(passed.len()) else { return };
        to_passed.copy_from_slice(passed);
        if let Some(to_payload) = to_payload.get_mut(..payload.len()) {
            to_payload.copy_from_slice(payload);
        }
    }

    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (passed, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        Some(Self { passed: PassedRef::from_bytes(passed), payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_in_a_word_beside_the_layer() {
        let numbers = Vp8Numbers { picture_id: 0x7abc, tl0_pic_idx: 0xfe, key_idx: 0x1d };
        assert_eq!(vp8_numbers(vp8_word(numbers) | 3 << 30), Some(numbers));
        assert_eq!(vp8_numbers(3 << 30), None);
    }

    #[test]
    fn a_record_gives_back_what_was_kept() {
        let (passed, payload) = ([0, 1, 0x85], [1, 2, 3, 4]);
        let mut out = vec![9; Record::len(&passed, &payload)];
        Record::write(&mut out, &passed, &payload);
        let record = Record::read(&out).unwrap();
        assert_eq!(record.payload, [1, 2, 3, 4]);
        assert!(Record::read(&[]).is_none() && Record::read(&[0, 9, 1]).is_none());
    }

    #[test]
    fn a_descriptor_written_anew_stands_for_the_one_of_the_payload() {
        let payload = [0x90, 0xf0, 0x92, 0x34, 0x56, 0x63, 0xaa, 0xbb];
        let descriptor = Vp8Descriptor::parse(&payload).unwrap();
        let mut prefix = Prefix::of_resent(0x1_0203);
        let numbers = Vp8Numbers { picture_id: 1, tl0_pic_idx: 9, key_idx: 31 };
        assert_eq!(prefix.add_vp8(&payload, &descriptor, numbers), [0xaa, 0xbb]);
        assert_eq!(prefix.bytes(), [0x02, 0x03, 0x90, 0xf0, 0x80, 0x01, 9, 0x7f]);
    }

    #[test]
    fn formats_are_told_by_mime_type() {
        let formats =
            ["audio/opus", "audio/red", "video/VP8", "video/h264", "video/AV1", "video/H265"].map(Format::of);
        assert_eq!(
            formats,
            [Format::Sound, Format::Sound, Format::Vp8, Format::H264, Format::Av1, Format::Opaque]
        );
    }

    #[test]
    fn a_vp8_key_frame_is_recognised_by_its_first_packet_only() {
        let key = [0x90, 0x80, 0x80, 0x05, 0x10, 0, 0, 0x9d, 0x01, 0x2a];
        assert!(Format::Vp8.read(&key).key_frame);
        let mut delta = key;
        delta[4] |= 1;
        assert!(!Format::Vp8.read(&delta).key_frame);
        let mut second = key;
        second[0] = 0x80;
        assert!(!Format::Vp8.read(&second).key_frame);
        assert!(!Format::Vp8.read(&[]).key_frame);
    }
}
