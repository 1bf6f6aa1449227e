//! Another project's TURN client (`turn-client-proto`) against our server: the two share messages, and no state machine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::{Addresses, Protocol};
use fanlight_turn::framing::Deframer;
use std::net::SocketAddr;
use support::{Client, PEER, UNIX_S, World, addr, api_key, config};
use turn_client_proto::api::{
    Transmit, TransmitBuild, TurnClientApi, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet,
};
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::udp::TurnClientUdp;
use turn_types::{AddressFamily, Instant, TransportType, TurnCredentials};

/// A client library and the way to the server.
struct Foreign<C> {
    client: C,
    addresses: Addresses,
    stream: Deframer,
    events: Vec<String>,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

fn settings() -> TurnConfig {
    let credential = fanlight_turn::participant_credential(&api_key(), &"PA_foreign".into(), UNIX_S + 300);
    TurnConfig::new(TurnCredentials::new(&credential.username, credential.password.reveal()))
}

fn over_udp(settings: TurnConfig) -> Foreign<TurnClientUdp> {
    let addresses = Client::new(7000).addresses;
    let client = TurnClientUdp::allocate(addresses.remote, addresses.local, settings);
    Foreign::new(client, addresses)
}

fn over_tcp(settings: TurnConfig) -> Foreign<TurnClientTcp> {
    let addresses = Addresses { protocol: Protocol::Tcp, ..Client::new(7000).addresses };
    let client = TurnClientTcp::allocate(addresses.remote, addresses.local, settings);
    Foreign::new(client, addresses)
}

impl<C: TurnClientApi> Foreign<C> {
    fn new(client: C, addresses: Addresses) -> Self {
        Self { client, addresses, stream: Deframer::new(), events: Vec::new(), received: Vec::new() }
    }

    fn transport(&self) -> TransportType {
        match self.addresses.protocol {
            Protocol::Udp => TransportType::Udp,
            Protocol::Tcp => TransportType::Tcp,
        }
    }

    /// Lets both talk for `seconds`, in steps of 100 ms.
    fn run(&mut self, world: &mut World, seconds: u64) {
        for _ in 0..seconds * 10 {
            let now = Instant::from_nanos(world.ms as i64 * 1_000_000);
            let _: TurnPollRet = self.client.poll(now);
            while let Some(transmit) = self.client.poll_transmit(now) {
                self.client_sends(world, &transmit.data);
            }
            while let Some(event) = self.client.poll_event() {
                self.events.push(match event {
                    TurnEvent::AllocationCreated(_, relayed) => format!("allocated {}", relayed.ip()),
                    TurnEvent::PermissionCreated(_, ip) => format!("permitted {ip}"),
                    TurnEvent::ChannelCreated(_, peer) => format!("bound {peer}"),
                    other => format!("{other:?}"),
                });
            }
            world.ms += 100;
            let time = world.now();
            world.server.handle_timeout(time, &mut world.out);
            world.drain();
        }
    }

    fn client_sends(&mut self, world: &mut World, bytes: &[u8]) {
        let now = world.now();
        world.out.clear();
        match self.addresses.protocol {
            Protocol::Udp => world.server.handle_datagram(now, self.addresses, bytes, &mut world.out),
            Protocol::Tcp => {
                self.stream.push(bytes);
                while let Some(frame) = self.stream.next_frame().unwrap() {
                    world.server.handle_stream_frame(now, self.addresses, None, frame, &mut world.out);
                }
            }
        }
        world.drain();
        self.client_receives(world);
    }

    fn client_receives(&mut self, world: &World) {
        let now = Instant::from_nanos(world.ms as i64 * 1_000_000);
        let runs = world.out.clients.runs().iter().filter(|run| run.addresses == self.addresses);
        for packet in runs.flat_map(|run| run.packets()) {
            let Addresses { local, remote, .. } = self.addresses;
            let transmit = Transmit::new(packet.to_vec(), self.transport(), local, remote);
            match self.client.recv(transmit, now) {
                TurnRecvRet::PeerData(data) => self.received.push((data.peer, data.data().to_vec())),
                TurnRecvRet::Handled => {}
                other => panic!("the client does not know {other:?}"),
            }
            while let Some(data) = self.client.poll_recv(now) {
                self.received.push((data.peer, data.data().to_vec()));
            }
        }
    }

    fn send(&mut self, world: &mut World, peer: &str, payload: &[u8]) {
        let now = Instant::from_nanos(world.ms as i64 * 1_000_000);
        let built = self.client.send_to(TransportType::Udp, addr(peer), payload.to_vec(), now).unwrap();
        let bytes = built.map(|transmit: TransmitBuild<_>| {
            use turn_types::prelude::DelayedTransmitBuild;
            transmit.data.build()
        });
        if let Some(bytes) = bytes {
            self.client_sends(world, &bytes);
        }
    }
}

fn relays_both_ways<C: TurnClientApi>(mut foreign: Foreign<C>) {
    let mut world = World::new(config());
    foreign.run(&mut world, 1);
    assert_eq!(foreign.events, ["allocated 8.8.4.4"]);
    let now = Instant::from_nanos(world.ms as i64 * 1_000_000);
    foreign.client.create_permission(TransportType::Udp, addr(PEER).ip(), now).unwrap();
    foreign.run(&mut world, 1);
    assert_eq!(foreign.events.pop().as_deref(), Some("permitted 9.9.9.9"));
    foreign.send(&mut world, PEER, b"indication");
    assert_eq!(world.to_peers()[0].2, b"indication");
    world.relayed(PEER, b"data");
    foreign.client_receives(&world);

    let now = Instant::from_nanos(world.ms as i64 * 1_000_000);
    foreign.client.bind_channel(TransportType::Udp, addr(PEER), now).unwrap();
    foreign.run(&mut world, 1);
    assert_eq!(foreign.events.pop().as_deref(), Some("bound 9.9.9.9:4000"));
    // Payload of four or eight bytes: over TCP this client leaves out the padding that RFC 8656 §12.5 wants.
    foreign.send(&mut world, PEER, b"channels");
    assert_eq!(world.to_peers()[0].2, b"channels");
    world.relayed(PEER, b"back");
    foreign.client_receives(&world);
    assert_eq!(foreign.received, [(addr(PEER), b"data".to_vec()), (addr(PEER), b"back".to_vec())]);

    // Refreshes of allocation, permission and channel, each after its time, through several stale nonces.
    foreign.run(&mut world, 1900);
    assert_eq!(world.server.allocations(), 1);
    foreign.send(&mut world, PEER, b"later on");
    assert_eq!(world.to_peers()[0].2, b"later on");
    assert!(world.server.counters().errors(438) >= 2);

    let now = Instant::from_nanos(world.ms as i64 * 1_000_000);
    foreign.client.delete(now).unwrap();
    foreign.run(&mut world, 1);
    assert_eq!((world.server.allocations(), world.relays.len()), (0, 0));
}

#[test]
fn another_projects_client_relays_over_udp() {
    relays_both_ways(over_udp(settings()));
}

#[test]
fn another_projects_client_relays_over_tcp() {
    relays_both_ways(over_tcp(settings()));
}

#[test]
fn another_projects_client_gets_both_address_families() {
    let mut wanted = settings();
    wanted.add_address_family(AddressFamily::IPV6);
    let mut foreign = over_udp(wanted);
    let mut world = World::new(config());
    foreign.run(&mut world, 1);
    foreign.events.sort();
    assert_eq!(foreign.events, ["allocated 2600::1", "allocated 8.8.4.4"]);
}
