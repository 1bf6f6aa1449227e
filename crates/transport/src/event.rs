//! What goes into a transport and what comes out, as values.

use crate::certificate::{Certificate, Fingerprint};
use crate::dcep::Reliability;
use crate::demux::TransactionId;
use crate::dtls::{DtlsError, DtlsVersion};
use crate::ice::IceState;
use crate::sctp::ChannelId;
use crate::{ClockAnchor, SctpCounters};
use fanlight_base::{Addresses, Redacted};
use fanlight_rtp::{RtpHeader, SrtpProfile};

/// How a transport is made.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Turns our time into the libraries'.
    pub anchor: ClockAnchor,
    /// Number of the shard the transport lives on; its ufrags carry it.
    pub shard: u16,
    /// We answer checks and make none.
    pub ice_lite: bool,
    /// We send the first offer, which makes us the controlling agent (RFC 8445 §6.1.1) unless lite.
    pub offerer: bool,
    /// What we are when the peer leaves us the choice. The passive side chooses the SRTP profile.
    pub role: DtlsRole,
    /// Our certificate.
    pub certificate: Certificate,
}

/// Which end of DTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DtlsRole {
    /// The server: waits for a ClientHello (`a=setup:passive`).
    Passive,
    /// The client (`a=setup:active`).
    Active,
}

/// What the peer says about its DTLS role (RFC 4145 §4; `holdconn` has no meaning in WebRTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setup {
    /// `actpass`: either; only in offers.
    ActPass,
    /// `active`: it sends the ClientHello.
    Active,
    /// `passive`: it waits for ours.
    Passive,
}

/// The peer's ICE and DTLS parameters, from its description.
#[derive(Debug, Clone)]
pub struct RemoteParameters {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub password: Redacted<String>,
    /// `a=fingerprint`.
    pub fingerprint: Fingerprint,
    /// `a=setup`.
    pub setup: Setup,
}

/// What taking the peer's parameters did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteSet {
    /// Checks and handshake may begin.
    Started,
    /// Nothing new.
    Unchanged,
    /// The answer to our restart.
    RestartAnswered,
    /// The peer restarted ICE: our ufrag and password are new as well and belong into the answer.
    Restarted,
}

/// Why the peer's parameters cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Another certificate would need another DTLS association, which one transport does not have.
    #[error("the fingerprint changed")]
    FingerprintChanged,
    /// ufrag or password shorter than RFC 8839 §5.4 allows, or longer than [`UFRAG_BYTES_MAX`](crate::limits::UFRAG_BYTES_MAX) and 256.
    #[error("the ICE credentials are malformed")]
    Credentials,
}

/// What a transport tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// A connectivity check of ours left; a STUN response with its transaction id is for this transport, wherever it
    /// comes from.
    Check(TransactionId),
    /// ICE came to another state.
    IceState(IceState),
    /// Packets leave over this 5-tuple from now on.
    Selected(Addresses),
    /// The handshake is complete and the peer's certificate is the announced one.
    Connected {
        /// SRTP profile; none when the peer asked for data only.
        profile: Option<SrtpProfile>,
        /// Version of DTLS.
        version: DtlsVersion,
    },
    /// A channel is open: the peer opened it, or confirmed ours.
    DataChannelOpen {
        /// Names it from now on.
        id: ChannelId,
        /// Its label.
        label: String,
        /// Its subprotocol.
        protocol: String,
        /// Messages arrive in order.
        ordered: bool,
        /// How hard it tries.
        reliability: Reliability,
    },
    /// A message.
    Data {
        /// Channel.
        id: ChannelId,
        /// Binary, or text.
        binary: bool,
        /// Content; text is not checked to be UTF-8.
        bytes: Vec<u8>,
    },
    /// A channel is closed; its id does not come back.
    DataChannelClosed {
        /// Channel.
        id: ChannelId,
    },
    /// What a channel buffers fell to [`crate::limits::BUFFERED_LOW_BYTES`].
    BufferedLow {
        /// Channel.
        id: ChannelId,
    },
    /// Nothing goes on.
    Failed(FailReason),
    /// The peer closed the connection.
    Closed,
}

/// Why a transport ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailReason {
    /// The handshake failed or timed out, or the connection broke.
    #[error("DTLS: {0}")]
    Dtls(DtlsError),
    /// The peer's certificate is not the announced one.
    #[error("the peer's certificate does not match its fingerprint")]
    Fingerprint,
    /// Keys came without a verified certificate, or did not fit their profile.
    #[error("the SRTP keys cannot be used")]
    Keys,
}

