//! One server with any number of clients, all on our own transports.

use crate::media::{
    DownKey, MediaEvent, Publish, PublishCodec, PublishSsrc, RoomMedia, Subscribe, SubscribeCodec, TrackKey,
    TransportId, Transports,
};
use crate::model::Kind;
use fanlight_base::{Addresses, Mono, Now, Protocol, Random, Redacted, SendBatch};
use fanlight_rtp::header::HeaderWriter;
use fanlight_rtp::{ExtensionForm, ExtensionKind, ExtensionMap, HeaderFields, RtpHeader};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::{
    Certificate, ClockAnchor, DtlsRole, Received, RemoteParameters, RtpOut, Setup, Transport, TransportConfig,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(super) const MS: Duration = Duration::from_millis(1);

/// A packet a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) header: RtpHeader,
    pub(super) sequence: u64,
    pub(super) bytes: Vec<u8>,
}

impl Got {
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[self.header.header_len..]
    }
}

pub(super) struct Client {
    pub(super) transport: Transport,
    pub(super) id: TransportId,
    address: SocketAddr,
    batch: SendBatch,
    pub(super) rtp: Vec<Got>,
    pub(super) rtcp: Vec<Vec<u8>>,
}

/// Lets a packet through to a client, or not.
type Filter = Box<dyn FnMut(usize, &[u8]) -> bool>;

pub(super) struct World {
    pub(super) now: Now,
    pub(super) media: RoomMedia,
    pub(super) transports: Transports,
    pub(super) clients: Vec<Client>,
    pub(super) batch: SendBatch,
    pub(super) events: Vec<MediaEvent>,
    /// Decides about packets from the server to client n, sealed.
    pub(super) filter: Filter,
    /// Nothing is carried now.
    held: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made without the clock; its value is arbitrary"
)]
fn anchor() -> ClockAnchor {
    ClockAnchor::new(Instant::now(), Mono { ns: 0 })
}

fn server_address(n: usize) -> SocketAddr {
    ([10, 0, 0, 1], 7000 + n as u16).into()
}

impl World {
    /// `count` clients, all connected.
    pub(super) fn new(count: usize) -> Self {
        let anchor = anchor();
        let certificate = Certificate::generate().unwrap();
        let mut world = Self {
            now: Now { mono_ns: 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 },
            media: RoomMedia::new(Random::from_seed([3; 32])),
            transports: Transports::new(),
            clients: Vec::new(),
            batch: SendBatch::new(),
            events: Vec::new(),
            filter: Box::new(|_, _| true),
            held: false,
        };
        for n in 0..count {
            let config = TransportConfig {
                anchor,
                shard: 0,
                ice_lite: false,
                offerer: false,
                role: DtlsRole::Passive,
                certificate: certificate.clone(),
            };
            let make = |offerer, address, seed: [u8; 32]| {
                let config = TransportConfig { offerer, role: DtlsRole::Active, ..config.clone() };
                let mut transport = Transport::new(config, &mut Random::from_seed(seed));
                assert!(transport.add_local_candidate(LocalCandidate::new(address, Protocol::Udp)));
                transport
            };
            let address: SocketAddr = ([10, 0, (n >> 8) as u8, 2 + (n & 0x7f) as u8], 5000 + n as u16).into();
            let mut seed = [n as u8; 32];
            seed[1] = (n >> 8) as u8;
            let mut client = make(true, address, seed);
            seed[2] = 1;
            let mut server = make(false, server_address(n), seed);
            let (ours, theirs) = (parameters(&server, Setup::Passive), parameters(&client, Setup::Active));
            client.set_remote(world.now, &ours).unwrap();
            server.set_remote(world.now, &theirs).unwrap();
            let line = client.local_candidates()[0].attribute(1, client.local_ufrag());
            server.add_remote_candidate(world.now, &line).unwrap();
            let line = server.local_candidates()[0].attribute(1, server.local_ufrag());
            client.add_remote_candidate(world.now, &line).unwrap();
            let id = world.transports.insert(server);
            world.clients.push(Client {
                transport: client,
                id,
                address,
                batch: SendBatch::new(),
                rtp: Vec::new(),
                rtcp: Vec::new(),
            });
        }
        for _ in 0..400 {
            world.step(5 * MS);
            if world.clients.iter().all(|client| client.transport.is_connected())
                && world.clients.iter().all(|client| world.transports.get(client.id).unwrap().is_connected())
            {
                return world;
            }
        }
        panic!("not connected");
    }

