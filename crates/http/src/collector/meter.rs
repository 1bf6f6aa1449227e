//! What the collector counts, as Kohaku's exporter names it and more.

use super::limits::HOSTS_MAX;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets for durations, in seconds: the client library's own.
const DURATION_BUCKETS_S: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of the buckets for sizes, in bytes: echo's own.
const SIZE_BUCKETS_BYTES: [f64; 10] = [
    1_024.0,
    2_048.0,
    5_120.0,
    10_240.0,
    102_400.0,
    512_000.0,
    1_048_576.0,
    2_621_440.0,
    5_242_880.0,
    10_485_760.0,
];
/// Methods that have series of their own.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
/// What takes the place of a label's value that a client made up.
const OTHER: &str = "(other)";

/// Of which requests a series is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestLabels {
    /// Status.
    pub code: u16,
    /// Method.
    pub method: &'static str,
    /// Host, as the client says it.
    pub host: String,
    /// The route's path; empty when there is none.
    pub url: String,
}

/// Values by size.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bound of each bucket with the values in it that are not in the one before.
    pub buckets: Vec<(f64, u64)>,
    /// All values added up.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        Self { buckets: bounds.iter().map(|bound| (*bound, 0)).collect(), sum: 0.0, count: 0 }
    }

    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
        if let Some((_, count)) = self.buckets.iter_mut().find(|(bound, _)| value <= *bound) {
            *count += 1;
        }
    }
}

/// What is known of requests with the same labels.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestSeries {
    /// How long they took, in seconds. Its count is that of the requests.
    pub duration_s: Histogram,
    /// Sizes of their bodies.
    pub request_bytes: Histogram,
    /// Sizes of the answers' bodies.
    pub response_bytes: Histogram,
}

/// What the collector counted by now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CollectorSnapshot {
    /// By labels.
    pub requests: BTreeMap<RequestLabels, RequestSeries>,
    /// Reports by what they were answered with.
    pub reports: BTreeMap<u16, u64>,
    /// Objects of reports taken that could not be taken themselves, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Connections taken.
    pub connections: u64,
    /// TLS handshakes that failed.
    pub tls_failed: u64,
    /// Connections closed because they were idle.
    pub idle: u64,
    /// Connections closed because they gave up too many requests.
    pub resets: u64,
}

/// Counts. A lock taken once a request.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<CollectorSnapshot>);

/// One answered request.
pub(super) struct Answered<'a> {
    pub(super) code: u16,
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) url: &'a str,
    pub(super) took: Duration,
    pub(super) request_bytes: usize,
    pub(super) response_bytes: usize,
}

impl Meter {
    pub(super) fn answered(&self, answered: &Answered<'_>) {
        self.with(|counts| {
            let requests = &mut counts.requests;
            let known = requests.keys().any(|labels| labels.host == answered.host);
            let host = if known || hosts(requests) < HOSTS_MAX { answered.host } else { OTHER };
            let method = METHODS.into_iter().find(|method| *method == answered.method).unwrap_or(OTHER);
            let labels = RequestLabels {
                code: answered.code,
                method,
                host: host.to_owned(),
                url: answered.url.to_owned(),
            };
            let series = requests.entry(labels).or_insert_with(|| RequestSeries {
                duration_s: Histogram::new(&DURATION_BUCKETS_S),
                request_bytes: Histogram::new(&SIZE_BUCKETS_BYTES),
                response_bytes: Histogram::new(&SIZE_BUCKETS_BYTES),
            });
            series.duration_s.add(answered.took.as_secs_f64());
            series.request_bytes.add(answered.request_bytes as f64);
            series.response_bytes.add(answered.response_bytes as f64);
        });
    }

    pub(super) fn report(&self, status: u16) {
        self.with(|counts| *counts.reports.entry(status).or_default() += 1);
    }

    pub(super) fn rejected(&self, reason: &'static str, objects: u64) {
        self.with(|counts| *counts.rejected.entry(reason).or_default() += objects);
    }

    pub(super) fn snapshot(&self) -> CollectorSnapshot {
        self.with(|counts| counts.clone())
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut CollectorSnapshot) -> T) -> T {
        // Counters are whole whatever happened to the thread that held them.
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn hosts(requests: &BTreeMap<RequestLabels, RequestSeries>) -> usize {
    let mut hosts: Vec<&str> = requests.keys().map(|labels| labels.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_make_up_does_not_make_series_without_end() {
        let meter = Meter::default();
        for number in 0..1_000 {
            meter.answered(&Answered {
                code: 404,
                method: &format!("M{number}"),
                host: &format!("host-{number}"),
                url: "",
                took: Duration::from_millis(number),
                request_bytes: 3_000,
                response_bytes: 0,
            });
        }
        let requests = meter.snapshot().requests;
        assert_eq!(requests.len(), HOSTS_MAX + 1);
        let sum: u64 = requests.values().map(|series| series.duration_s.count).sum();
        assert_eq!(sum, 1_000);
        let other = &requests.iter().find(|(labels, _)| labels.host == OTHER).unwrap().1;
        assert_eq!(other.request_bytes.buckets[2], (5_120.0, 1_000 - HOSTS_MAX as u64));
        assert_eq!(other.response_bytes.buckets[0].1, other.response_bytes.count);
        let bucketed: u64 = other.duration_s.buckets.iter().map(|(_, count)| count).sum();
        assert_eq!(bucketed, other.duration_s.count, "none took longer than the last bound");
    }
}
