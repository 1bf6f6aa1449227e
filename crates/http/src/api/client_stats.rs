//! `POST /api/v1/client-stats`: what pages say of their connections, by `fanlight-stats.js` (docs/clients.md).
//!
//! Who sends has an access token that lets into a room, or a collector key, which is bound to origins. A token proves room and
//! identity; a key, which stands in a page for everybody to read, proves nothing.

mod counts;

pub use counts::ClientStatsCounts;

use super::{refuse, rtcstats};
use crate::api::rtcstats::RtcStatsSnapshot;
use crate::app::App;
use crate::backend::{NotStored, ReportSink};
use crate::body::{BodyError, Unread};
use fanlight_base::{Mono, Redacted};
use fanlight_livekit::http_rules::{Answer, HttpRequest};
use fanlight_livekit::token::{Token, verify_late};
use fanlight_telemetry::collector::Source;
use fanlight_telemetry::decode::browser::{BODY_BYTES_MAX, Beacon, Claimed, Sender};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Where it is.
pub(crate) const PATH: &str = "/api/v1/client-stats";
/// A call may outlast its token, which its page has no way to renew: a day.
const EXPIRED_S: u64 = 86_400;
/// Requests of one person, per second, and at once after a pause: a report a second, and what waited while offline.
const PERSON: Pace = Pace { per_s: 2, burst: 60 };
/// Requests with one key: pages of all its visitors.
const KEY: Pace = Pace { per_s: 1_000, burst: 5_000 };
/// People whose pace is remembered, at about 150 bytes each.
const PACES_MAX: usize = 65_536;
const RETRY_AFTER_S: &str = "5";

/// A key that lets pages of some origins report.
#[derive(Debug, Clone)]
pub struct CollectorKey {
    /// The key.
    pub key: Redacted<String>,
    /// Origins as browsers write them, such as `https://example.org`; `*` is any.
    pub origins: Vec<String>,
}

/// Takes what pages say.
#[derive(Debug)]
pub struct ClientStats {
    pub(super) reports: ReportSink,
    keys: Vec<CollectorKey>,
    paces: Mutex<BTreeMap<Who, Bucket>>,
    meter: counts::Meter,
    pub(super) rtcstats: rtcstats::Sockets,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    per_s: u64,
    burst: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Person {
        room: String,
        identity: String,
    },
    /// Place among the keys.
    Key(usize),
}

/// What is left to a sender, in billionths of a request.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u64,
    at: Mono,
}

impl ClientStats {
    /// Reports go to this sink.
    pub fn new(reports: ReportSink, keys: Vec<CollectorKey>) -> Self {
        Self {
            reports,
            keys,
            paces: Mutex::default(),
            meter: counts::Meter::default(),
            rtcstats: rtcstats::Sockets::default(),
        }
    }

    /// What has been counted of requests.
    pub fn counts(&self) -> ClientStatsCounts {
        self.meter.snapshot()
    }

    /// What the WebSockets of rtcstats have counted.
    pub fn rtcstats(&self) -> RtcStatsSnapshot {
        self.rtcstats.snapshot()
    }

    /// Takes one request from what a sender may do.
    fn may(&self, now: Mono, who: Who) -> bool {
        let pace = match who {
            Who::Person { .. } => PERSON,
            Who::Key(_) => KEY,
        };
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= PACES_MAX && !paces.contains_key(&who) {
            // Who was silent for so long may do all again.
            paces.retain(|_, bucket| now.since(bucket.at).as_secs() < PERSON.burst / PERSON.per_s);
            if paces.len() >= PACES_MAX {
                return false;
            }
        }
        let bucket = paces.entry(who).or_insert(Bucket { left: pace.burst * ONE, at: now });
        let since_ns = u64::try_from(now.since(bucket.at).as_nanos()).unwrap_or(u64::MAX);
        bucket.left = bucket.left.saturating_add(since_ns.saturating_mul(pace.per_s)).min(pace.burst * ONE);
        bucket.at = now;
        let may = bucket.left >= ONE;
        bucket.left = bucket.left.saturating_sub(if may { ONE } else { 0 });
        may
    }
}

