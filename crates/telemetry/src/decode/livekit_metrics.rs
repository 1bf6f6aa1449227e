//! `metrics_batch` packets of LiveKit's clients (`MetricsBatch` of `livekit_metrics.proto`), as reports.
//!
//! A series is what one client measured under one label of one participant, track and layer; its object has the latest value and
//! all samples of the batch, and one of events has all events. Who measured is said by the connection that the batch came
//! over; participants and tracks that it names are what it tells of.
//!
//! Clients write times of a clock of their own, which begins anywhere. The batch says when it was sent by that clock, and we know
//! when it came, so that its times are given as ours; where a client knows the time of day, that is taken.

use crate::collector::limits::{ID_BYTES_MAX, OBJECTS_MAX};
use crate::collector::{ClientReport, ConnectionEnvelope, Reason, Source, StatsObject};
use livekit_protocol::{EventMetric, MetricLabel, MetricsBatch, TimeSeriesMetric};
use prost::Message;
use serde::Serialize;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// `type` of an object with samples.
pub const METRIC: &str = "livekit-metric";
/// `type` of an object with events.
pub const EVENT: &str = "livekit-event";

/// Bytes of a batch: what a data channel carries (RFC 8841 §6.1 default).
pub const BATCH_BYTES_MAX: usize = 65_535;
/// Samples or events of one series in one report; clients send some ten. More than that goes to reports of the next nanoseconds.
const PART_MAX: usize = 256;
/// `label`, before the SDK's name.
const LIBRARY: &str = "livekit";

/// Who sent a batch, and when it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sender {
    /// The room's sid.
    pub room_sid: SmolStr,
    /// The room's name.
    pub room: SmolStr,
    /// The participant's sid.
    pub participant_sid: SmolStr,
    /// The participant's identity.
    pub identity: SmolStr,
    /// Its SDK.
    pub sdk: SmolStr,
    /// Version of the SDK.
    pub version: SmolStr,
    /// When it came, in nanoseconds since the Unix epoch: 100,000 away from the sender's other batches.
    pub at_ns: u64,
}

/// A batch, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// What it says, in one report; in more when it has very many samples.
    pub reports: Vec<ClientReport>,
    /// Samples in it.
    pub samples: u64,
    /// Events in it.
    pub events: u64,
}

/// A batch that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    /// It is no message of this kind.
    #[error("not a MetricsBatch: {0}")]
    Form(String),
    /// It is too large.
    #[error("the batch has {0} bytes; at most {BATCH_BYTES_MAX}")]
    Length(usize),
}

