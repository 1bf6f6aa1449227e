//! What arrives at subscribers.

use super::world::{AUDIO_LEVEL, Camera, Got, MID, Outgoing, SSRC, World, subscription, vp8};
use crate::media::MediaEvent;
use fanlight_rtp::payload::vp8::Vp8Descriptor;
use fanlight_rtp::rtcp::{RtcpPacket, RtcpPackets, RtcpWriter, SenderInfo};

const DOWN: u32 = 0x2222_0000;

fn media(world: &World, n: usize, ssrc: u32) -> Vec<Got> {
    world.clients[n].rtp.iter().filter(|got| got.header.ssrc == ssrc).cloned().collect()
}

/// Sequence numbers without gap, timestamps that rise, picture ids that count on.
fn assert_continuous(got: &[Got]) {
    for pair in got.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert_eq!(after.sequence, before.sequence + 1);
        let step = after.header.timestamp.wrapping_sub(before.header.timestamp);
        assert!(step < 90_000, "{step}");
        let (before, after) = (picture(before), picture(after));
        let pictures = after.0.wrapping_sub(before.0) & 0x7fff;
        assert!(pictures <= 1 && u16::from(after.1.wrapping_sub(before.1)) == pictures);
        assert_eq!(pictures == 1, step > 0);
    }
}

fn picture(got: &Got) -> (u16, u8) {
    let descriptor = Vp8Descriptor::parse(got.payload()).unwrap();
    (descriptor.picture_id.unwrap().value, descriptor.tl0_picture_index.unwrap())
}

/// Key frame requests that client `n` got since the last look, by SSRC.
fn plis(world: &mut World, n: usize) -> Vec<u32> {
    let rtcp = std::mem::take(&mut world.clients[n].rtcp);
    let packets = rtcp.iter().flat_map(|compound| RtcpPackets::new(compound));
    packets
        .filter_map(|packet| if let RtcpPacket::Pli(pli) = packet { Some(pli.media_ssrc) } else { None })
        .collect()
}

#[test]
fn a_video_track_reaches_every_subscriber_under_its_own_numbers() {
    let mut world = World::new(3);
    let track = world.publish_video(0, &[]);
    let downs = [world.subscribe(1, track, DOWN), world.subscribe(2, track, DOWN)];
    let mut camera = Camera::new(SSRC, None);
    for n in 0..20 {
        camera.picture(&mut world, 0, n == 0);
        world.run(33);
    }
    for n in [1, 2] {
        let got = media(&world, n, DOWN);
        assert_eq!(got.len(), 40);
        assert_continuous(&got);
        assert!(got.iter().all(|got| got.header.payload_type == 100));
        assert_eq!(got[0].header.extension(&got[0].bytes, MID), Some(&b"7"[..]));
    }
    let up = world.media.publish_counters(track).unwrap();
    assert_eq!((up.packets, up.bytes, up.frames, up.key_frames), (40, 40 * 47, 20, 1));
    let down = world.media.subscribe_counters(downs[0]).unwrap();
    assert_eq!((down.packets, down.bytes, down.frames, down.dropped), (40, 40 * 47, 20, 0));
    let firsts =
        world.events.iter().filter(|event| matches!(event, MediaEvent::FirstForwarded { .. })).count();
    assert_eq!(firsts, 2);
    let first = MediaEvent::FirstPacket {
        track,
        mime: "video/VP8".to_owned(),
        rid: String::new(),
        spatial: 0,
        ssrc: SSRC,
    };
    assert!(world.events.contains(&first));
}

