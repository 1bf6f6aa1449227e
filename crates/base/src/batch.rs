//! Packets on their way out, grouped into runs that leave in one system call.

use crate::Addresses;

/// The kernel takes at most 64 segments in one UDP GSO send (`UDP_MAX_SEGMENTS`).
const SEGMENTS_MAX: usize = 64;
/// Largest UDP payload over IPv4; the kernel refuses a longer GSO buffer.
const RUN_BYTES_MAX: usize = 65_507;

/// Packets written by the cores during one loop turn.
///
/// Packets to one destination become a [`Run`]: equal sizes, the last one may be shorter, which is what UDP GSO sends
/// in one call. Order per destination is the order of pushing. Buffers are reused from turn to turn.
#[derive(Debug, Default)]
pub struct SendBatch {
    runs: Vec<Run>,
    used: usize,
    epoch: u64,
}

/// Packets of one size to one destination.
#[derive(Debug)]
pub struct Run {
    /// Where they go.
    pub addresses: Addresses,
    segment_bytes: usize,
    segments: usize,
    closed: bool,
    /// As long as the longest run that was here: a packet is written over what an earlier one left.
    buffer: Vec<u8>,
    len: usize,
}

/// Remembers which run a destination wrote to last, so that pushing needs no look-up.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunHint {
    epoch: u64,
    index: usize,
}

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self { runs: Vec::new(), used: 0, epoch: 1 }
    }

    /// Adds a packet of exactly `len` bytes for `addresses`; the returned slice is to be filled by the caller and may
    /// hold bytes of an earlier packet.
    ///
    /// `hint` belongs to the destination (one per transport) and makes runs grow.
    pub fn push(&mut self, addresses: Addresses, hint: &mut RunHint, len: usize) -> &mut [u8] {
        let index = match self.open_run(addresses, *hint, len) {
            Some(index) => index,
            None => self.start_run(addresses, len),
        };
        *hint = RunHint { epoch: self.epoch, index };
        let run = &mut self.runs[index];
        let start = run.len;
        run.len += len;
        if run.buffer.len() < run.len {
            run.buffer.resize(run.len, 0);
        }
        run.segments += 1;
        run.closed = len < run.segment_bytes;
        &mut run.buffer[start..run.len]
    }

    /// Takes back the packet last pushed with this hint (sealing it failed).
    pub fn undo(&mut self, hint: &RunHint, len: usize) {
        if hint.epoch != self.epoch {
            return;
        }
        let Some(run) = self.runs.get_mut(hint.index) else { return };
        run.len = run.len.saturating_sub(len);
        run.segments = run.segments.saturating_sub(1);
        run.closed = false;
    }

    /// The runs of this turn, in the order in which they were begun. Runs may be empty after [`SendBatch::undo`].
    pub fn runs(&self) -> &[Run] {
        &self.runs[..self.used]
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets all packets, keeping their buffers.
    pub fn clear(&mut self) {
        self.used = 0;
        self.epoch += 1;
    }

    fn open_run(&self, addresses: Addresses, hint: RunHint, len: usize) -> Option<usize> {
        if hint.epoch != self.epoch {
            return None;
        }
        let run = self.runs.get(hint.index)?;
        let fits = !run.closed
            && run.addresses == addresses
            && len <= run.segment_bytes
            && run.segments < SEGMENTS_MAX
            && run.len + len <= RUN_BYTES_MAX;
        fits.then_some(hint.index)
    }

    fn start_run(&mut self, addresses: Addresses, len: usize) -> usize {
        let index = self.used;
        self.used += 1;
        match self.runs.get_mut(index) {
            Some(run) => {
                run.addresses = addresses;
                run.segment_bytes = len;
                run.segments = 0;
                run.closed = false;
                run.len = 0;
            }
            None => self.runs.push(Run {
                addresses,
                segment_bytes: len,
                segments: 0,
                closed: false,
                buffer: Vec::new(),
                len: 0,
            }),
        }
        index
    }
}

impl Run {
    /// All packets back to back.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Size of each packet but the last, in bytes.
    pub fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// Number of packets.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// The packets one by one.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes().chunks(self.segment_bytes.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn to(port: u16) -> Addresses {
        Addresses {
            local: ([127, 0, 0, 1], 1).into(),
            remote: ([127, 0, 0, 1], port).into(),
            protocol: Protocol::Udp,
        }
    }

    #[test]
    fn packets_of_one_size_to_one_address_form_one_run() {
        let mut batch = SendBatch::new();
        let (mut a, mut b) = (RunHint::default(), RunHint::default());
        for byte in 0..3u8 {
            batch.push(to(10), &mut a, 4).fill(byte);
            batch.push(to(11), &mut b, 4).fill(byte + 100);
        }
        assert_eq!(batch.runs().len(), 2);
        assert_eq!(batch.runs()[0].bytes(), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(batch.runs()[1].segments(), 3);
    }

    #[test]
    fn a_shorter_packet_ends_its_run_and_a_longer_one_starts_another() {
        let mut batch = SendBatch::new();
        let mut hint = RunHint::default();
        for len in [4, 3, 4, 5] {
            batch.push(to(10), &mut hint, len);
        }
        let sizes: Vec<usize> = batch.runs().iter().map(Run::segments).collect();
        assert_eq!(sizes, [2, 1, 1]);
    }

    #[test]
    fn a_hint_of_an_earlier_turn_starts_a_new_run() {
        let mut batch = SendBatch::new();
        let mut hint = RunHint::default();
        batch.push(to(10), &mut hint, 4);
        batch.clear();
        assert!(batch.is_empty());
        batch.push(to(10), &mut hint, 4).fill(7);
        assert_eq!(batch.runs()[0].bytes(), [7; 4]);
    }

    #[test]
    fn a_run_never_exceeds_what_the_kernel_takes() {
        let mut batch = SendBatch::new();
        let mut hint = RunHint::default();
        for _ in 0..65 {
            batch.push(to(10), &mut hint, 1200);
        }
        assert!(batch.runs().iter().all(|run| run.segments() <= 64 && run.bytes().len() <= 65_507));
        assert_eq!(batch.runs().iter().map(Run::segments).sum::<usize>(), 65);
    }

    #[test]
    fn an_undone_packet_is_not_sent() {
        let mut batch = SendBatch::new();
        let mut hint = RunHint::default();
        batch.push(to(10), &mut hint, 4).fill(1);
        batch.push(to(10), &mut hint, 2).fill(2);
        batch.undo(&hint, 2);
        batch.push(to(10), &mut hint, 4).fill(3);
        assert_eq!(batch.runs()[0].bytes(), [1, 1, 1, 1, 3, 3, 3, 3]);
    }
}
