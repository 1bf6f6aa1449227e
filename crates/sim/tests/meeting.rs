//! Meetings over bad links, many seeds.

use fanlight_sim::determinism::seeded;
use fanlight_sim::{Scenario, Trace, World, oracle};
use fanlight_transport::Certificate;

/// Seeds of the gate; a seed that once failed is added by hand and stays.
const SEEDS: std::ops::Range<u64> = 0..100;

fn run(seed: u64, scenario: &Scenario, certificate: &Certificate) -> (Vec<String>, Trace) {
    seeded(seed, || {
        let mut world = World::new(scenario, seed, certificate.clone());
        world.run(scenario);
        (oracle::check(&world), world.trace)
    })
}

#[test]
fn three_rooms_of_five_over_lossy_links_keep_every_promise_under_a_hundred_seeds() {
    let certificate = Certificate::generate().unwrap();
    let faults: Vec<String> = SEEDS
        .flat_map(|seed| {
            let (faults, _) = run(seed, &Scenario::MEETING, &certificate);
            faults.into_iter().map(move |fault| format!("seed {seed}: {fault}"))
        })
        .collect();
    assert!(
        faults.is_empty(),
        "{} faults, first of them:\n{}",
        faults.len(),
        faults[..faults.len().min(20)].join("\n")
    );
}

#[test]
fn two_runs_of_one_seed_give_one_trace_and_another_seed_gives_another() {
    let certificate = Certificate::generate().unwrap();
    let (_, first) = run(42, &Scenario::MEETING, &certificate);
    let (_, second) = run(42, &Scenario::MEETING, &certificate);
    assert_eq!(first.first_difference(&second), None);
    let (_, other) = run(43, &Scenario::MEETING, &certificate);
    assert!(first.first_difference(&other).is_some());
}

#[test]
fn the_oracles_see_a_server_that_forwards_nothing() {
    let certificate = Certificate::generate().unwrap();
    let silent = Scenario {
        link: fanlight_sim::Link { loss_ppm: 1_000_000, ..Scenario::MEETING.link },
        run_ms: 500,
        ..Scenario::MEETING
    };
    let (faults, _) = run(1, &silent, &certificate);
    assert!(faults.iter().any(|fault| fault.contains("got 0 of")), "{faults:?}");
}
