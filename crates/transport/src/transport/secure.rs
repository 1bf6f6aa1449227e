//! DTLS inside a transport: which engine, whose certificate, and what its messages are.

use super::{Phase, Transport};
use crate::client_hello::is_first_server_flight;
use crate::dtls::{DimplSession, DtlsError, DtlsMode, DtlsOutput, DtlsSession, DtlsVersion, ExportedKeys};
use crate::event::{DtlsRole, FailReason, TransportEvent};
use crate::limits::DTLS_HANDSHAKE_BYTES_MAX;
use fanlight_base::{Addresses, Now, SendBatch};
use std::time::Instant;

/// A DTLS record of a data channel packet with room to spare; it grows when a peer sends larger records, and for the
/// peer's certificate.
const SCRATCH_BYTES: usize = 2048;

/// The DTLS session of a transport.
pub(super) struct Security {
    session: Option<Box<dyn DtlsSession>>,
    scratch: Vec<u8>,
    idle_until: Option<Instant>,
    connected: bool,
    /// Bytes taken before that; no certificate can be longer.
    handshake_bytes: usize,
    /// The peer's certificate is the announced one.
    verified: bool,
    /// A record of the peer's was opened.
    opened: bool,
}

/// What one drain of the session asks of the transport.
enum Drained {
    Fine,
    Failed(FailReason),
    Closed,
}

impl Security {
    pub(super) fn new() -> Self {
        Self {
            session: None,
            scratch: Vec::new(),
            idle_until: None,
            connected: false,
            handshake_bytes: 0,
            verified: false,
            opened: false,
        }
    }

    /// Whether a record of the peer's was opened since the last call.
    pub(super) const fn take_opened(&mut self) -> bool {
        std::mem::replace(&mut self.opened, false)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session.as_ref().and(self.idle_until)
    }

    pub(super) fn drop_session(&mut self) {
        self.session = None;
        self.scratch = Vec::new();
    }
}

impl Transport {
    /// Takes a DTLS datagram from a verified address.
    pub(super) fn feed_dtls(&mut self, now: Now, addresses: Addresses, bytes: &[u8], batch: &mut SendBatch) {
        if !self.selected {
            self.path = Some(addresses);
        }
        if self.security.session.is_some() {
            return self.feed_session(now, bytes, batch);
        }
        if self.role != Some(DtlsRole::Passive) {
            return;
        }
        // Which engine is right shows in the whole ClientHello only; what came of it is then replayed.
        let Some(hello) = self.hello.push(bytes) else { return };
        self.start(now, if hello.prefers_dtls12 { DtlsMode::Server12 } else { DtlsMode::Server });
        for datagram in &hello.datagrams {
            self.feed_session(now, datagram, batch);
        }
    }

    fn feed_session(&mut self, now: Now, bytes: &[u8], batch: &mut SendBatch) {
        let instant = self.anchor.instant(now);
        let Some(session) = &mut self.security.session else { return };
        let undecided_client = self.role == Some(DtlsRole::Active) && session.version().is_none();
        if undecided_client && !is_first_server_flight(bytes) {
            return;
        }
        if !self.security.connected {
            let handshake_bytes = self.security.handshake_bytes.saturating_add(bytes.len());
            if handshake_bytes > DTLS_HANDSHAKE_BYTES_MAX {
                return;
            }
            self.security.handshake_bytes = handshake_bytes;
        }
        match session.receive(instant, bytes) {
            Ok(()) => self.drain_dtls(now, batch),
            Err(error) => self.fail(FailReason::Dtls(error)),
        }
    }

    /// Sends our ClientHello when we are the client.
    pub(super) fn start_client(&mut self, now: Now) {
        if self.role == Some(DtlsRole::Active) && self.security.session.is_none() {
            self.start(now, DtlsMode::Client);
            self.tick_session(now);
        }
    }

    pub(super) fn tick_dtls(&mut self, now: Now) {
        if self.security.deadline().is_some_and(|deadline| deadline <= self.anchor.instant(now)) {
            self.tick_session(now);
        }
    }

