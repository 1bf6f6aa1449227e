//! What this node carries, for `limit.num_tracks` and `limit.bytes_per_sec`.

use fanlight_base::Mono;
use fanlight_shard::{Counters, Load, Shard};
use std::time::Duration;

/// How often the shards' figures are read.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The figures [`Control::handle_load`](fanlight_control::Control::handle_load) wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeLoad {
    /// Published and forwarded ones, as LiveKit counts them.
    pub(crate) tracks: u32,
    /// Received and sent, all protocols of media.
    pub(crate) bytes_per_s: u64,
}

/// Reads the figures of all shards.
#[derive(Debug)]
pub(crate) struct LoadMeter {
    shards: Vec<(Counters, Load)>,
    rate: Rate,
}

impl LoadMeter {
    pub(crate) fn new(shards: &[Shard]) -> Self {
        let shards = shards.iter().map(|shard| (shard.counters.clone(), shard.load.clone())).collect();
        Self { shards, rate: Rate::default() }
    }

    /// The load, at most once in [`MEASURE_EVERY`].
    pub(crate) fn measure(&mut self, now: Mono) -> Option<NodeLoad> {
        if !self.rate.is_due(now) {
            return None;
        }
        let (mut tracks, mut bytes) = (0u64, 0u64);
        for (counters, load) in &self.shards {
            let (counters, load) = (counters.snapshot(), load.snapshot());
            tracks += load.tracks_in + load.tracks_out;
            bytes += counters.udp_bytes_in
                + counters.udp_bytes_out
                + counters.tcp_bytes_in
                + counters.tcp_bytes_out;
        }
        let bytes_per_s = self.rate.per_second(now, bytes);
        Some(NodeLoad { tracks: u32::try_from(tracks).unwrap_or(u32::MAX), bytes_per_s })
    }
}

/// From a counter to a rate.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(Mono, u64)>,
}

impl Rate {
    fn is_due(&self, now: Mono) -> bool {
        self.last.is_none_or(|(at, _)| now.since(at) >= MEASURE_EVERY)
    }

    /// The mean since the last call; 0 at the first.
    fn per_second(&mut self, now: Mono, total: u64) -> u64 {
        let Some((at, before)) = self.last.replace((now, total)) else { return 0 };
        let elapsed_ns = now.since(at).as_nanos().max(1);
        let bytes = u128::from(total.saturating_sub(before));
        u64::try_from(bytes * 1_000_000_000 / elapsed_ns).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono { ns: ms * 1_000_000 }
    }

    #[test]
    fn the_rate_is_the_mean_since_the_last_look_which_is_a_second_ago_at_least() {
        let mut rate = Rate::default();
        assert!(rate.is_due(at(0)));
        assert_eq!(rate.per_second(at(0), 5_000), 0);
        assert!(!rate.is_due(at(999)));
        assert!(rate.is_due(at(2_000)));
        assert_eq!(rate.per_second(at(2_000), 25_000), 10_000);
        assert_eq!(rate.per_second(at(3_000), 25_000), 0);
    }

    #[test]
    fn a_node_without_shards_carries_nothing() {
        let mut meter = LoadMeter::new(&[]);
        assert_eq!(meter.measure(at(1)), Some(NodeLoad { tracks: 0, bytes_per_s: 0 }));
        assert_eq!(meter.measure(at(2)), None);
    }
}
