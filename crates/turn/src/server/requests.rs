//! Authenticated requests: Allocate, Refresh, CreatePermission, ChannelBind.

use super::{Caller, Exchange, Refusal, Tls, TurnServer, canonical, get, get_mut};
use crate::allocation::{Allocation, Asked, Relay, RelayState, count_rx, granted_s};
use crate::bucket::Bucket;
use crate::counters::EndReason;
use crate::filter::{Peer, Scope};
use crate::limits::{OUTPUTS_MAX, PEERS_PER_REQUEST_MAX, QUOTA_EVENT};
use crate::output::{Family, Outgoing, Output, Quota};
use crate::permission::{Permissions, Unbindable};
use crate::wire::{self, Unreadable};
use fanlight_base::{Addresses, Mono, Now, Protocol, RunHint};
use fanlight_events::turn::{AllocationName, LegCounters, Path, TurnEvent};
use std::net::{IpAddr, SocketAddr};
use stun_types::AddressFamily;
use stun_types::attribute::{
    AttributeStaticType, ErrorCode, MessageIntegrity, Nonce, Realm, Username, XorMappedAddress,
};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, MessageWriteExt, MessageWriteVec, Method, StunWriteError,
    TransactionId,
};
use turn_types::attribute::{
    AdditionalAddressFamily, AddressErrorCode, ChannelNumber, EvenPort, Lifetime, RequestedAddressFamily,
    RequestedTransport, ReservationToken, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};

/// Numbers that channels may have: RFC 5766's, which clients such as coturn's take any of. RFC 8656 §12 keeps the upper
/// ones free for DTLS and RTP on the same port, which do not come here.
const CHANNEL_NUMBERS: std::ops::RangeInclusive<u16> = 0x4000..=0x7fff;

/// What a request comes to; `Err` is an error code.
type Answer = Result<Done, u16>;

enum Done {
    /// Success, with these attributes.
    Now(Result<MessageWriteVec, StunWriteError>),
    /// Success, and the allocation ends.
    Last(Result<MessageWriteVec, StunWriteError>, u32),
    /// The answer comes when the relay's socket is open.
    Later,
    /// The credential is no longer good.
    Expired,
}

/// The relays an Allocate request asks for.
struct Wanted {
    first: Family,
    additional: Option<Family>,
    even: bool,
    lifetime_s: u32,
}

impl TurnServer {
    pub(super) fn handle_request(&mut self, now: Now, exchange: &Exchange<'_>, out: &mut Outgoing) {
        if self.outputs.len() >= OUTPUTS_MAX {
            self.counters.overloaded += 1;
            return;
        }
        self.counters.requests += 1;
        let caller = match self.authenticate(now, exchange) {
            Ok(caller) => caller,
            Err(refusal) => return self.refuse(now, exchange, refusal, out),
        };
        let key = caller.key.clone();
        let unknown = wire::not_understood(exchange.message);
        if !unknown.is_empty() {
            return self.refuse(now, exchange, Refusal::NotUnderstood(unknown, Some(Box::new(key))), out);
        }
        let answer = match exchange.message.method() {
            ALLOCATE => self.allocate(now, exchange, caller),
            REFRESH => self.refresh(now.mono(), exchange, &caller),
            CREATE_PERMISSION => self.create_permission(now.mono(), exchange, &caller),
            CHANNEL_BIND => self.channel_bind(now.mono(), exchange, &caller),
            _ => Err(ErrorCode::BAD_REQUEST),
        };
        match answer {
            Ok(Done::Now(written)) => {
                self.counters.successes += 1;
                self.respond(exchange, written, Some(&key), out);
            }
            Ok(Done::Last(written, slot)) => {
                self.counters.successes += 1;
                self.respond(exchange, written, Some(&key), out);
                self.end(now.mono(), slot, EndReason::Released);
            }
            Ok(Done::Later) => {}
            Ok(Done::Expired) => self.refuse(now, exchange, Refusal::Challenge(401), out),
            Err(code) => self.refuse(now, exchange, Refusal::Signed(code, Box::new(key)), out),
        }
    }

