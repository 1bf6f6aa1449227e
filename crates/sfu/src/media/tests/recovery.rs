//! What is lost and comes again.

use super::world::{Camera, MID, Outgoing, REPAIRED_RID, SSRC, World, vp8};
use fanlight_base::Random;
use fanlight_rtp::RtpHeader;
use fanlight_rtp::rtcp::{RtcpPacket, RtcpPackets, RtcpWriter};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const DOWN: u32 = 0x2222_0000;

fn nacks(world: &mut World, n: usize) -> Vec<(u32, u16)> {
    let rtcp = std::mem::take(&mut world.clients[n].rtcp);
    let mut all = Vec::new();
    for packet in rtcp.iter().flat_map(|compound| RtcpPackets::new(compound)) {
        if let RtcpPacket::Nack(nack) = packet {
            all.extend(nack.sequences().map(|sequence| (nack.media_ssrc, sequence)));
        }
    }
    all
}

#[test]
fn a_packet_lost_upstream_is_asked_for_and_its_retransmission_finds_its_place() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &["q", "h"]);
    world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, Some("h"));
    camera.picture(&mut world, 0, true);
    let (lost, picture, timestamp) = (camera.sequence, camera.picture, camera.timestamp);
    camera.packets(&mut world, 0, false, &[false, true]);
    camera.picture(&mut world, 0, false);
    world.run(30);
    assert_eq!(nacks(&mut world, 0), [(SSRC, lost as u16)]);
    let repair = [&(lost as u16).to_be_bytes()[..], &vp8(picture, true, false, 40)].concat();
    let rtx = Outgoing {
        ssrc: SSRC + 1,
        payload_type: 97,
        sequence: 1,
        timestamp,
        marker: false,
        extensions: &[(MID, b"1"), (REPAIRED_RID, b"h")],
        payload: &repair,
        padding: 0,
    };
    world.send(0, &rtx);
    // The same again is a duplicate.
    world.send(0, &Outgoing { sequence: 2, ..rtx });
    let got = &world.clients[1].rtp;
    let numbers: Vec<u64> = got.iter().map(|packet| packet.sequence - got[0].sequence).collect();
    assert_eq!(numbers, [0, 1, 3, 4, 5, 2]);
    assert_eq!(got[5].payload().len(), 47);
    let up = world.media.publish_counters(track).unwrap();
    assert_eq!((up.packets, up.retransmitted, up.duplicates, up.lost, up.nacks), (5, 2, 1, 0, 1));
    world.run(500);
    assert_eq!(nacks(&mut world, 0), []);
}

#[test]
fn a_nack_is_answered_by_rtx_with_the_subscribers_numbers_three_times_at_most() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &[]);
    let down = world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, None);
    for n in 0..5 {
        camera.picture(&mut world, 0, n == 0);
    }
    let wanted = world.clients[1].rtp[4].clone();
    let mut compound = Vec::new();
    RtcpWriter::new(&mut compound).nack(
        1,
        DOWN,
        &[wanted.header.sequence, wanted.header.sequence.wrapping_add(999)],
    );
    for _ in 0..5 {
        world.send_rtcp(1, &compound);
        world.run(150);
    }
    let again: Vec<_> =
        world.clients[1].rtp.iter().filter(|got| got.header.ssrc == DOWN + 1).cloned().collect();
    assert_eq!(again.len(), 3);
    for (n, rtx) in again.iter().enumerate() {
        assert_eq!(rtx.header.payload_type, 101);
        assert_eq!(rtx.sequence, again[0].sequence + n as u64);
        assert_eq!(rtx.header.timestamp, wanted.header.timestamp);
        assert_eq!(rtx.payload()[..2], wanted.header.sequence.to_be_bytes());
        assert_eq!(&rtx.payload()[2..], wanted.payload());
    }
    let counters = world.media.subscribe_counters(down).unwrap();
    assert_eq!((counters.nacks, counters.retransmitted, counters.retransmitted_bytes), (10, 3, 3 * 47));
}

#[test]
fn a_flood_of_nacks_for_everything_is_not_answered_with_a_flood() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &[]);
    let down = world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, None);
    for n in 0..50 {
        camera.picture(&mut world, 0, n == 0);
    }
    // As many items as a datagram holds; each names 17 numbers.
    let first = world.clients[1].rtp[0].header.sequence;
    let numbers: Vec<u16> = (0..200 * 17).map(|step| first.wrapping_add(step)).collect();
    let mut compound = Vec::new();
    RtcpWriter::new(&mut compound).nack(1, DOWN, &numbers);
    assert!(compound.len() > 800);
    for _ in 0..100 {
        world.send_rtcp(1, &compound);
    }
    let counters = world.media.subscribe_counters(down).unwrap();
    assert_eq!(counters.retransmitted, 100, "each packet once within a round trip");
    for _ in 0..100 {
        world.run(100);
        world.send_rtcp(1, &compound);
    }
    let counters = world.media.subscribe_counters(down).unwrap();
    assert!(counters.retransmitted <= 300, "each packet three times at most: {}", counters.retransmitted);
}

