//! Against packets made by hand: what no honest stack sends.

use super::handmade::{
    FIRST_TSN, HandmadePeer, PEER_TAG, chunk, data, ordered_data, packet, reset_request, seal,
};
use super::*;
use crate::dcep::Reliability;
use crate::limits::{
    RECEIVE_WINDOW_BYTES, SCTP_HELD_CHUNKS_MAX, SCTP_PACKET_BYTES, SCTP_TSN_WINDOW, STREAMS_OPEN_MAX,
};

fn established() -> HandmadePeer {
    established_from(FIRST_TSN)
}

fn established_from(first_tsn: u32) -> HandmadePeer {
    let peer = HandmadePeer::established(now(), first_tsn);
    assert!(peer.sctp.established);
    peer
}

#[allow(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made without the clock; its value is arbitrary"
)]
fn now() -> Instant {
    Instant::now()
}

fn init(tag: u32) -> Vec<u8> {
    handmade::init(tag, FIRST_TSN, &[])
}

fn open(ordered: bool) -> Open {
    Open { ordered, reliability: Reliability::Reliable, label: "l".into(), protocol: String::new() }
}

#[test]
fn an_init_that_comes_again_gets_the_same_answer() {
    let mut attack = HandmadePeer::new(now());
    let first = attack.feed(&init(PEER_TAG));
    let second = attack.feed(&init(PEER_TAG));
    assert_eq!((first.len(), &first), (1, &second));
    attack.finish(&second[0]);
    assert!(attack.sctp.established);
    assert!(
        attack.feed(&init(PEER_TAG)).is_empty(),
        "an old copy of it is ignored once the association stands"
    );
    assert!(attack.sctp.established);
}

#[test]
fn a_peer_that_begins_anew_replaces_its_association() {
    let mut attack = established();
    let open = open(true);
    attack.send(0, 3, 50, &open.to_bytes());
    let id = ChannelId(0);
    assert_eq!(attack.events, [ChannelEvent::Opened { id, open }]);
    let answer = attack.feed(&init(PEER_TAG + 1));
    assert_eq!(attack.events[1], ChannelEvent::Closed { id });
    attack.finish(&answer[0]);
    assert!(attack.sctp.established);
}

#[test]
fn an_endless_message_ends_the_association() {
    let mut attack = established();
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
    let mut attack = established();
    for stream in 0..2_000 {
        attack.send(stream, 3, 53, b"x");
    }
    let counters = attack.sctp.counters();
    assert_eq!((counters.violations, attack.sctp.association.is_none()), (1, true));
    assert_eq!(counters.unknown_channel, STREAMS_OPEN_MAX as u64);
}

#[test]
fn a_malformed_open_resets_its_stream_only() {
    let mut attack = established();
    attack.send(0, 3, 50, &[3, 9, 9]);
    attack.send(2, 3, 50, &[]);
    attack.send(4, 3, 50, &[77]);
    assert!(attack.sctp.counters().refused_open >= 2);
    assert!(attack.events.is_empty());
    assert!(attack.sctp.established);
}

