//! Tokens for trying out the page at `/meet`.

use crate::api::is_local;
use crate::app::{App, respond, unread};
use crate::body::Unread;
use axum::body::Body;
use axum::http::Response;
use fanlight_base::Now;
use fanlight_livekit::http_rules::{Answer, HttpRequest};
use fanlight_livekit::token::{self, Grants, VideoGrant};
use serde::{Deserialize, Serialize};

/// A token for trying things out is good for so long.
const TOKEN_LIFETIME_S: u64 = 6 * 3600;
/// Names and rooms over this are refused with a sentence instead of failing at the join.
const NAME_BYTES_MAX: usize = 256;
/// Both of them in JSON, every byte escaped.
const ASK_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
struct Ask {
    room: String,
    name: String,
}

#[derive(Serialize)]
struct Given {
    token: String,
    url: String,
}

/// `POST /meet/token` of a server for development: a token for this machine itself, as the API has it.
///
/// A browser sends other sites' JSON posts only after a preflight, and this answer carries no CORS header, so that no
/// other site can use it; a foreign `Host` or `Origin`, and what a proxy hands on, are refused besides.
pub(crate) async fn token(app: &App, http: &HttpRequest<'_>, body: Unread) -> Response<Body> {
    if http.method != "POST" {
        return respond(Answer::text(405, "POST {\"room\":…,\"name\":…} here").with("Allow", "POST"));
    }
    if !is_local(http) {
        // The page asks for a token when there is none to be had here.
        return respond(Answer::text(
            404,
            "tokens are given to this server's own page, on its own machine, only",
        ));
    }
    let host = http.header("host").unwrap_or_default();
    let body = match body.read(ASK_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => return respond(unread(&error)),
    };
    let Ok(Ask { room, name }) = serde_json::from_slice(&body.bytes) else {
        return respond(Answer::text(400, "the body is not {\"room\":…,\"name\":…}"));
    };
    let (room, name) = (room.trim(), name.trim());
    if room.is_empty() || name.is_empty() || room.len() > NAME_BYTES_MAX || name.len() > NAME_BYTES_MAX {
        return respond(Answer::text(400, format!("room and name need 1 to {NAME_BYTES_MAX} bytes each")));
    }
    let now = (app.now)();
    let grants = grants(room, name, now);
    let keys = &app.server.keys;
    let Some(token) =
        keys.first().and_then(|(key, secret)| token::create(key, secret, &grants, now, TOKEN_LIFETIME_S))
    else {
        return respond(Answer::text(500, "no API key is configured"));
    };
    let given = Given { token: token.reveal().clone(), url: format!("ws://{host}") };
    match serde_json::to_string(&given) {
        Ok(body) => {
            let answer = Answer::text(200, body);
            respond(answer.with("Content-Type", "application/json").with("Cache-Control", "no-store"))
        }
        Err(error) => respond(Answer::text(500, error.to_string())),
    }
}

/// Two people may have one name: the identity gets the time at which it was given behind it.
fn grants(room: &str, name: &str, now: Now) -> Grants {
    let video = VideoGrant {
        room_join: true,
        room: room.to_owned(),
        can_update_own_metadata: Some(true),
        ..VideoGrant::default()
    };
    let suffix = now.unix_ns / 1_000 % (1 << 24);
    Grants {
        identity: format!("{name}-{suffix:06x}"),
        name: name.to_owned(),
        video: Some(video),
        ..Grants::default()
    }
}
