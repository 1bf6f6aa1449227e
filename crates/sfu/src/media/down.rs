//! One subscription: the state that every packet of a track meets once per subscriber.

use super::clock;
use super::forward::rewrite::{Align, Numbers, Rewrite, Stale};
use super::forward::select::{Choice, LayerSet, Select, Unwanted};
use super::header::{HEADER_BYTES_MAX, Template, Written};
use super::limits::{HISTORY_PACKETS, LAYERS_MAX, ROUND_TRIP_DEFAULT};
use super::packet::{Packet, Prefix, Record, vp8_numbers, vp8_word};
use super::spec::{DownKey, Subscribe, SubscribeCodec};
use super::transports::{TransportId, Transports};
use fanlight_base::{Mono, Now, SendBatch};
use fanlight_rtp::payload::vp8::Vp8Descriptor;
use fanlight_rtp::reports::RtpClock;
use fanlight_rtp::{HeaderFields, History, HistoryEntry, Resend, Slab};
use fanlight_transport::RtpOut;
use std::time::Duration;

/// What sending needs beside the subscription itself.
pub(super) struct Outbound<'a> {
    pub(super) now: Now,
    pub(super) transports: &'a mut Transports,
    pub(super) batch: &'a mut SendBatch,
    pub(super) header: &'a mut [u8; HEADER_BYTES_MAX],
}

/// What a track knows that a change of layer needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceTimes {
    pub(super) clock_rate: u32,
    /// By layer: identity and sender report of its stream.
    pub(super) by_layer: [(u32, Option<RtpClock>); LAYERS_MAX],
}

/// Why a packet did not go to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The subscriber wants nothing now.
    Disabled,
    /// Another layer is forwarded.
    OtherLayer,
    /// Another layer is forwarded, and a key frame of this one waited for.
    NextLayer,
    /// No key frame yet.
    NoKeyFrame,
    /// The subscriber's transport is not connected.
    NotConnected,
    /// Its codec is not one of the subscriber's.
    Codec,
    /// Older than the last change of layer.
    Stale,
    /// The transport could not seal it.
    Unsendable,
}

/// Number of reasons.
pub(super) const REASONS: usize = Dropped::ALL.len();

impl Dropped {
    /// In the order of the enum.
    pub(super) const ALL: [Self; 8] = [
        Self::Disabled,
        Self::OtherLayer,
        Self::NextLayer,
        Self::NoKeyFrame,
        Self::NotConnected,
        Self::Codec,
        Self::Stale,
        Self::Unsendable,
    ];

    /// Whether the subscription waits for a key frame of the packet's layer.
    pub(super) const fn awaits_key_frame(self) -> bool {
        matches!(self, Self::NoKeyFrame | Self::NextLayer)
    }

    #[cfg(test)]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::OtherLayer => "other_layer",
            Self::NextLayer => "next_layer",
            Self::NoKeyFrame => "no_key_frame",
            Self::NotConnected => "not_connected",
            Self::Codec => "codec",
            Self::Stale => "stale",
            Self::Unsendable => "unsendable",
        }
    }
}

/// What one layer brought to a subscriber.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ForwardedLayer {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) retransmitted: u64,
    pub(super) retransmitted_bytes: u64,
}

/// Counters of a subscription; those of every packet first.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct DownCounters {
    pub(super) header_bytes: u64,
    pub(super) key_frames: u64,
    pub(super) layers: [ForwardedLayer; LAYERS_MAX],
    pub(super) dropped: [u64; REASONS],
    /// Packets that wait for their key frame: dropped when another one comes, forwarded when it was only late.
    pub(super) waiting: u64,
    /// How many of the dropped ones waited for the latest key frame.
    pub(super) waited: u64,
    pub(super) nacks: u64,
    pub(super) plis: u64,
    pub(super) firs: u64,
    pub(super) lost: u64,
    pub(super) jitter_us: u64,
    pub(super) rtt_us: u64,
}