#[test]
fn a_message_longer_than_announced_is_dropped() {
    let mut attack = established();
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
    let mut attack = established();
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
        packet(7, &[chunk(kind::SACK, 0, &[0, 0, 3, 0xe8, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 2, 0, 0, 0, 5])]),
        packet(7, &[chunk(130, 0, &[0, 13, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1])]),
        packet(7, &[chunk(192, 0, &[0, 0, 3, 0xe9, 0, 1, 0, 1])]),
        packet(7, &[chunk(4, 0, &[0, 1, 0, 8, 1, 2, 3, 4])]),
    ];
    let mut random = fanlight_base::Random::from_seed([9; 32]);
    for _ in 0..2_000 {
        let mut attack = established();
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
            if bytes[12] == kind::SACK {
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
    seal(bytes);
}

/// The chunk of the last SACK among packets, behind its header.
fn last_sack(packets: &[Vec<u8>]) -> &[u8] {
    let sack = packets.iter().rfind(|packet| packet[FIRST_CHUNK_AT] == kind::SACK).expect("a SACK");
    &sack[FIRST_CHUNK_AT + 4..]
}

#[test]
fn a_forward_tsn_of_any_jump_is_one_step() {
    for jump in [1, 0xffff, 0x7fff_fffe] {
        let mut attack = established();
        let new = FIRST_TSN.wrapping_sub(1).wrapping_add(jump);
        attack.feed_chunks(&[chunk(kind::FORWARD_TSN, 0, &new.to_be_bytes())]);
        attack.tsn = new.wrapping_add(1);
        let answers = attack.send(0, 3, 50, &open(true).to_bytes());
        assert_eq!(be32(last_sack(&answers), 0), Some(attack.tsn.wrapping_sub(1)), "{jump}");
        assert_eq!(attack.events.len(), 1, "data goes on behind it");
    }
}

#[test]
fn numbers_may_wrap() {
    let mut attack = established_from(0xffff_fff0);
    attack.send(0, 3, 50, &open(true).to_bytes());
    for message in 0..100u8 {
        let data = ordered_data(attack.tsn, 0, u16::from(message) + 1, 3, 53, &[message]);
        attack.tsn = attack.tsn.wrapping_add(1);
        let answers = attack.feed_chunks(&[data]);
        assert_eq!(be32(last_sack(&answers), 0), Some(attack.tsn.wrapping_sub(1)));
    }
    let messages = attack.events.iter().filter(|event| matches!(event, ChannelEvent::Message { .. })).count();
    assert_eq!(messages, 100);
}

#[test]
fn a_single_packet_is_acknowledged_at_once() {
    let mut attack = established();
    for _ in 0..5 {
        let tsn = attack.tsn;
        let answers = attack.send(0, 3, 53, b"x");
        assert_eq!(be32(last_sack(&answers), 0), Some(tsn));
    }
}

#[test]
fn packets_of_one_turn_are_acknowledged_together() {
    let mut attack = established();
    for n in 0..20 {
        let chunk = data(attack.tsn.wrapping_add(n), 0, 7, 53, b"x");
        let bytes = packet(attack.tag, &[chunk]);
        attack.sctp.receive(attack.now, &bytes, &mut attack.events);
    }
    let mut packets = Vec::new();
    while let Some(packet) = attack.sctp.next_packet(attack.now) {
        packets.push(packet.to_vec());
    }
    assert_eq!((packets.len(), be32(last_sack(&packets), 0)), (1, Some(FIRST_TSN + 19)));
}

#[test]
fn data_whose_acknowledgement_was_lost_is_acknowledged_again() {
    let mut attack = established();
    attack.send(0, 7, 53, b"x");
    for _ in 0..3 {
        attack.tsn = FIRST_TSN;
        let answers = attack.send(0, 7, 53, b"x");
        assert_eq!(be32(last_sack(&answers), 0), Some(FIRST_TSN));
    }
    assert_eq!(attack.sctp.counters().unknown_channel, 1, "it is delivered once");
}

#[test]
fn fragments_that_make_no_message_end_the_association() {
    // First fragments without end, unordered; then ordered messages of which the first never comes.
    for (flags, ssn) in [(6, 0), (2, 0), (3, 1)] {
        let mut attack = established();
        let mut sent = 0;
        while attack.sctp.association.is_some() {
            let chunks: Vec<_> = (0..16u32)
                .map(|n| {
                    let ssn = if ssn == 0 { 0 } else { ssn + sent as u16 + n as u16 };
                    ordered_data(attack.tsn.wrapping_add(n), 0, ssn, flags, 53, &[1])
                })
                .collect();
            attack.tsn = attack.tsn.wrapping_add(16);
            attack.feed_chunks(&chunks);
            sent += 16;
            assert!(sent <= SCTP_HELD_CHUNKS_MAX + 16, "it must end");
        }
        assert_eq!(attack.sctp.counters().violations, 1, "{flags}");
    }
}

#[test]
fn gaps_are_bounded_in_number_and_in_the_acknowledgement() {
    let mut attack = established();
    let mut longest = 0;
    for n in 1..2_000 {
        attack.tsn = FIRST_TSN + 2 * n;
        let answers = attack.send(0, 7, 53, b"x");
        longest = answers.iter().map(Vec::len).max().unwrap_or(longest).max(longest);
    }
    assert!(attack.sctp.counters().refused >= 1_999 - u64::from(SCTP_TSN_WINDOW) / 2);
    assert!(longest <= SCTP_PACKET_BYTES as usize, "{longest}");
    // The missing chunk comes: what was kept is delivered and the numbers go on.
    attack.tsn = FIRST_TSN;
    let answers = attack.send(0, 7, 53, b"x");
    assert_eq!(be32(last_sack(&answers), 0), Some(FIRST_TSN));
    assert!(attack.sctp.association.is_some());
}

#[test]
fn an_acknowledgement_whose_blocks_overlap_is_left_out() {
    let mut attack = established();
    let before = attack.sctp.counters().refused;
    let mut value = attack.first_tsn.wrapping_sub(1).to_be_bytes().to_vec();
    value.extend([0, 1, 0, 0, 1, 0, 0, 0]);
    for _ in 0..256 {
        value.extend([0, 1, 0xff, 0xff]);
    }
    attack.feed_chunks(&[chunk(kind::SACK, 0, &value)]);
    assert_eq!(attack.sctp.counters().refused, before + 1);
    assert!(attack.sctp.association.is_some());
}

#[test]
fn resets_are_taken_one_at_a_time() {
    let mut attack = established();
    let mut answers = 0;
    for n in 0..10_000u32 {
        // Each resets a stream that was just made, and never answers our own request.
        let stream = (2 * (n % 100)) as u16;
        let data = data(attack.tsn, stream, 7, 53, b"x");
        attack.tsn = attack.tsn.wrapping_add(1);
        answers += attack.feed_chunks(&[data]).len();
        let last = attack.tsn.wrapping_sub(1);
        answers += attack.feed_chunks(&[reset_request(FIRST_TSN + n, 0, last, &[stream])]).len();
    }
    assert!(attack.sctp.counters().refused >= 9_990);
    assert!(
        answers <= 10_000 + 10,
        "an acknowledgement each, and the answers to the first request: {answers}"
    );
    assert!(attack.sctp.association.is_some());
}

#[test]
fn a_reset_ahead_of_its_data_waits_for_the_peer_to_ask_again() {
    let mut attack = established();
    attack.send(0, 3, 50, &open(true).to_bytes());
    let request = reset_request(FIRST_TSN, 0, attack.tsn, &[0]);
    assert!(attack.feed_chunks(std::slice::from_ref(&request)).is_empty());
    attack.send(0, 7, 53, b"last");
    let answers = attack.feed_chunks(&[request]);
    assert!(answers.iter().all(|packet| packet[FIRST_CHUNK_AT] == kind::RE_CONFIG) && !answers.is_empty());
    assert!(matches!(attack.events.last(), Some(ChannelEvent::Closed { .. })));
}

#[test]
fn chunks_that_are_not_known_are_left_out_by_their_upper_bits() {
    let mut attack = established();
    let known = |tsn| data(tsn, 0, 7, 53, b"x");
    // PAD (RFC 4820) is skipped; behind I-DATA nothing is read (RFC 8260 was not agreed on).
    let answers = attack.feed(&packet(
        attack.tag,
        &[chunk(0x84, 0, &[0; 8]), known(FIRST_TSN), chunk(0x40, 3, &[0; 20]), known(FIRST_TSN + 1)],
    ));
    assert_eq!(be32(last_sack(&answers), 0), Some(FIRST_TSN));
    // An ERROR asks nothing of us.
    attack.feed_chunks(&[chunk(kind::ERROR, 0, &[0, 6, 0, 4])]);
    assert!(attack.sctp.established);
}

#[test]
fn a_packet_longer_than_any_stack_sends_is_left_out() {
    let mut attack = established();
    let chunks: Vec<_> = (0..200).map(|n| data(FIRST_TSN + n, 0, 7, 53, b"x")).collect();
    assert!(attack.feed_chunks(&chunks).is_empty());
    assert_eq!(attack.sctp.counters().refused, 1);
}

#[test]
fn what_ends_an_association_tells_the_peer() {
    let mut attack = established();
    attack.sctp.abort(&mut attack.events);
    let packet = attack.sctp.next_packet(attack.now).expect("an ABORT");
    assert_eq!((packet[FIRST_CHUNK_AT], be32(&packet, 4)), (kind::ABORT, Some(PEER_TAG)));
}
