//! Replays the committed SDP corpus and mutations of it: nothing panics.

use fanlight_base::Random;
use fanlight_corpus::inputs;
use fanlight_transport::fuzzing::fuzz_sdp;

/// Mutations of each corpus file.
const MUTATIONS: u64 = 150;

#[test]
fn the_corpus_is_taken_without_panic() {
    assert!(inputs("sdp").len() >= 6);
    inputs("sdp").iter().for_each(|file| fuzz_sdp(file));
}

#[test]
fn changed_bytes_are_taken_without_panic() {
    let mut random = Random::from_seed([3; 32]);
    for file in inputs("sdp") {
        for _ in 0..MUTATIONS {
            let mut bytes = file.clone();
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = b"\r\n:= /;,~-0159azm\xff\0"[random.below(19) as usize];
            }
            bytes.truncate(random.below(2 * bytes.len() as u64) as usize);
            fuzz_sdp(&bytes);
        }
    }
}

#[test]
fn shuffled_doubled_and_missing_lines_are_taken_without_panic() {
    let mut random = Random::from_seed([4; 32]);
    for file in inputs("sdp") {
        let text = String::from_utf8_lossy(&file);
        for _ in 0..MUTATIONS {
            let mut lines: Vec<&str> = text.lines().collect();
            for _ in 0..=random.below(12) {
                let from = 1 + random.below(lines.len() as u64 - 1) as usize;
                let to = 1 + random.below(lines.len() as u64 - 1) as usize;
                match random.below(3) {
                    0 => lines.swap(from, to),
                    1 => lines.insert(to, lines[from]),
                    _ => drop(lines.remove(from)),
                }
            }
            fuzz_sdp(lines.join("\r\n").as_bytes());
        }
    }
}
