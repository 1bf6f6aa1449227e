//! Fuzz targets: plain functions that must not panic, whatever the bytes.

mod dtls;
mod ice;

pub use crate::negotiate::fuzzing::fuzz_sdp;
pub use crate::sctp::handmade;
pub use dtls::HandmadeDtls;
pub use ice::fuzz_ice;

use crate::client_hello::HelloCollector;
use crate::dcep::Message;
use crate::demux::{classify, stun_local_ufrag};
use crate::framing::FrameReader;
use crate::limits::SCTP_PACKET_BYTES;
use handmade::HandmadePeer;
use std::time::{Duration, Instant};

/// Packets of one input: an association that lives longer shows nothing new.
const SCTP_STEPS_MAX: usize = 2_000;

/// Classification, and the ufrag of whatever it is.
pub fn fuzz_demux(data: &[u8]) {
    let class = classify(data);
    if let Some(ufrag) = stun_local_ufrag(data) {
        assert_eq!(class, crate::demux::PacketClass::Stun);
        assert!(ufrag.len() <= data.len());
    }
}

/// RFC 4571 framing: the first byte says how the stream is cut.
pub fn fuzz_framing(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let mut reader = FrameReader::new();
    let mut bytes = 0;
    for part in stream.chunks(usize::from(*cut).max(1)) {
        reader.push(part);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => bytes += frame.len(),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(bytes + reader.waiting_bytes() <= stream.len());
}

/// Data channel protocol; what is read can be written and read again.
pub fn fuzz_dcep(data: &[u8]) {
    if let Ok(Message::Open(open)) = Message::parse(data) {
        assert_eq!(Message::parse(&open.to_bytes()), Ok(Message::Open(open)));
    }
}

/// Collecting a ClientHello from datagrams of 1 to 255 bytes.
pub fn fuzz_client_hello(data: &[u8]) {
    let mut collector = HelloCollector::default();
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first() {
        let (datagram, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        let _ = collector.push(datagram);
        rest = tail;
    }
    let _ = HelloCollector::default().push(data);
}

/// SCTP after its handshake, as steps of a kind (one byte), a length (two bytes) and so many bytes: 0 is a packet's chunks as
/// they are, 1 the same with the first number of its first chunk counted from ours, 2 a whole packet whose checksum alone
/// is written, 3 a message of ours, 4 a number of milliseconds that pass. Nothing we send outgrows a packet.
pub fn fuzz_sctp(data: &[u8]) {
    #[allow(
        clippy::disallowed_methods,
        reason = "an Instant cannot be made without the clock; its value is arbitrary"
    )]
    let mut peer = HandmadePeer::established(Instant::now(), handmade::FIRST_TSN);
    let channel = peer.open();
    let mut rest = data;
    for _ in 0..SCTP_STEPS_MAX {
        let Some((&[kind, high, low], tail)) = rest.split_first_chunk() else { break };
        let (bytes, tail) = tail.split_at(usize::from(u16::from_be_bytes([high, low])).min(tail.len()));
        rest = tail;
        let packets = match kind % 5 {
            0 => peer.feed_chunks(&[bytes.to_vec()]),
            1 => {
                let mut chunks = bytes.to_vec();
                if let Some(number) = chunks.get_mut(4..8).and_then(|place| place.first_chunk_mut()) {
                    *number = u32::from_be_bytes(*number).wrapping_add(peer.first_tsn).to_be_bytes();
                }
                peer.feed_chunks(&[chunks])
            }
            2 => {
                let mut packet = bytes.to_vec();
                handmade::seal(&mut packet);
                peer.feed(&packet)
            }
            3 => {
                if let Some(id) = channel {
                    peer.send_ours(id, bytes);
                }
                peer.poll()
            }
            _ => {
                peer.pass(Duration::from_millis(u64::from(u16::from_be_bytes([high, low]))));
                peer.poll()
            }
        };
        assert!(packets.iter().all(|packet| packet.len() <= SCTP_PACKET_BYTES as usize));
        peer.clear_events();
    }
}
