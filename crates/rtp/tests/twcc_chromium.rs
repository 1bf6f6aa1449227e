//! Transport-wide feedback as a real browser sends it: read as a second program reads it, and written again by ours.

use fanlight_base::Now;
use fanlight_rtp::rtcp::{RtcpPacket, RtcpPackets};
use fanlight_rtp::twcc::FeedbackBuilder;

const TICK_NS: u64 = 250_000;

/// Number and arrival in ticks.
type Status = (u16, Option<i64>);

/// One line of the recording.
struct Message {
    base: u16,
    count: u16,
    lost: usize,
    first: i64,
    last: i64,
    sum: i64,
    bytes: Vec<u8>,
}

fn messages(text: &str) -> Vec<Message> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read: Option<Vec<_>> = lines.map(message).collect();
    read.unwrap_or_default()
}

fn message(line: &str) -> Option<Message> {
    let mut words = line.split(' ');
    let mut number = || words.next()?.parse::<i64>().ok();
    let (base, count, lost, _large) = (number()?, number()?, number()?, number()?);
    let (first, last, sum) = (number()?, number()?, number()?);
    let hex = words.next()?;
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    Some(Message {
        base: base.try_into().ok()?,
        count: count.try_into().ok()?,
        lost: lost.try_into().ok()?,
        first,
        last,
        sum,
        bytes: bytes.collect::<Option<_>>()?,
    })
}

fn recording() -> Vec<Message> {
    messages(include_str!("data/twcc-chromium.txt"))
}

/// Statuses of all messages in these bytes, and the count of the last one.
fn read(bytes: &[u8]) -> (Vec<Status>, u8) {
    let mut packets = RtcpPackets::new(bytes);
    let (mut statuses, mut feedback_count) = (Vec::new(), 0);
    for packet in packets.by_ref() {
        let RtcpPacket::TransportFeedback(feedback) = packet else { panic!("{packet:?}") };
        assert_eq!(feedback.statuses().count(), usize::from(feedback.packet_count));
        assert_eq!(feedback.statuses().next().map(|status| status.0), Some(feedback.base_sequence));
        statuses.extend(feedback.statuses());
        feedback_count = feedback.feedback_count;
    }
    assert_eq!(packets.malformed(), 0);
    (statuses, feedback_count)
}

fn arrivals(statuses: &[Status]) -> impl Iterator<Item = i64> {
    statuses.iter().filter_map(|status| status.1)
}

#[test]
fn every_message_reads_as_a_second_program_read_it() {
    let recording = recording();
    assert!(recording.len() >= 20);
    for message in recording {
        let (statuses, _) = read(&message.bytes);
        let numbers = (0..message.count).map(|step| message.base.wrapping_add(step));
        assert!(statuses.iter().map(|status| status.0).eq(numbers));
        assert_eq!(statuses.iter().filter(|status| status.1.is_none()).count(), message.lost);
        assert_eq!(arrivals(&statuses).min(), Some(message.first));
        assert_eq!(arrivals(&statuses).max(), Some(message.last));
        assert_eq!(arrivals(&statuses).map(|ticks| ticks - message.first).sum::<i64>(), message.sum);
        // A receiver reports several times a second.
        assert!(message.last - message.first < 4_000);
    }
}

#[test]
fn messages_in_a_row_continue_each_other() {
    let mut before: Option<(u16, i64, u8)> = None;
    for message in &recording()[..8] {
        let (statuses, feedback_count) = read(&message.bytes);
        if let Some((next, time, count)) = before {
            assert_eq!(message.base, next);
            assert_eq!(feedback_count, count.wrapping_add(1));
            assert!(message.first >= time && message.first - time < 4_000);
        }
        let next = message.base.wrapping_add(message.count);
        before = Some((next, message.first, feedback_count));
        assert!(statuses.last().is_some_and(|status| status.1.is_some()), "it ends with a packet that came");
    }
}

#[test]
fn what_a_message_means_is_what_our_writer_writes_from_the_same_arrivals() {
    for message in recording() {
        let (statuses, _) = read(&message.bytes);
        let mut builder = FeedbackBuilder::new();
        let mut written = Vec::new();
        // The packet before makes a builder report what was lost in front of the first arrival.
        builder.handle_packet(at(message.first - 480), message.base.wrapping_sub(1), false);
        assert!(builder.poll(at(message.first - 480), 1, 2, &mut written));
        written.clear();
        let mut in_order: Vec<_> =
            statuses.iter().filter_map(|(number, ticks)| ticks.map(|ticks| (ticks, *number))).collect();
        in_order.sort_unstable();
        for (ticks, number) in in_order {
            builder.handle_packet(at(ticks), number, false);
        }
        while builder.poll(at(message.last + 400), 1, 2, &mut written) {}
        assert_eq!(read(&written).0, statuses, "base {}", message.base);
        assert!(written.len() <= message.bytes.len() + 4, "{} for {}", written.len(), message.bytes.len());
    }
}

fn at(ticks: i64) -> Now {
    Now { mono_ns: ticks as u64 * TICK_NS, unix_ns: 0 }
}
