//! A participant whose media stack is `str0m`: two peer connections (signalling v0), one audio and one video track.

use crate::media::Tag;
use fanlight_base::PeerKey;
use fanlight_sfu::input::{AddTrack, Request, Target};
use fanlight_sfu::model::{Kind, Source};
use fanlight_sfu::output::Signal;
use fanlight_transport::sdp::SessionDescription;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
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
const VIDEO_BYTES: usize = 900;
const AUDIO_BYTES: usize = 80;

/// What a client received on one SSRC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Tags in the order of arrival, with extended sequence numbers.
    pub packets: Vec<(u64, Tag)>,
    /// Packets whose payload no client sent.
    pub strange: u64,
}

/// One participant.
pub struct Client {
    /// Number in the world.
    pub number: u32,
    /// Number of its room.
    pub room: u32,
    /// Its session.
    pub peer: PeerKey,
    /// Received media, by SSRC.
    pub heard: BTreeMap<u32, Heard>,
    /// Packets written so far: audio, video.
    pub sent: [u32; 2],
    /// Bytes of data messages received.
    pub data: Vec<Vec<u8>>,
    pub(crate) address: [SocketAddr; 2],
    publisher: Rtc,
    subscriber: Rtc,
    pending: Option<SdpPendingOffer>,
    mids: [Option<Mid>; 2],
    next_audio: Instant,
    next_video: Instant,
    picture: u16,
    connected: bool,
    key_frame: bool,
    sending: bool,
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
        Self {
            number,
            room,
            peer,
            heard: BTreeMap::new(),
            sent: [0; 2],
            data: Vec::new(),
            address,
            publisher: rtc(address[0]),
            subscriber: rtc(address[1]),
            pending: None,
            mids: [None; 2],
            next_audio: start,
            next_video: start,
            picture: 0,
            connected: false,
            key_frame: true,
            sending: true,
        }
    }

    /// Stops writing media; what is under way still arrives.
    pub(crate) fn stop_sending(&mut self) {
        self.sending = false;
    }

    /// A message of the server.
    pub(crate) fn signal(&mut self, signal: Signal) -> Vec<Doing> {
        match signal {
            Signal::Joined(_) => self.publish(),
            Signal::Answer { sdp, .. } => {
                if let (Some(pending), Ok(answer)) = (self.pending.take(), SdpAnswer::from_sdp_string(&sdp)) {
                    self.publisher
                        .sdp_api()
                        .accept_answer(pending, answer)
                        .expect("the answer is acceptable");
                }
                Vec::new()
            }
            Signal::Offer { id, sdp, .. } => {
                let offer = SdpOffer::from_sdp_string(&sdp).expect("the offer parses");
                let answer = self.subscriber.sdp_api().accept_offer(offer).expect("the offer is acceptable");
                vec![Doing::Request(Request::Answer { id, sdp: Box::new(parsed(&answer.to_sdp_string())) })]
            }
            Signal::Trickle { target, candidate, .. } => {
                let rtc =
                    if target == Target::Publisher { &mut self.publisher } else { &mut self.subscriber };
                if let Ok(candidate) = Candidate::from_sdp_string(&candidate) {
                    rtc.add_remote_candidate(candidate);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn publish(&mut self) -> Vec<Doing> {
        let mut changes = self.publisher.sdp_api();
        let cids = [format!("audio-{}", self.number), format!("video-{}", self.number)];
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

    /// A datagram for one of its addresses.
    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let rtc = if to == self.address[0] { &mut self.publisher } else { &mut self.subscriber };
        if let Ok(receive) = Receive::new(Protocol::Udp, from, to, bytes) {
            rtc.handle_input(Input::Receive(now, receive)).expect("str0m takes it");
        }
    }

    /// Lets time pass and empties both connections; the next deadline comes back.
    pub(crate) fn advance(&mut self, now: Instant, doings: &mut Vec<Doing>) -> Instant {
        self.write_due(now);
        let mut deadline = self.next_media();
        for which in 0..2 {
            let rtc = if which == 0 { &mut self.publisher } else { &mut self.subscriber };
            rtc.handle_input(Input::Timeout(now)).expect("time may pass");
            loop {
                let rtc = if which == 0 { &mut self.publisher } else { &mut self.subscriber };
                match rtc.poll_output().expect("the connection works") {
                    Output::Timeout(at) => {
                        deadline = deadline.min(at);
                        break;
                    }
                    Output::Transmit(transmit) => doings.push(Doing::Send {
                        from: transmit.source,
                        to: transmit.destination,
                        bytes: transmit.contents.to_vec(),
                    }),
                    Output::Event(event) => self.event(which, event, doings),
                }
            }
        }
        deadline.max(now + Duration::from_micros(1))
    }

    fn event(&mut self, which: usize, event: Event, doings: &mut Vec<Doing>) {
        match event {
            Event::Connected if which == 0 => self.connected = true,
            Event::KeyframeRequest(_) if which == 0 => self.key_frame = true,
            Event::RtpPacket(packet) => {
                let ssrc = *packet.header.ssrc;
                let (sequence, timestamp) = (*packet.seq_no, packet.header.timestamp);
                doings.push(Doing::Packet { ssrc, sequence, timestamp });
                if packet.payload.is_empty() {
                    return;
                }
                let heard = self.heard.entry(ssrc).or_default();
                match Tag::read(false, &packet.payload).or_else(|| Tag::read(true, &packet.payload)) {
                    Some(tag) => heard.packets.push((sequence, tag)),
                    None => heard.strange += 1,
                }
            }
            Event::ChannelData(data) => self.data.push(data.data),
            _ => {}
        }
    }

    fn next_media(&self) -> Instant {
        self.next_audio.min(self.next_video)
    }

    fn write_due(&mut self, now: Instant) {
        while self.next_audio <= now {
            let at = self.next_audio;
            self.next_audio += AUDIO_EVERY;
            if self.connected && self.sending {
                self.write(0, at, 960, true, |tag, _| tag.opus(AUDIO_BYTES));
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
                self.write(1, at, 2970, last, |tag, _| tag.vp8(VIDEO_BYTES, index == 0, key_frame, picture));
            }
        }
    }

    fn write(
        &mut self,
        kind: usize,
        at: Instant,
        step: u32,
        marker: bool,
        payload: impl Fn(Tag, u32) -> Vec<u8>,
    ) {
        let Some(mid) = self.mids[kind] else { return };
        let Some(pt) = self.payload_type(mid) else { return };
        let number = self.sent[kind];
        let tag = Tag { room: self.room, publisher: self.number, kind: kind as u32, number };
        let unit = if kind == 0 { number } else { number / PICTURE_PACKETS };
        let payload = payload(tag, number);
        let mut direct = self.publisher.direct_api();
        let Some(stream) = direct.stream_tx_by_mid(mid, None) else { return };
        let sequence = u64::from(number) + 1000;
        let packet = RtpWrite::new(pt, sequence.into(), unit.wrapping_mul(step), at, payload);
        stream.write_rtp(packet.marker(marker).nackable(kind == 1));
        self.sent[kind] += 1;
    }

    fn payload_type(&self, mid: Mid) -> Option<Pt> {
        let media = self.publisher.media(mid)?;
        media.remote_pts().first().copied()
    }
}

fn parsed(sdp: &str) -> SessionDescription {
    SessionDescription::parse(sdp).expect("str0m's SDP parses")
}

fn add_track(cid: String, kind: Kind, source: Source) -> Request {
    Request::AddTrack(Box::new(AddTrack {
        cid,
        name: String::new(),
        kind,
        source,
        muted: false,
        width: if kind == Kind::Video { 640 } else { 0 },
        height: if kind == Kind::Video { 360 } else { 0 },
        disable_dtx: false,
        stereo: false,
        disable_red: true,
        layers: Vec::new(),
        simulcast_codecs: Vec::new(),
        sid: Default::default(),
        encryption: 0,
        stream: String::new(),
        backup_codec_policy: 0,
        audio_features: Vec::new(),
    }))
}
