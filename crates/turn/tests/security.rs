//! The attacks that a TURN server must survive, numbered as the project's checklist numbers them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::{Addresses, Protocol, Redacted};
use fanlight_events::turn::TurnEvent;
use fanlight_turn::{
    Account, Drop, EndReason, NodeAddresses, Quotas, limits, participant_credential, shared_credential,
};
use std::collections::BTreeSet;
use stun_types::attribute::{AttributeWrite, MessageIntegrity, RawAttribute};
use stun_types::message::{MessageClass, MessageWrite, MessageWriteExt, Method};
use support::{Client, PEER, UNIX_S, World, addr, api_key, begin, config, transaction};
use turn_types::attribute::{Lifetime, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CONNECT, CREATE_PERMISSION, REFRESH};

/// 17, UDP.
fn udp() -> RequestedTransport {
    RequestedTransport::new(17)
}

#[test]
fn item_1_no_restricted_address_is_reached_in_any_form() {
    let mut world = World::new(config());
    let (mut v4, mut v6) = (Client::new(5000), Client::new(5001));
    world.allocate(&mut v4);
    world.challenge(&mut v6);
    let family = turn_types::attribute::RequestedAddressFamily::new(stun_types::AddressFamily::IPV6);
    let request = v6.signed(ALLOCATE, &[&udp(), &family]);
    assert_eq!(world.ask(&v6, &request).code(), 0);
    for peer in [
        "0.0.0.0",
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
    ] {
        let socket = format!("{peer}:80");
        assert_eq!((world.permit(&v4, &socket), world.bind(&v4, 0x4000, &socket)), (403, 403), "{peer}");
        world.send(&v4, &v4.send_indication(&socket, b"x"));
        assert!(world.out.peers.is_empty() && world.out.media.is_empty(), "{peer}");
        for disguise in
            [format!("[::ffff:{peer}]:80"), format!("[::{peer}]:80"), format!("[64:ff9b::{peer}]:80")]
        {
            assert_eq!(
                (world.permit(&v6, &disguise), world.bind(&v6, 0x4000, &disguise)),
                (403, 403),
                "{disguise}"
            );
        }
    }
    for peer in [
        "[::]:80",
        "[::1]:80",
        "[fe80::1]:80",
        "[fc00::1]:80",
        "[fec0::1]:80",
        "[ff02::1]:80",
        "[fd00:ec2::254]:80",
    ] {
        assert_eq!((world.permit(&v6, peer), world.bind(&v6, 0x4000, peer)), (403, 403), "{peer}");
    }
}

#[test]
fn item_2_connections_over_tcp_are_not_made() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    let id = transaction();
    let connect = client.signed_as(CONNECT, id, &[&XorPeerAddress::new(addr(PEER), id)]);
    assert!(world.send(&client, &connect).is_empty());
    assert_eq!(world.server.counters().unsupported, 1);
    let mut other = Client::new(5001);
    world.challenge(&mut other);
    let request = other.signed(ALLOCATE, &[&RequestedTransport::new(6)]);
    assert_eq!(world.ask(&other, &request).code(), 442);
}

#[test]
fn item_3_a_user_gets_so_many_allocations_and_all_users_so_many() {
    let mut limited = config();
    limited.quotas = Quotas { user_allocations: 3, total_allocations: 5, ..Quotas::default() };
    let mut world = World::new(limited);
    let mut clients: Vec<Client> = (0..4).map(|index| Client::new(5000 + index)).collect();
    for client in &mut clients[..3] {
        world.allocate(client);
    }
    let over = &mut clients[3];
    world.challenge(over);
    let request = over.allocate();
    let answer = world.ask(over, &request);
    answer.verify(over);
    assert_eq!(answer.code(), 486);
    for index in 0..3 {
        let name = format!("user{index}");
        let mut other =
            Client::of(6000 + index, &shared_credential(&Redacted::new("north".into()), &name, UNIX_S + 9));
        world.challenge(&mut other);
        let request = other.allocate();
        let code = if index < 2 { 0 } else { 486 };
        assert_eq!(world.ask(&other, &request).code(), code, "{index}");
    }
    assert_eq!(world.refresh(&clients[0], 0), 0);
    let request = clients[3].allocate();
    assert_eq!(world.ask(&clients[3], &request).code(), 0, "one ended, one begins");
    assert_eq!(world.server.counters().quota_hits, 2);
}

