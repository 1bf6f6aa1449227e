//! The sending half.

use super::cipher::Cipher;
use super::keys::{Derivation, Protected};
use super::{SrtpError, SrtpProfile};

/// One past the last index a key may protect (RFC 3711 §9.2).
const RTP_INDEX_END: u64 = 1 << 48;
const RTCP_INDEX_END: u32 = 1 << 31;

/// Seals the packets of one direction.
///
/// It keeps no state per stream, so the caller owes it that no (SSRC, extended sequence number) seals two different
/// packets: with AES-GCM that would give the key away.
pub struct SrtpSender {
    profile: SrtpProfile,
    rtp: Cipher,
    rtcp: Cipher,
    rtcp_index: u32,
}

impl std::fmt::Debug for SrtpSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpSender").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl SrtpSender {
    /// Derives the session keys. The lengths must be those of the profile.
    pub fn new(profile: SrtpProfile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpError> {
        let derivation = Derivation::new(profile, master_key, master_salt)?;
        Ok(Self {
            profile,
            rtp: Cipher::new(profile, &derivation, Protected::Rtp)?,
            rtcp: Cipher::new(profile, &derivation, Protected::Rtcp)?,
            rtcp_index: 0,
        })
    }

    /// The profile in use.
    pub const fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Bytes to leave free behind the payload for [`SrtpSender::seal_rtp`].
    pub const fn overhead(&self) -> usize {
        self.profile.rtp_overhead()
    }

    /// Encrypts the payload of `packet` (header, payload, [`SrtpSender::overhead`] bytes of room) and writes the tag.
    ///
    /// `extended_sequence` is the roll-over counter times 65,536 plus the header's sequence number. A new stream
    /// starts with roll-over counter 0, and best below sequence number 32,768: a receiver that loses the packets
    /// around a wrap before it has seen any other cannot know that there was one (RFC 3711 §3.3.1).
    pub fn seal_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
        extended_sequence: u64,
    ) -> Result<(), SrtpError> {
        if extended_sequence >= RTP_INDEX_END {
            return Err(SrtpError::KeyUsedUp);
        }
        let ssrc = ssrc_at(packet, 8)?;
        self.rtp.seal_rtp(packet, header_len, ssrc, extended_sequence)
    }

    /// Encrypts a compound or reduced-size RTCP packet and appends tag and index.
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        if self.rtcp_index >= RTCP_INDEX_END {
            return Err(SrtpError::KeyUsedUp);
        }
        let ssrc = ssrc_at(packet, 4)?;
        self.rtcp.seal_rtcp(packet, ssrc, self.rtcp_index)?;
        self.rtcp_index += 1;
        Ok(())
    }

    /// Sets the index of the next RTCP packet.
    #[cfg(test)]
    pub(super) fn set_rtcp_index(&mut self, index: u32) {
        self.rtcp_index = index;
    }

    /// A sender with given session keys, for the vectors of RFC 7714, which start behind the key derivation.
    #[cfg(test)]
    pub(super) fn with_gcm_session_key(key: &[u8], salt: [u8; 12]) -> Self {
        Self {
            profile: if key.len() == 32 { SrtpProfile::AeadAes256Gcm } else { SrtpProfile::AeadAes128Gcm },
            rtp: Cipher::gcm_from_session_key(key, salt),
            rtcp: Cipher::gcm_from_session_key(key, salt),
            rtcp_index: 0,
        }
    }
}

/// The SSRC at a fixed offset of a packet.
pub(super) fn ssrc_at(packet: &[u8], offset: usize) -> Result<u32, SrtpError> {
    let bytes = packet.get(offset..).and_then(|rest| rest.first_chunk::<4>()).ok_or(SrtpError::Malformed)?;
    Ok(u32::from_be_bytes(*bytes))
}
