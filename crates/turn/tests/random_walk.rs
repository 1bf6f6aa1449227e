//! Thousands of random steps of many clients: whatever they do, every byte is on one account and nothing is left over.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::{Addresses, Protocol, Random, Redacted};
use fanlight_events::turn::{Leg, LegCounters, TurnEvent};
use fanlight_turn::{Account, ByteQuota, Output, RelayKey, Why, shared_credential};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use support::{Client, UNIX_S, World, addr, config, media};

const PEERS: [&str; 4] = ["9.9.9.9:4000", "9.9.9.9:4001", "8.8.4.4:7882", "10.9.9.9:80"];
const STEPS: usize = 4000;

struct Walk {
    world: World,
    clients: Vec<Client>,
    random: Random,
}

impl Walk {
    fn new(seed: u8) -> Self {
        let mut random = Random::from_seed([seed; 32]);
        let mut config = config();
        config.quotas.user_allocations = 2;
        config.quotas.total_allocations = 9;
        config.quotas.allocation_bps = Some(800_000);
        config.quotas.user_bytes = Some(ByteQuota { bytes: 300_000, window: Duration::from_secs(2000) });
        config.relays.ports.last = 30_011;
        let secret = Redacted::new("north".into());
        let clients = (0..12u16).map(|index| {
            let credential = shared_credential(&secret, &format!("user{}", index / 3), UNIX_S + 100_000);
            let client = Client::of(5000 + index, &credential);
            if random.below(3) == 0 { client.over_tcp() } else { client }
        });
        let clients = clients.collect();
        Self { world: World::new(config), clients, random }
    }

    fn step(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        let peer = PEERS[self.random.below(4) as usize];
        let number = 0x4000 + self.random.below(3) as u16;
        let payload = vec![7; self.random.below(1300) as usize];
        match self.random.below(24) {
            0 => self.challenge(index),
            1 | 2 => self.tell(index, Client::allocate),
            3 if self.random.below(4) == 0 => self.refresh(index, 0),
            3 | 4 => self.refresh(index, 600),
            5 => self.permit_or_bind(index, peer, None),
            6 => self.permit_or_bind(index, peer, Some(number)),
            7..=12 => self.tell(index, |client| client.channel_data(number, &payload)),
            13..=15 => self.tell(index, |client| client.send_indication(peer, &payload)),
            16..=21 => self.peer_sends(peer, &payload),
            22 => self.close(index),
            _ => {
                let seconds = if self.random.below(50) == 0 { 700 } else { 1 };
                self.world.advance_s(seconds);
            }
        }
        self.learn_nonce(index);
        assert!(self.world.relays.len() <= 9 && self.world.server.allocations() <= 9);
        assert_eq!(self.world.relays.len(), self.world.server.allocations());
    }

    /// A stale nonce comes with a fresh one.
    fn learn_nonce(&mut self, index: usize) {
        let client = &mut self.clients[index];
        for bytes in self.world.received(client) {
            if bytes[0] == 1 && bytes[1] & 0x10 != 0 {
                let answer = support::Answer { bytes };
                if answer.code() == 438 {
                    client.nonce = answer.nonce();
                }
            }
        }
    }

    fn challenge(&mut self, index: usize) {
        let bare = self.clients[index].bare(turn_types::message::ALLOCATE, &[]);
        let answers = self.world.send(&self.clients[index], &bare);
        if let Some(bytes) = answers.into_iter().next() {
            self.clients[index].nonce = support::Answer { bytes }.nonce();
        }
    }

    fn tell(&mut self, index: usize, make: impl Fn(&Client) -> Vec<u8>) {
        let bytes = make(&self.clients[index]);
        self.world.send(&self.clients[index], &bytes);
    }

    fn refresh(&mut self, index: usize, lifetime_s: u32) {
        let lifetime = turn_types::attribute::Lifetime::new(lifetime_s);
        self.tell(index, |client| client.signed(turn_types::message::REFRESH, &[&lifetime]));
    }

