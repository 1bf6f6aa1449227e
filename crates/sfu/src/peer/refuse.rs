//! Refusals: each is counted; the record hears of the first at once and of the rest in sums.

use crate::ctx::Ctx;
use crate::limits::REFUSALS_INTERVAL;
use crate::room::Room;
use crate::timers::Timer;
use fanlight_base::PeerKey;
use fanlight_events::Refused;
use std::collections::BTreeMap;

/// Refusals towards one participant since they were last told.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    untold: BTreeMap<(&'static str, &'static str), u64>,
    holding: bool,
}

impl Room {
    /// Counts a refusal and tells the record, at most once in [`REFUSALS_INTERVAL`] per participant.
    pub(crate) fn refuse(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey, what: &'static str, why: &'static str) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.refusals.holding {
            *entry.refusals.untold.entry((what, why)).or_default() += 1;
            return;
        }
        entry.refusals.holding = true;
        self.timers.set(Timer::Refusals(peer), ctx.mono() + REFUSALS_INTERVAL);
        self.tell_refusal(ctx, peer, what, why.to_owned());
    }

    /// Tells the record what was refused meanwhile.
    pub(crate) fn tell_refusals(&mut self, ctx: &mut Ctx<'_>, peer: PeerKey) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let untold = std::mem::take(&mut entry.refusals.untold);
        entry.refusals.holding = !untold.is_empty();
        if entry.refusals.holding {
            self.timers.set(Timer::Refusals(peer), ctx.mono() + REFUSALS_INTERVAL);
        }
        for ((what, why), count) in untold {
            self.tell_refusal(ctx, peer, what, format!("{why} ({count} times)"));
        }
    }

    fn tell_refusal(&self, ctx: &mut Ctx<'_>, peer: PeerKey, what: &str, why: String) {
        if let Some(entry) = self.peers.get(&peer) {
            ctx.fact(self.place(Some(&entry.sid), None), Refused { what: what.to_owned(), why });
        }
    }
}
