use super::*;
use proptest::prelude::*;

fn written(write: impl FnOnce(&mut RtcpWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut RtcpWriter::new(&mut out));
    assert_eq!(out.len() % 4, 0);
    out
}

fn only(bytes: &[u8]) -> RtcpPacket<'_> {
    let mut packets = RtcpPackets::new(bytes);
    let packet = packets.next().unwrap();
    assert_eq!((packets.next(), packets.malformed()), (None, 0));
    packet
}

const BLOCK: ReportBlock = ReportBlock {
    ssrc: 5,
    fraction_lost: 12,
    cumulative_lost: -3,
    highest_sequence: 0x0001_0005,
    jitter: 77,
    last_sr: 0x1234_5678,
    delay_since_last_sr: 65_536,
};

#[test]
fn a_sender_report_reads_back() {
    let info = SenderInfo { ntp: 0x0102_0304_0506_0708, rtp_timestamp: 90, packets: 10, octets: 1000 };
    let bytes = written(|writer| writer.sender_report(1, &info, &[BLOCK]));
    let RtcpPacket::SenderReport(report) = only(&bytes) else { panic!() };
    assert_eq!((report.ssrc, report.info), (1, info));
    assert_eq!(report.reports.iter().collect::<Vec<_>>(), [BLOCK]);
}

#[test]
fn more_blocks_than_one_packet_counts_go_into_several() {
    let blocks = [BLOCK; 70];
    let bytes = written(|writer| writer.receiver_report(1, &blocks));
    let counts: Vec<usize> = RtcpPackets::new(&bytes)
        .map(|packet| match packet {
            RtcpPacket::ReceiverReport(report) => report.reports.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [31, 31, 8]);
    let bytes = written(|writer| writer.receiver_report(1, &[]));
    assert_eq!(bytes, [0x80, 201, 0, 1, 0, 0, 0, 1]);
}

#[test]
fn the_cumulative_loss_is_clamped_to_24_bits() {
    for (lost, read) in [(i32::MAX, 0x7f_ffff), (i32::MIN, -0x80_0000), (-1, -1)] {
        let bytes =
            written(|writer| writer.receiver_report(1, &[ReportBlock { cumulative_lost: lost, ..BLOCK }]));
        let RtcpPacket::ReceiverReport(report) = only(&bytes) else { panic!() };
        assert_eq!(report.reports.iter().next().unwrap().cumulative_lost, read);
    }
}

#[test]
fn source_descriptions_of_every_text_length_read_back() {
    for len in 0..9 {
        let cname = &"canonical"[..len];
        let sources =
            [SdesSource { ssrc: 1, cname, mid: Some("0") }, SdesSource { ssrc: 2, cname, mid: None }];
        let bytes = written(|writer| writer.source_description(&sources));
        let RtcpPacket::SourceDescription(description) = only(&bytes) else { panic!() };
        let chunks: Vec<_> = description.chunks().collect();
        assert_eq!(chunks.iter().map(|chunk| chunk.ssrc).collect::<Vec<_>>(), [1, 2]);
        let items: Vec<_> = chunks[0].items().collect();
        assert_eq!(items, [SdesItem::Cname(cname), SdesItem::Mid("0")]);
    }
}

#[test]
fn a_long_name_is_cut_at_a_character() {
    let cname = "é".repeat(200);
    let sources = [SdesSource { ssrc: 1, cname: &cname, mid: None }];
    let bytes = written(|writer| writer.source_description(&sources));
    let RtcpPacket::SourceDescription(description) = only(&bytes) else { panic!() };
    let item = description.chunks().next().unwrap().items().next().unwrap();
    assert_eq!(item, SdesItem::Cname(&cname[..254]));
}

#[test]
fn goodbyes_read_back_with_and_without_a_reason() {
    let bytes = written(|writer| writer.bye(&[1, 2]));
    let RtcpPacket::Bye(bye) = only(&bytes) else { panic!() };
    assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [1, 2]);
    let with_reason = [0x81, 203, 0, 2, 0, 0, 0, 9, 3, b'e', b'n', b'd'];
    let RtcpPacket::Bye(bye) = only(&with_reason) else { panic!() };
    assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [9]);
}

#[test]
fn nacks_pack_seventeen_numbers_into_one_pair() {
    let sequences: Vec<u16> = (0..17).map(|n| 65_530_u16.wrapping_add(n)).collect();
    let bytes = written(|writer| writer.nack(1, 2, &sequences));
    assert_eq!(bytes.len(), 16);
    let RtcpPacket::Nack(nack) = only(&bytes) else { panic!() };
    assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
    assert_eq!(nack.sequences().collect::<Vec<_>>(), sequences);
    assert!(written(|writer| writer.nack(1, 2, &[])).is_empty());
}

#[test]
fn key_frame_requests_read_back() {
    let bytes = written(|writer| {
        writer.pli(1, 2);
        writer.fir(1, 3, 7);
    });
    let packets: Vec<_> = RtcpPackets::new(&bytes).collect();
    assert_eq!(packets[0], RtcpPacket::Pli(Pli { sender_ssrc: 1, media_ssrc: 2 }));
    let RtcpPacket::Fir(fir) = packets[1] else { panic!() };
    assert_eq!(fir.entries().collect::<Vec<_>>(), [FirEntry { ssrc: 3, sequence: 7 }]);
}

