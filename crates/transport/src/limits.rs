//! Every maximum of a transport, with its reason.

use std::time::Duration;

/// Largest data channel message both ways, in bytes: what every browser and LiveKit's SDKs send at most by default
/// (RFC 8841 §6.1 gives 65,536 when nothing is said; one less fits a 16-bit length).
pub const MESSAGE_BYTES_MAX: usize = 65_535;

/// Bytes of messages handed to SCTP and not yet acknowledged, over all channels of a transport. Two seconds of a
/// 4 Mbit/s path; more only adds delay.
pub const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;

/// A channel whose buffered amount falls to this says so with [`crate::TransportEvent::BufferedLow`].
pub const BUFFERED_LOW_BYTES: usize = 64 << 10;

/// Receive window announced to the peer, in bytes: four of the largest messages.
pub const RECEIVE_WINDOW_BYTES: u32 = 256 << 10;

/// Bytes of packets taken after our window fell to zero and stayed there; an honest sender only probes then.
pub const RECEIVE_EXCESS_BYTES_MAX: u64 = 1 << 20;

/// Streams offered to the peer; browsers use a handful.
pub const STREAMS_MAX: u16 = 1024;

/// Streams in use at one time, with or without a channel; `sctp-proto` makes state for every id it sees.
pub const STREAMS_OPEN_MAX: usize = 256;

/// Data channels of one transport; LiveKit's clients open two or three.
pub const CHANNELS_MAX: usize = 64;

/// Bytes of a data channel's label and of its protocol.
pub const LABEL_BYTES_MAX: usize = 256;

/// Events that may wait for [`crate::Transport::poll_event`]; data stays in SCTP, unread, while it is full.
pub const EVENTS_MAX: usize = 1024;

/// Of which data messages leave this many free for state changes.
pub const EVENTS_RESERVED: usize = 256;

/// SCTP packets of a burst, and packets per millisecond after it (38 Mbit/s). `sctp-proto` has neither burst limit nor
/// pacing; a whole window at once overflows a browser's receive buffer and then stalls for a retransmission timeout.
pub const SCTP_BURST_PACKETS: u64 = 16;
/// See [`SCTP_BURST_PACKETS`].
pub const SCTP_PACKETS_PER_MS: u64 = 4;

/// SCTP packet size: with 37 bytes of DTLS record it stays within a 1,200-byte UDP payload, which passes everywhere.
pub const SCTP_PACKET_BYTES: u32 = 1160;

/// Largest SCTP packet taken. Every WebRTC stack keeps to about 1,200 bytes; a packet's cost grows with its chunks.
pub const SCTP_RECEIVED_BYTES_MAX: usize = 2048;

/// How far a DATA chunk may be ahead of what we have acknowledged, in chunks: four of our windows in full-sized chunks. It
/// bounds what the library sorts while one chunk is missing.
pub const SCTP_TSN_WINDOW: u32 = 1024;

/// DATA chunks that may be held without being read: what [`SCTP_TSN_WINDOW`] allows above a gap, and below it the fragments of
/// one message: their numbers follow each other, so that no other message begins before the last of them.
pub const SCTP_HELD_CHUNKS_MAX: usize = SCTP_TSN_WINDOW as usize + 256;

/// New DATA chunks of a packet times chunks held: what the library compares for one packet, some 50 µs. Sixteen small messages
/// in a packet with everything held that may be held.
pub const SCTP_PACKET_WORK_MAX: usize = 16 * SCTP_HELD_CHUNKS_MAX;

/// DATA chunks between two SACKs; many turns bring fewer, which are acknowledged by one.
pub const SCTP_SACK_EVERY_CHUNKS: usize = 256;

/// Chunks taken between two SACKs that we have already acknowledged; one would do to acknowledge again.
pub const SCTP_DUPLICATES_MAX: usize = 16;

/// Gap blocks in a SACK of ours: with [`SCTP_DUPLICATES_MAX`] it stays below [`SCTP_PACKET_BYTES`].
pub const SCTP_GAPS_SENT_MAX: usize = 256;

/// Streams named by one FORWARD TSN: as many as there may be channels.
pub const FORWARDED_STREAMS_MAX: usize = CHANNELS_MAX;

