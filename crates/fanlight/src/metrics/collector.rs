//! What the collector counts: Kohaku's names, and ours.

use super::{Metrics, Samples, Sheet};
use fanlight_base::Now;
use fanlight_http::collector::{CollectorApp, CollectorSnapshot, Histogram, RequestLabels, RequestSeries};
use fanlight_store::collector::{CollectorHealth, CollectorSender};
use prometheus::TextEncoder;
#[cfg(test)]
use prometheus::proto::MetricFamily;
use prometheus::proto::{Bucket, Metric, MetricType};

/// What the collector's own listener for Prometheus serves.
#[derive(Clone)]
pub(crate) struct ExporterMetrics {
    /// When the process began.
    pub(crate) started: Now,
    pub(crate) app: CollectorApp,
    pub(crate) store: CollectorSender,
}

impl ExporterMetrics {
    /// As Prometheus reads it (text format 0.0.4).
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        let mut sheet = Sheet::default();
        super::process(&mut sheet, self.started);
        let snapshot = self.app.snapshot();
        echo(&mut sheet, &snapshot);
        collector(&mut sheet, &snapshot, &self.store.health());
        TextEncoder::new().encode_to_string(&sheet.families)
    }
}

impl Metrics {
    /// The collector's part alone, when there is one.
    pub(crate) fn exporter(&self) -> Option<ExporterMetrics> {
        let (app, store) = self.collector.clone()?;
        Some(ExporterMetrics { started: self.started, app, store })
    }
}

/// A part of what is known of requests.
type OfSeries = fn(&RequestSeries) -> &Histogram;

/// Names of Kohaku's framework.
pub(super) fn echo(sheet: &mut Sheet, snapshot: &CollectorSnapshot) {
    sheet.counter("echo_requests_total", "Collector: requests answered.", |to| {
        for (labels, series) in &snapshot.requests {
            to.sample(&of_request(&labels.code.to_string(), labels), series.duration_s.count as f64);
        }
    });
    let histograms: [(&str, &str, OfSeries); 3] = [
        ("duration_seconds", "seconds that answers took", |series| &series.duration_s),
        ("size_bytes", "bytes of requests' bodies", |series| &series.request_bytes),
        ("response_size_bytes", "bytes of answers' bodies", |series| &series.response_bytes),
    ];
    for (name, help, part) in histograms {
        let name = match name {
            "response_size_bytes" => "echo_response_size_bytes".to_owned(),
            name => format!("echo_request_{name}"),
        };
        sheet.family(&name, &format!("Collector: {help}."), MetricType::HISTOGRAM, |to| {
            for (labels, series) in &snapshot.requests {
                to.histogram(&of_request(&labels.code.to_string(), labels), part(series));
            }
        });
    }
}

fn of_request<'a>(code: &'a str, labels: &'a RequestLabels) -> [(&'static str, &'a str); 4] {
    [("code", code), ("host", &labels.host), ("method", labels.method), ("url", &labels.url)]
}

