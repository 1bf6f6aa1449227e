//! Fuzz targets: plain functions that must neither panic nor break the properties they assert.
//!
//! The corpora in `fuzz/corpus/<name>/` are replayed, with mutations, by an ordinary test.

use crate::extension::{self, ExtensionMap};
use crate::header::{ExtensionForm, HeaderFields, HeaderWriter, RtpHeader};
use crate::payload::dependency_descriptor::DependencyDescriptorReader;
use crate::payload::{av1, h264, opus, red, vp8, vp9};
use crate::rtcp::{RtcpPacket, RtcpPackets};
use crate::srtp::{SrtpProfile, SrtpReceiver};
use crate::twcc::SendLog;
use crate::{AudioLevel, ExtensionKind};
use fanlight_base::Mono;

/// A target: a function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target with the name of its corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("rtp_header", fuzz_rtp_header),
    ("rtcp", fuzz_rtcp),
    ("srtp", fuzz_srtp),
    ("vp8", fuzz_vp8),
    ("vp9", fuzz_vp9),
    ("h264", fuzz_h264),
    ("av1", fuzz_av1),
    ("dependency_descriptor", fuzz_dependency_descriptor),
    ("opus", fuzz_opus),
    ("red", fuzz_red),
];

/// RTP header and extension elements; what was read must survive being written again.
pub fn fuzz_rtp_header(data: &[u8]) {
    let Ok(header) = RtpHeader::parse(data) else { return };
    assert!(header.header_len <= data.len());
    if let Ok(range) = header.payload_range(data) {
        assert!(range.start <= range.end && range.end <= data.len());
    }
    assert_eq!(header.csrcs(data).count(), usize::from(header.csrc_count));
    let mut map = ExtensionMap::new();
    for (kind, id) in ExtensionKind::ALL.into_iter().zip(1..) {
        assert!(map.set(id, kind).is_ok());
    }
    for element in header.extensions(data) {
        assert_eq!(data.get(element.offset..element.offset + element.value.len()), Some(element.value));
        let _ = (map.kind(element.id), extension::read_text(element.value), AudioLevel::parse(element.value));
        let _ =
            (extension::PlayoutDelay::parse(element.value), extension::AbsCaptureTime::parse(element.value));
    }
    rewrite_header(&header, data);
}

fn rewrite_header(header: &RtpHeader, data: &[u8]) {
    let fields = HeaderFields {
        marker: header.marker,
        has_padding: header.has_padding,
        payload_type: header.payload_type,
        sequence: header.sequence,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    let elements = || header.extensions(data).map(|element| (element.id, element.value));
    let form = ExtensionForm::fitting(elements().map(|(id, value)| (id, value.len())));
    // Going from the one-byte to the two-byte form costs a byte per element and up to 3 of padding.
    let mut buffer = vec![0xaa; data.len() * 2 + 20];
    let mut writer = HeaderWriter::new(&mut buffer, fields, form);
    if elements().any(|(id, value)| writer.element(id, value).is_err()) {
        return;
    }
    let Ok(written) = writer.finish() else { return };
    let again = RtpHeader::parse(&buffer);
    assert!(again.is_ok_and(|again| {
        again.header_len == written.len
            && (again.marker, again.payload_type, again.sequence)
                == (fields.marker, fields.payload_type, fields.sequence)
            && again.extensions(&buffer).map(|element| (element.id, element.value)).eq(elements())
    }));
}

/// Compound RTCP, every field of every packet, and transport feedback into a send log.
pub fn fuzz_rtcp(data: &[u8]) {
    let mut log = SendLog::new();
    for n in 0..100 {
        log.record(Mono { ns: n }, 100);
    }
    for packet in RtcpPackets::new(data) {
        match packet {
            RtcpPacket::SenderReport(report) => assert!(report.reports.iter().count() <= 31),
            RtcpPacket::ReceiverReport(report) => assert!(report.reports.iter().count() <= 31),
            RtcpPacket::SourceDescription(description) => {
                let _ = description.chunks().map(|chunk| chunk.items().count()).sum::<usize>();
            }
            RtcpPacket::Bye(bye) => assert!(bye.ssrcs().count() <= 31),
            RtcpPacket::Nack(nack) => assert!(nack.sequences().count() <= data.len() * 17 / 4),
            RtcpPacket::Pli(_) => {}
            RtcpPacket::Fir(fir) => assert!(fir.entries().count() <= data.len() / 8),
            RtcpPacket::Remb(remb) => assert!(remb.ssrcs().count() <= 255),
            RtcpPacket::TransportFeedback(feedback) => {
                assert_eq!(feedback.statuses().count(), usize::from(feedback.packet_count));
                let mut results = Vec::new();
                log.handle_feedback(&feedback, &mut results);
                log.handle_feedback(&feedback, &mut results);
                assert!(results.len() <= 100);
            }
            RtcpPacket::ExtendedReport(report) => {
                let _ = report.blocks().count();
            }
        }
    }
}

/// SRTP and SRTCP: what no key made is never opened and leaves no state.
pub fn fuzz_srtp(data: &[u8]) {
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmHmacSha1_80] {
        let (key, salt) = ([7; 16], [9; 14]);
        let salt = salt.get(..profile.salt_len()).unwrap_or_default();
        let Ok(mut receiver) = SrtpReceiver::new(profile, &key, salt) else { return };
        assert!(receiver.open_rtp(&mut data.to_vec()).is_err());
        assert!(receiver.open_rtcp(&mut data.to_vec()).is_err());
        assert_eq!(receiver.ssrcs(), 0);
    }
}

