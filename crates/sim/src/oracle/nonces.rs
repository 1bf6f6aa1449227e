//! No SRTP nonce seals two different packets.

use crate::outcome::Outcome;

pub(super) fn uniqueness(run: &Outcome, faults: &mut Vec<String>) {
    if run.wire.nonces.is_empty() {
        faults.push("the server sealed nothing".to_owned());
    }
    for nonce in &run.wire.nonces.reused {
        faults.push(format!("two packets sealed under one nonce: {nonce:?}"));
    }
}
