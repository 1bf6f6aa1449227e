//! A client's connection: `str0m`, an independent stack, without its SDP layer.

use fanlight_base::{Addresses, Mono, Now, Protocol, Redacted};
use fanlight_events::Kind;
use fanlight_transport::negotiate::RemoteTransport;
use fanlight_transport::sdp::{MediaKind as SdpKind, SessionDescription};
use fanlight_transport::{ClockAnchor, Fingerprint, RemoteParameters, Setup};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid};
use str0m::net::{Protocol as StrProtocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

pub struct Lower {
    rtc: Rtc,
    anchor: ClockAnchor,
    address: SocketAddr,
    started: bool,
    declared: Vec<Mid>,
    streams: HashMap<(Mid, Option<String>), u32>,
    next_timeout: Instant,
    packets: Vec<(Addresses, Vec<u8>)>,
    pub channels: Vec<(String, ChannelId)>,
    pub data: Vec<String>,
    pub rtp: Vec<RtpPacket>,
}

impl Lower {
    pub fn new(anchor: ClockAnchor, now: Now, address: SocketAddr, controlling: bool) -> Self {
        let start = anchor.instant(now);
        let mut config = RtcConfig::new().set_rtp_mode(true);
        // Retransmissions that a test writes itself: str0m sends only payload types it knows as a codec.
        let (vp8, clock) = (Codec::Vp8, Frequency::NINETY_KHZ);
        config.codec_config().add_config(97.into(), None, vp8, clock, None, FormatParams::default());
        let mut rtc = config.build(start);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate")).expect("added");
        rtc.direct_api().set_ice_controlling(controlling);
        Self {
            rtc,
            anchor,
            address,
            started: false,
            declared: Vec::new(),
            streams: HashMap::new(),
            next_timeout: start,
            packets: Vec::new(),
            channels: Vec::new(),
            data: Vec::new(),
            rtp: Vec::new(),
        }
    }

    /// Our side for a description.
    pub fn parameters(&mut self) -> RemoteParameters {
        let direct = self.rtc.direct_api();
        let creds = direct.local_ice_credentials();
        let fingerprint = direct.local_dtls_fingerprint().to_string();
        RemoteParameters {
            ufrag: creds.ufrag,
            password: Redacted::new(creds.pass),
            fingerprint: Fingerprint::parse(&fingerprint).expect("a fingerprint"),
            setup: Setup::Active,
        }
    }

    /// Takes the server's description: its parameters, and the streams it announces.
    pub fn set_remote(&mut self, description: &SessionDescription) {
        let remote = RemoteTransport::read(description).expect("usable").parameters;
        let mut direct = self.rtc.direct_api();
        if !self.started {
            self.started = true;
            let pass = remote.password.reveal().clone();
            direct.set_remote_ice_credentials(IceCreds { ufrag: remote.ufrag, pass });
            direct.set_remote_fingerprint(remote.fingerprint.to_string().parse().expect("a fingerprint"));
            direct.start_dtls(true).expect("DTLS starts");
            direct.start_sctp(true);
        }
        for section in description.sections() {
            let kind = match section.kind() {
                SdpKind::Audio => Kind::Audio,
                SdpKind::Video => Kind::Video,
                _ => continue,
            };
            let ssrcs = section.ssrcs();
            let Some(ssrc) = ssrcs.first() else { continue };
            let mid = self.declare(section.mid().expect("a mid"), kind);
            let rtx = ssrcs.get(1).map(|ssrc| Ssrc::from(*ssrc));
            self.rtc.direct_api().expect_stream_rx((*ssrc).into(), rtx, mid, None);
        }
    }

    fn declare(&mut self, mid: &str, kind: Kind) -> Mid {
        let mid: Mid = mid.into();
        if !self.declared.contains(&mid) {
            let kind = if kind == Kind::Audio { MediaKind::Audio } else { MediaKind::Video };
            self.rtc.direct_api().declare_media(mid, kind);
            self.declared.push(mid);
        }
        mid
    }

    pub fn add_remote_candidate(&mut self, line: &str) {
        if let Ok(candidate) = Candidate::from_sdp_string(line) {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    pub fn open_channel(&mut self, label: &str, ordered: bool) -> ChannelId {
        let reliability =
            if ordered { Reliability::Reliable } else { Reliability::MaxRetransmits { retransmits: 0 } };
        let label = label.to_owned();
        let config = ChannelConfig { label: label.clone(), ordered, reliability, ..ChannelConfig::default() };
        let id = self.rtc.direct_api().create_data_channel(config);
        self.channels.push((label, id));
        id
    }

    pub fn send_data(&mut self, now: Now, label: &str, text: &str) {
        let known = self.channels.iter().find(|(known, _)| known == label).map(|(_, id)| *id);
        let mut channel = self.rtc.channel(known.expect("a channel")).expect("it is open");
        assert!(channel.write(true, text.as_bytes()).expect("written"));
        self.tick(now);
    }

    pub fn send_rtp(
        &mut self,
        now: Now,
        (mid, kind): (&str, Kind),
        stream: (u32, Option<&str>),
        sequence: u16,
    ) {
        let (payload_type, payload): (u8, &[u8]) = match kind {
            Kind::Audio => (111, &[0xfc, 1, 2, 3]),
            // S bit, then a key frame header of 16 × 16.
            Kind::Video => (96, &[0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 16, 0, 16, 0, 9]),
        };
        self.send_payload(now, (mid, kind), stream, sequence, (payload_type, payload));
    }

    /// A retransmission (RFC 4588) of the packet with this number, on a stream of any SSRC.
    pub fn send_repair(&mut self, now: Now, mid: &str, ssrc: u32, (sequence, original): (u16, u16)) {
        let [high, low] = original.to_be_bytes();
        let payload = [high, low, 0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 16, 0, 16, 0, 9];
        self.send_payload(now, (mid, Kind::Video), (ssrc, None), sequence, (97, &payload));
    }

    fn send_payload(
        &mut self,
        now: Now,
        (mid, kind): (&str, Kind),
        (ssrc, rid): (u32, Option<&str>),
        sequence: u16,
        (payload_type, payload): (u8, &[u8]),
    ) {
        let mid = self.declare(mid, kind);
        // str0m never comes to rest with two streams of one layer.
        let before = self.streams.insert((mid, rid.map(str::to_owned)), ssrc);
        if let Some(before) = before.filter(|before| *before != ssrc) {
            self.rtc.direct_api().remove_stream_tx(before.into());
        }
        let mut direct = self.rtc.direct_api();
        if direct.stream_tx(&ssrc.into()).is_none() {
            direct.declare_stream_tx(ssrc.into(), None, mid, rid.map(Into::into));
        }
        let instant = self.anchor.instant(now);
        let (sequence, time) = (u64::from(sequence).into(), u32::from(sequence) * 960);
        let rtp = RtpWrite::new(payload_type.into(), sequence, time, instant, payload.to_vec()).marker(true);
        direct.stream_tx(&ssrc.into()).expect("declared").write_rtp(rtp);
        self.tick(now);
    }

    pub fn owns(&self, address: SocketAddr) -> bool {
        self.address == address
    }

    pub fn deadline(&self) -> Mono {
        if self.started { self.anchor.mono(self.next_timeout) } else { Mono::NEVER }
    }

    pub fn tick(&mut self, now: Now) {
        if self.started && self.rtc.is_alive() {
            self.rtc.handle_input(Input::Timeout(self.anchor.instant(now))).expect("alive");
            self.drain();
        }
    }

    pub fn receive(&mut self, now: Now, addresses: Addresses, bytes: &[u8]) {
        if !self.rtc.is_alive() {
            return;
        }
        let Ok(receive) = Receive::new(StrProtocol::Udp, addresses.remote, addresses.local, bytes) else {
            return;
        };
        self.rtc.handle_input(Input::Receive(self.anchor.instant(now), receive)).expect("accepted");
        self.drain();
    }

    fn drain(&mut self) {
        while self.rtc.is_alive() {
            match self.rtc.poll_output().expect("alive") {
                Output::Timeout(at) => {
                    self.next_timeout = at;
                    break;
                }
                Output::Transmit(transmit) => {
                    let (local, remote) = (transmit.source, transmit.destination);
                    let addresses = Addresses { local, remote, protocol: Protocol::Udp };
                    self.packets.push((addresses, transmit.contents.to_vec()));
                }
                Output::Event(Event::RtpPacket(packet)) => self.rtp.push(packet),
                Output::Event(Event::ChannelOpen(id, label)) => self.channels.push((label, id)),
                Output::Event(Event::ChannelData(data)) => {
                    self.data.push(String::from_utf8(data.data).expect("text"));
                }
                Output::Event(_) => {}
            }
        }
    }

    pub fn take_packets(&mut self) -> Vec<(Addresses, Vec<u8>)> {
        std::mem::take(&mut self.packets)
    }
}
