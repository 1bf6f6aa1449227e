//! What webrtc-internals computes from counters, under its names: `[bytesReceived_in_bits/s]` and the like.
//!
//! Each value is of the time between two objects of a series. A counter that falls was reset, as after a reconnect with the same
//! id: there is no rate over the reset, and none over a gap, so that nothing is drawn that nobody measured.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// One object of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The client's time, in milliseconds.
    pub stats_ms: f64,
    /// The object as it was stored.
    pub json: String,
}

/// Derived values at a time, by name.
pub type Derived = BTreeMap<String, f64>;

/// What is computed of one counter.
struct Rule {
    kind: &'static str,
    counter: &'static str,
    how: How,
}

enum How {
    /// By second.
    PerSecond,
    /// By second, bytes as bits.
    BitsPerSecond,
    /// By another counter.
    Per(&'static str),
    /// By another counter, seconds as milliseconds.
    MillisecondsPer(&'static str),
    /// The root of energy by duration.
    Rms(&'static str),
    /// Of three counters: sum, sum of squares, count.
    StandardDeviation { sum: &'static str, count: &'static str },
}

const fn rule(kind: &'static str, counter: &'static str, how: How) -> Rule {
    Rule { kind, counter, how }
}

use How::{BitsPerSecond, MillisecondsPer, Per, PerSecond, Rms, StandardDeviation};

const RULES: &[Rule] = &[
    rule("data-channel", "messagesSent", PerSecond),
    rule("data-channel", "messagesReceived", PerSecond),
    rule("data-channel", "bytesSent", BitsPerSecond),
    rule("data-channel", "bytesReceived", BitsPerSecond),
    rule("media-source", "totalAudioEnergy", Rms("totalSamplesDuration")),
    rule("outbound-rtp", "bytesSent", BitsPerSecond),
    rule("outbound-rtp", "headerBytesSent", BitsPerSecond),
    rule("outbound-rtp", "retransmittedBytesSent", BitsPerSecond),
    rule("outbound-rtp", "packetsSent", PerSecond),
    rule("outbound-rtp", "retransmittedPacketsSent", PerSecond),
    rule("outbound-rtp", "totalPacketSendDelay", MillisecondsPer("packetsSent")),
    rule("outbound-rtp", "framesEncoded", PerSecond),
    rule("outbound-rtp", "framesSent", PerSecond),
    rule("outbound-rtp", "totalEncodeTime", MillisecondsPer("framesEncoded")),
    rule("outbound-rtp", "qpSum", Per("framesEncoded")),
    rule("inbound-rtp", "bytesReceived", BitsPerSecond),
    rule("inbound-rtp", "headerBytesReceived", BitsPerSecond),
    rule("inbound-rtp", "retransmittedBytesReceived", BitsPerSecond),
    rule("inbound-rtp", "fecBytesReceived", BitsPerSecond),
    rule("inbound-rtp", "packetsReceived", PerSecond),
    rule("inbound-rtp", "retransmittedPacketsReceived", PerSecond),
    rule("inbound-rtp", "fecPacketsReceived", PerSecond),
    rule("inbound-rtp", "packetsDiscarded", PerSecond),
    rule("inbound-rtp", "framesReceived", PerSecond),
    rule("inbound-rtp", "framesDecoded", PerSecond),
    rule("inbound-rtp", "keyFramesDecoded", PerSecond),
    rule("inbound-rtp", "framesDropped", PerSecond),
    rule("inbound-rtp", "qpSum", Per("framesDecoded")),
    rule("inbound-rtp", "totalDecodeTime", MillisecondsPer("framesDecoded")),
    rule("inbound-rtp", "totalProcessingDelay", MillisecondsPer("framesDecoded")),
    rule("inbound-rtp", "totalInterFrameDelay", MillisecondsPer("framesDecoded")),
    rule(
        "inbound-rtp",
        "totalSquaredInterFrameDelay",
        StandardDeviation { sum: "totalInterFrameDelay", count: "framesDecoded" },
    ),
    rule("inbound-rtp", "totalAssemblyTime", MillisecondsPer("framesAssembledFromMultiplePackets")),
    rule("inbound-rtp", "jitterBufferDelay", MillisecondsPer("jitterBufferEmittedCount")),
    rule("inbound-rtp", "jitterBufferTargetDelay", MillisecondsPer("jitterBufferEmittedCount")),
    rule("inbound-rtp", "jitterBufferMinimumDelay", MillisecondsPer("jitterBufferEmittedCount")),
    rule("inbound-rtp", "totalSamplesReceived", PerSecond),
    rule("inbound-rtp", "concealedSamples", PerSecond),
    rule("inbound-rtp", "concealedSamples", Per("totalSamplesReceived")),
    rule("inbound-rtp", "silentConcealedSamples", PerSecond),
    rule("inbound-rtp", "insertedSamplesForDeceleration", PerSecond),
    rule("inbound-rtp", "removedSamplesForAcceleration", PerSecond),
    rule("inbound-rtp", "totalAudioEnergy", Rms("totalSamplesDuration")),
    rule("inbound-rtp", "totalCorruptionProbability", Per("corruptionMeasurements")),
    rule("remote-inbound-rtp", "packetsReceived", PerSecond),
    rule("remote-inbound-rtp", "totalRoundTripTime", MillisecondsPer("roundTripTimeMeasurements")),
    rule("remote-outbound-rtp", "packetsSent", PerSecond),
    rule("remote-outbound-rtp", "bytesSent", BitsPerSecond),
    rule("remote-outbound-rtp", "totalRoundTripTime", MillisecondsPer("roundTripTimeMeasurements")),
    rule("media-playout", "totalSamplesCount", PerSecond),
    rule("media-playout", "totalPlayoutDelay", MillisecondsPer("totalSamplesCount")),
    rule("media-playout", "synthesizedSamplesDuration", Per("totalSamplesDuration")),
    rule("transport", "bytesSent", BitsPerSecond),
    rule("transport", "bytesReceived", BitsPerSecond),
    rule("transport", "packetsSent", PerSecond),
    rule("transport", "packetsReceived", PerSecond),
    rule("candidate-pair", "bytesSent", BitsPerSecond),
    rule("candidate-pair", "bytesReceived", BitsPerSecond),
    rule("candidate-pair", "packetsSent", PerSecond),
    rule("candidate-pair", "packetsReceived", PerSecond),
    rule("candidate-pair", "requestsSent", PerSecond),
    rule("candidate-pair", "requestsReceived", PerSecond),
    rule("candidate-pair", "responsesSent", PerSecond),
    rule("candidate-pair", "responsesReceived", PerSecond),
    rule("candidate-pair", "consentRequestsSent", PerSecond),
    rule("candidate-pair", "totalRoundTripTime", MillisecondsPer("responsesReceived")),
];

/// What can be derived of the objects of one series, in their order: for each the values since the one before it, the first
/// none. An unchanged object is not stored, so a counter's time is that of the object before, which may be long ago.
pub fn derived(kind: &str, points: &[Point]) -> Vec<Derived> {
    let mut before: Option<(f64, Map<String, Value>)> = None;
    let mut all = Vec::with_capacity(points.len());
    for point in points {
        let object = match serde_json::from_str(&point.json) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        };
        let values = before.as_ref().map_or_else(Derived::new, |(stats_ms, earlier)| {
            between(kind, (point.stats_ms - stats_ms) / 1_000.0, earlier, &object)
        });
        all.push(values);
        before = Some((point.stats_ms, object));
    }
    all
}

fn between(kind: &str, seconds: f64, earlier: &Map<String, Value>, later: &Map<String, Value>) -> Derived {
    let mut values = Derived::new();
    if seconds.is_nan() || seconds <= 0.0 {
        return values;
    }
    let grown = |counter: &str| {
        let number = |object: &Map<String, Value>| object.get(counter)?.as_f64();
        let grown = number(later)? - number(earlier)?;
        (grown >= 0.0).then_some(grown)
    };
    for rule in RULES.iter().filter(|rule| rule.kind == kind) {
        let Some(growth) = grown(rule.counter) else { continue };
        let counter = rule.counter;
        let per = |other: &str| grown(other).filter(|samples| *samples > 0.0).map(|samples| growth / samples);
        let (name, value) = match rule.how {
            PerSecond => (format!("[{counter}/s]"), Some(growth / seconds)),
            BitsPerSecond => (format!("[{counter}_in_bits/s]"), Some(growth * 8.0 / seconds)),
            Per(other) => (format!("[{counter}/{other}]"), per(other)),
            MillisecondsPer(other) => {
                (format!("[{counter}/{other}_in_ms]"), per(other).map(|seconds| seconds * 1_000.0))
            }
            Rms(other) => ("[Audio_Level_in_RMS]".to_owned(), per(other).map(f64::sqrt)),
            StandardDeviation { sum, count } => {
                ("[interFrameDelayStDev_in_ms]".to_owned(), deviation(growth, grown(sum), grown(count)))
            }
        };
        if let Some(value) = value {
            values.insert(name, value);
        }
    }
    values
}

/// Of values of which the sum of squares, the sum and the count are known; in milliseconds of seconds.
fn deviation(squares: f64, sum: Option<f64>, count: Option<f64>) -> Option<f64> {
    let (sum, count) = (sum?, count.filter(|count| *count > 0.0)?);
    let variance = (squares - sum * sum / count) / count;
    // A little below zero is rounding.
    Some(variance.max(0.0).sqrt() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(objects: &[(f64, &str)]) -> Vec<Point> {
        objects
            .iter()
            .map(|(stats_ms, json)| Point { stats_ms: *stats_ms, json: (*json).to_owned() })
            .collect()
    }

    #[test]
    fn rates_have_the_names_and_values_of_webrtc_internals() {
        let objects = points(&[
            (
                1_000.0,
                r#"{"bytesReceived":1000,"packetsReceived":10,"framesDecoded":5,"totalDecodeTime":0.1,"jitterBufferDelay":1,"jitterBufferEmittedCount":10,"concealedSamples":0,"totalSamplesReceived":0,"totalInterFrameDelay":0,"totalSquaredInterFrameDelay":0}"#,
            ),
            (
                3_000.0,
                r#"{"bytesReceived":3000,"packetsReceived":30,"framesDecoded":9,"totalDecodeTime":0.3,"jitterBufferDelay":2,"jitterBufferEmittedCount":30,"concealedSamples":5,"totalSamplesReceived":100,"totalInterFrameDelay":0.4,"totalSquaredInterFrameDelay":0.08}"#,
            ),
        ]);
        let values = derived("inbound-rtp", &objects);
        assert!(values[0].is_empty());
        for (name, wanted) in [
            ("[bytesReceived_in_bits/s]", 8_000.0),
            ("[packetsReceived/s]", 10.0),
            ("[framesDecoded/s]", 2.0),
            ("[totalDecodeTime/framesDecoded_in_ms]", 50.0),
            ("[jitterBufferDelay/jitterBufferEmittedCount_in_ms]", 50.0),
            ("[concealedSamples/totalSamplesReceived]", 0.05),
            ("[concealedSamples/s]", 2.5),
            ("[interFrameDelayStDev_in_ms]", 100.0),
        ] {
            let value = values[1][name];
            assert!((value - wanted).abs() < 1e-6, "{name}: {value}");
        }
        let audio = points(&[
            (0.0, r#"{"totalAudioEnergy":0,"totalSamplesDuration":0}"#),
            (1_000.0, r#"{"totalAudioEnergy":0.25,"totalSamplesDuration":1}"#),
        ]);
        assert_eq!(derived("media-source", &audio)[1]["[Audio_Level_in_RMS]"], 0.5);
    }

    #[test]
    fn a_counter_that_was_reset_has_no_rate_and_the_others_have() {
        let objects = points(&[
            (0.0, r#"{"bytesSent":1000,"packetsSent":10}"#),
            (1_000.0, r#"{"bytesSent":10,"packetsSent":20}"#),
            (2_000.0, r#"{"bytesSent":20}"#),
            (2_000.0, r#"{"bytesSent":30}"#),
            (1_000.0, r#"{"bytesSent":40}"#),
            (3_000.0, "no object"),
            (4_000.0, r#"{"bytesSent":"many"}"#),
        ]);
        let names: Vec<Vec<String>> = derived("transport", &objects)
            .into_iter()
            .map(|values| {
                assert!(values.values().all(|value| *value >= 0.0));
                values.into_keys().collect()
            })
            .collect();
        let bits = "[bytesSent_in_bits/s]";
        assert_eq!(names, [vec![], vec!["[packetsSent/s]"], vec![bits], vec![], vec![], vec![], vec![]]);
    }

    #[test]
    fn a_ratio_without_samples_is_no_value() {
        let objects = points(&[
            (0.0, r#"{"qpSum":5,"framesEncoded":7}"#),
            (1_000.0, r#"{"qpSum":5,"framesEncoded":7}"#),
        ]);
        let values = derived("outbound-rtp", &objects);
        assert!(!values[1].contains_key("[qpSum/framesEncoded]"));
        assert_eq!(values[1]["[framesEncoded/s]"], 0.0);
        assert!(derived("vendor-thing", &objects)[1].is_empty());
    }
}
