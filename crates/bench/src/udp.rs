//! A client's UDP socket, with GSO and GRO: a receiver without GRO makes the sender pay for cutting its runs up.

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};

/// Room for one GRO receive.
const RECEIVE_BYTES: usize = 65_535;
/// Asked of the kernel for each direction.
const BUFFER_BYTES: usize = 4 << 20;

pub(crate) struct Udp {
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
    state: UdpSocketState,
}

/// Room that all sockets receive into in turn.
pub(crate) struct ReceiveBuffer(Vec<u8>);

impl ReceiveBuffer {
    pub(crate) fn new() -> Self {
        Self(vec![0; RECEIVE_BYTES * BATCH_SIZE])
    }
}

impl Udp {
    /// A socket on loopback.
    pub(crate) fn new() -> io::Result<Self> {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        state.set_recv_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES)?;
        state.set_send_buffer_size(UdpSockRef::from(&socket), BUFFER_BYTES)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, state })
    }

    /// Receives once: every run of datagrams from one sender goes to `each` with the size of its datagrams. False when
    /// there is nothing.
    pub(crate) fn receive(
        &self,
        buffer: &mut ReceiveBuffer,
        mut each: impl FnMut(SocketAddr, &mut [u8], usize),
    ) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = {
            let mut chunks = buffer.0.chunks_mut(RECEIVE_BYTES);
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()))
        };
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        for (meta, chunk) in metas.iter().zip(buffer.0.chunks_mut(RECEIVE_BYTES)).take(count) {
            each(meta.addr, chunk.get_mut(..meta.len).unwrap_or_default(), meta.stride.max(1));
        }
        Ok(true)
    }

    /// Sends datagrams of one size, the last one may be shorter, in one call.
    pub(crate) fn send(&self, to: SocketAddr, contents: &[u8], segment_bytes: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents,
            segment_size: (contents.len() > segment_bytes).then_some(segment_bytes),
            src_ip: None,
        };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }
}
