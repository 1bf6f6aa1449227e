//! The server: what comes in, and where its parts meet.

mod life;
mod relay;
mod requests;

use crate::allocation::{Allocation, Caller, count_rx, count_tx};
use crate::bucket::ErrorLimiter;
use crate::config::{Config, ConfigError, Quotas, Relays};
use crate::counters::{Counters, Drop, EndReason};
use crate::credential::Credentials;
use crate::filter::{NodeAddresses, PeerFilter};
use crate::limits::{ALLOCATIONS_MAX, AMPLIFICATION_MAX, OUTPUTS_MAX, OUTPUTS_RESERVE};
use crate::nonce::Nonces;
use crate::output::{Outgoing, Output, RelayKey};
use crate::ports::Ports;
use crate::users::Users;
use crate::wire::{self, Packet, Unreadable};
use fanlight_base::{Addresses, Bounded, Mono, Now, Protocol, Random, RunHint};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use stun_types::attribute::{AttributeType, Nonce, Realm, XorMappedAddress};
use stun_types::message::{
    BINDING, IntegrityKey, Message, MessageClass, MessageWriteExt, MessageWriteVec, StunWriteError,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

/// What secures a client's stream; for the accounting only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `TLSv1.3`, …
    pub version: SmolStr,
    /// The cipher suite.
    pub cipher: SmolStr,
}

/// A TURN server.
#[derive(Debug)]
pub struct TurnServer {
    realm: Realm,
    realm_text: SmolStr,
    credentials: Credentials,
    nonces: Nonces,
    filter: PeerFilter,
    relays: Relays,
    quotas: Quotas,
    random: Random,
    /// By address family, IPv4 first.
    ports: [Ports; 2],
    slots: Vec<Option<Box<Allocation>>>,
    free: Vec<u32>,
    open: u32,
    by_client: FxHashMap<Addresses, u32>,
    by_relay: FxHashMap<SocketAddr, RelayKey>,
    users: Users,
    timers: BTreeSet<(Mono, u32)>,
    outputs: Bounded<Output>,
    /// Their last outputs are made one by one, when they are asked for; they count as allocations until then.
    ended: VecDeque<Box<Allocation>>,
    next_id: u64,
    total_said: Option<Mono>,
    errors: ErrorLimiter,
    counters: Counters,
}

/// A request and who asks.
struct Exchange<'a> {
    client: Addresses,
    tls: Option<&'a Tls>,
    message: &'a Message<'a>,
    bytes: usize,
}

/// Why a request is refused.
#[derive(Debug)]
enum Refusal {
    /// Not authenticated: the code (401, 438) with realm and a fresh nonce.
    Challenge(u16),
    /// Not authenticated and not to be helped: the code alone.
    Plain(u16),
    /// Authenticated: the code, signed.
    Signed(u16, Box<IntegrityKey>),
    /// 420 with what was not understood; signed when authenticated.
    NotUnderstood(Vec<AttributeType>, Option<Box<IntegrityKey>>),
}

impl TurnServer {
    /// A server without allocations. `random` makes its secrets and chooses its ports.
    pub fn new(config: Config, mut random: Random) -> Result<Self, ConfigError> {
        config.check()?;
        let realm = Realm::new(&config.realm).map_err(|_| ConfigError::Realm(config.realm.len()))?;
        let ports = Ports::new(config.relays.ports);
        let node = with_relays(config.node, &config.relays);
        let total_allocations = config.quotas.total_allocations.min(ALLOCATIONS_MAX);
        Ok(Self {
            realm,
            realm_text: config.realm,
            credentials: config.credentials,
            nonces: Nonces::new(&mut random),
            filter: PeerFilter::new(config.peers, node),
            relays: config.relays,
            quotas: Quotas { total_allocations, ..config.quotas },
            ports: [ports.clone(), ports],
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            by_client: FxHashMap::default(),
            by_relay: FxHashMap::default(),
            users: Users::new(config.quotas.user_bytes),
            timers: BTreeSet::new(),
            outputs: Bounded::new(OUTPUTS_MAX + OUTPUTS_RESERVE),
            ended: VecDeque::new(),
            next_id: config.first_id,
            total_said: None,
            errors: ErrorLimiter::new(&mut random),
            counters: Counters::default(),
            random,
        })
    }