    /// Lets time pass and everything that it brings happen.
    pub(super) fn step(&mut self, by: Duration) {
        self.now.mono_ns += by.as_nanos() as u64;
        self.now.unix_ns += by.as_nanos() as u64;
        for client in &mut self.clients {
            if client.transport.poll_timeout().0 <= self.now.mono() {
                client.transport.handle_timeout(self.now, &mut client.batch);
            }
            let server = self.transports.get_mut(client.id).unwrap();
            if server.poll_timeout().0 <= self.now.mono() {
                server.handle_timeout(self.now, &mut self.batch);
            }
        }
        if self.media.next_timeout().0 <= self.now.mono() {
            self.media.handle_timeout(self.now, &mut self.transports, &mut self.batch);
        }
        self.deliver();
    }

    /// Steps of a millisecond.
    pub(super) fn run(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.step(MS));
    }

    /// Has everything that is sent meanwhile arrive in one turn.
    pub(super) fn together(&mut self, send: impl FnOnce(&mut Self)) {
        self.held = true;
        send(self);
        self.held = false;
        self.deliver();
    }

    /// Carries packets until nothing is under way.
    pub(super) fn deliver(&mut self) {
        if self.held {
            return;
        }
        while !self.batch.is_empty() || self.clients.iter().any(|client| !client.batch.is_empty()) {
            self.carry_out();
            for n in 0..self.clients.len() {
                self.carry_in(n);
            }
            while !self.media.flush_part(self.now, &mut self.transports, &mut self.batch) {}
        }
        while let Some(event) = self.media.poll_event() {
            self.events.push(event);
        }
    }

    fn carry_out(&mut self) {
        for run in self.batch.runs() {
            let n = self.clients.iter().position(|client| client.address == run.addresses.remote).unwrap();
            let client = &mut self.clients[n];
            for packet in run.packets() {
                if !(self.filter)(n, packet) {
                    continue;
                }
                let mut bytes = packet.to_vec();
                let addresses = Addresses {
                    local: run.addresses.remote,
                    remote: run.addresses.local,
                    protocol: Protocol::Udp,
                };
                match client.transport.handle_datagram(self.now, addresses, &mut bytes, &mut client.batch) {
                    Received::Rtp(rtp) => client.rtp.push(Got {
                        header: rtp.header,
                        sequence: rtp.extended_sequence,
                        bytes: rtp.packet.to_vec(),
                    }),
                    Received::Rtcp(rtcp) => client.rtcp.push(rtcp.to_vec()),
                    Received::Check | Received::Nothing(_) => {}
                }
            }
        }
        self.batch.clear();
    }

    /// Has what client `n` has sent arrive.
    pub(super) fn carry_in(&mut self, n: usize) {
        let (id, batch) = {
            let client = &mut self.clients[n];
            (client.id, std::mem::take(&mut client.batch))
        };
        for run in batch.runs() {
            let addresses = Addresses {
                local: run.addresses.remote,
                remote: run.addresses.local,
                protocol: Protocol::Udp,
            };
            for packet in run.packets() {
                let mut bytes = packet.to_vec();
                let transport = self.transports.get_mut(id).unwrap();
                match transport.handle_datagram(self.now, addresses, &mut bytes, &mut self.batch) {
                    Received::Rtp(rtp) => self.media.handle_rtp(
                        self.now,
                        &mut self.transports,
                        id,
                        &rtp.header,
                        rtp.packet,
                        rtp.extended_sequence,
                        &mut self.batch,
                    ),
                    Received::Rtcp(rtcp) => {
                        self.media.handle_rtcp(self.now, &mut self.transports, id, rtcp, &mut self.batch);
                    }
                    Received::Check | Received::Nothing(_) => {}
                }
            }
        }
    }

    /// Client `n` sends a packet, which is forwarded at once.
    pub(super) fn send(&mut self, n: usize, rtp: &Outgoing<'_>) {
        let client = &mut self.clients[n];
        let mut buffer = [0; 128];
        let fields = HeaderFields {
            marker: rtp.marker,
            has_padding: rtp.padding > 0,
            payload_type: rtp.payload_type,
            sequence: rtp.sequence as u16,
            timestamp: rtp.timestamp,
            ssrc: rtp.ssrc,
        };
        let mut writer = HeaderWriter::new(&mut buffer, fields, ExtensionForm::OneByte);
        for (id, value) in rtp.extensions {
            writer.element(*id, value).unwrap();
        }
        writer.transport_cc(TRANSPORT_CC).unwrap();
        let written = writer.finish().unwrap();
        let out = RtpOut {
            header: &buffer[..written.len],
            prefix: &[],
            payload: rtp.payload,
            padding_bytes: rtp.padding,
            extended_sequence: rtp.sequence,
            transport_cc_offset: written.transport_cc_offset,
            abs_send_time_offset: None,
        };
        client.transport.send_rtp(self.now, &mut client.batch, &out).unwrap();
        self.deliver();
    }

    /// Client `n` sends RTCP.
    pub(super) fn send_rtcp(&mut self, n: usize, compound: &[u8]) {
        let client = &mut self.clients[n];
        assert!(client.transport.send_rtcp(&mut client.batch, compound));
        self.deliver();
    }

    /// A VP8 track of client `n` with these RIDs.
    pub(super) fn publish_video(&mut self, n: usize, rids: &[&str]) -> TrackKey {
        self.publish_line(n, rids, "1", SSRC)
    }

    /// A VP8 track on an m-line of its own.
    pub(super) fn publish_line(&mut self, n: usize, rids: &[&str], mid: &str, ssrc: u32) -> TrackKey {
        let ssrcs = if rids.is_empty() {
            vec![PublishSsrc { ssrc, repair_ssrc: Some(ssrc + 1), spatial: 0 }]
        } else {
            Vec::new()
        };
        self.media.publish(
            self.now,
            Publish {
                transport: self.clients[n].id,
                kind: Kind::Video,
                mid: mid.to_owned(),
                codecs: vec![PublishCodec {
                    payload_type: 96,
                    rtx_payload_type: Some(97),
                    mime: "video/VP8".to_owned(),
                    clock_rate: 90_000,
                    nack: true,
                }],
                extensions: extensions(),
                rids: rids.iter().map(|&rid| rid.to_owned()).collect(),
                ssrcs,
                transport_cc: true,
            },
        )
    }

    /// An Opus track of client `n`.
    pub(super) fn publish_audio(&mut self, n: usize) -> TrackKey {
        self.media.publish(
            self.now,
            Publish {
                transport: self.clients[n].id,
                kind: Kind::Audio,
                mid: "0".to_owned(),
                codecs: vec![
                    PublishCodec {
                        payload_type: 63,
                        rtx_payload_type: None,
                        mime: "audio/red".to_owned(),
                        clock_rate: 48_000,
                        nack: false,
                    },
                    PublishCodec {
                        payload_type: 111,
                        rtx_payload_type: None,
                        mime: "audio/opus".to_owned(),
                        clock_rate: 48_000,
                        nack: false,
                    },
                ],
                extensions: extensions(),
                rids: Vec::new(),
                ssrcs: Vec::new(),
                transport_cc: true,
            },
        )
    }

    pub(super) fn subscribe(&mut self, n: usize, track: TrackKey, ssrc: u32) -> DownKey {
        let id = self.clients[n].id;
        self.media.subscribe(self.now, subscription(id, track, ssrc)).unwrap()
    }
}

