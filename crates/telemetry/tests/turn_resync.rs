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
            Output::Session(_) | Output::WhoIs(_) => {}
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
    account.handle_resync(710_000, Some(0), vec![stored("stays", 1, 590_000), stored("new", 3, 650_000)]);
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
    account.handle_resync(60_000, Some(30_000), Vec::new());
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

#[test]
fn a_gap_and_a_store_say_nothing_of_servers_that_another_input_names() {
    let mut account = TurnAccount::new(Settings::default(), 1);
    account.handle_node_back("turn-1");
    account.handle_event(1_000, Some("turn-1"), &name("named", 1), opened(1));
    account.handle_event(1_000, None, &name("unnamed", 1), opened(1));
    account.handle_input_lost();
    account.handle_resync(60_000, Some(0), Vec::new());
    let mut told = Vec::new();
    assert_eq!(last(&mut account, &mut told, "named").ended, None);
    assert_eq!(
        last(&mut account, &mut told, "unnamed").ended.map(|(_, reason)| reason),
        Some(EndReason::Unseen)
    );
    for event in [TurnEvent::Deleted, TurnEvent::Total(Leg::Client, LegCounters::default())] {
        account.handle_event(70_000, Some("turn-1"), &name("named", 1), event);
    }
    account.handle_timeout(80_000);
    assert_eq!(last(&mut account, &mut told, "named").quality, Quality::Exact, "nothing of it was missed");
}

#[test]
fn what_a_killed_server_left_in_the_store_opens_nothing_and_a_key_that_is_back_revives() {
    let mut account = TurnAccount::new(Settings::default(), 1);
    let stored =
        |user: &str, id, since_ms| StoredAllocation { name: name(user, id), status: opened(1), since_ms };
    account.handle_resync(5_000_000, Some(0), vec![stored("dead", 1, 1_000_000)]);
    assert_eq!(account.open_allocations().count(), 0);

    // Another coturn's start deletes the keys of all; they are back with their next refresh.
    account.handle_event(5_000_000, None, &name("alive", 2), opened(1));
    account.handle_resync(5_100_000, Some(0), Vec::new());
    let mut told = Vec::new();
    let alive = last(&mut account, &mut told, "alive");
    assert_eq!(alive.ended.map(|(_, reason)| reason), Some(EndReason::Unseen));
    let number = alive.number;
    account.handle_resync(5_500_000, Some(0), vec![stored("alive", 2, 5_400_000)]);
    let alive = last(&mut account, &mut told, "alive");
    assert_eq!((alive.ended, alive.last_status_ms, alive.number), (None, 5_400_000, number));
    // One that was being released when it was read waits for its end.
    let released = TurnEvent::Refreshed { lifetime_s: 0, path: path(1) };
    let released = StoredAllocation { name: name("alive", 2), status: released, since_ms: 5_600_000 };
    account.handle_resync(5_600_500, Some(0), vec![released]);
    account.handle_timeout(5_600_000 + 91_000);
    let alive = last(&mut account, &mut told, "alive");
    assert_eq!(alive.ended, Some((End::at(5_600_000), EndReason::Released)));
}
