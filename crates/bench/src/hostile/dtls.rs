//! Attacks on DTLS, by participants whose addresses ICE has verified, and by strangers.

use super::attack::{Attack, Stint, together};
use super::intruder::{Intruder, room};
use super::target::Target;
use crate::Failure;
use fanlight_base::Random;
use fanlight_transport::Certificate;
use fanlight_transport::fuzzing::HandmadeDtls;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Instant;

const INTRUDERS: u32 = 2;
const PER_SECOND: u32 = 4_000;
/// ClientHellos that are sent in turn; making one costs more than sending it.
const HELLOS: usize = 64;
const JUNK_BYTES: usize = 600;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "dtls-client-hellos",
        attackers: INTRUDERS,
        run: |target, stint| flood(target, stint, hello),
    },
    Attack { name: "dtls-junk", attackers: INTRUDERS, run: |target, stint| flood(target, stint, junk) },
    Attack { name: "dtls-strangers", attackers: 1, run: strangers },
];

fn flood(
    target: &Target,
    stint: Stint,
    make: fn(&mut Random) -> Result<Vec<u8>, Failure>,
) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        let mut intruder = Intruder::join(target, &room(number), "intruder")?;
        let datagrams = datagrams(make)?;
        let mut pace = stint.pace(PER_SECOND);
        while pace.next() {
            let at = pace.count() as usize;
            intruder.publisher.send(&datagrams[at % HELLOS]);
            // Whoever breaks its own connection comes again.
            if at.is_multiple_of(512) && intruder.breathe().is_err() {
                intruder = Intruder::join(target, &room(number), &format!("intruder-{at}"))?;
            }
        }
        Ok(pace.count())
    })
}

/// From where ICE has verified nobody.
fn strangers(target: &Target, stint: Stint) -> Result<u64, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let datagrams = datagrams(hello)?;
    let mut pace = stint.pace(2 * PER_SECOND);
    while pace.next() {
        let at = pace.count() as usize;
        let _ = socket.send_to(&datagrams[at % HELLOS], target.media[at % target.media.len()]);
    }
    Ok(pace.count())
}

fn datagrams(make: fn(&mut Random) -> Result<Vec<u8>, Failure>) -> Result<Vec<Vec<u8>>, Failure> {
    let mut random = Random::from_seed([9; 32]);
    (0..HELLOS).map(|_| make(&mut random)).collect()
}

fn hello(_: &mut Random) -> Result<Vec<u8>, Failure> {
    let now = Instant::now();
    let mut dtls = HandmadeDtls::new(now, &Certificate::generate()?);
    dtls.tick(now)?;
    Ok(dtls.drain(&mut Vec::new()).into_iter().next().ok_or("no ClientHello")?)
}

/// A handshake record of the first epoch with anything inside.
fn junk(random: &mut Random) -> Result<Vec<u8>, Failure> {
    let mut record = vec![22, 0xfe, 0xfd, 0, 0];
    record.extend([0; 4]);
    record.extend((random.u32() as u16).to_be_bytes());
    record.extend(u16::try_from(JUNK_BYTES)?.to_be_bytes());
    record.extend((0..JUNK_BYTES).map(|_| random.u32() as u8));
    Ok(record)
}
