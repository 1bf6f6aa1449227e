//! A client: one or two transports, and the answers a client gives by itself.

use super::sdp;
use fanlight_base::{Addresses, Mono, Now, PeerKey, Protocol, Random, SendBatch};
use fanlight_events::Kind;
use fanlight_sfu::input::{Layout, Request, Target};
use fanlight_sfu::output::Signal;
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::negotiate::RemoteTransport;
use fanlight_transport::sdp::SessionDescription;
use fanlight_transport::{
    Certificate, ChannelId, ClockAnchor, DtlsRole, Received, Reliability, RtpOut, Transport, TransportConfig,
    TransportEvent,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// An m-line after the data channels; its mid is its place plus one.
#[derive(Debug, Clone)]
pub struct Section {
    pub kind: Kind,
    pub sends: bool,
    pub cid: Option<String>,
}

impl Section {
    pub const fn ssrc(index: usize) -> u32 {
        1000 + index as u32
    }
}

pub struct Client {
    key: PeerKey,
    layout: Layout,
    anchor: ClockAnchor,
    pub sections: Vec<Section>,
    pub publisher: Option<Transport>,
    pub subscriber: Option<Transport>,
    /// Answers offers and requirements by itself.
    pub answers: bool,
    pub channels: BTreeMap<String, (Target, ChannelId)>,
    pub data: Vec<String>,
    /// RTP packets with their headers, as they came.
    pub rtp: Vec<Vec<u8>>,
    pub rtcp: Vec<Vec<u8>>,
    batch: SendBatch,
}

impl Client {
    pub fn new(key: PeerKey, layout: Layout, anchor: ClockAnchor) -> Self {
        let sections = if layout == Layout::Single {
            [Kind::Audio, Kind::Video].map(|kind| Section { kind, sends: false, cid: None }).to_vec()
        } else {
            Vec::new()
        };
        Self {
            key,
            layout,
            anchor,
            sections,
            publisher: None,
            subscriber: None,
            answers: true,
            channels: BTreeMap::new(),
            data: Vec::new(),
            rtp: Vec::new(),
            rtcp: Vec::new(),
            batch: SendBatch::new(),
        }
    }

    fn address(&self, target: Target) -> SocketAddr {
        let peer = u8::try_from(self.key.0).expect("a small key");
        let port = if target == Target::Publisher { 50_000 } else { 50_001 };
        ([10, 0, 1, peer], port).into()
    }

    pub fn owns(&self, address: SocketAddr) -> bool {
        [Target::Publisher, Target::Subscriber].into_iter().any(|target| self.address(target) == address)
    }

    fn transport(&self, target: Target) -> Transport {
        let config = TransportConfig {
            anchor: self.anchor,
            ice_lite: false,
            offerer: target == Target::Publisher,
            role: DtlsRole::Active,
            certificate: Certificate::generate().expect("a certificate"),
        };
        let seed = u8::try_from(self.key.0).expect("a small key");
        let mut transport = Transport::new(config, &mut Random::from_seed([seed ^ (target as u8 * 128); 32]));
        transport.add_local_candidate(LocalCandidate::new(self.address(target), Protocol::Udp));
        transport
    }

    /// The next offer on the publisher connection.
    pub fn offer(&mut self) -> SessionDescription {
        if self.publisher.is_none() {
            let mut transport = self.transport(Target::Publisher);
            if self.layout == Layout::Single {
                let now = Now { mono_ns: 0, unix_ns: 0 };
                let channels =
                    [("_reliable", true, Reliability::Reliable), ("_lossy", false, Reliability::Retransmits(0))];
                for (label, ordered, reliability) in channels {
                    let id = transport.open_data_channel(now, label, ordered, reliability).expect("a channel");
                    self.channels.insert(label.to_owned(), (Target::Publisher, id));
                }
            }
            self.publisher = Some(transport);
        }
        sdp::offer(self.publisher.as_ref().expect("a transport"), &self.sections)
    }

    /// What a client does about a signal.
    pub fn hear(&mut self, now: Now, signal: &Signal) -> Vec<Request> {
        if !self.answers {
            return Vec::new();
        }
        match signal {
            Signal::Answer { sdp, .. } => {
                let remote = RemoteTransport::read(&SessionDescription::parse(sdp).expect("an answer"));
                let transport = self.publisher.as_mut().expect("it offered");
                transport.set_remote(now, &remote.expect("usable").parameters).expect("usable");
                Vec::new()
            }
            Signal::Offer { id, sdp, .. } => {
                let offer = SessionDescription::parse(sdp).expect("an offer");
                let remote = RemoteTransport::read(&offer).expect("usable");
                let mut transport = self.subscriber.take().unwrap_or_else(|| self.transport(Target::Subscriber));
                transport.set_remote(now, &remote.parameters).expect("usable");
                let sdp = Box::new(sdp::answer(&transport, &offer));
                self.subscriber = Some(transport);
                vec![Request::Answer { id: *id, sdp }]
            }
            Signal::MediaSections { audios, videos } => {
                for (kind, count) in [(Kind::Audio, audios), (Kind::Video, videos)] {
                    self.sections.extend((0..*count).map(|_| Section { kind, sends: false, cid: None }));
                }
                vec![Request::Offer { id: 2, sdp: Box::new(self.offer()) }]
            }
            Signal::Trickle { target, candidate, .. } => {
                let transport = match target {
                    Target::Publisher => self.publisher.as_mut(),
                    Target::Subscriber => self.subscriber.as_mut(),
                };
                if let Some(transport) = transport {
                    let _ = transport.add_remote_candidate(now, candidate);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    pub fn deadline(&self) -> Mono {
        let transports = self.publisher.iter().chain(&self.subscriber);
        transports.map(|transport| transport.poll_timeout().0).min().unwrap_or(Mono::NEVER)
    }

    pub fn tick(&mut self, now: Now) {
        for transport in self.publisher.iter_mut().chain(&mut self.subscriber) {
            if transport.poll_timeout().0 <= now.mono() {
                transport.handle_timeout(now, &mut self.batch);
            }
        }
        self.events();
    }

    pub fn receive(&mut self, now: Now, addresses: Addresses, bytes: &mut [u8]) {
        let target = if addresses.local.port() == 50_000 { &mut self.publisher } else { &mut self.subscriber };
        let Some(transport) = target else { return };
        match transport.handle_datagram(now, addresses, bytes, &mut self.batch) {
            Received::Rtp(rtp) => self.rtp.push(rtp.packet.to_vec()),
            Received::Rtcp(rtcp) => self.rtcp.push(rtcp.to_vec()),
            Received::Nothing(_) => {}
        }
        self.events();
    }

    fn events(&mut self) {
        for (target, transport) in
            [(Target::Publisher, &mut self.publisher), (Target::Subscriber, &mut self.subscriber)]
        {
            while let Some(event) = transport.as_mut().and_then(Transport::poll_event) {
                match event {
                    TransportEvent::DataChannelOpen { id, label, .. } => {
                        self.channels.insert(label, (target, id));
                    }
                    TransportEvent::Data { bytes, .. } => {
                        self.data.push(String::from_utf8(bytes).expect("text"));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Sends on a channel; in v0 the publisher's, opened when it is first used.
    pub fn send_data(&mut self, now: Now, label: &str, text: &str) {
        let transport = self.publisher.as_mut().expect("a publisher connection");
        let open = self.channels.get(label).filter(|(target, _)| *target == Target::Publisher).map(|(_, id)| *id);
        let id = open.unwrap_or_else(|| {
            transport.open_data_channel(now, label, true, Reliability::Reliable).expect("a channel")
        });
        self.channels.insert(label.to_owned(), (Target::Publisher, id));
        transport.send_data(now, &mut self.batch, id, true, text.as_bytes()).expect("sent");
    }

    /// Sends a packet on the n-th section: one Opus frame or the start of a VP8 key frame.
    pub fn send_rtp(&mut self, now: Now, index: usize, sequence: u16) {
        let section = &self.sections[index];
        let (payload_type, payload): (u8, &[u8]) = match section.kind {
            Kind::Audio => (111, &[0xfc, 1, 2, 3]),
            // S bit, then a key frame header of 16 × 16.
            Kind::Video => (96, &[0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 16, 0, 16, 0, 9]),
        };
        let mut header = vec![0x90, 0x80 | payload_type];
        header.extend(sequence.to_be_bytes());
        header.extend((u32::from(sequence) * 960).to_be_bytes());
        header.extend(Section::ssrc(index).to_be_bytes());
        let mid = (index + 1).to_string();
        let digit = mid.as_bytes()[0];
        header.extend([0xbe, 0xde, 0, 1, 4 << 4, digit, 0, 0]);
        let out = RtpOut {
            header: &header,
            payload,
            padding_bytes: 0,
            extended_sequence: u64::from(sequence),
            transport_cc_offset: None,
            abs_send_time_offset: None,
        };
        let transport = self.publisher.as_mut().expect("a publisher connection");
        transport.send_rtp(now, &mut self.batch, &out).expect("connected");
    }

    pub fn take_packets(&mut self) -> Vec<(Addresses, Vec<u8>)> {
        let runs = self.batch.runs().iter();
        let packets = runs.flat_map(|run| run.packets().map(|packet| (run.addresses, packet.to_vec())));
        let packets = packets.collect();
        self.batch.clear();
        packets
    }
}
