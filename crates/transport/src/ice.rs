//! ICE: the agent of crate `is`, with what real clients need around it.

use crate::anchor::ClockAnchor;
use crate::candidate::LocalCandidate;
use crate::demux::{TransactionId, stun_request_transaction};
use crate::event::TransportConfig;
use crate::limits::{
    AGENT_ADDRESSES_MAX, CANDIDATE_BYTES_MAX, CANDIDATE_PAIRS_MAX, CHECKS_WAITING_MAX, REMOTE_CANDIDATES_MAX,
    STUN_RETRANSMITS, STUN_RTO_MAX,
};
use crate::remotes::Remotes;
use crate::ufrag;
use fanlight_base::{Addresses, Mono, Now, Protocol, Random, RunHint, SendBatch};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, CandidateKind, IceAgent, IceAgentEvent, IceConnectionState, IceCreds};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Letters of our password, as LiveKit's (pion) have it; RFC 8839 §5.4 asks for 22.
const PASSWORD_LETTERS: usize = 32;

/// State of ICE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IceState {
    /// Looking for a pair.
    Checking,
    /// A pair works.
    Connected,
    /// No pair works any more; the client may come back by itself, or with a restart.
    Disconnected,
}

/// Why a remote candidate was not used. None of these ends anything: connectivity checks teach the agent the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CandidateIgnored {
    /// An mDNS name (RFC 8828); the client's own checks bring its address.
    #[error("an mDNS name")]
    MulticastDns,
    /// TCP: we accept connections and open none.
    #[error("a TCP candidate")]
    Tcp,
    /// The line cannot be read.
    #[error("malformed")]
    Malformed,
    /// More than [`REMOTE_CANDIDATES_MAX`], or that many addresses are known already.
    #[error("too many candidates")]
    TooMany,
    /// It belongs to another ICE generation.
    #[error("another ufrag")]
    OtherUfrag,
    /// The empty candidate or `end-of-candidates`.
    #[error("the end of candidates")]
    End,
}

/// What ICE says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IceEvent {
    State(IceState),
    Selected(Addresses),
    /// A check of ours left.
    Check(TransactionId),
}

pub(crate) struct Ice {
    agent: IceAgent,
    anchor: ClockAnchor,
    shard: u16,
    random: Random,
    ice_lite: bool,
    tie_breaker: u64,
    /// Named in this generation.
    remote_candidates: usize,
    remotes: Remotes,
    /// Addresses that the agent has met in its life, about.
    met: usize,
    /// Addresses that it knows as dead: it would not hear them.
    dead: Vec<(Protocol, SocketAddr)>,
    /// Our own addresses as the peer's answers tell them.
    mapped: Vec<SocketAddr>,
    /// Our checks that wait for an answer, oldest first. An answer comes from where the check went (RFC 8445 §7.2.5.2.1).
    checks: VecDeque<(TransactionId, Addresses)>,
    forgotten: Vec<Addresses>,
    refused: u64,
    state: Option<IceState>,
    next: Option<Instant>,
    /// Something changed; the agent shall see it now and not when its timer says.
    woken: Option<Instant>,
}

impl Ice {
    pub(crate) fn new(config: &TransportConfig, random: &mut Random) -> Self {
        let &TransportConfig { anchor, shard, ice_lite, offerer, .. } = config;
        let mut random = random.fork();
        let credentials = credentials(shard, &mut random);
        let tie_breaker = random.u64();
        Self {
            agent: agent(credentials, ice_lite, offerer && !ice_lite, tie_breaker),
            anchor,
            shard,
            random,
            ice_lite,
            tie_breaker,
            remote_candidates: 0,
            remotes: Remotes::default(),
            met: 0,
            dead: Vec::new(),
            mapped: Vec::new(),
            checks: VecDeque::new(),
            forgotten: Vec::new(),
            refused: 0,
            state: None,
            next: None,
            woken: None,
        }
    }

    pub(crate) fn local_ufrag(&self) -> &str {
        &self.agent.local_credentials().ufrag
    }

    pub(crate) fn local_password(&self) -> &str {
        &self.agent.local_credentials().pass
    }

