//! Every oracle can fail: a good run, broken in one place at a time.

use super::check;
use crate::determinism::seeded;
use crate::outcome::{Heard, Outcome};
use crate::scenario::Scenario;
use crate::world::World;
use fanlight_events::{Direction, TrackCounters};
use fanlight_transport::Certificate;

fn good(scenario: &Scenario) -> Outcome {
    let certificate = Certificate::generate().unwrap();
    let (outcome, _) = seeded(3, || World::new(scenario, 3, certificate).run(scenario));
    assert_eq!(check(&outcome), Vec::<String>::new());
    outcome
}

fn calm() -> Outcome {
    good(&Scenario { settle_ms: 500, ..Scenario::CALM })
}

/// Breaks the run and finds the fault that says so.
#[track_caller]
fn assert_seen(run: &Outcome, fault: &str, breakage: impl FnOnce(&mut Outcome)) {
    let mut broken = run.clone();
    breakage(&mut broken);
    let faults = check(&broken);
    assert!(faults.iter().any(|found| found.contains(fault)), "no {fault:?} in {faults:?}");
}

/// What client 0 heard of another one's track of this kind.
fn heard(run: &mut Outcome, kind: u32) -> &mut Heard {
    let mut all = run.clients[0].heard.values_mut();
    all.find(|heard| heard.packets.iter().any(|(_, tag)| tag.kind == kind)).unwrap()
}

fn counters(run: &mut Outcome, direction: Direction) -> &mut TrackCounters {
    let mut all = run.counted.iter_mut().filter(|(_, sample)| sample.direction == direction);
    &mut all.next().unwrap().1.counters
}

#[test]
fn media_of_another_room_or_of_nobody_is_seen() {
    let run = calm();
    assert_seen(&run, "got Tag", |run| heard(run, 0).packets[5].1.room = 1);
    assert_seen(&run, "got Tag", |run| heard(run, 1).packets[5].1.publisher = 0);
    assert_seen(&run, "on one SSRC", |run| heard(run, 1).packets[5].1.publisher += 1);
    assert_seen(&run, "packets nobody sent", |run| heard(run, 1).strange = 1);
}

#[test]
fn a_track_that_does_not_arrive_is_seen() {
    let run = calm();
    assert_seen(&run, "got 0 of", |run| heard(run, 0).packets.clear());
    assert_seen(&run, "kind 0", |run| heard(run, 0).packets.drain(100..150).for_each(drop));
    assert_seen(&run, "never connected", |run| run.clients[1].receives_from_ns = None);
}

#[test]
fn numbers_that_do_not_continue_are_seen() {
    let run = calm();
    assert_seen(&run, "two packets with number", |run| {
        let packets = &mut heard(run, 1).packets;
        packets[7].0 = packets[6].0;
    });
    assert_seen(&run, "order of the publisher lost", |run| {
        let packets = &mut heard(run, 1).packets;
        (packets[7].1, packets[6].1) = (packets[6].1, packets[7].1);
    });
    assert_seen(&run, "numbers for", |run| heard(run, 1).packets.last_mut().unwrap().0 += 1);
}

#[test]
fn a_packet_or_a_byte_too_many_or_too_few_is_seen() {
    let run = calm();
    let up = Direction::Publish;
    assert_seen(&run, "packets delivered and counted", |run| counters(run, up).packets -= 1);
    assert_seen(&run, "retransmissions delivered", |run| counters(run, up).retransmitted += 1);
    assert_seen(&run, "retransmitted bytes delivered", |run| counters(run, up).retransmitted_bytes += 1);
    assert_seen(&run, "bytes delivered and counted", |run| counters(run, up).bytes += 1);
    assert_seen(&run, "header bytes delivered and counted", |run| counters(run, up).header_bytes -= 4);
    assert_seen(&run, "nothing lost and lost", |run| counters(run, up).lost = 1);
    let down = Direction::Subscribe;
    assert_seen(&run, "packets on the wire and counted", |run| counters(run, down).packets += 1);
    assert_seen(&run, "bytes on the wire and counted", |run| counters(run, down).bytes -= 1);
    assert_seen(&run, "header bytes on the wire", |run| counters(run, down).header_bytes += 4);
    assert_seen(&run, "retransmitted bytes on the wire", |run| counters(run, down).retransmitted_bytes += 1);
    assert_seen(&run, "packets counted and received", |run| heard(run, 1).packets.truncate(20));
    assert_seen(&run, "forwarded and", |run| counters(run, down).dropped += 500);
    assert_seen(&run, "no last counters", |run| drop(run.counted.pop()));
    assert_seen(&run, "no last counters", |run| run.counted.push(run.counted[0].clone()));
    assert_seen(&run, "is no track's", |run| {
        let (mut stream, carried) = run.wire.sent.pop_first().unwrap();
        stream.ssrc += 77;
        run.wire.sent.insert(stream, carried);
    });
}

#[test]
fn a_packet_that_the_network_lost_and_the_server_counted_is_seen() {
    let run = good(&Scenario { rooms: 1, participants: 2, ..Scenario::MEETING });
    assert_seen(&run, "packets delivered and counted", |run| {
        counters(run, Direction::Publish).packets += 1;
    });
    assert_seen(&run, "lost of", |run| counters(run, Direction::Publish).lost += 1_000);
    assert_seen(&run, "bytes delivered and counted", |run| counters(run, Direction::Publish).bytes += 1);
}

#[test]
fn a_nonce_used_twice_is_seen() {
    let run = calm();
    let (server, client) = (run.server, run.clients[0].address[1]);
    let sealed = |fill| {
        let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
        packet.resize(60, fill);
        packet
    };
    assert_seen(&run, "under one nonce", |run| {
        run.wire.nonces.observe(server, client, &sealed(1));
        run.wire.nonces.observe(server, client, &sealed(2));
    });
    let mut same = run.clone();
    same.wire.nonces.observe(server, client, &sealed(1));
    same.wire.nonces.observe(server, client, &sealed(1));
    assert_eq!(check(&same), Vec::<String>::new());
    assert_seen(&run, "sealed nothing", |run| run.wire.nonces = Default::default());
}

#[test]
fn a_data_message_lost_doubled_reordered_or_astray_is_seen() {
    let run = calm();
    assert_seen(&run, "got messages", |run| run.clients[0].messages.truncate(9));
    assert_seen(&run, "got messages", |run| {
        let again = run.clients[0].messages[0];
        run.clients[0].messages.push(again);
    });
    assert_seen(&run, "got messages", |run| run.clients[0].messages.reverse());
    assert_seen(&run, "got Message", |run| run.clients[0].messages[0].room = 1);
    assert_seen(&run, "messages nobody sent", |run| run.clients[0].strange_messages = 1);
    assert_seen(&run, "sent 5 of 6 messages", |run| run.clients[0].messages_sent = 5);
}
