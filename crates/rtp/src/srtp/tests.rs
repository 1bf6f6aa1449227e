use super::cipher::{counter_iv, gcm_rtp_nonce};
use super::keys::{Derivation, Protected, Purpose};
use super::tests_support::hex;
use super::*;
use aws_lc_rs::hmac;
use proptest::prelude::*;

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::Aes128CmHmacSha1_80];
/// "Quid pro quo", the salt of RFC 7714 §16 and §17.
const RFC_7714_SALT: [u8; 12] = *b"Quid pro quo";
const RFC_7714_RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 \
                            69736120 696e2070 61727465 73207472 6573";
const RFC_7714_RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 \
                             deadbeef deadbeef deadbeef deadbeef deadbeef";

fn rfc_7714_key(len: u8) -> Vec<u8> {
    (0..len).collect()
}

fn pair(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
    let key: Vec<u8> = (1..).take(profile.key_len()).collect();
    let salt: Vec<u8> = (101..).take(profile.salt_len()).collect();
    (SrtpSender::new(profile, &key, &salt).unwrap(), SrtpReceiver::new(profile, &key, &salt).unwrap())
}

fn plain(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 7]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..50).map(|byte: u8| byte ^ sequence as u8));
    packet
}

fn sealed(sender: &mut SrtpSender, ssrc: u32, index: u64) -> Vec<u8> {
    let mut packet = plain(ssrc, index as u16);
    packet.resize(packet.len() + sender.overhead(), 0);
    sender.seal_rtp(&mut packet, 12, index).unwrap();
    packet
}

fn receiver_report(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet
}

#[test]
fn rtp_is_sealed_as_in_rfc_7714_16() {
    let cases = [
        (
            16,
            "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833",
            "899d7f27 beb16a91 52cf765e e4390cce",
        ),
        (
            32,
            "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b",
            "7aa3db36 dfffd6b0 f9bb7878 d7a76c13",
        ),
    ];
    for (key_len, ciphertext, tag) in cases {
        let key = rfc_7714_key(key_len);
        let clear = hex(RFC_7714_RTP);
        let mut packet = clear.clone();
        packet.extend([0; 16]);
        let mut sender = SrtpSender::with_gcm_session_key(&key, RFC_7714_SALT);
        sender.seal_rtp(&mut packet, 12, 0xf17b).unwrap();
        let expected = [&clear[..12], &hex(ciphertext), &hex(tag)].concat();
        assert_eq!(packet, expected, "AES-{}", usize::from(key_len) * 8);
        let mut receiver = SrtpReceiver::with_gcm_session_key(&key, RFC_7714_SALT);
        let opened = receiver.open_rtp(&mut packet).unwrap();
        assert_eq!((&packet[..opened.len], opened.extended_sequence), (&clear[..], 0xf17b));
    }
}

#[test]
fn rtcp_is_sealed_as_in_rfc_7714_17() {
    let cases = [
        (
            16,
            "63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda \
             4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade",
        ),
        (
            32,
            "d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be \
             8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be",
        ),
    ];
    for (key_len, ciphertext_and_tag) in cases {
        let key = rfc_7714_key(key_len);
        let clear = hex(RFC_7714_RTCP);
        let mut packet = clear.clone();
        let mut sender = SrtpSender::with_gcm_session_key(&key, RFC_7714_SALT);
        sender.set_rtcp_index(0x5d4);
        sender.seal_rtcp(&mut packet).unwrap();
        let expected = [&clear[..8], &hex(ciphertext_and_tag), &hex("800005d4")].concat();
        assert_eq!(packet, expected, "AES-{}", usize::from(key_len) * 8);
        let mut receiver = SrtpReceiver::with_gcm_session_key(&key, RFC_7714_SALT);
        let len = receiver.open_rtcp(&mut packet).unwrap();
        assert_eq!(packet[..len], clear);
    }
}

#[test]
fn authenticated_rtcp_without_encryption_is_opened_as_in_rfc_7714_17() {
    let cases = [(16, "841dd968 3dd78ec9 2ae58790 125f62b3"), (32, "91db4afb feee5a97 8fab4393 ed2615fe")];
    for (key_len, tag) in cases {
        let clear = hex(RFC_7714_RTCP);
        let mut packet = [&clear[..], &hex(tag), &hex("000005d4")].concat();
        let mut receiver = SrtpReceiver::with_gcm_session_key(&rfc_7714_key(key_len), RFC_7714_SALT);
        let mut tampered = packet.clone();
        tampered[20] ^= 1;
        assert_eq!(receiver.open_rtcp(&mut tampered), Err(SrtpError::Authentication));
        let len = receiver.open_rtcp(&mut packet).unwrap();
        assert_eq!(packet[..len], clear);
    }
}

