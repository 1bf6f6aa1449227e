//! Times as people write them, always in UTC.

use jiff::Timestamp;

/// A time as `2026-11-21T02:21:23.618Z`.
pub fn utc(unix_ms: u64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A day as `2026-11-21`.
pub(crate) fn date(unix_ms: u64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%d").to_string()
}

/// Milliseconds since the Unix epoch of such a time, or of a day's beginning; `None` for another text and for times before
/// 1970.
pub fn from_utc(text: &str) -> Option<u64> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    let timestamp: Timestamp = whole.parse().ok()?;
    timestamp.as_millisecond().try_into().ok()
}

/// A time that the calendar does not reach is its end.
fn timestamp(unix_ms: u64) -> Timestamp {
    i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["2026-11-21T02:21:23.618Z", "1970-01-01T00:00:00.000Z", "2028-02-29T23:59:59.999Z"] {
            assert_eq!(utc(from_utc(text).unwrap()), text);
        }
        assert_eq!(utc(from_utc("2026-11-21").unwrap()), "2026-11-21T00:00:00.000Z");
        assert_eq!(date(951_782_400_000), "2000-02-29");
        assert_eq!(date(u64::MAX), "9999-12-30");
        assert_eq!(from_utc("yesterday"), None);
        assert_eq!(from_utc("1969-12-31T23:59:59.000Z"), None);
    }
}