/// VP8 descriptor; rewriting it changes the numbers and nothing else.
pub fn fuzz_vp8(data: &[u8]) {
    let Some(descriptor) = vp8::Vp8Descriptor::parse(data) else { return };
    assert!(descriptor.len <= data.len());
    let _ = descriptor.dimensions(data);
    let mut payload = data.to_vec();
    descriptor.rewrite(&mut payload, 0x1234, 0x56, 0x17);
    let again = vp8::Vp8Descriptor::parse(&payload);
    assert!(again.is_some_and(|again| {
        again.len == descriptor.len
            && again.temporal_id == descriptor.temporal_id
            && again.layer_sync == descriptor.layer_sync
            && again.picture_id.is_none_or(|id| id.value == if id.is_long { 0x1234 } else { 0x34 })
            && again.tl0_picture_index.is_none_or(|index| index == 0x56)
            && again.key_index.is_none_or(|index| index == 0x17)
    }));
    assert_eq!(payload.get(descriptor.len..), data.get(descriptor.len..));
}

/// VP9 descriptor.
pub fn fuzz_vp9(data: &[u8]) {
    if let Some(descriptor) = vp9::Vp9Descriptor::parse(data) {
        assert!(descriptor.len <= data.len());
        let _ = descriptor.starts_key_frame();
    }
}

/// H.264 payload.
pub fn fuzz_h264(data: &[u8]) {
    assert_eq!(h264::H264Payload::parse(data).is_none(), data.is_empty());
}

/// AV1 payload.
pub fn fuzz_av1(data: &[u8]) {
    let total: usize = av1::elements(data).map(<[u8]>::len).sum();
    assert!(total <= data.len());
    let _ = av1::starts_key_frame(data);
}

/// Dependency descriptors of one stream: each is a length byte and as many bytes.
pub fn fuzz_dependency_descriptor(data: &[u8]) {
    let mut reader = DependencyDescriptorReader::new();
    let mut rest = data;
    while let Some((len, following)) = rest.split_first() {
        let (value, next) = following.split_at(following.len().min(usize::from(*len)));
        rest = next;
        if let Ok(descriptor) = reader.read(value) {
            assert!(!descriptor.has_structure || descriptor.active_decode_targets.is_some());
            let _ = (descriptor.frame.frame_diffs(), descriptor.frame.chain_diffs());
        }
    }
}

/// Opus payload.
pub fn fuzz_opus(data: &[u8]) {
    assert_eq!(opus::OpusToc::parse(data).is_none(), data.is_empty());
    let _ = opus::is_dtx(data);
}

/// RED payload.
pub fn fuzz_red(data: &[u8]) {
    let Some(blocks) = red::blocks(data) else { return };
    let (mut total, mut count) = (0, 0);
    for block in blocks {
        total += block.payload.len();
        count += 1;
    }
    // A redundant block's header has four bytes, the primary's one.
    assert_eq!(total + 4 * count - 3, data.len());
    assert!(red::primary(data).is_some());
}
