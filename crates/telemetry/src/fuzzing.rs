//! Entry points for fuzzing: whatever comes in, nothing panics.

use crate::decode::coturn;
use crate::decode::recording::Reading;
use crate::decode::resp::Connection;
use crate::turn_account::{Output, Settings, TurnAccount};

const DAY_MS: u64 = 86_400_000;

/// Lines of a recording: times, channels and payloads, through the whole accounting.
pub fn fuzz_coturn(data: &[u8]) {
    let mut account = TurnAccount::new(Settings::default(), 1);
    let mut reading = Reading::default();
    for line in String::from_utf8_lossy(data).lines() {
        reading.line(&mut account, line);
        while !matches!(account.poll_output(), Output::Timeout(_)) {}
    }
    account.handle_timeout(reading.latest_ms + DAY_MS);
}

/// Bytes of a connection to the listener for coturn; what it publishes is read too.
pub fn fuzz_resp(data: &[u8]) {
    let mut connection = Connection::new(None);
    let mut answers = Vec::new();
    for piece in data.chunks(7) {
        let Ok(said) = connection.handle_bytes(piece, &mut answers) else { return };
        for said in said {
            if let crate::decode::resp::Said::Published { channel, payload } = said {
                let _ = coturn::read(&channel, &payload);
            }
        }
    }
}
