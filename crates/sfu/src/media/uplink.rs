//! What publishers send: whose packet it is, what it is in its stream, and on to the subscriptions.

use super::arrivals::Arrival;
use super::awaited::Held;
use super::burst::Waiting;
use super::down::{Down, Outbound, SourceTimes};
use super::header::Passed;
use super::layer::{Layer, Stream};
use super::limits::LAYERS_MAX;
use super::packet::{Facts, Packet, Record};
use super::peer::{Incoming, Peer};
use super::spec::{MediaEvent, TrackKey};
use super::track::{Refused, Track};
use super::transports::{TransportId, Transports};
use super::{RoomMedia, Task};
use crate::model::Kind;
use fanlight_base::{Now, SendBatch};
use fanlight_rtp::extension::{read_text, read_transport_cc};
use fanlight_rtp::sequence::extend_sequence;
use fanlight_rtp::{ExtensionKind, ExtensionMap, RtpHeader, SlotRef};

/// Extension values that are for us.
#[derive(Debug, Default)]
struct Found<'a> {
    mid: Option<&'a str>,
    rid: Option<&'a str>,
    repaired_rid: Option<&'a str>,
    transport_cc: Option<u16>,
}

/// A packet of a stream, a retransmission already unwrapped.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    ssrc: u32,
    payload_type: u8,
    marker: bool,
    timestamp: u32,
    sequence: u64,
    payload: &'a [u8],
    header_bytes: u64,
    padding_bytes: u64,
    repaired: bool,
}

/// What a packet turned out to be.
struct Taken {
    facts: Facts,
    /// Without padding.
    sequence: u64,
    source: u32,
    late: bool,
    /// A layer became active with it.
    woke: bool,
    /// Where it is kept, once it is.
    slot: SlotRef,
}

impl RoomMedia {
    pub(super) fn receive_rtp(
        &mut self,
        now: Now,
        transports: &mut Transports,
        from: TransportId,
        packet: &super::RtpIn<'_>,
        batch: &mut SendBatch,
    ) {
        let super::RtpIn { header, plain, extended_sequence } = *packet;
        let Some(peer) = self.peers.get_mut(from) else { return };
        let found = read_extensions(&peer.extensions, header, plain, &mut self.passed);
        if let Some(number) = found.transport_cc.filter(|_| peer.transport_cc) {
            peer.feedback.handle_packet(now, number, header.marker);
            peer.feedback_ssrc = header.ssrc;
            if let Some(deadline) = peer.feedback.deadline() {
                self.timers.arm(&mut peer.feedback_alarm, deadline, Task::Feedback(from));
            }
        }
        let known = peer.incoming(header.ssrc);
        let Some(incoming) = known.or_else(|| self.identify(from, header, &found)) else { return };
        let Ok(range) = header.payload_range(plain) else {
            self.refuse(incoming, Refused::Malformed);
            return;
        };
        let padding_bytes = plain.len().saturating_sub(range.end) as u64;
        let piece = Piece {
            ssrc: header.ssrc,
            payload_type: header.payload_type,
            marker: header.marker,
            timestamp: header.timestamp,
            sequence: extended_sequence,
            payload: plain.get(range).unwrap_or_default(),
            header_bytes: header.header_len as u64,
            padding_bytes,
            repaired: false,
        };
        match incoming {
            Incoming::Media { track, layer } => self.take(now, transports, track, layer, &piece, batch),
            Incoming::Repair { track, layer } => {
                if let Some(piece) = self.unwrap_repair(track, layer, piece) {
                    self.take(now, transports, track, layer, &piece, batch);
                }
            }
            Incoming::Past { .. } => self.refuse(incoming, Refused::Forgotten),
        }
    }

