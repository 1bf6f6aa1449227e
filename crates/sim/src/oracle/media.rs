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

/// Every track of the room arrives at everybody else.
pub(super) fn arrival(run: &Outcome, faults: &mut Vec<String>) {
    for client in &run.clients {
        let mut got: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for (_, tag) in client.heard.values().flat_map(|heard| &heard.packets) {
            *got.entry((tag.publisher, tag.kind)).or_default() += 1;
        }
        for other in others(run, client) {
            for kind in 0..2u32 {
                let sent = other.sent[kind as usize].packets as usize;
                let received = got.get(&(other.number, kind)).copied().unwrap_or(0);
                // The start of a track is not heard: it is announced by its first packet and negotiated after that.
                if sent == 0 || received * 2 < sent {
                    faults.push(format!(
                        "{} got {received} of {sent} of {} kind {kind}",
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
