//! Floods of data packets, by participants in the rooms of the honest call.

use super::attack::{Attack, Pace, Stint, again, together};
use super::call;
use super::intruder::Intruder;
use super::target::Target;
use crate::Failure;
use fanlight_transport::fuzzing::handmade::{FIRST_TSN, data, packet};
use livekit_protocol::{DataPacket, UserPacket, data_packet::Value};
use prost::Message as _;

const INTRUDERS: u32 = 2;
/// SCTP packets of one attacker.
const PER_SECOND: u32 = 3_000;
const FRAGMENT_BYTES: usize = 1_100;
/// Payload protocols of RFC 8832 §8.1 and RFC 8831 §8.
const DCEP: u32 = 50;
const BINARY: u32 = 53;
/// The stream of `_reliable`.
const STREAM: u16 = 0;

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "data-messages", attackers: INTRUDERS, run: |target, stint| flood(target, stint, 900) },
    Attack { name: "data-tiny-messages", attackers: INTRUDERS, run: |target, stint| flood(target, stint, 1) },
    Attack {
        name: "data-huge-messages",
        attackers: INTRUDERS,
        run: |target, stint| flood(target, stint, 250_000),
    },
];

fn flood(target: &Target, stint: Stint, payload_bytes: usize) -> Result<u64, Failure> {
    let user = UserPacket { payload: vec![7; payload_bytes], ..Default::default() };
    let message = DataPacket { value: Some(Value::User(user)), ..Default::default() }.encode_to_vec();
    together(INTRUDERS as usize, |number| {
        again(stint, PER_SECOND, |joined, pace| {
            let name = format!("intruder-{joined}");
            let mut intruder = Intruder::join(target, &call::room(number), &name)?;
            let tag = intruder.associate(FIRST_TSN)?;
            intruder.publisher.send_inside(&packet(tag, &[data(FIRST_TSN, STREAM, 3, DCEP, &open())]))?;
            pour(&mut intruder, &message, tag, pace)
        })
    })
}

fn pour(intruder: &mut Intruder, message: &[u8], tag: u32, pace: &mut Pace) -> Result<(), Failure> {
    let (mut tsn, last) = (FIRST_TSN.wrapping_add(1), message.len().div_ceil(FRAGMENT_BYTES) - 1);
    loop {
        for (place, fragment) in message.chunks(FRAGMENT_BYTES).enumerate() {
            if !pace.next() {
                return Ok(());
            }
            let flags = u8::from(place == last) | u8::from(place == 0) << 1 | 4;
            intruder.publisher.send_inside(&packet(tag, &[data(tsn, STREAM, flags, BINARY, fragment)]))?;
            tsn = tsn.wrapping_add(1);
            if tsn % 64 == 0 {
                intruder.breathe()?;
                intruder.association_stands()?;
            }
        }
    }
}

/// DATA_CHANNEL_OPEN of `_lossy`, unordered and reliable (RFC 8832 §5.1).
fn open() -> Vec<u8> {
    const LABEL: &[u8] = b"_lossy";
    let mut open = vec![3, 0x80, 0, 0, 0, 0, 0, 0];
    open.extend((LABEL.len() as u16).to_be_bytes());
    open.extend([0, 0]);
    open.extend(LABEL);
    open
}