#[test]
fn what_one_side_seals_the_other_opens() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let mut packet = sealed(&mut sender, 5, 1000);
        assert_ne!(packet[12..62], plain(5, 1000)[12..]);
        let opened = receiver.open_rtp(&mut packet).unwrap();
        assert_eq!(packet[..opened.len], plain(5, 1000));
        let mut rtcp = receiver_report(5);
        sender.seal_rtcp(&mut rtcp).unwrap();
        assert_eq!(rtcp.len(), receiver_report(5).len() + profile.rtcp_overhead());
        let len = receiver.open_rtcp(&mut rtcp).unwrap();
        assert_eq!(rtcp[..len], receiver_report(5));
    }
}

#[test]
fn rtcp_of_eight_bytes_is_sealed_and_opened() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let mut rtcp = receiver_report(5)[..8].to_vec();
        sender.seal_rtcp(&mut rtcp).unwrap();
        assert_eq!(receiver.open_rtcp(&mut rtcp), Ok(8));
    }
}

#[test]
fn counter_mode_rtcp_without_encryption_is_accepted() {
    let profile = SrtpProfile::Aes128CmHmacSha1_80;
    let (mut sender, mut receiver) = pair(profile);
    let mut sealed = receiver_report(5);
    sender.seal_rtcp(&mut sealed).unwrap();
    // The tag covers the E flag: clearing it alone must fail.
    let flag = sealed.len() - 14;
    sealed[flag] ^= 0x80;
    assert_eq!(receiver.open_rtcp(&mut sealed), Err(SrtpError::Authentication));

    let (key, salt): (Vec<u8>, Vec<u8>) = ((1..17).collect(), (101..115).collect());
    let mut session_key = [0; 20];
    Derivation::new(profile, &key, &salt)
        .unwrap()
        .derive(Protected::Rtcp, Purpose::Authentication, &mut session_key)
        .unwrap();
    let mut packet = receiver_report(5);
    packet.extend([0, 0, 0, 9]);
    let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &session_key);
    let tag = hmac::sign(&mac, &packet);
    packet.extend(&tag.as_ref()[..10]);
    let len = receiver.open_rtcp(&mut packet).unwrap();
    assert_eq!(packet[..len], receiver_report(5));
}

#[test]
fn a_packet_opens_once() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let packet = sealed(&mut sender, 5, 1000);
        assert!(receiver.open_rtp(&mut packet.clone()).is_ok());
        assert_eq!(receiver.open_rtp(&mut packet.clone()), Err(SrtpError::Replayed));
        let mut rtcp = receiver_report(5);
        sender.seal_rtcp(&mut rtcp).unwrap();
        assert!(receiver.open_rtcp(&mut rtcp.clone()).is_ok());
        assert_eq!(receiver.open_rtcp(&mut rtcp.clone()), Err(SrtpError::Replayed));
    }
}

#[test]
fn a_packet_older_than_the_window_is_refused() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let mut old = sealed(&mut sender, 5, 100);
    let mut older = sealed(&mut sender, 5, 99);
    assert!(receiver.open_rtp(&mut sealed(&mut sender, 5, 100 + 1023)).is_ok());
    assert!(receiver.open_rtp(&mut old).is_ok());
    assert_eq!(receiver.open_rtp(&mut older), Err(SrtpError::TooOld));
}

#[test]
fn a_wrong_tag_changes_nothing() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let good = sealed(&mut sender, 5, 1000);
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(receiver.open_rtp(&mut forged), Err(SrtpError::Authentication));
        assert_eq!(receiver.ssrcs(), 0);
        assert!(receiver.open_rtp(&mut good.clone()).is_ok());
        // A forged number far ahead must move neither the window nor the roll-over counter.
        let mut ahead = sealed(&mut sender, 5, 30_000);
        ahead[20] ^= 1;
        assert_eq!(receiver.open_rtp(&mut ahead), Err(SrtpError::Authentication));
        assert!(receiver.open_rtp(&mut sealed(&mut sender, 5, 999)).is_ok());
        let mut rtcp = receiver_report(5);
        sender.seal_rtcp(&mut rtcp).unwrap();
        let mut forged = rtcp.clone();
        forged[9] ^= 1;
        assert_eq!(receiver.open_rtcp(&mut forged), Err(SrtpError::Authentication));
        assert!(receiver.open_rtcp(&mut rtcp).is_ok());
    }
}

#[test]
fn the_roll_over_counter_is_guessed_forward_and_back() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        for index in [65_530, 65_537, 65_535, 65_600, 65_534, 98_300, 131_060, 131_080, 131_072] {
            let opened = receiver.open_rtp(&mut sealed(&mut sender, 5, index)).unwrap();
            assert_eq!(opened.extended_sequence, index);
        }
    }
}

