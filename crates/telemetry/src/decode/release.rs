//! What depends on the release of a coturn.

use crate::turn_account::{Leg, LegCounters, TurnEvent};
use std::str::FromStr;

/// Bytes of a ChannelData header, which coturn counts as payload from 4.11 on.
const CHANNEL_HEADER_BYTES: u64 = 4;

/// Release of a coturn, `4.17` or `4.17.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u16,
    minor: u16,
}

/// It is not a release of coturn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a release of coturn: write two numbers with a dot, like 4.17")]
pub struct NoRelease;

impl Release {
    /// The last ones that send heartbeats.
    pub const WITH_HEARTBEAT: Self = Self { major: 4, minor: 6 };
    const WITH_CHANNEL_HEADERS: Self = Self { major: 4, minor: 11 };

    /// What was said, as it would be without the mistakes of this release: from 4.11 on a packet that goes to a peer from a
    /// channel is counted 4 bytes too long. One that goes from a Send indication is not; they cannot be told apart here,
    /// and are few: clients bind a channel as soon as media flows.
    #[must_use]
    pub fn correct(self, event: TurnEvent) -> TurnEvent {
        if self < Self::WITH_CHANNEL_HEADERS {
            return event;
        }
        match event {
            TurnEvent::Traffic(Leg::Peer, counters) => {
                TurnEvent::Traffic(Leg::Peer, without_headers(counters))
            }
            TurnEvent::Total(Leg::Peer, counters) => TurnEvent::Total(Leg::Peer, without_headers(counters)),
            event => event,
        }
    }
}

/// Totals are 32 bits wide, and one that has wrapped may be less than what is taken off it.
fn without_headers(counters: LegCounters) -> LegCounters {
    let headers = counters.tx_packets.wrapping_mul(CHANNEL_HEADER_BYTES);
    let wrap = |bytes: u64| u64::from(bytes as u32);
    let tx_bytes = match counters.tx_bytes.checked_sub(headers) {
        Some(bytes) => bytes,
        None => wrap(counters.tx_bytes.wrapping_sub(headers)),
    };
    LegCounters { tx_bytes, ..counters }
}

impl FromStr for Release {
    type Err = NoRelease;

    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let mut numbers = text.trim().split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if numbers.all(|rest| rest.is_ok()) => {
                Ok(Self { major, minor })
            }
            _ => Err(NoRelease),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        text.parse().unwrap()
    }

    fn sent(packets: u64, bytes: u64) -> LegCounters {
        LegCounters { tx_packets: packets, tx_bytes: bytes, ..LegCounters::default() }
    }

    #[test]
    fn from_4_11_on_what_goes_to_peers_loses_four_bytes_a_packet() {
        let of_5000 = TurnEvent::Traffic(Leg::Peer, sent(5_000, 1_020_000));
        let right = TurnEvent::Traffic(Leg::Peer, sent(5_000, 1_000_000));
        for text in ["4.11", "4.11.0", "4.17.1", "5.0"] {
            assert_eq!(release(text).correct(of_5000.clone()), right, "{text}");
        }
        for text in ["4.5.2", "4.6.1", "4.10.0"] {
            assert_eq!(release(text).correct(of_5000.clone()), of_5000, "{text}");
        }
        let client = TurnEvent::Total(Leg::Client, sent(5_000, 1_020_000));
        assert_eq!(release("4.17").correct(client.clone()), client);
    }

    #[test]
    fn a_total_that_has_wrapped_stays_right_in_its_32_bits() {
        // 30 million packets of 150 bytes, counted with their headers: 4.62 GB, of which 32 bits are left.
        let (packets, bytes) = (30_000_000, 4_500_000_000);
        let counted = (bytes + 4 * packets) % (1 << 32);
        let TurnEvent::Total(_, total) =
            release("4.17").correct(TurnEvent::Total(Leg::Peer, sent(packets, counted)))
        else {
            panic!("a total stays one")
        };
        assert_eq!(total.tx_bytes, bytes % (1 << 32));
        let least = without_headers(sent(10, 3));
        assert_eq!(least.tx_bytes, (1 << 32) - 37);
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for text in ["", "4", "4.x", "v4.6", "4.6.1-1"] {
            assert_eq!(text.parse::<Release>(), Err(NoRelease), "{text}");
        }
    }
}