#[test]
fn item_3_a_new_credential_of_the_same_person_does_not_reset_the_quota() {
    let mut limited = config();
    limited.quotas.user_allocations = 1;
    let mut world = World::new(limited);
    for (port, expiry, code) in [(5000, UNIX_S + 10, 0), (5001, UNIX_S + 20, 486)] {
        let mut client = Client::of(port, &participant_credential(&api_key(), &"PA_ann".into(), expiry));
        world.challenge(&mut client);
        let request = client.allocate();
        assert_eq!(world.ask(&client, &request).code(), code);
    }
}

#[test]
fn item_4_nobody_reaches_the_client_without_its_permission() {
    for tcp in [false, true] {
        let mut world = World::new(config());
        let client = Client::new(5000);
        let mut client = if tcp { client.over_tcp() } else { client };
        let relayed = world.allocate(&mut client);
        world.relayed(PEER, b"hello");
        assert!(world.received(&client).is_empty());
        let now = world.now();
        let taken =
            world.server.handle_from_media(now, support::media().local, relayed, b"hello", &mut world.out);
        assert!(taken && world.received(&client).is_empty());
        assert_eq!(world.server.counters().dropped(Drop::NoPermission), 2);
        assert_eq!(world.permit(&client, PEER), 0);
        world.relayed("9.9.9.8:4000", b"hello");
        assert!(world.received(&client).is_empty());
        world.relayed(PEER, b"hello");
        assert_eq!(world.received(&client).len(), 1);
    }
}

#[test]
fn item_5_credentials_expire_and_are_bound_to_their_user() {
    let mut world = World::new(config());
    let secret = Redacted::new("north".into());
    for (index, credential) in [
        participant_credential(&api_key(), &"PA_ann".into(), UNIX_S),
        shared_credential(&secret, "ann", UNIX_S),
        shared_credential(&Redacted::new("south".into()), "ann", UNIX_S + 300),
    ]
    .iter()
    .enumerate()
    {
        let mut client = Client::of(5000 + index as u16, credential);
        world.challenge(&mut client);
        let request = client.allocate();
        let answer = world.ask(&client, &request);
        assert_eq!((answer.code(), answer.is_signed()), (401, false), "{index}");
    }
    // The password of one name is not good for a later expiry or another name.
    let good = shared_credential(&secret, "ann", UNIX_S + 300);
    let mut client = Client::of(5010, &good);
    client.username = format!("{}:ann", UNIX_S + 86_400);
    world.challenge(&mut client);
    let request = client.allocate();
    assert_eq!(world.ask(&client, &request).code(), 401);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn item_5_the_expiry_is_looked_at_when_allocating_and_a_call_goes_on() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    world.advance_s(400);
    assert_eq!(world.refresh(&client, 600), 0, "expired after 300 s, as LiveKit's and coturn's do");
    let mut late = Client::new(5001);
    world.challenge(&mut late);
    let request = late.allocate();
    assert_eq!(world.ask(&late, &request).code(), 401);
}

#[test]
fn item_6_a_challenge_is_at_most_three_times_its_request_and_limited_by_source() {
    let mut world = World::new(config());
    let client = Client::new(5000);
    let bare = client.bare(ALLOCATE, &[&udp()]);
    assert_eq!(bare.len(), 28, "the shortest request of a real client");
    let answers = (0..1000).filter(|_| {
        let answers = world.send(&client, &bare);
        assert!(answers.iter().all(|answer| answer.len() <= 84));
        !answers.is_empty()
    });
    assert_eq!(answers.count() as u64, limits::ERRORS_BURST);
    assert_eq!(world.server.counters().rate_limited, 1000 - limits::ERRORS_BURST);
    world.advance_s(1);
    assert_eq!(world.send(&client, &bare).len(), 1, "and later again");
    let stream = Client::new(5001).over_tcp();
    assert_eq!(world.send(&stream, &bare).len(), 1, "a stream's source is proven");
}

#[test]
fn item_6_a_realm_too_long_for_its_challenge_is_refused_at_start() {
    let mut long = config();
    long.realm = "r".repeat(limits::REALM_BYTES_MAX + 1).into();
    let random = fanlight_base::Random::from_seed([0; 32]);
    assert!(fanlight_turn::TurnServer::new(long.clone(), random.clone()).is_err());
    long.realm = "r".repeat(limits::REALM_BYTES_MAX).into();
    assert!(fanlight_turn::TurnServer::new(long.clone(), random).is_ok());
    let mut world = World::new(long);
    let client = Client::new(5000);
    assert_eq!(world.ask(&client, &client.bare(ALLOCATE, &[&udp()])).bytes.len(), 84);
}

