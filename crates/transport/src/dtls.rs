//! DTLS behind a small seam, so that another library can take the peers that `dimpl` cannot (RSA certificates).

use crate::certificate::Certificate;
use fanlight_base::Redacted;
use std::time::Instant;

/// A DTLS connection: datagrams in, outputs out, time as an argument.
///
/// Drain [`DtlsSession::poll`] to [`DtlsOutput::Idle`] after every other call; a queue inside may be short and its
/// overflow fatal. After an error nothing more is called.
pub(crate) trait DtlsSession: Send {
    /// Takes a datagram.
    fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError>;
    /// Lets time pass.
    fn tick(&mut self, now: Instant) -> Result<(), DtlsError>;
    /// Encrypts one message; only after [`DtlsOutput::Connected`].
    fn send(&mut self, message: &[u8]) -> Result<(), DtlsError>;
    /// Queues a close_notify.
    fn close(&mut self);
    /// What comes out next. `buffer` holds what is borrowed; until the handshake is complete it must be at least as long
    /// as all that was received, for the peer's certificate.
    fn poll<'a>(&mut self, buffer: &'a mut Vec<u8>) -> DtlsOutput<'a>;
    /// Whether the DTLS version is known yet; an active side does not know it before the server's first flight.
    fn version(&self) -> Option<DtlsVersion>;
}

/// What a DTLS session says.
pub(crate) enum DtlsOutput<'a> {
    /// A datagram for the peer.
    Packet(&'a [u8]),
    /// The peer's certificate in DER; it is to be verified before any key is used.
    PeerCertificate(&'a [u8]),
    /// Keys for SRTP, in RFC 5764 §4.2 order.
    Keys(ExportedKeys),
    /// The handshake is complete.
    Connected,
    /// A message of the peer.
    Message(&'a [u8]),
    /// The peer closes.
    CloseNotify,
    /// Nothing until then.
    Idle(Instant),
}

/// Keying material and the profile it is for.
pub(crate) struct ExportedKeys {
    pub(crate) profile: ExportedProfile,
    pub(crate) material: Redacted<Vec<u8>>,
}

/// The SRTP profiles that can be negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportedProfile {
    Aes128CmSha1_80,
    AeadAes128Gcm,
    AeadAes256Gcm,
}

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DtlsVersion {
    /// RFC 6347.
    Dtls12,
    /// RFC 9147.
    Dtls13,
}

/// The DTLS library gave the connection up; there is no going on after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DtlsError(String);

/// Which engine answers or opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DtlsMode {
    /// We are the client; the version is negotiated.
    Client,
    /// We are the server; the client chooses the version.
    Server,
    /// We are the server and speak 1.2 only.
    Server12,
}

/// `dimpl` as a [`DtlsSession`].
pub(crate) struct DimplSession(dimpl::Dtls);

impl DimplSession {
    /// A connection in this mode; handshake timers begin at `now`.
    pub(crate) fn new(now: Instant, certificate: &Certificate, mode: DtlsMode) -> Self {
        let (config, identity) = (certificate.dtls_config(), certificate.dtls_certificate());
        let mut dtls = match mode {
            DtlsMode::Server12 => dimpl::Dtls::new_12(config, identity, now),
            DtlsMode::Server | DtlsMode::Client => dimpl::Dtls::new_auto(config, identity, now),
        };
        dtls.set_active(mode == DtlsMode::Client);
        Self(dtls)
    }
}

impl DtlsSession for DimplSession {
    fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError> {
        self.0.handle_timeout(now).map_err(terminal)?;
        self.0.handle_packet(datagram).map_err(terminal)
    }

    fn tick(&mut self, now: Instant) -> Result<(), DtlsError> {
        self.0.handle_timeout(now).map_err(terminal)
    }

    fn send(&mut self, message: &[u8]) -> Result<(), DtlsError> {
        self.0.send_application_data(message).map(|_| ()).map_err(terminal)
    }

    fn close(&mut self) {
        // An error means that nothing can be said any more, and nothing needs to be.
        let _ = self.0.close();
    }

