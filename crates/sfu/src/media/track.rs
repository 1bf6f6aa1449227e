//! A published track: its codecs, its layers and the subscriptions to it.

use super::Events;
use super::awaited::Held;
use super::burst::Waiting;
use super::down::{Down, SourceTimes};
use super::forward::select::LayerSet;
use super::layer::Layer;
use super::limits::{
    CLOCK_RATE_MAX, CODEC_CHANGES_MAX, KEY_FRAME_HIGH, KEY_FRAME_LOW, LAYER_SILENCE, LAYERS_MAX,
    OTHER_FRAMES_MIN,
};
use super::packet::Format;
use super::spec::{MediaEvent, Publish, TrackKey};
use super::timers::Alarm;
use super::transports::TransportId;
use crate::model::Kind;
use fanlight_base::Mono;
use fanlight_events::{LayerCounters, TrackCounters};
use std::time::Duration;

/// One codec of the m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codec {
    pub(super) payload_type: u8,
    pub(super) rtx_payload_type: Option<u8>,
    pub(super) mime: String,
    pub(super) format: Format,
    pub(super) clock_rate: u32,
    pub(super) nack: bool,
}

/// Why a packet of a publisher was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It came before.
    Duplicate,
    /// So late that its place is not known any more.
    Forgotten,
    /// A payload type that was not negotiated.
    Codec,
    /// Padding or RTX that cannot be read.
    Malformed,
    /// The publisher has muted the track.
    Muted,
}

/// A published track.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) key: TrackKey,
    pub(super) transport: TransportId,
    pub(super) kind: Kind,
    pub(super) mid: String,
    pub(super) codecs: Vec<Codec>,
    /// Index of the codec of the latest packet.
    pub(super) codec: Option<usize>,
    codec_changes: u32,
    pub(super) layers: Vec<Layer>,
    pub(super) downs: Vec<Down>,
    /// Packets that are forwarded when the turn is drained.
    pub(super) burst: Vec<Waiting>,
    /// Subscriptions that have had them already.
    pub(super) served: usize,
    pub(super) muted: bool,
    /// Payloads are kept for retransmission.
    pub(super) keeps: bool,
    /// Round trip to the publisher in microseconds, 0 when not known.
    pub(super) rtt_us: u64,
    /// Sources so far.
    pub(super) sources: u32,
    /// A packet with media came.
    pub(super) begun: bool,
    /// Layers whose receivers cannot decode any more.
    pub(super) lost_pictures: LayerSet,
    pub(super) key_frame_alarm: Alarm,
    pub(super) layers_alarm: Alarm,
    pub(super) counters: TrackTotals,
}

/// Counters that belong to no layer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TrackTotals {
    pub(super) header_bytes: u64,
    pub(super) retransmitted_bytes: u64,
    pub(super) padding: u64,
    pub(super) padding_bytes: u64,
    pub(super) out_of_order: u64,
    pub(super) duplicates: u64,
    pub(super) forgotten: u64,
    pub(super) wrong_codec: u64,
    pub(super) malformed: u64,
    pub(super) muted: u64,
    pub(super) plis: u64,
    pub(super) firs: u64,
    pub(super) key_frames: u64,
    /// Of the streams that earlier SSRCs of its layers were.
    pub(super) lost_before: u64,
    pub(super) nacks_before: u64,
}

impl TrackTotals {
    /// Notes a packet that was not taken.
    pub(super) fn count(&mut self, refused: Refused) {
        let counter = match refused {
            Refused::Duplicate => &mut self.duplicates,
            Refused::Forgotten => &mut self.forgotten,
            Refused::Codec => &mut self.wrong_codec,
            Refused::Malformed => &mut self.malformed,
            Refused::Muted => &mut self.muted,
        };
        *counter += 1;
    }
}

impl Track {
    pub(super) fn new(key: TrackKey, publish: &Publish) -> Self {
        let mut track = Self {
            key,
            transport: publish.transport,
            kind: publish.kind,
            mid: String::new(),
            codecs: Vec::new(),
            codec: None,
            codec_changes: 0,
            layers: Vec::new(),
            downs: Vec::new(),
            burst: Vec::new(),
            served: 0,
            muted: false,
            keeps: false,
            rtt_us: 0,
            sources: 0,
            begun: false,
            lost_pictures: LayerSet::default(),
            key_frame_alarm: Alarm::default(),
            layers_alarm: Alarm::default(),
            counters: TrackTotals::default(),
        };
        track.update(publish);
        track
    }

