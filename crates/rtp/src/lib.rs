//! RTP as a forwarder needs it: headers and extensions in place, SRTP, RTCP, loss recovery, feedback and reports.
//!
//! Everything here is a pure function of bytes and of the time it is given. The path of a packet allocates nothing:
//! headers are read where they lie ([`header`]), payloads live once in a [`slab`], what was sent is remembered in a
//! [`history`], and [`srtp`] seals and opens in place. RTCP ([`rtcp`]), which is a packet in a hundred, reads borrowed
//! and writes into a `Vec`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod bytes;
pub mod extension;
#[doc(hidden)]
pub mod fuzzing;
pub mod header;
pub mod history;
pub mod nack;
pub mod payload;
pub mod reports;
pub mod rtcp;
pub mod sequence;
pub mod slab;
pub mod srtp;
pub mod twcc;

pub use extension::{AudioLevel, ExtensionKind, ExtensionMap};
pub use header::{ExtensionForm, HeaderFields, HeaderWriter, RtpError, RtpHeader, WrittenHeader};
pub use history::{History, HistoryEntry, Resend};
pub use nack::NackGenerator;
pub use sequence::{SequenceExtender, TimestampExtender};
pub use slab::{Slab, SlotRef};
pub use srtp::{OpenedRtp, SrtpError, SrtpProfile, SrtpReceiver, SrtpSender};

/// Whether a datagram whose first byte is in 128..=191 is RTCP and not RTP (RFC 5761 §4: packet types 192..=223).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|byte| (192..=223).contains(byte))
}
