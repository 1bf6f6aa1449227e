//! What an observer of the network sees: whose packets were sent, which of them arrived, and whether two different ones
//! were sealed under one nonce. RTP headers and RTCP indices are in the clear, so no key is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;

/// Tag of AES-GCM, which every connection here uses (RFC 7714 §14).
const TAG_BYTES: usize = 16;
/// DTLS content type of a handshake record, and where and what a ClientHello is in it (RFC 6347 §4.1, §4.3.2).
const HANDSHAKE: u8 = 22;
const HANDSHAKE_TYPE_AT: usize = 13;
const CLIENT_HELLO: u8 = 1;

/// One stream on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// Who sends it.
    pub from: SocketAddr,
    /// Who gets it.
    pub to: SocketAddr,
    /// SSRC.
    pub ssrc: u32,
}

/// How much of a stream passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// RTP packets.
    pub packets: u64,
    /// Bytes of RTP headers with their extensions.
    pub header_bytes: u64,
    /// Bytes between header and tag.
    pub payload_bytes: u64,
}

/// Everything seen.
#[derive(Debug, Clone)]
pub struct Wire {
    server: SocketAddr,
    /// What was given to the network.
    pub sent: BTreeMap<Stream, Carried>,
    /// What it delivered.
    pub delivered: BTreeMap<Stream, Carried>,
    /// Streams of which a packet was delivered after a later one.
    pub overtaken: BTreeSet<Stream>,
    /// What the server sealed.
    pub nonces: Nonces,
    /// Latest number delivered.
    newest: BTreeMap<Stream, u16>,
}

/// A media packet in the clear parts of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealed {
    Rtp { ssrc: u32, sequence: u16, carried: Carried },
    Rtcp { ssrc: u32, index: u32 },
}

impl Wire {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            sent: BTreeMap::new(),
            delivered: BTreeMap::new(),
            overtaken: BTreeSet::new(),
            nonces: Nonces::default(),
            newest: BTreeMap::new(),
        }
    }

    pub(crate) fn note_sent(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if from == self.server {
            self.nonces.observe(from, to, bytes);
        } else if bytes.first() == Some(&HANDSHAKE) && bytes.get(HANDSHAKE_TYPE_AT) == Some(&CLIENT_HELLO) {
            self.nonces.begin_session(to, from);
        }
        note(&mut self.sent, from, to, bytes);
    }

    pub(crate) fn note_delivered(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        note(&mut self.delivered, from, to, bytes);
        if let Some(Sealed::Rtp { ssrc, sequence, .. }) = dissect(bytes) {
            let stream = Stream { from, to, ssrc };
            let newest = self.newest.entry(stream).or_insert(sequence);
            if (sequence.wrapping_sub(*newest) as i16) < 0 {
                self.overtaken.insert(stream);
            } else {
                *newest = sequence;
            }
        }
    }
}

fn note(streams: &mut BTreeMap<Stream, Carried>, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
    if let Some(Sealed::Rtp { ssrc, carried, .. }) = dissect(bytes) {
        let sum = streams.entry(Stream { from, to, ssrc }).or_default();
        sum.packets += carried.packets;
        sum.header_bytes += carried.header_bytes;
        sum.payload_bytes += carried.payload_bytes;
    }
}

/// RTP (RFC 3550 §5.1) or SRTCP (RFC 7714 §9.2: the index is the last word), told apart by RFC 5761 §4.
fn dissect(bytes: &[u8]) -> Option<Sealed> {
    let [first, second, ..] = bytes else { return None };
    if first >> 6 != 2 {
        return None;
    }
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if (192..224).contains(second) {
        return Some(Sealed::Rtcp {
            ssrc: word(4)?,
            index: word(bytes.len().checked_sub(4)?)? & 0x7fff_ffff,
        });
    }
    let mut header = 12 + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        header += 4 + (word(header)? & 0xffff) as usize * 4;
    }
    let payload = bytes.len().checked_sub(header + TAG_BYTES)?;
    let carried = Carried { packets: 1, header_bytes: header as u64, payload_bytes: payload as u64 };
    Some(Sealed::Rtp { ssrc: word(8)?, sequence: word(0)? as u16, carried })
}

/// Which bytes each nonce sealed.
#[derive(Debug, Clone, Default)]
pub struct Nonces {
    /// Handshakes begun between two ends: each makes new keys.
    sessions: BTreeMap<(SocketAddr, SocketAddr), u32>,
    /// Highest index of each stream, roll-over count above the 16 bits of the header.
    highest: BTreeMap<(u32, Stream), u64>,
    /// Digest of the packet.
    sealed: BTreeMap<Nonce, u64>,
    /// Nonces that sealed two different packets.
    pub reused: Vec<Nonce>,
}

/// What makes a nonce unique under all keys of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce {
    /// Whose key: the number of the handshake between the two ends.
    pub session: u32,
    /// Who sends what to whom.
    pub stream: Stream,
    /// RTCP has keys of its own.
    pub rtcp: bool,
    /// Packet index: roll-over count and sequence number, or the SRTCP index.
    pub index: u64,
}

