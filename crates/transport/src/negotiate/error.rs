//! Why a description cannot be used.

use super::remote::MID_BYTES_MAX;
use super::slots::OFFERED_SECTIONS_MAX;
use crate::sdp::SECTIONS_MAX;

/// Why a description that parses cannot be used here. LiveKit answers all of these with a full reconnect
/// (`STATE_MISMATCH`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// No `ice-ufrag` and `ice-pwd`.
    #[error("description has no ICE credentials")]
    NoIce,
    /// No `fingerprint`, or one that is not a digest.
    #[error("description has no certificate fingerprint")]
    NoFingerprint,
    /// No m-line.
    #[error("description has no m-line")]
    NoSections,
    /// An m-line without mid: with BUNDLE nothing else names it.
    #[error("m-line {index} has no mid of at most {MID_BYTES_MAX} bytes")]
    NoMid {
        /// Position of the m-line, from 0.
        index: usize,
    },
    /// Two m-lines with one mid.
    #[error("mid {mid} stands twice")]
    DuplicateMid {
        /// The mid.
        mid: String,
    },
    /// More m-lines than a client may add by itself.
    #[error(
        "offer has {found} m-lines; {OFFERED_SECTIONS_MAX} and those that the client was asked for make at most {allowed}"
    )]
    TooManyOffered {
        /// How many there are.
        found: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// Fewer m-lines than before (RFC 3264 §8 forbids it).
    #[error("description has {found} m-lines after {known}")]
    SectionsMissing {
        /// How many there were.
        known: usize,
        /// How many there are.
        found: usize,
    },
    /// An answer's m-line does not belong to the offer's m-line in its place.
    #[error("m-line {index} of the answer does not match the offer")]
    Mismatch {
        /// Position of the m-line, from 0.
        index: usize,
    },
    /// An answer without an offer.
    #[error("answer without an outstanding offer")]
    NoOffer,
    /// An offer while another one waits for its answer.
    #[error("an offer is outstanding")]
    OfferOutstanding,
    /// No more m-lines fit.
    #[error("a connection has at most {SECTIONS_MAX} m-lines")]
    TooManySections,
}