impl Batch {
    /// Reads a batch.
    pub fn read(bytes: &[u8], sender: &Sender) -> Result<Self, BadBatch> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(BadBatch::Length(bytes.len()));
        }
        let said = MetricsBatch::decode(bytes).map_err(|error| BadBatch::Form(error.to_string()))?;
        let clock = Clock::of(&said, sender.at_ns);
        let mut batch = Self { reports: vec![report(sender, &said)], ..Self::default() };
        let mut metrics: BTreeMap<Names<'_>, Vec<Sample>> = BTreeMap::new();
        for series in &said.time_series {
            batch.samples += series.samples.len() as u64;
            match Names::of_series(series, &said.str_data) {
                Ok(names) => {
                    let samples = series.samples.iter().map(|sample| {
                        let normalized =
                            sample.normalized_timestamp.as_ref().map(|at| (at.seconds, at.nanos));
                        (clock.time(normalized, sample.timestamp_ms), sample.value)
                    });
                    metrics.entry(names).or_default().extend(samples);
                }
                Err(reason) => batch.reject(reason),
            }
        }
        let mut events: BTreeMap<Names<'_>, Vec<Event<'_>>> = BTreeMap::new();
        for event in &said.events {
            batch.events += 1;
            match Names::of_event(event, &said.str_data) {
                Ok(names) => events.entry(names).or_default().push(Event::of(event, &clock)),
                Err(reason) => batch.reject(reason),
            }
        }
        for (names, mut samples) in metrics {
            samples.sort_by(|one, other| one.0.total_cmp(&other.0));
            for (part, samples) in samples.chunks(PART_MAX).enumerate() {
                let Some((timestamp, value)) = samples.last() else { continue };
                let body = Body { value: Some(*value), samples, ..Body::default() };
                batch.put(part, METRIC, &names, *timestamp, &body);
            }
        }
        for (names, mut events) in events {
            events.sort_by(|one, other| one.start_ms.total_cmp(&other.start_ms));
            for (part, events) in events.chunks(PART_MAX).enumerate() {
                let Some(last) = events.last() else { continue };
                let body = Body { events, ..Body::default() };
                batch.put(part, EVENT, &names, last.start_ms, &body);
            }
        }
        batch.reports.retain(|report| !report.objects.is_empty() || !report.rejected.is_empty());
        Ok(batch)
    }

    fn put(&mut self, part: usize, kind: &str, names: &Names<'_>, timestamp: f64, body: &Body<'_>) {
        while self.reports.len() <= part
            && let Some(before) = self.reports.last()
        {
            let at_ns = before.at_ns.saturating_add(1);
            let (objects, rejected) = (Vec::new(), BTreeMap::new());
            self.reports.push(ClientReport { at_ns, objects, rejected, ..before.clone() });
        }
        let Some(report) = self.reports.get_mut(part) else { return };
        if report.objects.len() >= OBJECTS_MAX {
            report.reject(Reason::TooMany, 1);
            return;
        }
        let object = Object { id: &names.id(), kind, timestamp, names, body };
        match serde_json::to_string(&object) {
            Ok(json) => report.take(StatsObject::parse(&json)),
            Err(_) => report.reject(Reason::NotAnObject, 1),
        }
    }

    fn reject(&mut self, reason: Reason) {
        if let Some(report) = self.reports.first_mut() {
            report.reject(reason, 1);
        }
    }
}

fn report(sender: &Sender, said: &MetricsBatch) -> ClientReport {
    let label = if sender.sdk.is_empty() { LIBRARY.into() } else { format!("{LIBRARY}-{}", sender.sdk) };
    ClientReport {
        source: Source::LiveKitMetrics,
        at_ns: sender.at_ns,
        connection: Some(ConnectionEnvelope {
            connection_id: sender.participant_sid.clone(),
            channel_id: sender.room.clone(),
            client_id: sender.identity.clone(),
            room_sid: sender.room_sid.clone(),
            participant_sid: sender.participant_sid.clone(),
            ..ConnectionEnvelope::default()
        }),
        label: label.into(),
        version: sender.version.clone(),
        node_name: SmolStr::default(),
        extra: serde_json::json!({ "batch_ms": said.timestamp_ms }).to_string(),
        objects: Vec::new(),
        rejected: BTreeMap::new(),
    }
}

/// A time in milliseconds since the Unix epoch, and a value; JSON has no name for one that is no number, and says null.
type Sample = (f64, f32);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    /// In milliseconds since the Unix epoch, as the end.
    start_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_ms: Option<f64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
}

impl<'a> Event<'a> {
    fn of(event: &'a EventMetric, clock: &Clock) -> Self {
        let start = event.normalized_start_timestamp.as_ref().map(|at| (at.seconds, at.nanos));
        let end = event.normalized_end_timestamp.as_ref().map(|at| (at.seconds, at.nanos));
        let ends = end.is_some() || event.end_timestamp_ms.is_some();
        Self {
            start_ms: clock.time(start, event.start_timestamp_ms),
            end_ms: ends.then(|| clock.time(end, event.end_timestamp_ms.unwrap_or(0))),
            metadata: &event.metadata,
        }
    }
}

/// An object as it is stored.
#[derive(Serialize)]
struct Object<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: f64,
    #[serde(flatten)]
    names: &'a Names<'a>,
    #[serde(flatten)]
    body: &'a Body<'a>,
}