    /// RFC 8489 §9.2.4, but the nonce is looked at first: it proves that the client is where it says it is, before any
    /// more work is done for it.
    fn authenticate(&self, now: Now, exchange: &Exchange<'_>) -> Result<Caller, Refusal> {
        let message = exchange.message;
        if !message.has_attribute(MessageIntegrity::TYPE) {
            return Err(Refusal::Challenge(ErrorCode::UNAUTHORIZED));
        }
        let text = |kind| wire::text(message, kind);
        let (Some(name), Some(realm), Some(nonce)) =
            (text(Username::TYPE), text(Realm::TYPE), text(Nonce::TYPE))
        else {
            return Err(Refusal::Plain(ErrorCode::BAD_REQUEST));
        };
        if !self.nonces.is_fresh(now, exchange.client, &nonce) {
            return Err(Refusal::Challenge(ErrorCode::STALE_NONCE));
        }
        let unauthorized = || Refusal::Challenge(ErrorCode::UNAUTHORIZED);
        let caller = self.caller(exchange.client, &name).ok_or_else(unauthorized)?;
        let proven = realm == self.realm_text && message.validate_integrity_with_key(&caller.key).is_ok();
        if proven { Ok(caller) } else { Err(unauthorized()) }
    }

    /// Who this name would be. An allocation keeps its user's key: it outlives its credential, as LiveKit's and coturn's
    /// do.
    fn caller(&self, client: Addresses, name: &str) -> Option<Caller> {
        let known = self.by_client.get(&client).and_then(|slot| get(&self.slots, *slot));
        if let Some(allocation) = known.filter(|allocation| allocation.caller.name == name) {
            return Some(allocation.caller.clone());
        }
        let claim = self.credentials.claim(name)?;
        let realm = self.realm_text.to_string();
        let credentials = LongTermKeyCredentials::new(name.to_owned(), claim.password, realm);
        Some(Caller {
            name: name.into(),
            person: claim.person,
            participant: claim.participant,
            expires_unix_s: claim.expires_unix_s,
            key: credentials.make_key(IntegrityAlgorithm::Sha1),
        })
    }

    fn allocate(&mut self, now: Now, exchange: &Exchange<'_>, caller: Caller) -> Answer {
        let transaction = exchange.message.transaction_id();
        if let Some(slot) = self.by_client.get(&exchange.client) {
            let allocation = get(&self.slots, *slot).ok_or(ErrorCode::SERVER_ERROR)?;
            if allocation.asked.transaction != transaction || allocation.caller.name != caller.name {
                return Err(ErrorCode::ALLOCATION_MISMATCH);
            }
            return Ok(if allocation.open { Done::Now(allocated(allocation)) } else { Done::Later });
        }
        // Here alone: a refresh after the expiry keeps a call that is going on (LiveKit, coturn).
        if caller.expires_unix_s <= now.unix_s() {
            return Ok(Done::Expired);
        }
        let wanted = self.wanted(exchange)?;
        self.check_quotas(now.mono(), &caller)?;
        self.begin_allocation(now.mono(), exchange, caller, &wanted)?;
        Ok(Done::Later)
    }

