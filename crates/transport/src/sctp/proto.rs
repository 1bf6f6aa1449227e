//! [`Association`] by `sctp-proto`.

use super::association::{Association, AssociationEvent, Ppid, StreamMessage};
use crate::dcep::Reliability;
use crate::limits::{
    BUFFERED_LOW_BYTES, MESSAGE_BYTES_MAX, RECEIVE_WINDOW_BYTES, SCTP_PACKET_BYTES, SCTP_RTO_INITIAL,
    SCTP_RTO_MAX, SCTP_RTO_MIN, STREAMS_MAX,
};
use bytes::Bytes;
use sctp_proto::{
    AssociationError, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, Transmit, TransportConfig,
};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// SCTP runs inside DTLS; the addresses its library asks for mean nothing there.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5000));
/// Headers of a packet and of a DATA chunk (RFC 9260 §3).
const DATA_OVERHEAD_BYTES: u32 = 12 + 16;
/// By so much the library's packets may be longer than it is told: it counts the last chunk of a packet without header and padding.
const BUNDLING_EXCESS_BYTES: u32 = 16 + 4;

/// An association with the endpoint that its library wants around it.
pub(super) struct ProtoAssociation {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: sctp_proto::Association,
}

/// Accepts the association that this INIT asks for; `None` when the library refuses it.
pub(super) fn accept(now: Instant, init: Bytes) -> Option<Box<dyn Association>> {
    let mut endpoint = endpoint();
    match endpoint.handle(now, NOWHERE, None, None, init) {
        Some((handle, DatagramEvent::NewAssociation(association))) => {
            Some(Box::new(ProtoAssociation { endpoint, handle, association }))
        }
        _ => None,
    }
}

impl Association for ProtoAssociation {
    fn handle_packet(&mut self, now: Instant, packet: Bytes) {
        if let Some((handle, DatagramEvent::AssociationEvent(event))) =
            self.endpoint.handle(now, NOWHERE, None, None, packet)
            && handle == self.handle
        {
            self.association.handle_event(event);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.association.poll_timeout()
    }

    fn poll_event(&mut self) -> Option<AssociationEvent> {
        // Streams of the peer need no accepting: they are found by their number.
        while self.association.accept_stream().is_some() {}
        while let Some(event) = self.association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.association.handle_event(event);
            }
        }
        loop {
            return Some(match self.association.poll()? {
                Event::Connected => AssociationEvent::Connected,
                Event::AssociationLost { reason: AssociationError::ReceiveBufferExhausted } => {
                    AssociationEvent::Overfilled
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => AssociationEvent::Ended,
                Event::Stream(StreamEvent::Readable { id }) => AssociationEvent::Readable(id),
                Event::Stream(StreamEvent::BufferedAmountLow { id }) => AssociationEvent::BufferedLow(id),
                Event::Stream(StreamEvent::Finished { id }) => AssociationEvent::StreamGone(id),
                Event::Stream(StreamEvent::ResetFailed { .. }) => AssociationEvent::ResetFailed,
                _ => continue,
            });
        }
    }

    fn poll_packets(&mut self, now: Instant) -> Vec<Bytes> {
        let mut packets = Vec::new();
        let mut take = |transmit: Transmit| match transmit.payload {
            Payload::RawEncode(more) if packets.is_empty() => packets = more,
            Payload::RawEncode(more) => packets.extend(more),
            Payload::PartialDecode(_) => {}
        };
        while let Some(transmit) = self.endpoint.poll_transmit() {
            take(transmit);
        }
        while let Some(transmit) = self.association.poll_transmit(now) {
            take(transmit);
        }
        packets
    }

    fn is_closed(&self) -> bool {
        self.association.is_closed()
    }

    fn stream_count(&self) -> usize {
        self.association.stream_ids().len()
    }

    fn has_stream(&mut self, stream: u16) -> bool {
        self.association.stream(stream).is_ok()
    }

