//! Against packets made by hand: what no honest stack sends.

use super::*;
use crate::limits::STREAMS_OPEN_MAX;

const PEER_TAG: u32 = 0x0102_0304;
const FIRST_TSN: u32 = 1_000;

/// CRC-32C (RFC 9260 appendix A).
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn packet(tag: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = vec![0x13, 0x88, 0x13, 0x88];
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    for chunk in chunks {
        packet.extend(chunk);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    let checksum = checksum(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend((value.len() as u16 + 4).to_be_bytes());
    chunk.extend(value);
    chunk
}

fn init(tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend(1_000_000u32.to_be_bytes());
    value.extend([4, 0, 4, 0]);
    value.extend(FIRST_TSN.to_be_bytes());
    packet(0, &[chunk(CHUNK_INIT, 0, &value)])
}

/// A DATA chunk; flags: 1 ends a message, 2 begins one, 4 is unordered.
fn data(tsn: u32, stream: u16, flags: u8, ppid: u32, bytes: &[u8]) -> Vec<u8> {
    let mut value = tsn.to_be_bytes().to_vec();
    value.extend(stream.to_be_bytes());
    value.extend([0, 0]);
    value.extend(ppid.to_be_bytes());
    value.extend(bytes);
    chunk(CHUNK_DATA, flags, &value)
}

struct Attack {
    sctp: Sctp,
    now: Instant,
    tag: u32,
    tsn: u32,
    /// First TSN of ours.
    first_tsn: u32,
    events: Vec<ChannelEvent>,
}

impl Attack {
    #[allow(
        clippy::disallowed_methods,
        reason = "an Instant cannot be made without the clock; its value is arbitrary"
    )]
    fn new() -> Self {
        Self {
            sctp: Sctp::new(),
            now: Instant::now(),
            tag: 0,
            tsn: FIRST_TSN,
            first_tsn: 0,
            events: Vec::new(),
        }
    }

    fn established() -> Self {
        let mut attack = Self::new();
        let answer = attack.feed(&init(PEER_TAG));
        attack.finish(&answer[0], PEER_TAG);
        attack
    }

    fn finish(&mut self, init_ack: &[u8], peer_tag: u32) {
        assert_eq!((init_ack[FIRST_CHUNK_AT], be32(init_ack, 4)), (CHUNK_INIT_ACK, Some(peer_tag)));
        self.tag = be32(init_ack, INITIATE_TAG_AT).expect("a tag");
        self.first_tsn = be32(init_ack, 28).expect("a TSN");
        let mut parameters = &init_ack[32..];
        let cookie = loop {
            let len = usize::from(u16::from_be_bytes([parameters[2], parameters[3]]));
            if parameters[..2] == [0, 7] {
                break parameters[4..len].to_vec();
            }
            parameters = &parameters[len.next_multiple_of(4)..];
        };
        let answers = self.feed(&packet(self.tag, &[chunk(10, 0, &cookie)]));
        assert_eq!(answers[0][FIRST_CHUNK_AT], 11);
        assert!(self.sctp.established);
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.sctp.receive(self.now, bytes, &mut self.events);
        self.sctp.read(self.now, 1_000, &mut self.events);
        let mut packets = Vec::new();
        while let Some(packet) = self.sctp.next_packet(self.now) {
            packets.push(packet.to_vec());
        }
        packets
    }

    fn send(&mut self, stream: u16, flags: u8, ppid: u32, bytes: &[u8]) -> Vec<Vec<u8>> {
        let chunk = data(self.tsn, stream, flags, ppid, bytes);
        self.tsn = self.tsn.wrapping_add(1);
        self.feed(&packet(self.tag, &[chunk]))
    }
}

fn open(ordered: bool) -> Open {
    Open { ordered, reliability: Reliability::Reliable, label: "l".into(), protocol: String::new() }
}

#[test]
fn an_init_that_comes_again_gets_the_same_answer() {
    let mut attack = Attack::new();
    let first = attack.feed(&init(PEER_TAG));
    let second = attack.feed(&init(PEER_TAG));
    assert_eq!((first.len(), &first), (1, &second));
    attack.finish(&second[0], PEER_TAG);
    assert!(
        attack.feed(&init(PEER_TAG)).is_empty(),
        "an old copy of it is ignored once the association stands"
    );
    assert!(attack.sctp.established);
}

#[test]
fn a_peer_that_begins_anew_replaces_its_association() {
    let mut attack = Attack::established();
    let open = open(true);
    attack.send(0, 3, 50, &open.to_bytes());
    let id = ChannelId(0);
    assert_eq!(attack.events, [ChannelEvent::Opened { id, open }]);
    let answer = attack.feed(&init(PEER_TAG + 1));
    assert_eq!(attack.events[1], ChannelEvent::Closed { id });
    attack.finish(&answer[0], PEER_TAG + 1);
}

