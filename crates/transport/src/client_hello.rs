//! Looks into a DTLS ClientHello before a DTLS engine is chosen for it.
//!
//! Which SRTP profile comes out of a handshake depends on the engine: as a DTLS 1.3 server the library takes the
//! client's first profile, as a 1.2 server its own order, AES-GCM first. libwebrtc lists AES-CM first, which costs
//! five times more per packet, so such a client is answered in DTLS 1.2.

use crate::limits::{HELLO_BYTES_MAX, HELLO_DATAGRAMS_MAX};

const CONTENT_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const VERSION_DTLS_12: u16 = 0xfefd;
const EXTENSION_USE_SRTP: u16 = 14;
const EXTENSION_EXTENDED_MASTER_SECRET: u16 = 23;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
/// ECDHE_ECDSA with AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305: what the 1.2 server can speak.
const SUITES_DTLS_12: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];
const SRTP_AES128_CM_SHA1_80: u16 = 0x0001;
const SRTP_AEAD_AES_128_GCM: u16 = 0x0007;
const SRTP_AEAD_AES_256_GCM: u16 = 0x0008;
/// Separate received parts of a hello; a real one comes in two, and every part costs a sort.
const PARTS_MAX: usize = 16;

/// Collects the datagrams of one ClientHello.
#[derive(Debug, Default)]
pub(crate) struct HelloCollector {
    datagrams: Vec<Vec<u8>>,
    sequence: u16,
    body: Vec<u8>,
    /// Received parts of the body, sorted and merged.
    parts: Vec<(usize, usize)>,
}

/// A ClientHello that arrived whole.
#[derive(Debug)]
pub(crate) struct CollectedHello {
    /// The datagrams it came in, to be replayed into the engine.
    pub(crate) datagrams: Vec<Vec<u8>>,
    /// Whether a DTLS 1.2 server gets a better SRTP profile out of it.
    pub(crate) prefers_dtls12: bool,
}

struct Fragment<'a> {
    sequence: u16,
    length: usize,
    offset: usize,
    bytes: &'a [u8],
}

impl HelloCollector {
    /// Takes a datagram; gives back the hello when it is complete. Anything but fragments of a ClientHello in epoch 0
    /// is dropped without a trace: before the handshake nothing else has a meaning.
    pub(crate) fn push(&mut self, datagram: &[u8]) -> Option<CollectedHello> {
        let mut any = false;
        let mut rest = datagram;
        while let Some((fragment, tail)) = next_record(rest) {
            rest = tail;
            any |= fragment.is_some_and(|fragment| self.add(&fragment));
        }
        if !any {
            return None;
        }
        if self.datagrams.len() >= HELLO_DATAGRAMS_MAX {
            *self = Self::default();
            return None;
        }
        self.datagrams.push(datagram.to_vec());
        let complete = matches!(self.parts.as_slice(), [(0, end)] if *end == self.body.len());
        complete.then(|| {
            let collected = std::mem::take(self);
            let prefers_dtls12 = prefers_dtls12(&collected.body).unwrap_or(false);
            CollectedHello { datagrams: collected.datagrams, prefers_dtls12 }
        })
    }

    fn add(&mut self, fragment: &Fragment<'_>) -> bool {
        let Some(end) = fragment.offset.checked_add(fragment.bytes.len()) else { return false };
        if fragment.length == 0 || fragment.length > HELLO_BYTES_MAX || end > fragment.length {
            return false;
        }
        if self.body.len() != fragment.length || self.sequence != fragment.sequence {
            *self = Self { sequence: fragment.sequence, body: vec![0; fragment.length], ..Self::default() };
        }
        let Some(target) = self.body.get_mut(fragment.offset..end) else { return false };
        target.copy_from_slice(fragment.bytes);
        self.parts.push((fragment.offset, end));
        self.parts.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(self.parts.len());
        for (from, to) in self.parts.drain(..) {
            match merged.last_mut() {
                Some((_, last)) if from <= *last => *last = (*last).max(to),
                _ => merged.push((from, to)),
            }
        }
        self.parts = merged;
        if self.parts.len() > PARTS_MAX {
            *self = Self::default();
            return false;
        }
        true
    }
}

