//! The TURN server's core without sockets: processor time of a relayed packet, and memory after a million allocations.

use crate::Failure;
use crate::cpu::Stopwatch;
use crate::figures::{lower_quartile, print};
use crate::process::resident_bytes;
use crate::turn_client::{Client, REALM, SECRET, channel_data, is_success, send_indication};
use fanlight_base::{Addresses, Now, Protocol, Random, Redacted, SendBatch};
use fanlight_turn::{
    Config, Credentials, MediaSocket, NodeAddresses, Outgoing, Output, PeerRules, PortRange, Quotas,
    RelayAddress, RelayKey, Relays, TurnServer,
};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

/// Allocations that are open while it measures; packets come for one after the other.
const OPEN: u16 = 1_000;
/// Packets of one client in a turn, as receive offload brings them.
const TURN_PACKETS: usize = 8;
const SAMPLE_TURNS: usize = 2_000;
const SAMPLES: usize = 25;
/// A payload of Opus and one of video.
const PAYLOADS: [usize; 2] = [160, 1_200];
/// Allocations made and ended, after as many to warm up as are there at one time, many times over.
const ENDED: usize = 1_000_000;
const WARM_UP: usize = 100_000;

const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const ADVERTISED: Ipv4Addr = Ipv4Addr::new(8, 8, 4, 4);
const PEER: (Ipv4Addr, u16) = (Ipv4Addr::new(9, 9, 9, 9), 4_000);
const MEDIA_PORT: u16 = 7_882;
const UNIX_S: u64 = 1_800_000_000;
const EXPIRES_UNIX_S: u64 = UNIX_S + 86_400;

/// Figures of relayed packets.
pub(crate) fn packets() -> Result<(), Failure> {
    let mut world = World::new()?;
    let (peer, media) = (SocketAddr::from(PEER), SocketAddr::from((ADVERTISED, MEDIA_PORT)));
    let clients = world.clients(OPEN)?;
    for client in &clients {
        world.allocate(client)?;
        world.granted(client, client.bind(peer)?)?;
    }
    print("turn.core.allocations", f64::from(OPEN), "allocations");
    for bytes in PAYLOADS {
        let payload = vec![0x5a; bytes];
        let channel = channel_data(&payload)?;
        let up = world.deliver_from_clients(&clients, &channel, |out| &out.peers)?;
        print(&format!("turn.core.channel.to_peer_ns.{bytes}"), up, "ns");
        let down = world.deliver_from_peers(&payload)?;
        print(&format!("turn.core.channel.to_client_ns.{bytes}"), down, "ns");
    }
    // Without a channel.
    let mut world = World::new()?;
    let clients = world.clients(OPEN)?;
    for client in &clients {
        world.allocate(client)?;
        world.granted(client, client.permit(peer)?)?;
    }
    for bytes in PAYLOADS {
        let payload = vec![0x5a; bytes];
        let indication = send_indication(peer, &payload)?;
        let up = world.deliver_from_clients(&clients, &indication, |out| &out.peers)?;
        print(&format!("turn.core.send.to_peer_ns.{bytes}"), up, "ns");
        let down = world.deliver_from_peers(&payload)?;
        print(&format!("turn.core.send.to_client_ns.{bytes}"), down, "ns");
    }
    // To the node's own media, as participants send.
    let mut world = World::new()?;
    let clients = world.clients(OPEN)?;
    for client in &clients {
        world.allocate(client)?;
        world.granted(client, client.bind(media)?)?;
    }
    for bytes in PAYLOADS {
        let payload = vec![0x5a; bytes];
        let channel = channel_data(&payload)?;
        let up = world.deliver_from_clients(&clients, &channel, |out| &out.media)?;
        print(&format!("turn.core.media.to_media_ns.{bytes}"), up, "ns");
        let down = world.deliver_from_media(&payload)?;
        print(&format!("turn.core.media.to_client_ns.{bytes}"), down, "ns");
    }
    Ok(())
}

