//! An ICE agent with real credentials against a peer that has them too.

use crate::candidate::LocalCandidate;
use crate::demux::{TransactionId, stun_request_transaction};
use crate::limits::REMOTES_MAX;
use crate::{Certificate, ClockAnchor, DtlsRole, RemoteParameters, Setup, Transport, TransportConfig};
use aws_lc_rs::hmac;
use fanlight_base::{Addresses, Mono, Now, Protocol, Random, Redacted, SendBatch};
use std::time::{Duration, Instant};

const UFRAG: &str = "peer";
const PASSWORD: &str = "the password of the peer";
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const ERROR: u16 = 0x0111;
/// Steps of one input; more say nothing new and take long.
const STEPS_MAX: usize = 2_000;

/// The first byte chooses the agent; then steps of two bytes, what and from which port or how long, a length of two bytes and
/// so many bytes.
pub fn fuzz_ice(data: &[u8]) {
    let Some((options, mut script)) = data.split_first() else { return };
    let Some(mut agent) = Agent::new(*options) else { return };
    for _ in 0..STEPS_MAX {
        let Some(([what, argument, high, low], tail)) = script.split_first_chunk() else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (bytes, rest) = tail.split_at(length);
        agent.step(*what, *argument, bytes);
        script = rest;
    }
    let heard = (0..=u8::MAX).filter(|port| agent.transport.heard(from(*port)).is_some());
    assert!(heard.count() <= REMOTES_MAX);
}

struct Agent {
    transport: Transport,
    now: Now,
    batch: SendBatch,
    /// The last check it sent, and where.
    sent: Option<(TransactionId, Addresses)>,
    restarts: u32,
}

impl Agent {
    fn new(options: u8) -> Option<Self> {
        #[allow(
            clippy::disallowed_methods,
            reason = "an Instant cannot be made without the clock; its value is arbitrary"
        )]
        let anchor = ClockAnchor::new(Instant::now(), Mono::default());
        let config = TransportConfig {
            anchor,
            shard: 0,
            ice_lite: options & 1 != 0,
            offerer: options & 2 != 0,
            role: DtlsRole::Passive,
            certificate: Certificate::generate().ok()?,
        };
        let mut transport = Transport::new(config, &mut Random::from_seed([options; 32]));
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            transport.add_local_candidate(LocalCandidate::new(([10, 0, 0, 1], 7882).into(), protocol));
        }
        let now = Now { mono_ns: 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 };
        let mut agent = Self { transport, now, batch: SendBatch::new(), sent: None, restarts: 0 };
        // Else checks come before the peer's credentials are known.
        if options & 4 == 0 {
            agent.set_remote();
        }
        Some(agent)
    }

    fn step(&mut self, what: u8, argument: u8, bytes: &[u8]) {
        match what % 8 {
            0 => self.receive(from(argument), bytes.to_vec()),
            1 => {
                let username = format!("{}:{UFRAG}", self.transport.local_ufrag());
                let mut message = header(REQUEST, [argument; 12]);
                attribute(&mut message, 0x0006, username.as_bytes());
                message.extend(bytes);
                self.receive_signed(from(argument), message, true);
            }
            2 => self.receive_signed(from(argument), bytes.to_vec(), argument.is_multiple_of(2)),
            3 => {
                let Some((transaction, to)) = self.sent else { return };
                let mut message =
                    header(if argument.is_multiple_of(2) { SUCCESS } else { ERROR }, transaction);
                message.extend(bytes);
                let addresses = if argument < 2 { to } else { from(argument) };
                self.receive_signed(addresses, message, false);
            }
            4 => {
                let by = Duration::from_millis(64 * u64::from(argument));
                let by_ns = u64::try_from(by.as_nanos()).unwrap_or_default();
                self.now = Now { mono_ns: self.now.mono_ns + by_ns, unix_ns: self.now.unix_ns + by_ns };
                self.transport.handle_timeout(self.now, &mut self.batch);
            }
            5 => {
                let line = String::from_utf8_lossy(bytes);
                let _ = self.transport.add_remote_candidate(self.now, &line);
                self.transport.handle_timeout(self.now, &mut self.batch);
            }
            6 => self.transport.remove_tuple(self.now, from(argument), &mut self.batch),
            _ if argument.is_multiple_of(2) => self.transport.restart_ice(self.now),
            _ => self.set_remote(),
        }
        while self.transport.poll_event().is_some() {}
        self.transport.take_forgotten();
        for run in self.batch.runs() {
            let checks = run.packets().filter_map(stun_request_transaction);
            self.sent = checks.map(|transaction| (transaction, run.addresses)).last().or(self.sent);
        }
        self.batch.clear();
    }

    fn set_remote(&mut self) {
        self.restarts += 1;
        let remote = RemoteParameters {
            ufrag: UFRAG.to_owned(),
            password: Redacted::new(format!("{PASSWORD}{}", self.restarts)),
            fingerprint: self.transport.fingerprint().clone(),
            setup: Setup::Active,
        };
        let _ = self.transport.set_remote(self.now, &remote);
    }

    /// With a correct length and MESSAGE-INTEGRITY (RFC 8489 §14.5).
    fn receive_signed(&mut self, addresses: Addresses, mut message: Vec<u8>, by_ours: bool) {
        let password = match by_ours {
            true => self.transport.local_password().to_owned(),
            false => format!("{PASSWORD}{}", self.restarts),
        };
        message.resize(message.len().max(20).next_multiple_of(4), 0);
        set_length(&mut message, 24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let integrity = hmac::sign(&key, &message);
        attribute(&mut message, 0x0008, integrity.as_ref());
        set_length(&mut message, 0);
        self.receive(addresses, message);
    }

    fn receive(&mut self, addresses: Addresses, mut bytes: Vec<u8>) {
        self.transport.handle_datagram(self.now, addresses, &mut bytes, &mut self.batch);
    }
}

fn from(port: u8) -> Addresses {
    let (local, remote) = (([10, 0, 0, 1], 7882).into(), ([10, 0, 0, 2], 50_000 + u16::from(port)).into());
    let protocol = if port >= 224 { Protocol::Tcp } else { Protocol::Udp };
    Addresses { local, remote, protocol }
}

fn header(kind: u16, transaction: TransactionId) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &[0, 0, 0x21, 0x12, 0xa4, 0x42], &transaction].concat()
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn set_length(message: &mut [u8], more: usize) {
    let length = u16::try_from(message.len() - 20 + more).unwrap_or(u16::MAX);
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}