    /// Finds out whose an SSRC is: by mid and rid, else by a payload type that only one track of the transport has.
    #[cold]
    fn identify(&mut self, from: TransportId, header: &RtpHeader, found: &Found<'_>) -> Option<Incoming> {
        let peer = self.peers.get_mut(from)?;
        let mut candidates = peer.published.iter().filter_map(|key| self.tracks.get(key.0));
        let track = match found.mid {
            Some(mid) => candidates.find(|track| track.mid == mid),
            None => {
                let mut fitting = candidates.filter(|track| track.carries(header.payload_type));
                fitting.next().filter(|_| fitting.next().is_none())
            }
        };
        let incoming = track.and_then(|track| classify(track, header.payload_type, found));
        match incoming {
            Some(incoming) if peer.learn_incoming(header.ssrc, incoming) => Some(incoming),
            _ => {
                peer.unknown_packets += 1;
                None
            }
        }
    }

    /// RFC 4588: the original sequence number stands before the original payload.
    fn unwrap_repair<'a>(&mut self, key: TrackKey, layer: u8, piece: Piece<'a>) -> Option<Piece<'a>> {
        let track = self.tracks.get_mut(key.0)?;
        let codec = track.codecs.iter().find(|codec| codec.rtx_payload_type == Some(piece.payload_type));
        let payload_type = codec.map(|codec| codec.payload_type);
        let place = track.layers.get_mut(usize::from(layer))?;
        if place.repair_ssrc != Some(piece.ssrc) {
            place.repair_ssrc = Some(piece.ssrc);
            if let Some(event) = layer_seen(key, place) {
                self.events.push(event);
            }
        }
        let Some([high, low, payload @ ..]) = piece.payload.get(..).filter(|payload| !payload.is_empty())
        else {
            // Probes of the bandwidth estimate.
            track.counters.padding += 1;
            track.counters.padding_bytes += piece.padding_bytes;
            return None;
        };
        let stream = place.stream.as_ref();
        let original = stream.and_then(|stream| Some((stream.ssrc, stream.arrivals.highest()?)));
        let (Some((ssrc, highest)), Some(payload_type)) = (original, payload_type) else {
            track.counters.count(Refused::Codec);
            return None;
        };
        let sequence = extend_sequence(highest, u16::from_be_bytes([*high, *low]));
        Some(Piece { ssrc, payload_type, sequence, payload, repaired: true, ..piece })
    }

    fn take(
        &mut self,
        now: Now,
        transports: &mut Transports,
        key: TrackKey,
        layer: u8,
        piece: &Piece<'_>,
        batch: &mut SendBatch,
    ) {
        let Some(track) = self.tracks.get(key.0) else { return };
        // Another stream, or a layer that begins: subscriptions choose anew, after what waits.
        if !track.burst.is_empty() && !track.flows(layer, piece.ssrc) {
            self.flush_track(now, transports, key, batch);
        }
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        let taken = if track.choose_codec(piece.payload_type, &mut self.events) {
            bind(track, layer, piece.ssrc, &mut self.events, self.peers.get_mut(track.transport));
            note(now, track, layer, piece, &mut self.timers)
        } else {
            Err(Refused::Codec)
        };
        let taken = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => return,
            Err(refused) => return track.counters.count(refused),
        };
        if !track.begun && !piece.payload.is_empty() {
            track.begun = true;
            self.events.extend(first_packet(track, layer));
        }
        let woke = taken.woke;
        if woke {
            track.retarget();
        }
        if track.muted {
            return track.counters.count(Refused::Muted);
        }
        if !track.downs.is_empty() {
            self.forward(now, transports, (key, layer), piece, taken, batch);
        }
        if woke {
            self.ask_key_frames(now, transports, key, batch);
        }
    }

    /// Keeps a packet, and has it wait for the others of its turn if it can.
    fn forward(
        &mut self,
        now: Now,
        transports: &mut Transports,
        (key, layer): (TrackKey, u8),
        piece: &Piece<'_>,
        mut taken: Taken,
        batch: &mut SendBatch,
    ) {
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        let facts = &taken.facts;
        if track.keeps {
            taken.slot = self.store.insert(now.mono(), self.passed.bytes(), piece.payload);
            self.bursts.stored(taken.slot.len());
        }
        let plain = track.kind == Kind::Video && !facts.key_frame && !facts.opaque && !taken.late;
        if plain && taken.slot != SlotRef::NONE {
            let waiting = Waiting {
                layer,
                source: taken.source,
                numbers: facts.numbers(taken.sequence, piece.timestamp),
                marker: piece.marker,
                payload_type: piece.payload_type,
                vp8: facts.vp8,
                slot: taken.slot,
                awaited: false,
            };
            self.wait(now, transports, key, waiting, batch);
        } else {
            self.flush_track(now, transports, key, batch);
            self.forward_at_once(now, transports, (key, layer), piece, &taken, batch);
        }
    }

    fn forward_at_once(
        &mut self,
        now: Now,
        transports: &mut Transports,
        (key, layer): (TrackKey, u8),
        piece: &Piece<'_>,
        taken: &Taken,
        batch: &mut SendBatch,
    ) {
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        let facts = &taken.facts;
        let stream = track.layers.get(usize::from(layer)).and_then(|layer| layer.stream.as_ref());
        let entry = match track.kind {
            Kind::Audio => !taken.late,
            // What a latecomer begins may have gone by.
            Kind::Video => {
                (facts.key_frame || facts.opaque)
                    && (!taken.late || stream.is_some_and(|stream| stream.awaited.covers(taken.sequence)))
            }
        };
        let times = if entry { track.source_times() } else { SourceTimes::NONE };
        let packet = Packet {
            layer,
            source: taken.source,
            numbers: facts.numbers(taken.sequence, piece.timestamp),
            late: taken.late,
            marker: piece.marker,
            payload_type: piece.payload_type,
            entry,
            key_frame: facts.key_frame,
            frame_end: piece.marker && track.kind == Kind::Video,
            vp8: facts.vp8,
            passed: self.passed.as_ref(),
            payload: piece.payload,
            slot: taken.slot,
        };
        let mut out = Outbound { now, transports, batch, header: &mut self.header };
        let mut awaited = false;
        for down in &mut track.downs {
            match down.forward(&mut out, &packet, &times) {
                Ok(false) => {}
                Ok(true) => self.events.push(MediaEvent::FirstForwarded { down: down.key }),
                Err(dropped) => {
                    awaited |= dropped.awaits_key_frame();
                    down.counters.count(dropped);
                }
            }
        }
        if entry && taken.late {
            self.catch_up(now, transports, (key, layer), taken, batch);
        }
        if let Some(track) = self.tracks.get_mut(key.0) {
            let (timestamp, marker, payload_type) = (piece.timestamp, piece.marker, piece.payload_type);
            let held = Held { timestamp, marker, payload_type, slot: taken.slot };
            track.hold(layer, taken.sequence, held, awaited);
        }
    }

    /// Subscriptions that began with a late packet get those that overtook it.
    #[cold]
    fn catch_up(
        &mut self,
        now: Now,
        transports: &mut Transports,
        (key, layer): (TrackKey, u8),
        entry: &Taken,
        batch: &mut SendBatch,
    ) {
        let Some(track) = self.tracks.get_mut(key.0) else { return };
        let Some(format) = track.codec().map(|codec| codec.format) else { return };
        let place = track.layers.get(usize::from(layer));
        let Some(stream) = place.and_then(|layer| layer.stream.as_ref()) else { return };
        for (sequence, held) in stream.awaited.after(entry.sequence) {
            let Some(record) = self.store.slab().get(held.slot).and_then(Record::read) else { continue };
            let facts = format.read(record.payload);
            let packet = Packet {
                layer,
                source: entry.source,
                numbers: facts.numbers(sequence, held.timestamp),
                late: false,
                marker: held.marker,
                payload_type: held.payload_type,
                entry: false,
                key_frame: false,
                frame_end: held.marker,
                vp8: facts.vp8,
                passed: record.passed,
                payload: record.payload,
                slot: held.slot,
            };
            let mut out = Outbound { now, transports, batch, header: &mut self.header };
            let began = |down: &&mut Down| down.began_with(entry.source, entry.sequence);
            for down in track.downs.iter_mut().filter(began) {
                match down.forward(&mut out, &packet, &SourceTimes::NONE) {
                    Ok(_) => down.counters.caught_up(),
                    Err(dropped) => down.counters.count(dropped),
                }
            }
        }
    }

    #[cold]
    fn refuse(&mut self, incoming: Incoming, refused: Refused) {
        let (Incoming::Media { track, .. } | Incoming::Repair { track, .. } | Incoming::Past { track }) =
            incoming;
        if let Some(track) = self.tracks.get_mut(track.0) {
            track.counters.count(refused);
        }
    }
}

