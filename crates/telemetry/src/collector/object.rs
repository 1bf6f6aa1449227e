//! One `RTCStats` object: its text as it came, and the three members that are ours to read.

use super::canonical;
use super::limits::{ID_BYTES_MAX, KIND_BYTES_MAX, OBJECT_BYTES_MAX};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// What a client says of one thing at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatsObject {
    /// Its `id`.
    pub id: SmolStr,
    /// Its `type`.
    pub kind: SmolStr,
    /// Its `timestamp`: the client's clock, in milliseconds, usually since the Unix epoch.
    #[serde(with = "exact")]
    pub stats_ms: f64,
    /// All of it, as it came.
    pub json: String,
    /// Of its values without `timestamp`; equal for equal values, however they are written.
    pub hash: u64,
}

/// Why an object was not taken.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Something else stands in its place.
    #[error("not an object")]
    NotAnObject,
    /// `id` is missing, empty or no text.
    #[error("no id")]
    NoId,
    /// `type` is missing, empty or no text.
    #[error("no type")]
    NoType,
    /// `timestamp` is missing or no number.
    #[error("no timestamp")]
    NoTimestamp,
    /// It, its id or its type has too many bytes.
    #[error("too long")]
    TooLong,
    /// It has too many objects and arrays within each other.
    #[error("too deep")]
    TooDeep,
    /// The report has too many objects.
    #[error("too many objects in a report")]
    TooMany,
}

impl Reason {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::NotAnObject,
        Self::NoId,
        Self::NoType,
        Self::NoTimestamp,
        Self::TooLong,
        Self::TooDeep,
        Self::TooMany,
    ];

    /// In metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAnObject => "not-an-object",
            Self::NoId => "no-id",
            Self::NoType => "no-type",
            Self::NoTimestamp => "no-timestamp",
            Self::TooLong => "too-long",
            Self::TooDeep => "too-deep",
            Self::TooMany => "too-many",
        }
    }
}

impl StatsObject {
    /// Reads an object as browsers make them.
    pub fn parse(json: &str) -> Result<Self, Reason> {
        let found = scan(json)?;
        let id = text(found.id, ID_BYTES_MAX, Reason::NoId)?;
        let kind = text(found.kind, KIND_BYTES_MAX, Reason::NoType)?;
        let stats_ms: f64 =
            found.timestamp.and_then(|number| number.parse().ok()).ok_or(Reason::NoTimestamp)?;
        if !stats_ms.is_finite() {
            return Err(Reason::NoTimestamp);
        }
        Ok(Self { id, kind, stats_ms, json: json.to_owned(), hash: found.hash })
    }

    /// Reads an object that a node says of itself: it has a type only, and is of the report's time.
    pub fn parse_of_node(json: &str, at_ms: f64) -> Result<Self, Reason> {
        let found = scan(json)?;
        let kind = text(found.kind, KIND_BYTES_MAX, Reason::NoType)?;
        let id = text(found.id, ID_BYTES_MAX, Reason::NoId).unwrap_or_else(|_| kind.clone());
        Ok(Self { id, kind, stats_ms: at_ms, json: json.to_owned(), hash: found.hash })
    }
}

/// A number as its bits, so that it is read back as it was.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(number.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

fn scan(json: &str) -> Result<canonical::Found<'_>, Reason> {
    if json.len() > OBJECT_BYTES_MAX {
        return Err(Reason::TooLong);
    }
    canonical::scan(json)
}

fn text(raw: Option<&str>, bytes_max: usize, missing: Reason) -> Result<SmolStr, Reason> {
    let text: std::borrow::Cow<'_, str> =
        raw.and_then(|raw| canonical::unescaped(raw).ok()).ok_or(missing)?;
    match text.len() {
        0 => Err(missing),
        bytes if bytes > bytes_max => Err(Reason::TooLong),
        _ => Ok(SmolStr::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_keeps_its_text() {
        let json = r#" {"type":"candidate-pair","id":"CP\u0041","timestamp":1.5e12,"priority":179616219446525440, "x":[0.5]} "#;
        let object = StatsObject::parse(json).unwrap();
        assert_eq!((object.id.as_str(), object.kind.as_str()), ("CPA", "candidate-pair"));
        assert_eq!((object.stats_ms, object.json.as_str()), (1.5e12, json));
    }

    #[test]
    fn what_is_no_stats_object_says_why() {
        let long = format!(r#"{{"id":"a","type":"b","timestamp":1,"x":"{}"}}"#, "x".repeat(OBJECT_BYTES_MAX));
        let long_id = format!(r#"{{"id":"{}","type":"b","timestamp":1}}"#, "x".repeat(ID_BYTES_MAX + 1));
        let deep =
            format!(r#"{{"id":"a","type":"b","timestamp":1,"x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        for (json, reason) in [
            ("1", Reason::NotAnObject),
            ("null", Reason::NotAnObject),
            ("[]", Reason::NotAnObject),
            (r#""text""#, Reason::NotAnObject),
            ("", Reason::NotAnObject),
            ("{", Reason::NotAnObject),
            (r#"{"id":"a""#, Reason::NotAnObject),
            ("{}", Reason::NoId),
            (r#"{"id":"","type":"b","timestamp":1}"#, Reason::NoId),
            (r#"{"id":7,"type":"b","timestamp":1}"#, Reason::NoId),
            (r#"{"id":"a","timestamp":1}"#, Reason::NoType),
            (r#"{"id":"a","type":null,"timestamp":1}"#, Reason::NoType),
            (r#"{"id":"a","type":"b"}"#, Reason::NoTimestamp),
            (r#"{"id":"a","type":"b","timestamp":"1"}"#, Reason::NoTimestamp),
            (r#"{"id":"a","type":"b","timestamp":1e999}"#, Reason::NoTimestamp),
            (&long, Reason::TooLong),
            (&long_id, Reason::TooLong),
            (&deep, Reason::TooDeep),
        ] {
            assert_eq!(StatsObject::parse(json), Err(reason), "{json:.80}");
        }
        assert_eq!(Reason::ALL.map(|reason| reason.name().len() > 3), [true; 7]);
    }

    #[test]
    fn a_node_says_a_type_only() {
        let object =
            StatsObject::parse_of_node(r#"{"type":"erlang-vm-memory","total":18446744073709551615}"#, 5.0);
        let object = object.unwrap();
        assert_eq!(
            (object.id.as_str(), object.kind.as_str(), object.stats_ms),
            ("erlang-vm-memory", "erlang-vm-memory", 5.0)
        );
        assert_eq!(StatsObject::parse_of_node("{}", 5.0), Err(Reason::NoType));
    }
}
