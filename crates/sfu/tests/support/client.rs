//! A client: one or two connections, and the answers a client gives by itself.

use super::lower::Lower;
use super::sdp;
use fanlight_base::{Addresses, Mono, Now, PeerKey};
use fanlight_events::Kind;
use fanlight_sfu::input::{Layout, Request, Target};
use fanlight_sfu::output::Signal;
use fanlight_transport::ClockAnchor;
use fanlight_transport::negotiate::RemoteDescription;
use fanlight_transport::sdp::SessionDescription;
use std::net::SocketAddr;
use str0m::rtp::RtpPacket;

/// An m-line after the data channels; its mid is its place plus one.
#[derive(Debug, Clone)]
pub struct Section {
    pub kind: Kind,
    pub sends: bool,
    pub cid: Option<String>,
    pub rids: &'static [&'static str],
    pub no_vp8: bool,
}

impl Section {
    pub const fn receiving(kind: Kind) -> Self {
        Self { kind, sends: false, cid: None, rids: &[], no_vp8: false }
    }

    pub const fn sending(kind: Kind, cid: String) -> Self {
        Self { kind, sends: true, cid: Some(cid), rids: &[], no_vp8: false }
    }

    pub const fn ssrc(index: usize, layer: usize) -> u32 {
        1000 + 10 * index as u32 + layer as u32
    }
}

pub struct Client {
    key: PeerKey,
    layout: Layout,
    anchor: ClockAnchor,
    /// The last byte of its address.
    pub host: u8,
    pub sections: Vec<Section>,
    pub publisher: Option<Lower>,
    pub subscriber: Option<Lower>,
}

impl Client {
    pub fn new(key: PeerKey, layout: Layout, anchor: ClockAnchor) -> Self {
        let sections = if layout == Layout::Single {
            [Kind::Audio, Kind::Video].map(Section::receiving).to_vec()
        } else {
            Vec::new()
        };
        let host = u8::try_from(key.0).expect("a small key");
        Self { key, layout, anchor, host, sections, publisher: None, subscriber: None }
    }

    fn lower(&self, now: Now, target: Target) -> Lower {
        let port = if target == Target::Publisher { 50_000 } else { 50_001 };
        let address: SocketAddr = ([10, 0, 1, self.host], port).into();
        Lower::new(self.anchor, now, address, target == Target::Publisher)
    }

    /// The next offer on the publisher connection.
    pub fn offer(&mut self, now: Now) -> RemoteDescription {
        let mut publisher = self.publisher.take().unwrap_or_else(|| {
            let mut lower = self.lower(now, Target::Publisher);
            lower.open_channel("_reliable", true);
            lower.open_channel("_lossy", false);
            lower.open_channel("other", true);
            lower
        });
        let offer = sdp::offer(&publisher.parameters(), &self.sections);
        self.publisher = Some(publisher);
        offer
    }

    /// What a client does about a signal.
    pub fn hear(&mut self, now: Now, signal: &Signal) -> Vec<Request> {
        match signal {
            Signal::Answer { sdp, .. } => {
                let answer = SessionDescription::parse(&sdp.to_string()).expect("an answer");
                self.publisher.as_mut().expect("it offered").set_remote(&answer);
                Vec::new()
            }
            Signal::Offer { id, sdp, .. } => {
                let offer = SessionDescription::parse(&sdp.to_string()).expect("an offer");
                let mut lower = self.subscriber.take().unwrap_or_else(|| self.lower(now, Target::Subscriber));
                lower.set_remote(&offer);
                let sdp = Box::new(sdp::answer(&lower.parameters(), &offer));
                self.subscriber = Some(lower);
                vec![Request::Answer { id: *id, sdp }]
            }
            Signal::MediaSections { audios, videos } => {
                for (kind, count) in [(Kind::Audio, audios), (Kind::Video, videos)] {
                    self.sections.extend((0..*count).map(|_| Section::receiving(kind)));
                }
                vec![Request::Offer { id: 2, sdp: Box::new(self.offer(now)) }]
            }
            Signal::Trickle { target, candidate, .. } => {
                let lower = match target {
                    Target::Publisher => self.publisher.as_mut(),
                    Target::Subscriber => self.subscriber.as_mut(),
                };
                if let Some(lower) = lower {
                    lower.add_remote_candidate(candidate);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn lowers(&self) -> impl Iterator<Item = &Lower> {
        self.publisher.iter().chain(&self.subscriber)
    }

    fn lowers_mut(&mut self) -> impl Iterator<Item = &mut Lower> {
        self.publisher.iter_mut().chain(&mut self.subscriber)
    }

    pub fn owns(&self, address: SocketAddr) -> bool {
        self.lowers().any(|lower| lower.owns(address))
    }

    pub fn deadline(&self) -> Mono {
        self.lowers().map(Lower::deadline).min().unwrap_or(Mono::NEVER)
    }

    pub fn tick(&mut self, now: Now) {
        for lower in self.lowers_mut().filter(|lower| lower.deadline() <= now.mono()) {
            lower.tick(now);
        }
    }

    pub fn receive(&mut self, now: Now, addresses: Addresses, bytes: &[u8]) {
        if let Some(lower) = self.lowers_mut().find(|lower| lower.owns(addresses.local)) {
            lower.receive(now, addresses, bytes);
        }
    }

    pub fn send_data(&mut self, now: Now, label: &str, text: &str) {
        self.publisher.as_mut().expect("a publisher connection").send_data(now, label, text);
    }

    /// Sends a packet on each layer of the n-th section: one Opus frame or the start of a VP8 key frame.
    pub fn send_rtp(&mut self, now: Now, index: usize, sequence: u16) {
        for layer in 0..self.sections[index].rids.len().max(1) {
            self.send_stream(now, index, layer, sequence);
        }
    }

    /// Sends a packet on one layer; with a number beyond the layers, with another SSRC than before.
    pub fn send_stream(&mut self, now: Now, index: usize, layer: usize, sequence: u16) {
        let Section { kind, rids, .. } = self.sections[index];
        let mid = (index + 1).to_string();
        let publisher = self.publisher.as_mut().expect("a publisher connection");
        let rid = if rids.is_empty() { None } else { rids.get(layer % rids.len()).copied() };
        let stream = (Section::ssrc(index, layer), rid);
        publisher.send_rtp(now, (&mid, kind), stream, sequence);
    }

    /// Repeats a packet of the n-th section on a stream with this SSRC.
    pub fn send_repair(&mut self, now: Now, index: usize, ssrc: u32, numbers: (u16, u16)) {
        let mid = (index + 1).to_string();
        self.publisher.as_mut().expect("a publisher connection").send_repair(now, &mid, ssrc, numbers);
    }

    pub fn data(&self) -> Vec<String> {
        self.lowers().flat_map(|lower| lower.data.clone()).collect()
    }

    pub fn rtp(&self) -> Vec<&RtpPacket> {
        self.lowers().flat_map(|lower| &lower.rtp).collect()
    }

    pub fn take_packets(&mut self) -> Vec<(Addresses, Vec<u8>)> {
        self.lowers_mut().flat_map(Lower::take_packets).collect()
    }
}
