//! Cumulative counters of one track in one direction.

use serde::{Deserialize, Serialize};

/// Declares the numbers of [`TrackCounters`] once, so that none can be forgotten where all of them are stored or compared.
macro_rules! track_counters {
    (
        counters { $($(#[$counter_doc:meta])* $counter:ident,)* }
        gauges { $($(#[$gauge_doc:meta])* $gauge:ident,)* }
    ) => {
        /// Counters since the track (or the subscription to it) began; they only grow, apart from the gauges.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct TrackCounters {
            $($(#[$counter_doc])* pub $counter: u64,)*
            $($(#[$gauge_doc])* pub $gauge: u64,)*
            /// One entry for each layer seen, lowest first; empty for audio.
            pub layers: Vec<LayerCounters>,
        }

        impl TrackCounters {
            /// Names of the counters.
            pub const COUNTERS: &[&str] = &[$(stringify!($counter)),*];
            /// Names of all numbers: the counters, then the gauges.
            pub const NUMBERS: &[&str] = &[$(stringify!($counter),)* $(stringify!($gauge)),*];

            /// The values of [`Self::NUMBERS`].
            pub fn numbers(&self) -> impl Iterator<Item = u64> {
                [$(self.$counter,)* $(self.$gauge),*].into_iter()
            }

            /// The other way round, without layers; missing values are 0.
            pub fn from_numbers(numbers: impl IntoIterator<Item = u64>) -> Self {
                let mut numbers = numbers.into_iter();
                Self {
                    $($counter: numbers.next().unwrap_or_default(),)*
                    $($gauge: numbers.next().unwrap_or_default(),)*
                    layers: Vec::new(),
                }
            }
        }
    };
}

track_counters! {
    counters {
        /// RTP packets with media, first transmissions only.
        packets,
        /// Payload bytes of `packets`, without RTP header and padding, as getStats counts them.
        bytes,
        /// RTP header bytes of `packets`, extensions included.
        header_bytes,
        /// Retransmitted packets (RTX, or the same packet again where the codec has no RTX), asked for or sent to probe the
        /// path.
        retransmitted,
        /// Payload bytes of `retransmitted`.
        retransmitted_bytes,
        /// Packets that carried padding only.
        padding,
        /// Bytes of padding.
        padding_bytes,
        /// Packets known to be missing: by our own count upstream, by receiver reports downstream.
        lost,
        /// Packets that came after a later one.
        out_of_order,
        /// Packets that had come before, retransmissions that nobody missed among them.
        duplicates,
        /// Packets not forwarded to this subscriber, or not taken from this publisher, with a reason.
        dropped,
        /// Sequence numbers asked for again with NACK.
        nacks,
        /// Picture loss indications.
        plis,
        /// Full intra requests.
        firs,
        /// Frames whose last packet passed.
        frames,
        /// Key frames begun.
        key_frames,
    }
    gauges {
        /// Gauge: interarrival jitter in microseconds.
        jitter_us,
        /// Gauge: round-trip time in microseconds, 0 when not known.
        rtt_us,
    }
}

/// What one layer of a published track brought, or how much of it was forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerCounters {
    /// RID as the publisher names it; empty without simulcast.
    pub rid: String,
    /// Spatial layer, 0 is the lowest.
    pub spatial: u8,
    /// RTP packets with media.
    pub packets: u64,
    /// Payload bytes of `packets`.
    pub bytes: u64,
    /// Retransmitted packets.
    pub retransmitted: u64,
    /// Frames completed.
    pub frames: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_the_order_of_their_names() {
        let numbers = 1..=TrackCounters::NUMBERS.len() as u64;
        let counters = TrackCounters::from_numbers(numbers.clone());
        assert_eq!((counters.packets, counters.rtt_us), (1, TrackCounters::NUMBERS.len() as u64));
        assert!(counters.numbers().eq(numbers));
        assert_eq!(TrackCounters::NUMBERS[..TrackCounters::COUNTERS.len()], *TrackCounters::COUNTERS);
    }
}
