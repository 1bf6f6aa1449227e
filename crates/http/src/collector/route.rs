//! What a request to the collector is for: Kohaku's rules, and where ours differ.

use axum::http::{HeaderMap, Method, Version, header};
use fanlight_telemetry::decode::kohaku::Kind;

/// Sora's stats exporter says here what it sends.
const EXPORTER_TYPE: &str = "x-sora-stats-exporter-type";
/// Sora's stats webhook says it here.
const WEBHOOK_TYPE: &str = "sora-stats-webhook-type";
/// Where the exporter posts to.
pub const COLLECTOR_PATH: &str = "/collector";
/// Where load balancers ask.
const HEALTH_PATHS: [&str; 2] = ["/.ok", "/health"];
/// Where the webhook posts to when nothing else is configured: Sora's example.
pub const WEBHOOK_PATH_DEFAULT: &str = "/sora/webhook/stats";

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Report(Kind),
    Health,
    /// 404
    NoPath,
    /// 405; these are the methods that are taken.
    NoMethod(&'static str),
    /// 400: neither header says something known.
    UnknownType,
    /// 400, as Kohaku did: HTTP/1.1.
    OldHttp,
    /// 400: the body is not JSON by its own words.
    NoJson,
}

/// A path by the name of its route, for metrics: never what a client made up.
pub(super) fn path_label<'a>(path: &'a str, webhook_path: &'a str) -> &'a str {
    let path = without_slash(path);
    match HEALTH_PATHS.into_iter().find(|health| *health == path) {
        Some(health) => health,
        None if path == COLLECTOR_PATH => COLLECTOR_PATH,
        None if path == webhook_path => webhook_path,
        None => "",
    }
}

/// Decides by everything but the body.
pub(super) fn route(
    method: &Method,
    path: &str,
    version: Version,
    headers: &HeaderMap,
    webhook_path: &str,
    strict: bool,
) -> Route {
    let path = without_slash(path);
    if HEALTH_PATHS.contains(&path) {
        return match *method {
            Method::GET | Method::POST => Route::Health,
            _ => Route::NoMethod("GET, POST"),
        };
    }
    if path != COLLECTOR_PATH && path != webhook_path {
        return Route::NoPath;
    }
    if method != Method::POST {
        return Route::NoMethod("POST");
    }
    let says = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if strict && path == COLLECTOR_PATH && version != Version::HTTP_2 {
        return Route::OldHttp;
    }
    let exporter = if path == COLLECTOR_PATH { says(EXPORTER_TYPE) } else { None };
    let kind = match exporter {
        Some(exporter) => Kind::from_exporter_header(exporter),
        None if path == webhook_path => says(WEBHOOK_TYPE).and_then(Kind::from_webhook_header),
        None => None,
    };
    // The Kohaku of 2023 has forgotten about nodes.
    let kind = kind.filter(|kind| !(strict && *kind == Kind::ErlangVm));
    match kind {
        None => Route::UnknownType,
        Some(_) if !is_json(headers) => Route::NoJson,
        Some(kind) => Route::Report(kind),
    }
}

/// One slash at the end is removed before anything else is looked at.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn ask(line: &str, headers: &[(&'static str, &'static str)], strict: bool) -> Route {
        let mut parts = line.split(' ');
        let (method, path, version) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let version = if version == "2" { Version::HTTP_2 } else { Version::HTTP_11 };
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        route(&method.parse().unwrap(), path, version, &headers, WEBHOOK_PATH_DEFAULT, strict)
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn reports_come_by_exporter_and_by_webhook() {
        let user_agent = [JSON, (EXPORTER_TYPE, "connection.user-agent")];
        let erlang = [("content-type", "application/json; charset=utf-8"), (EXPORTER_TYPE, "node.erlang-vm")];
        let webhook = [JSON, (WEBHOOK_TYPE, "connection.rtc")];
        for version in ["1.1", "2"] {
            let ask = |path, headers: &[_]| ask(&format!("POST {path} {version}"), headers, false);
            assert_eq!(ask("/collector", &user_agent), Route::Report(Kind::UserAgent));
            assert_eq!(ask("/collector/", &erlang), Route::Report(Kind::ErlangVm));
            assert_eq!(ask("/sora/webhook/stats", &webhook), Route::Report(Kind::Webhook));
            assert_eq!(ask("/collector", &webhook), Route::UnknownType);
            assert_eq!(ask("/sora/webhook/stats", &user_agent), Route::UnknownType);
        }
    }

    #[test]
    fn one_path_may_serve_both() {
        let headers: HeaderMap = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static(WEBHOOK_TYPE), HeaderValue::from_static("connection.rtc")),
        ]
        .into_iter()
        .collect();
        let route = route(&Method::POST, "/collector", Version::HTTP_2, &headers, COLLECTOR_PATH, false);
        assert_eq!(route, Route::Report(Kind::Webhook));
    }

    #[test]
    fn strict_is_as_kohaku_was() {
        let user_agent = [JSON, (EXPORTER_TYPE, "connection.user-agent")];
        assert_eq!(ask("POST /collector 1.1", &user_agent, true), Route::OldHttp);
        assert_eq!(ask("POST /collector 2", &user_agent, true), Route::Report(Kind::UserAgent));
        let erlang = [JSON, (EXPORTER_TYPE, "node.erlang-vm")];
        assert_eq!(ask("POST /collector 2", &erlang, true), Route::UnknownType);
        assert_eq!(ask("GET /.ok 1.1", &[], true), Route::Health);
    }

    #[test]
    fn what_is_not_served_is_told_apart() {
        for (line, headers, expected) in [
            ("GET /collector 2", &[][..], Route::NoMethod("POST")),
            ("PUT /health 1.1", &[], Route::NoMethod("GET, POST")),
            ("POST /health/ 1.1", &[], Route::Health),
            ("GET /.ok 2", &[], Route::Health),
            ("POST / 2", &[], Route::NoPath),
            ("POST /collector// 2", &[], Route::NoPath),
            ("POST /metrics 2", &[], Route::NoPath),
            ("POST /collector 2", &[JSON], Route::UnknownType),
            ("POST /collector 2", &[JSON, (EXPORTER_TYPE, "connection.sora")], Route::UnknownType),
            ("POST /collector 2", &[(EXPORTER_TYPE, "connection.user-agent")], Route::NoJson),
            (
                "POST /collector 2",
                &[("content-type", "text/plain"), (EXPORTER_TYPE, "connection.user-agent")],
                Route::NoJson,
            ),
        ] {
            assert_eq!(ask(line, headers, false), expected, "{line} {headers:?}");
        }
    }

    #[test]
    fn labels_are_of_routes_only() {
        let label = |path| path_label(path, WEBHOOK_PATH_DEFAULT).to_owned();
        assert_eq!(label("/collector/"), "/collector");
        assert_eq!(label("/.ok"), "/.ok");
        assert_eq!(label("/sora/webhook/stats"), "/sora/webhook/stats");
        assert_eq!(label("/anything"), "");
    }
}
