//! A participant whose media stack is `str0m`: two peer connections (signalling v0), one audio and one video track, and
//! the reliable data channel.

use crate::media::Tag;
use crate::message::Message;
use crate::network::Datagram;
use crate::offer::offered_tracks;
use crate::outcome::{Seen, Sent};
use fanlight_base::PeerKey;
use fanlight_sfu::input::{AddTrack, Request, Target};
use fanlight_sfu::model::{DisconnectReason, Kind, Source};
use fanlight_sfu::output::Signal;
use fanlight_transport::negotiate::RemoteDescription;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

/// A new audio packet so often.
const AUDIO_EVERY: Duration = Duration::from_millis(20);
/// A new picture so often.
const VIDEO_EVERY: Duration = Duration::from_millis(33);
/// Packets of a picture.
const PICTURE_PACKETS: u32 = 3;
/// First sequence number of a track: roll-over comes within a run.
const FIRST_SEQUENCE: u64 = 65_400;
/// A new data message so often.
const MESSAGE_EVERY: Duration = Duration::from_millis(50);
/// Data messages begin so long after everybody in the room can receive them: when the network loses them too.
const MESSAGES_AFTER: Duration = Duration::from_millis(1_500);
/// Label of the channel whose messages arrive all, and in order.
const RELIABLE: &str = "_reliable";

/// One participant.
pub(crate) struct Client {
    /// Its session.
    pub(crate) peer: PeerKey,
    pub(crate) seen: Seen,
    /// Publisher and subscriber.
    connections: [Rtc; 2],
    start: Instant,
    pending: Option<SdpPendingOffer>,
    mids: [Option<Mid>; 2],
    next_audio: Instant,
    next_video: Instant,
    picture: u16,
    connected: bool,
    key_frame: bool,
    sending: bool,
    /// The channel it writes to, open.
    channel: Option<ChannelId>,
    /// The server's channel to it is open.
    receives_messages: bool,
    messages_left: u32,
    next_message: Option<Instant>,
}

/// What a client does in answer.
pub(crate) enum Doing {
    Request(Request),
    Send { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Packet { ssrc: u32, sequence: u64, timestamp: u32 },
}

impl Client {
    pub(crate) fn new(number: u32, room: u32, peer: PeerKey, start: Instant) -> Self {
        let address = |port| SocketAddr::from(([10, 1, (number >> 8) as u8, (number & 0xff) as u8], port));
        let address = [address(4000), address(4001)];
        let rtc = |address: SocketAddr| {
            let mut rtc = Rtc::builder()
                .clear_codecs()
                .enable_opus(true, false)
                .enable_vp8(true)
                .set_rtp_mode(true)
                .build(start);
            if let Ok(candidate) = Candidate::host(address, "udp") {
                rtc.add_local_candidate(candidate);
            }
            rtc
        };
        let seen = Seen {
            number,
            room,
            sid: Default::default(),
            address,
            receives_from_ns: None,
            sent: [Sent::default(), Sent::default()],
            heard: BTreeMap::new(),
            offered: BTreeMap::new(),
            messages_sent: 0,
            messages: Vec::new(),
            strange_messages: 0,
        };
        Self {
            peer,
            seen,
            connections: address.map(rtc),
            start,
            pending: None,
            mids: [None; 2],
            next_audio: start,
            next_video: start,
            picture: 0,
            connected: false,
            key_frame: true,
            sending: true,
            channel: None,
            receives_messages: false,
            messages_left: 0,
            next_message: None,
        }
    }

    /// Whether data messages can come and go.
    pub(crate) fn can_message(&self) -> bool {
        self.channel.is_some() && self.receives_messages
    }

    /// Sends so many data messages from now on.
    pub(crate) fn begin_messages(&mut self, now: Instant, count: u32) {
        self.messages_left = count;
        self.next_message = Some(now + MESSAGES_AFTER);
    }

    /// Says good-bye.
    pub(crate) fn leave() -> Doing {
        Doing::Request(Request::Leave { reason: DisconnectReason::ClientInitiated })
    }

    /// Stops writing media; what is under way still arrives.
    pub(crate) fn stop_sending(&mut self) {
        self.sending = false;
    }

