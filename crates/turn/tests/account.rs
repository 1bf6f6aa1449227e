//! What the accounting is told: every byte, once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::Redacted;
use fanlight_events::turn::{Leg, LegCounters, TurnEvent};
use fanlight_turn::{Account, ByteQuota, Drop, EndReason, Quota, shared_credential};
use std::time::Duration;
use support::{Client, PEER, UNIX_S, World, config};

fn sum(events: &[(u64, TurnEvent)], wanted: Leg) -> LegCounters {
    events.iter().fold(LegCounters::default(), |sum, (_, event)| match event {
        TurnEvent::Traffic(leg, counters) if *leg == wanted => sum + *counters,
        _ => sum,
    })
}

fn total(events: &[(u64, TurnEvent)], wanted: Leg) -> LegCounters {
    let found = events.iter().find_map(|(_, event)| match event {
        TurnEvent::Total(leg, counters) if *leg == wanted => Some(*counters),
        _ => None,
    });
    found.expect("a total")
}

fn quota_hits(world: &World) -> Vec<(String, Quota, u64)> {
    let hits = world.accounts.iter().filter_map(|account| match account {
        Account::QuotaHit { user, quota, limit, .. } => Some((user.to_string(), *quota, *limit)),
        Account::Allocation { .. } => None,
    });
    hits.collect()
}

#[test]
fn both_legs_are_exact_and_the_deltas_add_up_to_the_totals() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    let (mut sent, mut got) = (LegCounters::default(), LegCounters::default());
    let mut exchange = |world: &mut World, bytes: &[u8]| {
        sent.rx_packets += 1;
        sent.rx_bytes += bytes.len() as u64;
        for answer in world.send(&client, bytes) {
            got.tx_packets += 1;
            got.tx_bytes += answer.len() as u64;
        }
    };
    let request = client.allocate();
    exchange(&mut world, &request);
    let id = support::transaction();
    let peer = turn_types::attribute::XorPeerAddress::new(support::addr(PEER), id);
    let number = turn_types::attribute::ChannelNumber::new(0x4000);
    let bind = client.signed_as(turn_types::message::CHANNEL_BIND, id, &[&number, &peer]);
    exchange(&mut world, &bind);
    for len in [0usize, 1, 100, 1200] {
        exchange(&mut world, &client.channel_data(0x4000, &vec![1; len]));
        exchange(&mut world, &client.send_indication(PEER, &vec![2; len]));
        world.advance_s(7);
    }
    let release = client.signed(turn_types::message::REFRESH, &[&turn_types::attribute::Lifetime::new(0)]);
    exchange(&mut world, &release);
    let expected = LegCounters {
        rx_packets: sent.rx_packets,
        rx_bytes: sent.rx_bytes,
        tx_packets: got.tx_packets,
        tx_bytes: got.tx_bytes,
    };
    let events = world.events();
    assert_eq!(total(&events, Leg::Client), expected);
    let payload = LegCounters { tx_packets: 8, tx_bytes: 2602, ..LegCounters::default() };
    assert_eq!(total(&events, Leg::Peer), payload);
    assert_eq!((sum(&events, Leg::Client), sum(&events, Leg::Peer)), (expected, payload));
}

#[test]
fn traffic_from_peers_and_media_counts_on_both_legs_and_what_is_not_permitted_on_none() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    let relayed = world.allocate(&mut client);
    let media = support::media();
    assert_eq!(world.bind(&client, 0x4000, PEER), 0);
    assert_eq!(world.bind(&client, 0x4001, &media.advertised.to_string()), 0);
    world.relayed(PEER, &[0; 100]);
    world.relayed("9.9.9.1:1", &[0; 1000]);
    let now = world.now();
    world.server.handle_from_media(now, media.local, relayed, &[0; 10], &mut world.out);
    world.send(&client, &client.channel_data(0x4001, &[0; 7]));
    assert_eq!(world.refresh(&client, 0), 0);
    let peer = total(&world.events(), Leg::Peer);
    assert_eq!((peer.rx_packets, peer.rx_bytes, peer.tx_packets, peer.tx_bytes), (2, 110, 1, 7));
}

