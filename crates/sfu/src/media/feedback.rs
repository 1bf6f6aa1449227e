//! RTCP that comes in: from publishers about what they send, from subscribers about what they got.

use super::down::Outbound;
use super::limits::NACKS_PER_PACKET_MAX;
use super::peer::{Incoming, Outgoing};
use super::{DownKey, RoomMedia, TransportId, Transports};
use fanlight_base::{Now, SendBatch};
use fanlight_rtp::reports::round_trip;
use fanlight_rtp::rtcp::{Nack, ReportBlock, RtcpPacket, RtcpPackets, SenderReport};

impl RoomMedia {
    pub(super) fn receive_rtcp(
        &mut self,
        now: Now,
        transports: &mut Transports,
        from: TransportId,
        plain: &[u8],
        batch: &mut SendBatch,
    ) {
        if self.peers.get(from).is_none() {
            return;
        }
        self.flush(now, transports, batch);
        for packet in RtcpPackets::new(plain) {
            match packet {
                RtcpPacket::SenderReport(report) => {
                    self.note_sender_report(now, from, &report);
                    report.reports.iter().for_each(|block| self.note_block(now, from, &block));
                }
                RtcpPacket::ReceiverReport(report) => {
                    report.reports.iter().for_each(|block| self.note_block(now, from, &block));
                }
                RtcpPacket::Nack(nack) => self.answer_nack(now, transports, from, &nack, batch),
                RtcpPacket::Pli(pli) => {
                    if let Some(down) = self.media_down(from, pli.media_ssrc) {
                        self.note_lost_picture(now, transports, down, false, batch);
                    }
                }
                RtcpPacket::Fir(fir) => {
                    for entry in fir.entries() {
                        if let Some(down) = self.media_down(from, entry.ssrc) {
                            self.note_lost_picture(now, transports, down, true, batch);
                        }
                    }
                }
                RtcpPacket::Remb(remb) => {
                    if let Some(peer) = self.peers.get_mut(from) {
                        peer.remb_bps = Some(remb.bitrate_bps);
                    }
                }
                RtcpPacket::TransportFeedback(feedback) => {
                    self.feedback_results.clear();
                    if let Some(transport) = transports.get_mut(from) {
                        transport.handle_transport_feedback(&feedback, &mut self.feedback_results);
                    }
                }
                RtcpPacket::SourceDescription(_) | RtcpPacket::Bye(_) | RtcpPacket::ExtendedReport(_) => {}
            }
        }
    }

    fn note_sender_report(&mut self, now: Now, from: TransportId, report: &SenderReport<'_>) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        let Some(Incoming::Media { track, layer }) = peer.incoming(report.ssrc) else { return };
        // Senders without a clock say zero (RFC 3550 §6.4.1).
        if report.info.ntp == 0 {
            return;
        }
        let stream = self.tracks.get_mut(track.0).and_then(|track| track.layers.get_mut(usize::from(layer)));
        if let Some(stream) = stream.and_then(|layer| layer.stream.as_mut())
            && stream.ssrc == report.ssrc
        {
            peer.clock.sample(now, report.info.ntp);
            stream.note_report(now, &report.info);
        }
    }

    fn note_block(&mut self, now: Now, from: TransportId, block: &ReportBlock) {
        let Some(down) = self.media_down(from, block.ssrc) else { return };
        let Some(place) = self.downs.get(down.0) else { return };
        let Some(track) = self.tracks.get_mut(place.track.0) else { return };
        let clock_rate = u64::from(track.clock_rate());
        let Some(down) = track.downs.get_mut(place.index) else { return };
        down.bound();
        let counters = &mut down.counters;
        // A counter must not fall, and duplicates can make the reported one.
        counters.lost = counters.lost.max(u64::try_from(block.cumulative_lost).unwrap_or(0));
        counters.jitter_us = u64::from(block.jitter) * 1_000_000 / clock_rate;
        if let Some(rtt) = round_trip(now, block.last_sr, block.delay_since_last_sr) {
            counters.rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        }
    }

    fn answer_nack(
        &mut self,
        now: Now,
        transports: &mut Transports,
        from: TransportId,
        nack: &Nack<'_>,
        batch: &mut SendBatch,
    ) {
        let Some(key) = self.media_down(from, nack.media_ssrc) else { return };
        let Some(place) = self.downs.get(key.0) else { return };
        let down = self.tracks.get_mut(place.track.0).and_then(|track| track.downs.get_mut(place.index));
        let Some(down) = down else { return };
        let mut out = Outbound { now, transports, batch, header: &mut self.header };
        for sequence in nack.sequences().take(NACKS_PER_PACKET_MAX) {
            down.counters.nacks += 1;
            down.resend(&mut out, sequence, self.store.slab());
        }
    }

    /// A subscriber cannot decode any more: the layer it gets needs a key frame, or the one it waits for.
    fn note_lost_picture(
        &mut self,
        now: Now,
        transports: &mut Transports,
        key: DownKey,
        fir: bool,
        batch: &mut SendBatch,
    ) {
        let Some(place) = self.downs.get(key.0).copied() else { return };
        let Some(track) = self.tracks.get_mut(place.track.0) else { return };
        let Some(down) = track.downs.get_mut(place.index) else { return };
        if fir {
            down.counters.firs += 1;
        } else {
            down.counters.plis += 1;
        }
        let Some(layer) = down.select.current().or_else(|| down.select.wanted()) else { return };
        if track.kind == crate::model::Kind::Video && !track.muted {
            track.lost_pictures = track.lost_pictures.with(layer);
            self.ask_key_frames(now, transports, place.track, batch);
        }
    }

    /// The subscription that goes out on this transport under this SSRC.
    fn media_down(&self, from: TransportId, ssrc: u32) -> Option<DownKey> {
        match self.peers.get(from)?.outgoing(ssrc)? {
            Outgoing::Media(down) => Some(down),
            Outgoing::Repair(_) => None,
        }
    }
}
