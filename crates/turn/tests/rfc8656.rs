//! The protocol, request by request, as RFC 8656 has it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::Protocol;
use fanlight_turn::{Counters, Drop, EndReason, limits};
use stun_types::AddressFamily;
use stun_types::attribute::{AttributeStaticType, AttributeWrite, UnknownAttributes, XorMappedAddress};
use stun_types::message::{BINDING, Message, MessageClass, MessageWrite, MessageWriteExt};
use support::{Client, NODE, PEER, World, addr, begin, config, transaction};
use turn_types::attribute::{
    AdditionalAddressFamily, AddressErrorCode, ChannelNumber, Data, DontFragment, EvenPort, Lifetime,
    RequestedAddressFamily, RequestedTransport, ReservationToken, XorPeerAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, DATA, REFRESH, SEND};

const UDP: u8 = 17;

fn counters(world: &World) -> &Counters {
    world.server.counters()
}

#[test]
fn binding_tells_everybody_where_they_are() {
    let mut world = World::new(config());
    let client = Client::new(5000);
    let mut write = begin(MessageClass::Request, BINDING, transaction(), &[]);
    let plain = world.ask(&client, &write.clone_bytes());
    let mapped =
        plain.message().attribute::<XorMappedAddress>().unwrap().addr(plain.message().transaction_id());
    assert_eq!((plain.code(), mapped), (0, client.addresses.remote));
    assert_eq!(plain.bytes.len(), 32);
    write.add_fingerprint().unwrap();
    let printed = world.ask(&client, &write.finish());
    assert_eq!(printed.bytes.len(), 40, "a FINGERPRINT for a FINGERPRINT");
    assert_eq!(world.server.allocations(), 0);
}

trait CloneBytes {
    fn clone_bytes(&self) -> Vec<u8>;
}

impl CloneBytes for stun_types::message::MessageWriteVec {
    fn clone_bytes(&self) -> Vec<u8> {
        self.data().to_vec()
    }
}

#[test]
fn an_ipv4_client_of_a_dual_stack_socket_is_told_its_ipv4_address() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    client.addresses.remote = addr("[::ffff:198.51.100.7]:5000");
    let answer = world.ask(&client, &client.bare(BINDING, &[]));
    let mapped = answer.message().attribute::<XorMappedAddress>().unwrap();
    assert_eq!(mapped.addr(answer.message().transaction_id()), addr("198.51.100.7:5000"));
}

#[test]
fn an_allocation_is_granted_after_a_challenge() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    let relayed = world.allocate(&mut client);
    assert_eq!(relayed.ip().to_string(), NODE);
    assert!((30_000..=30_099).contains(&relayed.port()));
    assert_eq!(world.relays.len(), 1);
    assert!(world.server.has_allocation(client.addresses) && world.server.is_relayed(relayed));
}

#[test]
fn a_retransmitted_allocate_is_answered_alike_and_another_one_is_a_mismatch() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let request = client.allocate();
    let first = world.ask(&client, &request);
    let again = world.ask(&client, &request);
    assert_eq!((first.code(), &first.bytes), (0, &again.bytes));
    assert_eq!(world.ask(&client, &client.allocate()).code(), 437);
    assert_eq!(world.relays.len(), 1);
}

#[test]
fn only_udp_is_relayed() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let mut code = |attributes: &[&dyn AttributeWrite]| {
        let answer = world.ask(&client, &client.signed(ALLOCATE, attributes));
        answer.verify(&client);
        answer.code()
    };
    assert_eq!(code(&[&RequestedTransport::new(6)]), 442);
    assert_eq!(code(&[]), 400);
}

#[test]
fn address_families_are_given_as_asked() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let udp = RequestedTransport::new(UDP);
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    let answer = world.ask(&client, &client.signed(ALLOCATE, &[&udp, &v6]));
    assert_eq!((answer.code(), answer.relayed()[0].ip().to_string()), (0, "2600::1".to_string()));
    assert_eq!(world.permit(&client, PEER), 443, "an IPv4 peer of an IPv6 relay");
    assert_eq!(world.bind(&client, 0x4000, PEER), 443);
    assert_eq!(world.permit(&client, "[2606:4700::1]:9"), 0);
}

