//! UDP sockets with GSO and GRO.

use fanlight_base::{Addresses, Protocol, Run};
use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

/// Asked of the kernel for each direction. A 1 Gbit/s burst of 100 ms is 12 MB; LiveKit asks for 16 MiB too.
const BUFFER_BYTES: usize = 16 << 20;
/// Below this a burst of key frames is lost before we see it; LiveKit warns below 5 MB too.
const BUFFER_WARN_BYTES: usize = 5_000_000;
/// Room for one GRO receive.
const RECEIVE_BYTES: usize = 65_535;
/// Receive calls of one socket in one turn: with GRO up to 64 datagrams each, about 2 ms of work.
const RECEIVES_PER_TURN: usize = 16;

/// A bound socket.
#[derive(Debug)]
pub struct Endpoint {
    /// What the socket is bound to: the local end of everything it receives.
    pub bound: SocketAddr,
    socket: UdpSocket,
}

/// A UDP socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Binding failed.
    #[error("cannot bind UDP {address}: {source}; choose another {setting} or end what holds it")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// The configuration key of its port.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be set up.
    #[error("cannot set up the UDP socket {address}: {source}")]
    Setup {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Binds a non-blocking socket; port 0 takes a free one. `setting` is the configuration key of the port.
pub fn bind(bound: SocketAddr, setting: &'static str) -> Result<Endpoint, UdpError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(bound), Type::DGRAM, None)?;
        if bound.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&bound.into())?;
        Ok(socket)
    };
    let socket = open().map_err(|source| UdpError::Bind { address: bound, setting, source })?;
    let socket = UdpSocket::from_std(socket.into());
    let bound = socket.local_addr().map_err(|source| UdpError::Setup { address: bound, source })?;
    Ok(Endpoint { bound, socket })
}

/// An [`Endpoint`] in use by a worker.
pub(crate) struct Udp {
    pub(crate) bound: SocketAddr,
    pub(crate) socket: UdpSocket,
    state: UdpSocketState,
}

/// What one receive call fills; all sockets of a thread share it.
pub(crate) struct ReceiveBuffer {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl ReceiveBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; RECEIVE_BYTES * BATCH_SIZE], metas: [RecvMeta::default(); BATCH_SIZE] }
    }
}

/// What one turn received.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    pub(crate) calls: u64,
    pub(crate) datagrams: u64,
    /// There may be more than one turn takes; the poll does not say so again.
    pub(crate) more: bool,
}

/// What one send did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    pub(crate) calls: u64,
    pub(crate) packets: u64,
    pub(crate) blocked: u64,
    pub(crate) failed: u64,
}

