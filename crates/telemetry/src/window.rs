//! Cumulative counters: how they advance, and what happened between two of them.

use crate::limits::LAYERS_MAX;
use fanlight_events::{LayerCounters, TrackCounters};

/// What happened between two samples of one track session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Length, milliseconds.
    pub duration_ms: u64,
    /// Differences of the counters; gauges and layers as at its end, layers as differences too.
    pub counters: TrackCounters,
}

impl Window {
    /// The window from one sample to a later one, each with its stamp in milliseconds.
    pub fn between(earlier: (u64, &TrackCounters), later: (u64, &TrackCounters)) -> Self {
        Self {
            duration_ms: later.0.saturating_sub(earlier.0),
            counters: combine(earlier.1, later.1, |before, after| after.saturating_sub(before)),
        }
    }

    /// Media bits per second, first transmissions only; 0 for an empty window.
    pub fn bitrate_bps(&self) -> u64 {
        bitrate_bps(self.counters.bytes, self.duration_ms)
    }
}

/// Bits per second of so many bytes in so many milliseconds; 0 when there was no time.
pub(crate) fn bitrate_bps(bytes: u64, duration_ms: u64) -> u64 {
    let bits_per_s = u128::from(bytes) * 8_000 / u128::from(duration_ms.max(1));
    if duration_ms == 0 { 0 } else { u64::try_from(bits_per_s).unwrap_or(u64::MAX) }
}

/// Takes over a newer sample: counters never fall, whatever order samples come in; gauges are those of the sample.
pub fn advance(current: &mut TrackCounters, sample: &TrackCounters) {
    let mut next = combine(current, sample, u64::max);
    next.layers = std::mem::take(&mut current.layers);
    for layer in &sample.layers {
        if let Some(known) = next.layers.iter_mut().find(|known| same_layer(known, layer)) {
            *known = combine_layer(known, layer, u64::max);
        } else if next.layers.len() < LAYERS_MAX {
            next.layers.push(layer.clone());
        }
    }
    next.layers.sort_by(|a, b| (a.spatial, &a.rid).cmp(&(b.spatial, &b.rid)));
    *current = next;
}

/// Counters by `apply`, gauges of `b`.
fn combine(a: &TrackCounters, b: &TrackCounters, apply: fn(u64, u64) -> u64) -> TrackCounters {
    let counters = TrackCounters::COUNTERS.len();
    let numbers = a.numbers().zip(b.numbers()).enumerate();
    TrackCounters {
        layers: combine_layers(&a.layers, &b.layers, apply),
        ..TrackCounters::from_numbers(
            numbers.map(|(place, (a, b))| if place < counters { apply(a, b) } else { b }),
        )
    }
}

fn combine_layers(
    a: &[LayerCounters],
    b: &[LayerCounters],
    apply: fn(u64, u64) -> u64,
) -> Vec<LayerCounters> {
    let none = LayerCounters::default();
    let before = |after| a.iter().find(|layer| same_layer(layer, after)).unwrap_or(&none);
    b.iter().take(LAYERS_MAX).map(|after| combine_layer(before(after), after, apply)).collect()
}

fn combine_layer(before: &LayerCounters, after: &LayerCounters, apply: fn(u64, u64) -> u64) -> LayerCounters {
    LayerCounters {
        rid: after.rid.clone(),
        spatial: after.spatial,
        packets: apply(before.packets, after.packets),
        bytes: apply(before.bytes, after.bytes),
        retransmitted: apply(before.retransmitted, after.retransmitted),
        frames: apply(before.frames, after.frames),
    }
}

fn same_layer(a: &LayerCounters, b: &LayerCounters) -> bool {
    a.spatial == b.spatial && a.rid == b.rid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(rid: &str, spatial: u8, packets: u64) -> LayerCounters {
        LayerCounters { rid: rid.into(), spatial, packets, ..LayerCounters::default() }
    }

    #[test]
    fn a_late_sample_does_not_make_counters_fall() {
        let mut current = TrackCounters { packets: 10, jitter_us: 7, ..TrackCounters::default() };
        advance(
            &mut current,
            &TrackCounters { packets: 9, lost: 1, jitter_us: 5, ..TrackCounters::default() },
        );
        assert_eq!((current.packets, current.lost, current.jitter_us), (10, 1, 5));
    }

    #[test]
    fn a_layer_that_a_sample_leaves_out_is_kept() {
        let mut current = TrackCounters { layers: vec![layer("q", 0, 5)], ..TrackCounters::default() };
        advance(&mut current, &TrackCounters { layers: vec![layer("f", 2, 3)], ..TrackCounters::default() });
        assert_eq!(current.layers, [layer("q", 0, 5), layer("f", 2, 3)]);
    }

    #[test]
    fn the_number_of_layers_is_bounded() {
        let mut current = TrackCounters::default();
        for spatial in 0..=u8::MAX {
            let layers = vec![layer("", spatial, 1)];
            advance(&mut current, &TrackCounters { layers, ..TrackCounters::default() });
        }
        assert_eq!(current.layers.len(), LAYERS_MAX);
    }

    #[test]
    fn a_window_is_the_difference_of_its_ends() {
        let before =
            TrackCounters { bytes: 1_000, layers: vec![layer("q", 0, 5)], ..TrackCounters::default() };
        let after = TrackCounters {
            bytes: 2_250,
            rtt_us: 9,
            layers: vec![layer("q", 0, 8), layer("h", 1, 2)],
            ..TrackCounters::default()
        };
        let window = Window::between((5_000, &before), (10_000, &after));
        assert_eq!((window.counters.bytes, window.counters.rtt_us, window.bitrate_bps()), (1_250, 9, 2_000));
        assert_eq!(window.counters.layers, [layer("q", 0, 3), layer("h", 1, 2)]);
    }

    #[test]
    fn a_window_without_time_has_no_bitrate() {
        let counters = TrackCounters { bytes: u64::MAX, ..TrackCounters::default() };
        let window = Window::between((5, &TrackCounters::default()), (5, &counters));
        assert_eq!(window.bitrate_bps(), 0);
    }
}
