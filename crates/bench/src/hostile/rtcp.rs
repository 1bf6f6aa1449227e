//! Attacks with RTCP, by somebody who receives in the rooms of the honest call.

use super::attack::{Attack, Stint, again, together};
use super::call;
use super::intruder::Intruder;
use super::target::Target;
use crate::Failure;
use fanlight_rtp::rtcp::RtcpWriter;

const INTRUDERS: u32 = 2;
const PER_SECOND: u32 = 4_000;
const OWN_SSRC: u32 = 1;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "rtcp-key-frames",
        attackers: INTRUDERS,
        run: |target, stint| flood(target, stint, key_frame),
    },
    Attack { name: "rtcp-nacks", attackers: INTRUDERS, run: |target, stint| flood(target, stint, nack) },
    Attack {
        name: "rtcp-wrong-feedback",
        attackers: INTRUDERS,
        run: |target, stint| flood(target, stint, wrong),
    },
];

/// Compound `n` about one of the streams that the server sends.
type Sender = fn(ssrc: u32, n: u64) -> Vec<u8>;

fn flood(target: &Target, stint: Stint, sender: Sender) -> Result<u64, Failure> {
    together(INTRUDERS as usize, |number| {
        again(stint, PER_SECOND, |joined, pace| {
            let mut intruder = Intruder::join(target, &call::room(number), &format!("intruder-{joined}"))?;
            intruder.subscriber()?;
            while pace.next() {
                let n = pace.count();
                let ssrc = intruder.heard[n as usize % intruder.heard.len()];
                let compound = sender(ssrc, n);
                intruder.subscriber()?.send_rtcp(compound)?;
                if n.is_multiple_of(16) {
                    intruder.breathe()?;
                }
            }
            Ok(())
        })
    })
}

fn key_frame(ssrc: u32, n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = RtcpWriter::new(&mut out);
    writer.receiver_report(OWN_SSRC, &[]);
    writer.pli(OWN_SSRC, ssrc);
    writer.fir(OWN_SSRC, ssrc, n as u8);
    out
}

/// Everything of the last packets again.
fn nack(ssrc: u32, n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = RtcpWriter::new(&mut out);
    writer.receiver_report(OWN_SSRC, &[]);
    let first = (n.wrapping_mul(200) % 65_536) as u16;
    let sequences: Vec<u16> = (0..200).map(|offset| first.wrapping_add(offset)).collect();
    writer.nack(OWN_SSRC, ssrc, &sequences);
    out
}

/// Estimates of nothing and of everything, and feedback about packets that were never sent.
fn wrong(ssrc: u32, n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = RtcpWriter::new(&mut out);
    writer.receiver_report(OWN_SSRC, &[]);
    writer.remb(OWN_SSRC, if n.is_multiple_of(2) { 1 } else { u64::MAX }, &[ssrc]);
    // Transport-wide feedback with one run of 8,191 received packets, none of which has its time.
    let mut feedback = vec![0x8f, 205, 0, 5];
    feedback.extend(OWN_SSRC.to_be_bytes());
    feedback.extend(ssrc.to_be_bytes());
    feedback.extend((n as u16).to_be_bytes());
    feedback.extend(8_191u16.to_be_bytes());
    feedback.extend([0, 0, 1, n as u8]);
    feedback.extend([0x3f, 0xff, 0, 0]);
    out.extend(feedback);
    out
}