impl Udp {
    /// A socket as the kernel makes it: for relays, of which there are thousands.
    pub(crate) fn plain(endpoint: Endpoint) -> Result<Self, UdpError> {
        let Endpoint { bound, socket } = endpoint;
        let setup = |source| UdpError::Setup { address: bound, source };
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).map_err(setup)?;
        Ok(Self { bound, socket, state })
    }

    /// A socket that many share, with large buffers.
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self, UdpError> {
        let udp = Self::plain(endpoint)?;
        let Self { bound, socket, state } = &udp;
        let setup = |source| UdpError::Setup { address: *bound, source };
        for set in [UdpSocketState::set_recv_buffer_size, UdpSocketState::set_send_buffer_size] {
            set(state, UdpSockRef::from(socket), BUFFER_BYTES).map_err(setup)?;
        }
        let buffers = [
            (state.recv_buffer_size(UdpSockRef::from(socket)).map_err(setup)?, "receive", "rmem_max"),
            (state.send_buffer_size(UdpSockRef::from(socket)).map_err(setup)?, "send", "wmem_max"),
        ];
        for warning in buffers.iter().filter_map(|(bytes, name, sysctl)| warning(*bytes, name, sysctl)) {
            tracing::warn!("UDP {bound}: {warning}");
        }
        Ok(udp)
    }

    /// Hands every datagram that waits to `each`, so many calls at most.
    pub(crate) fn receive(
        &self,
        buffer: &mut ReceiveBuffer,
        mut each: impl FnMut(Addresses, &mut [u8]),
    ) -> Received {
        let mut received = Received::default();
        for _ in 0..RECEIVES_PER_TURN {
            match self.receive_once(buffer, &mut received, &mut each) {
                // The call had room for more: the queue was empty by then, and what came since is announced by the poll.
                Ok(count) if count < BATCH_SIZE => return received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return received,
                // After an ICMP error of an earlier send the datagrams behind it are still there.
                Ok(_) | Err(_) => {}
            }
        }
        Received { more: true, ..received }
    }

    fn receive_once(
        &self,
        buffer: &mut ReceiveBuffer,
        received: &mut Received,
        each: &mut impl FnMut(Addresses, &mut [u8]),
    ) -> io::Result<usize> {
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = {
            let mut chunks = buffer.bytes.chunks_mut(RECEIVE_BYTES);
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()))
        };
        let count = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut buffer.metas)?;
        received.calls += 1;
        for (meta, chunk) in buffer.metas.iter().zip(buffer.bytes.chunks_mut(RECEIVE_BYTES)).take(count) {
            let addresses = Addresses { local: self.bound, remote: meta.addr, protocol: Protocol::Udp };
            let Some(bytes) = chunk.get_mut(..meta.len) else { continue };
            for datagram in bytes.chunks_mut(meta.stride.max(1)) {
                received.datagrams += 1;
                each(addresses, datagram);
            }
        }
        Ok(count)
    }

    /// Sends a run, in one call where the kernel segments, else in as many as it takes.
    pub(crate) fn send(&self, run: &Run) -> Sent {
        let mut sent = Sent::default();
        let segment_bytes = run.segment_bytes().max(1);
        let per_call = self.state.max_gso_segments().max(1);
        for contents in run.bytes().chunks(segment_bytes.saturating_mul(per_call)) {
            let packets = contents.len().div_ceil(segment_bytes);
            match self.send_once(run, contents, &mut sent) {
                // The kernel, or the network card, does not segment after all; quinn-udp has noticed.
                Err(_) if packets > 1 && self.state.max_gso_segments() <= 1 => {
                    for packet in contents.chunks(segment_bytes) {
                        let result = self.send_once(run, packet, &mut sent);
                        sent.count(1, result);
                    }
                }
                result => sent.count(packets as u64, result),
            }
        }
        sent
    }

    fn send_once(&self, run: &Run, contents: &[u8], sent: &mut Sent) -> io::Result<()> {
        sent.calls += 1;
        let transmit = Transmit {
            destination: run.addresses.remote,
            ecn: None,
            contents,
            segment_size: Some(run.segment_bytes()),
            src_ip: None,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

impl Sent {
    fn count(&mut self, packets: u64, result: io::Result<()>) {
        match result {
            Ok(()) => self.packets += packets,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked += packets,
            // Unreachable, refused by a firewall, or an ICMP error of an earlier packet.
            Err(_) => self.failed += packets,
        }
    }
}

/// What to do about a buffer that will lose packets. The kernel says twice what it was asked for.
fn warning(bytes: usize, name: &str, sysctl: &str) -> Option<String> {
    (bytes < BUFFER_WARN_BYTES).then(|| {
        format!(
            "the kernel gives a {name} buffer of {bytes} bytes only, and packets will be lost under load; \
             raise it with: sysctl -w net.core.{sysctl}={BUFFER_BYTES}"
        )
    })
}

/// Packets the kernel dropped for full receive buffers of UDP sockets bound to `port`, from `/proc/net/udp`; `None`
/// where there is no such file.
pub(crate) fn kernel_drops(ports: &[u16]) -> Option<u64> {
    let mut drops = 0u64;
    let v4 = std::fs::read_to_string("/proc/net/udp").ok()?;
    let v6 = std::fs::read_to_string("/proc/net/udp6").unwrap_or_default();
    for line in v4.lines().chain(v6.lines()) {
        drops = drops.saturating_add(drops_of_line(line, ports).unwrap_or(0));
    }
    Some(drops)
}

fn drops_of_line(line: &str, ports: &[u16]) -> Option<u64> {
    let mut columns = line.split_whitespace();
    let local = columns.nth(1)?;
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    if !ports.contains(&port) {
        return None;
    }
    columns.next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_last_column_of_our_port() {
        let line = "  123: 0100007F:1ECA 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 99 2 0000 42";
        assert_eq!(drops_of_line(line, &[7882]), Some(42));
        assert_eq!(drops_of_line(line, &[7883]), None);
        assert_eq!(drops_of_line("  sl  local_address rem_address", &[7882]), None);
    }

    #[test]
    fn a_small_buffer_is_said_with_its_remedy() {
        let said = warning(425_984, "receive", "rmem_max").expect("a warning");
        assert!(said.contains("425984") && said.contains("sysctl -w net.core.rmem_max=16777216"), "{said}");
        assert_eq!(warning(8 << 20, "receive", "rmem_max"), None);
    }

    #[test]
    fn buffers_are_set_as_large_as_the_kernel_allows() {
        let allowed = |name: &str| -> usize {
            let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap();
            text.trim().parse().unwrap()
        };
        let udp = Udp::new(bind(([127, 0, 0, 1], 0).into(), "a port").unwrap()).unwrap();
        let received = udp.state.recv_buffer_size(UdpSockRef::from(&udp.socket)).unwrap();
        let sent = udp.state.send_buffer_size(UdpSockRef::from(&udp.socket)).unwrap();
        assert!(received >= BUFFER_BYTES.min(allowed("rmem_max")), "{received}");
        assert!(sent >= BUFFER_BYTES.min(allowed("wmem_max")), "{sent}");
    }

    #[test]
    fn a_run_arrives_as_its_packets() {
        use fanlight_base::{RunHint, SendBatch};
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (a, b) = (bind(loopback, "a port").unwrap(), bind(loopback, "a port").unwrap());
        let (a, b) = (Udp::new(a).unwrap(), Udp::new(b).unwrap());
        let addresses = Addresses { local: a.bound, remote: b.bound, protocol: Protocol::Udp };
        let mut batch = SendBatch::new();
        let mut hint = RunHint::default();
        for (byte, len) in [(1u8, 100), (2, 100), (3, 60)] {
            batch.push(addresses, &mut hint, len).fill(byte);
        }
        let sent = a.send(&batch.runs()[0]);
        assert_eq!((sent.packets, sent.blocked, sent.failed), (3, 0, 0));
        let (mut got, mut buffer) = (Vec::new(), ReceiveBuffer::new());
        while got.len() < 3 {
            b.receive(&mut buffer, |from, datagram| got.push((from.remote, datagram.to_vec())));
        }
        let expected: Vec<_> =
            [(1u8, 100), (2, 100), (3, 60)].map(|(byte, len)| (a.bound, vec![byte; len])).into();
        assert_eq!(got, expected);
    }

    #[test]
    fn what_waits_is_taken_in_one_call_and_the_kernel_is_not_asked_again() {
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        let to = Udp::new(bind(loopback, "a port").unwrap()).unwrap();
        let from = std::net::UdpSocket::bind(loopback).unwrap();
        for byte in 0..3 {
            from.send_to(&[byte; 10], to.bound).unwrap();
        }
        let mut got = Vec::new();
        let received = to.receive(&mut ReceiveBuffer::new(), |_, datagram| got.push(datagram[0]));
        assert_eq!((received.calls, received.datagrams, received.more), (1, 3, false));
        assert_eq!(got, [0, 1, 2]);
    }
}
