//! Replays the committed fuzz corpora and seeded mutations of them: no room ends by a bug.

use fanlight_corpus::replay;
use fanlight_sfu::fuzzing::fuzz_description;

#[test]
fn descriptions() {
    replay("sdp", 50, fuzz_description);
}