#[test]
fn an_endless_message_ends_the_association() {
    let mut attack = Attack::established();
    let mut sent = 0u64;
    while attack.sctp.association.is_some() {
        attack.send(0, if sent == 0 { 2 } else { 0 }, 53, &[0; 1_000]);
        sent += 1_000;
        assert!(sent < 4 * RECEIVE_EXCESS_BYTES_MAX, "it must end");
    }
    assert!(sent > u64::from(RECEIVE_WINDOW_BYTES), "the window may be used");
    assert_eq!(attack.sctp.counters().violations, 1);
}

#[test]
fn streams_without_number_end_the_association() {
    let mut attack = Attack::established();
    for stream in 0..2_000 {
        attack.send(stream, 3, 53, b"x");
    }
    let counters = attack.sctp.counters();
    assert_eq!((counters.violations, attack.sctp.association.is_none()), (1, true));
    assert_eq!(counters.unknown_channel, STREAMS_OPEN_MAX as u64);
}

#[test]
fn a_malformed_open_resets_its_stream_only() {
    let mut attack = Attack::established();
    attack.send(0, 3, 50, &[3, 9, 9]);
    attack.send(2, 3, 50, &[]);
    attack.send(4, 3, 50, &[77]);
    assert!(attack.sctp.counters().refused_open >= 2);
    assert!(attack.events.is_empty());
    assert!(attack.sctp.established);
}

#[test]
fn a_message_longer_than_announced_is_dropped() {
    let mut attack = Attack::established();
    let open = open(true);
    attack.send(0, 3, 50, &open.to_bytes());
    for n in 0..70 {
        attack.send(0, 4 | if n == 0 { 2 } else { u8::from(n == 69) }, 53, &[0; 1_000]);
    }
    assert_eq!(attack.sctp.counters().too_large, 1);
    assert!(!attack.events.iter().any(|event| matches!(event, ChannelEvent::Message { .. })));
}

#[test]
fn empty_messages_come_out_empty() {
    let mut attack = Attack::established();
    let open = open(false);
    attack.send(0, 3, 50, &open.to_bytes());
    attack.send(0, 7, 56, &[0]);
    attack.send(0, 7, 57, &[0]);
    let id = ChannelId(0);
    let empty = |binary| ChannelEvent::Message { id, binary, bytes: Vec::new() };
    assert_eq!(attack.events[1..], [empty(false), empty(true)]);
}

#[test]
fn truncated_and_mutated_packets_do_no_harm() {
    let genuine = [
        init(PEER_TAG),
        packet(7, &[chunk(10, 0, &[1; 32])]),
        packet(7, &[data(FIRST_TSN, 0, 3, 50, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, b'a'])]),
        packet(7, &[chunk(CHUNK_SACK, 0, &[0, 0, 3, 0xe8, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 2, 0, 0, 0, 5])]),
        packet(7, &[chunk(130, 0, &[0, 13, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1])]),
        packet(7, &[chunk(192, 0, &[0, 0, 3, 0xe9, 0, 1, 0, 1])]),
        packet(7, &[chunk(4, 0, &[0, 1, 0, 8, 1, 2, 3, 4])]),
    ];
    let mut random = fanlight_base::Random::from_seed([9; 32]);
    for _ in 0..2_000 {
        let mut attack = Attack::established();
        let id = attack.sctp.open(attack.now, genuine_open());
        for _ in 0..=random.below(6) {
            let mut bytes = genuine[random.below(genuine.len() as u64) as usize].clone();
            if random.below(3) == 0 {
                let other = &genuine[random.below(genuine.len() as u64) as usize];
                bytes.extend_from_slice(&other[12..]);
            }
            if be32(&bytes, 4) == Some(7) {
                bytes[4..8].copy_from_slice(&attack.tag.to_be_bytes());
            }
            if bytes[12] == CHUNK_SACK {
                // Near what we sent, so that more than the first comparison is tried.
                let cumulative = attack.first_tsn.wrapping_add(random.below(8) as u32).wrapping_sub(2);
                bytes[16..20].copy_from_slice(&cumulative.to_be_bytes());
            }
            mutate(&mut bytes, &mut random);
            attack.feed(&bytes);
            attack.now += Duration::from_millis(random.below(1_500));
            attack.sctp.tick(attack.now, &mut attack.events);
            let _ = attack.sctp.send(attack.now, id.expect("a channel"), true, &[1; 3_000]);
        }
    }
}

fn genuine_open() -> Open {
    Open {
        ordered: true,
        reliability: Reliability::Retransmits(1),
        label: "l".into(),
        protocol: String::new(),
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fanlight_base::Random) {
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        1 => {}
        _ => {
            for _ in 0..=random.below(3) {
                let at = 12 + random.below(bytes.len() as u64 - 12) as usize;
                let bit = 1 << random.below(8);
                bytes[at] = if random.below(2) == 0 { random.u32() as u8 } else { bytes[at] ^ bit };
            }
        }
    }
    if bytes.len() >= 12 {
        bytes[8..12].fill(0);
        let checksum = checksum(bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    }
}