/// One pass over the extension elements of a packet.
fn read_extensions<'a>(
    ids: &ExtensionMap,
    header: &RtpHeader,
    plain: &'a [u8],
    passed: &mut Passed,
) -> Found<'a> {
    let mut found = Found::default();
    passed.clear();
    for element in header.extensions(plain) {
        match ids.kind(element.id) {
            Some(ExtensionKind::TransportCc) => found.transport_cc = read_transport_cc(element.value),
            Some(ExtensionKind::Mid) => found.mid = read_text(element.value),
            Some(ExtensionKind::Rid) => found.rid = read_text(element.value),
            Some(ExtensionKind::RepairedRid) => found.repaired_rid = read_text(element.value),
            Some(kind) => passed.add(kind, element.value),
            None => {}
        }
    }
    found
}

fn classify(track: &Track, payload_type: u8, found: &Found<'_>) -> Option<Incoming> {
    let repair = track.codecs.iter().any(|codec| codec.rtx_payload_type == Some(payload_type));
    let rid = if repair { found.repaired_rid.or(found.rid) } else { found.rid };
    let layer = match rid {
        Some(rid) => track.layer_by_rid(rid).or((track.layers.len() == 1).then_some(0))?,
        // Without a rid only a track of one layer is clear.
        None if track.layers.len() == 1 => 0,
        None => return None,
    };
    Some(if repair {
        Incoming::Repair { track: track.key, layer }
    } else {
        Incoming::Media { track: track.key, layer }
    })
}

