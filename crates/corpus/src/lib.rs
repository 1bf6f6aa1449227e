//! For tests: replays the committed fuzz corpora on the stable toolchain, as they are and with seeded mutations.
#![allow(clippy::panic, reason = "a corpus that cannot be read is a failed test")]

use fanlight_base::Random;
use std::path::{Path, PathBuf};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Inputs grow by no mutation beyond this: longer ones say nothing new and take long.
const INPUT_BYTES_MAX: usize = 100_000;

/// The inputs of `fuzz/corpus/NAME`, in the order of their names; a corpus without inputs proves nothing and panics.
pub fn inputs(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let read = || -> std::io::Result<Vec<Vec<u8>>> {
        let entries = std::fs::read_dir(&folder)?;
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        paths.sort();
        paths.into_iter().map(std::fs::read).collect()
    };
    match read() {
        Ok(inputs) if !inputs.is_empty() => inputs,
        Ok(_) => panic!("{} is empty", folder.display()),
        Err(error) => panic!("{}: {error}", folder.display()),
    }
}

/// Feeds nothing at all, every input, and `mutations` changed copies of each to a target.
pub fn replay(name: &str, mutations: usize, target: Target) {
    let mut random = Random::from_seed([3; 32]);
    target(&[]);
    for input in inputs(name) {
        target(&input);
        for _ in 0..mutations {
            target(&mutated(&input, &mut random));
        }
    }
}

/// A copy with one to five changes: cut, or a byte more, changed or flipped in one bit, or its end once more.
fn mutated(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap_or(0);
        let byte = random.u32().to_le_bytes()[0];
        match (random.below(5), bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, _) => bytes.insert(at, byte),
            (2, _) => bytes.extend_from_within(at..),
            (3, Some(place)) => *place ^= 1 << (byte % 8),
            (_, Some(place)) => *place = byte,
            (_, None) => {}
        }
        bytes.truncate(INPUT_BYTES_MAX);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_the_same_from_run_to_run_and_differ_from_each_other() {
        let many = |seed| {
            let mut random = Random::from_seed([seed; 32]);
            (0..50).map(|_| mutated(b"some input", &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(many(1), many(1));
        let different: std::collections::BTreeSet<_> = many(1).into_iter().collect();
        assert!(different.len() > 25, "{}", different.len());
    }
}
