//! One client's stream: frames in and out, secured or not.

use crate::backlog::Backlog;
use fanlight_base::{Addresses, Mono};
use fanlight_turn::Tls;
use fanlight_turn::framing::Deframer;
use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

/// Bytes of one read.
const READ_BYTES: usize = 16 << 10;
/// Reads of one stream in one turn: 256 kB, about 2 ms of work.
const READS_PER_TURN: usize = 16;

/// A client's connection.
pub(super) struct Stream {
    pub(super) addresses: Addresses,
    pub(super) socket: TcpStream,
    /// When it was accepted, or last seen with an allocation.
    pub(super) since: Mono,
    session: Option<Box<ServerConnection>>,
    /// Known after the handshake.
    tls: Option<Tls>,
    input: Deframer,
    output: Backlog,
}

impl Stream {
    /// A connection that was just accepted; `None` when its TLS cannot begin.
    pub(super) fn new(
        addresses: Addresses,
        socket: TcpStream,
        now: Mono,
        secured: Option<&Arc<ServerConfig>>,
    ) -> Option<Self> {
        let session = match secured {
            Some(config) => Some(Box::new(ServerConnection::new(Arc::clone(config)).ok()?)),
            None => None,
        };
        Some(Self {
            addresses,
            socket,
            since: now,
            session,
            tls: None,
            input: Deframer::new(),
            output: Backlog::default(),
        })
    }

    /// Hands every complete frame to `each`; an error (the end of the stream included) means that it is over. `true`:
    /// there may be more than one turn takes.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Option<&Tls>, &[u8])) -> io::Result<bool> {
        let mut chunk = [0; READ_BYTES];
        for _ in 0..READS_PER_TURN {
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.take(chunk.get(..count).unwrap_or_default(), &mut each)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn take(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Option<&Tls>, &[u8])) -> io::Result<()> {
        let Some(session) = &mut self.session else {
            self.input.push(bytes);
            return frames(&mut self.input, None, each);
        };
        while !bytes.is_empty() {
            session.read_tls(&mut bytes)?;
            let state = session.process_new_packets();
            // A handshake's answer, or the alert that says why it failed.
            seal(session, self.output.end())?;
            let mut plain = state.map_err(io::Error::other)?.plaintext_bytes_to_read();
            if self.tls.is_none() && !session.is_handshaking() {
                self.tls = Some(secured(session));
            }
            while plain > 0 {
                let mut reader = session.reader();
                let clear = reader.fill_buf()?;
                let taken = clear.len();
                self.input.push(clear);
                reader.consume(taken);
                plain = plain.saturating_sub(taken.max(1));
                frames(&mut self.input, self.tls.as_ref(), each)?;
            }
        }
        Ok(())
    }

    /// Queues a frame; `false` when the client is too slow and it is dropped.
    pub(super) fn send(&mut self, frame: &[u8]) -> bool {
        if !self.output.has_room(frame.len()) {
            return false;
        }
        match &mut self.session {
            None => self.output.end().extend_from_slice(frame),
            Some(session) => {
                return session.writer().write_all(frame).is_ok() && seal(session, self.output.end()).is_ok();
            }
        }
        true
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.output.flush(&mut self.socket)
    }
}

fn frames(
    input: &mut Deframer,
    tls: Option<&Tls>,
    each: &mut impl FnMut(Option<&Tls>, &[u8]),
) -> io::Result<()> {
    while let Some(frame) = input.next_frame().map_err(io::Error::other)? {
        each(tls, frame);
    }
    Ok(())
}

fn seal(session: &mut ServerConnection, output: &mut Vec<u8>) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(output)?;
    }
    Ok(())
}

fn secured(session: &ServerConnection) -> Tls {
    // `TLSv1_3` and `TLS13_AES_128_GCM_SHA256`; the version is written as coturn writes it.
    let version = session.protocol_version().map(|version| format!("{version:?}").replace('_', "."));
    let cipher = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    Tls { version: version.unwrap_or_default().into(), cipher: cipher.unwrap_or_default().into() }
}
