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
const VP8_DESCRIPTOR_BYTES: usize = 6;
/// TOC of a 20 ms CELT frame (RFC 6716 §3.1).
const OPUS_TOC: u8 = 0xf8;

impl Tag {
    const BYTES: usize = 20;

    /// An Opus packet of `len` bytes.
    pub fn opus(self, len: usize) -> Vec<u8> {
        let mut packet = vec![OPUS_TOC];
        packet.extend(self.bytes());
        packet.resize(len.max(packet.len()), 0);
        packet
    }

    /// A VP8 packet of `len` bytes.
    pub fn vp8(self, len: usize, start: bool, key_frame: bool, picture: u16) -> Vec<u8> {
        let picture_id = 0x8000 | (picture & 0x7fff);
        let mut packet = vec![0x80 | if start { 0x10 } else { 0 }, 0xc0];
        packet.extend(picture_id.to_be_bytes());
        packet.push((picture & 0xff) as u8);
        // The inverse key frame bit of the frame header stands in its first packet (RFC 6386 §9.1).
        packet.push(if start && key_frame { 0x10 } else { 0x11 });
        packet.extend(self.bytes());
        packet.resize(len.max(packet.len()), 0);
        packet
    }

    /// Reads the tag of a received packet.
    pub fn read(video: bool, payload: &[u8]) -> Option<Self> {
        let tag = payload.get(if video { VP8_DESCRIPTOR_BYTES } else { 1 }..)?.get(..Self::BYTES)?;
        let word =
            |index: usize| Some(u32::from_be_bytes(tag.get(index * 4..index * 4 + 4)?.try_into().ok()?));
        if tag.get(..4)? != MAGIC {
            return None;
        }
        Some(Self { room: word(1)?, publisher: word(2)?, kind: word(3)?, number: word(4)? })
    }

    fn bytes(self) -> impl Iterator<Item = u8> {
        let words = [self.room, self.publisher, self.kind, self.number];
        MAGIC.into_iter().chain(words.into_iter().flat_map(u32::to_be_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_tells_where_it_comes_from() {
        let tag = Tag { room: 1, publisher: 2, kind: 1, number: 77 };
        assert_eq!(Tag::read(true, &tag.vp8(1000, true, true, 40_000)), Some(tag));
        assert_eq!(Tag::read(false, &tag.opus(80)), Some(tag));
        assert_eq!(Tag::read(false, &[0; 80]), None);
    }
}
