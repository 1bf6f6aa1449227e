//! Data channels against an independent stack in virtual time.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_transport::limits::{CHANNELS_MAX, MESSAGE_BYTES_MAX, SEND_BUFFER_BYTES_MAX};
use fanlight_transport::{ChannelId, Reliability, SendDataError, TransportEvent};
use std::time::Duration;
use str0m::channel::{ChannelConfig, Reliability as StrReliability};
use support::{Options, World};

fn open_from_client(
    world: &mut World,
    label: &str,
    ordered: bool,
    reliability: StrReliability,
) -> str0m::channel::ChannelId {
    let config = ChannelConfig { label: label.into(), ordered, reliability, ..ChannelConfig::default() };
    let id = world.theirs().rtc.direct_api().create_data_channel(config);
    let instant = world.instant();
    world.theirs().rtc.handle_input(str0m::Input::Timeout(instant)).expect("alive");
    world.collect();
    id
}

fn write_from_client(world: &mut World, id: str0m::channel::ChannelId, binary: bool, bytes: &[u8]) {
    let written = world.theirs().rtc.channel(id).expect("open").write(binary, bytes).expect("written");
    assert!(written, "the client's buffer has room");
    let instant = world.instant();
    world.theirs().rtc.handle_input(str0m::Input::Timeout(instant)).expect("alive");
    world.collect();
}

fn received(world: &World) -> Vec<(ChannelId, bool, Vec<u8>)> {
    let data = |event: &TransportEvent| match event {
        TransportEvent::Data { id, binary, bytes } => Some((*id, *binary, bytes.clone())),
        _ => None,
    };
    world.server.events.iter().filter_map(data).collect()
}

fn opened(world: &World) -> Vec<(ChannelId, String, bool, Reliability)> {
    let open = |event: &TransportEvent| match event {
        TransportEvent::DataChannelOpen { id, label, ordered, reliability, .. } => {
            Some((*id, label.clone(), *ordered, *reliability))
        }
        _ => None,
    };
    world.server.events.iter().filter_map(open).collect()
}

fn send(world: &mut World, id: ChannelId, binary: bool, bytes: &[u8]) -> Result<(), SendDataError> {
    world.with_server(|server, now, batch| server.send_data(now, batch, id, binary, bytes))
}

fn server_channel(world: &mut World, label: &str, ordered: bool, reliability: Reliability) -> ChannelId {
    let id = world
        .with_server(|server, now, _| server.open_data_channel(now, label, ordered, reliability))
        .expect("a channel");
    world.run_until(Duration::from_secs(5), |world| !opened(world).is_empty());
    id
}

#[test]
fn channels_of_the_client_carry_text_and_binary_both_ways() {
    let mut world = World::connected(Options::default());
    let theirs = open_from_client(&mut world, "_reliable", true, StrReliability::Reliable);
    open_from_client(&mut world, "_lossy", false, StrReliability::MaxRetransmits { retransmits: 0 });
    world.run_until(Duration::from_secs(5), |world| opened(world).len() == 2);
    world.run_for(Duration::from_millis(100));
    let channels = opened(&world);
    let lossy = ("_lossy".to_owned(), false, Reliability::Retransmits(0));
    assert!(channels.iter().any(|(_, label, ordered, kind)| (label.clone(), *ordered, *kind) == lossy));
    let (id, ..) = channels.iter().find(|(_, label, ..)| label == "_reliable").expect("opened").clone();
    let messages: [(bool, Vec<u8>); 3] =
        [(false, b"text".to_vec()), (true, b"binary".to_vec()), (true, vec![7; MESSAGE_BYTES_MAX])];
    for (binary, bytes) in &messages {
        write_from_client(&mut world, theirs, *binary, bytes);
    }
    world.run_until(Duration::from_secs(5), |world| received(world).len() == 3);
    let expected: Vec<_> = messages.iter().map(|(binary, bytes)| (id, *binary, bytes.clone())).collect();
    assert!(received(&world) == expected);
    for (binary, bytes) in &messages {
        assert_eq!(send(&mut world, id, *binary, bytes), Ok(()));
    }
    world.run_for(Duration::from_secs(2));
    let expected: Vec<_> = messages.into_iter().map(|(binary, bytes)| (theirs, binary, bytes)).collect();
    assert!(world.theirs().data == expected);
}

