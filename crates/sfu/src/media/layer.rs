//! One layer of a published track, and the stream that carries it at present.

use super::arrivals::Arrivals;
use super::awaited::Awaited;
use super::compact::Compact;
use super::keyframe::KeyFrameRequests;
use super::timers::Alarm;
use fanlight_base::{Mono, Now};
use fanlight_rtp::NackGenerator;
use fanlight_rtp::reports::{ReceiveStatistics, RtpClock};
use fanlight_rtp::rtcp::{ReportBlock, SenderInfo};

/// A spatial layer; without simulcast the only one.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) spatial: u8,
    /// Empty without simulcast.
    pub(super) rid: String,
    pub(super) stream: Option<Stream>,
    /// SSRC of the layer's RTX.
    pub(super) repair_ssrc: Option<u32>,
    pub(super) active: bool,
    pub(super) last_packet: Mono,
    /// Frames that other layers began since the last packet of this one.
    pub(super) other_frames: u32,
    pub(super) requests: KeyFrameRequests,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) retransmitted: u64,
    pub(super) frames: u64,
}

/// What comes under one SSRC (and its RTX).
#[derive(Debug)]
pub(super) struct Stream {
    /// Names this stream within the track; another SSRC of the layer is another source.
    pub(super) source: u32,
    pub(super) ssrc: u32,
    /// Timestamp of the latest packet.
    pub(super) timestamp: Option<u32>,
    /// Timestamp of the latest key frame.
    pub(super) key_frame_timestamp: Option<u32>,
    pub(super) arrivals: Arrivals,
    pub(super) compact: Compact,
    pub(super) awaited: Awaited,
    pub(super) nack: Option<NackGenerator>,
    pub(super) nack_alarm: Alarm,
    pub(super) stats: ReceiveStatistics,
    pub(super) clock: Option<RtpClock>,
    pub(super) clock_rate: u32,
}

impl Layer {
    pub(super) fn new(spatial: u8) -> Self {
        Self {
            spatial,
            rid: String::new(),
            stream: None,
            repair_ssrc: None,
            active: false,
            last_packet: Mono::default(),
            other_frames: 0,
            requests: KeyFrameRequests::default(),
            packets: 0,
            bytes: 0,
            retransmitted: 0,
            frames: 0,
        }
    }
}

impl Stream {
    pub(super) fn new(source: u32, ssrc: u32, clock_rate: u32, nack: bool) -> Self {
        Self {
            source,
            ssrc,
            timestamp: None,
            key_frame_timestamp: None,
            arrivals: Arrivals::default(),
            compact: Compact::default(),
            awaited: Awaited::default(),
            nack: nack.then(NackGenerator::new),
            nack_alarm: Alarm::default(),
            stats: ReceiveStatistics::new(clock_rate),
            clock: None,
            clock_rate,
        }
    }

    /// A packet of the SSRC itself came, not a retransmission.
    pub(super) fn note_original(&mut self, now: Now, sequence: u64, timestamp: u32) {
        self.stats.handle_packet(now.mono(), sequence, timestamp);
    }

    /// A sender report of the publisher came.
    pub(super) fn note_report(&mut self, now: Now, info: &SenderInfo) {
        self.stats.handle_sender_report(now.mono(), info);
        self.clock = Some(RtpClock::from_sender_info(info, self.clock_rate));
    }

    /// What the publisher is told of this stream.
    pub(super) fn report(&mut self, now: Now) -> ReportBlock {
        self.stats.report_block(now.mono(), self.ssrc)
    }

    /// Sequence numbers asked for again so far.
    pub(super) fn nacks(&self) -> u64 {
        self.nack.as_ref().map_or(0, |nack| nack.counters().requested)
    }

    pub(super) fn jitter_us(&self) -> u64 {
        self.stats.jitter_us()
    }
}
