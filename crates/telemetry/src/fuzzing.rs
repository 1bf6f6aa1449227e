//! Entry points for fuzzing: whatever comes in, nothing panics.

use crate::collector::{Dedup, DedupSettings, Source};
use crate::decode::browser::{Beacon, Claimed, Sender};
use crate::decode::coturn;
use crate::decode::kohaku::{Kind, parse};
use crate::decode::livekit_metrics;
use crate::decode::recording::Reading;
use crate::decode::resp::Connection;
use crate::decode::rtcstats::{DUMP_BYTES_MAX, Dump, MESSAGE_BYTES_MAX, Protocol, Speaker};
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
    // A stranger, who says little.
    let _ = Connection::new(Some("secret".to_owned())).handle_bytes(data, &mut Vec::new());
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

/// A batch of a LiveKit client's metrics; reports have times of their own, and objects ids of their own.
pub fn fuzz_livekit_metrics(data: &[u8]) {
    let sender = livekit_metrics::Sender { at_ns: 1, ..Default::default() };
    match livekit_metrics::Batch::read(data, &sender) {
        Ok(batch) => {
            for (place, report) in batch.reports.iter().enumerate() {
                assert!(report.at_ns > place as u64 && report.at_ns < 100_000);
                let mut ids: Vec<_> =
                    report.objects.iter().map(|object| (&object.kind, &object.id)).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), report.objects.len());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Messages of rtcstats, a line each, in both of its languages.
pub fn fuzz_rtcstats(data: &[u8]) {
    let said = String::from_utf8_lossy(data);
    for protocol in Protocol::ALL {
        let speaker = Speaker { page: "p".into(), ..Speaker::default() };
        let mut dump = Dump::new(protocol, speaker, Sender::default());
        for message in said.lines().filter(|line| line.len() <= MESSAGE_BYTES_MAX) {
            match dump.read(1_795_231_283_000, message) {
                Ok(report) => assert!(report.connection.is_some() && i64::try_from(report.at_ns).is_ok()),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            // Names are longer than their numbers.
            assert!(dump.size_bytes() <= DUMP_BYTES_MAX + 2 * MESSAGE_BYTES_MAX);
        }
    }
}
