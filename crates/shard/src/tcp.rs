//! ICE over TCP: framed connections that look like datagrams to the core.

use crate::backlog::Backlog;
use fanlight_base::{Addresses, Mono};
use fanlight_transport::framing::{FrameReader, frame_header};
use mio::net::TcpStream;
use std::io::{self, Read};

/// Bytes of one read.
const READ_BYTES: usize = 16 << 10;
/// Reads of one connection in one turn: 256 kB, about 2 ms of work.
const READS_PER_TURN: usize = 16;

/// A connection handed over by the acceptor.
pub(crate) struct Connection {
    pub(crate) addresses: Addresses,
    pub(crate) stream: TcpStream,
    pub(crate) since: Mono,
    input: FrameReader,
    output: Backlog,
}

/// What one turn brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// There may be more than one turn takes; the poll does not say so again.
    pub(crate) more: bool,
}

impl Connection {
    /// A connection of which `first` was already read.
    pub(crate) fn new(addresses: Addresses, stream: TcpStream, since: Mono, first: &[u8]) -> Self {
        let mut input = FrameReader::new();
        input.push(first);
        Self { addresses, stream, since, input, output: Backlog::default() }
    }

    /// Hands every complete frame to `each`; an error (the end of the stream included) means that the connection is
    /// over.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Addresses, &mut [u8])) -> io::Result<Arrived> {
        let mut arrived = Arrived::default();
        self.frames(&mut arrived, &mut each)?;
        let mut chunk = [0; READ_BYTES];
        for _ in 0..READS_PER_TURN {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.push(chunk.get(..count).unwrap_or_default());
                    self.frames(&mut arrived, &mut each)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(arrived),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Arrived { more: true, ..arrived })
    }

    /// Queues one packet as a frame; `false` when the connection is too slow and the packet is dropped.
    pub(crate) fn send(&mut self, packet: &[u8]) -> bool {
        let Some(header) = frame_header(packet.len()) else { return false };
        if !self.output.has_room(packet.len() + header.len()) {
            return false;
        }
        self.output.end().extend_from_slice(&header);
        self.output.end().extend_from_slice(packet);
        true
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.output.flush(&mut self.stream)
    }

    fn frames(
        &mut self,
        arrived: &mut Arrived,
        each: &mut impl FnMut(Addresses, &mut [u8]),
    ) -> io::Result<()> {
        loop {
            match self.input.next_frame() {
                Ok(Some(frame)) => {
                    arrived.frames += 1;
                    arrived.bytes += frame.len() as u64;
                    each(self.addresses, frame);
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backlog::BACKLOG_BYTES;
    use fanlight_base::Protocol;
    use std::io::Write;
    use std::net::TcpListener;

    fn pair() -> (Connection, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, remote) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let addresses = Addresses { local: listener.local_addr().unwrap(), remote, protocol: Protocol::Tcp };
        (Connection::new(addresses, TcpStream::from_std(near), Mono::default(), &[0, 3, 1]), far)
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
        assert!(near.output.held() <= BACKLOG_BYTES);
    }

    #[test]
    fn a_receiver_that_always_lags_does_not_make_the_buffer_grow() {
        let (mut near, mut far) = pair();
        let mut taken = vec![0; 64 << 10];
        for _ in 0..200 {
            while near.send(&[0; 1200]) {}
            near.flush().unwrap();
            far.read_exact(&mut taken).unwrap();
        }
        assert!(near.output.held() <= 2 * BACKLOG_BYTES + (64 << 10), "{}", near.output.held());
    }

    #[test]
    fn one_turn_takes_a_bounded_part_of_a_stream_that_never_pauses() {
        let (mut near, mut far) = pair();
        far.write_all(&[2, 3]).unwrap();
        let writer = std::thread::spawn(move || {
            let frames = [&[1, 0][..], &[0; 256]].concat().repeat(8192);
            far.write_all(&frames).map(|()| far)
        });
        let mut most = 0;
        let mut bytes = 0;
        while bytes < 3 + 8192 * 256 {
            let arrived = near.receive(|_, _| {}).unwrap();
            most = most.max(arrived.bytes);
            bytes += arrived.bytes;
        }
        assert!(most <= (READ_BYTES * READS_PER_TURN) as u64 + 512);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_frame_of_absurd_length_ends_the_connection() {
        let (mut near, mut far) = pair();
        far.write_all(&[2, 3, 0xff, 0xff]).unwrap();
        let end = loop {
            if let Err(error) = near.receive(|_, _| {}) {
                break error.kind();
            }
        };
        assert_eq!(end, io::ErrorKind::InvalidData);
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
