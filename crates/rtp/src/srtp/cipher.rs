//! The two transforms: AES-GCM (RFC 7714) and AES-CM with HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1).

use super::keys::{Derivation, Protected, Purpose, apply_counter_mode, counter_mode_key};
use super::{RTCP_CLEAR_LEN, SRTCP_ENCRYPTED, SRTCP_INDEX_LEN, SrtpError, SrtpProfile};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::EncryptingKey;
use aws_lc_rs::{constant_time, hmac};

const GCM_TAG_LEN: usize = 16;
const HMAC_TAG_LEN: usize = 10;
const HMAC_KEY_LEN: usize = 20;

/// Session keys of one direction and protocol.
pub(super) enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    // Boxed: the expanded keys of counter mode and HMAC are large and rarely used.
    Cm(Box<CounterMode>),
}

pub(super) struct CounterMode {
    key: EncryptingKey,
    salt: [u8; 14],
    mac: hmac::Key,
}

impl Cipher {
    pub(super) fn new(
        profile: SrtpProfile,
        derivation: &Derivation,
        protected: Protected,
    ) -> Result<Self, SrtpError> {
        let mut key = [0; 32];
        let key = key.get_mut(..profile.key_len()).ok_or(SrtpError::KeyLength)?;
        derivation.derive(protected, Purpose::Encryption, key)?;
        let algorithm = match profile {
            SrtpProfile::AeadAes128Gcm => &AES_128_GCM,
            SrtpProfile::AeadAes256Gcm => &AES_256_GCM,
            SrtpProfile::Aes128CmHmacSha1_80 => {
                let (mut salt, mut mac) = ([0; 14], [0; HMAC_KEY_LEN]);
                derivation.derive(protected, Purpose::Salt, &mut salt)?;
                derivation.derive(protected, Purpose::Authentication, &mut mac)?;
                let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &mac);
                return Ok(Self::Cm(Box::new(CounterMode { key: counter_mode_key(key)?, salt, mac })));
            }
        };
        let mut salt = [0; 12];
        derivation.derive(protected, Purpose::Salt, &mut salt)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::KeyLength)?;
        Ok(Self::Gcm { key: LessSafeKey::new(key), salt })
    }

    #[cfg(test)]
    pub(super) fn gcm_from_session_key(key: &[u8], salt: [u8; 12]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Self::Gcm { key: LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap()), salt }
    }

    /// Seals `packet` = header, payload, room for the tag.
    pub(super) fn seal_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SrtpError> {
        let (header, rest) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
        match self {
            Self::Gcm { key, salt } => {
                let (payload, tag) =
                    rest.split_last_chunk_mut::<GCM_TAG_LEN>().ok_or(SrtpError::Malformed)?;
                let nonce = Nonce::assume_unique_for_key(gcm_rtp_nonce(salt, ssrc, index));
                let sealed = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*header), payload)
                    .map_err(|_| SrtpError::Malformed)?;
                copy_tag(tag, sealed.as_ref());
            }
            Self::Cm(cm) => {
                let (payload, _) = rest.split_last_chunk_mut::<HMAC_TAG_LEN>().ok_or(SrtpError::Malformed)?;
                apply_counter_mode(&cm.key, counter_iv(&cm.salt, ssrc, index), payload)?;
                let (authenticated, tag) =
                    packet.split_last_chunk_mut::<HMAC_TAG_LEN>().ok_or(SrtpError::Malformed)?;
                copy_tag(tag, cm.rtp_tag(authenticated, index).as_ref());
            }
        }
        Ok(())
    }

    /// Opens an RTP packet; returns its length without the tag. A failure may leave the payload overwritten.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        match self {
            Self::Gcm { key, salt } => {
                let (header, rest) = packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
                let (payload, tag) =
                    rest.split_last_chunk_mut::<GCM_TAG_LEN>().ok_or(SrtpError::Malformed)?;
                let nonce = Nonce::assume_unique_for_key(gcm_rtp_nonce(salt, ssrc, index));
                key.open_in_place_separate_tag(nonce, Aad::from(&*header), &*tag, payload)
                    .map_err(|_| SrtpError::Authentication)?;
                Ok(header_len.saturating_add(payload.len()))
            }
            Self::Cm(cm) => {
                let (authenticated, tag) =
                    packet.split_last_chunk_mut::<HMAC_TAG_LEN>().ok_or(SrtpError::Malformed)?;
                verify_tag(cm.rtp_tag(authenticated, index).as_ref(), tag)?;
                let len = authenticated.len();
                let payload = authenticated.get_mut(header_len..).ok_or(SrtpError::Malformed)?;
                apply_counter_mode(&cm.key, counter_iv(&cm.salt, ssrc, index), payload)?;
                Ok(len)
            }
        }
    }

    /// Encrypts an RTCP packet and appends tag and index.
    pub(super) fn seal_rtcp(&self, packet: &mut Vec<u8>, ssrc: u32, index: u32) -> Result<(), SrtpError> {
        let index_word = (SRTCP_ENCRYPTED | index).to_be_bytes();
        let (clear, secret) = packet.split_at_mut_checked(RTCP_CLEAR_LEN).ok_or(SrtpError::Malformed)?;
        match self {
            Self::Gcm { key, salt } => {
                let aad = gcm_rtcp_aad(clear, index_word)?;
                let nonce = Nonce::assume_unique_for_key(gcm_rtcp_nonce(salt, ssrc, index));
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), secret)
                    .map_err(|_| SrtpError::Malformed)?;
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&index_word);
            }
            Self::Cm(cm) => {
                apply_counter_mode(&cm.key, counter_iv(&cm.salt, ssrc, u64::from(index)), secret)?;
                packet.extend_from_slice(&index_word);
                let tag = hmac::sign(&cm.mac, packet);
                packet.extend(tag.as_ref().iter().take(HMAC_TAG_LEN));
            }
        }
        Ok(())
    }

    /// The word with E flag and index of an SRTCP packet.
    pub(super) fn rtcp_index_word(&self, packet: &[u8]) -> Option<u32> {
        let behind = match self {
            Self::Gcm { .. } => 0,
            Self::Cm(_) => HMAC_TAG_LEN,
        };
        let end = packet.len().checked_sub(behind)?;
        packet.get(..end)?.last_chunk::<SRTCP_INDEX_LEN>().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Opens an RTCP packet; returns its length without tag and index. A failure may leave it overwritten.
    pub(super) fn open_rtcp(
        &self,
        packet: &mut [u8],
        ssrc: u32,
        index_word: u32,
    ) -> Result<usize, SrtpError> {
        let encrypted = index_word & SRTCP_ENCRYPTED != 0;
        let index = index_word & !SRTCP_ENCRYPTED;
        match self {
            Self::Gcm { key, salt } => {
                let (body, word) =
                    packet.split_last_chunk_mut::<SRTCP_INDEX_LEN>().ok_or(SrtpError::Malformed)?;
                let (plain, tag) = body.split_last_chunk_mut::<GCM_TAG_LEN>().ok_or(SrtpError::Malformed)?;
                let len = plain.len();
                let (clear, secret) =
                    plain.split_at_mut_checked(RTCP_CLEAR_LEN).ok_or(SrtpError::Malformed)?;
                let nonce = Nonce::assume_unique_for_key(gcm_rtcp_nonce(salt, ssrc, index));
                if encrypted {
                    let aad = gcm_rtcp_aad(clear, *word)?;
                    key.open_in_place_separate_tag(nonce, Aad::from(aad), &*tag, secret)
                        .map_err(|_| SrtpError::Authentication)?;
                } else {
                    // RFC 7714 §9.3: without encryption the whole packet is associated data. Rare enough to copy.
                    let aad = [&*plain, &*word].concat();
                    key.open_in_place_separate_tag(nonce, Aad::from(aad), &*tag, &mut [])
                        .map_err(|_| SrtpError::Authentication)?;
                }
                Ok(len)
            }
            Self::Cm(cm) => {
                let (authenticated, tag) =
                    packet.split_last_chunk_mut::<HMAC_TAG_LEN>().ok_or(SrtpError::Malformed)?;
                verify_tag(hmac::sign(&cm.mac, authenticated).as_ref(), tag)?;
                let (plain, _) =
                    authenticated.split_last_chunk_mut::<SRTCP_INDEX_LEN>().ok_or(SrtpError::Malformed)?;
                let secret = plain.get_mut(RTCP_CLEAR_LEN..).ok_or(SrtpError::Malformed)?;
                if encrypted {
                    apply_counter_mode(&cm.key, counter_iv(&cm.salt, ssrc, u64::from(index)), secret)?;
                }
                Ok(plain.len())
            }
        }
    }
}

