//! One connection of an attacker, made by hand: ICE with the right password, DTLS, and whatever the attacker puts inside.

use crate::Failure;
use crate::stun;
use aws_lc_rs::rand;
use fanlight_transport::fuzzing::HandmadeDtls;
use fanlight_transport::{Certificate, ufrag};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The handshake is complete within this, or the server does not want it.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Consent is asked for so often (RFC 7675), and the timers of DTLS are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const OWN_UFRAG: &str = "evil";
const OWN_PASSWORD: &str = "a+password+of+the+attacker";

pub(super) struct Path {
    pub(super) socket: UdpSocket,
    pub(super) server: SocketAddr,
    /// ufrag and password of the server's end.
    pub(super) ufrag: String,
    pub(super) password: String,
    /// What came inside of DTLS.
    pub(super) messages: Vec<Vec<u8>>,
    /// We made the description that the server answered.
    offered: bool,
    dtls: HandmadeDtls,
    checked: Instant,
}

/// Lines of a description that say who we are.
pub(super) fn credentials(certificate: &Certificate) -> String {
    format!(
        "a=ice-ufrag:{OWN_UFRAG}\r\na=ice-pwd:{OWN_PASSWORD}\r\na=fingerprint:{}\r\na=setup:active\r\n",
        certificate.fingerprint()
    )
}

impl Path {
    /// Connects to where the server's description says, which answers ours if we `offered` one.
    pub(super) fn connect(
        media: &[SocketAddr],
        description: &str,
        certificate: &Certificate,
        offered: bool,
    ) -> Result<Self, Failure> {
        let value = |name: &str| {
            let line = description.lines().find_map(|line| line.trim().strip_prefix(name));
            line.map(str::to_owned).ok_or(format!("no {name} in the description"))
        };
        let (ufrag, password) = (value("a=ice-ufrag:")?, value("a=ice-pwd:")?);
        let thread = ufrag::shard(&ufrag).ok_or("a ufrag of nobody's")?;
        let server = *media.get(usize::from(thread)).ok_or("a media thread that is not there")?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let now = Instant::now();
        let dtls = HandmadeDtls::new(now, certificate);
        let mut path =
            Self { socket, server, ufrag, password, messages: Vec::new(), offered, dtls, checked: now };
        path.check()?;
        while !path.dtls.connected {
            if now.elapsed() > CONNECT_MAX {
                return Err("no DTLS with the server".into());
            }
            std::thread::sleep(Duration::from_millis(2));
            path.breathe()?;
        }
        Ok(path)
    }

    /// A connectivity check with the right password.
    pub(super) fn request(&self) -> Result<Vec<u8>, Failure> {
        let mut transaction = [0; 12];
        rand::fill(&mut transaction)?;
        let username = format!("{}:{OWN_UFRAG}", self.ufrag);
        let attributes = if self.offered {
            let nominates = std::iter::once((stun::USE_CANDIDATE, Vec::new()));
            stun::check(&username).into_iter().chain(nominates).collect()
        } else {
            stun::controlled_check(&username)
        };
        Ok(stun::message(stun::REQUEST, transaction, &attributes, &self.password))
    }

    fn check(&self) -> Result<(), Failure> {
        self.send(&self.request()?);
        Ok(())
    }

    /// Sends a datagram; what the kernel does not take is lost.
    pub(super) fn send(&self, datagram: &[u8]) {
        let _ = self.socket.send_to(datagram, self.server);
    }

    /// Sends a message inside of DTLS.
    pub(super) fn send_inside(&mut self, message: &[u8]) -> Result<(), Failure> {
        self.dtls.send(message)?;
        self.flush();
        Ok(())
    }

    /// Seals a packet that has so long a header, and sends it; gives what left.
    pub(super) fn send_rtp(
        &mut self,
        mut packet: Vec<u8>,
        header_len: usize,
        number: u64,
    ) -> Result<Vec<u8>, Failure> {
        let srtp = self.dtls.srtp.as_mut().ok_or("no keys")?;
        packet.resize(packet.len() + srtp.overhead(), 0);
        srtp.seal_rtp(&mut packet, header_len, number)?;
        self.send(&packet);
        Ok(packet)
    }

    /// The same with a compound of RTCP.
    pub(super) fn send_rtcp(&mut self, mut compound: Vec<u8>) -> Result<(), Failure> {
        self.dtls.srtp.as_mut().ok_or("no keys")?.seal_rtcp(&mut compound)?;
        self.send(&compound);
        Ok(())
    }

    /// Takes what has come, and keeps the connection alive.
    pub(super) fn breathe(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 2_048];
        loop {
            let length = match self.socket.recv_from(&mut buffer) {
                Ok((length, _)) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A port that is closed for a while.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error.into()),
            };
            self.receive(buffer.get(..length).unwrap_or_default())?;
        }
        let now = Instant::now();
        self.dtls.tick(now)?;
        self.flush();
        if now - self.checked > CHECK_EVERY {
            self.checked = now;
            self.check()?;
        }
        Ok(())
    }

    fn receive(&mut self, datagram: &[u8]) -> Result<(), Failure> {
        if let Some(transaction) = stun::transaction(datagram, stun::REQUEST) {
            let address = mapped(self.socket.local_addr()?);
            let attributes = [(stun::XOR_MAPPED_ADDRESS, address)];
            self.send(&stun::message(stun::SUCCESS, transaction, &attributes, OWN_PASSWORD));
        } else if datagram.first().is_some_and(|first| (20..=63).contains(first)) {
            self.dtls.receive(Instant::now(), datagram)?;
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        for packet in self.dtls.drain(&mut self.messages) {
            self.send(&packet);
        }
    }
}

/// The value of XOR-MAPPED-ADDRESS (RFC 8489 §14.2) for an address of IPv4.
fn mapped(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { return Vec::new() };
    let port = address.port() ^ u16::from_be_bytes([stun::COOKIE[0], stun::COOKIE[1]]);
    let octets = address.ip().octets().into_iter().zip(stun::COOKIE).map(|(octet, cookie)| octet ^ cookie);
    [0, 1].into_iter().chain(port.to_be_bytes()).chain(octets).collect()
}