#[test]
fn a_late_subscriber_has_the_publisher_asked_once_and_begins_at_the_key_frame() {
    let mut world = World::new(3);
    let track = world.publish_video(0, &[]);
    let mut camera = Camera::new(SSRC, None);
    camera.picture(&mut world, 0, true);
    world.run(1000);
    assert_eq!(plis(&mut world, 0), []);
    let down = world.subscribe(1, track, DOWN);
    world.subscribe(2, track, DOWN);
    world.run(10);
    assert_eq!(plis(&mut world, 0), [SSRC]);
    camera.picture(&mut world, 0, false);
    assert_eq!(media(&world, 1, DOWN), []);
    world.run(600);
    assert_eq!(plis(&mut world, 0), [SSRC], "asked again while none comes");
    camera.picture(&mut world, 0, true);
    camera.picture(&mut world, 0, false);
    assert_eq!(media(&world, 1, DOWN).len(), 4);
    assert_eq!(media(&world, 2, DOWN).len(), 4);
    assert!(world.media.drops(down).contains(&("no_key_frame", 2)));
    world.run(2000);
    assert_eq!(plis(&mut world, 0), []);
}

#[test]
fn opus_passes_with_its_level_and_red_is_stripped_to_its_primary_block() {
    let mut world = World::new(2);
    let track = world.publish_audio(0);
    world.subscribe(1, track, DOWN);
    let send = |world: &mut World, payload_type, sequence: u64, payload: &[u8]| {
        let level: &[(u8, &[u8])] = &[(MID, b"0"), (AUDIO_LEVEL, &[0x91])];
        let packet = Outgoing {
            ssrc: SSRC,
            payload_type,
            sequence,
            timestamp: sequence as u32 * 960,
            marker: false,
            extensions: level,
            payload,
            padding: 0,
        };
        world.send(0, &packet);
    };
    send(&mut world, 111, 10, &[0x78, 1, 2, 3]);
    // One redundant block of two bytes, then the primary one.
    send(&mut world, 63, 11, &[0x80 | 111, 0, 0, 2, 111, 9, 9, 0x78, 4, 5]);
    let got = media(&world, 1, DOWN);
    let payloads: Vec<&[u8]> = got.iter().map(Got::payload).collect();
    assert_eq!(payloads, [&[0x78, 1, 2, 3][..], &[0x78, 4, 5]]);
    assert!(got.iter().all(|got| got.header.extension(&got.bytes, AUDIO_LEVEL) == Some(&[0x91])));
    assert!(got.iter().all(|got| got.header.payload_type == 109));
    assert_eq!(got[1].header.timestamp.wrapping_sub(got[0].header.timestamp), 960);
    assert!(world.events.iter().any(|event| matches!(event, MediaEvent::CodecChanged { .. })));
}

#[test]
fn with_simulcast_the_highest_layer_is_forwarded_and_the_next_one_when_it_falls_silent() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &["f", "h", "q"]);
    let down = world.subscribe(1, track, DOWN);
    let mut cameras = [("q", 0), ("h", 1), ("f", 2)].map(|(rid, n)| Camera::new(SSRC + 2 * n, Some(rid)));
    for (n, camera) in cameras.iter_mut().enumerate() {
        camera.sequence -= 1000 * n as u64;
        camera.timestamp = camera.timestamp.wrapping_add(1_000_000_000 * n as u32);
        camera.picture = (camera.picture + 5_000 * n as u16) & 0x7fff;
    }
    let mut asked = [true; 3];
    let mut now_forwarded = Vec::new();
    for frame in 0..150 {
        for n in 0..3 {
            // The highest layer pauses for two seconds.
            if n == 2 && (30..90).contains(&frame) {
                continue;
            }
            let key = std::mem::take(&mut asked[n]);
            cameras[n].picture(&mut world, 0, key);
        }
        world.run(33);
        for ssrc in plis(&mut world, 0) {
            asked[((ssrc - SSRC) / 2) as usize] = true;
        }
        let layers = world.media.subscribe_counters(down).unwrap().layers;
        now_forwarded.push(layers.iter().map(|layer| layer.packets).collect::<Vec<_>>());
    }
    assert_continuous(&media(&world, 1, DOWN));
    let counters = world.media.subscribe_counters(down).unwrap();
    let by_rid: Vec<(&str, u64)> =
        counters.layers.iter().map(|layer| (layer.rid.as_str(), layer.packets)).collect();
    let [("q", low), ("h", middle), ("f", high)] = by_rid[..] else { panic!("{by_rid:?}") };
    // At the beginning the lower layers are there first, for less than a picture each.
    assert_eq!(low, 2);
    assert!((60..100).contains(&middle), "{middle}");
    assert!(high > 150, "{high}");
    assert_eq!(counters.dropped, 0);
    // Nothing got lost between received and forwarded.
    let up = world.media.publish_counters(track).unwrap();
    let dropped: u64 = world.media.drops(down).iter().map(|(_, count)| count).sum();
    assert_eq!(up.packets, counters.packets + dropped);
}