    fn wanted(&self, exchange: &Exchange<'_>) -> Result<Wanted, u16> {
        let message = exchange.message;
        let bad = |_: Unreadable| ErrorCode::BAD_REQUEST;
        let transport = wire::attribute::<RequestedTransport>(message).map_err(bad)?;
        match transport.map(|transport| transport.protocol()) {
            Some(RequestedTransport::UDP) => {}
            Some(_) => return Err(ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL),
            None => return Err(ErrorCode::BAD_REQUEST),
        }
        let lifetime = wire::attribute::<Lifetime>(message).map_err(bad)?;
        let even = wire::attribute::<EvenPort>(message).map_err(bad)?;
        let reservation = message.has_attribute(ReservationToken::TYPE);
        let requested = message.has_attribute(RequestedAddressFamily::TYPE);
        let additional = wire::attribute::<AdditionalAddressFamily>(message).map_err(bad)?;
        if reservation && (even.is_some() || requested || additional.is_some())
            || additional.is_some() && (requested || even.is_some())
        {
            return Err(ErrorCode::BAD_REQUEST);
        }
        // Reservations are never given, so no token is one of ours.
        if reservation || even.as_ref().is_some_and(EvenPort::requested) {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        let first = match wire::attribute::<RequestedAddressFamily>(message) {
            Ok(family) => family.map_or(Family::V4, |family| of(family.family())),
            Err(_) => return Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED),
        };
        let additional = additional.map(|family| of(family.family()));
        if additional == Some(Family::V4) {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if !self.has_family(first) {
            return Err(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED);
        }
        let lifetime_s = granted_s(lifetime.map(|lifetime| lifetime.seconds()));
        Ok(Wanted { first, additional, even: even.is_some(), lifetime_s })
    }

    fn check_quotas(&mut self, now: Mono, caller: &Caller) -> Result<(), u16> {
        let (open, used_up) = self.users.standing(now, &caller.person);
        let hit = if used_up {
            Some((Quota::UserBytes, self.quotas.user_bytes.map_or(0, |quota| quota.bytes)))
        } else if open >= self.quotas.user_allocations as usize {
            Some((Quota::UserAllocations, self.quotas.user_allocations.into()))
        } else if self.allocations() >= self.quotas.total_allocations as usize {
            Some((Quota::TotalAllocations, self.quotas.total_allocations.into()))
        } else {
            None
        };
        match hit {
            Some((quota, limit)) => {
                self.say_quota(now, caller, quota, limit);
                Err(ErrorCode::ALLOCATION_QUOTA_REACHED)
            }
            None => Ok(()),
        }
    }

    /// Makes the allocation and asks for its relays' sockets.
    fn begin_allocation(
        &mut self,
        now: Mono,
        exchange: &Exchange<'_>,
        caller: Caller,
        wanted: &Wanted,
    ) -> Result<(), u16> {
        let slot = self.take_slot()?;
        let user = self.users.open(now, &caller.person, slot);
        let first = user.and_then(|_| self.take_port(wanted.first, wanted.even));
        let (Some(user), Some(first)) = (user, first) else {
            if let Some(user) = user {
                self.users.close(now, user, slot);
            }
            self.free.push(slot);
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        };
        let mut allocation = Box::new(self.new_allocation(now, exchange, caller, wanted, (slot, user)));
        self.add_relay(&mut allocation, wanted.first, first);
        if let Some(family) = wanted.additional {
            match self.take_port(family, false) {
                Some(relay) => self.add_relay(&mut allocation, family, relay),
                None if self.has_family(family) => {
                    allocation.additional_refused = Some(ErrorCode::INSUFFICIENT_CAPACITY);
                }
                None => allocation.additional_refused = Some(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED),
            }
        }
        self.by_client.insert(exchange.client, slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(allocation);
        }
        self.open = self.open.saturating_add(1);
        self.set_timer(now, slot);
        Ok(())
    }

    fn take_slot(&mut self) -> Result<u32, u16> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        let slot = u32::try_from(self.slots.len()).map_err(|_| ErrorCode::SERVER_ERROR)?;
        self.slots.push(None);
        Ok(slot)
    }

    fn add_relay(&mut self, allocation: &mut Allocation, family: Family, relay: Relay) {
        if let Some(place) = allocation.relay_mut(family) {
            *place = Some(relay);
        }
        self.output(Output::OpenRelay { key: allocation.key(family), address: relay.bind });
    }

    fn new_allocation(
        &mut self,
        now: Mono,
        exchange: &Exchange<'_>,
        caller: Caller,
        wanted: &Wanted,
        (slot, user): (u32, u32),
    ) -> Allocation {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let bucket = self.quotas.allocation_bps.map(|bps| Bucket::bandwidth(now, bps));
        let mut client_leg = LegCounters::default();
        count_rx(&mut client_leg, exchange.bytes);
        Allocation {
            slot,
            name: AllocationName { realm: self.realm_text.clone(), user: caller.name.clone(), id },
            caller,
            user,
            client: exchange.client,
            path: path(exchange.client, exchange.tls),
            asked: Asked {
                transaction: exchange.message.transaction_id(),
                fingerprint: wire::has_fingerprint(exchange.message),
                even: wanted.even,
            },
            relays: [None, None],
            additional_refused: None,
            open: false,
            lifetime_s: wanted.lifetime_s,
            expires: Mono::NEVER,
            report_at: Mono::NEVER,
            due: Mono::NEVER,
            permissions: Permissions::default(),
            client_leg,
            peer_leg: LegCounters::default(),
            reported: [LegCounters::default(); 2],
            up: bucket,
            down: bucket,
            client_hint: RunHint::default(),
            peer_hint: RunHint::default(),
        }
    }

