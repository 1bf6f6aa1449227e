//! The client's end of DTLS by itself: what it sends inside is the caller's.

use crate::dtls::{DimplSession, DtlsMode, DtlsOutput, DtlsSession, ExportedKeys, ExportedProfile};
use crate::{Certificate, DtlsError};
use fanlight_rtp::{SrtpProfile, SrtpSender};
use std::time::Instant;

/// A client that connects, and then sends whatever it is told to.
pub struct HandmadeDtls {
    session: DimplSession,
    buffer: Vec<u8>,
    /// The handshake is complete.
    pub connected: bool,
    /// Seals media as the client does; there once the handshake is complete.
    pub srtp: Option<SrtpSender>,
}

impl HandmadeDtls {
    /// Before the handshake, which begins with the first [`HandmadeDtls::tick`].
    pub fn new(now: Instant, certificate: &Certificate) -> Self {
        let session = DimplSession::new(now, certificate, DtlsMode::Client);
        Self { session, buffer: vec![0; 16_384], connected: false, srtp: None }
    }

    /// Takes a datagram.
    pub fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError> {
        self.session.receive(now, datagram)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) -> Result<(), DtlsError> {
        self.session.tick(now)
    }

    /// Encrypts one message.
    pub fn send(&mut self, message: &[u8]) -> Result<(), DtlsError> {
        self.session.send(message)
    }

    /// Gives the datagrams that are to leave; what the server said is appended to `messages`. Called after every other call.
    pub fn drain(&mut self, messages: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        loop {
            match self.session.poll(&mut self.buffer) {
                DtlsOutput::Packet(packet) => packets.push(packet.to_vec()),
                DtlsOutput::Message(message) => messages.push(message.to_vec()),
                DtlsOutput::Connected => self.connected = true,
                DtlsOutput::Keys(keys) => self.srtp = sender(&keys),
                DtlsOutput::PeerCertificate(_) | DtlsOutput::CloseNotify => {}
                DtlsOutput::Idle(_) => return packets,
            }
        }
    }
}

/// The client's keys: both keys, then both salts, the client's first (RFC 5764 §4.2).
fn sender(keys: &ExportedKeys) -> Option<SrtpSender> {
    let profile = match keys.profile {
        ExportedProfile::Aes128CmSha1_80 => SrtpProfile::Aes128CmHmacSha1_80,
        ExportedProfile::AeadAes128Gcm => SrtpProfile::AeadAes128Gcm,
        ExportedProfile::AeadAes256Gcm => SrtpProfile::AeadAes256Gcm,
    };
    let (client_keys, salts) = keys.material.reveal().split_at_checked(2 * profile.key_len())?;
    let (key, salt) = (client_keys.get(..profile.key_len())?, salts.get(..profile.salt_len())?);
    SrtpSender::new(profile, key, salt).ok()
}
