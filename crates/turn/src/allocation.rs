//! One allocation: a client's 5-tuple, its relays, what it may reach and what it has moved.

use crate::bucket::Bucket;
use crate::limits::{LIFETIME_DEFAULT_S, LIFETIME_MAX_S, PENDING_MAX, TRAFFIC_REPORT};
use crate::output::{Family, RelayKey};
use crate::permission::Permissions;
use fanlight_base::{Addresses, Mono, ParticipantSid, RunHint};
use fanlight_events::turn::{AllocationName, LegCounters, Path};
use smol_str::SmolStr;
use std::net::SocketAddr;
use std::time::Duration;
use stun_types::message::{IntegrityKey, TransactionId};

/// Who authenticated.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) name: SmolStr,
    pub(crate) person: SmolStr,
    pub(crate) participant: Option<ParticipantSid>,
    pub(crate) expires_unix_s: u64,
    pub(crate) key: IntegrityKey,
}

/// The Allocate request, for its answer: at once, or again when the client did not get it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) transaction: TransactionId,
    pub(crate) fingerprint: bool,
    pub(crate) even: bool,
}

/// How far a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayState {
    Opening,
    Open,
}

/// One relayed address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relay {
    pub(crate) bind: SocketAddr,
    pub(crate) advertised: SocketAddr,
    pub(crate) state: RelayState,
    pub(crate) tries: u8,
}

#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) slot: u32,
    pub(crate) name: AllocationName,
    pub(crate) caller: Caller,
    pub(crate) user: u32,
    pub(crate) client: Addresses,
    pub(crate) path: Path,
    pub(crate) asked: Asked,
    /// By [`Family::index`].
    pub(crate) relays: [Option<Relay>; 2],
    /// The additional family was wanted and could not be had: the code that says why.
    pub(crate) additional_refused: Option<u16>,
    /// Whether the client has been told its relayed addresses.
    pub(crate) open: bool,
    pub(crate) lifetime_s: u32,
    pub(crate) expires: Mono,
    pub(crate) report_at: Mono,
    /// The timer under which this allocation stands.
    pub(crate) due: Mono,
    pub(crate) permissions: Permissions,
    pub(crate) client_leg: LegCounters,
    pub(crate) peer_leg: LegCounters,
    pub(crate) reported: [LegCounters; 2],
    pub(crate) up: Option<Bucket>,
    pub(crate) down: Option<Bucket>,
    pub(crate) client_hint: RunHint,
    pub(crate) peer_hint: RunHint,
}

/// The lifetime granted for a requested one (RFC 8656 §7.2).
pub(crate) const fn granted_s(requested: Option<u32>) -> u32 {
    match requested {
        Some(wanted) if wanted > LIFETIME_MAX_S => LIFETIME_MAX_S,
        Some(wanted) if wanted > LIFETIME_DEFAULT_S => wanted,
        _ => LIFETIME_DEFAULT_S,
    }
}

impl Allocation {
    pub(crate) fn key(&self, family: Family) -> RelayKey {
        RelayKey { slot: self.slot, family, id: self.name.id }
    }

    pub(crate) fn relay(&self, family: Family) -> Option<&Relay> {
        self.relays.get(family.index()).and_then(Option::as_ref)
    }

    pub(crate) fn relay_mut(&mut self, family: Family) -> Option<&mut Option<Relay>> {
        self.relays.get_mut(family.index())
    }

    /// The relays there are.
    pub(crate) fn relays(&self) -> impl Iterator<Item = (Family, &Relay)> {
        [Family::V4, Family::V6].into_iter().filter_map(|family| Some((family, self.relay(family)?)))
    }

    /// Whether no relay's socket is awaited.
    pub(crate) fn is_settled(&self) -> bool {
        self.relays().all(|(_, relay)| relay.state == RelayState::Open)
    }

    /// Begins or extends the lifetime.
    pub(crate) fn grant(&mut self, now: Mono, lifetime_s: u32) {
        self.lifetime_s = lifetime_s;
        self.expires = now + Duration::from_secs(lifetime_s.into());
    }

    /// When something is to be done about it.
    pub(crate) fn next_due(&self, now: Mono) -> Mono {
        if self.open { self.expires.min(self.report_at) } else { self.expires.min(now + PENDING_MAX) }
    }

    /// Traffic of both legs since this was last asked.
    pub(crate) fn take_traffic(&mut self, now: Mono) -> [LegCounters; 2] {
        self.report_at = now + TRAFFIC_REPORT;
        let legs = [self.client_leg, self.peer_leg];
        let [client, peer] = std::mem::replace(&mut self.reported, legs);
        [self.client_leg.zip(client, u64::saturating_sub), self.peer_leg.zip(peer, u64::saturating_sub)]
    }
}

/// Adds a packet into the server.
pub(crate) const fn count_rx(leg: &mut LegCounters, bytes: usize) {
    leg.rx_packets = leg.rx_packets.saturating_add(1);
    leg.rx_bytes = leg.rx_bytes.saturating_add(bytes as u64);
}

/// Adds a packet out of the server.
pub(crate) const fn count_tx(leg: &mut LegCounters, bytes: usize) {
    leg.tx_packets = leg.tx_packets.saturating_add(1);
    leg.tx_bytes = leg.tx_bytes.saturating_add(bytes as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_at_least_ten_minutes_and_at_most_an_hour() {
        for (wanted, granted) in [
            (None, 600),
            (Some(0), 600),
            (Some(20), 600),
            (Some(601), 601),
            (Some(3601), 3600),
            (Some(u32::MAX), 3600),
        ] {
            assert_eq!(granted_s(wanted), granted, "{wanted:?}");
        }
    }
}
