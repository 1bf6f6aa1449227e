//! Replays the committed fuzz corpora, as they are and with seeded mutations.

use fanlight_turn::fuzzing::TARGETS;

#[test]
fn every_corpus_replays_without_a_panic() {
    TARGETS.into_iter().for_each(|(name, target)| fanlight_corpus::replay(name, 200, target));
}