/// Of reports and of what became of them.
pub(super) fn collector(sheet: &mut Sheet, snapshot: &CollectorSnapshot, health: &CollectorHealth) {
    sheet.counter("fanlight_collector_reports_total", "Collector: reports, by what was answered.", |to| {
        for (status, count) in &snapshot.reports {
            to.sample(&[("status", &status.to_string())], *count as f64);
        }
    });
    sheet.counter(
        "fanlight_collector_objects_rejected_total",
        "Collector: objects left out of reports that were taken, by what is wrong with them.",
        |to| {
            for (reason, count) in &snapshot.rejected {
                to.sample(&[("reason", reason)], *count as f64);
            }
            // What only the database knows: its reasons have other names.
            for (reason, count) in &health.unfit_objects {
                to.sample(&[("reason", reason)], *count as f64);
            }
        },
    );
    for (name, help, value) in [
        ("connections", "connections taken", snapshot.connections),
        (
            "tls_failed",
            "TLS handshakes that failed, a client without a good certificate included",
            snapshot.tls_failed,
        ),
        ("connections_idle", "connections closed because they were idle", snapshot.idle),
        ("connections_reset", "connections closed because they gave up too many requests", snapshot.resets),
        ("stored_reports", "reports in the database", health.stored_reports),
        ("stored_objects", "objects in the database", health.stored_objects),
        ("unchanged_objects", "objects left out because they are as before", health.unchanged_objects),
        ("duplicate_reports", "reports that had been stored before", health.duplicate_reports),
        ("batches", "transactions", health.batches),
        (
            "spooled_reports",
            "reports that went to the spool because the database was away",
            health.spooled_reports,
        ),
        ("replayed_reports", "reports that came from the spool into the database", health.replayed_reports),
        ("spool_lost_bytes", "bytes of the spool that could not be read", health.spool_lost_bytes),
        ("pruned_objects", "objects deleted because of their age", health.pruned_objects),
    ] {
        let name = format!("fanlight_collector_{name}_total");
        sheet.counter(&name, &format!("Collector: {help}."), |to| to.sample(&[], value as f64));
    }
    sheet.counter("fanlight_collector_refused_total", "Collector: reports that were not stored.", |to| {
        to.sample(&[("reason", "queue-full")], health.refused_busy as f64);
        to.sample(&[("reason", "disk-full")], health.refused_full as f64);
        to.sample(&[("reason", "unfit")], health.refused_data as f64);
    });
    for (name, help, value) in [
        ("queued_reports", "reports that wait in memory", health.queued_reports_now),
        ("queued_bytes", "bytes of these", health.queued_bytes_now),
        ("spool_reports", "reports that wait in the spool", health.spool_reports_now),
        ("spool_bytes", "bytes of the spool", health.spool_bytes_now),
        ("known_connections", "connections whose last values are remembered", health.known_connections_now),
        ("known_objects", "objects of these", health.known_objects_now),
        ("failing", "1 while the database takes nothing", u64::from(health.failing.is_some())),
        ("spool_failing", "1 while the spool takes nothing", u64::from(health.spool_failing.is_some())),
    ] {
        let name = format!("fanlight_collector_{name}");
        sheet.gauge(&name, &format!("Collector: {help}."), |to| to.sample(&[], value as f64));
    }
}

impl Samples {
    fn histogram(&mut self, labels: &[(&str, &str)], values: &Histogram) {
        let mut below = 0;
        let bucket = |(bound, count): &(f64, u64)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        };
        let mut histogram = prometheus::proto::Histogram::default();
        histogram.set_bucket(values.buckets.iter().map(bucket).collect());
        histogram.set_sample_sum(values.sum);
        histogram.set_sample_count(values.count);
        let mut metric = Metric::from_label(super::pairs(labels));
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }
}

/// Families with something of everything, for the list of all metrics.
#[cfg(test)]
pub(super) fn sample_families() -> Vec<MetricFamily> {
    use std::collections::BTreeMap;
    let histogram = Histogram { buckets: vec![(0.5, 1), (1.0, 2)], sum: 2.25, count: 4 };
    let series = RequestSeries {
        duration_s: histogram.clone(),
        request_bytes: histogram.clone(),
        response_bytes: histogram,
    };
    let labels = RequestLabels { code: 204, method: "POST", host: "h:5890".into(), url: "/collector".into() };
    let snapshot = CollectorSnapshot {
        requests: BTreeMap::from([(labels, series)]),
        reports: BTreeMap::from([(204, 4)]),
        rejected: BTreeMap::from([("no-id", 1)]),
        ..CollectorSnapshot::default()
    };
    let mut sheet = Sheet::default();
    collector(&mut sheet, &snapshot, &CollectorHealth::default());
    echo(&mut sheet, &snapshot);
    sheet.families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_as_kohakus_framework_tells_them() {
        let text = TextEncoder::new().encode_to_string(&sample_families()).expect("it encodes");
        let labels = r#"code="204",host="h:5890",method="POST",url="/collector""#;
        for line in [
            format!("echo_requests_total{{{labels}}} 4"),
            format!("echo_request_duration_seconds_bucket{{{labels},le=\"0.5\"}} 1"),
            format!("echo_request_duration_seconds_bucket{{{labels},le=\"1\"}} 3"),
            format!("echo_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("echo_request_size_bytes_sum{{{labels}}} 2.25"),
            format!("echo_response_size_bytes_count{{{labels}}} 4"),
            "fanlight_collector_reports_total{status=\"204\"} 4".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
