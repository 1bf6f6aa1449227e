//! Isolation, arrival and continuity of media.

use super::{name, others};
use crate::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// Nothing of one room reaches another, nobody hears himself, nothing is made up.
pub(super) fn isolation(run: &Outcome, faults: &mut Vec<String>) {
    for client in &run.clients {
        for (ssrc, heard) in &client.heard {
            if heard.strange > 0 {
                faults.push(format!("{}: {} packets nobody sent on {ssrc}", name(client), heard.strange));
            }
            for (_, tag) in &heard.packets {
                if tag.room != client.room || tag.publisher == client.number {
                    faults.push(format!("{} got {tag:?} on {ssrc}", name(client)));
                    break;
                }
            }
            let sources: BTreeSet<_> =
                heard.packets.iter().map(|(_, tag)| (tag.publisher, tag.kind)).collect();
            if sources.len() > 1 {
                faults.push(format!("{}: {sources:?} on one SSRC {ssrc}", name(client)));
            }
        }
    }
}

/// Negotiation of a track and a key frame, each asked for anew when it was lost.
const BEGIN_WITHIN_NS: u64 = 2_000_000_000;

/// Every track of the room arrives at everybody else: most of what is sent after a receiver can have begun. What is lost
/// on both legs and not sent again is a tenth of the sound at 5 % loss.
pub(super) fn arrival(run: &Outcome, faults: &mut Vec<String>) {
    for client in &run.clients {
        let Some(ready_ns) = client.receives_from_ns else {
            faults.push(format!("{} never connected", name(client)));
            continue;
        };
        let got: BTreeSet<_> = client
            .heard
            .values()
            .flat_map(|heard| &heard.packets)
            .map(|(_, tag)| (tag.publisher, tag.kind, tag.number))
            .collect();
        for other in others(run, client) {
            for (kind, sent) in (0..).zip(&other.sent) {
                let begin_ns =
                    sent.times_ns.first().map_or(0, |first| ready_ns.max(*first)) + BEGIN_WITHIN_NS;
                let first = sent.times_ns.partition_point(|at_ns| *at_ns < begin_ns) as u32;
                let expected = sent.packets() - first;
                let received =
                    got.range((other.number, kind, first)..=(other.number, kind, u32::MAX)).count();
                if sent.packets() == 0 || received * 4 < expected as usize * 3 {
                    faults.push(format!(
                        "{} got {received} of {expected} of {} kind {kind}",
                        name(client),
                        name(other)
                    ));
                }
            }
        }
    }
}

/// Sequence numbers are continuous: a number is never given to two packets, the order is the publisher's, and what is
/// missing at the end is less than what retransmission leaves.
pub(super) fn continuity(run: &Outcome, faults: &mut Vec<String>) {
    for client in &run.clients {
        for (ssrc, heard) in &client.heard {
            let mut by_sequence = BTreeMap::new();
            for (sequence, tag) in &heard.packets {
                if by_sequence.insert(*sequence, *tag).is_some_and(|other| other != *tag) {
                    faults.push(format!("{}: two packets with number {sequence} on {ssrc}", name(client)));
                }
            }
            let (Some(first), Some(last)) = (by_sequence.first_key_value(), by_sequence.last_key_value())
            else {
                continue;
            };
            let numbers: Vec<u32> = by_sequence.values().map(|tag| tag.number).collect();
            if numbers.windows(2).any(|pair| pair[0] >= pair[1]) {
                faults.push(format!("{}: order of the publisher lost on {ssrc}", name(client)));
            }
            let (span, sent) = (last.0 - first.0, u64::from(last.1.number.saturating_sub(first.1.number)));
            if span != sent {
                faults.push(format!("{}: {span} numbers for {sent} packets on {ssrc}", name(client)));
            }
        }
    }
}