    /// The last round trip on the selected pair.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.agent.nominated_pair_rtt()
    }

    pub(crate) fn add_local(&mut self, candidate: &LocalCandidate) -> bool {
        let made = Candidate::host(candidate.addr, library_protocol(candidate.protocol));
        made.is_ok_and(|candidate| self.agent.add_local_candidate(candidate).is_some())
    }

    /// Takes the peer's credentials of this generation.
    pub(crate) fn set_remote(&mut self, ufrag: &str, password: &str) {
        self.agent.set_remote_credentials(IceCreds { ufrag: ufrag.to_owned(), pass: password.to_owned() });
    }

    /// New credentials of ours; the old pair stays in use until a new one is nominated.
    pub(crate) fn restart(&mut self) {
        let credentials = credentials(self.shard, &mut self.random);
        self.agent.ice_restart(credentials, true);
        self.remote_candidates = 0;
        self.checks.clear();
        self.dead.clear();
        // The agent keeps what answers have taught it of our own addresses, and forgets the rest.
        self.met = self.mapped.len();
        self.remotes.restart(&mut self.forgotten);
    }

    pub(crate) fn add_remote(&mut self, line: &str) -> Result<SocketAddr, CandidateIgnored> {
        let candidate = self.parse_remote(line)?;
        let addr = candidate.addr();
        if !self.remotes.contains(Protocol::Udp, addr) && !self.remotes.has_room() {
            return Err(CandidateIgnored::TooMany);
        }
        self.remote_candidates += 1;
        self.meet();
        self.remotes.name(Protocol::Udp, addr);
        self.dead.retain(|dead| *dead != (Protocol::Udp, addr));
        self.agent.add_remote_candidate(candidate);
        Ok(addr)
    }

    /// Whether the agent would take this STUN message: integrity, ufrags, or an answer to a check of ours.
    pub(crate) fn accepts(&self, datagram: &[u8]) -> bool {
        StunMessage::parse(datagram).is_ok_and(|message| self.agent.accepts_message(&message))
    }

    /// Takes a STUN message.
    pub(crate) fn receive(&mut self, now: Now, addresses: Addresses, datagram: &[u8]) -> Heard {
        let instant = self.anchor.instant(now);
        let Ok(message) = StunMessage::parse(datagram) else { return Heard::Nothing };
        let (request, success) = (message.is_binding_request(), message.is_successful_binding_response());
        let expected = if request {
            self.admit(now.mono(), addresses, &message)
        } else {
            self.answers(addresses, datagram, &message)
        };
        if !expected {
            return Heard::Nothing;
        }
        let packet = StunPacket {
            proto: library_protocol(addresses.protocol),
            source: addresses.remote,
            destination: addresses.local,
            message,
        };
        if !self.agent.handle_packet(instant, packet) {
            return Heard::Nothing;
        }
        let proven = (request || success) && self.remotes.prove(addresses, now.mono());
        // A lite agent nominates in `handle_timeout` only, and does not ask to be called for 3 s.
        self.agent.handle_timeout(instant);
        if proven { Heard::Peer } else { Heard::Message }
    }

    /// Something from there was decrypted.
    pub(crate) fn hear(&mut self, addresses: Addresses, at: Mono) {
        self.remotes.hear(addresses, at);
    }

    /// When something from there was last authenticated or decrypted; `None` when it never was, or is forgotten.
    pub(crate) fn heard(&self, addresses: Addresses) -> Option<Mono> {
        self.remotes.heard(addresses)
    }

    /// Tuples forgotten since the last call.
    pub(crate) fn take_forgotten(&mut self) -> Vec<Addresses> {
        std::mem::take(&mut self.forgotten)
    }

    /// Authenticated checks not taken because as many other addresses are in use.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(crate) fn tick(&mut self, now: Now) {
        let instant = self.anchor.instant(now);
        if self.deadline().is_some_and(|deadline| deadline <= instant) {
            self.woken = None;
            self.agent.handle_timeout(instant);
        }
    }

    pub(crate) fn wake(&mut self, instant: Instant) {
        self.woken = Some(instant);
    }

    /// Whether a check has made sure that the peer is there.
    pub(crate) fn is_valid(&mut self, addresses: Addresses) -> bool {
        if self.remotes.is_valid(addresses) {
            return true;
        }
        let valid = self.is_heard(addresses) && self.agent.has_viable_remote_candidate(addresses.remote);
        if valid {
            self.remotes.set_valid(addresses);
        }
        valid
    }

    /// Whether an authenticated message of this generation came from there.
    pub(crate) fn is_heard(&self, addresses: Addresses) -> bool {
        self.remotes.is_current(addresses)
    }

    /// Forgets a tuple whose TCP connection is gone, so that the next one can be nominated at once.
    pub(crate) fn remove_tuple(&mut self, addresses: Addresses) {
        if !self.remotes.forget_tuple(addresses) {
            self.bury(addresses.protocol, addresses.remote);
        }
    }

    /// Writes what the agent sends and says what it tells.
    pub(crate) fn drain(&mut self, batch: &mut SendBatch, events: &mut Vec<IceEvent>) {
        while let Some(event) = self.agent.poll_event() {
            match event {
                IceAgentEvent::IceConnectionStateChange(state) => self.change_state(state, events),
                IceAgentEvent::NominatedSend { proto, source, destination } => {
                    let selected = addresses(proto, source, destination);
                    self.remotes.select(selected);
                    // Media goes on there after a restart, even when none has come from there yet.
                    self.is_valid(selected);
                    events.push(IceEvent::Selected(selected));
                }
                _ => {}
            }
        }
        while let Some(transmit) = self.agent.poll_transmit() {
            let tuple = addresses(transmit.proto, transmit.source, transmit.destination);
            let bytes: &[u8] = &transmit.contents;
            if let Some(transaction) = stun_request_transaction(bytes) {
                if self.checks.len() >= CHECKS_WAITING_MAX {
                    self.checks.pop_front();
                }
                self.checks.push_back((transaction, tuple));
                events.push(IceEvent::Check(transaction));
            }
            batch.push(tuple, &mut RunHint::default(), bytes.len()).copy_from_slice(bytes);
        }
        self.next = self.agent.poll_timeout();
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.woken, self.next].into_iter().flatten().min()
    }

    fn parse_remote(&self, line: &str) -> Result<Candidate, CandidateIgnored> {
        let line = line.trim();
        let line = line.strip_prefix("a=").unwrap_or(line);
        if line.is_empty() || line == crate::candidate::END_OF_CANDIDATES {
            return Err(CandidateIgnored::End);
        }
        if line.len() > CANDIDATE_BYTES_MAX {
            return Err(CandidateIgnored::Malformed);
        }
        let mut fields = line.split_ascii_whitespace();
        let transport = fields.nth(2).ok_or(CandidateIgnored::Malformed)?;
        if !transport.eq_ignore_ascii_case("udp") {
            return Err(CandidateIgnored::Tcp);
        }
        if fields.nth(1).is_some_and(|address| address.ends_with(".local")) {
            return Err(CandidateIgnored::MulticastDns);
        }
        if self.remote_candidates >= REMOTE_CANDIDATES_MAX {
            return Err(CandidateIgnored::TooMany);
        }
        let line = if line.starts_with("candidate:") { line.to_owned() } else { format!("candidate:{line}") };
        let candidate = Candidate::from_sdp_string(&line).map_err(|_| CandidateIgnored::Malformed)?;
        let other = match (candidate.ufrag(), self.agent.remote_credentials()) {
            (Some(ufrag), Some(known)) => ufrag != known.ufrag,
            _ => false,
        };
        if other { Err(CandidateIgnored::OtherUfrag) } else { Ok(candidate) }
    }

    fn change_state(&mut self, state: IceConnectionState, events: &mut Vec<IceEvent>) {
        let state = match state {
            IceConnectionState::New | IceConnectionState::Checking => IceState::Checking,
            IceConnectionState::Connected | IceConnectionState::Completed => IceState::Connected,
            IceConnectionState::Disconnected => IceState::Disconnected,
        };
        if self.state != Some(state) {
            self.state = Some(state);
            events.push(IceEvent::State(state));
        }
    }

    /// Whether a binding request is to be taken. One from a new address is when it passes its integrity and there is
    /// room, for which an address that is not in use goes.
    fn admit(&mut self, now: Mono, addresses: Addresses, message: &StunMessage<'_>) -> bool {
        let Addresses { protocol, remote, .. } = addresses;
        if self.remotes.contains(protocol, remote) {
            return true;
        }
        let Ok(displaced) = self.remotes.displaced(now) else {
            self.refused += 1;
            return false;
        };
        if !self.agent.accepts_message(message) {
            return false;
        }
        if let Some((protocol, remote)) = displaced {
            self.remotes.forget(protocol, remote, &mut self.forgotten);
            self.bury(protocol, remote);
        }
        self.meet();
        if let Some(index) = self.dead.iter().position(|dead| *dead == (protocol, remote)) {
            self.dead.swap_remove(index);
            self.introduce(protocol, remote);
        }
        true
    }

    /// Whether a message answers a check of ours, and from where that went.
    fn answers(&mut self, addresses: Addresses, datagram: &[u8], message: &StunMessage<'_>) -> bool {
        let Some(transaction) = datagram.get(8..20) else { return false };
        let Some(index) = self.checks.iter().position(|check| check.0 == transaction && check.1 == addresses)
        else {
            return false;
        };
        if !self.agent.accepts_message(message) {
            return false;
        }
        self.checks.remove(index);
        // A mapped address that the agent has not met becomes a local candidate of it.
        if let Some(mapped) = message.mapped_address().filter(|mapped| !self.mapped.contains(mapped)) {
            let renewed = self.meet();
            self.mapped.push(mapped);
            return !renewed;
        }
        true
    }

    /// Invalidates an address with the agent, which then is deaf to it.
    fn bury(&mut self, protocol: Protocol, remote: SocketAddr) {
        let library = library_protocol(protocol);
        let same = |candidate: &Candidate| candidate.addr() == remote && candidate.proto() == library;
        let gone: Vec<Candidate> = self.agent.remote_candidates().filter(same).collect();
        for candidate in &gone {
            self.agent.invalidate_candidate(candidate);
        }
        if !gone.is_empty() && !self.dead.contains(&(protocol, remote)) {
            self.dead.push((protocol, remote));
        }
    }

    /// Tells the agent of an address.
    fn introduce(&mut self, protocol: Protocol, remote: SocketAddr) {
        if let Ok(candidate) = Candidate::host(remote, library_protocol(protocol)) {
            self.agent.add_remote_candidate(candidate);
        }
    }

    /// The agent is about to meet one more address; true when it was made anew for that.
    fn meet(&mut self) -> bool {
        let renew = self.met >= AGENT_ADDRESSES_MAX;
        if renew {
            self.renew();
        }
        self.met += 1;
        renew
    }

    /// An agent of the same generation that knows the living addresses only.
    fn renew(&mut self) {
        let credentials = self.agent.local_credentials().clone();
        let fresh = agent(credentials, self.ice_lite, self.agent.controlling(), self.tie_breaker);
        let former = std::mem::replace(&mut self.agent, fresh);
        for local in former.local_candidates().filter(|local| local.kind() == CandidateKind::Host) {
            self.agent.add_local_candidate(local);
        }
        if let Some(remote) = former.remote_credentials() {
            self.agent.set_remote_credentials(remote.clone());
        }
        self.dead.clear();
        self.mapped.clear();
        self.checks.clear();
        let addresses: Vec<_> = self.remotes.addresses().collect();
        self.met = addresses.len();
        for (protocol, remote) in addresses {
            self.introduce(protocol, remote);
        }
    }
}

