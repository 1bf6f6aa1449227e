//! What `fanlight-stats.js` sends: one or several reports of a page, with the token or the key that lets them in.

use crate::collector::limits::{ID_BYTES_MAX, OBJECTS_MAX};
use crate::collector::{ClientReport, ConnectionEnvelope, Reason, Source, StatsObject};
use fanlight_base::Redacted;
use serde::Deserialize;
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Bytes of a body: what browsers send while a page closes is not more (Fetch, keepalive requests).
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Reports in a body; the smallest ones have some 100 bytes.
pub const REPORTS_MAX: usize = 512;
/// Bytes of an id, a room or a user.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// Parts of one report: as many as there are nanoseconds in its millisecond.
const PARTS_MAX: u64 = 1_000_000;
/// In `label`.
const LIBRARY: &str = "fanlight-stats";

/// A body, taken apart.
#[derive(Debug)]
pub struct Beacon<'a> {
    /// LiveKit's access token; empty when it stands elsewhere, or there is a key.
    pub token: Redacted<String>,
    /// A collector key; empty when there is a token.
    pub key: Redacted<String>,
    /// Room and user as the page says them; they count only with a key, which says nothing of either.
    pub claimed: Claimed,
    body: Body<'a>,
}

/// Whose reports these are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Name of the room.
    pub room: SmolStr,
    /// Identity of the user.
    pub user: SmolStr,
}

/// Where a body came from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sender<'a> {
    /// Header `Origin`.
    pub origin: &'a str,
    /// Header `User-Agent`.
    pub user_agent: &'a str,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// A body that cannot be taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBeacon {
    /// Not JSON, or not of this form.
    #[error("the body is not what fanlight-stats.js sends: {0}")]
    Form(String),
    /// A text is missing or too long.
    #[error("{place} has {bytes} bytes; it needs 1 to {most}")]
    Length {
        /// Which.
        place: String,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// Too many reports.
    #[error("{0} reports in one body; at most {REPORTS_MAX}")]
    Reports(usize),
    /// A time that no database can hold, or a part of it.
    #[error("reports[{0}]: at is no time in milliseconds, or part is over {PARTS_MAX}")]
    Time(usize),
}

#[derive(Debug, Deserialize)]
struct Body<'a> {
    #[serde(default, borrow)]
    token: Cow<'a, str>,
    #[serde(default, borrow)]
    key: Cow<'a, str>,
    #[serde(default)]
    room: SmolStr,
    #[serde(default)]
    user: SmolStr,
    page: SmolStr,
    #[serde(default)]
    version: SmolStr,
    /// The page's clock when it sent this.
    #[serde(default)]
    now: Option<u64>,
    #[serde(borrow)]
    reports: Vec<Said<'a>>,
}

#[derive(Debug, Deserialize)]
struct Said<'a> {
    connection: SmolStr,
    at: u64,
    #[serde(default)]
    part: u64,
    #[serde(default)]
    participant: SmolStr,
    #[serde(borrow)]
    stats: Vec<&'a RawValue>,
}

impl<'a> Beacon<'a> {
    /// Reads a body.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadBeacon> {
        let mut body: Body<'a> =
            serde_json::from_slice(body).map_err(|error| BadBeacon::Form(error.to_string()))?;
        if body.reports.len() > REPORTS_MAX {
            return Err(BadBeacon::Reports(body.reports.len()));
        }
        let length = |place: &dyn Fn() -> String, text: &str, least: usize, most: usize| match text.len() {
            bytes if bytes < least || bytes > most => Err(BadBeacon::Length { place: place(), bytes, most }),
            _ => Ok(()),
        };
        length(&|| "page".to_owned(), &body.page, 1, ID_BYTES_MAX)?;
        length(&|| "version".to_owned(), &body.version, 0, NAME_BYTES_MAX)?;
        length(&|| "room".to_owned(), &body.room, 0, NAME_BYTES_MAX)?;
        length(&|| "user".to_owned(), &body.user, 0, NAME_BYTES_MAX)?;
        for (place, said) in body.reports.iter().enumerate() {
            length(&|| format!("reports[{place}].connection"), &said.connection, 1, ID_BYTES_MAX)?;
            length(&|| format!("reports[{place}].participant"), &said.participant, 0, NAME_BYTES_MAX)?;
            said.at_ns().ok_or(BadBeacon::Time(place))?;
        }
        let claimed = Claimed { room: body.room.clone(), user: body.user.clone() };
        let secret = |text: &mut Cow<'_, str>| Redacted::new(std::mem::take(text).into_owned());
        let (token, key) = (secret(&mut body.token), secret(&mut body.key));
        Ok(Self { token, key, claimed, body })
    }

    /// The reports, of the person that has been let in. [`Source::Browser`] is for those whose room and identity are proven.
    pub fn into_reports(self, source: Source, whose: &Claimed, sender: Sender<'_>) -> Vec<ClientReport> {
        let body = self.body;
        let extra = extra(body.now, sender);
        let report = |said: Said<'a>| {
            let mut report = ClientReport {
                source,
                at_ns: said.at_ns().unwrap_or(0),
                connection: Some(ConnectionEnvelope {
                    connection_id: said.connection,
                    session_id: body.page.clone(),
                    channel_id: whose.room.clone(),
                    client_id: whose.user.clone(),
                    participant_sid: said.participant,
                    ..ConnectionEnvelope::default()
                }),
                label: SmolStr::new_static(LIBRARY),
                version: body.version.clone(),
                node_name: SmolStr::default(),
                extra: extra.clone(),
                objects: Vec::new(),
                rejected: BTreeMap::new(),
            };
            for object in said.stats.iter().take(OBJECTS_MAX) {
                report.take(StatsObject::parse(object.get()));
            }
            let beyond = said.stats.len().saturating_sub(OBJECTS_MAX);
            if beyond > 0 {
                report.reject(Reason::TooMany, beyond as u64);
            }
            report
        };
        body.reports.into_iter().map(report).collect()
    }
}

