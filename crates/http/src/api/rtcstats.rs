//! `/api/v1/rtcstats`: the WebSocket to which pages with rtcstats tell of their connections (docs/clients.md).
//!
//! Who tells is found out as for `client-stats`. There is no answer to a message: what has been read is stored before more is
//! read, so that a page is never further ahead than [`socket::BATCH_MESSAGES`] and what the kernel holds.

mod sessions;
mod socket;

pub(crate) use sessions::Sockets;
pub use sessions::{RtcStatsCounts, RtcStatsSnapshot};

use super::client_stats::{self, ClientStats, Denied, Who};
use super::refuse;
use crate::app::{App, respond};
use axum::body::Body;
use axum::extract::WebSocketUpgrade;
use axum::http::Response;
use fanlight_livekit::http_rules::{Answer, HttpRequest};
use fanlight_livekit::token::{RtcStatsClaim, Token};
use fanlight_telemetry::decode::browser::{Claimed, Sender};
use fanlight_telemetry::decode::rtcstats::{Dump, MESSAGE_BYTES_MAX, Protocol, SESSION_BYTES_MAX, Speaker};
use sessions::Refused;
use socket::{READ_BUFFER_BYTES, Socket};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

const PATH: &str = "/api/v1/rtcstats";
/// Bytes of a room, a user or a participant.
const NAME_BYTES_MAX: usize = 255;

/// Whether this is the WebSocket's; the library adds the path of its page.
pub(crate) fn is_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|more| more.is_empty() || more.starts_with('/'))
}

/// Who has come in.
struct Guest {
    who: Who,
    speaker: Speaker,
    /// The session that the page named, by which it may come again.
    session: Option<String>,
}

/// Lets a page in, or says why not: before the upgrade where the library could not speak anyway, else by closing.
pub(crate) fn answer(
    app: &App,
    http: &HttpRequest<'_>,
    upgrade: Option<WebSocketUpgrade>,
    token: Option<&Token>,
) -> Response<Body> {
    let (door, upgrade, protocol) = match prepare(app, http, upgrade) {
        Ok(ready) => ready,
        Err(refusal) => return respond(refusal.with("Cache-Control", "no-store")),
    };
    let upgrade = upgrade
        .protocols([protocol.subprotocol()])
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(READ_BUFFER_BYTES);
    let guest = match guest(app, &door, http, token) {
        Ok(guest) => guest,
        Err(denied) => {
            door.rtcstats.refused(Refused::Unknown);
            return upgrade.on_upgrade(move |socket| socket::close(socket, socket::DENIED, denied.text));
        }
    };
    let now_ms = (app.now)().unix_ms();
    let sender = Sender {
        origin: http.header("origin").unwrap_or_default(),
        user_agent: http.header("user-agent").unwrap_or_default(),
        now_ms,
    };
    let Guest { who, speaker, session } = guest;
    let fresh = Dump::new(protocol, speaker, sender);
    let seat = door.rtcstats.sit((app.now)().mono(), who, session.map(|name| (protocol, name)), fresh);
    match seat {
        Ok(seat) => {
            let app = app.clone();
            upgrade.on_upgrade(move |socket| Socket::new(app, door, seat, socket).run())
        }
        Err(refused) => {
            door.rtcstats.refused(refused);
            upgrade.on_upgrade(move |socket| socket::close(socket, socket::LATER, refused.text().to_owned()))
        }
    }
}

fn prepare(
    app: &App,
    http: &HttpRequest<'_>,
    upgrade: Option<WebSocketUpgrade>,
) -> Result<(Arc<ClientStats>, WebSocketUpgrade, Protocol), Answer> {
    let Some(door) = &app.client_stats else {
        let text = "this server keeps no reports of clients: set fanlight.collector.enabled";
        return Err(refuse(404, "bad_route", text));
    };
    let known = Protocol::ALL.map(Protocol::subprotocol).join("` and `");
    let Some(upgrade) = upgrade else {
        let text = format!("this is a WebSocket with the subprotocols `{known}`");
        return Err(refuse(426, "bad_route", &text).with("Upgrade", "websocket"));
    };
    let asked = http.header("sec-websocket-protocol").unwrap_or_default();
    let mut spoken = Protocol::ALL.into_iter();
    let protocol = spoken.find(|one| asked.split(',').any(|asked| asked.trim() == one.subprotocol()));
    let Some(protocol) = protocol else {
        door.rtcstats.refused(Refused::Protocol);
        let text = format!("the subprotocol is {asked:?}; spoken are `{known}`");
        return Err(refuse(400, "invalid_argument", &text));
    };
    Ok((Arc::clone(door), upgrade, protocol))
}

fn guest(
    app: &App,
    door: &ClientStats,
    http: &HttpRequest<'_>,
    token: Option<&Token>,
) -> Result<Guest, Denied> {
    let parameters = http.parameters();
    let named = match (token, parameters.get("rtcstats-token")) {
        (Some(token), _) => Some(token.clone()),
        (None, "") => None,
        (None, token) => Some(client_stats::late_token(app, token)?),
    };
    let claim = named.as_ref().and_then(|token| token.grants.rtc_stats.clone()).unwrap_or_default();
    let (proven, (whose, who)) = match &named {
        Some(token) => (true, person(token, &claim)?),
        None => {
            let who = client_stats::by_key(door, http, parameters.get("key"))?;
            let whose = Claimed { room: name(http, "room").into(), user: name(http, "user").into() };
            (false, (whose, who))
        }
    };
    let session = [parameters.get("session"), &claim.session].into_iter().find(|session| !session.is_empty());
    let session = session.map(str::to_owned).filter(|session| session.len() <= SESSION_BYTES_MAX);
    let page = session.clone().unwrap_or_else(random_id);
    let more = [("path", http.path), ("conference", &claim.conference), ("user", &claim.user)];
    // What a token proves need not be said again.
    let said =
        |(_, text): &(&str, &str)| !text.is_empty() && ![whose.room.as_str(), &whose.user].contains(text);
    let more = more.into_iter().filter(said).map(|(name, text)| (name, text.to_owned())).collect();
    let participant = name(http, "participant").into();
    let speaker = Speaker { proven, whose, participant, page: page.into(), more };
    Ok(Guest { who, speaker, session })
}

/// Whom a token names: as a participant of a room of ours, or as rtcstats does.
fn person(token: &Token, claim: &RtcStatsClaim) -> Result<(Claimed, Who), Denied> {
    let of_claim = || client_stats::named(&claim.conference, &claim.user);
    let is_named = !claim.conference.is_empty() && !claim.user.is_empty();
    client_stats::person(token).or_else(|denied| if is_named { Ok(of_claim()) } else { Err(denied) })
}

/// A name that is not longer than names are.
fn name(http: &HttpRequest<'_>, which: &str) -> String {
    let mut text = http.parameters().get(which).to_owned();
    text.truncate(text.floor_char_boundary(NAME_BYTES_MAX));
    text
}

/// Not a secret: by it a page's life is told from others.
fn random_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_add_its_path() {
        for path in ["/api/v1/rtcstats", "/api/v1/rtcstats/", "/api/v1/rtcstats/a/b.html"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["/api/v1/rtcstatsx", "/api/v1/rtc", "/rtcstats"] {
            assert!(!is_path(path), "{path}");
        }
        assert_ne!(random_id(), random_id());
    }
}