    fn open_stream(&mut self, stream: u16) -> bool {
        self.association
            .open_stream(stream, PayloadProtocolIdentifier::Binary)
            .is_ok_and(|mut stream| stream.set_buffered_amount_low_threshold(BUFFERED_LOW_BYTES).is_ok())
    }

    fn set_reliability(&mut self, stream: u16, ordered: bool, reliability: Reliability) -> bool {
        let (kind, value) = match reliability {
            Reliability::Reliable => (ReliabilityType::Reliable, 0),
            Reliability::Retransmits(count) => (ReliabilityType::Rexmit, count),
            Reliability::LifetimeMs(ms) => (ReliabilityType::Timed, ms),
        };
        self.association.stream(stream).is_ok_and(|mut stream| {
            stream.set_reliability_params(!ordered, kind, value).is_ok()
                && stream.set_buffered_amount_low_threshold(BUFFERED_LOW_BYTES).is_ok()
        })
    }

    fn write(&mut self, _now: Instant, stream: u16, ppid: Ppid, bytes: &[u8]) -> bool {
        let ppid = match ppid {
            Ppid::Dcep => PayloadProtocolIdentifier::Dcep,
            Ppid::String => PayloadProtocolIdentifier::String,
            Ppid::Binary => PayloadProtocolIdentifier::Binary,
            Ppid::StringEmpty => PayloadProtocolIdentifier::StringEmpty,
            Ppid::BinaryEmpty => PayloadProtocolIdentifier::BinaryEmpty,
            Ppid::Unknown => PayloadProtocolIdentifier::Unknown,
        };
        self.association.stream(stream).is_ok_and(|mut stream| stream.write_with_ppi(bytes, ppid).is_ok())
    }

    fn read(&mut self, stream: u16) -> Option<StreamMessage> {
        let message = self.association.stream(stream).ok()?.read_sctp().ok()??;
        let mut bytes = vec![0; message.len()];
        let len = message.read(&mut bytes).unwrap_or_default();
        bytes.truncate(len);
        let ppid = match message.ppi {
            PayloadProtocolIdentifier::Dcep => Ppid::Dcep,
            PayloadProtocolIdentifier::String => Ppid::String,
            PayloadProtocolIdentifier::Binary => Ppid::Binary,
            PayloadProtocolIdentifier::StringEmpty => Ppid::StringEmpty,
            PayloadProtocolIdentifier::BinaryEmpty => Ppid::BinaryEmpty,
            PayloadProtocolIdentifier::Unknown => Ppid::Unknown,
        };
        Some(StreamMessage { ppid, bytes, chunks: message.chunks.len() })
    }

    fn buffered_bytes(&mut self, stream: u16) -> usize {
        self.association.stream(stream).ok().and_then(|stream| stream.buffered_amount().ok()).unwrap_or(0)
    }

    fn reset_stream(&mut self, _now: Instant, stream: u16) -> bool {
        self.association.stream(stream).is_ok_and(|mut stream| stream.close().is_ok())
    }
}

fn endpoint() -> Endpoint {
    let mut config = EndpointConfig::new();
    config.max_payload_size(SCTP_PACKET_BYTES - DATA_OVERHEAD_BYTES - BUNDLING_EXCESS_BYTES);
    let mut server = ServerConfig::new();
    server.transport = Arc::new(
        TransportConfig::default()
            .with_max_receive_buffer_size(RECEIVE_WINDOW_BYTES)
            .with_max_send_message_size(MESSAGE_BYTES_MAX as u32)
            // The library ends the association over a message that is too long; we drop it, and the window ends an endless one.
            .with_max_receive_message_size(2 * RECEIVE_WINDOW_BYTES)
            .with_max_num_outbound_streams(STREAMS_MAX)
            .with_max_num_inbound_streams(STREAMS_MAX)
            .with_rto_initial_ms(milliseconds(SCTP_RTO_INITIAL))
            .with_rto_min_ms(milliseconds(SCTP_RTO_MIN))
            .with_rto_max_ms(milliseconds(SCTP_RTO_MAX)),
    );
    Endpoint::new(Arc::new(config), Some(Arc::new(server)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