impl Said<'_> {
    /// Parts of one report differ, so that each is stored.
    fn at_ns(&self) -> Option<u64> {
        let at_ns = self.at.checked_mul(1_000_000)?.checked_add(self.part)?;
        (self.part < PARTS_MAX && i64::try_from(at_ns).is_ok()).then_some(at_ns)
    }
}

/// What the reports do not say themselves. `clock_ms` is how much the server's clock was ahead of the page's.
fn extra(page_ms: Option<u64>, sender: Sender<'_>) -> String {
    let mut extra = facts(sender);
    if let Some(page_ms) = page_ms {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        extra.insert(CLOCK.to_owned(), signed(sender.now_ms).saturating_sub(signed(page_ms)).into());
    }
    serde_json::Value::Object(extra).to_string()
}

/// What its request says of a page.
pub(super) fn facts(sender: Sender<'_>) -> serde_json::Map<String, serde_json::Value> {
    let cut = |text: &str| text.chars().take(NAME_BYTES_MAX).collect::<String>();
    let said = [("origin", sender.origin), ("user_agent", sender.user_agent)];
    let said = said.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(name, text)| (name.to_owned(), cut(text).into())).collect()
}

/// See [`clock_ms`].
pub(super) const CLOCK: &str = "clock_ms";

/// How much the server's clock was ahead of the page's, in milliseconds: of a stored report's `extra`.
pub fn clock_ms(extra: &str) -> Option<i64> {
    let extra: serde_json::Value = serde_json::from_str(extra).ok()?;
    extra.get(CLOCK)?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"token":"t","page":"p1","version":"0.1","now":5000,"room":"claimed","user":"claimed","reports":[
        {"connection":"c1","at":4000,"participant":"PA_x","stats":[{"id":"a","type":"codec","timestamp":1},{"id":1}]},
        {"connection":"c1","at":4000,"part":1,"stats":[]}]}"#;

    #[test]
    fn a_body_becomes_reports_of_whoever_was_let_in() {
        let beacon = Beacon::parse(BODY.as_bytes()).unwrap();
        assert_eq!(
            (beacon.token.reveal().as_str(), beacon.key.reveal().as_str(), beacon.claimed.room.as_str()),
            ("t", "", "claimed")
        );
        let whose = Claimed { room: "demo".into(), user: "alice".into() };
        let sender = Sender { origin: "https://a.example", user_agent: "UA", now_ms: 5_250 };
        let reports = beacon.into_reports(Source::Browser, &whose, sender);
        assert_eq!(
            reports.iter().map(|report| report.at_ns).collect::<Vec<_>>(),
            [4_000_000_000, 4_000_000_001]
        );
        let first = &reports[0];
        let connection = first.connection.as_ref().unwrap();
        assert_eq!((connection.channel_id.as_str(), connection.client_id.as_str()), ("demo", "alice"));
        assert_eq!((connection.session_id.as_str(), connection.participant_sid.as_str()), ("p1", "PA_x"));
        assert_eq!((first.objects.len(), first.rejected_objects()), (1, 1));
        assert_eq!(first.extra, r#"{"clock_ms":250,"origin":"https://a.example","user_agent":"UA"}"#);
        assert_eq!((clock_ms(&first.extra), clock_ms("{}"), clock_ms("")), (Some(250), None, None));
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said() {
        let long = "x".repeat(300);
        let many = format!(
            r#"{{"page":"p","reports":[{}]}}"#,
            vec![r#"{"connection":"c","at":1,"stats":[]}"#; REPORTS_MAX + 1].join(",")
        );
        for (body, words) in [
            ("", "not what fanlight-stats.js sends"),
            (r#"{"reports":[]}"#, "missing field `page`"),
            (r#"{"page":"p"}"#, "missing field `reports`"),
            (r#"{"page":"","reports":[]}"#, "page has 0 bytes"),
            (
                r#"{"page":"p","reports":[{"connection":"","at":1,"stats":[]}]}"#,
                "reports[0].connection has 0 bytes",
            ),
            (r#"{"page":"p","reports":[{"connection":"c","at":-1,"stats":[]}]}"#, "invalid value"),
            (
                r#"{"page":"p","reports":[{"connection":"c","at":18446744073709551615,"stats":[]}]}"#,
                "reports[0]: at",
            ),
            (
                r#"{"page":"p","reports":[{"connection":"c","at":1,"part":1000000,"stats":[]}]}"#,
                "part is over",
            ),
            (r#"{"page":"p","reports":[{"connection":"c","at":1,"stats":null}]}"#, "invalid type"),
            (&format!(r#"{{"page":"p","room":"{long}","reports":[]}}"#), "room has 300 bytes"),
            (&many, "513 reports"),
        ] {
            let error = Beacon::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{body:.80}: {error}");
        }
        assert!(Beacon::parse(br#"{"page":"p\u0041","token":"\u0041","reports":[],"more":1}"#).is_ok());
    }
}