    /// A datagram from a client.
    pub fn handle_datagram(&mut self, now: Now, addresses: Addresses, bytes: &[u8], out: &mut Outgoing) {
        self.handle_packet(now, addresses, None, bytes, out);
    }

    /// One frame of a client's stream, padding included ([`crate::framing`]); `tls` when the stream is secured.
    pub fn handle_stream_frame(
        &mut self,
        now: Now,
        addresses: Addresses,
        tls: Option<&Tls>,
        frame: &[u8],
        out: &mut Outgoing,
    ) {
        self.handle_packet(now, addresses, tls, frame, out);
    }

    /// A client's stream has ended.
    pub fn handle_closed(&mut self, now: Now, addresses: Addresses) {
        if let Some(slot) = self.by_client.get(&addresses).copied() {
            self.end(now.mono(), slot, EndReason::Closed);
        }
    }

    /// The node's addresses or media sockets are now these. What is no longer allowed is no longer relayed.
    pub fn handle_node_changed(&mut self, node: NodeAddresses) {
        self.filter.set_node(with_relays(node, &self.relays));
        for allocation in self.slots.iter_mut().flatten() {
            allocation.permissions.keep_allowed(&self.filter);
        }
    }

    /// Ends every allocation, so that their last bytes are said; `poll_output` says them.
    pub fn handle_shutdown(&mut self, now: Now) {
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            self.end(now.mono(), slot, EndReason::Shutdown);
        }
    }

    /// Whether this client has an allocation: streams without one may be closed after a while.
    pub fn has_allocation(&self, addresses: Addresses) -> bool {
        self.by_client.contains_key(&addresses)
    }

    /// Whether this is an address relayed by this server: what media sockets send there goes to
    /// [`TurnServer::handle_from_media`].
    pub fn is_relayed(&self, address: SocketAddr) -> bool {
        self.by_relay.contains_key(&address)
    }

    /// Allocations there are, those being made and ended included.
    pub fn allocations(&self) -> usize {
        (self.open as usize).saturating_add(self.ended.len())
    }

    /// Users that are remembered.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn handle_packet(
        &mut self,
        now: Now,
        client: Addresses,
        tls: Option<&Tls>,
        bytes: &[u8],
        out: &mut Outgoing,
    ) {
        self.counters.received += 1;
        let packet = match wire::read(bytes) {
            Ok(packet) => packet,
            Err(Unreadable::Foreign) => return self.counters.foreign += 1,
            Err(Unreadable::Malformed) => return self.counters.malformed += 1,
        };
        let slot = self.by_client.get(&client).copied();
        if let Some(allocation) = slot.and_then(|slot| get_mut(&mut self.slots, slot)) {
            count_rx(&mut allocation.client_leg, bytes.len());
        }
        let message = match packet {
            Packet::Channel { number, payload } => {
                return self.handle_channel_data(now.mono(), slot, number, payload, out);
            }
            Packet::Stun(message) => message,
        };
        let exchange = Exchange { client, tls, message: &message, bytes: bytes.len() };
        match (message.class(), message.method()) {
            (MessageClass::Request, BINDING) => self.handle_binding(now, &exchange, out),
            (MessageClass::Request, ALLOCATE | REFRESH | CREATE_PERMISSION | CHANNEL_BIND) => {
                self.handle_request(now, &exchange, out);
            }
            (MessageClass::Indication, SEND) => self.handle_send(now.mono(), slot, &message, out),
            // A keep-alive (RFC 8489 §3) wants nothing.
            (MessageClass::Indication, BINDING) => {}
            _ => self.counters.unsupported += 1,
        }
    }

    /// Binding is for everybody, and the answer is shorter than twice the question.
    fn handle_binding(&mut self, now: Now, exchange: &Exchange<'_>, out: &mut Outgoing) {
        let unknown = wire::not_understood(exchange.message);
        if !unknown.is_empty() {
            return self.refuse(now, exchange, Refusal::NotUnderstood(unknown, None), out);
        }
        let transaction = exchange.message.transaction_id();
        let mut write = wire::success(BINDING, transaction);
        let mapped = XorMappedAddress::new(canonical(exchange.client.remote), transaction);
        let written = write.add_attribute(&mapped).map(|()| write);
        self.counters.bindings += 1;
        self.respond(exchange, written, None, out);
    }

    fn refuse(&mut self, now: Now, exchange: &Exchange<'_>, refusal: Refusal, out: &mut Outgoing) {
        let signed = matches!(refusal, Refusal::Signed(..) | Refusal::NotUnderstood(_, Some(_)));
        // A stream's source is proven; anything else may be somebody else's address.
        if !signed
            && exchange.client.protocol == Protocol::Udp
            && !self.errors.allow(now.mono(), exchange.client.remote.ip())
        {
            self.counters.rate_limited += 1;
            return;
        }
        let (code, unknown, key) = match &refusal {
            Refusal::Challenge(code) | Refusal::Plain(code) => (*code, &[][..], None),
            Refusal::Signed(code, key) => (*code, &[][..], Some(&**key)),
            Refusal::NotUnderstood(unknown, key) => (420, unknown.as_slice(), key.as_deref()),
        };
        let (method, transaction) = (exchange.message.method(), exchange.message.transaction_id());
        let written = wire::error(method, transaction, code, unknown).and_then(|mut write| {
            if matches!(refusal, Refusal::Challenge(_)) {
                write.add_attribute(&self.realm)?;
                write.add_attribute(&Nonce::new(&self.nonces.make(now, exchange.client))?)?;
            }
            Ok(write)
        });
        self.counters.error(code);
        self.respond(exchange, written, key, out);
    }

    fn respond(
        &mut self,
        exchange: &Exchange<'_>,
        written: Result<MessageWriteVec, StunWriteError>,
        key: Option<&IntegrityKey>,
        out: &mut Outgoing,
    ) {
        let fingerprint = wire::has_fingerprint(exchange.message);
        // Writing fails only for attributes longer than a message, which none of ours is.
        let Ok(bytes) = written.and_then(|write| wire::finish(write, key, fingerprint)) else { return };
        if bytes.len() > exchange.bytes.saturating_mul(AMPLIFICATION_MAX) {
            self.counters.amplifying += 1;
            return;
        }
        let slot = self.by_client.get(&exchange.client).copied();
        match slot.and_then(|slot| get_mut(&mut self.slots, slot)) {
            Some(allocation) => send_control(allocation, &bytes, out),
            None => {
                let mut hint = RunHint::default();
                out.clients.push(exchange.client, &mut hint, bytes.len()).copy_from_slice(&bytes);
            }
        }
    }

    fn output(&mut self, output: Output) {
        if self.outputs.push(output).is_err() {
            self.counters.outputs_refused += 1;
        }
    }

    fn drop_payload(&mut self, why: Drop) {
        self.counters.drop_payload(why);
    }
}

/// Sends a control message to an allocation's client.
fn send_control(allocation: &mut Allocation, bytes: &[u8], out: &mut Outgoing) {
    out.clients.push(allocation.client, &mut allocation.client_hint, bytes.len()).copy_from_slice(bytes);
    count_tx(&mut allocation.client_leg, bytes.len());
}

fn get(slots: &[Option<Box<Allocation>>], slot: u32) -> Option<&Allocation> {
    slots.get(slot as usize).and_then(Option::as_deref)
}

fn get_mut(slots: &mut [Option<Box<Allocation>>], slot: u32) -> Option<&mut Allocation> {
    slots.get_mut(slot as usize).and_then(Option::as_deref_mut)
}

/// A dual-stack socket shows IPv4 clients as IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn with_relays(mut node: NodeAddresses, relays: &Relays) -> NodeAddresses {
    let v4 = relays.v4.iter().flat_map(|one| [IpAddr::V4(one.bind), IpAddr::V4(one.advertised)]);
    let v6 = relays.v6.iter().flat_map(|one| [IpAddr::V6(one.bind), IpAddr::V6(one.advertised)]);
    node.own.extend(v4.chain(v6));
    node
}