#[test]
fn both_families_come_in_one_allocation_and_leave_one_by_one() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let additional = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let answer = world.ask(&client, &client.signed(ALLOCATE, &[&RequestedTransport::new(UDP), &additional]));
    let relayed = answer.relayed();
    assert_eq!((relayed.len(), relayed[0].is_ipv4(), relayed[1].is_ipv6()), (2, true, true));
    assert_eq!((world.permit(&client, PEER), world.permit(&client, "[2606:4700::1]:9")), (0, 0));
    world.send(&client, &client.send_indication("[2606:4700::1]:9", b"six"));
    assert_eq!(world.to_peers()[0].0.ip().to_string(), "2600::1");

    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    let release = client.signed(REFRESH, &[&Lifetime::new(0), &v6]);
    assert_eq!(world.ask(&client, &release).code(), 0);
    assert_eq!((world.relays.len(), world.server.allocations()), (1, 1));
    world.send(&client, &client.send_indication("[2606:4700::1]:9", b"six"));
    assert_eq!(counters(&world).dropped(Drop::Family), 1);
    assert_eq!(world.ask(&client, &client.signed(REFRESH, &[&Lifetime::new(0), &v6])).code(), 443);
}

#[test]
fn a_family_that_is_not_there_is_said_so() {
    let mut without = config();
    without.relays.v6 = None;
    let mut world = World::new(without);
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let udp = RequestedTransport::new(UDP);
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    assert_eq!(world.ask(&client, &client.signed(ALLOCATE, &[&udp, &v6])).code(), 440);
    let additional = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let answer = world.ask(&client, &client.signed(ALLOCATE, &[&udp, &additional]));
    assert_eq!((answer.code(), answer.relayed().len()), (0, 1));
    let refused = answer.message().attribute::<AddressErrorCode>().unwrap().error().code();
    assert_eq!(refused, 440);
}

#[test]
fn attributes_that_exclude_each_other_are_a_bad_request() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let udp = RequestedTransport::new(UDP);
    let v4 = RequestedAddressFamily::new(AddressFamily::IPV4);
    let more = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let (even, token) = (EvenPort::new(false), ReservationToken::new(1));
    let pairs: [[&dyn AttributeWrite; 2]; 4] = [[&v4, &more], [&even, &more], [&even, &token], [&v4, &token]];
    for [a, b] in pairs {
        assert_eq!(world.ask(&client, &client.signed(ALLOCATE, &[&udp, a, b])).code(), 400, "{a:?} {b:?}");
    }
}

#[test]
fn an_even_port_is_given_and_a_reservation_is_not() {
    let mut world = World::new(config());
    let udp = RequestedTransport::new(UDP);
    for port in 0..8 {
        let mut client = Client::new(5000 + port);
        world.challenge(&mut client);
        let request = client.signed(ALLOCATE, &[&udp, &EvenPort::new(false)]);
        assert_eq!(world.ask(&client, &request).relayed()[0].port() % 2, 0);
    }
    let mut client = Client::new(6000);
    world.challenge(&mut client);
    let both = world.ask(&client, &client.signed(ALLOCATE, &[&udp, &EvenPort::new(true)]));
    let token = world.ask(&client, &client.signed(ALLOCATE, &[&udp, &ReservationToken::new(7)]));
    assert_eq!((both.code(), token.code()), (508, 508));
}