/// Whether an active, still undecided DTLS client may see this datagram: a ServerHello or HelloVerifyRequest in epoch
/// 0. The library's version-sensing client treats any other first datagram as fatal.
pub(crate) fn is_first_server_flight(datagram: &[u8]) -> bool {
    matches!(datagram, [CONTENT_HANDSHAKE, _, _, 0, 0, _, _, _, _, _, _, _, _, 2 | 3, ..])
}

/// One DTLS record: its ClientHello fragment, if it is one, and what follows it.
fn next_record(datagram: &[u8]) -> Option<(Option<Fragment<'_>>, &[u8])> {
    let (header, rest) = datagram.split_at_checked(13)?;
    let [kind, _, _, epoch @ .., _, _, _, _, _, _, high, low] = header else { return None };
    let (record, tail) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    let plain_handshake = *kind == CONTENT_HANDSHAKE && epoch == [0, 0];
    Some((if plain_handshake { client_hello_fragment(record) } else { None }, tail))
}

fn client_hello_fragment(record: &[u8]) -> Option<Fragment<'_>> {
    let (header, bytes) = record.split_at_checked(12)?;
    let mut reader = Reader(header);
    if reader.u8()? != MESSAGE_CLIENT_HELLO {
        return None;
    }
    let length = reader.u24()?;
    let sequence = reader.u16()?;
    let offset = reader.u24()?;
    let fragment_length = reader.u24()?;
    Some(Fragment { sequence, length, offset, bytes: bytes.get(..fragment_length)? })
}

