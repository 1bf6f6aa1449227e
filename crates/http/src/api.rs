//! `/api/v1/`: what is on record, as JSON or CSV, for those who may administer (docs/api.md).
//!
//! Who may ask is decided as LiveKit does for its own API: a token with `roomAdmin`, for the room it names or for all.
//! Errors have the form of LiveKit's too. No answer here may be read by another origin.

pub(crate) mod client_stats;
mod clients;
mod parameters;
pub(crate) mod rtcstats;
mod turn;

use crate::app::{App, respond};
use axum::body::Body;
use axum::http::Response;
use fanlight_livekit::http_rules::{Answer, HttpRequest};
use fanlight_livekit::token::Token;
use serde::Serialize;
use std::net::IpAddr;

/// Before this stands every path of the API.
pub(crate) const PREFIX: &str = "/api/v1/";

/// What a request may see.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// Everything.
    All,
    /// Rows of this room.
    Room(String),
}

/// An error in LiveKit's form.
#[derive(Serialize)]
struct Refusal<'a> {
    code: &'a str,
    msg: &'a str,
}

pub(crate) async fn answer(
    app: &App,
    http: &HttpRequest<'_>,
    path: &str,
    token: Option<&Token>,
) -> Response<Body> {
    let answer = match route(app, http, path, token).await {
        Ok(answer) | Err(answer) => answer,
    };
    respond(answer.with("Cache-Control", "no-store").with("X-Content-Type-Options", "nosniff"))
}

async fn route(
    app: &App,
    http: &HttpRequest<'_>,
    path: &str,
    token: Option<&Token>,
) -> Result<Answer, Answer> {
    let name = path.strip_prefix(PREFIX).unwrap_or_default();
    let (turn, clients) = (turn::What::of(name), clients::What::of(name));
    if turn.is_none() && clients.is_none() {
        return Err(refuse(404, "bad_route", &format!("no {path} here; docs/api.md lists what there is")));
    }
    if !matches!(http.method, "GET" | "HEAD") {
        return Err(refuse(405, "bad_route", "GET it").with("Allow", "GET, HEAD"));
    }
    let scope = scope(app.dev, http, token)?;
    match (turn, clients) {
        (Some(what), _) => turn::answer(app, http, what, scope).await,
        (None, Some(what)) => clients::answer(app, http, what, scope).await,
        (None, None) => Err(refuse(404, "bad_route", path)),
    }
}

fn scope(dev: bool, http: &HttpRequest<'_>, token: Option<&Token>) -> Result<Scope, Answer> {
    let denied = |more: &str| refuse(401, "unauthenticated", &format!("permissions denied: {more}"));
    let Some(token) = token else {
        return match dev && is_local(http) {
            true => Ok(Scope::All),
            false => Err(denied(
                "send `Authorization: Bearer TOKEN`; make one with `fanlight token create --room-admin --identity NAME`",
            )),
        };
    };
    match &token.grants.video {
        Some(video) if video.room_admin && video.room.is_empty() => Ok(Scope::All),
        Some(video) if video.room_admin => Ok(Scope::Room(video.room.clone())),
        _ => Err(denied("this token has no roomAdmin")),
    }
}

/// Whether this machine itself asks, and no page of another site through a browser here: that would have another origin, or
/// a host name of its own that it let resolve to this machine (DNS rebinding). A proxy's request comes from anywhere.
pub(crate) fn is_local(http: &HttpRequest<'_>) -> bool {
    let forwarded = ["x-forwarded-for", "x-real-ip", "forwarded", "via", "cf-connecting-ip"];
    let Some(host) = http.header("host") else { return false };
    http.remote.is_some_and(|ip| ip.to_canonical().is_loopback())
        && forwarded.iter().all(|name| http.header(name).is_none())
        && is_own_name(host)
        && http.header("origin").is_none_or(|origin| {
            origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        })
        && http.header("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"))
}

fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refuse(status: u16, code: &str, msg: &str) -> Answer {
    json(status, &Refusal { code, msg })
}

fn json<T: Serialize>(status: u16, value: &T) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => Answer::text(status, text).with("Content-Type", "application/json"),
        Err(error) => Answer::text(500, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(remote: &str, headers: &'a [(&'a str, &'a str)]) -> HttpRequest<'a> {
        let remote = Some(remote.parse().unwrap());
        HttpRequest { method: "GET", path: "/", query: "", headers, body: b"", remote }
    }

    #[test]
    fn only_this_machine_itself_is_local() {
        for host in ["localhost", "LOCALHOST:7880", "127.0.0.1:7880", "127.0.0.1", "[::1]:7880", "[::1]"] {
            assert!(is_local(&request("127.0.0.1", &[("Host", host)])), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "10.0.0.1:7880", "", "127.0.0.1.evil.example:80"]
        {
            assert!(!is_local(&request("127.0.0.1", &[("Host", host)])), "{host}");
        }
        let host = ("Host", "localhost:7880");
        assert!(is_local(&request("::ffff:127.0.0.1", &[host])));
        assert!(!is_local(&request("10.0.0.1", &[host])));
        assert!(!is_local(&request("127.0.0.1", &[])));
        assert!(!is_local(&request("127.0.0.1", &[host, ("X-Forwarded-For", "10.0.0.1")])));
        assert!(!is_local(&request("127.0.0.1", &[host, ("Origin", "http://evil.example")])));
        assert!(!is_local(&request("127.0.0.1", &[host, ("Sec-Fetch-Site", "cross-site")])));
        assert!(is_local(&request("127.0.0.1", &[host, ("Origin", "http://localhost:7880")])));
    }
}