#[test]
fn a_channel_opened_before_the_handshake_opens_with_the_association() {
    let mut world = World::new(Options::default());
    let reliable = world
        .with_server(|server, now, _| server.open_data_channel(now, "_reliable", true, Reliability::Reliable))
        .expect("a channel");
    assert_eq!(send(&mut world, reliable, true, b"too early"), Err(SendDataError::NotOpen));
    world.run_until(Duration::from_secs(5), |world| opened(world).len() == 1);
    assert_eq!(opened(&world), [(reliable, "_reliable".to_owned(), true, Reliability::Reliable)]);
    assert_eq!(world.theirs().channels.len(), 1);
    let (theirs, label) = world.theirs().channels[0].clone();
    assert_eq!(label, "_reliable");
    assert_eq!(send(&mut world, reliable, true, b"hello"), Ok(()));
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.theirs().data, [(theirs, true, b"hello".to_vec())]);
    write_from_client(&mut world, theirs, true, b"hello back");
    world.run_for(Duration::from_millis(200));
    assert_eq!(received(&world), [(reliable, true, b"hello back".to_vec())]);
}

#[test]
fn an_unordered_channel_of_ours_stays_in_order_until_it_is_confirmed() {
    let mut world = World::connected(Options::default());
    let id = server_channel(&mut world, "_lossy", false, Reliability::Retransmits(0));
    for n in 0..50u8 {
        assert_eq!(send(&mut world, id, true, &[n]), Ok(()));
        world.run_for(Duration::from_millis(5));
    }
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.theirs().data.len(), 50);
}

#[test]
fn empty_messages_arrive_empty() {
    let mut world = World::connected(Options::default());
    let id = server_channel(&mut world, "c", true, Reliability::Reliable);
    assert_eq!(send(&mut world, id, true, b""), Ok(()));
    assert_eq!(send(&mut world, id, false, b""), Ok(()));
    world.run_for(Duration::from_millis(200));
    let kinds: Vec<_> = world.theirs().data.iter().map(|(_, binary, bytes)| (*binary, bytes.len())).collect();
    assert_eq!(kinds, [(true, 0), (false, 0)]);
}

#[test]
fn what_is_too_large_or_does_not_fit_the_buffer_is_refused() {
    let mut world = World::connected(Options::default());
    let id = server_channel(&mut world, "c", true, Reliability::Reliable);
    let message = vec![1; MESSAGE_BYTES_MAX];
    assert_eq!(send(&mut world, id, true, &vec![1; MESSAGE_BYTES_MAX + 1]), Err(SendDataError::TooLarge));
    assert_eq!(send(&mut world, ChannelId(99), true, b"x"), Err(SendDataError::NotOpen));
    let mut taken = 0;
    let refused = loop {
        match send(&mut world, id, true, &message) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 100);
    };
    assert_eq!(refused, SendDataError::BufferFull);
    assert_eq!(taken, SEND_BUFFER_BYTES_MAX / MESSAGE_BYTES_MAX);
    assert!(world.server.transport.buffered_bytes(id) > SEND_BUFFER_BYTES_MAX - MESSAGE_BYTES_MAX);
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.theirs().data.len(), taken);
    assert_eq!(world.server.transport.buffered_bytes(id), 0);
    let low = |event: &TransportEvent| *event == TransportEvent::BufferedLow { id };
    assert!(world.server.count(low) >= 1, "whoever waits is told");
}

#[test]
fn bulk_leaves_at_a_pace() {
    let mut world = World::connected(Options::default());
    let id = server_channel(&mut world, "c", true, Reliability::Reliable);
    // Grow the congestion window first, so that it is the pace that limits.
    for round in 0..2 {
        for _ in 0..15 {
            assert_eq!(send(&mut world, id, true, &vec![1; MESSAGE_BYTES_MAX]), Ok(()));
        }
        if round == 0 {
            world.run_for(Duration::from_secs(20));
        }
    }
    let mut most = 0;
    for _ in 0..100 {
        let before = world.server_datagrams();
        world.run_for(Duration::from_millis(1));
        most = most.max(world.server_datagrams() - before);
    }
    assert!(most <= 20, "{most} datagrams in one millisecond");
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.theirs().data.len(), 30);
}