impl DownCounters {
    /// Packets and payload bytes of media.
    pub(super) fn sent(&self) -> (u64, u64) {
        self.layers
            .iter()
            .fold((0, 0), |(packets, bytes), layer| (packets + layer.packets, bytes + layer.bytes))
    }
}

/// RTX towards the subscriber: a stream of its own (RFC 4588).
#[derive(Debug, Clone, Copy)]
pub(super) struct Rtx {
    pub(super) ssrc: u32,
    /// Extended sequence number of the next packet.
    pub(super) next: u64,
}

/// A subscription to a track.
///
/// The fields stand in memory as they are written here: what every packet needs comes first and together, because it is
/// cold in a room of hundreds.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Down {
    pub(super) select: Select,
    pub(super) transport: TransportId,
    ssrc: u32,
    /// The entry of `codecs` that the last packet used.
    codec: SubscribeCodec,
    with_mid: bool,
    sent_any: bool,
    rewrite: Rewrite,
    template: Template,
    history: Option<History>,
    pub(super) counters: DownCounters,
    rtx: Option<Rtx>,
    pub(super) key: DownKey,
    codecs: Vec<SubscribeCodec>,
    pub(super) cname: String,
}

/// A payload type no packet has.
const NO_CODEC: SubscribeCodec =
    SubscribeCodec { published: u8::MAX, payload_type: 0, rtx_payload_type: None, strip_red: false };

impl Down {
    /// `before` are the numbers the stream follows; `rtx_next` is the first number of its RTX.
    pub(super) fn new(
        key: DownKey,
        subscribe: &Subscribe,
        active: LayerSet,
        before: Numbers,
        rtx_next: u64,
    ) -> Self {
        let mut down = Self {
            select: Select::new(subscribe.enabled, subscribe.max_spatial, active),
            transport: subscribe.transport,
            ssrc: subscribe.ssrc,
            codec: NO_CODEC,
            with_mid: true,
            sent_any: false,
            rewrite: Rewrite::new(before),
            template: Template::new(&subscribe.extensions, &subscribe.mid),
            history: None,
            rtx: subscribe.rtx_ssrc.map(|ssrc| Rtx { ssrc, next: rtx_next }),
            counters: DownCounters::default(),
            key,
            codecs: Vec::new(),
            cname: String::new(),
        };
        down.update(subscribe);
        down
    }

    /// Takes over what was negotiated anew; SSRCs and numbers stay.
    pub(super) fn update(&mut self, subscribe: &Subscribe) {
        self.template = Template::new(&subscribe.extensions, &subscribe.mid);
        self.codecs.clone_from(&subscribe.codecs);
        self.cname.clone_from(&subscribe.cname);
        self.codec = NO_CODEC;
        let repairs = self.rtx.is_some() && self.codecs.iter().any(|codec| codec.rtx_payload_type.is_some());
        if !repairs {
            self.history = None;
        } else if self.history.is_none() {
            self.history = Some(History::new(HISTORY_PACKETS));
        }
    }

