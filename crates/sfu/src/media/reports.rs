//! Sender reports to subscribers and receiver reports to publishers (RFC 3550 §6.4), all of a transport at one time.

use super::due::send;
use super::limits::{
    RECEIVER_REPORT_PERIOD, RTCP_BYTES_MAX, SENDER_REPORT_PERIOD, SENDER_REPORT_PERIOD_EARLY,
    SENDER_REPORTS_EARLY,
};
use super::timers::Timers;
use super::track::Track;
use super::{RoomMedia, Task, TransportId, Transports};
use fanlight_base::{Mono, Now, SendBatch};
use fanlight_rtp::reports::RtpClock;
use fanlight_rtp::rtcp::{RtcpWriter, SdesSource, SenderInfo};

/// Bytes of a sender report without blocks, and the most its CNAME adds (a chunk of 4 + 2 + 255 + padding).
const SENDER_REPORT_BYTES: usize = 28;

impl RoomMedia {
    pub(super) fn send_reports(
        &mut self,
        now: Now,
        transports: &mut Transports,
        when: Mono,
        id: TransportId,
        batch: &mut SendBatch,
    ) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if !Timers::<Task>::take(&mut peer.reports_alarm, when) {
            return;
        }
        if peer.published.is_empty() && peer.downs.is_empty() {
            return;
        }
        let with_sender_reports = now.mono() >= peer.next_sender_report && !peer.downs.is_empty();
        if with_sender_reports {
            let early = peer.sender_reports < SENDER_REPORTS_EARLY;
            let period = if early { SENDER_REPORT_PERIOD_EARLY } else { SENDER_REPORT_PERIOD };
            peer.sender_reports = peer.sender_reports.saturating_add(1);
            peer.next_sender_report = now.mono() + period;
        }
        let next = if peer.published.is_empty() {
            peer.next_sender_report
        } else {
            now.mono() + RECEIVER_REPORT_PERIOD
        };
        self.timers.arm(&mut peer.reports_alarm, next, Task::Reports(id));
        self.report_received(now, transports, id, batch);
        if with_sender_reports {
            self.report_sent(now, transports, id, batch);
        }
    }

    /// Receiver reports about everything that comes on the transport.
    fn report_received(
        &mut self,
        now: Now,
        transports: &mut Transports,
        id: TransportId,
        batch: &mut SendBatch,
    ) {
        let Some(peer) = self.peers.get(id) else { return };
        self.blocks.clear();
        let rtt = transports.get(id).and_then(|transport| transport.round_trip()).unwrap_or_default();
        let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        for key in &peer.published {
            let Some(track) = self.tracks.get_mut(key.0) else { continue };
            track.rtt_us = rtt_us;
            let streams = track.layers.iter_mut().filter_map(|layer| layer.stream.as_mut());
            self.blocks.extend(
                streams.filter(|stream| stream.stats.received() > 0).map(|stream| stream.report(now)),
            );
        }
        let blocks_max = (RTCP_BYTES_MAX - 64) / 24;
        for blocks in self.blocks.chunks(blocks_max) {
            self.rtcp.clear();
            let mut writer = RtcpWriter::new(&mut self.rtcp);
            writer.receiver_report(self.our_ssrc, blocks);
            writer.source_description(&[SdesSource {
                ssrc: self.our_ssrc,
                cname: &self.our_cname,
                mid: None,
            }]);
            send(transports, id, &self.rtcp, batch);
        }
    }

    /// Sender reports of everything that goes out on the transport, several in a compound.
    fn report_sent(&mut self, now: Now, transports: &mut Transports, id: TransportId, batch: &mut SendBatch) {
        let Some(peer) = self.peers.get(id) else { return };
        let downs = peer.downs.iter().filter_map(|down| self.downs.get(down.0));
        let mut places: Vec<_> = downs.copied().collect();
        places.reverse();
        while !places.is_empty() {
            self.rtcp.clear();
            let mut sources: Vec<SdesSource<'_>> = Vec::new();
            let mut bytes = 0;
            while let Some(place) = places.last().copied() {
                let track = self.tracks.get(place.track.0);
                let found = track.and_then(|track| Some((track, track.downs.get(place.index)?)));
                let Some((track, down)) = found else {
                    places.pop();
                    continue;
                };
                let more = SENDER_REPORT_BYTES + 12 + down.cname.len().min(255);
                if bytes > 0 && bytes + more > RTCP_BYTES_MAX {
                    break;
                }
                places.pop();
                let ntp = self.peers.get(track.transport).and_then(|publisher| publisher.clock.ntp(now));
                let Some(info) = sender_info(now, track, place.index, ntp) else { continue };
                bytes += more;
                RtcpWriter::new(&mut self.rtcp).sender_report(down.ssrc(), &info, &[]);
                sources.push(SdesSource { ssrc: down.ssrc(), cname: &down.cname, mid: None });
            }
            RtcpWriter::new(&mut self.rtcp).source_description(&sources);
            send(transports, id, &self.rtcp, batch);
        }
    }
}

/// What a subscription's sender report says now: the media time from the publisher's own report moved to our clock, so
/// that its streams keep their places to each other; without one from the arrival of the latest packet.
fn sender_info(now: Now, track: &Track, index: usize, publisher_ntp: Option<u64>) -> Option<SenderInfo> {
    let down = track.downs.get(index)?;
    let (source, offset, last_at) = down.source()?;
    let streams = track.layers.iter().filter_map(|layer| layer.stream.as_ref());
    let clock = streams.filter(|stream| stream.source == source).find_map(|stream| stream.clock);
    let rtp_timestamp = match (clock, publisher_ntp) {
        (Some(clock), Some(ntp)) => clock.timestamp_at(ntp).wrapping_add(offset),
        _ => {
            let last =
                RtpClock { clock_rate_hz: track.clock_rate(), timestamp: down.last().timestamp, ntp: 0 };
            let elapsed = now.mono().since(last_at).as_nanos().min(u128::from(u32::MAX) * 1_000_000_000);
            last.timestamp_at(u64::try_from((elapsed << 32) / 1_000_000_000).unwrap_or(u64::MAX))
        }
    };
    let (packets, octets) = down.counters.sent();
    // The fields are 32 bits wide and wrap around.
    Some(SenderInfo { ntp: now.ntp(), rtp_timestamp, packets: packets as u32, octets: octets as u32 })
}