    /// Takes over what was negotiated (anew).
    pub(super) fn update(&mut self, publish: &Publish) {
        let current = self.codec().map(|codec| codec.payload_type);
        self.mid.clone_from(&publish.mid);
        self.codecs = publish
            .codecs
            .iter()
            .map(|codec| Codec {
                payload_type: codec.payload_type,
                rtx_payload_type: codec.rtx_payload_type,
                mime: codec.mime.clone(),
                format: Format::of(&codec.mime),
                clock_rate: codec.clock_rate.clamp(1, CLOCK_RATE_MAX),
                nack: codec.nack,
            })
            .collect();
        self.codec = self.codecs.iter().position(|codec| Some(codec.payload_type) == current);
        let mut rids = publish.rids.clone();
        sort_rids(&mut rids);
        rids.truncate(LAYERS_MAX);
        let declared = publish.ssrcs.iter().map(|ssrc| usize::from(ssrc.spatial) + 1).max().unwrap_or(1);
        let count = if rids.is_empty() { declared.min(LAYERS_MAX) } else { rids.len() };
        // Layers that were there stay, whatever the description says now: their streams may still flow.
        while self.layers.len() < count {
            self.layers.push(Layer::new(self.layers.len() as u8));
        }
        for (layer, rid) in self.layers.iter_mut().zip(rids) {
            layer.rid = rid;
        }
    }

    /// Whether the layer is active and its stream has this SSRC.
    pub(super) fn flows(&self, layer: u8, ssrc: u32) -> bool {
        let layer = self.layers.get(usize::from(layer)).filter(|layer| layer.active);
        layer.and_then(|layer| layer.stream.as_ref()).is_some_and(|stream| stream.ssrc == ssrc)
    }

    /// Keeps a packet for those who wait for a key frame, or nothing any more when nobody does.
    #[inline]
    pub(super) fn hold(&mut self, layer: u8, sequence: u64, held: Held, awaited: bool) {
        let layer = self.layers.get_mut(usize::from(layer));
        let Some(stream) = layer.and_then(|layer| layer.stream.as_mut()) else { return };
        if awaited {
            stream.awaited.hold(sequence, held);
        } else {
            stream.awaited.clear();
        }
    }

    /// Makes the codec of this payload type the current one; `false` when it was not negotiated.
    pub(super) fn choose_codec(&mut self, payload_type: u8, events: &mut Events) -> bool {
        if self.codec().is_some_and(|codec| codec.payload_type == payload_type) {
            return true;
        }
        let found = self.codecs.iter().position(|codec| codec.payload_type == payload_type);
        let Some(codec) = found.and_then(|index| self.codecs.get(index)) else { return false };
        if self.begun && self.codec_changes < CODEC_CHANGES_MAX {
            self.codec_changes += 1;
            events.push(MediaEvent::CodecChanged { track: self.key, mime: codec.mime.clone() });
        }
        self.codec = found;
        true
    }

    /// Whether packets of this payload type can belong to it.
    pub(super) fn carries(&self, payload_type: u8) -> bool {
        let of = |codec: &Codec| {
            codec.payload_type == payload_type || codec.rtx_payload_type == Some(payload_type)
        };
        self.codecs.iter().any(of)
    }

    /// The codec of the latest packet.
    pub(super) fn codec(&self) -> Option<&Codec> {
        self.codecs.get(self.codec?)
    }

    /// Clock rate of the latest packet's codec in Hz.
    pub(super) fn clock_rate(&self) -> u32 {
        self.codec().map_or(90_000, |codec| codec.clock_rate)
    }

    /// Layers that are active.
    pub(super) fn active(&self) -> LayerSet {
        self.layers
            .iter()
            .filter(|layer| layer.active)
            .fold(LayerSet::default(), |set, layer| set.with(layer.spatial))
    }

    pub(super) fn layer_by_rid(&self, rid: &str) -> Option<u8> {
        self.layers.iter().find(|layer| layer.rid == rid).map(|layer| layer.spatial)
    }

    pub(super) fn source_times(&self) -> SourceTimes {
        let mut times = SourceTimes { clock_rate: self.clock_rate(), ..SourceTimes::NONE };
        for (time, layer) in times.by_layer.iter_mut().zip(&self.layers) {
            if let Some(stream) = &layer.stream {
                *time = (stream.source, stream.clock);
            }
        }
        times
    }

