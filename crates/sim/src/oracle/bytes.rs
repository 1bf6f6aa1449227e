//! Bytes are conserved: what a publisher sent and the network delivered is what the server counts as received; what the
//! server counts as sent is what it gave to the network; and what a subscriber got is not more.

use super::name;
use crate::outcome::{Heard, Offered, Outcome, Seen, Sent};
use crate::wire::{Carried, Stream};
use fanlight_events::Direction;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The original sequence number in front of an RTX payload (RFC 4588 §4).
const RTX_BYTES: u64 = 2;
/// No packet here has a larger payload, or a larger header.
const PAYLOAD_BYTES_MAX: u64 = 1_102;
const HEADER_BYTES_MAX: u64 = 64;

/// Takes down what does not add up of one track in one direction.
struct Ledger<'a> {
    what: String,
    faults: &'a mut Vec<String>,
}

pub(super) fn conservation(run: &Outcome, faults: &mut Vec<String>) {
    let mut known = BTreeSet::new();
    for client in &run.clients {
        for sent in &client.sent {
            published(run, client, sent, &mut known, faults);
        }
        for (&ssrc, offered) in &client.offered {
            subscribed(run, client, ssrc, offered, &mut known, faults);
        }
    }
    for stream in run.wire.sent.keys().filter(|stream| !known.contains(*stream)) {
        faults.push(format!("{stream:?} is no track's"));
    }
}

/// Publisher to server.
fn published(
    run: &Outcome,
    client: &Seen,
    sent: &Sent,
    known: &mut BTreeSet<Stream>,
    faults: &mut Vec<String>,
) {
    let what = format!("{} publishing {}", name(client), sent.track);
    let Some(counters) = run.counters(&client.sid, &sent.track, Direction::Publish) else {
        faults.push(format!("{what}: no last counters"));
        return;
    };
    let ends = (client.address[0], run.server);
    let (on_wire, delivered) = carried(run, ends, sent.ssrc, sent.repair_ssrc, known);
    let mut ledger = Ledger { what, faults };
    ledger.equal("packets written and on the wire", u64::from(sent.packets()), on_wire[0].packets);
    ledger.equal("bytes written and on the wire", sent.bytes, on_wire[0].payload_bytes);
    let [media, again] = delivered;
    let refused = counters.duplicates + counters.dropped + counters.padding;
    let bytes_again = counters.retransmitted_bytes + RTX_BYTES * counters.retransmitted;
    ledger.between("packets", media.packets, counters.packets, refused);
    ledger.between("header bytes", media.header_bytes, counters.header_bytes, refused * HEADER_BYTES_MAX);
    ledger.between("bytes", media.payload_bytes, counters.bytes, refused * PAYLOAD_BYTES_MAX);
    // Retransmissions count although nobody missed them, as duplicates besides.
    let unknown = counters.dropped + counters.padding;
    ledger.between("retransmissions", again.packets, counters.retransmitted, unknown);
    ledger.between("retransmitted bytes", again.payload_bytes, bytes_again, unknown * PAYLOAD_BYTES_MAX);
    let taken = (media.packets + again.packets).saturating_sub(refused);
    if on_wire == delivered && refused == 0 {
        ledger.equal("packets sent and taken", u64::from(sent.packets()), taken);
        ledger.equal("nothing lost and lost", 0, counters.lost);
    } else if taken + counters.lost > u64::from(sent.packets()) {
        ledger.fault(&format!("{taken} taken and {} lost of {}", counters.lost, sent.packets()));
    }
}

/// Server to subscriber.
fn subscribed(
    run: &Outcome,
    client: &Seen,
    ssrc: u32,
    offered: &Offered,
    known: &mut BTreeSet<Stream>,
    faults: &mut Vec<String>,
) {
    let what = format!("{} subscribed to {}", name(client), offered.track);
    let Some(counters) = run.counters(&client.sid, &offered.track, Direction::Subscribe) else {
        faults.push(format!("{what}: no last counters"));
        return;
    };
    let ends = (run.server, client.address[1]);
    let (sent, delivered) = carried(run, ends, ssrc, offered.repair_ssrc, known);
    let mut ledger = Ledger { what, faults };
    ledger.equal("packets on the wire and counted", sent[0].packets, counters.packets);
    ledger.equal("bytes on the wire and counted", sent[0].payload_bytes, counters.bytes);
    ledger.equal("header bytes on the wire and counted", sent[0].header_bytes, counters.header_bytes);
    ledger.equal("retransmissions on the wire and counted", sent[1].packets, counters.retransmitted);
    let again = counters.retransmitted_bytes + RTX_BYTES * counters.retransmitted;
    ledger.equal("retransmitted bytes on the wire and counted", sent[1].payload_bytes, again);
    let (packets, bytes) = distinct(client.heard.get(&ssrc));
    let arrived: u64 = delivered.iter().map(|carried| carried.packets).sum();
    if packets > counters.packets || bytes > counters.bytes || packets > arrived {
        ledger.fault(&format!("got {packets} packets, {bytes} bytes"));
    }
    // A receiver may not take what comes from before its first packet.
    let in_order = !run.wire.overtaken.contains(&Stream { from: ends.0, to: ends.1, ssrc });
    if sent == delivered && in_order {
        ledger.equal("packets counted and received", counters.packets, packets);
        ledger.equal("bytes counted and received", counters.bytes, bytes);
    }
    let publisher = run.clients.iter().find_map(|other| {
        run.counters(&other.sid, &offered.track, Direction::Publish).filter(|_| other.room == client.room)
    });
    let received = publisher.map_or(0, |counters| counters.packets + counters.retransmitted);
    if received < counters.packets + counters.dropped {
        ledger
            .fault(&format!("{} forwarded and {} dropped of {received}", counters.packets, counters.dropped));
    }
}

impl Ledger<'_> {
    fn equal(&mut self, name: &str, left: u64, right: u64) {
        if left != right {
            self.fault(&format!("{name}: {left} and {right}"));
        }
    }

    /// What was delivered is what was counted, but for refused packets.
    fn between(&mut self, name: &str, delivered: u64, counted: u64, refused: u64) {
        if delivered < counted || delivered - counted > refused {
            self.fault(&format!(
                "{name} delivered and counted: {delivered} and {counted}, {refused} refused"
            ));
        }
    }

    fn fault(&mut self, fault: &str) {
        self.faults.push(format!("{}: {fault}", self.what));
    }
}

/// What was given to the network and delivered by it: media, retransmissions.
fn carried(
    run: &Outcome,
    (from, to): (SocketAddr, SocketAddr),
    ssrc: u32,
    repair_ssrc: Option<u32>,
    known: &mut BTreeSet<Stream>,
) -> ([Carried; 2], [Carried; 2]) {
    let streams = [Some(ssrc), repair_ssrc].map(|ssrc| ssrc.map(|ssrc| Stream { from, to, ssrc }));
    known.extend(streams.into_iter().flatten());
    let look = |map: &BTreeMap<Stream, Carried>| {
        streams.map(|stream| stream.and_then(|stream| map.get(&stream).copied()).unwrap_or_default())
    };
    (look(&run.wire.sent), look(&run.wire.delivered))
}

/// Packets and bytes, a packet that came twice counted once.
fn distinct(heard: Option<&Heard>) -> (u64, u64) {
    let packets: BTreeMap<_, _> = heard.into_iter().flat_map(|heard| heard.packets.iter().copied()).collect();
    (packets.len() as u64, packets.values().map(|tag| tag.payload_bytes()).sum())
}