/// A request, in the unit of [`Bucket::left`].
const ONE: u64 = 1_000_000_000;

/// Answers a request; `token` is that of its header, found good.
pub(crate) async fn answer(app: &App, http: &HttpRequest<'_>, token: Option<&Token>, body: Unread) -> Answer {
    let mut bytes = 0;
    let answer = match take(app, http, token, body, &mut bytes).await {
        Ok(()) => Answer::empty(204),
        Err(refusal) => refusal,
    };
    if let Some(door) = &app.client_stats {
        door.meter.answered(answer.status, bytes);
    }
    answer.with("Cache-Control", "no-store")
}

async fn take(
    app: &App,
    http: &HttpRequest<'_>,
    token: Option<&Token>,
    body: Unread,
    bytes: &mut usize,
) -> Result<(), Answer> {
    if http.method != "POST" {
        return Err(refuse(405, "bad_route", "POST it").with("Allow", "POST, OPTIONS"));
    }
    let Some(door) = &app.client_stats else {
        let text = "this server keeps no reports of clients: set fanlight.collector.enabled";
        return Err(refuse(404, "bad_route", text));
    };
    check_type(http)?;
    // Whose token it is that the header has is known before the body.
    let named = token.map(by_token).transpose()?;
    let body = body.read(BODY_BYTES_MAX).await.map_err(|error| unread(&error))?;
    *bytes = body.bytes.len();
    let beacon =
        Beacon::parse(&body.bytes).map_err(|error| refuse(400, "invalid_argument", &error.to_string()))?;
    let now = (app.now)();
    let (source, whose, who) = match named {
        Some(named) => named,
        None if !beacon.token.reveal().is_empty() => by_token(&late_token(app, beacon.token.reveal())?)?,
        None => (Source::BrowserByKey, beacon.claimed.clone(), by_key(door, http, beacon.key.reveal())?),
    };
    if !door.may(now.mono(), who) {
        let text = "too many requests: send several reports in one";
        return Err(refuse(429, "resource_exhausted", text).with("Retry-After", RETRY_AFTER_S));
    }
    let sender = Sender {
        origin: http.header("origin").unwrap_or_default(),
        user_agent: http.header("user-agent").unwrap_or_default(),
        now_ms: now.unix_ms(),
    };
    let reports = beacon.into_reports(source, &whose, sender);
    let counts = ClientStatsCounts::of(&reports);
    door.reports.store_all(reports).await.map_err(|error| match error {
        NotStored::Unfit(text) => refuse(400, "invalid_argument", &text),
        NotStored::Busy | NotStored::Full(_) | NotStored::Gone => {
            refuse(503, "unavailable", &error.to_string()).with("Retry-After", RETRY_AFTER_S)
        }
    })?;
    door.meter.stored(&counts);
    Ok(())
}

fn by_token(token: &Token) -> Result<(Source, Claimed, Who), Denied> {
    let (whose, who) = person(token)?;
    Ok((Source::Browser, whose, who))
}

/// A page that closes can send plain text only.
fn check_type(http: &HttpRequest<'_>) -> Result<(), Answer> {
    let kind = http.header("content-type").unwrap_or("text/plain");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !["application/json", "text/plain"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        let text = format!("the body is {kind:?}; send application/json or text/plain");
        return Err(refuse(415, "invalid_argument", &text));
    }
    Ok(())
}

fn unread(error: &BodyError) -> Answer {
    let answer = |code| refuse(error.status(), code, &error.to_string());
    match error {
        BodyError::Busy => answer("unavailable").with("Retry-After", RETRY_AFTER_S),
        BodyError::TooLong(_) | BodyError::Broken => answer("invalid_argument"),
        BodyError::Late => answer("deadline_exceeded"),
    }
}

