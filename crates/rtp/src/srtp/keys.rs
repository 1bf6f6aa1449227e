//! Session keys from master keys (RFC 3711 §4.3, RFC 7714 §11).

use super::{SrtpError, SrtpProfile};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

/// Length of the salt as the derivation takes it; GCM's 12 bytes are padded with zeros on the right.
const DERIVATION_SALT_LEN: usize = 14;

/// What a derived key is for: the label of RFC 3711 §4.3.2, the RTCP label being 3 more than the RTP label.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Purpose {
    Encryption = 0,
    Authentication = 1,
    Salt = 2,
}

/// Which of the two protocols a key protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protected {
    Rtp,
    Rtcp,
}

/// Derives session keys with AES in counter mode; the key derivation rate is zero, as DTLS-SRTP has it.
pub(super) struct Derivation {
    key: EncryptingKey,
    salt: [u8; DERIVATION_SALT_LEN],
}

impl Derivation {
    pub(super) fn new(
        profile: SrtpProfile,
        master_key: &[u8],
        master_salt: &[u8],
    ) -> Result<Self, SrtpError> {
        if master_key.len() != profile.key_len() || master_salt.len() != profile.salt_len() {
            return Err(SrtpError::KeyLength);
        }
        let mut salt = [0; DERIVATION_SALT_LEN];
        for (target, source) in salt.iter_mut().zip(master_salt) {
            *target = *source;
        }
        Ok(Self { key: counter_mode_key(master_key)?, salt })
    }

    /// Fills `output` with the key for this purpose.
    pub(super) fn derive(
        &self,
        protected: Protected,
        purpose: Purpose,
        output: &mut [u8],
    ) -> Result<(), SrtpError> {
        let label = purpose as u8 + if protected == Protected::Rtcp { 3 } else { 0 };
        let mut iv = [0; 16];
        for (target, source) in iv.iter_mut().zip(self.salt) {
            *target = source;
        }
        // key_id = label || 48 zero bits, right-aligned in the 112 bits of the salt.
        if let Some(byte) = iv.get_mut(7) {
            *byte ^= label;
        }
        output.fill(0);
        apply_counter_mode(&self.key, iv, output)
    }
}

/// An AES key (128 or 256 bits) for counter mode, expanded once.
pub(super) fn counter_mode_key(key: &[u8]) -> Result<EncryptingKey, SrtpError> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| SrtpError::KeyLength)?;
    EncryptingKey::ctr(key).map_err(|_| SrtpError::KeyLength)
}

/// XORs the key stream that starts at `iv` into `bytes`.
pub(super) fn apply_counter_mode(
    key: &EncryptingKey,
    iv: [u8; 16],
    bytes: &mut [u8],
) -> Result<(), SrtpError> {
    if bytes.is_empty() {
        return Ok(());
    }
    key.less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(iv)))
        .map(|_| ())
        .map_err(|_| SrtpError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::tests_support::hex;

    #[test]
    fn counter_mode_gives_the_key_stream_of_rfc_3711_b2() {
        let key = counter_mode_key(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
        let iv = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().unwrap();
        // The appendix lists blocks 0..=2 and 0xfeff..=0xff01 of one key stream.
        let mut stream = vec![0; 0xff02 * 16];
        apply_counter_mode(&key, iv, &mut stream).unwrap();
        let blocks = [
            (0x0000, "E03EAD0935C95E80E166B16DD92B4EB4"),
            (0x0001, "D23513162B02D0F72A43A2FE4A5F97AB"),
            (0x0002, "41E95B3BB0A2E8DD477901E4FCA894C0"),
            (0xfeff, "EC8CDF7398607CB0F2D21675EA9EA1E4"),
            (0xff00, "362B7C3C6773516318A077D7FC5073AE"),
            (0xff01, "6A2CC3787889374FBEB4C81B17BA6C44"),
        ];
        for (block, expected) in blocks {
            assert_eq!(stream[block * 16..][..16], hex(expected), "block {block:#x}");
        }
    }

    #[test]
    fn session_keys_are_those_of_rfc_3711_b3() {
        let master_key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let master_salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let derivation =
            Derivation::new(SrtpProfile::Aes128CmHmacSha1_80, &master_key, &master_salt).unwrap();
        let derive = |purpose, len| {
            let mut key = vec![0xee; len];
            derivation.derive(Protected::Rtp, purpose, &mut key).unwrap();
            key
        };
        assert_eq!(derive(Purpose::Encryption, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(derive(Purpose::Salt, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
        let authentication = "CEBE321F6FF7716B6FD4AB49AF256A15\
                              6D38BAA48F0A0ACF3C34E2359E6CDBCE\
                              E049646C43D9327AD175578EF7227098\
                              6371C10C9A369AC2F94A8C5FBCDDDC25\
                              6D6E919A48B610EF17C2041E47403576\
                              6B68642C59BBFC2F34DB60DBDFB2";
        assert_eq!(derive(Purpose::Authentication, 94), hex(authentication));
    }

    #[test]
    fn keys_of_the_wrong_length_are_refused() {
        for (key, salt) in [(15, 14), (16, 12), (32, 14)] {
            let result =
                Derivation::new(SrtpProfile::Aes128CmHmacSha1_80, &vec![0; key], &vec![0; salt]).map(|_| ());
            assert_eq!(result, Err(SrtpError::KeyLength));
        }
    }
}