/// Makes the stream of a layer when its SSRC is new. The SSRC before is not taken back: late packets of it must not
/// be numbered among the new ones.
fn bind(track: &mut Track, layer: u8, ssrc: u32, events: &mut super::Events, peer: Option<&mut Peer>) {
    let Some(place) = track.layers.get(usize::from(layer)) else { return };
    if place.stream.as_ref().is_some_and(|stream| stream.ssrc == ssrc) {
        return;
    }
    let clock_rate = track.clock_rate();
    let nack = track.codec().is_some_and(|codec| codec.nack);
    let source = track.sources;
    track.sources += 1;
    let key = track.key;
    let Some(place) = track.layers.get_mut(usize::from(layer)) else { return };
    let before = place.stream.replace(Stream::new(source, ssrc, clock_rate, nack));
    events.extend(layer_seen(key, place));
    if let Some(before) = before {
        track.counters.lost_before += before.arrivals.missing();
        track.counters.nacks_before += before.nacks();
        track.downs.iter_mut().for_each(|down| down.select.restart_layer(layer));
        if let Some(peer) = peer {
            peer.learn_incoming(before.ssrc, Incoming::Past { track: key });
        }
    }
}

/// Enters a packet into its stream; `Ok(None)` for one that is only padding.
fn note(
    now: Now,
    track: &mut Track,
    layer: u8,
    piece: &Piece<'_>,
    timers: &mut super::timers::Timers<Task>,
) -> Result<Option<Taken>, Refused> {
    let format = track.codec().ok_or(Refused::Codec)?.format;
    let Some(place) = track.layers.get_mut(usize::from(layer)) else { return Err(Refused::Malformed) };
    let Some(stream) = &mut place.stream else { return Err(Refused::Malformed) };
    if !piece.repaired {
        stream.note_original(now, piece.sequence, piece.timestamp);
    }
    let arrival = stream.arrivals.note(piece.sequence);
    if let Some(nack) = &mut stream.nack {
        nack.handle_packet(now.mono(), piece.sequence);
        if nack.missing() > 0
            && !stream.nack_alarm.is_set()
            && let Some(deadline) = nack.deadline()
        {
            timers.arm(&mut stream.nack_alarm, deadline, Task::Nack(track.key, layer));
        }
    }
    if piece.repaired {
        // Also those that nobody missed: senders probe the path by sending packets again.
        place.retransmitted += 1;
        track.counters.retransmitted_bytes += piece.payload.len() as u64;
    }
    let late = match arrival {
        Arrival::Duplicate => return Err(Refused::Duplicate),
        Arrival::Forgotten => return Err(Refused::Forgotten),
        Arrival::Late => true,
        Arrival::Newest => false,
    };
    track.counters.out_of_order += u64::from(late && !piece.repaired);
    if piece.payload.is_empty() {
        track.counters.padding += 1;
        track.counters.padding_bytes += piece.padding_bytes;
        if !late {
            stream.compact.remove(piece.sequence);
            return Ok(None);
        }
    }
    let sequence = stream.compact.map(piece.sequence).ok_or(Refused::Forgotten)?;
    let frame_start = !late && stream.timestamp != Some(piece.timestamp);
    if !late {
        stream.timestamp = Some(piece.timestamp);
    }
    let source = stream.source;
    let mut facts = format.read(piece.payload);
    // Several packets of a key frame can look like its beginning; the first one is.
    if facts.key_frame {
        facts.key_frame = stream.key_frame_timestamp.replace(piece.timestamp) != Some(piece.timestamp);
    }
    track.counters.header_bytes += if piece.repaired { 0 } else { piece.header_bytes };
    track.counters.key_frames += u64::from(facts.key_frame);
    count_layer(place, piece, track.kind);
    let woke = !place.active;
    place.active = true;
    place.last_packet = now.mono();
    place.other_frames = 0;
    if facts.key_frame {
        place.requests.answered();
        track.lost_pictures = track.lost_pictures.without(layer);
    }
    if frame_start && track.layers.len() > 1 {
        note_frame(now, track, layer, timers);
    }
    Ok(Some(Taken { facts, sequence, source, late, woke, slot: SlotRef::NONE }))
}

