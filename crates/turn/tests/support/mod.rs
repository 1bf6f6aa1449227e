//! A client of its own making, and a shell that opens whatever it is asked to.
#![allow(dead_code, reason = "each test file uses its part")]

use fanlight_base::{Addresses, Now, Protocol, Random, Redacted};
use fanlight_events::turn::TurnEvent;
use fanlight_turn::{
    Account, ApiKey, Config, Credential, Credentials, MediaSocket, NodeAddresses, Outgoing, Output,
    PeerRules, PortRange, Quotas, RelayAddress, RelayKey, Relays, TurnServer, participant_credential,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use stun_types::attribute::AttributeStaticType;
use stun_types::attribute::{AttributeWrite, ErrorCode, MessageIntegrity, Nonce, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType,
    MessageWrite, MessageWriteExt, MessageWriteVec, Method, TransactionId,
};
use turn_types::attribute::{
    ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

pub(crate) const REALM: &str = "livekit";
pub(crate) const UNIX_S: u64 = 1_800_000_000;
/// A peer that may be reached.
pub(crate) const PEER: &str = "9.9.9.9:4000";
/// The node, as the world sees it.
pub(crate) const NODE: &str = "8.8.4.4";

pub(crate) fn api_key() -> ApiKey {
    ApiKey { key: "devkey".into(), secret: Redacted::new("secret".into()) }
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn media() -> MediaSocket {
    MediaSocket { advertised: addr("8.8.4.4:7882"), local: addr("10.0.0.1:7882") }
}

pub(crate) fn config() -> Config {
    let (v4, v6) = ("10.0.0.1".parse().unwrap(), "2600::1".parse().unwrap());
    Config {
        realm: REALM.into(),
        credentials: Credentials {
            participants: vec![api_key()],
            static_auth_secret: Some(Redacted::new("north".into())),
        },
        relays: Relays {
            v4: Some(RelayAddress { bind: v4, advertised: NODE.parse().unwrap() }),
            v6: Some(RelayAddress { bind: v6, advertised: v6 }),
            ports: PortRange { first: 30_000, last: 30_099 },
        },
        peers: PeerRules::default(),
        node: NodeAddresses { own: vec!["127.0.0.1".parse().unwrap()], media: vec![media()] },
        quotas: Quotas::default(),
        first_id: 1,
    }
}

/// A server, its sockets and its clock.
pub(crate) struct World {
    pub(crate) server: TurnServer,
    pub(crate) out: Outgoing,
    pub(crate) ms: u64,
    pub(crate) relays: BTreeMap<RelayKey, SocketAddr>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) refuse_ports: Box<dyn Fn(SocketAddr) -> bool>,
    pub(crate) opens_tried: usize,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            server: TurnServer::new(config, Random::from_seed([7; 32])).unwrap(),
            out: Outgoing::new(),
            ms: 1000,
            relays: BTreeMap::new(),
            accounts: Vec::new(),
            refuse_ports: Box::new(|_| false),
            opens_tried: 0,
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono_ns: self.ms * 1_000_000, unix_ns: UNIX_S * 1_000_000_000 + self.ms * 1_000_000 }
    }

    /// Does what the server wants done.
    pub(crate) fn drain(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::OpenRelay { key, address } => {
                    self.opens_tried += 1;
                    let now = self.now();
                    if (self.refuse_ports)(address) {
                        self.server.handle_relay_refused(now, key, &mut self.out);
                    } else {
                        assert!(
                            !self.relays.values().any(|open| *open == address),
                            "{address} is bound twice"
                        );
                        self.relays.insert(key, address);
                        self.server.handle_relay_opened(now, key, &mut self.out);
                    }
                }
                Output::CloseRelay { key } => {
                    self.relays.remove(&key);
                }
                Output::Account(account) => self.accounts.push(*account),
                Output::Timeout(..) => return,
            }
        }
    }

    /// Lets time pass, timers included.
    pub(crate) fn advance_s(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.ms += 1000;
            let now = self.now();
            self.server.handle_timeout(now, &mut self.out);
            self.drain();
        }
    }

    /// Sends from a client and gives what the client gets.
    pub(crate) fn send(&mut self, client: &Client, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.out.clear();
        let now = self.now();
        match client.addresses.protocol {
            Protocol::Udp => self.server.handle_datagram(now, client.addresses, bytes, &mut self.out),
            Protocol::Tcp => {
                self.server.handle_stream_frame(now, client.addresses, None, bytes, &mut self.out)
            }
        }
        self.drain();
        self.received(client)
    }

    pub(crate) fn received(&self, client: &Client) -> Vec<Vec<u8>> {
        let runs = self.out.clients.runs().iter().filter(|run| run.addresses == client.addresses);
        runs.flat_map(|run| run.packets().map(<[u8]>::to_vec)).collect()
    }

    /// Payload that left for peers: relay's socket, peer, bytes.
    pub(crate) fn to_peers(&self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let runs = self.out.peers.runs().iter();
        runs.flat_map(|run| {
            run.packets().map(|one| (run.addresses.local, run.addresses.remote, one.to_vec()))
        })
        .collect()
    }

    /// Payload that left for media sockets: media socket, relayed address, bytes.
    pub(crate) fn to_media(&self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let runs = self.out.media.runs().iter();
        runs.flat_map(|run| {
            run.packets().map(|one| (run.addresses.local, run.addresses.remote, one.to_vec()))
        })
        .collect()
    }

    /// A request and its one answer.
    pub(crate) fn ask(&mut self, client: &Client, request: &[u8]) -> Answer {
        let answers = self.send(client, request);
        assert_eq!(answers.len(), 1, "one answer");
        assert!(answers[0].len() <= 3 * request.len(), "{} bytes for {}", answers[0].len(), request.len());
        Answer { bytes: answers[0].clone() }
    }

    /// The client gets a nonce.
    pub(crate) fn challenge(&mut self, client: &mut Client) {
        let bare = client.bare(ALLOCATE, &[&RequestedTransport::new(17)]);
        let answer = self.ask(client, &bare);
        assert_eq!(answer.code(), 401);
        client.nonce = answer.nonce();
    }

    /// The client gets an allocation; its relayed address.
    pub(crate) fn allocate(&mut self, client: &mut Client) -> SocketAddr {
        self.challenge(client);
        let request = client.allocate();
        let answer = self.ask(client, &request);
        assert_eq!(answer.code(), 0, "allocated");
        answer.verify(client);
        answer.relayed()[0]
    }

    pub(crate) fn permit(&mut self, client: &Client, peer: &str) -> u16 {
        let transaction = transaction();
        let request = client.signed_as(
            CREATE_PERMISSION,
            transaction,
            &[&XorPeerAddress::new(addr(peer), transaction)],
        );
        self.ask(client, &request).code()
    }

    pub(crate) fn bind(&mut self, client: &Client, number: u16, peer: &str) -> u16 {
        let transaction = transaction();
        let peer = XorPeerAddress::new(addr(peer), transaction);
        let request = client.signed_as(CHANNEL_BIND, transaction, &[&ChannelNumber::new(number), &peer]);
        self.ask(client, &request).code()
    }

    pub(crate) fn refresh(&mut self, client: &Client, lifetime_s: u32) -> u16 {
        let request = client.signed(REFRESH, &[&Lifetime::new(lifetime_s)]);
        self.ask(client, &request).code()
    }

    /// A datagram on a relay's socket.
    pub(crate) fn relayed(&mut self, from: &str, payload: &[u8]) {
        self.out.clear();
        let key = *self.relays.keys().next().unwrap();
        let now = self.now();
        self.server.handle_relayed(now, key, addr(from), payload, &mut self.out);
        self.drain();
    }

    pub(crate) fn events(&self) -> Vec<(u64, TurnEvent)> {
        let events = self.accounts.iter().filter_map(|account| match account {
            Account::Allocation { name, event, .. } => Some((name.id, event.clone())),
            Account::QuotaHit { .. } => None,
        });
        events.collect()
    }
}

