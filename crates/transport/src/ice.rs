//! ICE: the agent of crate `is`, with what real clients need around it.

use crate::anchor::ClockAnchor;
use crate::candidate::LocalCandidate;
use crate::event::TransportConfig;
use crate::limits::{
    ANNOUNCED_TUPLES_MAX, CANDIDATE_BYTES_MAX, CANDIDATE_PAIRS_MAX, REMOTE_CANDIDATES_MAX, STUN_RETRANSMITS,
    STUN_RTO_MAX, VALID_TUPLES_MAX,
};
use crate::ufrag;
use fanlight_base::{Addresses, Now, Protocol, Random, RunHint, SendBatch};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceConnectionState, IceCreds};
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
    /// More than [`REMOTE_CANDIDATES_MAX`].
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
    Tuple(Addresses),
}

pub(crate) struct Ice {
    agent: IceAgent,
    anchor: ClockAnchor,
    shard: u16,
    random: Random,
    remote_candidates: usize,
    state: Option<IceState>,
    announced: Vec<Addresses>,
    /// Passed an authenticated request; not yet necessarily a valid pair.
    heard: Vec<Addresses>,
    valid: Vec<Addresses>,
    next: Option<Instant>,
    /// Something changed; the agent shall see it now and not when its timer says.
    woken: Option<Instant>,
}

impl Ice {
    pub(crate) fn new(config: &TransportConfig, random: &mut Random) -> Self {
        let &TransportConfig { anchor, shard, ice_lite, offerer, .. } = config;
        let mut random = random.fork();
        let mut agent = IceAgent::new(credentials(shard, &mut random));
        agent.set_ice_lite(ice_lite);
        agent.set_controlling(offerer && !ice_lite);
        agent.set_control_tie_breaker(random.u64());
        agent.set_max_candidate_pairs(CANDIDATE_PAIRS_MAX);
        agent.set_max_stun_rto(STUN_RTO_MAX);
        agent.set_max_stun_retransmits(STUN_RETRANSMITS);
        Self {
            agent,
            anchor,
            shard,
            random,
            remote_candidates: 0,
            state: None,
            announced: Vec::new(),
            heard: Vec::new(),
            valid: Vec::new(),
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
        self.announced.clear();
        // Media goes on over the old pairs, so `valid` stays; an address has to pass a check of the new generation
        // before it is added.
        self.heard.clear();
    }

    pub(crate) fn add_remote(&mut self, line: &str) -> Result<SocketAddr, CandidateIgnored> {
        let candidate = self.parse_remote(line)?;
        let addr = candidate.addr();
        self.remote_candidates += 1;
        self.agent.add_remote_candidate(candidate);
        Ok(addr)
    }

    /// Whether the agent would take this STUN message: integrity, ufrags, or an answer to a check of ours.
    pub(crate) fn accepts(&self, datagram: &[u8]) -> bool {
        StunMessage::parse(datagram).is_ok_and(|message| self.agent.accepts_message(&message))
    }

    /// Takes a STUN message; false when it is not for this agent.
    pub(crate) fn receive(&mut self, now: Now, addresses: Addresses, datagram: &[u8]) -> bool {
        let instant = self.anchor.instant(now);
        let Ok(message) = StunMessage::parse(datagram) else { return false };
        let packet = StunPacket {
            proto: library_protocol(addresses.protocol),
            source: addresses.remote,
            destination: addresses.local,
            message,
        };
        if !self.agent.handle_packet(instant, packet) {
            return false;
        }
        remember(&mut self.heard, addresses, ANNOUNCED_TUPLES_MAX);
        // A lite agent nominates in `handle_timeout` only, and does not ask to be called for 3 s.
        self.agent.handle_timeout(instant);
        true
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
        if self.valid.contains(&addresses) {
            return true;
        }
        let valid =
            self.heard.contains(&addresses) && self.agent.has_viable_remote_candidate(addresses.remote);
        if valid {
            remember(&mut self.valid, addresses, VALID_TUPLES_MAX);
        }
        valid
    }

    /// Whether an authenticated message came from there.
    pub(crate) fn is_heard(&self, addresses: Addresses) -> bool {
        self.heard.contains(&addresses)
    }

    /// Forgets a tuple whose TCP connection is gone, so that the next one can be nominated at once.
    pub(crate) fn remove_tuple(&mut self, addresses: Addresses) {
        self.heard.retain(|known| *known != addresses);
        self.valid.retain(|known| *known != addresses);
        let protocol = library_protocol(addresses.protocol);
        let gone = self
            .agent
            .remote_candidates()
            .find(|candidate| candidate.addr() == addresses.remote && candidate.proto() == protocol);
        if let Some(candidate) = gone {
            self.agent.invalidate_candidate(&candidate);
        }
    }

    /// Writes what the agent sends and says what it tells.
    pub(crate) fn drain(&mut self, batch: &mut SendBatch, events: &mut Vec<IceEvent>) {
        while let Some(event) = self.agent.poll_event() {
            match event {
                IceAgentEvent::IceConnectionStateChange(state) => self.change_state(state, events),
                IceAgentEvent::NominatedSend { proto, source, destination } => {
                    let selected = addresses(proto, source, destination);
                    remember(&mut self.heard, selected, ANNOUNCED_TUPLES_MAX);
                    self.announce(selected, events);
                    events.push(IceEvent::Selected(selected));
                }
                _ => {}
            }
        }
        while let Some(transmit) = self.agent.poll_transmit() {
            let tuple = addresses(transmit.proto, transmit.source, transmit.destination);
            self.announce(tuple, events);
            let bytes: &[u8] = &transmit.contents;
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

    fn announce(&mut self, tuple: Addresses, events: &mut Vec<IceEvent>) {
        if self.announced.len() < ANNOUNCED_TUPLES_MAX && !self.announced.contains(&tuple) {
            self.announced.push(tuple);
            events.push(IceEvent::Tuple(tuple));
        }
    }
}

fn credentials(shard: u16, random: &mut Random) -> IceCreds {
    IceCreds { ufrag: ufrag::make(shard, random), pass: random.alphanumeric(PASSWORD_LETTERS) }
}

/// Adds to a bounded list, the oldest making room.
fn remember(list: &mut Vec<Addresses>, addresses: Addresses, max: usize) {
    if list.contains(&addresses) {
        return;
    }
    if list.len() >= max {
        list.remove(0);
    }
    list.push(addresses);
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
