//! Generated media whose packets say where they come from, so that a receiver can tell what it got.

/// What a packet says of itself, behind its codec's payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// Number of the room.
    pub room: u32,
    /// Number of the publishing client.
    pub publisher: u32,
    /// 0 audio, 1 video.
    pub kind: u32,
    /// Counts the packets of the track.
    pub number: u32,
}

const MAGIC: [u8; 4] = *b"FLsm";
/// VP8 descriptor with a 15-bit picture id and TL0PICIDX (RFC 7741 §4.2), then one byte of VP8 payload header.
const VP8_HEAD_BYTES: usize = 6;
/// TOC of a 20 ms CELT frame (RFC 6716 §3.1).
const OPUS_TOC: u8 = 0xf8;

impl Tag {
    const BYTES: usize = 20;

    /// Size of the packet's payload; it varies, so that a packet counted for another shows in a sum of bytes.
    pub const fn payload_bytes(self) -> u64 {
        let number = self.number as u64;
        if self.kind == 0 { 60 + number % 41 } else { 700 + number * 37 % 400 }
    }

    /// An Opus packet.
    pub fn opus(self) -> Vec<u8> {
        self.behind(vec![OPUS_TOC])
    }

    /// A VP8 packet.
    pub fn vp8(self, start: bool, key_frame: bool, picture: u16) -> Vec<u8> {
        let picture_id = 0x8000 | (picture & 0x7fff);
        let mut packet = vec![0x80 | if start { 0x10 } else { 0 }, 0xc0];
        packet.extend(picture_id.to_be_bytes());
        packet.push((picture & 0xff) as u8);
        // The inverse key frame bit of the frame header stands in its first packet (RFC 6386 §9.1).
        packet.push(if start && key_frame { 0x10 } else { 0x11 });
        self.behind(packet)
    }

    /// Reads the tag of a received packet; `None` when size or content are not what its sender made.
    pub fn read(payload: &[u8]) -> Option<Self> {
        Self::read_behind(0, 1, payload).or_else(|| Self::read_behind(1, VP8_HEAD_BYTES, payload))
    }

    fn read_behind(kind: u32, head: usize, payload: &[u8]) -> Option<Self> {
        let (tag, filler) = payload.get(head..)?.split_at_checked(Self::BYTES)?;
        let word =
            |index: usize| Some(u32::from_be_bytes(tag.get(index * 4..index * 4 + 4)?.try_into().ok()?));
        let found = Self { room: word(1)?, publisher: word(2)?, kind: word(3)?, number: word(4)? };
        let whole = tag.starts_with(&MAGIC)
            && found.kind == kind
            && payload.len() as u64 == found.payload_bytes()
            && filler.iter().copied().eq(found.filler(filler.len()));
        whole.then_some(found)
    }

    fn behind(self, mut packet: Vec<u8>) -> Vec<u8> {
        packet.extend(MAGIC.into_iter().chain(self.words()));
        packet.extend(self.filler((self.payload_bytes() as usize).saturating_sub(packet.len())));
        packet
    }

    fn words(self) -> impl Iterator<Item = u8> {
        [self.room, self.publisher, self.kind, self.number].into_iter().flat_map(u32::to_be_bytes)
    }

    /// Other for each tag: an odd factor keeps a change of any byte.
    fn filler(self, len: usize) -> impl Iterator<Item = u8> {
        let first = self.words().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        (0..len).map(move |index| first.wrapping_add(index as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_tells_where_it_comes_from() {
        let tag = Tag { room: 1, publisher: 2, kind: 1, number: 77 };
        let sound = Tag { kind: 0, ..tag };
        assert_eq!(Tag::read(&tag.vp8(true, true, 40_000)), Some(tag));
        assert_eq!(Tag::read(&sound.opus()), Some(sound));
        assert_eq!(Tag::read(&[0; 80]), None);
    }

    #[test]
    fn a_packet_with_one_byte_changed_or_missing_is_nobodys() {
        let packet = Tag { room: 1, publisher: 2, kind: 1, number: 77 }.vp8(true, true, 1);
        for index in VP8_HEAD_BYTES..packet.len() {
            let mut changed = packet.clone();
            changed[index] ^= 1;
            assert_eq!(Tag::read(&changed), None, "byte {index}");
        }
        assert_eq!(Tag::read(&packet[..packet.len() - 1]), None);
    }
}