#[derive(Debug, Default, Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f32>,
    #[serde(skip_serializing_if = "<[Sample]>::is_empty")]
    samples: &'a [Sample],
    #[serde(skip_serializing_if = "<[Event<'_>]>::is_empty")]
    events: &'a [Event<'a>],
}

/// By what a series is told from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct Names<'a> {
    label: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    track_sid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    participant_identity: &'a str,
}

impl<'a> Names<'a> {
    fn of_series(series: &TimeSeriesMetric, texts: &'a [String]) -> Result<Self, Reason> {
        Self::of((series.label, series.track_sid, series.rid, series.participant_identity), texts)
    }

    fn of_event(event: &EventMetric, texts: &'a [String]) -> Result<Self, Reason> {
        Self::of((event.label, event.track_sid, event.rid, event.participant_identity), texts)
    }

    fn of((label, track, rid, identity): (u32, u32, u32, u32), texts: &'a [String]) -> Result<Self, Reason> {
        let names = Self {
            label: label_of(label, texts).filter(|label| !label.is_empty()).ok_or(Reason::NoType)?,
            track_sid: text_of(track, texts).ok_or(Reason::NoId)?,
            rid: text_of(rid, texts).ok_or(Reason::NoId)?,
            participant_identity: text_of(identity, texts).ok_or(Reason::NoId)?,
        };
        // Before anything is made of them: one text may be named a thousand times.
        let parts = [&names.label, names.track_sid, names.rid, names.participant_identity];
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > ID_BYTES_MAX { Err(Reason::TooLong) } else { Ok(names) }
    }

    /// `label/track/rid/identity`; what would be taken for a slash is written as in URLs.
    fn id(&self) -> String {
        let whole = |part: &str| part.replace('%', "%25").replace('/', "%2F");
        let [label, track, rid] = [&self.label, self.track_sid, self.rid].map(whole);
        format!("{label}/{track}/{rid}/{}", self.participant_identity)
    }
}

/// From here on an index is of the batch's own texts; below it are LiveKit's labels.
const OWN_TEXTS: u32 = MetricLabel::PredefinedMaxValue as u32;

fn label_of(index: u32, texts: &[String]) -> Option<Cow<'_, str>> {
    if index >= OWN_TEXTS {
        return text_of(index, texts).map(Cow::Borrowed);
    }
    let known = i32::try_from(index).ok().and_then(|label| MetricLabel::try_from(label).ok());
    // A newer client's label keeps its number.
    Some(known.map_or_else(|| format!("METRIC_LABEL_{index}").into(), |label| label.as_str_name().into()))
}

/// 0 is none.
fn text_of(index: u32, texts: &[String]) -> Option<&str> {
    if index == 0 {
        return Some("");
    }
    texts.get(usize::try_from(index.checked_sub(OWN_TEXTS)?).ok()?).map(String::as_str)
}

/// The batch's clock beside ours.
struct Clock {
    /// When the batch was sent, by its own clock, in milliseconds.
    sent_ms: i64,
    /// The same by the time of day, in milliseconds since the Unix epoch.
    unix_ms: f64,
}

impl Clock {
    fn of(said: &MetricsBatch, at_ns: u64) -> Self {
        let normalized = said.normalized_timestamp.as_ref().and_then(|at| unix_ms((at.seconds, at.nanos)));
        let sent_ms = match said.timestamp_ms {
            // It does not say: then its latest time is about that.
            0 => {
                let samples = said.time_series.iter().flat_map(|series| &series.samples);
                let starts = said.events.iter().map(|event| event.start_timestamp_ms);
                samples.map(|sample| sample.timestamp_ms).chain(starts).max().unwrap_or(0)
            }
            ms => ms,
        };
        Self { sent_ms, unix_ms: normalized.unwrap_or(at_ns as f64 / 1e6) }
    }