/// Memory before and after a million allocations, in a process of its own.
pub(crate) fn ended() -> Result<(), Failure> {
    let mut world = World::new()?;
    let clients = world.clients(OPEN)?;
    world.live_and_end(&clients, WARM_UP)?;
    let before = resident_bytes(std::process::id())?;
    let mut watch = Stopwatch::new();
    watch.start();
    world.live_and_end(&clients, ENDED)?;
    watch.stop();
    let after = resident_bytes(std::process::id())?;
    if world.server.allocations() != 0 {
        return Err(format!("{} allocations are left", world.server.allocations()).into());
    }
    print("turn.core.ended", ENDED as f64, "allocations");
    print("turn.core.ended.before_bytes", before, "bytes");
    print("turn.core.ended.after_bytes", after, "bytes");
    print("turn.core.ended.growth_bytes", (after - before) / ENDED as f64, "bytes");
    print("turn.core.ended.cpu_us", watch.take() as f64 / ENDED as f64 / 1e3, "us");
    Ok(())
}

/// A server, its relays' sockets and its clock.
struct World {
    server: TurnServer,
    out: Outgoing,
    us: u64,
    relays: BTreeMap<RelayKey, SocketAddr>,
}

impl World {
    fn new() -> Result<Self, Failure> {
        let secret = Some(Redacted::new(SECRET.to_owned()));
        let media =
            MediaSocket { advertised: (ADVERTISED, MEDIA_PORT).into(), local: (NODE, MEDIA_PORT).into() };
        let config = Config {
            realm: REALM.into(),
            credentials: Credentials { participants: Vec::new(), static_auth_secret: secret },
            relays: Relays {
                v4: Some(RelayAddress { bind: NODE, advertised: ADVERTISED }),
                v6: None,
                ports: PortRange { first: 30_000, last: 40_000 },
            },
            peers: PeerRules::default(),
            node: NodeAddresses { own: Vec::new(), media: vec![media] },
            quotas: Quotas::default(),
            first_id: 1,
        };
        let server = TurnServer::new(config, Random::from_seed([7; 32]))?;
        Ok(Self { server, out: Outgoing::new(), us: 1_000_000, relays: BTreeMap::new() })
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.us * 1_000, unix_ns: UNIX_S * 1_000_000_000 + self.us * 1_000 }
    }

    /// Clients with a nonce.
    fn clients(&mut self, count: u16) -> Result<Vec<Client>, Failure> {
        let mut clients = Vec::new();
        for number in 0..count {
            // Each from a network of its own: challenges are limited by network.
            let [high, low] = number.to_be_bytes();
            let remote = SocketAddr::from(([198, high, low, 7], 50_000));
            let addresses = Addresses { local: (NODE, 3_478).into(), remote, protocol: Protocol::Udp };
            let mut client = Client::new(addresses, &format!("user-{number}"), EXPIRES_UNIX_S);
            let question = client.ask_nonce()?;
            let answer = self.ask(&client, &question)?;
            client.take_nonce(&answer)?;
            clients.push(client);
        }
        Ok(clients)
    }

    fn allocate(&mut self, client: &Client) -> Result<(), Failure> {
        self.granted(client, client.allocate()?)
    }

    fn granted(&mut self, client: &Client, request: Vec<u8>) -> Result<(), Failure> {
        let answer = self.ask(client, &request)?;
        if is_success(&answer) { Ok(()) } else { Err("a request was refused".into()) }
    }

    fn ask(&mut self, client: &Client, request: &[u8]) -> Result<Vec<u8>, Failure> {
        self.out.clear();
        self.server.handle_datagram(self.now(), client.addresses, request, &mut self.out);
        self.drain();
        let packet = self.out.clients.runs().iter().find_map(|run| run.packets().next());
        Ok(packet.ok_or("no answer")?.to_vec())
    }

    /// Opens and closes what the server wants; the accounting is somebody else's.
    fn drain(&mut self) {
        let now = self.now();
        loop {
            match self.server.poll_output() {
                Output::OpenRelay { key, address } => {
                    self.relays.insert(key, address);
                    self.server.handle_relay_opened(now, key, &mut self.out);
                }
                Output::CloseRelay { key } => _ = self.relays.remove(&key),
                Output::Account(account) => _ = black_box(account),
                Output::Timeout(..) => return,
            }
        }
    }

    fn deliver_from_clients(
        &mut self,
        clients: &[Client],
        packet: &[u8],
        target: fn(&Outgoing) -> &SendBatch,
    ) -> Result<f64, Failure> {
        self.samples(clients, target, |server, now, client, out| {
            server.handle_datagram(now, client.addresses, black_box(packet), out);
        })
    }

    fn deliver_from_peers(&mut self, payload: &[u8]) -> Result<f64, Failure> {
        let keys: Vec<RelayKey> = self.relays.keys().copied().collect();
        let peer = SocketAddr::from(PEER);
        self.samples(
            &keys,
            |out| &out.clients,
            |server, now, key, out| {
                server.handle_relayed(now, *key, peer, black_box(payload), out);
            },
        )
    }

    fn deliver_from_media(&mut self, payload: &[u8]) -> Result<f64, Failure> {
        let relayed: Vec<SocketAddr> =
            self.relays.values().map(|bound| SocketAddr::new(ADVERTISED.into(), bound.port())).collect();
        let media = SocketAddr::from((NODE, MEDIA_PORT));
        self.samples(
            &relayed,
            |out| &out.clients,
            |server, now, relayed, out| {
                server.handle_from_media(now, media, *relayed, black_box(payload), out);
            },
        )
    }

    /// Nanoseconds for a packet: `give` hands one over; all of them have to come out at `target`.
    fn samples<T>(
        &mut self,
        from: &[T],
        target: fn(&Outgoing) -> &SendBatch,
        give: impl Fn(&mut TurnServer, Now, &T, &mut Outgoing),
    ) -> Result<f64, Failure> {
        let mut watch = Stopwatch::new();
        let mut samples = Vec::new();
        let mut next = from.iter().cycle();
        for _ in 0..SAMPLES {
            let mut relayed = 0;
            watch.start();
            for _ in 0..SAMPLE_TURNS {
                let one = next.next().ok_or("nobody sends")?;
                self.us += 10;
                let now = self.now();
                self.out.clear();
                for _ in 0..TURN_PACKETS {
                    give(&mut self.server, now, one, &mut self.out);
                }
                self.server.handle_timeout(now, &mut self.out);
                self.drain();
                relayed += target(&self.out).runs().iter().map(|run| run.segments()).sum::<usize>();
            }
            watch.stop();
            let packets = SAMPLE_TURNS * TURN_PACKETS;
            if relayed != packets {
                return Err(format!("{relayed} of {packets} packets were relayed").into());
            }
            samples.push(watch.take() as f64 / packets as f64);
        }
        Ok(lower_quartile(samples))
    }

    fn live_and_end(&mut self, clients: &[Client], allocations: usize) -> Result<(), Failure> {
        let mut requests = Vec::new();
        for client in clients {
            requests.push((client, client.allocate()?, client.release()?));
        }
        for _ in 0..allocations / clients.len() {
            for (client, allocate, _) in &requests {
                self.us += 10;
                let answer = self.ask(client, allocate)?;
                if !is_success(&answer) {
                    return Err("an allocation was refused".into());
                }
            }
            for (client, _, release) in &requests {
                self.us += 10;
                let answer = self.ask(client, release)?;
                if !is_success(&answer) {
                    return Err("a release was refused".into());
                }
            }
            let now = self.now();
            self.server.handle_timeout(now, &mut self.out);
            self.drain();
        }
        Ok(())
    }
}