impl CounterMode {
    /// The tag over packet and roll-over counter (RFC 3711 §4.2).
    fn rtp_tag(&self, authenticated: &[u8], index: u64) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(authenticated);
        context.update(&((index >> 16) as u32).to_be_bytes());
        context.sign()
    }
}

/// RFC 7714 §8.1: 0x0000, SSRC, roll-over counter, sequence number, all XORed with the salt.
pub(super) fn gcm_rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> [u8; 12] {
    let block = (u128::from(ssrc) << 48) | u128::from(index & 0xffff_ffff_ffff);
    xor_salt(salt, block)
}

/// RFC 7714 §9.1: 0x0000, SSRC, 0x0000, 0 and the 31-bit index, all XORed with the salt.
fn gcm_rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> [u8; 12] {
    xor_salt(salt, (u128::from(ssrc) << 48) | u128::from(index))
}

fn xor_salt(salt: &[u8; 12], block: u128) -> [u8; 12] {
    let [_, _, _, _, low @ ..] = block.to_be_bytes();
    let mut nonce: [u8; 12] = low;
    for (byte, salt) in nonce.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    nonce
}

/// RFC 7714 §9.2: the clear part of the packet and the word with E flag and index.
fn gcm_rtcp_aad(clear: &[u8], index_word: [u8; 4]) -> Result<[u8; 12], SrtpError> {
    let [a, b, c, d, e, f, g, h] = *clear.first_chunk::<8>().ok_or(SrtpError::Malformed)?;
    let [i, j, k, l] = index_word;
    Ok([a, b, c, d, e, f, g, h, i, j, k, l])
}

/// RFC 3711 §4.1.1: (salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16).
pub(super) fn counter_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut block = ((u128::from(ssrc) << 64) | (u128::from(index) << 16)).to_be_bytes();
    for (byte, salt) in block.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    block
}

fn copy_tag(target: &mut [u8], tag: &[u8]) {
    for (target, source) in target.iter_mut().zip(tag) {
        *target = *source;
    }
}

fn verify_tag(computed: &[u8], received: &[u8; HMAC_TAG_LEN]) -> Result<(), SrtpError> {
    let computed = computed.get(..HMAC_TAG_LEN).ok_or(SrtpError::Authentication)?;
    constant_time::verify_slices_are_equal(computed, received).map_err(|_| SrtpError::Authentication)
}
