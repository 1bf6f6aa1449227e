//! What connections of the main port hold, and what was refused there.

use super::Sheet;
use fanlight_http::{GateSnapshot, HeldSnapshot};

/// Of the main port.
pub(super) fn http(sheet: &mut Sheet, counts: &GateSnapshot) {
    let kinds: [(&str, &str, &HeldSnapshot); 4] = [
        ("connections", "connections, WebSockets among them", &counts.connections),
        ("head_bytes", "bytes of long requests' heads", &counts.head_bytes),
        ("body_bytes", "bytes of requests' bodies", &counts.body_bytes),
        ("sent_bytes", "bytes of long messages on their way to WebSockets", &counts.sent_bytes),
    ];
    for (name, help, held) in kinds {
        sheet.gauge(&format!("fanlight_http_{name}"), &format!("HTTP: {help}, held now."), |to| {
            to.sample(&[], held.now as f64);
        });
        sheet.gauge(
            &format!("fanlight_http_{name}_max"),
            &format!("HTTP: {help}, most at one time."),
            |to| {
                to.sample(&[], held.most as f64);
            },
        );
        sheet.counter(
            &format!("fanlight_http_{name}_refused_total"),
            &format!("HTTP: how often there was no room for more {help}."),
            |to| to.sample(&[], held.refused as f64),
        );
    }
    sheet.counter("fanlight_http_refusals_total", "HTTP: answers from 400 on, by status.", |to| {
        for (status, count) in &counts.refusals {
            to.sample(&[("status", &status.to_string())], *count as f64);
        }
    });
}

/// Families with something of everything, for the list of all metrics.
#[cfg(test)]
pub(super) fn sample_families() -> Vec<prometheus::proto::MetricFamily> {
    let mut sheet = Sheet::default();
    http(&mut sheet, &GateSnapshot { refusals: vec![(404, 1)], ..GateSnapshot::default() });
    sheet.families
}