/// What a subscriber of any of the tracks here takes.
pub(super) fn subscription(transport: TransportId, track: TrackKey, ssrc: u32) -> Subscribe {
    let codec = |published, payload_type, rtx_payload_type, strip_red| SubscribeCodec {
        published,
        payload_type,
        rtx_payload_type,
        strip_red,
    };
    Subscribe {
        transport,
        track,
        ssrc,
        rtx_ssrc: Some(ssrc + 1),
        codecs: vec![
            codec(96, 100, Some(101), false),
            codec(111, 109, None, false),
            codec(63, 109, None, true),
        ],
        extensions: extensions(),
        mid: "7".to_owned(),
        cname: "PA_a|TR_b".to_owned(),
        max_spatial: 2,
        enabled: true,
    }
}

/// A packet to send; the transport-wide number is added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) ssrc: u32,
    pub(super) payload_type: u8,
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) extensions: &'a [(u8, &'a [u8])],
    pub(super) payload: &'a [u8],
    pub(super) padding: u8,
}

pub(super) const SSRC: u32 = 0x1111_0000;
pub(super) const MID: u8 = 4;
pub(super) const RID: u8 = 10;
pub(super) const REPAIRED_RID: u8 = 11;
pub(super) const AUDIO_LEVEL: u8 = 1;
pub(super) const TRANSPORT_CC: u8 = 3;

