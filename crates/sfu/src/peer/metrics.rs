//! Batches of metrics that clients measure: on their way to telemetry, so many of each participant.

use crate::ctx::Ctx;
use crate::limits::{METRICS_APART_NS, METRICS_BYTES_PER_WINDOW_MAX, METRICS_PER_WINDOW_MAX, METRICS_WINDOW};
use crate::output::{ClientMetrics, Output};
use crate::room::Room;
use fanlight_base::{Mono, Now, PeerKey};

/// What a participant has sent within the current window, and when it sent last.
#[derive(Debug, Default)]
pub(super) struct MetricsIntake {
    since: Mono,
    batches: u32,
    bytes: usize,
    last_unix_ns: u64,
}

impl MetricsIntake {
    /// The time of a batch, if it is within the limits.
    fn admit(&mut self, now: Now, bytes: usize) -> Result<u64, &'static str> {
        if now.mono().since(self.since) > METRICS_WINDOW {
            *self = Self { since: now.mono(), last_unix_ns: self.last_unix_ns, ..Self::default() };
        }
        if self.batches >= METRICS_PER_WINDOW_MAX {
            return Err("METRICS_PER_WINDOW_MAX 100");
        }
        if self.bytes.saturating_add(bytes) > METRICS_BYTES_PER_WINDOW_MAX {
            return Err("METRICS_BYTES_PER_WINDOW_MAX 1048576");
        }
        self.batches += 1;
        self.bytes += bytes;
        self.last_unix_ns = now.unix_ns.max(self.last_unix_ns.saturating_add(METRICS_APART_NS));
        Ok(self.last_unix_ns)
    }
}

impl Room {
    /// Hands a batch to telemetry, with whom it is of.
    pub(super) fn tell_metrics(&mut self, ctx: &mut Ctx<'_>, key: PeerKey, batch: Vec<u8>) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        match peer.metrics.admit(ctx.now, batch.len()) {
            Ok(at_unix_ns) => ctx.out.push_back(Output::Metrics(Box::new(ClientMetrics {
                room: self.config.sid.clone(),
                room_name: self.config.name.clone(),
                participant: peer.sid.clone(),
                identity: peer.identity.clone(),
                sdk: peer.client.sdk.clone(),
                version: peer.client.version.clone(),
                at_unix_ns,
                batch,
            }))),
            Err(why) => {
                ctx.counters.metrics_refused += 1;
                self.refuse(ctx, key, "metrics", why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_s(s: u64) -> Now {
        Now { mono_ns: s * 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 }
    }

    #[test]
    fn so_many_batches_and_bytes_of_a_window_are_taken_each_at_its_own_time() {
        let mut intake = MetricsIntake::default();
        let times: Vec<u64> = (0..200).filter_map(|_| intake.admit(at_s(20), 100).ok()).collect();
        assert_eq!(times.len(), METRICS_PER_WINDOW_MAX as usize);
        assert!(times.iter().zip(&times[1..]).all(|(one, next)| next - one == METRICS_APART_NS));
        assert!(intake.admit(at_s(30), 100).is_err(), "the window is not over");
        assert!(intake.admit(at_s(31), 100).unwrap() > times[99], "the wall clock stood still");
        let large = (0..100).filter(|_| intake.admit(at_s(31), 65_000).is_ok()).count();
        assert_eq!(large, (METRICS_BYTES_PER_WINDOW_MAX - 100) / 65_000);
    }
}
