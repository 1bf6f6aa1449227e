//! Nonces without state: a time, and proof that this process made it for this client.

use crate::limits::NONCE_LIFETIME_S;
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanlight_base::{Addresses, Now, Protocol, Random};
use std::net::IpAddr;

/// Bytes of the time: seconds modulo 2^24, 194 days.
const TIME_BYTES: usize = 3;
/// Bytes of the proof. 72 bits: a forger has ten minutes and one guess a datagram, and gains a replay at most.
const PROOF_BYTES: usize = 9;
/// Characters of a nonce: short, so that a challenge stays within three times the request.
pub(crate) const NONCE_CHARS: usize = 16;

/// Makes and checks nonces.
#[derive(Debug)]
pub(crate) struct Nonces {
    key: hmac::Key,
}

impl Nonces {
    /// With a secret of this process: after a restart every nonce is stale.
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret) }
    }

    /// A fresh nonce for this client.
    pub(crate) fn make(&self, now: Now, client: Addresses) -> String {
        let [_, .., a, b, c] = seconds(now).to_be_bytes();
        let time = [a, b, c];
        let mut bytes = [0; TIME_BYTES + PROOF_BYTES];
        for (to, from) in bytes.iter_mut().zip(time.iter().chain(&self.prove(time, client))) {
            *to = *from;
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether this process made it for this client within the last ten minutes.
    pub(crate) fn is_fresh(&self, now: Now, client: Addresses, nonce: &str) -> bool {
        if nonce.len() != NONCE_CHARS {
            return false;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((time, proof)) = bytes.split_first_chunk::<TIME_BYTES>() else { return false };
        if constant_time::verify_slices_are_equal(&self.prove(*time, client), proof).is_err() {
            return false;
        }
        let [a, b, c] = *time;
        let made = u64::from(u32::from_be_bytes([0, a, b, c]));
        seconds(now).wrapping_sub(made) & 0xff_ffff <= NONCE_LIFETIME_S
    }

    fn prove(&self, time: [u8; TIME_BYTES], client: Addresses) -> [u8; PROOF_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&time);
        match client.remote.ip() {
            IpAddr::V4(ip) => context.update(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&client.remote.port().to_be_bytes());
        context.update(&[u8::from(client.protocol == Protocol::Tcp)]);
        let tag = context.sign();
        let mut proof = [0; PROOF_BYTES];
        for (to, from) in proof.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        proof
    }
}

/// The clock that never falls: a nonce does not become fresh again when the wall clock jumps.
fn seconds(now: Now) -> u64 {
    now.mono_ns / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(s: u64) -> Now {
        Now { mono_ns: s * 1_000_000_000, unix_ns: 0 }
    }

    fn client(port: u16) -> Addresses {
        let local = ([192, 0, 2, 1], 3478).into();
        Addresses { local, remote: ([198, 51, 100, 7], port).into(), protocol: Protocol::Udp }
    }

    #[test]
    fn a_nonce_is_good_for_its_client_for_ten_minutes() {
        let nonces = Nonces::new(&mut Random::from_seed([1; 32]));
        let nonce = nonces.make(now(100), client(1));
        assert_eq!(nonce.len(), NONCE_CHARS);
        assert!(nonces.is_fresh(now(100), client(1), &nonce) && nonces.is_fresh(now(700), client(1), &nonce));
        assert!(!nonces.is_fresh(now(701), client(1), &nonce), "stale");
        assert!(!nonces.is_fresh(now(99), client(1), &nonce), "from the future");
        assert!(!nonces.is_fresh(now(100), client(2), &nonce), "another client's");
        let tcp = Addresses { protocol: Protocol::Tcp, ..client(1) };
        assert!(!nonces.is_fresh(now(100), tcp, &nonce), "another transport's");
    }

    #[test]
    fn a_nonce_of_another_process_or_none_is_refused() {
        let nonces = Nonces::new(&mut Random::from_seed([1; 32]));
        let other = Nonces::new(&mut Random::from_seed([2; 32]));
        assert!(!nonces.is_fresh(now(0), client(1), &other.make(now(0), client(1))));
        for nonce in ["", "AAAAAAAAAAAAAAAA", "!!!!!!!!!!!!!!!!", "AAAA", "ééééEEEE"] {
            assert!(!nonces.is_fresh(now(0), client(1), nonce), "{nonce}");
        }
    }
}
