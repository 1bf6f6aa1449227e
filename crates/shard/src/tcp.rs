//! ICE over TCP: framed connections that look like datagrams to the core.

use fanlight_base::Addresses;
use mio::net::TcpStream;
use std::io::{self, Read, Write};

/// Bytes that may wait for a slow receiver: half a second at 8 Mbit/s. Beyond it frames are dropped and counted.
const WRITE_BACKLOG_BYTES: usize = 512 << 10;
/// One frame: the length prefix of RFC 4571 has 16 bits.
const FRAME_BYTES: usize = 2 + 65_535;

/// A connection handed over by the acceptor.
pub(crate) struct Connection {
    pub(crate) addresses: Addresses,
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

impl Connection {
    /// A connection of which `first` was already read.
    pub(crate) const fn new(addresses: Addresses, stream: TcpStream, first: Vec<u8>) -> Self {
        Self { addresses, stream, input: first, output: Vec::new(), written: 0 }
    }

    /// Hands every complete frame to `each`; an error (the end of the stream included) means that the connection is
    /// over. Returns the number of frames.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Addresses, &mut [u8])) -> io::Result<u64> {
        let mut frames = self.frames(&mut each);
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    frames += self.frames(&mut each);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(frames),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues one packet as a frame; `false` when the connection is too slow and the packet is dropped.
    pub(crate) fn send(&mut self, packet: &[u8]) -> bool {
        let Ok(len) = u16::try_from(packet.len()) else { return false };
        if self.output.len() - self.written + packet.len() + 2 > WRITE_BACKLOG_BYTES {
            return false;
        }
        self.output.extend_from_slice(&len.to_be_bytes());
        self.output.extend_from_slice(packet);
        true
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(self.output.get(self.written..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    fn frames(&mut self, each: &mut impl FnMut(Addresses, &mut [u8])) -> u64 {
        let mut frames = 0;
        let mut start = 0;
        while let Some((len, rest)) = split_length(self.input.get_mut(start..).unwrap_or_default()) {
            let Some(frame) = rest.get_mut(..len) else { break };
            each(self.addresses, frame);
            frames += 1;
            start += 2 + len;
        }
        self.input.drain(..start);
        debug_assert!(self.input.len() <= FRAME_BYTES + (16 << 10));
        frames
    }
}

fn split_length(bytes: &mut [u8]) -> Option<(usize, &mut [u8])> {
    let (length, rest) = bytes.split_first_chunk_mut::<2>()?;
    Some((usize::from(u16::from_be_bytes(*length)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_base::Protocol;
    use std::net::TcpListener;

    fn pair() -> (Connection, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, remote) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let addresses = Addresses { local: listener.local_addr().unwrap(), remote, protocol: Protocol::Tcp };
        (Connection::new(addresses, TcpStream::from_std(near), vec![0, 3, 1]), far)
    }

    #[test]
    fn frames_are_joined_from_pieces_and_split_again() {
        let (mut near, mut far) = pair();
        far.write_all(&[2, 3, 0, 1, 9, 0]).unwrap();
        let mut got = Vec::new();
        while got.len() < 2 {
            near.receive(|_, frame| got.push(frame.to_vec())).unwrap();
        }
        assert_eq!(got, [vec![1, 2, 3], vec![9]]);
    }

    #[test]
    fn a_receiver_that_does_not_read_costs_frames_and_not_memory() {
        let (mut near, _far) = pair();
        let sent = (0..1000).filter(|_| near.send(&[0; 1200])).count();
        assert!(sent < 1000);
        assert!(near.output.len() <= WRITE_BACKLOG_BYTES);
    }

    #[test]
    fn the_end_of_the_stream_ends_the_connection() {
        let (mut near, far) = pair();
        drop(far);
        let end = loop {
            if let Err(error) = near.receive(|_, _| {}) {
                break error.kind();
            }
        };
        assert_eq!(end, io::ErrorKind::UnexpectedEof);
    }
}
