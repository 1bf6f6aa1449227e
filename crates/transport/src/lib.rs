//! One peer connection's lower half: ICE, DTLS, SRTP, SCTP and data channels over a set of 5-tuples.
//!
//! [`Transport`] does no input or output. A datagram goes in with [`Transport::handle_datagram`], time with
//! [`Transport::handle_timeout`]; packets come out in the caller's `SendBatch`, everything else from
//! [`Transport::poll_event`]. [`demux`] tells what a datagram is and whose, [`candidate`] writes candidates,
//! [`framing`] splits ICE-TCP streams, [`ufrag`] says which shard a connection is for.

mod anchor;
pub mod candidate;
mod certificate;
mod client_hello;
mod dcep;
pub mod demux;
mod dtls;
mod event;
pub mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod ice;
pub mod limits;
pub mod negotiate;
mod remotes;
mod sctp;
pub mod sdp;
mod transport;
pub mod ufrag;

pub use anchor::ClockAnchor;
pub use certificate::{Certificate, CertificateError, Fingerprint, FingerprintError};
pub use dcep::Reliability;
pub use dtls::{DtlsError, DtlsVersion};
pub use event::{
    DtlsRole, FailReason, Ignored, Received, ReceivedRtp, RemoteError, RemoteParameters, RemoteSet, RtpOut,
    Sent, Setup, Stamps, TransportConfig, TransportCounters, TransportEvent, Why,
};
pub use ice::{CandidateIgnored, IceState};
pub use sctp::{ChannelId, SctpCounters, SendDataError};
pub use transport::Transport;