#[test]
fn a_picture_loss_is_passed_on_and_many_become_one() {
    let mut world = World::new(3);
    let track = world.publish_video(0, &[]);
    let downs = [world.subscribe(1, track, DOWN), world.subscribe(2, track, DOWN)];
    let mut camera = Camera::new(SSRC, None);
    camera.picture(&mut world, 0, true);
    world.run(1000);
    world.clients[0].rtcp.clear();
    for n in [1, 2, 1, 2] {
        let mut compound = Vec::new();
        RtcpWriter::new(&mut compound).pli(1, DOWN);
        world.send_rtcp(n, &compound);
        world.run(10);
    }
    let count = |world: &World| {
        let packets = world.clients[0].rtcp.iter().flat_map(|compound| RtcpPackets::new(compound));
        packets.filter(|packet| matches!(packet, RtcpPacket::Pli(_))).count()
    };
    assert_eq!(count(&world), 1);
    world.run(600);
    assert_eq!(count(&world), 2, "those in between became one");
    camera.picture(&mut world, 0, true);
    world.run(2000);
    assert_eq!(count(&world), 2);
    assert_eq!(world.media.subscribe_counters(downs[0]).unwrap().plis, 2);
}

#[test]
fn a_publisher_gets_reports_and_transport_wide_feedback() {
    let mut world = World::new(1);
    world.publish_video(0, &[]);
    let mut camera = Camera::new(SSRC, None);
    for n in 0..40 {
        camera.packets(&mut world, 0, n == 0, &[true, n % 4 != 0]);
        world.run(33);
    }
    let (mut reported, mut blocks) = (0, Vec::new());
    for packet in world.clients[0].rtcp.iter().flat_map(|compound| RtcpPackets::new(compound)) {
        match packet {
            RtcpPacket::TransportFeedback(feedback) => {
                reported += feedback.statuses().filter(|(_, arrival)| arrival.is_some()).count();
            }
            RtcpPacket::ReceiverReport(report) => blocks.extend(report.reports.iter()),
            _ => {}
        }
    }
    assert!((60..=70).contains(&reported), "{reported}");
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].ssrc, SSRC);
    assert!((28..=36).contains(&blocks[0].fraction_lost), "{}", blocks[0].fraction_lost);
}

/// Every sealed packet by (SSRC, index): the same nonce must mean the same bytes.
#[test]
fn whatever_happens_no_nonce_seals_two_packets() {
    let mut world = World::new(2);
    let sealed = Rc::new(RefCell::new(BTreeMap::new()));
    let seen = Rc::clone(&sealed);
    world.filter = Box::new(move |_, packet| {
        if packet[0] >> 6 == 2
            && !(192..224).contains(&packet[1])
            && let Ok(header) = RtpHeader::parse(packet)
        {
            // The test is too short for a number to come round.
            let before = seen.borrow_mut().insert((header.ssrc, header.sequence), packet.to_vec());
            assert!(before.is_none_or(|before| before == packet));
        }
        true
    });
    let track = world.publish_video(0, &["q", "h", "f"]);
    let down = world.subscribe(1, track, DOWN);
    let mut random = Random::from_seed([9; 32]);
    let mut cameras = [("q", 0), ("h", 1), ("f", 2)].map(|(rid, n)| Camera::new(SSRC + 2 * n, Some(rid)));
    for _ in 0..400 {
        for camera in &mut cameras {
            let key = random.below(8) == 0;
            match random.below(10) {
                // Sent again later, out of order: to the server it is a late packet.
                0 => {
                    let mut late = camera.clone();
                    camera.packets(&mut world, 0, key, &[false, false]);
                    camera.picture(&mut world, 0, false);
                    late.picture(&mut world, 0, key);
                }
                1 => camera.packets(&mut world, 0, key, &[random.below(2) == 0, random.below(2) == 0]),
                2 => {
                    camera.ssrc += 0x100;
                    // A new stream begins without roll-overs.
                    camera.sequence &= 0xffff;
                }
                _ => camera.picture(&mut world, 0, key),
            }
        }
        match random.below(12) {
            0 => world.media.set_settings(world.now, down, random.below(4) > 0, random.below(3) as u8),
            1 => world.media.set_publisher_muted(world.now, track, random.below(2) == 0),
            2 => {
                let mut compound = Vec::new();
                let last = world.clients[1].rtp.last().map_or(0, |got| got.header.sequence);
                let asked: Vec<u16> = (0..20).map(|back| last.wrapping_sub(back)).collect();
                RtcpWriter::new(&mut compound).nack(1, DOWN, &asked);
                world.send_rtcp(1, &compound);
            }
            _ => {}
        }
        let step = random.below(40);
        world.run(step);
    }
    assert!(sealed.borrow().len() > 300, "{}", sealed.borrow().len());
}
