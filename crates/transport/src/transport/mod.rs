//! [`Transport`]: ICE, DTLS, SRTP and SCTP as one state machine.

mod media;
mod secure;

use crate::candidate::LocalCandidate;
use crate::certificate::{Certificate, Fingerprint};
use crate::client_hello::HelloCollector;
use crate::dcep::{Open, Reliability};
use crate::demux::{PacketClass, classify};
use crate::event::{
    DtlsRole, FailReason, Ignored, Received, RemoteError, RemoteParameters, RemoteSet, Setup,
    TransportConfig, TransportCounters, TransportEvent, Why,
};
use crate::ice::{CandidateIgnored, Heard, Ice, IceEvent, IceState};
use crate::limits::{
    EVENTS_MAX, EVENTS_RESERVED, HELD_DATAGRAM_BYTES_MAX, HELD_DATAGRAMS_MAX, LABEL_BYTES_MAX,
    UFRAG_BYTES_MAX,
};
use crate::sctp::{ChannelEvent, ChannelId, Sctp, SendDataError};
use crate::{ClockAnchor, dtls::DtlsVersion};
use fanlight_base::{Addresses, Bounded, Mono, Now, Random, RunHint, SendBatch};
use fanlight_rtp::twcc::SendLog;
use fanlight_rtp::{SrtpProfile, SrtpReceiver, SrtpSender};
use media::AbsSendTime;
use secure::Security;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One peer connection's lower half.
///
/// After a call that takes a [`SendBatch`], drain [`Transport::poll_event`] and ask [`Transport::poll_timeout`] again;
/// only [`Transport::send_rtp`], [`Transport::send_rtcp`] and received media change neither.
#[repr(C)]
pub struct Transport {
    // What every packet that leaves needs stands together, in the order of declaration: with hundreds of subscribers
    // it is cold when its turn comes.
    /// Where packets go: what ICE selected; before that, where the peer's handshake came from.
    path: Option<Addresses>,
    sender: Option<SrtpSender>,
    media_run: RunHint,
    abs_send_time: AbsSendTime,
    send_log: SendLog,
    counters: TransportCounters,

    // And what every packet that comes needs.
    phase: Phase,
    /// The tuple of the last media packet, so that the next needs one comparison.
    media_from: Option<Addresses>,
    /// When that was.
    media_at: Mono,
    receiver: Option<SrtpReceiver>,

    anchor: ClockAnchor,
    certificate: Certificate,
    preference: DtlsRole,
    role: Option<DtlsRole>,
    remote_fingerprint: Option<Fingerprint>,
    remote_credentials: Option<(String, String)>,
    candidates: Vec<LocalCandidate>,
    ice: Ice,
    ice_state: IceState,
    restart_pending: bool,
    selected: bool,
    held: Vec<(Addresses, Vec<u8>)>,
    hello: HelloCollector,
    security: Security,
    sctp: Sctp,
    control_run: RunHint,
    rtcp: Vec<u8>,
    events: Bounded<TransportEvent>,
    backlog: bool,
    deadline: (Mono, Why),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Connected { profile: Option<SrtpProfile>, version: DtlsVersion },
    Ended,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("ufrag", &self.local_ufrag())
            .field("ice", &self.ice_state)
            .field("path", &self.path)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport with fresh ICE credentials. Nothing is sent before [`Transport::set_remote`].
    pub fn new(config: TransportConfig, random: &mut Random) -> Self {
        Self {
            ice: Ice::new(&config, random),
            anchor: config.anchor,
            certificate: config.certificate,
            preference: config.role,
            role: None,
            remote_fingerprint: None,
            remote_credentials: None,
            candidates: Vec::new(),
            ice_state: IceState::Checking,
            restart_pending: false,
            path: None,
            selected: false,
            held: Vec::new(),
            hello: HelloCollector::default(),
            security: Security::new(),
            sctp: Sctp::new(),
            sender: None,
            receiver: None,
            media_from: None,
            media_at: Mono::default(),
            media_run: RunHint::default(),
            control_run: RunHint::default(),
            rtcp: Vec::new(),
            send_log: SendLog::new(),
            abs_send_time: AbsSendTime::default(),
            phase: Phase::Connecting,
            events: Bounded::new(EVENTS_MAX),
            backlog: false,
            deadline: (Mono::NEVER, Why::Idle),
            counters: TransportCounters::default(),
        }
    }

