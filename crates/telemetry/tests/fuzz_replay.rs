//! Replays the committed fuzz corpora, as they are and with seeded mutations.

use fanlight_corpus::replay;
use fanlight_telemetry::fuzzing;

/// Mutations of each input.
const MUTATIONS: usize = 200;

#[test]
fn recordings_of_coturn_survive_their_corpus() {
    replay("coturn", MUTATIONS, fuzzing::fuzz_coturn);
}

#[test]
fn the_listener_for_coturn_survives_its_corpus() {
    replay("resp", MUTATIONS, fuzzing::fuzz_resp);
}

#[test]
fn bodies_for_kohaku_survive_their_corpus() {
    replay("kohaku", MUTATIONS, fuzzing::fuzz_kohaku_body);
}

#[test]
fn bodies_of_pages_survive_their_corpus() {
    replay("beacon", MUTATIONS, fuzzing::fuzz_beacon_body);
}

#[test]
fn batches_of_metrics_survive_their_corpus() {
    replay("livekit_metrics", MUTATIONS, fuzzing::fuzz_livekit_metrics);
}

#[test]
fn messages_of_rtcstats_survive_their_corpus() {
    replay("rtcstats", MUTATIONS, fuzzing::fuzz_rtcstats);
}

#[test]
fn no_depth_of_json_overflows_a_small_stack() {
    let run = || {
        for nest in ["[", "{\"a\":", "[{\"stats\":[", "{\"stats\":[["] {
            for prefix in ["", "{\"stats\":[{\"id\":", "[\"getStats\",\"PC_0\","] {
                let deep = format!("{prefix}{}", nest.repeat(500_000));
                fuzzing::fuzz_kohaku_body(deep.as_bytes());
                fuzzing::fuzz_beacon_body(deep.as_bytes());
                fuzzing::fuzz_rtcstats(deep.as_bytes());
                assert!(serde_json::from_str::<serde_json::Value>(&deep).is_err());
            }
        }
    };
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(run)
        .expect("a thread")
        .join()
        .expect("no overflow");
}