impl Nonces {
    /// How many different nonces were seen.
    pub fn len(&self) -> usize {
        self.sealed.len()
    }

    /// Whether none was seen.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// The two ends agree on new keys.
    fn begin_session(&mut self, from: SocketAddr, to: SocketAddr) {
        *self.sessions.entry((from, to)).or_default() += 1;
    }

    /// A datagram that `from` sends.
    pub(crate) fn observe(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some(sealed) = dissect(bytes) else { return };
        let session = self.sessions.get(&(from, to)).copied().unwrap_or_default();
        let nonce = match sealed {
            Sealed::Rtp { ssrc, sequence, .. } => {
                let stream = Stream { from, to, ssrc };
                let highest = self.highest.entry((session, stream)).or_insert(u64::from(sequence));
                let index = nearest(*highest, sequence);
                *highest = index.max(*highest);
                Nonce { session, stream, rtcp: false, index }
            }
            Sealed::Rtcp { ssrc, index } => {
                Nonce { session, stream: Stream { from, to, ssrc }, rtcp: true, index: u64::from(index) }
            }
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let digest = hasher.finish();
        if *self.sealed.entry(nonce).or_insert(digest) != digest {
            self.reused.push(nonce);
        }
    }
}

/// The index with this sequence number that lies nearest to `highest` (RFC 3711 §3.3.1).
fn nearest(highest: u64, sequence: u16) -> u64 {
    let step = i64::from(sequence.wrapping_sub(highest as u16) as i16);
    highest.checked_add_signed(step).unwrap_or(u64::from(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (SocketAddr, SocketAddr) {
        (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into())
    }

    fn rtp(sequence: u16, fill: u8) -> Vec<u8> {
        let mut packet = vec![0x90, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 0, 0, 0, 0];
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.resize(20 + 100 + TAG_BYTES, fill);
        packet
    }

    fn rtcp(index: u32, fill: u8) -> Vec<u8> {
        let mut packet = vec![0x80, 200, 0, 1, 0, 0, 0, 7, fill, fill, fill, fill];
        packet.extend((index | 0x8000_0000).to_be_bytes());
        packet
    }

    #[test]
    fn header_and_payload_are_counted_by_stream() {
        let (a, b) = ends();
        let mut wire = Wire::new(a);
        wire.note_sent(b, a, &rtp(1, 1));
        wire.note_sent(b, a, &rtp(2, 2));
        wire.note_sent(b, a, &rtcp(0, 1));
        wire.note_delivered(b, a, &rtp(2, 2));
        let stream = Stream { from: b, to: a, ssrc: 7 };
        assert_eq!(wire.sent[&stream], Carried { packets: 2, header_bytes: 40, payload_bytes: 200 });
        assert_eq!(wire.delivered[&stream], Carried { packets: 1, header_bytes: 20, payload_bytes: 100 });
        assert!(wire.nonces.is_empty(), "only the server's are of interest");
    }

    #[test]
    fn the_same_bytes_again_are_no_reuse_and_other_bytes_are() {
        let (a, b) = ends();
        let mut nonces = Nonces::default();
        for packet in [rtp(1, 1), rtp(2, 1), rtp(1, 1), rtcp(1, 1), rtcp(2, 1), rtcp(1, 1)] {
            nonces.observe(a, b, &packet);
        }
        assert_eq!((nonces.len(), nonces.reused.len()), (4, 0));
        nonces.observe(a, b, &rtp(2, 9));
        nonces.observe(a, b, &rtcp(2, 9));
        let reused: Vec<_> = nonces.reused.iter().map(|nonce| (nonce.rtcp, nonce.index)).collect();
        assert_eq!(reused, [(false, 2), (true, 2)]);
    }

    #[test]
    fn a_number_that_came_round_is_another_nonce_and_a_late_one_is_not() {
        let (a, b) = ends();
        let mut nonces = Nonces::default();
        for step in 0..140_000_u32 {
            nonces.observe(a, b, &rtp(step as u16, (step >> 16) as u8));
        }
        assert_eq!((nonces.len(), nonces.reused.len()), (140_000, 0));
        nonces.observe(a, b, &rtp(100, 7));
        assert_eq!(nonces.reused.len(), 1, "number 100 of the second round");
    }

    #[test]
    fn a_new_handshake_makes_new_nonces() {
        let (a, b) = ends();
        let mut wire = Wire::new(a);
        let mut hello = vec![0; 60];
        (hello[0], hello[HANDSHAKE_TYPE_AT]) = (HANDSHAKE, CLIENT_HELLO);
        wire.note_sent(a, b, &rtp(1, 1));
        wire.note_sent(b, a, &hello);
        wire.note_sent(a, b, &rtp(1, 2));
        assert_eq!((wire.nonces.len(), wire.nonces.reused.len()), (2, 0));
    }
}