    /// A message of the server.
    pub(crate) fn signal(&mut self, signal: Signal) -> Vec<Doing> {
        match signal {
            Signal::Joined(joined) => {
                self.seen.sid = joined.participant.sid;
                self.publish()
            }
            Signal::TrackPublished { cid, track } => {
                let own = self.cids().iter().position(|own| *own == cid).expect("the server names our track");
                self.seen.sent[own].track = track.sid;
                Vec::new()
            }
            Signal::Answer { sdp, .. } => {
                let sdp = sdp.to_string();
                if let (Some(pending), Ok(answer)) = (self.pending.take(), SdpAnswer::from_sdp_string(&sdp)) {
                    self.connections[0]
                        .sdp_api()
                        .accept_answer(pending, answer)
                        .expect("the answer is acceptable");
                }
                Vec::new()
            }
            Signal::Offer { id, sdp, .. } => {
                let sdp = sdp.to_string();
                self.seen.offered.extend(offered_tracks(&sdp));
                // Browsers choose to be the DTLS client; str0m would not, and as a DTLS server waits for the INIT of SCTP.
                let sdp = sdp.replace("a=setup:actpass", "a=setup:passive");
                let offer = SdpOffer::from_sdp_string(&sdp).expect("the offer parses");
                let answer =
                    self.connections[1].sdp_api().accept_offer(offer).expect("the offer is acceptable");
                vec![Doing::Request(Request::Answer { id, sdp: Box::new(parsed(&answer.to_sdp_string())) })]
            }
            Signal::Trickle { target, candidate, .. } => {
                let rtc = &mut self.connections[usize::from(target == Target::Subscriber)];
                if let Ok(candidate) = Candidate::from_sdp_string(&candidate) {
                    rtc.add_remote_candidate(candidate);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn cids(&self) -> [String; 2] {
        [format!("audio-{}", self.seen.number), format!("video-{}", self.seen.number)]
    }

    fn publish(&mut self) -> Vec<Doing> {
        let cids = self.cids();
        let mut changes = self.connections[0].sdp_api();
        changes.add_channel(RELIABLE.to_owned());
        for (index, kind) in [MediaKind::Audio, MediaKind::Video].into_iter().enumerate() {
            let track = Some(cids[index].clone());
            self.mids[index] =
                Some(changes.add_media(kind, Direction::SendOnly, Some("stream".into()), track, None));
        }
        let (offer, pending) = changes.apply().expect("there are changes");
        self.pending = Some(pending);
        let [audio, video] = cids;
        vec![
            Doing::Request(add_track(audio, Kind::Audio, Source::MICROPHONE)),
            Doing::Request(add_track(video, Kind::Video, Source::CAMERA)),
            Doing::Request(Request::Offer { id: 1, sdp: Box::new(parsed(&offer.to_sdp_string())) }),
        ]
    }

    /// A datagram for one of its addresses; the next deadline comes back. str0m has to be emptied after each one.
    pub(crate) fn receive(&mut self, now: Instant, datagram: &Datagram, doings: &mut Vec<Doing>) -> Instant {
        let (from, to) = (datagram.from, datagram.to);
        let which = usize::from(to != self.seen.address[0]);
        if let Ok(receive) = Receive::new(Protocol::Udp, from, to, &datagram.bytes) {
            self.connections[which].handle_input(Input::Receive(now, receive)).expect("str0m takes it");
        }
        self.drain(now, which, doings)
    }

    /// Lets time pass; the next deadline comes back.
    pub(crate) fn advance(&mut self, now: Instant, doings: &mut Vec<Doing>) -> Instant {
        self.write_due(now);
        self.write_messages(now);
        let mut deadline = self.next_media();
        if self.messages_left > 0
            && let Some(at) = self.next_message
        {
            deadline = deadline.min(at);
        }
        for which in 0..2 {
            self.connections[which].handle_input(Input::Timeout(now)).expect("time may pass");
            deadline = deadline.min(self.drain(now, which, doings));
        }
        deadline.max(now + Duration::from_micros(1))
    }

    fn drain(&mut self, now: Instant, which: usize, doings: &mut Vec<Doing>) -> Instant {
        loop {
            match self.connections[which].poll_output().expect("the connection works") {
                Output::Timeout(at) => return at,
                Output::Transmit(transmit) => doings.push(Doing::Send {
                    from: transmit.source,
                    to: transmit.destination,
                    bytes: transmit.contents.to_vec(),
                }),
                Output::Event(event) => self.event(now, which, event, doings),
            }
        }
    }

    fn event(&mut self, now: Instant, which: usize, event: Event, doings: &mut Vec<Doing>) {
        match event {
            Event::Connected if which == 0 => self.connected = true,
            Event::Connected => self.seen.receives_from_ns = Some(nanoseconds(self.start, now)),
            Event::KeyframeRequest(_) if which == 0 => self.key_frame = true,
            Event::RtpPacket(packet) => {
                let ssrc = *packet.header.ssrc;
                let (sequence, timestamp) = (*packet.seq_no, packet.header.timestamp);
                doings.push(Doing::Packet { ssrc, sequence, timestamp });
                if packet.payload.is_empty() {
                    return;
                }
                let heard = self.seen.heard.entry(ssrc).or_default();
                match Tag::read(&packet.payload) {
                    Some(tag) => heard.packets.push((sequence, tag)),
                    None => heard.strange += 1,
                }
            }
            Event::ChannelOpen(id, label) if label == RELIABLE => {
                if which == 0 {
                    self.channel = Some(id);
                } else {
                    self.receives_messages = true;
                }
            }
            Event::ChannelData(data) => match Message::decode(&data.data) {
                Some(message) => self.seen.messages.push(message),
                None => self.seen.strange_messages += 1,
            },
            _ => {}
        }
    }

    fn next_media(&self) -> Instant {
        self.next_audio.min(self.next_video)
    }

    fn write_messages(&mut self, now: Instant) {
        let (Some(id), Some(at)) = (self.channel, self.next_message) else { return };
        if self.messages_left == 0 || at > now {
            return;
        }
        self.next_message = Some(now + MESSAGE_EVERY);
        let message =
            Message { room: self.seen.room, sender: self.seen.number, number: self.seen.messages_sent };
        let mut channel = self.connections[0].channel(id).expect("it is open");
        if channel.write(true, &message.encode()).expect("the association works") {
            self.seen.messages_sent += 1;
            self.messages_left -= 1;
        }
    }

    fn write_due(&mut self, now: Instant) {
        while self.next_audio <= now {
            let at = self.next_audio;
            self.next_audio += AUDIO_EVERY;
            if self.connected && self.sending {
                self.write(0, at, 960, true, Tag::opus);
            }
        }
        while self.next_video <= now {
            let at = self.next_video;
            self.next_video += VIDEO_EVERY;
            if !self.connected || !self.sending {
                continue;
            }
            let (key_frame, picture) = (std::mem::take(&mut self.key_frame), self.picture);
            self.picture = self.picture.wrapping_add(1);
            for index in 0..PICTURE_PACKETS {
                let last = index + 1 == PICTURE_PACKETS;
                self.write(1, at, 2970, last, |tag| tag.vp8(index == 0, key_frame, picture));
            }
        }
    }

    fn write(&mut self, kind: usize, at: Instant, step: u32, marker: bool, payload: impl Fn(Tag) -> Vec<u8>) {
        let Some(mid) = self.mids[kind] else { return };
        let Some(pt) = self.payload_type(mid) else { return };
        let sent = &mut self.seen.sent[kind];
        let number = sent.packets();
        let tag = Tag { room: self.seen.room, publisher: self.seen.number, kind: kind as u32, number };
        let unit = if kind == 0 { number } else { number / PICTURE_PACKETS };
        let payload = payload(tag);
        let mut direct = self.connections[0].direct_api();
        let Some(stream) = direct.stream_tx_by_mid(mid, None) else { return };
        sent.ssrc = *stream.ssrc();
        sent.repair_ssrc = stream.rtx().map(|ssrc| *ssrc);
        sent.times_ns.push(nanoseconds(self.start, at));
        sent.bytes += payload.len() as u64;
        let sequence = FIRST_SEQUENCE + u64::from(number);
        let packet = RtpWrite::new(pt, sequence.into(), unit.wrapping_mul(step), at, payload);
        stream.write_rtp(packet.marker(marker).nackable(kind == 1));
    }

    fn payload_type(&self, mid: Mid) -> Option<Pt> {
        let media = self.connections[0].media(mid)?;
        media.remote_pts().first().copied()
    }
}

/// Virtual time of an instant.
pub(crate) fn nanoseconds(start: Instant, instant: Instant) -> u64 {
    u64::try_from(instant.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

fn parsed(sdp: &str) -> RemoteDescription {
    RemoteDescription::parse(sdp).expect("str0m's SDP parses")
}

fn add_track(cid: String, kind: Kind, source: Source) -> Request {
    let (width, height) = if kind == Kind::Video { (640, 360) } else { (0, 0) };
    let disable_red = true;
    Request::AddTrack(Box::new(AddTrack { width, height, disable_red, ..AddTrack::new(cid, kind, source) }))
}
