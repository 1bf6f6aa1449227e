//! Entry points for fuzzing: whatever comes in, nothing panics.

use crate::collector::{Dedup, DedupSettings, Source};
use crate::decode::browser::{Beacon, Claimed, Sender};
use crate::decode::coturn;
use crate::decode::kohaku::{Kind, parse};
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

/// A body sent to `/collector`, in each of its kinds; what is taken goes through the comparison with what came before.
pub fn fuzz_kohaku_body(data: &[u8]) {
    let mut dedup = Dedup::new(DedupSettings::default(), 1);
    for kind in [Kind::UserAgent, Kind::ErlangVm, Kind::Webhook] {
        match parse(kind, data) {
            Ok(report) => {
                let (now_ms, objects) = (report.at_ns / 1_000_000, report.objects.len());
                assert!(dedup.plan(now_ms, report.clone()).unchanged() <= objects);
                let mut later = report;
                later.at_ns += 1;
                assert!(dedup.plan(now_ms, later).unchanged() <= objects);
            }
            Err(error) => assert!(!error.to_string().is_empty() && !error.kohaku().is_empty()),
        }
    }
}

/// A body sent to `/api/v1/client-stats`.
pub fn fuzz_beacon_body(data: &[u8]) {
    match Beacon::parse(data) {
        Ok(beacon) => {
            let whose = Claimed::default();
            for report in beacon.into_reports(Source::Browser, &whose, Sender::default()) {
                assert!(report.connection.is_some() && i64::try_from(report.at_ns).is_ok());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