/// A layer began a frame: the others are silent for so much longer.
fn note_frame(now: Now, track: &mut Track, layer: u8, timers: &mut super::timers::Timers<Task>) {
    let others = track.layers.iter_mut().filter(|other| other.spatial != layer);
    others.for_each(|other| other.other_frames = other.other_frames.saturating_add(1));
    if !track.layers_alarm.is_set() {
        let when = now.mono() + super::limits::LAYER_PERIOD;
        timers.arm(&mut track.layers_alarm, when, Task::Layers(track.key));
    }
}

fn count_layer(layer: &mut Layer, piece: &Piece<'_>, kind: Kind) {
    if !piece.repaired && !piece.payload.is_empty() {
        layer.packets += 1;
        layer.bytes += piece.payload.len() as u64;
    }
    layer.frames += u64::from(piece.marker && kind == Kind::Video);
}

fn layer_seen(track: TrackKey, layer: &Layer) -> Option<MediaEvent> {
    let stream = layer.stream.as_ref()?;
    Some(MediaEvent::LayerSeen {
        track,
        rid: layer.rid.clone(),
        spatial: layer.spatial,
        ssrc: stream.ssrc,
        repair_ssrc: layer.repair_ssrc.unwrap_or(0),
    })
}

fn first_packet(track: &Track, layer: u8) -> Option<MediaEvent> {
    let layer = track.layers.get(usize::from(layer))?;
    Some(MediaEvent::FirstPacket {
        track: track.key,
        mime: track.codec()?.mime.clone(),
        rid: layer.rid.clone(),
        spatial: layer.spatial,
        ssrc: layer.stream.as_ref()?.ssrc,
    })
}

const _: () = assert!(LAYERS_MAX <= 4, "the layer has two bits in a history entry");