#[test]
fn an_allocations_story_is_told_in_coturns_order() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    assert_eq!(world.bind(&client, 0x4000, PEER), 0);
    world.send(&client, &client.channel_data(0x4000, b"x"));
    assert_eq!(world.refresh(&client, 700), 0);
    assert_eq!(world.refresh(&client, 0), 0);
    let story: Vec<String> = world
        .events()
        .into_iter()
        .map(|(id, event)| match event {
            TurnEvent::Opened { lifetime_s, path } => {
                assert_eq!((path.transport.as_str(), path.tls.as_str()), ("UDP", "NONE"));
                assert_eq!(path.remote, "198.51.100.7:5000");
                format!("{id} opened {lifetime_s}")
            }
            TurnEvent::Refreshed { lifetime_s, .. } => format!("{id} refreshed {lifetime_s}"),
            TurnEvent::Deleted => format!("{id} deleted"),
            TurnEvent::Traffic(leg, _) => format!("{id} traffic {leg:?}"),
            TurnEvent::Total(leg, _) => format!("{id} total {leg:?}"),
        })
        .collect();
    assert_eq!(
        story,
        [
            "1 opened 600",
            "1 refreshed 700",
            "1 refreshed 0",
            "1 traffic Client",
            "1 traffic Peer",
            "1 deleted",
            "1 total Client",
            "1 total Peer"
        ]
    );
}

#[test]
fn a_server_that_ends_says_the_last_bytes_of_everybody() {
    let mut world = World::new(config());
    let mut clients = [Client::new(5000), Client::new(5001)];
    for client in &mut clients {
        world.allocate(client);
        assert_eq!(world.bind(client, 0x4000, PEER), 0);
        world.send(client, &client.channel_data(0x4000, b"last words"));
    }
    let now = world.now();
    world.server.handle_shutdown(now);
    world.drain();
    let ended = world.events();
    assert_eq!(ended.iter().filter(|(_, event)| *event == TurnEvent::Deleted).count(), 2);
    for id in [1, 2] {
        let own: Vec<_> = ended.iter().filter(|(other, _)| *other == id).cloned().collect();
        assert_eq!(total(&own, Leg::Peer).tx_bytes, 10);
        assert_eq!(total(&own, Leg::Client), sum(&own, Leg::Client));
    }
    assert_eq!((world.server.allocations(), world.relays.len()), (0, 0));
    assert_eq!(world.server.counters().ended(EndReason::Shutdown), 2);
}

#[test]
fn traffic_is_told_while_the_allocation_lives() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    assert_eq!(world.bind(&client, 0x4000, PEER), 0);
    let mut told = Vec::new();
    for _ in 0..3 {
        world.send(&client, &client.channel_data(0x4000, &[0; 50]));
        world.advance_s(10);
        told.push(sum(&world.events(), Leg::Peer).tx_bytes);
    }
    assert_eq!(told, [50, 100, 150]);
    world.advance_s(60);
    let reports = world.events().iter().filter(|(_, event)| matches!(event, TurnEvent::Traffic(..))).count();
    assert_eq!(reports, 6, "nothing is said of nothing");
}

#[test]
fn an_account_names_the_participant_and_the_tls() {
    let mut world = World::new(config());
    let mut client = Client::new(5000).over_tcp();
    world.challenge(&mut client);
    let tls = fanlight_turn::Tls { version: "TLSv1.3".into(), cipher: "TLS_AES_128_GCM_SHA256".into() };
    let now = world.now();
    let request = client.allocate();
    world.server.handle_stream_frame(now, client.addresses, Some(&tls), &request, &mut world.out);
    world.drain();
    let Some(Account::Allocation { name, participant, event: TurnEvent::Opened { path, .. } }) =
        world.accounts.first()
    else {
        panic!("opened first: {:?}", world.accounts)
    };
    assert_eq!((name.realm.as_str(), &name.user), ("livekit", &client.username.clone().into()));
    assert_eq!(participant.as_ref().map(|sid| sid.as_str()), Some("PA_ann"));
    assert_eq!((path.transport.as_str(), path.tls.as_str()), ("TLS/TCP", "TLSv1.3"));
}