#[test]
fn streams_roll_over_one_by_one() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    for (ssrc, index) in [(1, 65_535), (2, 10), (1, 65_536), (2, 11), (1, 65_537), (3, 0)] {
        let opened = receiver.open_rtp(&mut sealed(&mut sender, ssrc, index)).unwrap();
        assert_eq!((opened.header.ssrc, opened.extended_sequence), (ssrc, index));
    }
    assert_eq!(receiver.ssrcs(), 3);
}

#[test]
fn one_stream_more_than_the_limit_is_refused() {
    let (mut sender, _) = pair(SrtpProfile::AeadAes128Gcm);
    let (key, salt): (Vec<u8>, Vec<u8>) = ((1..17).collect(), (101..113).collect());
    let limits = ReceiveLimits { ssrcs_max: 2, ..ReceiveLimits::default() };
    let mut receiver = SrtpReceiver::with_limits(SrtpProfile::AeadAes128Gcm, &key, &salt, limits).unwrap();
    for ssrc in [1, 2] {
        assert!(receiver.open_rtp(&mut sealed(&mut sender, ssrc, 1)).is_ok());
    }
    assert_eq!(receiver.open_rtp(&mut sealed(&mut sender, 3, 1)), Err(SrtpError::TooManySsrcs));
    assert!(receiver.open_rtp(&mut sealed(&mut sender, 2, 2)).is_ok());
}

#[test]
fn short_and_broken_packets_are_malformed() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let good = sealed(&mut sender, 5, 1000);
        for len in 0..12 + profile.rtp_overhead() {
            assert_eq!(receiver.open_rtp(&mut good[..len].to_vec()), Err(SrtpError::Malformed), "{len}");
        }
        let mut rtcp = receiver_report(5);
        sender.seal_rtcp(&mut rtcp).unwrap();
        for len in 0..rtcp.len() {
            assert!(receiver.open_rtcp(&mut rtcp[..len].to_vec()).is_err(), "{len}");
        }
        assert_eq!(sender.seal_rtcp(&mut vec![0; 7]), Err(SrtpError::Malformed));
        assert_eq!(sender.seal_rtp(&mut [0x80; 20], 12, 0), Err(SrtpError::Malformed));
    }
}

#[test]
fn a_used_up_key_seals_no_more() {
    let (mut sender, _) = pair(SrtpProfile::AeadAes128Gcm);
    let mut packet = plain(5, 0);
    packet.resize(packet.len() + 16, 0);
    assert_eq!(sender.seal_rtp(&mut packet, 12, 1 << 48), Err(SrtpError::KeyUsedUp));
    sender.set_rtcp_index(1 << 31);
    assert_eq!(sender.seal_rtcp(&mut receiver_report(1)), Err(SrtpError::KeyUsedUp));
}

#[test]
fn profiles_have_their_registered_numbers() {
    for profile in PROFILES {
        assert_eq!(SrtpProfile::from_iana(profile.iana()), Some(profile));
        assert!(profile.rtp_overhead() <= RTP_OVERHEAD_MAX && profile.rtcp_overhead() <= RTCP_OVERHEAD_MAX);
    }
    // SRTP_AES128_CM_HMAC_SHA1_32 and SRTP_NULL_HMAC_SHA1_80 are not to be agreed on.
    assert_eq!((SrtpProfile::from_iana(2), SrtpProfile::from_iana(5)), (None, None));
}

#[test]
fn the_counter_of_rfc_3711_is_the_salt_for_ssrc_and_index_zero() {
    let salt = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    assert_eq!(counter_iv(&salt, 0, 0).to_vec(), hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"));
}

proptest! {
    #[test]
    fn different_packets_have_different_nonces(
        a in (any::<u32>(), 0_u64..1 << 48),
        b in (any::<u32>(), 0_u64..1 << 48),
        salt in any::<[u8; 12]>(),
    ) {
        let same = a == b;
        prop_assert_eq!(gcm_rtp_nonce(&salt, a.0, a.1) == gcm_rtp_nonce(&salt, b.0, b.1), same);
        let salt = [0x55; 14];
        prop_assert_eq!(counter_iv(&salt, a.0, a.1) == counter_iv(&salt, b.0, b.1), same);
    }

    #[test]
    fn a_lossy_shuffled_stream_opens_whole(start in 0_u64..200_000, steps in prop::collection::vec(1_u64..400, 1..60)) {
        let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
        // A receiver that has seen nothing assumes roll-over counter 0.
        let mut index = start & 0xffff;
        let mut pairs = Vec::new();
        for step in steps {
            pairs.push([index + step, index]);
            index += step + 1;
        }
        for index in pairs.concat() {
            let known_cycle = receiver.ssrcs() > 0 || index < 65_536;
            prop_assume!(known_cycle);
            let opened = receiver.open_rtp(&mut sealed(&mut sender, 9, index)).unwrap();
            prop_assert_eq!(opened.extended_sequence, index);
        }
    }
}
