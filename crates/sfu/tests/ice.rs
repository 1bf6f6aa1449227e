//! Hostile ICE beside honest participants: whose a 5-tuple is.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::{PeerKey, SendBatch};
use fanlight_sfu::input::{Layout, Request, Target};
use fanlight_sfu::model::DisconnectReason;
use fanlight_sfu::output::Output;
use std::time::Duration;
use support::{DUAL, World, join};

const SECOND: Duration = Duration::from_secs(1);

fn is_active(world: &World, peer: u64) -> bool {
    world.outputs().any(|output| matches!(output, Output::Active { peer: of } if *of == PeerKey(peer)))
}

/// Two rooms, and an attacker with the key 9 in the second.
fn two_rooms() -> World {
    let mut world = World::new();
    world.create("RM_b");
    world.join_with(join(9, "RM_b", Layout::Single));
    world.run(SECOND);
    assert!(is_active(&world, 9));
    world
}

#[test]
fn an_address_that_somebody_named_is_nobodys() {
    let mut world = two_rooms();
    for port in [50_000, 50_001] {
        let candidate = format!("candidate:1 1 udp 2130706431 10.0.1.1 {port} typ host");
        world.request(9, Request::Trickle { target: Target::Publisher, candidate });
    }
    world.run(3 * SECOND);
    for layout in [Layout::Single, DUAL] {
        let before = world.sfu.counters();
        world.log.clear();
        world.join_with(join(1, "RM_a", layout));
        world.run(2 * SECOND);
        assert!(is_active(&world, 1), "{layout:?}: its DTLS went to whoever had named its address");
        assert_eq!(world.sfu.counters().tuples_refused, before.tuples_refused);
        world.request(1, Request::Leave { reason: DisconnectReason::ClientInitiated });
        world.run(SECOND);
    }
}

#[test]
fn an_answer_to_our_check_proves_an_address_although_none_of_its_own_came() {
    // Firefox as shipped does not check a server on 127.0.0.1 by itself.
    let mut world = World::new();
    world.checks_cut = true;
    world.join(1, DUAL);
    let subscriber = fanlight_base::Addresses {
        local: support::server(),
        remote: ([10, 0, 1, 1], 50_001).into(),
        protocol: fanlight_base::Protocol::Udp,
    };
    world.run(SECOND);
    assert!(!world.sfu.has_tuple(subscriber), "nobody has named it");
    let candidate = "candidate:1 1 udp 2130706431 10.0.1.1 50001 typ host".to_owned();
    world.request(1, Request::Trickle { target: Target::Subscriber, candidate });
    world.run(SECOND);
    assert!(world.sfu.has_tuple(subscriber));
    world.checks_cut = false;
    world.run(2 * SECOND);
    assert!(is_active(&world, 1));
}

#[test]
fn an_address_of_an_ended_session_serves_the_next_one() {
    let mut world = two_rooms();
    world.join_with(join(1, "RM_a", Layout::Single));
    world.run(SECOND);
    world.request(1, Request::Leave { reason: DisconnectReason::ClientInitiated });
    world.clients.remove(&PeerKey(1));
    world.join_at(1, join(2, "RM_b", Layout::Single));
    world.run(SECOND);
    assert!(is_active(&world, 1) && is_active(&world, 2));
}

#[test]
fn an_address_goes_over_when_its_owner_is_silent() {
    let mut world = two_rooms();
    world.join_with(join(1, "RM_a", Layout::Single));
    world.run(SECOND);
    assert!(is_active(&world, 1));
    // Its NAT gives the address to another client at once; the session does not know yet.
    world.clients.remove(&PeerKey(1));
    world.join_at(1, join(2, "RM_b", Layout::Single));
    world.run(5 * SECOND);
    assert!(is_active(&world, 2), "the address is deaf");
    assert_eq!(world.sfu.counters().tuples_moved, 1);
}

#[test]
fn an_address_in_use_is_not_given_to_another_who_authenticates_there() {
    let mut world = two_rooms();
    world.join_with(join(1, "RM_a", Layout::Single));
    world.run(SECOND);
    // Its checks come from the other's address; what is sent there reaches the other.
    world.join_at(1, join(8, "RM_b", Layout::Single));
    for _ in 0..30 {
        let now = world.now;
        world.client(1).send_data(now, "_reliable", "1,9|still here");
        world.run(SECOND / 10);
    }
    let counters = world.sfu.counters();
    assert!(counters.tuples_refused > 0, "nobody tried");
    assert_eq!(counters.tuples_moved, 0);
    assert!(!is_active(&world, 8));
    let facts = world.fact_names();
    assert!(facts.contains(&"refused"), "{facts:?}");
}

#[test]
fn answers_that_nobody_asked_for_and_media_of_strangers_lead_nowhere() {
    let mut world = two_rooms();
    let before = world.sfu.counters().datagrams_unknown;
    let mut batch = SendBatch::new();
    for port in 0..2_000_u16 {
        let addresses = fanlight_base::Addresses {
            local: support::server(),
            remote: ([10, 9, 9, 9], port).into(),
            protocol: fanlight_base::Protocol::Udp,
        };
        let mut answer = [&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
        world.sfu.handle_datagram(world.now, addresses, &mut answer, &mut batch);
        world.sfu.handle_datagram(world.now, addresses, &mut [22; 60], &mut batch);
        world.sfu.handle_datagram(world.now, addresses, &mut [0x80; 60], &mut batch);
        assert!(!world.sfu.has_tuple(addresses));
    }
    assert_eq!(world.sfu.counters().datagrams_unknown - before, 6_000);
    assert!(batch.is_empty());
}
