//! Processor time, so that the neighbours of a shared machine do not count.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Times stretches of one thread's work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    /// What reading the clock itself adds to a stretch, in nanoseconds.
    own_ns: u64,
    started_ns: u64,
    /// Sum of all stretches, in nanoseconds.
    pub(crate) total_ns: u64,
}

impl Stopwatch {
    /// Reads of the clock that tell what reading it costs.
    const TRIALS: usize = 1_001;

    pub(crate) fn new() -> Self {
        let mut gaps: Vec<u64> = (0..Self::TRIALS)
            .map(|_| {
                let before = thread_ns();
                thread_ns().saturating_sub(before)
            })
            .collect();
        gaps.sort_unstable();
        let own_ns = gaps.get(Self::TRIALS / 2).copied().unwrap_or(0);
        Self { own_ns, started_ns: 0, total_ns: 0 }
    }

    pub(crate) fn start(&mut self) {
        self.started_ns = thread_ns();
    }

    pub(crate) fn stop(&mut self) {
        self.total_ns += thread_ns().saturating_sub(self.started_ns).saturating_sub(self.own_ns);
    }

    /// The sum so far, which begins anew.
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.total_ns)
    }
}

pub(crate) fn thread_ns() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(tv_sec).saturating_mul(1_000_000_000).saturating_add(part(tv_nsec))
}