/// Who sends may not, and why.
pub(super) struct Denied {
    status: u16,
    code: &'static str,
    pub(super) text: String,
}

impl Denied {
    fn unknown(text: impl Into<String>) -> Self {
        Self { status: 401, code: "unauthenticated", text: text.into() }
    }

    fn forbidden(text: impl Into<String>) -> Self {
        Self { status: 403, code: "permission_denied", text: text.into() }
    }
}

impl From<Denied> for Answer {
    fn from(denied: Denied) -> Self {
        refuse(denied.status, denied.code, &denied.text)
    }
}

/// A token as a page has it, which may be as old as its call.
pub(super) fn late_token(app: &App, token: &str) -> Result<Token, Denied> {
    verify_late(&app.server.keys, (app.now)(), EXPIRED_S, token)
        .map_err(|error| Denied::unknown(error.to_string()))
}

/// Whom a token lets into a room.
pub(super) fn person(token: &Token) -> Result<(Claimed, Who), Denied> {
    let identity = &token.grants.identity;
    match &token.grants.video {
        Some(video) if video.room_join && !video.room.is_empty() && !identity.is_empty() => {
            Ok(named(&video.room, identity))
        }
        _ => Err(Denied::forbidden(
            "this token lets nobody into a room: it needs roomJoin, a room and an identity",
        )),
    }
}

/// A person by room and identity.
pub(super) fn named(room: &str, identity: &str) -> (Claimed, Who) {
    let who = Who::Person { room: room.to_owned(), identity: identity.to_owned() };
    (Claimed { room: room.into(), user: identity.into() }, who)
}

/// Whose key this is.
pub(super) fn by_key(door: &ClientStats, http: &HttpRequest<'_>, key: &str) -> Result<Who, Denied> {
    if key.is_empty() {
        let text = "no token and no key: put the access token of the room into `token`, or a key of fanlight.collector.keys into `key`";
        return Err(Denied::unknown(text));
    }
    let Some(place) = door.keys.iter().position(|known| known.key.reveal() == key) else {
        return Err(Denied::unknown("this key is none of fanlight.collector.keys"));
    };
    let origin = http.header("origin").unwrap_or_default();
    let allowed = door.keys.get(place).is_some_and(|known| {
        known.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    });
    if !allowed {
        return Err(Denied::forbidden(format!(
            "this key is not for pages of {origin:?}: see its origins in fanlight.collector.keys"
        )));
    }
    Ok(Who::Key(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{ClientReports, Storing};
    use fanlight_base::Now;
    use fanlight_telemetry::collector::ClientReport;

    struct Nowhere;

    impl ClientReports for Nowhere {
        fn store(&self, _: ClientReport) -> Storing {
            Box::pin(async { Err(NotStored::Gone) })
        }

        fn ready(&self) -> Result<(), NotStored> {
            Err(NotStored::Gone)
        }
    }

    #[test]
    fn a_person_may_send_so_often_and_others_do_not_suffer() {
        let door = ClientStats::new(ReportSink::new(Nowhere), Vec::new());
        let person = |identity: &str| Who::Person { room: "r".into(), identity: identity.into() };
        let at = |s: u64| Now { mono_ns: s * ONE, unix_ns: 0 }.mono();
        let taken = (0..100).filter(|_| door.may(at(1), person("a"))).count();
        assert_eq!(taken as u64, PERSON.burst);
        assert!(door.may(at(1), person("b")));
        let taken = (0..100).filter(|_| door.may(at(2), person("a"))).count();
        assert_eq!(taken as u64, PERSON.per_s);
        for number in 0..PACES_MAX {
            door.may(at(3), person(&number.to_string()));
        }
        assert!(!door.may(at(3), person("late")));
        assert!(door.may(at(40), person("late")));
    }
}