    /// Whether lost packets can be sent again: there is RTX.
    pub(super) fn can_resend(&self) -> bool {
        self.history.is_some()
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub(super) fn rtx(&self) -> Option<Rtx> {
        self.rtx
    }

    /// Numbers of the latest packet sent.
    pub(super) fn last(&self) -> Numbers {
        self.rewrite.last()
    }

    /// The identity of the source being forwarded, what is added to its timestamps, and when its last packet left.
    pub(super) fn source(&self) -> Option<(u32, u32, Mono)> {
        self.rewrite.source()
    }

    /// Whether what is forwarded now began with this packet.
    pub(super) fn began_with(&self, source: u32, sequence: u64) -> bool {
        self.rewrite.began_with(source, sequence)
    }

    /// The subscriber has reported on this SSRC: it knows where it belongs without the mid.
    pub(super) fn bound(&mut self) {
        self.with_mid = false;
    }

    /// Forwards a packet, or says why not; `Ok(true)` for the first one ever.
    #[inline]
    pub(super) fn forward(
        &mut self,
        out: &mut Outbound<'_>,
        packet: &Packet<'_>,
        times: &SourceTimes,
    ) -> Result<bool, Dropped> {
        match self.select.choose(packet.layer, packet.entry) {
            Choice::Forward => {}
            Choice::Switch => self.switch(out, packet, times)?,
            Choice::Drop(unwanted) => return self.forward_late(out, packet, unwanted),
        }
        let numbers = self
            .rewrite
            .next(out.now.mono(), packet.source, &packet.numbers)
            .map_err(|Stale| Dropped::Stale)?;
        self.send(out, packet, &numbers)
    }

    /// A packet of a layer that is not forwarded any more may still fill a gap from before the change.
    fn forward_late(
        &mut self,
        out: &mut Outbound<'_>,
        packet: &Packet<'_>,
        unwanted: Unwanted,
    ) -> Result<bool, Dropped> {
        if packet.late
            && matches!(unwanted, Unwanted::OtherLayer | Unwanted::NextLayer)
            && let Ok(numbers) = self.rewrite.late(packet.source, &packet.numbers)
        {
            return self.send(out, packet, &numbers);
        }
        Err(match unwanted {
            Unwanted::Disabled => Dropped::Disabled,
            Unwanted::OtherLayer => Dropped::OtherLayer,
            Unwanted::NextLayer => Dropped::NextLayer,
            Unwanted::NoKeyFrame => Dropped::NoKeyFrame,
        })
    }

    #[cold]
    fn switch(
        &mut self,
        out: &mut Outbound<'_>,
        packet: &Packet<'_>,
        times: &SourceTimes,
    ) -> Result<(), Dropped> {
        let connected = out.transports.get(self.transport).is_some_and(|transport| transport.is_connected());
        if !connected {
            self.select.restart();
            return Err(Dropped::NotConnected);
        }
        if !self.codecs.iter().any(|codec| codec.published == packet.payload_type) {
            self.select.restart();
            return Err(Dropped::Codec);
        }
        let align = match self.rewrite.source() {
            Some((source, ..)) if source == packet.source => Align::Same,
            Some((source, ..)) => times.align(source, packet.source),
            None => Align::Unknown,
        };
        self.counters.settle();
        self.rewrite.switch(out.now.mono(), packet.source, &packet.numbers, align, times.clock_rate);
        Ok(())
    }

    #[inline]
    fn send(
        &mut self,
        out: &mut Outbound<'_>,
        packet: &Packet<'_>,
        numbers: &Numbers,
    ) -> Result<bool, Dropped> {
        if self.codec.published != packet.payload_type {
            self.choose_codec(packet.payload_type)?;
        }
        let fields = HeaderFields {
            marker: packet.marker,
            has_padding: false,
            payload_type: self.codec.payload_type,
            sequence: numbers.sequence as u16,
            timestamp: numbers.timestamp,
            ssrc: self.ssrc,
        };
        let written = self
            .template
            .write(out.header, &fields, self.with_mid, packet.passed)
            .ok_or(Dropped::Unsendable)?;
        let (mut word, mut prefix) = (0, Prefix::default());
        let payload = if let Some(descriptor) = &packet.vp8 {
            word = vp8_word(numbers.vp8);
            prefix.add_vp8(packet.payload, descriptor, numbers.vp8)
        } else if self.codec.strip_red {
            packet.red_primary().ok_or(Dropped::Codec)?
        } else {
            packet.payload
        };
        let payload_len = (prefix.bytes().len() + payload.len()) as u64;
        seal(out, self.transport, &written, (&prefix, payload), numbers.sequence)?;
        if let Some(history) = &mut self.history {
            let now = out.now.mono();
            let layer = u32::from(packet.layer) << LAYER_SHIFT;
            let entry = HistoryEntry::new(
                now,
                numbers.sequence,
                numbers.timestamp,
                packet.marker,
                packet.payload_type,
                packet.slot,
            );
            history.push(now, entry.with_rewrite(word | layer));
        }
        self.count(packet, payload_len, written.len as u64);
        let first = !self.sent_any;
        self.sent_any = true;
        Ok(first)
    }

    #[inline]
    fn count(&mut self, packet: &Packet<'_>, payload_len: u64, header_len: u64) {
        self.counters.header_bytes += header_len;
        if let Some(layer) = self.counters.layers.get_mut(usize::from(packet.layer)) {
            layer.packets += 1;
            layer.bytes += payload_len;
            layer.frames += u64::from(packet.frame_end);
        }
        self.counters.key_frames += u64::from(packet.key_frame);
    }

    #[cold]
    fn choose_codec(&mut self, payload_type: u8) -> Result<(), Dropped> {
        let codec = self.codecs.iter().find(|codec| codec.published == payload_type).ok_or(Dropped::Codec)?;
        self.codec = *codec;
        Ok(())
    }

    /// Answers a NACK for one packet, if it is still kept in the slab.
    pub(super) fn resend(&mut self, out: &mut Outbound<'_>, sequence: u16, slab: &Slab) -> bool {
        let rtt = match self.counters.rtt_us {
            0 => ROUND_TRIP_DEFAULT,
            us => Duration::from_micros(us),
        };
        let (Some(history), Some(rtx)) = (&mut self.history, &mut self.rtx) else { return false };
        let Resend::Packet(entry) = history.resend(out.now.mono(), sequence, rtt) else { return false };
        let codec = self.codecs.iter().find(|codec| codec.published == entry.payload_type());
        let Some(payload_type) = codec.and_then(|codec| codec.rtx_payload_type) else { return false };
        let Some(record) = slab.get(entry.payload).and_then(Record::read) else { return false };
        let mut prefix = Prefix::of_resent(entry.sequence);
        let payload = match (vp8_numbers(entry.rewrite), Vp8Descriptor::parse(record.payload)) {
            (Some(numbers), Some(descriptor)) => prefix.add_vp8(record.payload, &descriptor, numbers),
            _ => record.payload,
        };
        let fields = HeaderFields {
            marker: entry.marker(),
            has_padding: false,
            payload_type,
            sequence: rtx.next as u16,
            timestamp: entry.timestamp,
            ssrc: rtx.ssrc,
        };
        let Some(written) = self.template.write(out.header, &fields, false, record.passed) else {
            return false;
        };
        let number = rtx.next;
        rtx.next += 1;
        if seal(out, self.transport, &written, (&prefix, payload), number).is_err() {
            return false;
        }
        let layer = (entry.rewrite >> LAYER_SHIFT) as usize;
        if let Some(layer) = self.counters.layers.get_mut(layer) {
            layer.retransmitted += 1;
            layer.retransmitted_bytes += record.payload.len() as u64;
        }
        true
    }
}

/// The layer stands in the upper bits of a history entry's word, above what VP8 needs.
const LAYER_SHIFT: u32 = 30;

impl SourceTimes {
    /// Nothing is known, or needed: the packet cannot begin a source.
    pub(super) const NONE: Self = Self { clock_rate: 1, by_layer: [(u32::MAX, None); LAYERS_MAX] };

    fn align(&self, old: u32, new: u32) -> Align {
        let find = |source| self.by_layer.iter().find(|(id, _)| *id == source).and_then(|(_, time)| *time);
        match (find(old), find(new)) {
            (Some(old), Some(new)) => Align::Delta(clock::delta(&new, &old)),
            _ => Align::Unknown,
        }
    }
}

#[inline]
fn seal(
    out: &mut Outbound<'_>,
    transport: TransportId,
    written: &Written,
    (prefix, payload): (&Prefix, &[u8]),
    extended_sequence: u64,
) -> Result<(), Dropped> {
    let transport = out.transports.get_mut(transport).ok_or(Dropped::NotConnected)?;
    let rtp = RtpOut {
        header: out.header.get(..written.len).unwrap_or_default(),
        prefix: prefix.bytes(),
        payload,
        padding_bytes: 0,
        extended_sequence,
        transport_cc_offset: written.transport_cc_offset,
        abs_send_time_offset: written.abs_send_time_offset,
    };
    match transport.send_rtp(out.now, out.batch, &rtp) {
        Some(_) => Ok(()),
        None => Err(Dropped::Unsendable),
    }
}