#[test]
fn item_7_spoofed_requests_leave_nothing_behind() {
    let mut world = World::new(config());
    for port in 1..2000 {
        let mut client = Client::new(port);
        client.addresses.remote.set_ip([203, 0, (port % 200) as u8, 7].into());
        let request = client.bare(ALLOCATE, &[&udp()]);
        world.send(&client, &request);
        client.nonce = "AAAAAAAAAAAAAAAA".into();
        let request = client.allocate();
        world.send(&client, &request);
    }
    assert_eq!((world.server.allocations(), world.server.users(), world.opens_tried), (0, 0, 0));
    assert!(world.accounts.is_empty());
}

#[test]
fn item_7_a_nonce_overheard_is_of_no_use_elsewhere() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let mut thief = Client::new(5001);
    thief.nonce = client.nonce.clone();
    let request = thief.allocate();
    assert_eq!(world.ask(&thief, &request).code(), 438);
}

#[test]
fn item_8_a_dtls_hello_gets_no_answer_and_no_state() {
    let mut world = World::new(config());
    let client = Client::new(5000);
    let mut hello = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200, 1];
    hello.resize(213, 0);
    assert!(world.send(&client, &hello).is_empty());
    assert_eq!((world.server.counters().foreign, world.server.allocations()), (1, 0));
}

#[test]
fn item_9_an_allocation_does_not_follow_a_ticket_to_another_address() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    let answer_has_ticket = {
        world.challenge(&mut client);
        let ticket = RawAttribute::new(0x8030.into(), &[]);
        let request = client.signed(ALLOCATE, &[&udp(), &ticket]);
        let answer = world.ask(&client, &request);
        assert_eq!(answer.code(), 0);
        answer.message().has_attribute(0x8030.into())
    };
    assert!(!answer_has_ticket);
    let mut thief = Client::new(5001);
    world.challenge(&mut thief);
    let ticket = RawAttribute::new(0x8030.into(), &[1, 2, 3, 4]);
    let request = thief.signed(REFRESH, &[&Lifetime::new(600), &ticket]);
    assert_eq!(world.ask(&thief, &request).code(), 437);
    assert!(world.server.has_allocation(client.addresses));
}

#[test]
fn item_10_names_with_control_characters_are_refused_and_others_are_passed_on_as_they_are() {
    let mut world = World::new(config());
    let secret = Redacted::new("north".into());
    for (index, name) in ["a\nb", "a\r\nSET x", "a\0b", "\u{1b}[2J"].into_iter().enumerate() {
        let mut client = Client::of(5000 + index as u16, &shared_credential(&secret, name, UNIX_S + 300));
        world.challenge(&mut client);
        let request = client.allocate();
        assert_eq!(world.ask(&client, &request).code(), 401, "{name:?}");
    }
    let odd = "me%40n%s'; DROP TABLE--/user/x/allocation/1";
    let mut client = Client::of(6000, &shared_credential(&secret, odd, UNIX_S + 300));
    world.allocate(&mut client);
    let Some(Account::Allocation { name, .. }) = world.accounts.first() else { panic!("opened") };
    assert_eq!(name.user, format!("{}:{odd}", UNIX_S + 300));
}

#[test]
fn item_10_names_that_nobody_proved_reach_no_event() {
    let mut world = World::new(config());
    let mut client =
        Client::of(5000, &shared_credential(&Redacted::new("wrong".into()), "mallory", UNIX_S + 300));
    world.challenge(&mut client);
    let request = client.allocate();
    assert_eq!(world.ask(&client, &request).code(), 401);
    world.advance_s(700);
    assert!(world.accounts.is_empty());
}

#[test]
fn item_11_duplicate_attributes_count_once_and_broken_lengths_not_at_all() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let twice: [&dyn AttributeWrite; 3] = [&udp(), &Lifetime::new(900), &Lifetime::new(3600)];
    assert_eq!(world.ask(&client, &client.signed(ALLOCATE, &twice)).lifetime_s(), 900, "the first one");

    let good = client.signed(REFRESH, &[&Lifetime::new(600)]);
    let before = world.server.counters().malformed;
    for cut in 20..good.len() {
        let mut short = good[..cut].to_vec();
        assert!(world.send(&client, &short).is_empty(), "cut at {cut}");
        short[2..4].copy_from_slice(&((cut - 20) as u16).to_be_bytes());
        let answers = world.send(&client, &short);
        assert!(answers.iter().all(|answer| answer[..2] != [1, 4]), "no success for a part");
    }
    let mut longer = good.clone();
    longer.extend([0, 8, 0, 0]);
    assert!(world.send(&client, &longer).is_empty());
    assert!(world.server.counters().malformed > before);
    // An attribute put behind the signature does not count.
    let mut tampered = client.signed(REFRESH, &[]);
    tampered.extend([0, 0x0d, 0, 4, 0, 0, 0, 0]);
    let len = (tampered.len() - 20) as u16;
    tampered[2..4].copy_from_slice(&len.to_be_bytes());
    world.send(&client, &tampered);
    assert!(world.server.has_allocation(client.addresses), "LIFETIME 0 behind MESSAGE-INTEGRITY");
}