#[test]
fn dont_fragment_is_not_understood() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let request = client.signed(ALLOCATE, &[&RequestedTransport::new(UDP), &DontFragment::new()]);
    let answer = world.ask(&client, &request);
    answer.verify(&client);
    let unknown = answer.message().attribute::<UnknownAttributes>().unwrap();
    assert_eq!((answer.code(), unknown.has_attribute(DontFragment::TYPE)), (420, true));

    world.allocate(&mut client);
    assert_eq!(world.permit(&client, PEER), 0);
    let id = transaction();
    let peer = XorPeerAddress::new(addr(PEER), id);
    let attributes: [&dyn AttributeWrite; 3] = [&peer, &DontFragment::new(), &Data::new(b"x")];
    world.send(&client, &begin(MessageClass::Indication, SEND, id, &attributes).finish());
    assert!(world.to_peers().is_empty());
    assert_eq!(counters(&world).dropped(Drop::BadIndication), 1);
}

#[test]
fn lifetimes_are_granted_within_limits_and_end() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let request = client.signed(ALLOCATE, &[&RequestedTransport::new(UDP), &Lifetime::new(9999)]);
    assert_eq!(world.ask(&client, &request).lifetime_s(), 3600);
    let answer = world.ask(&client, &client.signed(REFRESH, &[&Lifetime::new(1)]));
    assert_eq!(answer.lifetime_s(), 600);
    world.advance_s(599);
    assert_eq!(world.server.allocations(), 1);
    world.advance_s(2);
    assert_eq!((world.server.allocations(), world.relays.len()), (0, 0));
    assert_eq!(counters(&world).ended(EndReason::Expired), 1);
    world.challenge(&mut client);
    assert_eq!(world.refresh(&client, 600), 437);
}

#[test]
fn a_refresh_of_zero_releases_at_once() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    let relayed = world.allocate(&mut client);
    assert_eq!(world.refresh(&client, 0), 0);
    assert!(!world.server.is_relayed(relayed) && world.relays.is_empty());
    assert_eq!((world.server.allocations(), world.server.users()), (0, 0));
    assert_eq!(world.refresh(&client, 0), 437, "again");
    let again = client.allocate();
    assert_eq!(world.ask(&client, &again).code(), 0, "the 5-tuple is free");
}

#[test]
fn a_permission_lets_packets_through_both_ways_for_five_minutes() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    assert_eq!(world.permit(&client, PEER), 0);
    world.send(&client, &client.send_indication(PEER, b"out"));
    let relay = *world.relays.values().next().unwrap();
    assert_eq!(world.to_peers(), [(relay, addr(PEER), b"out".to_vec())]);

    world.relayed(PEER, b"in");
    let got = world.received(&client);
    let message = Message::from_bytes(&got[0]).unwrap();
    assert!(message.has_class(MessageClass::Indication) && message.has_method(DATA));
    assert_eq!(message.attribute::<Data<'_>>().unwrap().data(), b"in");
    let from = message.attribute::<XorPeerAddress>().unwrap().addr(message.transaction_id());
    assert_eq!(from, addr(PEER));

    world.advance_s(300);
    world.relayed(PEER, b"late");
    assert!(world.received(&client).is_empty());
    world.send(&client, &client.send_indication(PEER, b"late"));
    assert!(world.to_peers().is_empty());
    assert_eq!(counters(&world).dropped(Drop::NoPermission), 2);
}

#[test]
fn a_permission_is_for_an_address_and_every_port_of_it() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    assert_eq!(world.permit(&client, PEER), 0);
    world.relayed("9.9.9.9:1", b"another port");
    assert_eq!(world.received(&client).len(), 1);
    world.relayed("9.9.9.10:4000", b"another address");
    assert!(world.received(&client).is_empty());
}

#[test]
fn one_request_may_permit_several_peers_and_one_bad_one_spoils_all() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    let mut permit = |peers: &[&str]| {
        let id = transaction();
        let peers: Vec<XorPeerAddress> =
            peers.iter().map(|peer| XorPeerAddress::new(addr(peer), id)).collect();
        let attributes: Vec<&dyn AttributeWrite> =
            peers.iter().map(|peer| peer as &dyn AttributeWrite).collect();
        world.ask(&client, &client.signed_as(CREATE_PERMISSION, id, &attributes)).code()
    };
    assert_eq!(permit(&["9.9.9.1:1", "9.9.9.2:1"]), 0);
    assert_eq!(permit(&["9.9.9.3:1", "10.0.0.9:1"]), 403);
    assert_eq!(permit(&[]), 400);
    world.relayed("9.9.9.2:5", b"x");
    assert_eq!(world.received(&client).len(), 1);
    world.relayed("9.9.9.3:5", b"x");
    assert!(world.received(&client).is_empty());
}