/// Content of a HEARTBEAT, which is sent back; senders put a time and an address in it.
pub const HEARTBEAT_BYTES_MAX: usize = 1024;

/// Retransmission timeout before a round trip was measured, as in libwebrtc's dcSCTP.
pub const SCTP_RTO_INITIAL: Duration = Duration::from_millis(500);

/// Shortest retransmission timeout: twice the 200 ms that Pion and usrsctp may hold an acknowledgement back.
pub const SCTP_RTO_MIN: Duration = Duration::from_millis(400);

/// Longest retransmission timeout: what was lost in an outage comes soon after it.
pub const SCTP_RTO_MAX: Duration = Duration::from_secs(2);

/// UDP payload of DTLS handshake datagrams.
pub const DTLS_MTU_BYTES: usize = 1200;

/// First retransmission of a DTLS flight; the library's 1 s makes every lost flight visible to people.
pub const DTLS_FIRST_RTO: Duration = Duration::from_millis(100);

/// Doubling from 100 ms, nine retries go beyond [`DTLS_HANDSHAKE_TIMEOUT`], which then decides.
pub const DTLS_RETRIES: usize = 9;

/// A handshake that takes longer has failed.
pub const DTLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of DTLS taken before the handshake is complete; a real one needs about 5 kB. It bounds the buffer for the
/// peer's certificate, which `dimpl` does not ask for but demands.
pub const DTLS_HANDSHAKE_BYTES_MAX: usize = 256 << 10;

/// Length of our own certificate in bytes: `dimpl` panics on a flight of more than twelve records.
pub const CERTIFICATE_BYTES_MAX: usize = 4096;

/// Datagrams that one ClientHello may come in; browsers use two.
pub const HELLO_DATAGRAMS_MAX: usize = 6;

/// Length of a ClientHello in bytes; with a post-quantum key share browsers send about 1,450.
pub const HELLO_BYTES_MAX: usize = 8192;

/// DTLS datagrams kept from an address that has passed an authenticated check, until the pair is valid.
pub const HELD_DATAGRAMS_MAX: usize = 6;
/// Largest such datagram.
pub const HELD_DATAGRAM_BYTES_MAX: usize = 2048;

/// Addresses of the peer known at one time, named or peer-reflexive: browsers with many interfaces name about 30. The ICE
/// agent walks all of them for each check.
pub const REMOTES_MAX: usize = 64;

/// Remote candidates taken in one ICE generation.
pub const REMOTE_CANDIDATES_MAX: usize = REMOTES_MAX;

/// An address from which something was authenticated or decrypted within this time makes no room for another. A flood
/// from new ports so stops at [`REMOTES_MAX`] in this time; browsers check the pair they use every 2.5 to 6 s.
pub const TUPLE_IN_USE: Duration = Duration::from_secs(10);

/// Addresses that one `is` agent may ever have met: it keeps the dead ones and walks them too, so that it is made anew
/// with those that live. Only a client that moves a hundred times without an ICE restart comes here.
pub const AGENT_ADDRESSES_MAX: usize = 256;

/// Our checks that wait for an answer: one leaves every 50 ms, and an answer that takes longer than 3 s is none.
pub const CHECKS_WAITING_MAX: usize = 64;

/// Candidate pairs the ICE agent checks.
pub const CANDIDATE_PAIRS_MAX: usize = 100;

/// Longest ufrag of a peer: a check names it and ours of 16 letters, with a colon between them, and the ICE library writes user
/// names of 128 bytes at most. RFC 8839 §5.4 allows 256; clients have 4 to 16.
pub const UFRAG_BYTES_MAX: usize = 111;

/// Longest candidate line read.
pub const CANDIDATE_BYTES_MAX: usize = 512;

/// With these the ICE agent gives up a silent pair after 15 s in full mode, as it does in lite mode (the defaults take
/// 23 s). Firefox and aiortc check only every 4–6 s, so less would cut healthy clients off.
pub const STUN_RTO_MAX: Duration = Duration::from_millis(2000);
/// See [`STUN_RTO_MAX`].
pub const STUN_RETRANSMITS: usize = 8;

/// One packet over ICE-TCP (RFC 4571 allows 65,535; nothing we speak needs more than a DTLS record of 16 kB).
pub const TCP_FRAME_BYTES_MAX: usize = 20_000;