/// What a datagram was.
#[derive(Debug)]
pub enum Received<'a> {
    /// An authenticated RTP packet, decrypted in place.
    Rtp(ReceivedRtp<'a>),
    /// An authenticated compound RTCP packet, decrypted in place.
    Rtcp(&'a [u8]),
    /// A check of the peer's that passed its integrity, or such an answer to ours: the peer is at this 5-tuple. Said
    /// for each one, so that whoever could not take it up gets it again. [`crate::Transport::take_forgotten`] names the
    /// 5-tuples that are the peer's no more.
    Check,
    /// Nothing for the caller.
    Nothing(Ignored),
}

/// An authenticated RTP packet.
#[derive(Debug)]
pub struct ReceivedRtp<'a> {
    /// Header (with CSRCs and extension) and payload, without the authentication tag.
    pub packet: &'a mut [u8],
    /// The parsed header.
    pub header: RtpHeader,
    /// Sequence number with roll-over count above its 16 bits.
    pub extended_sequence: u64,
}

/// Why a datagram brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// The transport itself needed it.
    Handled,
    /// Not STUN, DTLS, RTP or RTCP, or malformed.
    Malformed,
    /// STUN that is not for this agent or whose integrity is wrong.
    NotAccepted,
    /// From an address that no check has verified.
    UnverifiedAddress,
    /// Media before the handshake is complete.
    NoKeys,
    /// The authentication tag is wrong.
    WrongTag,
    /// Seen before, or too old to know.
    Replayed,
    /// The transport has ended.
    Ended,
}

/// What happened to datagrams so far. Counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// STUN messages taken.
    pub stun: u64,
    /// DTLS datagrams taken.
    pub dtls: u64,
    /// RTP packets opened.
    pub rtp: u64,
    /// RTCP packets opened.
    pub rtcp: u64,
    /// Dropped: neither STUN, DTLS, RTP nor RTCP, or malformed.
    pub malformed: u64,
    /// Dropped: STUN with wrong integrity or for somebody else.
    pub stun_not_accepted: u64,
    /// Dropped: checks from new addresses while as many as we keep are in use.
    pub checks_refused: u64,
    /// Dropped: not STUN, from an address no check has verified.
    pub unverified_address: u64,
    /// Dropped: media before there are keys.
    pub no_keys: u64,
    /// Dropped: wrong authentication tag.
    pub wrong_tag: u64,
    /// Dropped: replayed or too old.
    pub replayed: u64,
    /// Events that found the queue full.
    pub events_refused: u64,
    /// RTP packets sent, retransmissions included.
    pub rtp_sent: u64,
    /// Packets that the peer's transport-wide feedback says it has received.
    pub feedback_received: u64,
    /// Packets that it says it has not.
    pub feedback_lost: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// Packets that were not sent: no tuple, no keys, or the cipher refused.
    pub unsendable: u64,
    /// Data channels.
    pub sctp: SctpCounters,
}

/// What a transport waits for; shells count what wakes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A connectivity check or consent.
    Ice,
    /// A handshake retransmission.
    Dtls,
    /// An SCTP timer, or the pace of data.
    Sctp,
    /// Messages that wait for room in the event queue.
    Backlog,
    /// Nothing.
    Idle,
}

/// An RTP packet to be sealed. Nothing in it is allocated or copied before the send batch.
#[derive(Debug, Clone, Copy)]
pub struct RtpOut<'a> {
    /// The complete header with extensions; the P bit is set when there is padding.
    pub header: &'a [u8],
    /// Bytes that stand before [`Self::payload`] and are this subscriber's own: a payload descriptor written anew, the
    /// original sequence number of RFC 4588. Mostly empty.
    pub prefix: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Bytes of padding to append (RFC 3550 §5.1), 0 for none.
    pub padding_bytes: u8,
    /// Sequence number with roll-over count; its low 16 bits stand in the header.
    pub extended_sequence: u64,
    /// Where in the header the two bytes of the transport-wide sequence number stand.
    pub transport_cc_offset: Option<usize>,
    /// Where in the header the three bytes of abs-send-time stand.
    pub abs_send_time_offset: Option<usize>,
}

/// The values that sending writes into a header. A byte-identical retransmission needs the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamps {
    /// Transport-wide sequence number.
    pub transport_cc: u16,
    /// abs-send-time: 24 bits, 6.18 fixed point seconds.
    pub abs_send_time: u32,
}

/// A packet that went into the send batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Transport-wide sequence number, when the header has one.
    pub transport_cc: Option<u16>,
    /// What was written, for a retransmission.
    pub stamps: Stamps,
    /// UDP payload in bytes, the tag included.
    pub bytes: usize,
}