    fn permit_or_bind(&mut self, index: usize, peer: &str, number: Option<u16>) {
        let id = support::transaction();
        let peer = turn_types::attribute::XorPeerAddress::new(addr(peer), id);
        let bytes = match number.map(turn_types::attribute::ChannelNumber::new) {
            None => self.clients[index].signed_as(turn_types::message::CREATE_PERMISSION, id, &[&peer]),
            Some(number) => {
                self.clients[index].signed_as(turn_types::message::CHANNEL_BIND, id, &[&number, &peer])
            }
        };
        self.world.send(&self.clients[index], &bytes);
    }

    fn peer_sends(&mut self, peer: &str, payload: &[u8]) {
        let relays: Vec<(RelayKey, SocketAddr)> =
            self.world.relays.iter().map(|(key, at)| (*key, *at)).collect();
        if relays.is_empty() {
            return;
        }
        let (key, bind) = relays[self.random.below(relays.len() as u64) as usize];
        let now = self.world.now();
        self.world.out.clear();
        if addr(peer) == media().advertised {
            let relayed = SocketAddr::new(support::NODE.parse().unwrap(), bind.port());
            assert!(self.world.server.handle_from_media(
                now,
                media().local,
                relayed,
                payload,
                &mut self.world.out
            ));
        } else {
            self.world.server.handle_relayed(now, key, addr(peer), payload, &mut self.world.out);
        }
        self.world.drain();
    }

    fn close(&mut self, index: usize) {
        let Addresses { protocol, .. } = self.clients[index].addresses;
        if protocol == Protocol::Tcp && self.random.below(4) == 0 {
            let now = self.world.now();
            self.world.server.handle_closed(now, self.clients[index].addresses);
            self.world.drain();
        }
    }
}

/// What is known of one allocation: opened, sums of both legs, totals of both legs.
#[derive(Debug, Default)]
struct Story {
    opened: u32,
    deleted: u32,
    sums: [LegCounters; 2],
    totals: [Option<LegCounters>; 2],
}

fn stories(accounts: &[Account]) -> BTreeMap<u64, Story> {
    let mut stories: BTreeMap<u64, Story> = BTreeMap::new();
    for account in accounts {
        let Account::Allocation { name, event, .. } = account else { continue };
        let story = stories.entry(name.id).or_default();
        let at = |leg: &Leg| usize::from(*leg == Leg::Peer);
        match event {
            TurnEvent::Opened { .. } => story.opened += 1,
            TurnEvent::Refreshed { .. } => assert_eq!((story.opened, story.deleted), (1, 0)),
            TurnEvent::Deleted => story.deleted += 1,
            TurnEvent::Traffic(leg, delta) => story.sums[at(leg)] += *delta,
            TurnEvent::Total(leg, total) => story.totals[at(leg)] = Some(*total),
        }
    }
    stories
}

#[test]
fn whatever_clients_do_every_byte_is_accounted_for_and_nothing_is_left() {
    for seed in 1..=4 {
        let mut walk = Walk::new(seed);
        for _ in 0..STEPS {
            walk.step();
        }
        let world = &mut walk.world;
        world.advance_s(8000);
        assert_eq!((world.server.allocations(), world.server.users(), world.relays.len()), (0, 0, 0));
        assert!(matches!(world.server.poll_output(), Output::Timeout(fanlight_base::Mono::NEVER, Why::Idle)));
        let stories = stories(&world.accounts);
        let (mut up, mut down) = (0, 0);
        for (id, story) in &stories {
            assert_eq!((story.opened, story.deleted), (1, 1), "{id}");
            assert_eq!(story.totals, story.sums.map(Some), "{id}");
            up += story.sums[1].tx_packets;
            down += story.sums[1].rx_packets;
        }
        let counters = world.server.counters();
        assert_eq!(stories.len() as u64, counters.allocations);
        assert_eq!(up, counters.to_peers + counters.to_media);
        assert!(down >= counters.to_clients && counters.to_clients > 100, "{counters:?}");
        assert!(
            up > 100 && counters.allocations > 20 && counters.quota_hits > 0,
            "the walk went somewhere: {counters:?}"
        );
        assert_eq!(counters.outputs_refused, 0);
    }
}
