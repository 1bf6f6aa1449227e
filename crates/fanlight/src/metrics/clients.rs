//! What is counted of reports of pages and of what LiveKit's clients measure.

use super::Sheet;
use crate::client_metrics::MetricsCounts;
use fanlight_http::ClientStatsCounts;

/// Of `POST /api/v1/client-stats`.
pub(super) fn client_stats(sheet: &mut Sheet, counts: &ClientStatsCounts) {
    sheet.counter(
        "fanlight_client_stats_requests_total",
        "Reports of pages: requests, by what was answered.",
        |to| {
            for (status, count) in &counts.requests {
                to.sample(&[("status", &status.to_string())], *count as f64);
            }
        },
    );
    for (name, help, value) in [
        ("body_bytes", "bytes of the requests' bodies", counts.body_bytes),
        ("reports", "reports in requests answered with 204", counts.reports),
        ("objects", "objects of these", counts.objects),
    ] {
        let name = format!("fanlight_client_stats_{name}_total");
        sheet.counter(&name, &format!("Reports of pages: {help}."), |to| to.sample(&[], value as f64));
    }
    sheet.counter(
        "fanlight_client_stats_objects_rejected_total",
        "Reports of pages: objects left out of these, by what is wrong with them.",
        |to| {
            for (reason, count) in &counts.rejected {
                to.sample(&[("reason", reason)], *count as f64);
            }
        },
    );
}

/// Of `metrics_batch` packets.
pub(super) fn client_metrics(sheet: &mut Sheet, counts: &MetricsCounts) {
    for (name, help, value) in [
        ("batches", "batches handed to the store of reports", counts.batches),
        ("samples", "samples in these", counts.samples),
        ("events", "events in these", counts.events),
        ("unreadable", "batches that make no sense", counts.unreadable),
        ("dropped", "batches dropped because the store of reports had no room", counts.dropped),
    ] {
        let name = format!("fanlight_client_metrics_{name}_total");
        sheet.counter(&name, &format!("Metrics of LiveKit's clients: {help}."), |to| {
            to.sample(&[], value as f64)
        });
    }
}

/// Families with something of everything, for the list of all metrics.
#[cfg(test)]
pub(super) fn sample_families() -> Vec<prometheus::proto::MetricFamily> {
    use std::collections::BTreeMap;
    let counts = ClientStatsCounts {
        requests: BTreeMap::from([(204, 1)]),
        rejected: BTreeMap::from([("no-id", 1)]),
        ..ClientStatsCounts::default()
    };
    let mut sheet = Sheet::default();
    client_stats(&mut sheet, &counts);
    client_metrics(&mut sheet, &MetricsCounts::default());
    sheet.families
}