#[test]
fn item_11_a_flipped_bit_anywhere_in_a_signed_request_changes_nothing() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    let release = client.signed(REFRESH, &[&Lifetime::new(0)]);
    for bit in 0..release.len() * 8 {
        let mut flipped = release.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        world.send(&client, &flipped);
        assert!(world.server.has_allocation(client.addresses), "bit {bit}");
    }
    assert_eq!(world.send(&client, &release).len(), 1);
    assert!(!world.server.has_allocation(client.addresses));
}

#[test]
fn item_11_an_integrity_of_the_wrong_length_is_no_integrity() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    for len in [0usize, 4, 16, 24] {
        let good = client.allocate();
        let mut bytes = good[..good.len() - 24].to_vec();
        bytes.extend([0, 8, 0, len as u8]);
        bytes.extend(vec![0; len]);
        let body = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&body.to_be_bytes());
        let answers = world.send(&client, &bytes);
        assert!(answers.iter().all(|answer| answer[..2] == [1, 0x13]), "{len}");
    }
    assert_eq!(MessageIntegrity::new([0; 20]).hmac().len(), 20);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn item_12_no_number_is_used_twice_and_every_opening_has_its_end() {
    let mut world = World::new(config());
    for round in 0..50u16 {
        let mut client = Client::new(5000 + round % 3);
        world.allocate(&mut client);
        assert_eq!(world.refresh(&client, 0), 0);
    }
    let events = world.events();
    let numbers = |wanted: fn(&TurnEvent) -> bool| -> Vec<u64> {
        events.iter().filter(|(_, event)| wanted(event)).map(|(id, _)| *id).collect()
    };
    let opened = numbers(|event| matches!(event, TurnEvent::Opened { .. }));
    assert_eq!(opened.iter().collect::<BTreeSet<_>>().len(), 50);
    assert_eq!(opened, numbers(|event| matches!(event, TurnEvent::Deleted)));
    assert_eq!(world.server.counters().ended(EndReason::Released), 50);
}

#[test]
fn item_12_a_socket_of_an_ended_allocation_does_not_reach_the_next_one() {
    let mut world = World::new(config());
    let mut ann = Client::new(5000);
    world.allocate(&mut ann);
    let old = *world.relays.keys().next().unwrap();
    assert_eq!(world.refresh(&ann, 0), 0);
    let mut bob = Client::new(5001);
    world.allocate(&mut bob);
    assert_eq!(world.permit(&bob, PEER), 0);
    let now = world.now();
    world.out.clear();
    world.server.handle_relayed(now, old, addr(PEER), b"late", &mut world.out);
    assert!(world.received(&bob).is_empty());
    assert_eq!(world.server.counters().dropped(Drop::NoRelay), 1);
}

#[test]
fn item_13_no_loop_through_the_listener_the_relay_range_or_any_port_of_the_node() {
    let mut open = config();
    open.peers.allow_restricted =
        ["0.0.0.0/0", "::/0", "10.0.0.0/8", "127.0.0.0/8"].map(|one| one.parse().unwrap()).to_vec();
    let mut world = World::new(open);
    let (mut ann, mut bob) = (Client::new(5000), Client::new(5001));
    world.allocate(&mut ann);
    let relayed = world.allocate(&mut bob);
    let listener = "10.0.0.1:3478".to_string();
    for peer in [
        relayed.to_string(),
        listener,
        "8.8.4.4:3478".into(),
        "8.8.4.4:80".into(),
        "127.0.0.1:7880".into(),
        "127.8.8.8:7880".into(),
        "10.0.0.1:30005".into(),
    ] {
        assert_eq!(world.bind(&ann, 0x4000, &peer), 403, "{peer}");
        world.permit(&ann, &peer);
        world.send(&ann, &ann.send_indication(&peer, b"x"));
        assert!(world.out.peers.is_empty() && world.out.media.is_empty(), "{peer}");
    }
    assert_eq!(world.permit(&ann, "8.8.4.4:1"), 0, "media is there");
    assert_eq!(world.permit(&ann, "10.0.0.1:1"), 403, "nothing for clients is there");
}