pub(super) fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::new();
    for (id, kind) in [
        (AUDIO_LEVEL, ExtensionKind::AudioLevel),
        (2, ExtensionKind::AbsSendTime),
        (TRANSPORT_CC, ExtensionKind::TransportCc),
        (MID, ExtensionKind::Mid),
        (RID, ExtensionKind::Rid),
        (REPAIRED_RID, ExtensionKind::RepairedRid),
    ] {
        map.set(id, kind).unwrap();
    }
    map
}

fn parameters(transport: &Transport, setup: Setup) -> RemoteParameters {
    RemoteParameters {
        ufrag: transport.local_ufrag().to_owned(),
        password: Redacted::new(transport.local_password().to_owned()),
        fingerprint: transport.fingerprint().clone(),
        setup,
    }
}

/// A VP8 payload: descriptor with 15-bit picture id, TL0PICIDX and KEYIDX, then `len` bytes that name the picture.
pub(super) fn vp8(picture: u16, start: bool, key: bool, len: usize) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let mut payload = vec![0x80 | u8::from(start) << 4, 0xf0, high, low, picture as u8, 0x05];
    payload.push(u8::from(!key));
    payload.extend(std::iter::repeat_n(picture as u8, len));
    payload
}

/// Sends pictures of one layer, two packets each.
#[derive(Debug, Clone)]
pub(super) struct Camera {
    pub(super) ssrc: u32,
    pub(super) rid: Option<&'static str>,
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
    pub(super) picture: u16,
}

impl Camera {
    pub(super) fn new(ssrc: u32, rid: Option<&'static str>) -> Self {
        // A wrap of every number is near.
        Self { ssrc, rid, sequence: 65_520, timestamp: u32::MAX - 5_000, picture: 0x7ffa }
    }

    pub(super) fn picture(&mut self, world: &mut World, n: usize, key: bool) {
        self.packets(world, n, key, &[true, true]);
    }

    /// Sends the packets of a picture; those with `false` are lost on the way.
    pub(super) fn packets(&mut self, world: &mut World, n: usize, key: bool, sent: &[bool]) {
        let rid = self.rid.unwrap_or_default();
        let extensions: &[(u8, &[u8])] = &[(MID, b"1"), (RID, rid.as_bytes())];
        for (index, &sent) in sent.iter().enumerate() {
            let payload = vp8(self.picture, index == 0, key, 40);
            if sent {
                world.send(
                    n,
                    &Outgoing {
                        ssrc: self.ssrc,
                        payload_type: 96,
                        sequence: self.sequence,
                        timestamp: self.timestamp,
                        marker: index == 1,
                        extensions: if self.rid.is_some() { extensions } else { &extensions[..1] },
                        payload: &payload,
                        padding: 0,
                    },
                );
            }
            self.sequence += 1;
        }
        self.picture = (self.picture + 1) & 0x7fff;
        self.timestamp = self.timestamp.wrapping_add(3_000);
    }
}