    fn poll<'a>(&mut self, buffer: &'a mut Vec<u8>) -> DtlsOutput<'a> {
        // Which output comes is learnt without borrowing the buffer for the caller's lifetime, so that it can grow.
        let (kind, len) = loop {
            let capacity = buffer.len();
            match self.0.poll_output(buffer.as_mut_slice()) {
                dimpl::Output::BufferTooSmall { needed } => {
                    buffer.resize(needed.max(capacity.saturating_add(1)), 0);
                }
                dimpl::Output::Packet(bytes) => break (Borrowed::Packet, bytes.len()),
                dimpl::Output::PeerCert(bytes) => break (Borrowed::PeerCertificate, bytes.len()),
                dimpl::Output::ApplicationData(bytes) => break (Borrowed::Message, bytes.len()),
                dimpl::Output::KeyingMaterial(material, profile) => match exported(profile) {
                    Some(profile) => {
                        let material = Redacted::new(material.to_vec());
                        return DtlsOutput::Keys(ExportedKeys { profile, material });
                    }
                    None => continue,
                },
                dimpl::Output::Connected => return DtlsOutput::Connected,
                dimpl::Output::CloseNotify => return DtlsOutput::CloseNotify,
                dimpl::Output::Timeout(instant) => return DtlsOutput::Idle(instant),
                _ => {}
            }
        };
        let bytes = buffer.get(..len).unwrap_or_default();
        match kind {
            Borrowed::Packet => DtlsOutput::Packet(bytes),
            Borrowed::PeerCertificate => DtlsOutput::PeerCertificate(bytes),
            Borrowed::Message => DtlsOutput::Message(bytes),
        }
    }

    fn version(&self) -> Option<DtlsVersion> {
        match self.0.protocol_version()? {
            dimpl::ProtocolVersion::DTLS1_3 => Some(DtlsVersion::Dtls13),
            _ => Some(DtlsVersion::Dtls12),
        }
    }
}

enum Borrowed {
    Packet,
    PeerCertificate,
    Message,
}

const fn exported(profile: dimpl::SrtpProfile) -> Option<ExportedProfile> {
    match profile {
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Some(ExportedProfile::Aes128CmSha1_80),
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Some(ExportedProfile::AeadAes128Gcm),
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Some(ExportedProfile::AeadAes256Gcm),
        _ => None,
    }
}

fn terminal(error: dimpl::Error) -> DtlsError {
    DtlsError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct End {
        session: DimplSession,
        profile: Option<ExportedProfile>,
        material: Vec<u8>,
        connected: bool,
        messages: Vec<Vec<u8>>,
    }

    impl End {
        fn new(now: Instant, mode: DtlsMode) -> Self {
            let certificate = Certificate::generate().expect("a certificate");
            let session = DimplSession::new(now, &certificate, mode);
            Self { session, profile: None, material: Vec::new(), connected: false, messages: Vec::new() }
        }

        fn drain(&mut self) -> Vec<Vec<u8>> {
            let (mut packets, mut buffer) = (Vec::new(), vec![0; 8_192]);
            loop {
                match self.session.poll(&mut buffer) {
                    DtlsOutput::Packet(packet) => packets.push(packet.to_vec()),
                    DtlsOutput::PeerCertificate(der) => assert!(!der.is_empty()),
                    DtlsOutput::Keys(keys) => {
                        self.profile = Some(keys.profile);
                        self.material = keys.material.reveal().clone();
                    }
                    DtlsOutput::Connected => self.connected = true,
                    DtlsOutput::Message(bytes) => self.messages.push(bytes.to_vec()),
                    DtlsOutput::CloseNotify => {}
                    DtlsOutput::Idle(_) => return packets,
                }
            }
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "an Instant cannot be made without the clock; its value is arbitrary"
    )]
    fn handshake(mode: DtlsMode) -> (End, End) {
        let mut now = Instant::now();
        let (mut client, mut server) = (End::new(now, DtlsMode::Client), End::new(now, mode));
        client.session.tick(now).expect("starts");
        for _ in 0..20 {
            now += Duration::from_millis(10);
            for packet in client.drain() {
                server.session.receive(now, &packet).expect("taken");
            }
            for packet in server.drain() {
                client.session.receive(now, &packet).expect("taken");
            }
        }
        (client, server)
    }

    #[test]
    fn a_server_of_either_kind_gets_along_with_a_client_that_speaks_both_versions() {
        for (mode, version) in
            [(DtlsMode::Server12, DtlsVersion::Dtls12), (DtlsMode::Server, DtlsVersion::Dtls13)]
        {
            let (client, mut server) = handshake(mode);
            assert!(client.connected && server.connected);
            assert_eq!(client.session.version(), Some(version));
            assert_eq!(server.session.version(), Some(version));
            assert_eq!(server.profile, Some(ExportedProfile::AeadAes256Gcm));
            assert_eq!((client.profile, &client.material), (server.profile, &server.material));
            server.session.send(b"message").expect("sent");
            let packets = server.drain();
            assert_eq!(packets.len(), 1);
        }
    }
}