#[test]
fn a_channel_carries_packets_both_ways() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    assert_eq!(world.bind(&client, 0x4abc, PEER), 0);
    world.send(&client, &client.channel_data(0x4abc, b"media"));
    assert_eq!(world.to_peers()[0].1, addr(PEER));
    world.relayed(PEER, b"media");
    assert_eq!(world.received(&client), [b"\x4a\xbc\0\x05media".to_vec()]);
    world.relayed("9.9.9.9:4001", b"other");
    assert_eq!(world.received(&client)[0][..2], [0, 0x17], "the channel's permission, without the channel");
    world.send(&client, &client.channel_data(0x4abd, b"nobody's"));
    assert_eq!(counters(&world).dropped(Drop::NoChannel), 1);
}

#[test]
fn a_stream_gets_its_channel_data_padded() {
    let mut world = World::new(config());
    let mut client = Client::new(5000).over_tcp();
    world.allocate(&mut client);
    assert_eq!(world.bind(&client, 0x4000, PEER), 0);
    world.send(&client, &client.channel_data(0x4000, b"five!"));
    assert_eq!(world.to_peers()[0].2, b"five!");
    world.relayed(PEER, b"five!");
    let run = &world.out.clients.runs()[0];
    assert_eq!((run.addresses.protocol, run.bytes()), (Protocol::Tcp, &b"\x40\0\0\x05five!\0\0\0"[..]));
}

#[test]
fn channel_numbers_and_peers_are_bound_once() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    assert_eq!(world.bind(&client, 0x4000, PEER), 0);
    assert_eq!(world.bind(&client, 0x4000, PEER), 0, "a refresh");
    assert_eq!(world.bind(&client, 0x4001, PEER), 400, "the peer has a number");
    assert_eq!(world.bind(&client, 0x4000, "9.9.9.8:1"), 400, "the number has a peer");
    for number in [0x3fff, 0x8000, 0xffff, 0] {
        assert_eq!(world.bind(&client, number, "9.9.9.8:1"), 400, "{number:#x}");
    }
    assert_eq!(world.bind(&client, 0x7fff, "9.9.9.7:1"), 0, "RFC 5766's last number");
    let without_peer = client.signed(CHANNEL_BIND, &[&ChannelNumber::new(0x4002)]);
    assert_eq!(world.ask(&client, &without_peer).code(), 400);
    world.advance_s(590);
    world.challenge(&mut client);
    assert_eq!(world.refresh(&client, 600), 0);
    world.advance_s(10);
    assert_eq!(world.bind(&client, 0x4000, "9.9.9.8:1"), 0, "it expired");
}

#[test]
fn a_closed_stream_ends_its_allocation_at_once() {
    let mut world = World::new(config());
    let mut client = Client::new(5000).over_tcp();
    world.allocate(&mut client);
    let now = world.now();
    world.server.handle_closed(now, client.addresses);
    world.drain();
    assert_eq!((world.server.allocations(), world.relays.len()), (0, 0));
    assert_eq!(counters(&world).ended(EndReason::Closed), 1);
}

#[test]
fn another_port_is_tried_when_one_cannot_be_bound() {
    let mut world = World::new(config());
    world.refuse_ports = Box::new(|address| address.port() % 4 != 0);
    let mut client = Client::new(5000);
    assert_eq!(world.allocate(&mut client).port() % 4, 0);
    assert!(world.opens_tried > 1);
    assert_eq!(counters(&world).relays_refused as usize, world.opens_tried - 1);
}

