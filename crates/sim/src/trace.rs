//! What must repeat when a run repeats: commands, events and forwarded packets with their virtual times, not handshakes.

use std::fmt;

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceEntry {
    /// A command that reached the SFU.
    Command(String),
    /// An event it said.
    Event(String),
    /// A packet a client received: who, SSRC, extended sequence number, timestamp.
    Packet {
        /// The receiving client.
        client: usize,
        /// SSRC.
        ssrc: u32,
        /// Extended sequence number.
        sequence: u64,
        /// RTP timestamp.
        timestamp: u32,
    },
}

/// Everything that happened, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    entries: Vec<(u64, TraceEntry)>,
}

impl Trace {
    /// The entries with their virtual times in nanoseconds.
    pub fn entries(&self) -> &[(u64, TraceEntry)] {
        &self.entries
    }

    pub(crate) fn push(&mut self, at_ns: u64, entry: TraceEntry) {
        self.entries.push((at_ns, entry));
    }

    /// The first place at which two traces differ, told for people.
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        let mut pairs = self.entries.iter().zip(&other.entries).enumerate();
        if let Some((index, (left, right))) = pairs.find(|(_, (left, right))| left != right) {
            return Some(format!("entry {index}: {left:?} and {right:?}"));
        }
        let (left, right) = (self.entries.len(), other.entries.len());
        (left != right).then(|| format!("{left} and {right} entries"))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at_ns, entry) in &self.entries {
            writeln!(f, "{:>12.6} {entry:?}", *at_ns as f64 / 1e9)?;
        }
        Ok(())
    }
}