#[test]
fn a_subscriber_that_wants_less_gets_a_lower_layer_and_nothing_while_disabled() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &["q", "h"]);
    let down = world.subscribe(1, track, DOWN);
    let mut low = Camera::new(SSRC, Some("q"));
    let mut high = Camera::new(SSRC + 2, Some("h"));
    let pictures = |world: &mut World, key, low: &mut Camera, high: &mut Camera| {
        low.picture(world, 0, key);
        high.picture(world, 0, key);
        world.run(33);
    };
    pictures(&mut world, true, &mut low, &mut high);
    world.media.set_settings(world.now, down, true, 0);
    pictures(&mut world, true, &mut low, &mut high);
    pictures(&mut world, false, &mut low, &mut high);
    let before = media(&world, 1, DOWN).len();
    world.media.set_settings(world.now, down, false, 0);
    pictures(&mut world, true, &mut low, &mut high);
    assert_eq!(media(&world, 1, DOWN).len(), before);
    world.clients[0].rtcp.clear();
    world.media.set_settings(world.now, down, true, 0);
    world.run(600);
    assert!(plis(&mut world, 0).contains(&SSRC));
    pictures(&mut world, true, &mut low, &mut high);
    let got = media(&world, 1, DOWN);
    assert_eq!(got.len(), before + 2);
    assert_continuous(&got);
}

#[test]
fn a_muted_track_is_not_forwarded_and_continues_without_a_gap() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &[]);
    let down = world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, None);
    camera.picture(&mut world, 0, true);
    world.media.set_publisher_muted(world.now, track, true);
    camera.picture(&mut world, 0, true);
    world.run(500);
    plis(&mut world, 0);
    world.media.set_publisher_muted(world.now, track, false);
    world.run(5);
    assert_eq!(plis(&mut world, 0), [SSRC]);
    camera.picture(&mut world, 0, true);
    let got = media(&world, 1, DOWN);
    assert_eq!(got.len(), 4);
    assert!(got.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
    assert_eq!(world.media.subscribe_counters(down).unwrap().packets, 4);
}

#[test]
fn padding_is_not_forwarded_and_leaves_no_gap() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &[]);
    world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, None);
    for n in 0..5 {
        camera.picture(&mut world, 0, n == 0);
        let padding = Outgoing {
            ssrc: SSRC,
            payload_type: 96,
            sequence: camera.sequence,
            timestamp: camera.timestamp,
            marker: false,
            extensions: &[],
            payload: &[],
            padding: 200,
        };
        world.send(0, &padding);
        camera.sequence += 1;
        world.run(33);
    }
    assert_eq!(media(&world, 1, DOWN).len(), 10);
    assert_continuous(&media(&world, 1, DOWN));
    let up = world.media.publish_counters(track).unwrap();
    assert_eq!((up.packets, up.padding, up.padding_bytes), (10, 5, 1000));
}

#[test]
fn another_ssrc_of_the_same_layer_continues_the_stream() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &["q"]);
    world.subscribe(1, track, DOWN);
    let mut camera = Camera::new(SSRC, Some("q"));
    camera.picture(&mut world, 0, true);
    let mut other = Camera::new(SSRC + 8, Some("q"));
    other.sequence = 12;
    other.picture(&mut world, 0, true);
    // A straggler of the first one is not numbered among the new ones.
    camera.picture(&mut world, 0, true);
    other.picture(&mut world, 0, false);
    let got = media(&world, 1, DOWN);
    assert_eq!(got.len(), 6);
    assert_continuous(&got);
    let seen = world.events.iter().filter(|event| matches!(event, MediaEvent::LayerSeen { .. })).count();
    assert_eq!(seen, 2);
}

