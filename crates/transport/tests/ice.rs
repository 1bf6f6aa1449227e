//! What a client with the right password can do with ICE: nothing to others, and little to itself.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use aws_lc_rs::hmac;
use fanlight_base::{Addresses, Protocol, SendBatch};
use fanlight_transport::limits::{AGENT_ADDRESSES_MAX, REMOTES_MAX, TUPLE_IN_USE};
use fanlight_transport::{Ignored, Received, Setup};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use support::{Options, World, client_address, server_address};

fn lite() -> Options {
    Options { lite: true, ..Options::default() }
}

fn tuple(remote: SocketAddr) -> Addresses {
    Addresses { local: server_address(), remote, protocol: Protocol::Udp }
}

fn elsewhere(port: u16) -> SocketAddr {
    ([10, 9, 9, 9], port).into()
}

/// What a binding request says besides whose it is.
#[derive(Clone, Copy)]
struct Check {
    priority: u32,
    /// ICE-CONTROLLED (0x8029) or ICE-CONTROLLING (0x802a), with a tie-breaker.
    role: (u16, u64),
    nominates: bool,
}

const PLAIN: Check = Check { priority: 1_845_501_695, role: (0x802a, 1), nominates: false };

/// A binding request of the client's with a correct integrity (RFC 8445 §7.2.2).
fn check(world: &mut World, check: Check) -> Vec<u8> {
    let theirs = world.theirs().parameters(Setup::Active).ufrag;
    let username = format!("{}:{theirs}", world.server.transport.local_ufrag());
    let mut message = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[5; 12]].concat();
    attribute(&mut message, 0x0006, username.as_bytes());
    attribute(&mut message, 0x0024, &check.priority.to_be_bytes());
    attribute(&mut message, check.role.0, &check.role.1.to_be_bytes());
    if check.nominates {
        attribute(&mut message, 0x0025, &[]);
    }
    set_length(&mut message, 24);
    let key = hmac::Key::new(
        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        world.server.transport.local_password().as_bytes(),
    );
    let integrity = hmac::sign(&key, &message);
    attribute(&mut message, 0x0008, integrity.as_ref());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    set_length(message, 0);
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - 20 + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Whether the server took it as proof, and how many packets it sent for it.
fn feed(world: &mut World, addresses: Addresses, bytes: &[u8]) -> (bool, usize) {
    let (mut batch, mut bytes) = (SendBatch::new(), bytes.to_vec());
    let received = world.server.transport.handle_datagram(world.now, addresses, &mut bytes, &mut batch);
    (matches!(received, Received::Check), batch.runs().iter().map(|run| run.segments()).sum())
}

fn alive(world: &mut World) {
    let received = world.server.rtp.len();
    let instant = world.instant();
    world.theirs().write(instant, 1_000 + received as u64, b"still here");
    world.collect();
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.server.rtp.len(), received + 1);
}

#[test]
fn checks_from_thousands_of_ports_are_taken_from_no_more_than_are_kept() {
    for options in [lite(), Options::default()] {
        let mut world = World::connected(options);
        let message = check(&mut world, PLAIN);
        let before = world.server.transport.counters();
        let taken = (1..=10_000).filter(|port| feed(&mut world, tuple(elsewhere(*port)), &message).0).count();
        assert!((REMOTES_MAX / 2..REMOTES_MAX).contains(&taken), "{taken}");
        let after = world.server.transport.counters();
        assert_eq!(after.checks_refused - before.checks_refused, 10_000 - taken as u64);
        assert_eq!(world.server.transport.selected(), Some(tuple(client_address())));
        alive(&mut world);
    }
}

#[test]
fn a_new_address_takes_the_place_of_one_that_is_no_longer_used_and_never_of_the_selected_one() {
    for options in [lite(), Options::default()] {
        let mut world = World::connected(options);
        let message = check(&mut world, PLAIN);
        let mut port = 1;
        let rounds = 3 * AGENT_ADDRESSES_MAX / REMOTES_MAX;
        for _ in 0..rounds {
            for _ in 0..2 * REMOTES_MAX {
                feed(&mut world, tuple(elsewhere(port)), &message);
                port += 1;
            }
            world.run_for(TUPLE_IN_USE);
            assert_eq!(world.server.transport.selected(), Some(tuple(client_address())));
            assert!(world.server.transport.heard(tuple(client_address())).is_some());
        }
        assert!(feed(&mut world, tuple(elsewhere(60_000)), &message).0);
        let known =
            (1..=u16::MAX).filter(|port| world.server.transport.heard(tuple(elsewhere(*port))).is_some());
        assert!(known.count() < REMOTES_MAX);
        assert!(world.server.transport.take_forgotten().len() > AGENT_ADDRESSES_MAX);
        world.run_for(20 * Duration::from_secs(1));
        assert!(world.is_connected());
        alive(&mut world);
    }
}

#[test]
fn an_address_that_was_forgotten_is_heard_again() {
    for options in [lite(), Options::default()] {
        let mut world = World::connected(options);
        let message = check(&mut world, PLAIN);
        for _ in 0..3 {
            let (proven, sent) = feed(&mut world, tuple(elsewhere(1)), &message);
            assert!(proven && sent > 0, "a check from a former address is answered");
            let now = world.now;
            world.server.transport.remove_tuple(now, tuple(elsewhere(1)), &mut SendBatch::new());
            assert_eq!(world.server.transport.heard(tuple(elsewhere(1))), None);
        }
        alive(&mut world);
    }
}

#[test]
fn a_named_address_proves_nothing_and_an_answer_only_where_the_check_went() {
    let mut world = World::new(Options { foreign: true, ..Options::default() });
    let answers = Rc::new(RefCell::new(Vec::new()));
    let sink = answers.clone();
    // Answers of the client are held back, and so are its own checks.
    world.filter = Box::new(move |node, packet| {
        if node == 0 && packet.bytes.starts_with(&[1, 1]) {
            sink.borrow_mut().push(packet.bytes.clone());
        }
        node == 1
    });
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.server.transport.heard(tuple(client_address())), None, "it only was named");
    let mut hello = [22; 60];
    let now = world.now;
    let received = world.server.transport.handle_datagram(
        now,
        tuple(client_address()),
        &mut hello,
        &mut SendBatch::new(),
    );
    assert!(matches!(received, Received::Nothing(Ignored::UnverifiedAddress)));
    let answer = answers.borrow().last().cloned().expect("the client answers");
    assert!(!feed(&mut world, tuple(elsewhere(1)), &answer).0);
    assert_eq!(world.server.transport.heard(tuple(elsewhere(1))), None);
    assert!(feed(&mut world, tuple(client_address()), &answer).0);
    assert!(!feed(&mut world, tuple(client_address()), &answer).0, "an answer counts once");
}

#[test]
fn odd_priorities_and_roles_end_nothing() {
    for options in [lite(), Options::default(), Options { server_offers: true, ..Options::default() }] {
        let mut world = World::connected(options);
        for round in 0..200_u16 {
            let odd = Check {
                priority: [0, 1, u32::MAX, 1 << 31][usize::from(round % 4)],
                role: (0x8029 + round % 2, [0, 1, u64::MAX][usize::from(round % 3)]),
                nominates: round % 5 == 0,
            };
            let message = check(&mut world, odd);
            feed(&mut world, tuple(elsewhere(1 + round % 8)), &message);
            world.run_for(Duration::from_millis(20));
        }
        alive(&mut world);
    }
}
