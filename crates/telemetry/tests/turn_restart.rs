//! Our own end: what the record holds of open allocations is all that the next process knows.

use fanlight_telemetry::turn_account::{
    AllocationName, AllocationRecord, EndReason, Leg, LegCounters, Output, Path, Quality, SessionRecord,
    Settings, TurnAccount, TurnEvent,
};
use std::collections::BTreeMap;

const NODE: &str = "fanlight";

/// What the disk has: the latest row of each.
#[derive(Default)]
struct Disk {
    sessions: BTreeMap<u64, SessionRecord>,
    allocations: BTreeMap<u64, AllocationRecord>,
}

impl Disk {
    fn take(&mut self, account: &mut TurnAccount) {
        loop {
            match account.poll_output() {
                Output::Allocation(row) => drop(self.allocations.insert(row.number, *row)),
                Output::Session(row) => drop(self.sessions.insert(row.number, *row)),
                Output::WhoIs(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }

    fn restore(&mut self, at_ms: u64) -> TurnAccount {
        let mut account = TurnAccount::new(Settings::default(), 1_000);
        let (sessions, allocations) = (self.sessions.values(), self.allocations.values());
        account.restore(at_ms, sessions.cloned().collect(), allocations.cloned().collect());
        account
    }
}

#[test]
fn relays_of_our_own_server_end_after_their_last_traffic_and_keep_their_peak() {
    let name = AllocationName { realm: "livekit".into(), user: "PA_ann".into(), id: 1 };
    let (mut account, mut disk) = (TurnAccount::new(Settings::default(), 1), Disk::default());
    account.handle_node_started(0, NODE);
    let opened = TurnEvent::Opened { lifetime_s: 600, path: Path::default() };
    account.handle_event(1_000, Some(NODE), &name, opened);
    for at_ms in [11_000, 21_000] {
        for leg in [Leg::Client, Leg::Peer] {
            let counters = LegCounters { rx_packets: 100, rx_bytes: 100_000, ..LegCounters::default() };
            account.handle_event(at_ms, Some(NODE), &name, TurnEvent::Traffic(leg, counters));
        }
        disk.take(&mut account);
    }
    drop(account);

    let mut account = disk.restore(30_000);
    account.handle_node_started(30_001, NODE);
    account.handle_timeout(40_000);
    disk.take(&mut account);
    let session = disk.sessions.values().next().expect("a session");
    let (_, reason) = disk.allocations.values().next().expect("an allocation").ended.expect("an end");
    assert_eq!(reason, EndReason::NodeRestart);
    assert_eq!((session.end.low_ms, session.end.high_ms), (21_000, 30_001));
    assert_eq!((session.peak_bps, session.quality), (80_000, Quality::LowerBound));
    assert_eq!(session.peer.rx_bytes, 200_000);
}
