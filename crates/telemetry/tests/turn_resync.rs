//! After a gap of the input: what the servers' store still has decides what is open.

use fanlight_telemetry::turn_account::{
    AllocationName, AllocationRecord, End, EndReason, Leg, LegCounters, Output, Path, Quality, Settings,
    StoredAllocation, TurnAccount, TurnEvent,
};

fn name(user: &str, id: u64) -> AllocationName {
    AllocationName { realm: "r".into(), user: user.into(), id }
}

fn path(port: u16) -> Path {
    Path { local: "10.0.0.1:3478".into(), remote: format!("10.9.9.9:{port}").into(), ..Path::default() }
}

fn opened(port: u16) -> TurnEvent {
    TurnEvent::Opened { lifetime_s: 600, path: path(port) }
}

/// The last word on an allocation of this user.
fn last(account: &mut TurnAccount, told: &mut Vec<AllocationRecord>, user: &str) -> AllocationRecord {
    loop {
        match account.poll_output() {
            Output::Allocation(record) => told.push(*record),
            Output::Session(_) => {}
            Output::Timeout(_) => break,
        }
    }
    told.iter()
        .rfind(|record| record.name.user == user)
        .cloned()
        .unwrap_or_else(|| panic!("nothing of {user}"))
}

#[test]
fn a_store_that_lived_through_the_gap_says_what_began_went_on_and_ended_in_it() {
    let mut account = TurnAccount::new(Settings::default(), 1);
    let mut told = Vec::new();
    for (user, id) in [("stays", 1), ("ends", 2)] {
        account.handle_event(1_000, None, &name(user, id), opened(1));
    }
    account.handle_input_lost();
    // Their lifetimes pass while nobody listens: that alone ends nothing.
    account.handle_timeout(700_000);
    assert_eq!(last(&mut account, &mut told, "stays").ended, None);

    let status = TurnEvent::Refreshed { lifetime_s: 600, path: path(1) };
    let stored = |user: &str, id, since_ms| StoredAllocation {
        name: name(user, id),
        status: status.clone(),
        since_ms,
    };
    account.handle_resync(710_000, true, vec![stored("stays", 1, 590_000), stored("new", 3, 650_000)]);
    let stays = last(&mut account, &mut told, "stays");
    assert_eq!((stays.ended, stays.last_status_ms, stays.start_known), (None, 590_000, true));
    let new = last(&mut account, &mut told, "new");
    assert_eq!((new.ended, new.started_ms, new.start_known), (None, 650_000, false));
    let ends = last(&mut account, &mut told, "ends");
    assert_eq!(ends.ended, Some((End { low_ms: 1_000, high_ms: 710_000 }, EndReason::Unseen)));
    assert_eq!(ends.quality, Quality::LowerBound);

    // What went on ends as always, and its totals are exact again.
    let totals = LegCounters { rx_packets: 9, rx_bytes: 900, tx_packets: 8, tx_bytes: 800 };
    for event in
        [TurnEvent::Deleted, TurnEvent::Total(Leg::Client, totals), TurnEvent::Total(Leg::Peer, totals)]
    {
        account.handle_event(720_000, None, &name("stays", 1), event);
    }
    let stays = last(&mut account, &mut told, "stays");
    assert_eq!((stays.ended, stays.quality), (Some((End::at(720_000), EndReason::Closed)), Quality::Exact));
    assert_eq!((stays.client, stays.peer), (totals, totals));
}

#[test]
fn a_store_that_began_anew_proves_nothing_by_what_it_lacks() {
    let mut account = TurnAccount::new(Settings::default(), 1);
    account.handle_event(1_000, None, &name("u", 1), opened(1));
    account.handle_input_lost();
    account.handle_resync(60_000, false, Vec::new());
    assert_eq!(last(&mut account, &mut Vec::new(), "u").ended, None);
    assert_eq!(account.health().outages, 1);
}

#[test]
fn an_orphan_whose_name_was_adopted_before_keeps_its_own_time() {
    let mut account = TurnAccount::new(Settings::default(), 1);
    let traffic = || TurnEvent::Traffic(Leg::Client, LegCounters { rx_packets: 1, ..LegCounters::default() });
    account.handle_event(0, None, &name("u", 1), traffic());
    account.handle_event(50_000, None, &name("u", 1), TurnEvent::Deleted);
    account.handle_timeout(60_000);
    account.handle_timeout(100_000);
    account.handle_event(100_000, None, &name("u", 1), traffic());
    account.handle_timeout(130_000);
    assert_eq!(account.health().orphans, 0, "the second one has until 220,000");
    account.handle_timeout(220_000);
    assert_eq!(account.health().orphans, 1);
}
