//! The receiving half.

use super::cipher::Cipher;
use super::keys::{Derivation, Protected};
use super::replay::ReplayWindow;
use super::send::ssrc_at;
use super::{SRTCP_ENCRYPTED, SrtpError, SrtpProfile};
use crate::header::RtpHeader;
use crate::sequence::extend_sequence;
use rustc_hash::FxHashMap;

/// One past the last RTP index (RFC 3711 §3.3.1: 48 bits).
const RTP_INDEX_END: u64 = 1 << 48;

/// Bounds of a receiver's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveLimits {
    /// Packets an RTP packet may be late, rounded up to 64 times a power of two.
    pub rtp_window_packets: usize,
    /// Packets an RTCP packet may be late, rounded likewise.
    pub rtcp_window_packets: usize,
    /// Streams of one connection over its whole life, retransmission streams included, for RTP and RTCP each.
    pub ssrcs_max: usize,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        Self {
            // libwebrtc's own; about a second of a 10 Mbit/s stream, and late packets of a codec without RTX are
            // retransmissions.
            rtp_window_packets: 1024,
            // RFC 3711 §3.3.2 asks for at least 64.
            rtcp_window_packets: 128,
            // Six per simulcast track with RTX: room to publish 680 times, 1.3 MB when an attacker with valid keys
            // uses it up. SSRCs are not forgotten, since that would let their packets be replayed.
            ssrcs_max: 4096,
        }
    }
}

/// An opened RTP packet; the plain packet is the first `len` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedRtp {
    /// The packet's header.
    pub header: RtpHeader,
    /// Length of the plain packet, tag cut off, in bytes.
    pub len: usize,
    /// Roll-over counter times 65,536 plus sequence number.
    pub extended_sequence: u64,
}

/// Opens the packets of one direction.
pub struct SrtpReceiver {
    profile: SrtpProfile,
    limits: ReceiveLimits,
    rtp: Cipher,
    rtcp: Cipher,
    rtp_streams: Streams,
    rtcp_streams: Streams,
}

impl std::fmt::Debug for SrtpReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpReceiver").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl SrtpReceiver {
    /// A receiver with the default limits. Key and salt must have the profile's lengths.
    pub fn new(profile: SrtpProfile, master_key: &[u8], master_salt: &[u8]) -> Result<Self, SrtpError> {
        Self::with_limits(profile, master_key, master_salt, ReceiveLimits::default())
    }

    /// A receiver with other limits.
    pub fn with_limits(
        profile: SrtpProfile,
        master_key: &[u8],
        master_salt: &[u8],
        limits: ReceiveLimits,
    ) -> Result<Self, SrtpError> {
        let derivation = Derivation::new(profile, master_key, master_salt)?;
        Ok(Self {
            profile,
            limits,
            rtp: Cipher::new(profile, &derivation, Protected::Rtp)?,
            rtcp: Cipher::new(profile, &derivation, Protected::Rtcp)?,
            rtp_streams: Streams::default(),
            rtcp_streams: Streams::default(),
        })
    }

    /// The profile in use.
    pub const fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// Authenticates and decrypts an RTP packet where it lies.
    ///
    /// After an error the receiver is as before, but the packet's bytes may be overwritten.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<OpenedRtp, SrtpError> {
        let header = RtpHeader::parse(packet).map_err(|_| SrtpError::Malformed)?;
        if packet.len() < header.header_len.saturating_add(self.profile.rtp_overhead()) {
            return Err(SrtpError::Malformed);
        }
        let known = self.rtp_streams.find(header.ssrc);
        let index = match known.and_then(|slot| self.rtp_streams.windows.get(slot)) {
            Some(window) => {
                let index = extend_sequence(window.highest(), header.sequence);
                window.check(index)?;
                index
            }
            None => u64::from(header.sequence),
        };
        if index >= RTP_INDEX_END {
            return Err(SrtpError::KeyUsedUp);
        }
        let len = self.rtp.open_rtp(packet, header.header_len, header.ssrc, index)?;
        self.rtp_streams.accept(
            known,
            header.ssrc,
            index,
            self.limits.rtp_window_packets,
            self.limits.ssrcs_max,
        )?;
        Ok(OpenedRtp { header, len, extended_sequence: index })
    }

    /// Authenticates and decrypts an RTCP packet where it lies; the plain packet is the first bytes, as many as
    /// returned. Authenticated packets without encryption (E flag unset) are accepted.
    ///
    /// After an error the receiver is as before, but the packet's bytes may be overwritten.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = ssrc_at(packet, 4)?;
        let index_word = self.rtcp.rtcp_index_word(packet).ok_or(SrtpError::Malformed)?;
        let index = u64::from(index_word & !SRTCP_ENCRYPTED);
        let known = self.rtcp_streams.find(ssrc);
        if let Some(window) = known.and_then(|slot| self.rtcp_streams.windows.get(slot)) {
            window.check(index)?;
        }
        let len = self.rtcp.open_rtcp(packet, ssrc, index_word)?;
        self.rtcp_streams.accept(
            known,
            ssrc,
            index,
            self.limits.rtcp_window_packets,
            self.limits.ssrcs_max,
        )?;
        Ok(len)
    }

    /// How many RTP streams have proved authentic.
    pub fn ssrcs(&self) -> usize {
        self.rtp_streams.windows.len()
    }

    /// A receiver with given session keys, for the vectors of RFC 7714, which start behind the key derivation.
    #[cfg(test)]
    pub(super) fn with_gcm_session_key(key: &[u8], salt: [u8; 12]) -> Self {
        Self {
            profile: if key.len() == 32 { SrtpProfile::AeadAes256Gcm } else { SrtpProfile::AeadAes128Gcm },
            limits: ReceiveLimits::default(),
            rtp: Cipher::gcm_from_session_key(key, salt),
            rtcp: Cipher::gcm_from_session_key(key, salt),
            rtp_streams: Streams::default(),
            rtcp_streams: Streams::default(),
        }
    }
}

/// Replay windows by SSRC. Packets come in runs of one SSRC, so the last one found is tried first.
#[derive(Default)]
struct Streams {
    slots: FxHashMap<u32, usize>,
    windows: Vec<ReplayWindow>,
    last: Option<(u32, usize)>,
}

impl Streams {
    fn find(&mut self, ssrc: u32) -> Option<usize> {
        if let Some((last, slot)) = self.last
            && last == ssrc
        {
            return Some(slot);
        }
        let slot = *self.slots.get(&ssrc)?;
        self.last = Some((ssrc, slot));
        Some(slot)
    }

    /// Remembers an authentic packet.
    fn accept(
        &mut self,
        known: Option<usize>,
        ssrc: u32,
        index: u64,
        window_packets: usize,
        ssrcs_max: usize,
    ) -> Result<(), SrtpError> {
        if let Some(window) = known.and_then(|slot| self.windows.get_mut(slot)) {
            window.accept(index);
            return Ok(());
        }
        if self.windows.len() >= ssrcs_max {
            return Err(SrtpError::TooManySsrcs);
        }
        self.slots.insert(ssrc, self.windows.len());
        self.windows.push(ReplayWindow::new(window_packets, index));
        Ok(())
    }
}