    /// The time of day of a time, in milliseconds since the Unix epoch.
    fn time(&self, normalized: Option<(i64, i32)>, ms: i64) -> f64 {
        let mapped = || self.unix_ms + ms.saturating_sub(self.sent_ms) as f64;
        normalized.and_then(unix_ms).unwrap_or_else(mapped)
    }
}

/// Of seconds and nanoseconds; `None` when they are not set.
fn unix_ms((seconds, nanos): (i64, i32)) -> Option<f64> {
    (seconds > 0).then(|| seconds as f64 * 1_000.0 + f64::from(nanos) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_protocol::MetricSample;
    use serde_json::{Value, json};

    /// The text of this place among the batch's own.
    const fn own(place: u32) -> u32 {
        OWN_TEXTS + place
    }

    fn sender() -> Sender {
        Sender {
            room_sid: "RM_a".into(),
            room: "demo".into(),
            participant_sid: "PA_a".into(),
            identity: "alice".into(),
            sdk: "python".into(),
            version: "1.1.2".into(),
            at_ns: 1_800_000_000_000_000_000,
        }
    }

    fn sample(timestamp_ms: i64, value: f32) -> MetricSample {
        MetricSample { timestamp_ms, value, normalized_timestamp: None }
    }

    fn series(label: u32, names: [u32; 3], samples: &[MetricSample]) -> TimeSeriesMetric {
        let [track_sid, rid, participant_identity] = names;
        TimeSeriesMetric { label, track_sid, rid, participant_identity, samples: samples.to_vec() }
    }

    fn read(said: &MetricsBatch) -> Batch {
        Batch::read(&said.encode_to_vec(), &sender()).unwrap()
    }

    fn objects(batch: &Batch) -> Vec<Value> {
        let objects = batch.reports.iter().flat_map(|report| &report.objects);
        objects.map(|object| serde_json::from_str(&object.json).unwrap()).collect()
    }

    #[test]
    fn a_batch_is_a_report_of_its_sender_with_an_object_for_each_series() {
        let mut normalized = sample(5, 3.0);
        let at = normalized.normalized_timestamp.insert(Default::default());
        (at.seconds, at.nanos) = (1_799_999_999, 250_000_000);
        let batch = read(&MetricsBatch {
            timestamp_ms: 10_000,
            str_data: ["TR_x", "q", "bob", "speech_probability"].map(String::from).to_vec(),
            time_series: vec![
                series(3, [own(0), own(1), own(2)], &[sample(9_500, 2.0), sample(9_000, 1.0)]),
                series(3, [own(0), own(1), own(2)], &[normalized]),
                series(own(3), [0, 0, 0], &[sample(10_000, 0.25)]),
                series(19, [0; 3], &[]),
            ],
            ..MetricsBatch::default()
        });
        assert_eq!((batch.reports.len(), batch.samples, batch.events), (1, 4, 0));
        let report = &batch.reports[0];
        assert_eq!((report.source, report.label.as_str()), (Source::LiveKitMetrics, "livekit-python"));
        let connection = report.connection.as_ref().unwrap();
        assert_eq!((connection.connection_id.as_str(), connection.client_id.as_str()), ("PA_a", "alice"));
        assert_eq!((connection.room_sid.as_str(), connection.channel_id.as_str()), ("RM_a", "demo"));
        assert_eq!(
            objects(&batch),
            [
                json!({
                    "id": "CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT/TR_x/q/bob", "type": METRIC, "timestamp": 1_799_999_999_500.0,
                    "label": "CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT", "trackSid": "TR_x", "rid": "q",
                    "participantIdentity": "bob", "value": 2.0,
                    "samples": [[1_799_999_999_000.0, 1.0], [1_799_999_999_250.0, 3.0], [1_799_999_999_500.0, 2.0]],
                }),
                json!({
                    "id": "speech_probability///", "type": METRIC, "timestamp": 1_800_000_000_000.0,
                    "label": "speech_probability", "value": 0.25, "samples": [[1_800_000_000_000.0, 0.25]],
                }),
            ]
        );
    }

    #[test]
    fn events_keep_their_times_and_their_metadata() {
        let event = |start_timestamp_ms, end_timestamp_ms, metadata: &str| EventMetric {
            label: own(0),
            start_timestamp_ms,
            end_timestamp_ms,
            metadata: metadata.to_owned(),
            ..EventMetric::default()
        };
        let batch = read(&MetricsBatch {
            str_data: vec!["turn/50%".to_owned()],
            events: vec![event(700, Some(1_000), "{}"), event(500, None, "")],
            ..MetricsBatch::default()
        });
        assert_eq!((batch.samples, batch.events), (0, 2));
        assert_eq!(
            objects(&batch),
            [json!({
                "id": "turn%2F50%25///", "type": EVENT, "timestamp": 1_800_000_000_000.0, "label": "turn/50%",
                "events": [{"startMs": 1_799_999_999_800.0}, {"startMs": 1_800_000_000_000.0, "endMs": 1_800_000_000_300.0, "metadata": "{}"}],
            })]
        );
    }

    #[test]
    fn no_sample_is_lost_when_there_are_very_many() {
        let samples: Vec<_> = (0..3_000).map(|ms| sample(ms, 1.0)).collect();
        let batch = read(&MetricsBatch {
            time_series: vec![series(0, [0; 3], &samples), series(1, [0; 3], &samples[..1])],
            ..MetricsBatch::default()
        });
        assert_eq!(batch.reports.len(), 12);
        let times: Vec<u64> = batch.reports.iter().map(|report| report.at_ns - sender().at_ns).collect();
        assert_eq!(times, (0..12).collect::<Vec<_>>());
        let stored: usize =
            objects(&batch).iter().map(|object| object["samples"].as_array().unwrap().len()).sum();
        assert_eq!(stored, 3_001);
        assert!(batch.reports.iter().all(|report| report.rejected.is_empty()));
    }

    #[test]
    fn what_cannot_be_kept_is_counted_and_costs_nothing_else() {
        let one = [sample(1, f32::NAN)];
        let batch = read(&MetricsBatch {
            str_data: vec![String::new(), "x".repeat(300), "fine".to_owned()],
            time_series: vec![
                series(own(9), [0; 3], &one),
                series(own(0), [0; 3], &one),
                series(0, [7, 0, 0], &one),
                series(0, [0, 0, own(1)], &one),
                series(4_000, [0; 3], &one),
                series(own(2), [0; 3], &one),
            ],
            ..MetricsBatch::default()
        });
        assert_eq!(
            batch.reports[0].rejected,
            BTreeMap::from([(Reason::NoType, 2), (Reason::NoId, 1), (Reason::TooLong, 1)])
        );
        let kept = objects(&batch);
        let labels: Vec<_> = kept.iter().map(|object| object["label"].as_str().unwrap()).collect();
        assert_eq!(labels, ["METRIC_LABEL_4000", "fine"]);
        assert_eq!(kept[0]["samples"][0][1], Value::Null, "what is no number");
        let many = (0..8_000).map(|_| series(0, [0; 3], &[])).collect();
        let empty = read(&MetricsBatch { time_series: many, ..MetricsBatch::default() });
        assert_eq!(empty, Batch::default(), "there is nothing to store");
        assert!(matches!(Batch::read(&[0xff], &sender()), Err(BadBatch::Form(_))));
        assert_eq!(Batch::read(&[0; 70_000], &sender()), Err(BadBatch::Length(70_000)));
    }

    #[test]
    fn times_that_cannot_be_are_still_numbers() {
        for ms in [i64::MIN, -1, i64::MAX] {
            let batch = read(&MetricsBatch {
                timestamp_ms: i64::MIN,
                time_series: vec![series(0, [0; 3], &[sample(ms, 1.0)])],
                ..MetricsBatch::default()
            });
            assert!(batch.reports[0].objects[0].stats_ms.is_finite(), "{ms}");
        }
    }
}