    /// Gives out everything the session has to say; it must always be drained to the end.
    pub(super) fn drain_dtls(&mut self, now: Now, batch: &mut SendBatch) {
        let Some(mut session) = self.security.session.take() else { return };
        let mut scratch = std::mem::take(&mut self.security.scratch);
        let handshake_bytes = if self.security.connected { 0 } else { self.security.handshake_bytes };
        if scratch.len() < SCRATCH_BYTES.max(handshake_bytes) {
            scratch.resize(SCRATCH_BYTES.max(handshake_bytes), 0);
        }
        let drained = loop {
            match session.poll(&mut scratch) {
                DtlsOutput::Packet(packet) => self.push_control(batch, packet),
                DtlsOutput::PeerCertificate(der) => {
                    self.security.verified =
                        self.remote_fingerprint.as_ref().is_some_and(|it| it.matches(der));
                    if !self.security.verified {
                        break Drained::Failed(FailReason::Fingerprint);
                    }
                }
                DtlsOutput::Keys(keys) => {
                    if !self.take_keys(&keys) {
                        break Drained::Failed(FailReason::Keys);
                    }
                }
                DtlsOutput::Connected => {
                    if !self.security.verified {
                        break Drained::Failed(FailReason::Fingerprint);
                    }
                    self.security.connected = true;
                }
                DtlsOutput::Message(packet) => {
                    if self.security.connected {
                        self.security.opened = true;
                        let mut events = Vec::new();
                        self.sctp.receive(self.anchor.instant(now), packet, &mut events);
                        self.tell_channels(events);
                    }
                }
                DtlsOutput::CloseNotify => break Drained::Closed,
                DtlsOutput::Idle(until) => {
                    self.security.idle_until = Some(until);
                    break Drained::Fine;
                }
            }
        };
        let version = session.version().unwrap_or(DtlsVersion::Dtls12);
        self.security.session = Some(session);
        scratch.truncate(SCRATCH_BYTES);
        scratch.shrink_to(SCRATCH_BYTES);
        self.security.scratch = scratch;
        match drained {
            Drained::Fine => self.announce_connected(version),
            Drained::Failed(reason) => self.fail(reason),
            Drained::Closed => self.peer_closed(batch),
        }
    }

    /// Moves SCTP packets into DTLS, one at a time: its send queue holds ten and overflowing it is fatal.
    pub(super) fn flush_sctp(&mut self, now: Now, batch: &mut SendBatch) {
        let instant = self.anchor.instant(now);
        while self.security.connected && self.phase != Phase::Ended {
            let Some(packet) = self.sctp.next_packet(instant) else { return };
            let Some(session) = &mut self.security.session else { return };
            match session.send(&packet) {
                Ok(()) => self.drain_dtls(now, batch),
                Err(error) => self.fail(FailReason::Dtls(error)),
            }
        }
    }

    /// Queues close_notify and writes it.
    pub(super) fn close_dtls(&mut self, now: Now, batch: &mut SendBatch) {
        if let Some(session) = &mut self.security.session {
            session.close();
            self.drain_dtls(now, batch);
        }
    }

    fn peer_closed(&mut self, batch: &mut SendBatch) {
        let mut events = Vec::new();
        self.sctp.abort(&mut events);
        self.tell_channels(events);
        // Answering with our own close_notify is polite and costs one packet; `end` drops the session afterwards.
        if let Some(mut session) = self.security.session.take() {
            session.close();
            let mut scratch = vec![0; SCRATCH_BYTES];
            while let DtlsOutput::Packet(packet) = session.poll(&mut scratch) {
                self.push_control(batch, packet);
            }
        }
        self.end();
        self.tell(TransportEvent::Closed);
    }

    fn announce_connected(&mut self, version: DtlsVersion) {
        if self.security.connected && self.phase == Phase::Connecting {
            let profile = self.sender.as_ref().map(fanlight_rtp::SrtpSender::profile);
            self.phase = Phase::Connected { profile, version };
            self.tell(TransportEvent::Connected { profile, version });
        }
    }

    fn start(&mut self, now: Now, mode: DtlsMode) {
        let instant = self.anchor.instant(now);
        self.security.session = Some(Box::new(DimplSession::new(instant, &self.certificate, mode)));
    }

    fn tick_session(&mut self, now: Now) {
        let instant = self.anchor.instant(now);
        let result: Result<(), DtlsError> = match &mut self.security.session {
            Some(session) => session.tick(instant),
            None => Ok(()),
        };
        if let Err(error) = result {
            self.fail(FailReason::Dtls(error));
        }
    }

    fn take_keys(&mut self, keys: &ExportedKeys) -> bool {
        self.security.verified && self.install_keys(keys)
    }

    fn push_control(&mut self, batch: &mut SendBatch, packet: &[u8]) {
        let Some(path) = self.path else {
            self.counters.unsendable += 1;
            return;
        };
        batch.push(path, &mut self.control_run, packet.len()).copy_from_slice(packet);
    }
}
