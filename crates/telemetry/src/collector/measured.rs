//! What LiveKit's clients measured (`metrics_batch`), as it is told of a participant.

use super::query::StoredObject;
use crate::decode::livekit_metrics::{EVENT, METRIC};
use serde::{Deserialize, Serialize};

/// The latest of one series.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClientMetric {
    /// Number of the connection in the store of clients' reports.
    pub connection: u64,
    /// What it is, such as `CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT`.
    pub label: String,
    /// Of which participant it tells, an identity; left out when of none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub participant: String,
    /// Of which track; left out when of none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub track: String,
    /// Of which layer; left out when of none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rid: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The value; null of an event, and of what is no number.
    pub value: Option<f64>,
}

/// The members of an object that are told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    label: String,
    #[serde(default)]
    participant_identity: String,
    #[serde(default)]
    track_sid: String,
    #[serde(default)]
    rid: String,
    #[serde(default)]
    value: Option<f64>,
}

/// What the last objects of a connection say.
pub fn measured(connection: u64, latest: &[StoredObject]) -> Vec<ClientMetric> {
    let ours = latest.iter().filter(|object| [METRIC, EVENT].contains(&object.kind.as_str()));
    let metric = |object: &StoredObject| {
        let said: Said = serde_json::from_str(&object.json).ok()?;
        Some(ClientMetric {
            connection,
            label: said.label,
            participant: said.participant_identity,
            track: said.track_sid,
            rid: said.rid,
            // Saturates: it is a client's time.
            at_ms: object.stats_ms as u64,
            value: said.value,
        })
    };
    ours.filter_map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::livekit_metrics::{Batch, Sender};

    #[test]
    fn what_a_batch_says_is_told_again() {
        // Label 3 of the participant, track and layer of texts 0, 1 and 2, with the samples 2.5 and infinity; and an event.
        let texts =
            ["bob", "TR_x", "q"].map(|text| [&[0x1a, text.len() as u8], text.as_bytes()].concat()).concat();
        let series =
            [0x22, 24, 8, 3, 16, 0x80, 32, 24, 0x81, 32, 40, 0x82, 32, 0x22, 5, 0x1d, 0, 0, 0x20, 0x40];
        let endless = [0x22, 4, 8, 2, 0x22, 0];
        let batch = [&texts[..], &series[..1], &[18], &series[2..], &endless, &[0x2a, 2, 8, 1]].concat();
        let sender = Sender { at_ns: 5_000_000_000, ..Sender::default() };
        let stored: Vec<_> = Batch::read(&batch, &sender)
            .unwrap()
            .reports
            .into_iter()
            .flat_map(|report| {
                let at_ns = report.at_ns;
                report.objects.into_iter().map(move |object| StoredObject {
                    kind: object.kind.to_string(),
                    id: object.id.to_string(),
                    at_ns,
                    stats_ms: object.stats_ms,
                    json: object.json,
                })
            })
            .collect();
        let told = measured(7, &stored);
        let named = ClientMetric {
            connection: 7,
            label: "CLIENT_VIDEO_SUBSCRIBER_FREEZE_COUNT".to_owned(),
            participant: "bob".to_owned(),
            track: "TR_x".to_owned(),
            rid: "q".to_owned(),
            at_ms: 5_000,
            value: Some(2.5),
        };
        let plain = |label: &str, value| ClientMetric {
            connection: 7,
            label: label.to_owned(),
            at_ms: 5_000,
            value,
            ..ClientMetric::default()
        };
        assert_eq!(told, [plain("AGENTS_TTS_TTFB", Some(0.0)), named, plain("AGENTS_STT_TTFT", None)]);
        assert!(measured(7, &[StoredObject { json: "{}".to_owned(), ..stored[0].clone() }]).is_empty());
    }
}