#[test]
fn a_bitrate_keeps_18_significant_bits() {
    for bitrate_bps in [0, 1, 262_143, 262_144, 1_500_000, 123_456_789_012, u64::MAX] {
        let bytes = written(|writer| writer.remb(1, bitrate_bps, &[5, 6]));
        let RtcpPacket::Remb(remb) = only(&bytes) else { panic!() };
        let error = bitrate_bps - remb.bitrate_bps;
        assert!(error <= bitrate_bps >> 17, "{bitrate_bps} became {}", remb.bitrate_bps);
        assert_eq!(remb.ssrcs().collect::<Vec<_>>(), [5, 6]);
    }
}

#[test]
fn an_absurd_bitrate_saturates() {
    let mut bytes = written(|writer| writer.remb(1, 1, &[]));
    bytes[17..20].fill(0xff);
    let RtcpPacket::Remb(remb) = only(&bytes) else { panic!() };
    assert_eq!(remb.bitrate_bps, u64::MAX);
}

#[test]
fn extended_reports_read_back_and_other_blocks_are_skipped() {
    let mut bytes = written(|writer| {
        writer.receiver_reference_time(1, 0x0102_0304_0506_0708);
        writer.dlrr(2, 1, 0x0304_0506, 99);
    });
    let blocks: Vec<_> = RtcpPackets::new(&bytes)
        .flat_map(|packet| match packet {
            RtcpPacket::ExtendedReport(report) => report.blocks().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(blocks[0], XrBlock::ReceiverReferenceTime { ntp: 0x0102_0304_0506_0708 });
    let XrBlock::Dlrr(dlrr) = blocks[1] else { panic!() };
    assert_eq!(dlrr.entries().collect::<Vec<_>>(), [(1, 0x0304_0506, 99)]);
    bytes[8] = 42;
    let RtcpPacket::ExtendedReport(report) = RtcpPackets::new(&bytes).next().unwrap() else { panic!() };
    assert_eq!(report.blocks().count(), 0);
}

#[test]
fn unknown_packets_are_skipped_and_broken_ones_counted() {
    let mut bytes = vec![0x80, 204, 0, 1, 0, 0, 0, 1]; // APP
    bytes.extend([0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'A', b'B', b'C', b'D']); // other AFB
    bytes.extend([0x82, 201, 0, 1, 0, 0, 0, 1]); // RR that lacks its two blocks
    bytes.extend(written(|writer| writer.pli(1, 2)));
    bytes.extend([0x80, 201, 0, 9]); // longer than what is there
    let mut packets = RtcpPackets::new(&bytes);
    assert!(matches!(packets.next(), Some(RtcpPacket::Pli(_))));
    assert_eq!(packets.next(), None);
    assert_eq!(packets.malformed(), 2);
}

#[test]
fn padding_is_cut_off_and_checked() {
    let mut bytes = vec![0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    assert!(matches!(only(&bytes), RtcpPacket::Pli(_)));
    *bytes.last_mut().unwrap() = 13;
    let mut packets = RtcpPackets::new(&bytes);
    assert_eq!((packets.next(), packets.malformed()), (None, 1));
}

#[test]
fn transport_feedback_of_a_hand_checked_message_reads_as_meant() {
    // Base 10, 14 packets, reference time 1 (64 ms), message 7: a run of 3 small deltas, a two-bit vector (large, none,
    // small, four times none), a run of 4 not received.
    let bytes = [
        0x8f,
        205,
        0,
        7,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        2, // header, SSRCs
        0,
        10,
        0,
        14,
        0,
        0,
        1,
        7, // base, count, reference time, feedback count
        0x20,
        0x03,
        0b1110_0001,
        0,
        0x00,
        0x04, // chunks
        4,
        8,
        0, // small deltas: 1 ms, 2 ms, 0
        0xff,
        0xfc, // large delta: -1 ms
        40,   // small delta: 10 ms
    ];
    let RtcpPacket::TransportFeedback(feedback) = only(&bytes) else { panic!() };
    assert_eq!((feedback.base_sequence, feedback.packet_count), (10, 14));
    assert_eq!((feedback.reference_time, feedback.feedback_count), (1, 7));
    let arrived: Vec<_> =
        feedback.statuses().filter_map(|(number, ticks)| ticks.map(|ticks| (number, ticks))).collect();
    assert_eq!(arrived, [(10, 260), (11, 268), (12, 268), (13, 264), (15, 304)]);
    assert_eq!(
        feedback.statuses().map(|(number, _)| number).collect::<Vec<_>>(),
        (10..24).collect::<Vec<_>>()
    );
}

#[test]
fn transport_feedback_without_its_chunks_or_deltas_is_malformed() {
    for packet_count in [1, 20, 0xffff_u16] {
        let mut body = vec![0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 10];
        body.extend(packet_count.to_be_bytes());
        body.extend([0, 0, 1, 7, 0x20 | (packet_count >> 8).min(0x1f) as u8, packet_count as u8, 1, 1]);
        let mut packets = RtcpPackets::new(&body);
        let found = packets.next();
        assert_eq!(found.is_some(), packet_count == 1, "{packet_count}");
    }
}

proptest! {
    #[test]
    fn nacks_of_any_numbers_read_back(start in any::<u16>(), steps in prop::collection::vec(1_u16..40, 1..100)) {
        let sequences: Vec<u16> = steps
            .iter()
            .scan(start, |sequence, step| {
                *sequence = sequence.wrapping_add(*step);
                Some(*sequence)
            })
            .collect();
        let bytes = written(|writer| writer.nack(1, 2, &sequences));
        let RtcpPacket::Nack(nack) = only(&bytes) else { panic!() };
        prop_assert_eq!(nack.sequences().collect::<Vec<_>>(), sequences);
    }
}