#[test]
fn the_bandwidth_of_an_allocation_is_limited_in_each_direction() {
    let mut limited = config();
    limited.quotas.allocation_bps = Some(8 * 100_000);
    let mut world = World::new(limited);
    let mut client = Client::new(5000);
    world.allocate(&mut client);
    assert_eq!(world.bind(&client, 0x4000, PEER), 0);
    let (mut up, mut down) = (0, 0);
    for _ in 0..300 {
        world.send(&client, &client.channel_data(0x4000, &[0; 1000]));
        up += world.to_peers().len();
        world.relayed(PEER, &[0; 1000]);
        down += world.received(&client).len();
    }
    assert_eq!((up, down), (100, 100), "a second's worth at once");
    assert_eq!(world.server.counters().dropped(Drop::Bandwidth), 400);
    assert_eq!(quota_hits(&world), [(client.username.clone(), Quota::Bandwidth, 800_000)]);
    world.advance_s(1);
    world.send(&client, &client.channel_data(0x4000, &[0; 1000]));
    assert_eq!(world.to_peers().len(), 1);
    assert_eq!(world.server.allocations(), 1, "a slow allocation is not a dead one");
}

#[test]
fn who_has_used_up_the_bytes_loses_every_relay_and_gets_no_other() {
    let mut limited = config();
    limited.quotas.user_bytes = Some(ByteQuota { bytes: 5000, window: Duration::from_secs(3600) });
    let mut world = World::new(limited);
    let (mut first, mut second) = (Client::new(5000), Client::new(5001));
    world.allocate(&mut first);
    world.allocate(&mut second);
    assert_eq!((world.bind(&first, 0x4000, PEER), world.bind(&second, 0x4000, PEER)), (0, 0));
    for _ in 0..4 {
        world.send(&first, &first.channel_data(0x4000, &[0; 1000]));
    }
    assert_eq!(world.server.allocations(), 2);
    world.send(&second, &second.channel_data(0x4000, &[0; 1000]));
    assert_eq!((world.server.allocations(), world.relays.len()), (0, 0));
    assert_eq!(world.server.counters().ended(EndReason::Quota), 2);
    assert_eq!(quota_hits(&world), [(first.username.clone(), Quota::UserBytes, 5000)]);

    assert_eq!(world.refresh(&first, 600), 486, "a clear code, not a mismatch");
    assert_eq!(world.permit(&second, PEER), 486);
    let request = first.allocate();
    assert_eq!(world.ask(&first, &request).code(), 486);
    let mut other =
        Client::of(5002, &shared_credential(&Redacted::new("north".into()), "bob", UNIX_S + 9000));
    world.allocate(&mut other);
    assert_eq!(world.refresh(&other, 0), 0);

    world.advance_s(3600);
    assert_eq!(world.server.users(), 0, "forgotten with the window");
    let events = world.events();
    assert_eq!(events.iter().filter(|(_, event)| matches!(event, TurnEvent::Deleted)).count(), 3);
}

#[test]
fn thousands_of_allocations_made_and_ended_leave_nothing() {
    let mut world = World::new(config());
    let mut client = Client::new(5000);
    world.challenge(&mut client);
    for round in 0..3000u32 {
        if round % 500 == 0 {
            world.challenge(&mut client);
        }
        let request = client.allocate();
        assert_eq!(world.ask(&client, &request).code(), 0);
        assert_eq!(world.refresh(&client, 0), 0);
        world.accounts.clear();
        if round % 100 == 0 {
            world.advance_s(5);
        }
    }
    assert_eq!((world.server.allocations(), world.server.users(), world.relays.len()), (0, 0, 0));
    assert_eq!(world.server.counters().outputs_refused, 0);
}
