//! Replays the committed fuzz corpora and seeded mutations of them on the stable toolchain.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use fanlight_base::Random;
use fanlight_transport::fuzzing;
use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has a corpus");
    let mut random = Random::from_seed([11; 32]);
    for file in files {
        let seed = std::fs::read(&file).expect("readable");
        target(&seed);
        for _ in 0..300 {
            target(&mutate(&seed, &mut random));
        }
    }
}

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() as u64 + 1) as usize;
        match random.below(4) {
            0 => data.truncate(at),
            1 => data.insert(at, random.u32() as u8),
            2 => {
                let slice = data[at..].to_vec();
                data.extend_from_slice(&slice);
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = random.u32() as u8;
                }
            }
        }
        data.truncate(4096);
    }
    data
}

#[test]
fn demultiplexing_survives_its_corpus() {
    replay("transport_demux", fuzzing::fuzz_demux);
}

#[test]
fn framing_survives_its_corpus() {
    replay("transport_framing", fuzzing::fuzz_framing);
}

#[test]
fn dcep_survives_its_corpus() {
    replay("transport_dcep", fuzzing::fuzz_dcep);
}

#[test]
fn client_hello_collection_survives_its_corpus() {
    replay("transport_client_hello", fuzzing::fuzz_client_hello);
}
