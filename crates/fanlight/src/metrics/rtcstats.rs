//! What the WebSockets of rtcstats count.

use super::Sheet;
use fanlight_http::{RtcStatsCounts, RtcStatsSnapshot};

/// A part of what is counted.
type OfSnapshot = fn(&RtcStatsSnapshot) -> &RtcStatsCounts;

/// Of `/api/v1/rtcstats`.
pub(super) fn rtcstats(sheet: &mut Sheet, counts: &RtcStatsSnapshot) {
    for (name, help, value) in [
        ("sockets", "WebSockets let in", counts.opened),
        ("messages", "messages read", counts.messages),
        ("message_bytes", "bytes of these", counts.bytes),
    ] {
        let name = format!("fanlight_rtcstats_{name}_total");
        sheet.counter(&name, &format!("rtcstats: {help}."), |to| to.sample(&[], value as f64));
    }
    let by_reason: [(&str, &str, OfSnapshot); 4] = [
        ("sockets_refused", "WebSockets not let in, by reason", |counts| &counts.refused),
        ("sockets_ended", "WebSockets that have ended, by reason", |counts| &counts.ended),
        ("messages_rejected", "messages left out, by what is wrong with them", |counts| &counts.bad_messages),
        ("objects_rejected", "objects left out of messages, by what is wrong with them", |counts| {
            &counts.rejected
        }),
    ];
    for (name, help, part) in by_reason {
        let name = format!("fanlight_rtcstats_{name}_total");
        sheet.counter(&name, &format!("rtcstats: {help}."), |to| {
            for (reason, count) in part(counts) {
                to.sample(&[("reason", reason)], *count as f64);
            }
        });
    }
    for (name, help, value) in [
        ("sockets", "WebSockets that are open", counts.open_now),
        ("remembered_bytes", "bytes remembered of pages, to add differences to", counts.dump_bytes_now),
    ] {
        let name = format!("fanlight_rtcstats_{name}");
        sheet.gauge(&name, &format!("rtcstats: {help}."), |to| to.sample(&[], value as f64));
    }
}

/// Families with something of everything, for the list of all metrics.
#[cfg(test)]
pub(super) fn sample_families() -> Vec<prometheus::proto::MetricFamily> {
    let some = || vec![("left", 1)];
    let counts = RtcStatsSnapshot {
        refused: some(),
        ended: some(),
        bad_messages: some(),
        rejected: some(),
        ..RtcStatsSnapshot::default()
    };
    let mut sheet = Sheet::default();
    rtcstats(&mut sheet, &counts);
    sheet.families
}