#[test]
fn a_node_without_ports_says_so_and_keeps_nothing() {
    let mut world = World::new(config());
    world.refuse_ports = Box::new(|_| true);
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let request = client.allocate();
    let answer = world.ask(&client, &request);
    answer.verify(&client);
    assert_eq!((answer.code(), world.opens_tried), (508, limits::RELAY_TRIES_MAX.into()));
    assert_eq!((world.server.allocations(), world.server.users(), world.accounts.len()), (0, 0, 0));
    world.refuse_ports = Box::new(|_| false);
    for port in 0..12 {
        world.allocate(&mut Client::new(6000 + port));
    }
}

#[test]
fn a_relay_that_is_never_opened_is_given_up() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let now = world.now();
    world.out.clear();
    world.server.handle_datagram(now, client.addresses, &client.allocate(), &mut world.out);
    while !matches!(world.server.poll_output(), fanlight_turn::Output::Timeout(..)) {}
    assert!(world.received(&client).is_empty());
    world.advance_s(5);
    assert_eq!(world.received(&client).len(), 1);
    assert_eq!((counters(&world).errors(508), world.server.allocations()), (1, 0));
}

#[test]
fn a_full_range_is_insufficient_capacity() {
    let mut small = config();
    small.relays.ports.last = small.relays.ports.first;
    let mut world = World::new(small);
    world.allocate(&mut Client::new(5000));
    let mut late = Client::new(5001);
    world.challenge(&mut late);
    let request = late.allocate();
    assert_eq!(world.ask(&late, &request).code(), 508);
}

#[test]
fn a_stale_nonce_is_answered_with_a_fresh_one() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    world.advance_s(599);
    assert_eq!(world.refresh(&client, 600), 0);
    world.advance_s(2);
    let answer = world.ask(&client, &client.signed(REFRESH, &[]));
    assert_eq!(answer.code(), 438);
    client.nonce = answer.nonce();
    assert_eq!(world.refresh(&client, 600), 0);
}

#[test]
fn requests_of_another_user_on_the_same_5_tuple_are_wrong_credentials() {
    let mut world = World::new(config());
    let mut ann = Client::new(5000);
    world.allocate(&mut ann);
    let credential =
        fanlight_turn::participant_credential(&support::api_key(), &"PA_bob".into(), support::UNIX_S + 300);
    let mut bob = Client::of(5000, &credential);
    bob.nonce = ann.nonce.clone();
    assert_eq!(world.refresh(&bob, 0), 441);
    assert_eq!(world.permit(&bob, PEER), 441);
    let request = bob.allocate();
    assert_eq!(world.ask(&bob, &request).code(), 437);
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn an_additional_family_whose_port_cannot_be_bound_leaves_the_first_one() {
    let mut world = World::new(config());
    world.refuse_ports = Box::new(|address| address.is_ipv6());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let additional = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let answer = world.ask(&client, &client.signed(ALLOCATE, &[&RequestedTransport::new(UDP), &additional]));
    assert_eq!((answer.code(), answer.relayed().len()), (0, 1));
    let refused = answer.message().attribute::<AddressErrorCode>().unwrap();
    assert_eq!((refused.family(), refused.error().code()), (AddressFamily::IPV6, 508));
}

#[test]
fn many_allocations_that_expire_at_once_end_over_several_turns() {
    let mut large = config();
    large.quotas.user_allocations = 1000;
    large.relays.ports.last = 31_999;
    let mut world = World::new(large);
    let count = limits::TIMERS_PER_TURN + 50;
    for port in 0..count {
        world.allocate(&mut Client::new(5000 + port as u16));
        // Challenges of one prefix are limited.
        world.ms += 20;
    }
    world.ms += 600_000;
    let mut turns = 0;
    while world.server.allocations() > 0 {
        let now = world.now();
        world.server.handle_timeout(now, &mut world.out);
        world.drain();
        turns += 1;
    }
    assert_eq!((turns, world.relays.len()), (2, 0));
    assert_eq!(counters(&world).ended(EndReason::Expired) as usize, count);
}