/// A client that writes its own messages.
pub(crate) struct Client {
    pub(crate) addresses: Addresses,
    pub(crate) username: String,
    pub(crate) key: IntegrityKey,
    pub(crate) realm: String,
    pub(crate) nonce: String,
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        Self::of(port, &participant_credential(&api_key(), &"PA_ann".into(), UNIX_S + 300))
    }

    pub(crate) fn of(port: u16, credential: &Credential) -> Self {
        let remote = SocketAddr::from(([198, 51, 100, 7], port));
        let addresses = Addresses { local: addr("10.0.0.1:3478"), remote, protocol: Protocol::Udp };
        let password = credential.password.reveal().clone();
        let credentials = LongTermKeyCredentials::new(credential.username.clone(), password, REALM.into());
        Self {
            addresses,
            username: credential.username.clone(),
            key: credentials.make_key(IntegrityAlgorithm::Sha1),
            realm: REALM.into(),
            nonce: String::new(),
        }
    }

    pub(crate) fn over_tcp(mut self) -> Self {
        self.addresses.protocol = Protocol::Tcp;
        self
    }

    /// Without credentials.
    pub(crate) fn bare(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        begin(MessageClass::Request, method, transaction(), attributes).finish()
    }

    pub(crate) fn signed(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.signed_as(method, transaction(), attributes)
    }

    pub(crate) fn signed_as(
        &self,
        method: Method,
        transaction: TransactionId,
        attributes: &[&dyn AttributeWrite],
    ) -> Vec<u8> {
        let mut write = begin(MessageClass::Request, method, transaction, attributes);
        write.add_attribute(&Username::new(&self.username).unwrap()).unwrap();
        write.add_attribute(&Realm::new(&self.realm).unwrap()).unwrap();
        write.add_attribute(&Nonce::new(&self.nonce).unwrap()).unwrap();
        write.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1).unwrap();
        write.finish()
    }

    pub(crate) fn allocate(&self) -> Vec<u8> {
        self.signed(ALLOCATE, &[&RequestedTransport::new(17)])
    }

    pub(crate) fn send_indication(&self, peer: &str, payload: &[u8]) -> Vec<u8> {
        let transaction = transaction();
        let peer = XorPeerAddress::new(addr(peer), transaction);
        begin(MessageClass::Indication, SEND, transaction, &[&peer, &Data::new(payload)]).finish()
    }

    pub(crate) fn channel_data(&self, number: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = [number.to_be_bytes(), (payload.len() as u16).to_be_bytes()].concat();
        bytes.extend(payload);
        if self.addresses.protocol == Protocol::Tcp {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

pub(crate) fn transaction() -> TransactionId {
    TransactionId::generate()
}

pub(crate) fn begin(
    class: MessageClass,
    method: Method,
    transaction: TransactionId,
    attributes: &[&dyn AttributeWrite],
) -> MessageWriteVec {
    let kind = MessageType::from_class_method(class, method);
    let mut write = Message::builder(kind, transaction, MessageWriteVec::new());
    for attribute in attributes {
        write.add_attribute(*attribute).unwrap();
    }
    write
}

/// A response.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::from_bytes(&self.bytes).unwrap()
    }

    /// The error code, 0 for success.
    pub(crate) fn code(&self) -> u16 {
        let message = self.message();
        match message.class() {
            MessageClass::Success => 0,
            MessageClass::Error => message.attribute::<ErrorCode>().unwrap().code(),
            other => panic!("{other:?} is no response"),
        }
    }

    pub(crate) fn nonce(&self) -> String {
        self.message().attribute::<Nonce>().unwrap().nonce().to_owned()
    }

    pub(crate) fn verify(&self, client: &Client) {
        self.message().validate_integrity_with_key(&client.key).unwrap();
    }

    pub(crate) fn is_signed(&self) -> bool {
        self.message().has_attribute(MessageIntegrity::TYPE)
    }

    pub(crate) fn lifetime_s(&self) -> u32 {
        self.message().attribute::<Lifetime>().unwrap().seconds()
    }

    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        let message = self.message();
        message
            .iter_attributes()
            .filter(|(_, raw)| stun_types::attribute::Attribute::get_type(raw) == XorRelayedAddress::TYPE)
            .map(|(_, raw)| XorRelayedAddress::try_from(&raw).unwrap().addr(message.transaction_id()))
            .collect()
    }
}