/// RFC 6347 §4.2.1 and RFC 5764 §4.1.1; `None` when the hello cannot be read, which the engine then judges.
fn prefers_dtls12(body: &[u8]) -> Option<bool> {
    let mut reader = Reader(body);
    let legacy_version = reader.u16()?;
    reader.take(32)?;
    reader.vector8()?;
    reader.vector8()?;
    let suites = Reader(reader.vector16()?).all_u16();
    reader.vector8()?;
    let mut extensions = Reader(reader.vector16()?);
    let mut versions = None;
    let mut profiles = Vec::new();
    let mut extended_master_secret = false;
    while let Some(kind) = extensions.u16() {
        let mut value = Reader(extensions.vector16()?);
        match kind {
            EXTENSION_USE_SRTP => profiles = Reader(value.vector16()?).all_u16(),
            EXTENSION_SUPPORTED_VERSIONS => versions = Some(Reader(value.vector8()?).all_u16()),
            EXTENSION_EXTENDED_MASTER_SECRET => extended_master_secret = true,
            _ => {}
        }
    }
    let speaks_12 =
        versions.map_or(legacy_version == VERSION_DTLS_12, |versions| versions.contains(&VERSION_DTLS_12));
    let known = |profile: &&u16| {
        [SRTP_AES128_CM_SHA1_80, SRTP_AEAD_AES_128_GCM, SRTP_AEAD_AES_256_GCM].contains(profile)
    };
    let cm_first = profiles.iter().find(known) == Some(&SRTP_AES128_CM_SHA1_80);
    let has_gcm =
        profiles.iter().any(|profile| [SRTP_AEAD_AES_128_GCM, SRTP_AEAD_AES_256_GCM].contains(profile));
    let suite = suites.iter().any(|suite| SUITES_DTLS_12.contains(suite));
    Some(speaks_12 && cm_first && has_gcm && suite && extended_master_secret)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn u24(&mut self) -> Option<usize> {
        let high = usize::from(self.u8()?);
        Some((high << 16) | usize::from(self.u16()?))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.u8()?);
        self.take(len)
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.u16()?);
        self.take(len)
    }

    fn all_u16(mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.u16()).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A ClientHello body with these SRTP profiles, in the shape libwebrtc sends.
    pub(crate) fn hello_body(profiles: &[u16], versions: &[u16]) -> Vec<u8> {
        let mut body = vec![0xfe, 0xfd];
        body.extend([9; 32]);
        body.extend([0, 0]);
        body.extend([0, 4, 0x13, 0x01, 0xc0, 0x2b]);
        body.extend([1, 0]);
        let mut extensions = vec![0, 23, 0, 0];
        let list: Vec<u8> = profiles.iter().flat_map(|profile| profile.to_be_bytes()).collect();
        extensions.extend([0, 14, 0, list.len() as u8 + 3, 0, list.len() as u8]);
        extensions.extend(list);
        extensions.push(0);
        if !versions.is_empty() {
            let list: Vec<u8> = versions.iter().flat_map(|version| version.to_be_bytes()).collect();
            extensions.extend([0, 43, 0, list.len() as u8 + 1, list.len() as u8]);
            extensions.extend(list);
        }
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        body
    }

    /// One record with a fragment of a ClientHello.
    pub(crate) fn record(body: &[u8], from: usize, to: usize) -> Vec<u8> {
        let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
        record.extend(((to - from + 12) as u16).to_be_bytes());
        record.push(1);
        record.extend(&(body.len() as u32).to_be_bytes()[1..]);
        record.extend([0, 0]);
        record.extend(&(from as u32).to_be_bytes()[1..]);
        record.extend(&((to - from) as u32).to_be_bytes()[1..]);
        record.extend(&body[from..to]);
        record
    }

    fn decide(profiles: &[u16], versions: &[u16]) -> bool {
        let body = hello_body(profiles, versions);
        let mut collector = HelloCollector::default();
        collector.push(&record(&body, 0, body.len())).expect("a whole hello").prefers_dtls12
    }

    #[test]
    fn a_client_that_lists_aes_cm_first_is_answered_in_dtls_12() {
        assert!(decide(&[1, 8, 7], &[0xfefc, 0xfefd]));
        assert!(decide(&[1, 7], &[]));
    }

    #[test]
    fn other_clients_choose_their_version() {
        assert!(!decide(&[7, 8, 1], &[0xfefc, 0xfefd]));
        assert!(!decide(&[1], &[0xfefc, 0xfefd]));
        assert!(!decide(&[1, 7], &[0xfefc]));
        assert!(!decide(&[], &[]));
    }

    #[test]
    fn a_hello_in_two_datagrams_in_any_order_is_put_together() {
        let body = hello_body(&[1, 7], &[]);
        let (first, second) = (record(&body, 0, 40), record(&body, 40, body.len()));
        for order in [[&first, &second], [&second, &first]] {
            let mut collector = HelloCollector::default();
            assert!(collector.push(order[0]).is_none());
            assert!(collector.push(order[0]).is_none());
            let hello = collector.push(order[1]).expect("complete");
            assert!(hello.prefers_dtls12);
            assert_eq!(hello.datagrams.len(), 3);
        }
    }

    #[test]
    fn anything_but_a_client_hello_is_dropped() {
        let mut collector = HelloCollector::default();
        let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
        assert!(collector.push(&alert).is_none());
        assert!(collector.push(&[22; 64]).is_none());
        assert!(collector.datagrams.is_empty());
        let body = hello_body(&[1, 7], &[]);
        let whole = record(&body, 0, body.len());
        for len in 0..whole.len() {
            assert!(collector.push(&whole[..len]).is_none());
        }
        assert!(collector.push(&whole).is_some());
    }

    #[test]
    fn a_hello_in_too_many_datagrams_is_forgotten() {
        let body = hello_body(&[1, 7], &[]);
        let mut collector = HelloCollector::default();
        for at in 0..100 {
            let at = at % 30;
            assert!(collector.push(&record(&body, at, at + 1)).is_none());
            assert!(collector.datagrams.len() <= HELLO_DATAGRAMS_MAX);
        }
    }

    #[test]
    fn an_active_side_waits_for_the_servers_first_flight() {
        let mut datagram = record(&[0; 40], 0, 40);
        assert!(!is_first_server_flight(&datagram));
        datagram[13] = 2;
        assert!(is_first_server_flight(&datagram));
        datagram[4] = 1;
        assert!(!is_first_server_flight(&datagram));
        assert!(!is_first_server_flight(&[21; 40]));
        assert!(!is_first_server_flight(&[]));
    }
}