    pub(super) fn take_port(&mut self, family: Family, even: bool) -> Option<Relay> {
        let (bind, advertised): (IpAddr, IpAddr) = match family {
            Family::V4 => self.relays.v4.map(|one| (one.bind.into(), one.advertised.into()))?,
            Family::V6 => self.relays.v6.map(|one| (one.bind.into(), one.advertised.into()))?,
        };
        let port = self.ports.get_mut(family.index())?.take(&mut self.random, even)?;
        Some(Relay {
            bind: SocketAddr::new(bind, port),
            advertised: SocketAddr::new(advertised, port),
            state: RelayState::Opening,
            tries: 1,
        })
    }

    fn has_family(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.relays.v4.is_some(),
            Family::V6 => self.relays.v6.is_some(),
        }
    }

    fn refresh(&mut self, now: Mono, exchange: &Exchange<'_>, caller: &Caller) -> Answer {
        let slot = self.own_allocation(now, exchange.client, caller)?;
        let message = exchange.message;
        let lifetime = wire::attribute::<Lifetime>(message).map_err(|_| ErrorCode::BAD_REQUEST)?;
        let family = match wire::attribute::<RequestedAddressFamily>(message) {
            Ok(family) => family.map(|family| of(family.family())),
            Err(_) => return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH),
        };
        let allocation = get_mut(&mut self.slots, slot).ok_or(ErrorCode::SERVER_ERROR)?;
        if family.is_some_and(|family| allocation.relay(family).is_none()) {
            return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH);
        }
        let wanted_s = lifetime.map(|lifetime| lifetime.seconds());
        let release = wanted_s == Some(0);
        let lifetime_s = if release { 0 } else { granted_s(wanted_s) };
        let written = with_lifetime(REFRESH, message.transaction_id(), lifetime_s);
        if let (true, Some(family), 2..) = (release, family, allocation.relays().count()) {
            self.close_relay(slot, family);
            return Ok(Done::Now(written));
        }
        if !release {
            allocation.grant(now, lifetime_s);
        }
        let event = TurnEvent::Refreshed { lifetime_s, path: allocation.path.clone() };
        self.account(slot, event);
        if release {
            return Ok(Done::Last(written, slot));
        }
        self.set_timer(now, slot);
        Ok(Done::Now(written))
    }

    fn create_permission(&mut self, now: Mono, exchange: &Exchange<'_>, caller: &Caller) -> Answer {
        let slot = self.own_allocation(now, exchange.client, caller)?;
        let peers = wire::peers(exchange.message).map_err(|_| ErrorCode::BAD_REQUEST)?;
        if peers.is_empty() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if peers.len() > PEERS_PER_REQUEST_MAX {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        let allocation = get_mut(&mut self.slots, slot).ok_or(ErrorCode::SERVER_ERROR)?;
        let mut judged: Vec<(IpAddr, Scope)> = Vec::with_capacity(peers.len());
        for peer in peers {
            if allocation.relay(Family::of(peer)).is_none() {
                return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH);
            }
            let scope = self.filter.judge_address(peer.ip()).map_err(|_| ErrorCode::FORBIDDEN)?;
            if judged.iter().all(|(address, _)| *address != peer.ip()) {
                judged.push((peer.ip(), scope));
            }
        }
        let addresses: Vec<IpAddr> = judged.iter().map(|(address, _)| *address).collect();
        if !allocation.permissions.has_room(now, &addresses) {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        for (address, scope) in judged {
            if !allocation.permissions.permit(now, address, scope) {
                return Err(ErrorCode::INSUFFICIENT_CAPACITY);
            }
        }
        Ok(Done::Now(Ok(wire::success(CREATE_PERMISSION, exchange.message.transaction_id()))))
    }

    fn channel_bind(&mut self, now: Mono, exchange: &Exchange<'_>, caller: &Caller) -> Answer {
        let slot = self.own_allocation(now, exchange.client, caller)?;
        let message = exchange.message;
        let bad = |_: Unreadable| ErrorCode::BAD_REQUEST;
        let number = wire::attribute::<ChannelNumber>(message).map_err(bad)?;
        let number = number.map(|number| number.channel()).filter(|number| CHANNEL_NUMBERS.contains(number));
        let peer = wire::peers(message).map_err(bad)?.first().copied();
        let (Some(number), Some(peer)) = (number, peer) else { return Err(ErrorCode::BAD_REQUEST) };
        let allocation = get_mut(&mut self.slots, slot).ok_or(ErrorCode::SERVER_ERROR)?;
        if allocation.relay(Family::of(peer)).is_none() {
            return Err(ErrorCode::PEER_ADDRESS_FAMILY_MISMATCH);
        }
        let way = self.filter.judge(peer).map_err(|_| ErrorCode::FORBIDDEN)?;
        let scope = match way {
            Peer::Outside => Scope::AnyPort,
            Peer::Media(_) => Scope::MediaOnly,
        };
        if !allocation.permissions.has_room(now, &[peer.ip()]) {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        allocation.permissions.bind(now, number, peer, way).map_err(|why| match why {
            Unbindable::Taken => ErrorCode::BAD_REQUEST,
            Unbindable::Full => ErrorCode::INSUFFICIENT_CAPACITY,
        })?;
        if !allocation.permissions.permit(now, peer.ip(), scope) {
            return Err(ErrorCode::INSUFFICIENT_CAPACITY);
        }
        Ok(Done::Now(Ok(wire::success(CHANNEL_BIND, message.transaction_id()))))
    }

    /// The client's allocation: 437 without one, 441 when it is another user's. Who has been cut off is told so.
    fn own_allocation(&mut self, now: Mono, client: Addresses, caller: &Caller) -> Result<u32, u16> {
        let slot = self.by_client.get(&client).copied();
        let open = slot.and_then(|slot| get(&self.slots, slot)).filter(|allocation| allocation.open);
        match open {
            Some(allocation) if allocation.caller.name == caller.name => Ok(allocation.slot),
            Some(_) => Err(ErrorCode::WRONG_CREDENTIALS),
            None => match self.users.standing(now, &caller.person) {
                (_, true) => Err(ErrorCode::ALLOCATION_QUOTA_REACHED),
                _ => Err(ErrorCode::ALLOCATION_MISMATCH),
            },
        }
    }

    /// Counts a hit quota, and says so unless it was said a short while ago.
    pub(super) fn say_quota(&mut self, now: Mono, caller: &Caller, quota: Quota, limit: u64) {
        self.counters.quota_hits += 1;
        let due = match quota {
            Quota::TotalAllocations => {
                let due = self.total_said.is_none_or(|said| now.since(said) >= QUOTA_EVENT);
                if due {
                    self.total_said = Some(now);
                }
                due
            }
            _ => self.users.may_say(now, &caller.person),
        };
        if due {
            self.push_quota(caller, quota, limit);
        }
    }
}

/// The answer to an Allocate request.
pub(super) fn allocated(allocation: &Allocation) -> Result<MessageWriteVec, StunWriteError> {
    let transaction = allocation.asked.transaction;
    let mut write = wire::success(ALLOCATE, transaction);
    for (_, relay) in allocation.relays() {
        write.add_attribute(&XorRelayedAddress::new(relay.advertised, transaction))?;
    }
    if let Some(code) = allocation.additional_refused {
        write.add_attribute(&AddressErrorCode::new(AddressFamily::IPV6, ErrorCode::new(code, "")?))?;
    }
    write.add_attribute(&Lifetime::new(allocation.lifetime_s))?;
    write.add_attribute(&XorMappedAddress::new(canonical(allocation.client.remote), transaction))?;
    Ok(write)
}

fn with_lifetime(
    method: Method,
    transaction: TransactionId,
    lifetime_s: u32,
) -> Result<MessageWriteVec, StunWriteError> {
    let mut write = wire::success(method, transaction);
    write.add_attribute(&Lifetime::new(lifetime_s))?;
    Ok(write)
}

const fn of(family: AddressFamily) -> Family {
    match family {
        AddressFamily::IPV4 => Family::V4,
        AddressFamily::IPV6 => Family::V6,
    }
}

/// As coturn says it, so that the two account alike.
fn path(client: Addresses, tls: Option<&Tls>) -> Path {
    let transport = match (client.protocol, tls) {
        (Protocol::Udp, _) => "UDP",
        (Protocol::Tcp, None) => "TCP",
        (Protocol::Tcp, Some(_)) => "TLS/TCP",
    };
    let text = |address: SocketAddr| smol_str::format_smolstr!("{}", canonical(address));
    Path {
        transport: transport.into(),
        local: text(client.local),
        remote: text(client.remote),
        tls: tls.map_or_else(|| "NONE".into(), |tls| tls.version.clone()),
        cipher: tls.map_or_else(|| "NONE".into(), |tls| tls.cipher.clone()),
    }
}