/// What a STUN message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not for this agent.
    Nothing,
    /// For this agent, but it proves nothing.
    Message,
    /// It proves that the peer is at this 5-tuple.
    Peer,
}

fn agent(credentials: IceCreds, ice_lite: bool, controlling: bool, tie_breaker: u64) -> IceAgent {
    let mut agent = IceAgent::new(credentials);
    agent.set_ice_lite(ice_lite);
    agent.set_controlling(controlling);
    agent.set_control_tie_breaker(tie_breaker);
    agent.set_max_candidate_pairs(CANDIDATE_PAIRS_MAX);
    agent.set_max_stun_rto(STUN_RTO_MAX);
    agent.set_max_stun_retransmits(STUN_RETRANSMITS);
    agent
}

fn credentials(shard: u16, random: &mut Random) -> IceCreds {
    IceCreds { ufrag: ufrag::make(shard, random), pass: random.alphanumeric(PASSWORD_LETTERS) }
}

const fn library_protocol(protocol: Protocol) -> is::Protocol {
    match protocol {
        Protocol::Udp => is::Protocol::Udp,
        Protocol::Tcp => is::Protocol::Tcp,
    }
}

const fn addresses(protocol: is::Protocol, local: SocketAddr, remote: SocketAddr) -> Addresses {
    let protocol = match protocol {
        is::Protocol::Udp => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    Addresses { local, remote, protocol }
}