    /// Looks which layers have gone silent; `true` when something changed and subscriptions chose anew.
    pub(super) fn watch_layers(&mut self, now: Mono) -> bool {
        let mut changed = false;
        for layer in &mut self.layers {
            let silent =
                now.since(layer.last_packet) >= LAYER_SILENCE && layer.other_frames >= OTHER_FRAMES_MIN;
            if layer.active && silent {
                layer.active = false;
                changed = true;
            }
        }
        if changed {
            self.retarget();
        }
        changed
    }

    /// The list of subscriptions or what they can do changed.
    pub(super) fn note_downs(&mut self) {
        self.keeps = self.downs.iter().any(Down::can_resend);
    }

    /// Subscriptions choose anew among the active layers.
    pub(super) fn retarget(&mut self) {
        let active = self.active();
        self.downs.iter_mut().for_each(|down| down.select.retarget(active));
    }

    /// Layers of which some subscription needs a key frame; `connected` says whether it can use one.
    pub(super) fn wanted(&self, connected: impl Fn(TransportId) -> bool) -> LayerSet {
        if self.kind == Kind::Audio || self.muted {
            return LayerSet::default();
        }
        let wanted = self.downs.iter().filter_map(|down| {
            let layer = down.select.wanted()?;
            connected(down.transport).then_some(layer)
        });
        wanted.fold(LayerSet::default(), LayerSet::with)
    }

    /// Counters so far.
    pub(super) fn totals(&self) -> TrackCounters {
        let mut all = TrackCounters {
            header_bytes: self.counters.header_bytes,
            retransmitted_bytes: self.counters.retransmitted_bytes,
            padding: self.counters.padding,
            padding_bytes: self.counters.padding_bytes,
            out_of_order: self.counters.out_of_order,
            duplicates: self.counters.duplicates,
            dropped: self.counters.forgotten
                + self.counters.wrong_codec
                + self.counters.malformed
                + self.counters.muted,
            plis: self.counters.plis,
            firs: self.counters.firs,
            key_frames: self.counters.key_frames,
            rtt_us: self.rtt_us,
            lost: self.counters.lost_before,
            nacks: self.counters.nacks_before,
            ..TrackCounters::default()
        };
        for layer in &self.layers {
            all.packets += layer.packets;
            all.bytes += layer.bytes;
            all.retransmitted += layer.retransmitted;
            all.frames += layer.frames;
            if let Some(stream) = &layer.stream {
                all.lost += stream.arrivals.missing();
                all.nacks += stream.nacks();
                all.jitter_us = all.jitter_us.max(stream.jitter_us());
            }
            if self.kind == Kind::Video && (layer.packets > 0 || layer.stream.is_some()) {
                all.layers.push(LayerCounters {
                    rid: layer.rid.clone(),
                    spatial: layer.spatial,
                    packets: layer.packets,
                    bytes: layer.bytes,
                    retransmitted: layer.retransmitted,
                    frames: layer.frames,
                });
            }
        }
        all
    }
}

/// Least time between two key frame requests for a layer.
pub(super) const fn key_frame_interval(layer: u8) -> Duration {
    if layer == 0 { KEY_FRAME_LOW } else { KEY_FRAME_HIGH }
}

/// Brings RIDs into the order of quality, lowest first: LiveKit's two spellings by meaning, others as declared.
fn sort_rids(rids: &mut [String]) {
    let rank = |rid: &String| match rid.as_str() {
        "q" | "2" => Some(0),
        "h" | "1" => Some(1),
        "f" | "0" => Some(2),
        _ => None,
    };
    if rids.iter().all(|rid| rank(rid).is_some()) {
        rids.sort_by_key(rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rids_are_ordered_by_quality_whatever_the_description_says() {
        let sorted = |rids: &[&str]| {
            let mut rids: Vec<String> = rids.iter().map(|&rid| rid.to_owned()).collect();
            sort_rids(&mut rids);
            rids.join(" ")
        };
        assert_eq!(sorted(&["f", "h", "q"]), "q h f");
        assert_eq!(sorted(&["q", "h", "f"]), "q h f");
        assert_eq!(sorted(&["0", "1", "2"]), "2 1 0");
        assert_eq!(sorted(&["hi", "lo"]), "hi lo");
        assert_eq!(sorted(&["f", "h"]), "h f");
    }
}