#[test]
fn media_of_this_node_is_handed_over_inside_the_process() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    let relayed = world.allocate(&mut client);
    let media = support::media();
    let name = media.advertised.to_string();
    assert_eq!(world.permit(&client, &name), 0);
    world.send(&client, &client.send_indication(&name, b"stun"));
    assert_eq!(world.to_media(), [(media.local, relayed, b"stun".to_vec())]);
    assert!(world.out.peers.is_empty(), "no socket in between");

    let now = world.now();
    world.out.clear();
    assert!(world.server.handle_from_media(now, media.local, relayed, b"dtls", &mut world.out));
    assert_eq!(world.received(&client)[0][..2], [0, 0x17]);
    assert_eq!(world.bind(&client, 0x4000, &name), 0);
    world.out.clear();
    assert!(world.server.handle_from_media(now, media.local, relayed, b"srtp", &mut world.out));
    assert_eq!(world.received(&client), [b"\x40\0\0\x04srtp".to_vec()]);
    world.send(&client, &client.channel_data(0x4000, b"srtp"));
    assert_eq!(world.to_media(), [(media.local, relayed, b"srtp".to_vec())]);
    assert!(!world.server.handle_from_media(now, media.local, addr("8.8.4.4:1"), b"x", &mut world.out));
}

#[test]
fn a_media_socket_that_is_gone_is_no_longer_reached() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    let name = support::media().advertised.to_string();
    assert_eq!((world.bind(&client, 0x4000, &name), world.bind(&client, 0x4001, PEER)), (0, 0));
    world.server.handle_node_changed(NodeAddresses::default());
    world.send(&client, &client.channel_data(0x4000, b"x"));
    assert!(world.to_media().is_empty() && world.to_peers().is_empty());
    assert_eq!(world.bind(&client, 0x4002, &name), 403);
    world.send(&client, &client.channel_data(0x4001, b"x"));
    assert_eq!(world.to_peers().len(), 1);
}

#[test]
fn tables_of_an_allocation_are_bounded() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    let codes: Vec<u16> = (0..limits::PERMISSIONS_MAX + 2)
        .map(|index| world.permit(&client, &format!("9.9.8.{index}:1")))
        .collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), limits::PERMISSIONS_MAX);
    assert_eq!(codes.last(), Some(&508));
    let id = transaction();
    let peers: Vec<XorPeerAddress> = (0..limits::PEERS_PER_REQUEST_MAX as u8 + 1)
        .map(|last| XorPeerAddress::new(([9, 9, 7, last], 1).into(), id))
        .collect();
    let attributes: Vec<&dyn AttributeWrite> = peers.iter().map(|peer| peer as &dyn AttributeWrite).collect();
    let request = client.signed_as(CREATE_PERMISSION, id, &attributes);
    assert_eq!(world.ask(&client, &request).code(), 508);
}

#[test]
fn requests_without_a_drained_output_are_left_unanswered_and_bounded() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    let now = world.now();
    let request = client.signed(REFRESH, &[&Lifetime::new(600)]);
    for _ in 0..limits::OUTPUTS_MAX + 10 {
        world.out.clear();
        world.server.handle_datagram(now, client.addresses, &request, &mut world.out);
    }
    assert_eq!(world.server.counters().overloaded, 10);
    world.drain();
    assert_eq!(world.refresh(&client, 600), 0);
}

#[test]
fn another_local_address_or_transport_is_another_client() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    let tcp = Addresses { protocol: Protocol::Tcp, ..client.addresses };
    let local = Addresses { local: addr("10.0.0.1:5349"), ..client.addresses };
    assert!(!world.server.has_allocation(tcp) && !world.server.has_allocation(local));
}

#[test]
fn methods_and_classes_that_no_server_takes_are_ignored() {
    let mut world = World::new(config());
    let client = Client::new(5000);
    for class in [MessageClass::Success, MessageClass::Error, MessageClass::Indication] {
        let bytes = begin(class, ALLOCATE, transaction(), &[]).finish();
        assert!(world.send(&client, &bytes).is_empty());
    }
    let bytes = begin(MessageClass::Request, Method::new(0x0ff), transaction(), &[]).finish();
    assert!(world.send(&client, &bytes).is_empty());
    let mut keep_alive = begin(MessageClass::Indication, stun_types::message::BINDING, transaction(), &[]);
    keep_alive.add_fingerprint().unwrap();
    assert!(world.send(&client, &keep_alive.finish()).is_empty());
    assert_eq!(world.server.counters().unsupported, 4);
}
