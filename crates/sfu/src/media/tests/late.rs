//! Key frames whose first packet comes after the others.

use super::world::{Camera, MID, Outgoing, SSRC, World, vp8};
use fanlight_rtp::rtcp::{RtcpPacket, RtcpPackets};

const DOWN: u32 = 0x2222_0000;

/// The first packet of a picture, which [`Camera::packets`] left out.
struct Missing {
    sequence: u64,
    timestamp: u32,
    payload: Vec<u8>,
}

impl Missing {
    fn of(camera: &Camera) -> Self {
        let payload = vp8(camera.picture, true, true, 40);
        Self { sequence: camera.sequence, timestamp: camera.timestamp, payload }
    }

    fn send(&self, world: &mut World) {
        let packet = Outgoing {
            ssrc: SSRC,
            payload_type: 96,
            sequence: self.sequence,
            timestamp: self.timestamp,
            marker: false,
            extensions: &[(MID, b"1")],
            payload: &self.payload,
            padding: 0,
        };
        world.send(0, &packet);
    }

    fn send_again(&self, world: &mut World) {
        let payload = [&(self.sequence as u16).to_be_bytes()[..], &self.payload].concat();
        let packet = Outgoing {
            ssrc: SSRC + 1,
            payload_type: 97,
            sequence: 1,
            timestamp: self.timestamp,
            marker: false,
            extensions: &[(MID, b"1")],
            payload: &payload,
            padding: 0,
        };
        world.send(0, &packet);
    }
}

/// Sequence numbers of what client `n` got, counted from the first, in the order in which it got them.
fn numbers(world: &World, n: usize) -> Vec<u64> {
    let got = world.clients[n].rtp.iter().filter(|got| got.header.ssrc == DOWN).map(|got| got.sequence);
    let got: Vec<u64> = got.collect();
    got.iter().map(|sequence| sequence - got[0]).collect()
}

/// Whether the first payload that client `n` got begins a key frame.
fn begins_with_key_frame(world: &World, n: usize) -> bool {
    let got = world.clients[n].rtp.iter().find(|got| got.header.ssrc == DOWN);
    got.is_some_and(|got| got.payload()[0] & 0x10 != 0 && got.payload()[6] & 1 == 0)
}

fn assert_begun(world: &mut World, late: impl FnOnce(&Missing, &mut World)) {
    let track = world.publish_video(0, &[]);
    let down = world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, None);
    // Of an earlier picture only the end comes: it is no use to anybody.
    camera.packets(world, 0, false, &[false, true]);
    let missing = Missing::of(&camera);
    camera.packets(world, 0, true, &[false, true]);
    camera.picture(world, 0, false);
    assert_eq!(numbers(world, 1), [0; 0], "nothing can be decoded yet");
    late(&missing, world);
    assert_eq!(numbers(world, 1), [0, 1, 2, 3], "the late packet, then those that overtook it");
    assert!(begins_with_key_frame(world, 1));
    camera.picture(world, 0, false);
    assert_eq!(numbers(world, 1), [0, 1, 2, 3, 4, 5]);
    let counters = world.media.subscribe_counters(down).unwrap();
    assert_eq!((counters.packets, counters.dropped), (6, 1), "only the older packet was dropped");
}

#[test]
fn a_subscription_begins_with_a_key_frame_whose_first_packet_was_overtaken() {
    assert_begun(&mut World::new(2), Missing::send);
}

#[test]
fn a_subscription_begins_with_a_key_frame_whose_first_packet_was_sent_again() {
    assert_begun(&mut World::new(2), |missing, world| {
        world.run(60);
        missing.send_again(world);
    });
}

#[test]
fn those_who_had_begun_get_the_late_packet_alone_and_those_who_wait_all_of_it() {
    let mut world = World::new(3);
    let track = world.publish_video(0, &[]);
    world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, None);
    camera.picture(&mut world, 0, true);
    world.subscribe(2, track, DOWN);
    let missing = Missing::of(&camera);
    camera.packets(&mut world, 0, true, &[false, true]);
    camera.picture(&mut world, 0, false);
    missing.send(&mut world);
    assert_eq!(numbers(&world, 1), [0, 1, 3, 4, 5, 2]);
    assert_eq!(numbers(&world, 2), [0, 1, 2, 3]);
    assert!(begins_with_key_frame(&world, 2));
}

#[test]
fn dropped_packets_are_told_when_it_is_clear_that_none_of_them_was_only_early() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &[]);
    let down = world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, None);
    let mut told = Vec::new();
    for _ in 0..2 {
        let missing = Missing::of(&camera);
        camera.packets(&mut world, 0, true, &[false, true]);
        camera.picture(&mut world, 0, false);
        told.push(world.media.subscribe_counters(down).unwrap().dropped);
        missing.send(&mut world);
        told.push(world.media.subscribe_counters(down).unwrap().dropped);
        world.media.set_settings(world.now, down, false, 0);
        world.media.set_settings(world.now, down, true, 0);
    }
    assert!(told.is_sorted(), "a counter only grows: {told:?}");
    camera.picture(&mut world, 0, false);
    assert_eq!(world.media.unsubscribe(down).dropped, told[3] + 2);
}

#[test]
fn transport_wide_feedback_names_a_stream_of_the_publisher() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &[]);
    let audio = world.publish_audio(1);
    world.subscribe(1, track, DOWN);
    world.subscribe(0, audio, DOWN + 10);
    let mut camera = Camera::new(SSRC, None);
    for n in 0..10 {
        camera.picture(&mut world, 0, n == 0);
        world.run(33);
    }
    let rtcp = std::mem::take(&mut world.clients[0].rtcp);
    let packets = rtcp.iter().flat_map(|compound| RtcpPackets::new(compound));
    let named: Vec<u32> = packets
        .filter_map(|packet| match packet {
            RtcpPacket::TransportFeedback(feedback) => Some(feedback.media_ssrc),
            _ => None,
        })
        .collect();
    assert!(named.len() >= 3, "{named:?}");
    assert!(named.iter().all(|ssrc| *ssrc == SSRC), "libwebrtc passes over feedback about others: {named:?}");
}
