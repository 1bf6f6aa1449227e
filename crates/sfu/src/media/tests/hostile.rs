//! Nonsense from authenticated peers.

use super::world::{Camera, SSRC, World};
use fanlight_base::Random;
use fanlight_rtp::RtpHeader;

#[test]
fn nothing_an_authenticated_peer_sends_makes_it_panic() {
    let mut world = World::new(2);
    let track = world.publish_video(0, &["q", "h"]);
    let audio = world.publish_audio(0);
    world.subscribe(1, track, 0x2222_0000);
    world.subscribe(1, audio, 0x2222_0010);
    let mut camera = Camera::new(SSRC, Some("q"));
    camera.picture(&mut world, 0, true);
    let mut random = Random::from_seed([5; 32]);
    let ssrcs = [SSRC, SSRC + 1, SSRC + 2, 0x2222_0000, 0x2222_0001, 7];
    for round in 0..20_000u64 {
        let mut bytes = vec![0; random.below(120) as usize];
        random.fill(&mut bytes);
        if bytes.len() < 12 {
            continue;
        }
        let ssrc = ssrcs[random.below(6) as usize].to_be_bytes();
        let from = world.clients[random.below(2) as usize].id;
        if round % 2 == 0 {
            bytes[0] = 0x80 | (bytes[0] & 0x3f);
            bytes[1] = [96, 97, 111, 63, 200][random.below(5) as usize] | (bytes[1] & 0x80);
            bytes[8..12].copy_from_slice(&ssrc);
            if bytes.len() > 20 && bytes[0] & 0x1f == 0x10 {
                bytes[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
                let mid = b'0' + (bytes[16] & 1);
                bytes[16..20].copy_from_slice(&[0x40, mid, 0xa0, b'q']);
            }
            let Ok(header) = RtpHeader::parse(&bytes) else { continue };
            let sequence = u64::from(header.sequence) + (random.below(3) << 16);
            world.media.handle_rtp(
                world.now,
                &mut world.transports,
                from,
                &header,
                &bytes,
                sequence,
                &mut world.batch,
            );
        } else {
            let words = (bytes.len() / 4 - 1) as u16;
            bytes[0] = 0x80 | (bytes[0] & 0x1f);
            bytes[1] = 200 + random.below(8) as u8;
            bytes[2..4].copy_from_slice(&words.to_be_bytes());
            bytes[8..12].copy_from_slice(&ssrc);
            world.media.handle_rtcp(world.now, &mut world.transports, from, &bytes, &mut world.batch);
        }
        if round % 50 == 0 {
            let ms = random.below(200);
            world.step(std::time::Duration::from_millis(ms));
        }
    }
    world.run(100);
    let mut camera = Camera::new(SSRC + 0x900, Some("q"));
    camera.picture(&mut world, 0, true);
    assert!(world.media.publish_counters(track).unwrap().packets > 0);
}
