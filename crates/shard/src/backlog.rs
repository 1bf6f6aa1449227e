//! What waits to be written to a stream whose other end is slow.

use std::io::{self, Write};

/// Bytes that may wait: half a second at 8 Mbit/s. Beyond it whole frames are dropped and counted.
pub(crate) const BACKLOG_BYTES: usize = 512 << 10;

/// Bytes on their way into a stream.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: Vec<u8>,
    written: usize,
}

impl Backlog {
    /// Whether so many bytes more may wait.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.len() - self.written + bytes <= BACKLOG_BYTES
    }

    /// Where bytes are added; ask [`Backlog::has_room`] first.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Writes what the stream takes.
    pub(crate) fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.written < self.bytes.len() {
            match stream.write(self.bytes.get(self.written..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A receiver that always lags a little must not make the buffer grow for ever.
                    if self.written > BACKLOG_BYTES {
                        self.bytes.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.bytes.len()
    }
}
