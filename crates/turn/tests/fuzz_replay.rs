//! Replays the committed fuzz corpora, as they are and with seeded mutations.

use fanlight_base::Random;
use fanlight_turn::fuzzing::{TARGETS, Target};
use std::path::{Path, PathBuf};

const MUTATIONS_PER_INPUT: usize = 200;

fn corpus(name: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    paths.into_iter().map(std::fs::read).collect()
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u32() as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ if at < bytes.len() => bytes[at] = random.u32() as u8,
            _ => {}
        }
    }
}

fn replay(name: &str, target: Target) -> std::io::Result<()> {
    let inputs = corpus(name)?;
    assert!(!inputs.is_empty(), "no corpus for {name}");
    let mut random = Random::from_seed([3; 32]);
    target(&[]);
    for input in inputs {
        target(&input);
        for _ in 0..MUTATIONS_PER_INPUT {
            let mut mutated = input.clone();
            mutate(&mut random, &mut mutated);
            target(&mutated);
        }
    }
    Ok(())
}

#[test]
fn every_corpus_replays_without_a_panic() -> std::io::Result<()> {
    TARGETS.into_iter().try_for_each(|(name, target)| replay(name, target))
}
