//! Fuzz targets: plain functions that must not panic, whatever the bytes.

pub use crate::negotiate::fuzzing::fuzz_sdp;

use crate::client_hello::HelloCollector;
use crate::dcep::Message;
use crate::demux::{classify, stun_local_ufrag};
use crate::framing::FrameReader;

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