#[test]
fn lost_data_arrives_in_the_end() {
    let mut world = World::connected(Options::default());
    let id = server_channel(&mut world, "c", true, Reliability::Reliable);
    let mut count = 0u32;
    world.filter = Box::new(move |_, packet| {
        count += 1;
        !(20..64).contains(&packet.bytes[0]) || !count.is_multiple_of(10)
    });
    for n in 0..100u8 {
        assert_eq!(send(&mut world, id, true, &[n; 3_000]), Ok(()));
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(Duration::from_secs(30));
    let first: Vec<u8> = world.theirs().data.iter().map(|(_, _, bytes)| bytes[0]).collect();
    assert_eq!(first, (0..100).collect::<Vec<u8>>());
    assert!(world.is_connected());
}

#[test]
fn either_side_may_close_a_channel() {
    let mut world = World::connected(Options::default());
    let id = server_channel(&mut world, "ours", true, Reliability::Reliable);
    world.with_server(|server, now, batch| server.close_data_channel(now, batch, id));
    assert_eq!(send(&mut world, id, true, b"x"), Err(SendDataError::NotOpen));
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.theirs().closed_channels, 1);
    assert_eq!(world.server.count(|event| *event == TransportEvent::DataChannelClosed { id }), 1);

    let theirs = open_from_client(&mut world, "theirs", true, StrReliability::Reliable);
    world.run_until(Duration::from_secs(5), |world| opened(world).len() == 2);
    let (id, ..) = opened(&world)[1].clone();
    world.theirs().rtc.direct_api().close_data_channel(theirs);
    let instant = world.instant();
    world.theirs().rtc.handle_input(str0m::Input::Timeout(instant)).expect("alive");
    world.collect();
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.server.count(|event| *event == TransportEvent::DataChannelClosed { id }), 1);
    assert!(world.is_connected());
}

#[test]
fn our_close_ends_their_channels() {
    let mut world = World::connected(Options::default());
    server_channel(&mut world, "c", true, Reliability::Reliable);
    world.with_server(|server, now, batch| server.close(now, batch));
    world.run_for(Duration::from_millis(200));
    assert!(world.theirs().closed_channels == 1 || !world.theirs().rtc.is_alive());
}

#[test]
fn an_init_that_is_repeated_or_whose_answer_is_lost_makes_one_association() {
    let mut world = World::new(Options::default());
    let mut dropped = 0;
    // The first two datagrams to the client after the handshake are the INIT-ACK and its neighbours.
    let connected = std::rc::Rc::new(std::cell::Cell::new(false));
    let seen = connected.clone();
    world.filter = Box::new(move |node, packet| {
        let drop = node == 1 && seen.get() && (20..64).contains(&packet.bytes[0]) && dropped < 2;
        dropped += usize::from(drop);
        !drop
    });
    world.run_until(Duration::from_secs(5), |world| world.server.transport.is_connected());
    connected.set(true);
    let id = world
        .with_server(|server, now, _| server.open_data_channel(now, "c", true, Reliability::Reliable))
        .expect("a channel");
    world.run_until(Duration::from_secs(20), |world| !opened(world).is_empty());
    assert_eq!(send(&mut world, id, true, b"once"), Ok(()));
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.theirs().data.len(), 1);
}

#[test]
fn more_channels_than_allowed_are_refused() {
    let mut world = World::connected(Options::default());
    for _ in 0..CHANNELS_MAX + 6 {
        open_from_client(&mut world, "x", true, StrReliability::Reliable);
    }
    world.run_for(Duration::from_secs(3));
    assert_eq!(opened(&world).len(), CHANNELS_MAX);
    assert!(world.server.transport.counters().sctp.refused_open >= 6);
    assert!(world.is_connected());
    let more =
        world.with_server(|server, now, _| server.open_data_channel(now, "y", true, Reliability::Reliable));
    assert_eq!(more, None);
}
