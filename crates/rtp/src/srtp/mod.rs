//! SRTP and SRTCP (RFC 3711, RFC 7714): packets are sealed and opened where they lie.
//!
//! The sender knows each packet's extended sequence number and keeps no state per stream; the receiver guesses the
//! roll-over counter and keeps a replay window per SSRC, made only when a packet has proved authentic.

mod cipher;
mod keys;
mod receive;
mod replay;
mod send;

pub use receive::{OpenedRtp, ReceiveLimits, SrtpReceiver};
pub use send::SrtpSender;

/// Length of the word with the E flag and the index that ends an SRTCP packet (RFC 3711 §3.4).
const SRTCP_INDEX_LEN: usize = 4;
/// The E flag: the packet is encrypted.
const SRTCP_ENCRYPTED: u32 = 1 << 31;
/// Bytes of an RTCP packet that stay readable: the first header and the sender's SSRC (RFC 3711 §3.4).
const RTCP_CLEAR_LEN: usize = 8;
/// Most bytes any profile adds to an RTP packet.
pub const RTP_OVERHEAD_MAX: usize = 16;
/// Most bytes any profile adds to an RTCP packet.
pub const RTCP_OVERHEAD_MAX: usize = 20;

/// Why a packet could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// The bytes are not an RTP or RTCP packet or have no room for the tag.
    #[error("malformed packet")]
    Malformed,
    /// The authentication tag is wrong.
    #[error("authentication failed")]
    Authentication,
    /// The packet was received before.
    #[error("packet is a replay")]
    Replayed,
    /// The packet is older than the replay window.
    #[error("packet is older than the replay window")]
    TooOld,
    /// An authentic packet of one SSRC more than the limit.
    #[error("too many SSRCs")]
    TooManySsrcs,
    /// The index of a packet exceeds what one key may protect (2^48 RTP, 2^31 RTCP packets).
    #[error("key is used up")]
    KeyUsedUp,
    /// Key or salt has another length than the profile wants.
    #[error("key or salt of the wrong length")]
    KeyLength,
}

/// A protection profile of the `use_srtp` extension (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// AES-128 in Galois counter mode, 16-byte tag.
    AeadAes128Gcm,
    /// AES-256 in Galois counter mode, 16-byte tag.
    AeadAes256Gcm,
    /// AES-128 in counter mode with HMAC-SHA1 cut to 80 bits.
    Aes128CmHmacSha1_80,
}

impl SrtpProfile {
    /// The number in `use_srtp`.
    pub const fn iana(self) -> u16 {
        match self {
            Self::Aes128CmHmacSha1_80 => 0x0001,
            Self::AeadAes128Gcm => 0x0007,
            Self::AeadAes256Gcm => 0x0008,
        }
    }

    /// The profile of a number in `use_srtp`.
    pub const fn from_iana(number: u16) -> Option<Self> {
        match number {
            0x0001 => Some(Self::Aes128CmHmacSha1_80),
            0x0007 => Some(Self::AeadAes128Gcm),
            0x0008 => Some(Self::AeadAes256Gcm),
            _ => None,
        }
    }

    /// Length of the master key in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::Aes128CmHmacSha1_80 => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Length of the master salt in bytes.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// Bytes that sealing adds to an RTP packet.
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmHmacSha1_80 => 10,
        }
    }

    /// Bytes that sealing adds to an RTCP packet.
    pub const fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + SRTCP_INDEX_LEN
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod tests_support {
    /// Bytes from hexadecimal digits; white space is skipped.
    pub(super) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }
}