#[test]
fn sender_reports_keep_sound_and_picture_together() {
    let mut world = World::new(2);
    let (audio, video) = (world.publish_audio(0), world.publish_video(0, &[]));
    world.subscribe(1, audio, DOWN);
    world.subscribe(1, video, DOWN + 10);
    let mut camera = Camera::new(SSRC, None);
    let publisher_ntp = 77u64 << 32;
    let mut writer = Vec::new();
    let report = |rtp_timestamp| SenderInfo { ntp: publisher_ntp, rtp_timestamp, packets: 1, octets: 1 };
    RtcpWriter::new(&mut writer).sender_report(SSRC, &report(camera.timestamp), &[]);
    RtcpWriter::new(&mut writer).sender_report(SSRC + 4, &report(960_000), &[]);
    camera.picture(&mut world, 0, true);
    let sound = Outgoing {
        ssrc: SSRC + 4,
        payload_type: 111,
        sequence: 5,
        timestamp: 960_000,
        marker: true,
        extensions: &[(MID, b"0")],
        payload: &[1, 2, 3],
        padding: 0,
    };
    world.send(0, &sound);
    world.send_rtcp(0, &writer);
    world.run(1100);
    let first = |ssrc| media(&world, 1, ssrc)[0].header.timestamp;
    let mut at = Vec::new();
    for packet in world.clients[1].rtcp.iter().flat_map(|compound| RtcpPackets::new(compound)) {
        if let RtcpPacket::SenderReport(report) = packet {
            let rate = if report.ssrc == DOWN { 48_000 } else { 90_000 };
            let media_ms =
                u64::from(report.info.rtp_timestamp.wrapping_sub(first(report.ssrc))) * 1000 / rate;
            let ntp_ms = ((report.info.ntp & 0xffff_ffff_ffff) * 1000) >> 32;
            at.push(ntp_ms - media_ms);
        }
    }
    // Both packets were captured at the same time.
    assert!(at.len() >= 2 && at.iter().all(|time| time.abs_diff(at[0]) <= 1), "{at:?}");
}

#[test]
fn a_subscription_again_on_the_same_ssrc_never_uses_a_number_twice() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &[]);
    let mut camera = Camera::new(SSRC, None);
    for _ in 0..3 {
        let down = world.subscribe(1, track, DOWN);
        assert!(world.media.subscribe(world.now, subscription(world.clients[1].id, track, DOWN)).is_none());
        camera.picture(&mut world, 0, true);
        world.media.unsubscribe(down);
    }
    let mut numbers: Vec<u64> = media(&world, 1, DOWN).iter().map(|got| got.sequence).collect();
    assert_eq!(numbers.len(), 6);
    numbers.dedup();
    assert_eq!(numbers.len(), 6);
}

#[test]
fn what_belongs_to_nobody_is_counted_and_goes_nowhere() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &["q", "h"]);
    world.subscribe(1, track, DOWN);
    let payload = vp8(1, true, true, 10);
    let stranger = |extensions: &'static [(u8, &'static [u8])], payload_type, ssrc| Outgoing {
        ssrc,
        payload_type,
        sequence: 1,
        timestamp: 1,
        marker: true,
        extensions,
        payload: &[],
        padding: 0,
    };
    let packets = [stranger(&[(MID, b"9")], 96, 1), stranger(&[(MID, b"1")], 96, 2), stranger(&[], 77, 3)];
    for packet in packets {
        world.send(0, &Outgoing { payload: &payload, ..packet });
    }
    assert_eq!(media(&world, 1, DOWN), []);
    assert_eq!(world.media.publish_counters(track).unwrap().packets, 0);
}