    /// Our `a=ice-ufrag`; 16 letters, the first two name the shard ([`crate::ufrag`]). Changes with each ICE restart.
    pub fn local_ufrag(&self) -> &str {
        self.ice.local_ufrag()
    }

    /// Our `a=ice-pwd`; 32 letters. Changes with each ICE restart.
    pub fn local_password(&self) -> &str {
        self.ice.local_password()
    }

    /// Our `a=fingerprint`.
    pub fn fingerprint(&self) -> &Fingerprint {
        self.certificate.fingerprint()
    }

    /// Which end of DTLS we are, once the peer has said what it is.
    pub const fn role(&self) -> Option<DtlsRole> {
        self.role
    }

    /// Adds a host candidate; false when the address cannot be one (multicast, unspecified, IPv4 link-local).
    pub fn add_local_candidate(&mut self, candidate: LocalCandidate) -> bool {
        // One socket may be announced under several addresses; the agent knows it once.
        let known = self
            .candidates
            .iter()
            .any(|other| (other.addr, other.protocol) == (candidate.addr, candidate.protocol));
        let added = known || self.ice.add_local(&candidate);
        if added && !self.candidates.contains(&candidate) {
            self.candidates.push(candidate);
        }
        added
    }

    /// Our candidates, in the order in which they were added.
    pub fn local_candidates(&self) -> &[LocalCandidate] {
        &self.candidates
    }

    /// Takes the peer's parameters: the first time begins, another ufrag or password is an ICE restart.
    ///
    /// The fingerprint must not change. Packets leave with the next [`Transport::handle_timeout`], which is due at once.
    pub fn set_remote(&mut self, now: Now, remote: &RemoteParameters) -> Result<RemoteSet, RemoteError> {
        let password = remote.password.reveal();
        if !(4..=UFRAG_BYTES_MAX).contains(&remote.ufrag.len()) || !(22..=256).contains(&password.len()) {
            return Err(RemoteError::Credentials);
        }
        if self.remote_fingerprint.as_ref().is_some_and(|known| *known != remote.fingerprint) {
            return Err(RemoteError::FingerprintChanged);
        }
        let first = self.remote_fingerprint.is_none();
        if first {
            self.remote_fingerprint = Some(remote.fingerprint.clone());
            let role = match remote.setup {
                Setup::Active => DtlsRole::Passive,
                Setup::Passive => DtlsRole::Active,
                Setup::ActPass => self.preference,
            };
            self.role = Some(role);
            self.sctp.set_dtls_client(role == DtlsRole::Active);
        }
        let credentials = (remote.ufrag.clone(), password.clone());
        let known = self.remote_credentials.as_ref() == Some(&credentials);
        let outcome = if first {
            RemoteSet::Started
        } else if self.restart_pending {
            RemoteSet::RestartAnswered
        } else if known {
            RemoteSet::Unchanged
        } else {
            RemoteSet::Restarted
        };
        match outcome {
            RemoteSet::Unchanged => return Ok(outcome),
            RemoteSet::Restarted => self.ice.restart(),
            RemoteSet::Started | RemoteSet::RestartAnswered => {}
        }
        self.restart_pending = false;
        self.ice.set_remote(&remote.ufrag, password);
        self.remote_credentials = Some(credentials);
        self.wake(now);
        Ok(outcome)
    }

    /// Restarts ICE from our side: new ufrag and password for the next offer. Media goes on over the old pair.
    pub fn restart_ice(&mut self, now: Now) {
        self.ice.restart();
        self.restart_pending = self.remote_fingerprint.is_some();
        self.wake(now);
    }

    /// Takes a trickled candidate, with or without `candidate:` and `a=`. What is ignored says why and ends nothing.
    pub fn add_remote_candidate(&mut self, now: Now, line: &str) -> Result<SocketAddr, CandidateIgnored> {
        let addr = self.ice.add_remote(line)?;
        self.wake(now);
        Ok(addr)
    }

