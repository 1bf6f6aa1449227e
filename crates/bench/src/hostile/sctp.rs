//! Attacks inside of data channels' transport, by participants whom tokens let in: one on each media thread.

use super::attack::{Attack, Stint, again, together};
use super::intruder::{Intruder, room};
use super::target::Target;
use crate::Failure;
use fanlight_transport::fuzzing::handmade::{FIRST_TSN, chunk, data, packet, reset_request};

const INTRUDERS: u32 = 2;
/// Packets of one attacker.
const PER_SECOND: u32 = 4_000;
/// An attacker looks after its connection after so many packets.
const BREATHE_EVERY: u32 = 64;
const FORWARD_TSN: u8 = 192;
/// The last numbers before TSNs wrap.
const NEAR_WRAP: u32 = 0xffff_fff0;
/// Beginning, end and unordered, of DATA chunks.
const END: u8 = 1;
const BEGIN: u8 = 2;
const UNORDERED: u8 = 4;
/// Payload protocol of text (RFC 8831 §8).
const TEXT: u32 = 51;
/// Chunks of 20 bytes in a packet.
const FRAGMENTS: u32 = 30;

pub(super) const ATTACKS: &[Attack] = &[
    attack("sctp-forward-tsn", |target, stint| flood(target, stint, FIRST_TSN, forward_tsn)),
    attack("sctp-first-fragments", |target, stint| flood(target, stint, FIRST_TSN, first_fragments)),
    attack("sctp-re-config", |target, stint| flood(target, stint, FIRST_TSN, re_config)),
    attack("sctp-small-fragments", |target, stint| flood(target, stint, FIRST_TSN, small_fragments)),
    attack("sctp-gaps", |target, stint| flood(target, stint, FIRST_TSN, gaps)),
    attack("sctp-near-wrap", |target, stint| flood(target, stint, NEAR_WRAP, messages)),
];

const fn attack(name: &'static str, run: super::attack::Run) -> Attack {
    Attack { name, attackers: INTRUDERS, run }
}

/// Packet `n` of an association.
type Sender = fn(tag: u32, first_tsn: u32, n: u32) -> Vec<u8>;

fn flood(target: &Target, stint: Stint, first_tsn: u32, sender: Sender) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        again(stint, PER_SECOND, |joined, pace| {
            let mut intruder = Intruder::join(target, &room(number), &format!("intruder-{joined}"))?;
            let tag = intruder.associate(first_tsn)?;
            let mut n = 0;
            while pace.next() {
                if n % BREATHE_EVERY == 0 {
                    intruder.breathe()?;
                }
                intruder.publisher.send_inside(&sender(tag, first_tsn, n))?;
                intruder.association_stands()?;
                n += 1;
            }
            Ok(())
        })
    })
}

fn forward_tsn(tag: u32, first_tsn: u32, n: u32) -> Vec<u8> {
    let new = first_tsn.wrapping_add(n.wrapping_mul(0x7fff_fff0));
    packet(tag, &[chunk(FORWARD_TSN, 0, &new.to_be_bytes())])
}

fn first_fragments(tag: u32, first_tsn: u32, n: u32) -> Vec<u8> {
    let first = first_tsn.wrapping_add(n.wrapping_mul(FRAGMENTS));
    let fragment = |place| data(first.wrapping_add(place), 0, BEGIN | UNORDERED, TEXT, b"x");
    packet(tag, &(0..FRAGMENTS).map(fragment).collect::<Vec<_>>())
}

/// Every stream is opened by a message and reset at once.
fn re_config(tag: u32, first_tsn: u32, n: u32) -> Vec<u8> {
    let (tsn, stream) = (first_tsn.wrapping_add(n), (n % 1_000) as u16);
    let message = data(tsn, stream, BEGIN | END | UNORDERED, TEXT, b"x");
    packet(tag, &[message, reset_request(first_tsn.wrapping_add(n), 0, tsn.wrapping_sub(1), &[stream])])
}

/// Messages of a thousand unordered fragments of 20 bytes.
fn small_fragments(tag: u32, first_tsn: u32, n: u32) -> Vec<u8> {
    let fragment = |place: u32| {
        let number = n.wrapping_mul(FRAGMENTS).wrapping_add(place);
        let flags = match number % 1_000 {
            0 => BEGIN,
            999 => END,
            _ => 0,
        };
        data(first_tsn.wrapping_add(number), 0, flags | UNORDERED, TEXT, &[b'x'; 20])
    };
    packet(tag, &(0..FRAGMENTS).map(fragment).collect::<Vec<_>>())
}

/// Every other number, so that each is a gap.
fn gaps(tag: u32, first_tsn: u32, n: u32) -> Vec<u8> {
    let first = first_tsn.wrapping_add(1).wrapping_add(n.wrapping_mul(2 * FRAGMENTS));
    let message = |place| data(first.wrapping_add(2 * place), 0, BEGIN | END | UNORDERED, TEXT, b"x");
    packet(tag, &(0..FRAGMENTS).map(message).collect::<Vec<_>>())
}

fn messages(tag: u32, first_tsn: u32, n: u32) -> Vec<u8> {
    packet(tag, &[data(first_tsn.wrapping_add(n), 0, BEGIN | END, TEXT, b"a message")])
}