    /// Whether a STUN message is for this transport: by its integrity, or because it answers a check of ours.
    pub fn accepts(&self, datagram: &[u8]) -> bool {
        self.phase != Phase::Ended && self.ice.accepts(datagram)
    }

    /// Takes a datagram and decrypts media in place.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Now,
        addresses: Addresses,
        bytes: &'a mut [u8],
        batch: &mut SendBatch,
    ) -> Received<'a> {
        let ignored = match (self.phase, classify(bytes)) {
            (Phase::Ended, _) => Ignored::Ended,
            (_, PacketClass::Rtp) => return self.receive_rtp(now, addresses, bytes),
            (_, PacketClass::Rtcp) => return self.receive_rtcp(now, addresses, bytes),
            (_, PacketClass::Stun) => match self.receive_stun(now, addresses, bytes, batch) {
                Heard::Peer => return Received::Check,
                Heard::Message => Ignored::Handled,
                Heard::Nothing => Ignored::NotAccepted,
            },
            (_, PacketClass::Dtls) => self.receive_dtls(now, addresses, bytes, batch),
            (_, PacketClass::TurnChannel | PacketClass::Unknown) => Ignored::Malformed,
        };
        self.count_ignored(ignored);
        Received::Nothing(ignored)
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Now, batch: &mut SendBatch) {
        if self.phase == Phase::Ended {
            return;
        }
        self.ice.tick(now);
        self.tick_dtls(now);
        let mut channel_events = Vec::new();
        self.sctp.tick(self.anchor.instant(now), &mut channel_events);
        self.tell_channels(channel_events);
        self.pump(now, batch);
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop()
    }

    /// When [`Transport::handle_timeout`] is due, and for what.
    pub const fn poll_timeout(&self) -> (Mono, Why) {
        self.deadline
    }

    /// A TCP connection of this transport is gone. Its tuple is forgotten, so that the client's next one is taken at
    /// once.
    pub fn remove_tuple(&mut self, now: Now, addresses: Addresses, batch: &mut SendBatch) {
        self.ice.remove_tuple(addresses);
        if self.path == Some(addresses) {
            self.path = None;
            self.selected = false;
        }
        if self.media_from == Some(addresses) {
            self.media_from = None;
        }
        self.pump(now, batch);
    }

    /// Opens a data channel; before there is an association it waits for one. [`TransportEvent::DataChannelOpen`]
    /// follows when the peer has confirmed it, but messages may be sent as soon as the handshake allows.
    ///
    /// `None` when there are too many channels or the label is longer than [`LABEL_BYTES_MAX`].
    pub fn open_data_channel(
        &mut self,
        now: Now,
        label: &str,
        ordered: bool,
        reliability: Reliability,
    ) -> Option<ChannelId> {
        if label.len() > LABEL_BYTES_MAX {
            return None;
        }
        let open = Open { ordered, reliability, label: label.to_owned(), protocol: String::new() };
        let id = self.sctp.open(self.anchor.instant(now), open);
        self.wake(now);
        id
    }

    /// Sends a message.
    pub fn send_data(
        &mut self,
        now: Now,
        batch: &mut SendBatch,
        id: ChannelId,
        binary: bool,
        bytes: &[u8],
    ) -> Result<(), SendDataError> {
        self.sctp.send(self.anchor.instant(now), id, binary, bytes)?;
        self.pump(now, batch);
        Ok(())
    }

    /// Bytes of a channel that the peer has not acknowledged yet.
    pub fn buffered_bytes(&mut self, id: ChannelId) -> usize {
        self.sctp.buffered_bytes(id)
    }

    /// Closes a data channel; [`TransportEvent::DataChannelClosed`] follows.
    pub fn close_data_channel(&mut self, now: Now, batch: &mut SendBatch, id: ChannelId) {
        let mut channel_events = Vec::new();
        self.sctp.close_channel(self.anchor.instant(now), id, &mut channel_events);
        self.tell_channels(channel_events);
        self.pump(now, batch);
    }

    /// Ends the connection: SCTP ABORT and close_notify are written, nothing is waited for. Browsers stay
    /// "connected" for seconds after it, so the leave has to be signalled too. No event follows.
    pub fn close(&mut self, now: Now, batch: &mut SendBatch) {
        if self.phase == Phase::Ended {
            return;
        }
        let mut channel_events = Vec::new();
        self.sctp.abort(&mut channel_events);
        self.flush_sctp(now, batch);
        self.close_dtls(now, batch);
        self.end();
        while self.events.pop().is_some() {}
    }

    /// When something from this 5-tuple was last authenticated or decrypted; `None` when it is not the peer's.
    pub fn heard(&self, addresses: Addresses) -> Option<Mono> {
        if self.phase == Phase::Ended {
            return None;
        }
        let media = (self.media_from == Some(addresses)).then_some(self.media_at);
        self.ice.heard(addresses).max(media)
    }

    /// The 5-tuples that are the peer's no more, since the last call.
    pub fn take_forgotten(&mut self) -> Vec<Addresses> {
        let forgotten = self.ice.take_forgotten();
        if self.media_from.is_some_and(|from| forgotten.contains(&from)) {
            self.media_from = None;
        }
        forgotten
    }

    /// State of ICE.
    pub const fn ice_state(&self) -> IceState {
        self.ice_state
    }

    /// Where packets go now.
    pub const fn selected(&self) -> Option<Addresses> {
        self.path
    }

    /// Whether media can be sent and received.
    pub const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. })
    }

    /// Whether it has failed or was closed.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// SRTP profile and DTLS version of a connected transport.
    pub const fn negotiated(&self) -> Option<(Option<SrtpProfile>, DtlsVersion)> {
        match self.phase {
            Phase::Connected { profile, version } => Some((profile, version)),
            Phase::Connecting | Phase::Ended => None,
        }
    }

    /// Round trip of the last connectivity check on the selected pair; a lite agent makes none.
    pub fn round_trip(&self) -> Option<Duration> {
        self.ice.round_trip()
    }

    /// What happened to datagrams so far.
    pub fn counters(&self) -> TransportCounters {
        TransportCounters {
            sctp: self.sctp.counters(),
            events_refused: self.events.refused(),
            checks_refused: self.ice.refused(),
            ..self.counters
        }
    }

    fn receive_stun(&mut self, now: Now, addresses: Addresses, bytes: &[u8], batch: &mut SendBatch) -> Heard {
        self.note_media();
        let heard = self.ice.receive(now, addresses, bytes);
        if heard != Heard::Nothing {
            self.counters.stun += 1;
            self.pump(now, batch);
        }
        heard
    }

    /// Tells ICE when media last came, so that its address counts as in use.
    fn note_media(&mut self) {
        if let Some(from) = self.media_from {
            self.ice.hear(from, self.media_at);
        }
    }

    /// DTLS is read from addresses that a check has verified, nominated or not: Chromium's ClientHello follows its
    /// first check within a millisecond. What comes too early from an address that has at least authenticated
    /// itself waits for the check; anything else is dropped unanswered (RFC 8827 §6.5).
    fn receive_dtls(
        &mut self,
        now: Now,
        addresses: Addresses,
        bytes: &[u8],
        batch: &mut SendBatch,
    ) -> Ignored {
        if self.ice.is_valid(addresses) {
            self.counters.dtls += 1;
            self.feed_dtls(now, addresses, bytes, batch);
            if self.security.take_opened() {
                self.ice.hear(addresses, now.mono());
            }
            self.pump(now, batch);
            return Ignored::Handled;
        }
        let room = self.held.len() < HELD_DATAGRAMS_MAX && bytes.len() <= HELD_DATAGRAM_BYTES_MAX;
        if room && self.ice.is_heard(addresses) {
            self.held.push((addresses, bytes.to_vec()));
            return Ignored::Handled;
        }
        Ignored::UnverifiedAddress
    }

    /// Moves everything that can move and works out what to wait for.
    fn pump(&mut self, now: Now, batch: &mut SendBatch) {
        if self.phase == Phase::Ended {
            return;
        }
        let mut ice_events = Vec::new();
        self.ice.drain(batch, &mut ice_events);
        for event in ice_events {
            self.tell_ice(now, event);
        }
        if !self.held.is_empty() {
            self.release_held(now, batch);
        }
        self.drain_dtls(now, batch);
        self.read_channels(now);
        self.flush_sctp(now, batch);
        self.set_deadline(now);
    }

    fn tell_ice(&mut self, now: Now, event: IceEvent) {
        match event {
            IceEvent::State(state) => {
                self.ice_state = state;
                self.tell(TransportEvent::IceState(state));
            }
            IceEvent::Check(transaction) => self.tell(TransportEvent::Check(transaction)),
            IceEvent::Selected(addresses) => {
                if !self.selected || self.path != Some(addresses) {
                    self.tell(TransportEvent::Selected(addresses));
                }
                self.selected = true;
                self.path = Some(addresses);
                self.start_client(now);
            }
        }
    }

    fn release_held(&mut self, now: Now, batch: &mut SendBatch) {
        for (addresses, bytes) in std::mem::take(&mut self.held) {
            if self.ice.is_valid(addresses) {
                self.counters.dtls += 1;
                self.feed_dtls(now, addresses, &bytes, batch);
            } else {
                self.held.push((addresses, bytes));
            }
        }
    }

    fn read_channels(&mut self, now: Now) {
        let room = (EVENTS_MAX - EVENTS_RESERVED).saturating_sub(self.events.len());
        let mut channel_events = Vec::new();
        self.backlog = self.sctp.read(self.anchor.instant(now), room, &mut channel_events);
        self.tell_channels(channel_events);
    }

    fn tell_channels(&mut self, events: Vec<ChannelEvent>) {
        for event in events {
            self.tell(match event {
                ChannelEvent::Opened { id, open } => TransportEvent::DataChannelOpen {
                    id,
                    label: open.label,
                    protocol: open.protocol,
                    ordered: open.ordered,
                    reliability: open.reliability,
                },
                ChannelEvent::Message { id, binary, bytes } => TransportEvent::Data { id, binary, bytes },
                ChannelEvent::Closed { id } => TransportEvent::DataChannelClosed { id },
                ChannelEvent::BufferedLow { id } => TransportEvent::BufferedLow { id },
            });
        }
    }

    fn tell(&mut self, event: TransportEvent) {
        // A refusal is counted by the queue and shows in the counters.
        let _ = self.events.push(event);
    }

    fn fail(&mut self, reason: FailReason) {
        if self.phase != Phase::Ended {
            self.end();
            self.tell(TransportEvent::Failed(reason));
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.deadline = (Mono::NEVER, Why::Idle);
        self.path = None;
        self.sender = None;
        self.receiver = None;
        self.held.clear();
        self.security.drop_session();
    }

    /// Makes [`Transport::handle_timeout`] due at once; for calls that have no batch to write into.
    fn wake(&mut self, now: Now) {
        if self.phase != Phase::Ended {
            self.ice.wake(self.anchor.instant(now));
            self.deadline = (now.mono(), Why::Ice);
        }
    }

    fn set_deadline(&mut self, now: Now) {
        if self.phase == Phase::Ended {
            return;
        }
        let candidates = [
            (self.ice.deadline(), Why::Ice),
            (self.security.deadline(), Why::Dtls),
            (self.sctp.deadline(), Why::Sctp),
            (self.backlog.then(|| self.anchor.instant(now)), Why::Backlog),
        ];
        let due = candidates.into_iter().filter_map(|(instant, why)| Some((self.anchor.mono(instant?), why)));
        self.deadline = due.min().unwrap_or((Mono::NEVER, Why::Idle));
    }

    fn count_ignored(&mut self, ignored: Ignored) {
        let counter = match ignored {
            Ignored::Handled | Ignored::Ended => return,
            Ignored::Malformed => &mut self.counters.malformed,
            Ignored::NotAccepted => &mut self.counters.stun_not_accepted,
            Ignored::UnverifiedAddress => &mut self.counters.unverified_address,
            Ignored::NoKeys => &mut self.counters.no_keys,
            Ignored::WrongTag => &mut self.counters.wrong_tag,
            Ignored::Replayed => &mut self.counters.replayed,
        };
        *counter += 1;
    }
}
