//! The files of the pages: `/meet` for calls, `/console/` for looking at the record. They are open to anybody; what they show
//! is asked for with a token.

use crate::app::respond;
use axum::body::Body;
use axum::http::Response;
use fanlight_livekit::http_rules::{Answer, HttpRequest};

/// Views of the console; one file serves them all.
const CONSOLE_VIEWS: [&str; 3] = ["", "/", "/turn"];
/// The view of clients' connections, and of one by its number, has a file of its own.
const CLIENTS_VIEW: &str = "/clients";
/// What other sites' pages load.
const STATS: &str = "stats/fanlight-stats.js";

/// A file of a page; `None` when the path is not one of theirs.
pub(crate) fn file(http: &HttpRequest<'_>, path: &str) -> Option<Response<Body>> {
    let name = name(path)?;
    if !matches!(http.method, "GET" | "HEAD") {
        return Some(respond(Answer::text(405, "GET it").with("Allow", "GET, HEAD")));
    }
    embedded::file(&name, http.header("host").unwrap_or_default())
}

/// Below `web/dist`.
fn name(path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("/console")
        && (rest.is_empty() || rest.starts_with('/'))
    {
        let file = if CONSOLE_VIEWS.contains(&rest) {
            "/console.html"
        } else if is_clients_view(rest) {
            "/clients.html"
        } else {
            rest
        };
        return Some(format!("console{file}"));
    }
    if path == "/fanlight-stats.js" {
        return Some(STATS.to_owned());
    }
    let name = if path == "/meet" { "" } else { path.strip_prefix("/meet/")? };
    // These files have their own place.
    let own = name.starts_with("console/") || name.starts_with("stats/");
    (!own).then(|| if name.is_empty() { "index.html" } else { name }.to_owned())
}

fn is_clients_view(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix(CLIENTS_VIEW) else { return false };
    let number = rest.strip_prefix('/').unwrap_or_default();
    rest.is_empty() || number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(feature = "web")]
mod embedded {
    use super::{Body, Response, STATS};
    use axum::http::{StatusCode, header};

    /// The console holds a token and shows names that users chose: nothing but its own files may run or be asked.
    const CONSOLE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    /// A call's page holds a token too; what it plays and shows comes as streams, and not every browser takes `'self'` for
    /// this server's WebSockets.
    fn meet_policy(host: &str) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let sockets = match !host.is_empty() && host.bytes().all(is_plain) {
            true => format!(" ws://{host} wss://{host}"),
            false => String::new(),
        };
        format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; \
             worker-src 'self' blob:; connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        )
    }

    #[derive(rust_embed::RustEmbed)]
    #[folder = "../../web/dist"]
    struct Dist;

    pub(super) fn file(name: &str, host: &str) -> Option<Response<Body>> {
        let file = Dist::get(name)?;
        // Vite puts a hash of the content into the names under assets/.
        let hashed = name.starts_with("assets/") || name.starts_with("console/assets/");
        let cache = if hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
        let mut response = Response::builder()
            .status(StatusCode::OK)
            .header(header::CONTENT_TYPE, mime(name))
            .header(header::CACHE_CONTROL, cache)
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if name != STATS {
            let is_console = name.starts_with("console/");
            let policy = if is_console { CONSOLE_POLICY.to_owned() } else { meet_policy(host) };
            response = response
                .header(header::CONTENT_SECURITY_POLICY, policy)
                .header(header::REFERRER_POLICY, "no-referrer")
                .header(header::X_FRAME_OPTIONS, "DENY");
        } else {
            // For pages of any site, with or without `crossorigin` and `integrity`.
            response = response
                .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")
                .header("Cross-Origin-Resource-Policy", "cross-origin");
        }
        response.body(Body::from(file.data.into_owned())).ok()
    }

    fn mime(name: &str) -> &'static str {
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("html") => "text/html; charset=utf-8",
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("json" | "map") => "application/json",
            Some("wasm") => "application/wasm",
            _ => "application/octet-stream",
        }
    }
}

#[cfg(not(feature = "web"))]
mod embedded {
    use super::{Answer, Body, Response, respond};

    pub(super) fn file(name: &str, _host: &str) -> Option<Response<Body>> {
        let text = "this server was built without its web pages (--no-default-features); \
                    LiveKit's clients and SDKs, the API and the command line work as ever\n";
        matches!(name, "index.html" | "console/console.html" | "console/clients.html" | super::STATS)
            .then(|| respond(Answer::text(404, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn ask(method: &str, path: &str) -> Option<Response<Body>> {
        let headers = [("host", "here.example:7880")];
        let http = HttpRequest { method, path, query: "", headers: &headers, body: b"", remote: None };
        file(&http, path)
    }

    #[cfg(feature = "web")]
    #[test]
    fn nobody_frames_the_pages_and_they_speak_with_their_own_server_only() {
        for path in PAGES.into_iter().filter(|path| !path.ends_with(".js")) {
            let answer = ask("GET", path).unwrap();
            let policy = answer.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
            assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
            assert!(!policy.contains("unsafe"), "{path}: {policy}");
            assert_eq!(answer.headers()["referrer-policy"], "no-referrer", "{path}");
        }
        let meet = ask("GET", "/meet").unwrap();
        let policy = meet.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("connect-src 'self' ws://here.example:7880 wss://here.example:7880;"));
    }

    #[cfg(feature = "web")]
    #[test]
    fn a_host_that_is_none_says_nothing_in_the_policy() {
        let headers = [("host", "a; script-src *")];
        let http = HttpRequest {
            method: "GET",
            path: "/meet",
            query: "",
            headers: &headers,
            body: b"",
            remote: None,
        };
        let answer = file(&http, "/meet").unwrap();
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("connect-src 'self'; ") && !policy.contains('*'), "{policy}");
    }

    const PAGES: [&str; 8] = [
        "/meet",
        "/meet/",
        "/console",
        "/console/",
        "/console/turn",
        "/console/clients",
        "/console/clients/17",
        "/fanlight-stats.js",
    ];

    #[cfg(feature = "web")]
    #[tokio::test]
    async fn the_snippet_is_small_and_any_site_may_load_it() {
        const BYTES_MAX: usize = 5_000;
        let answer = ask("GET", "/fanlight-stats.js").unwrap();
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/javascript"));
        let script = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        assert!(script.len() < BYTES_MAX, "fanlight-stats.js has {} bytes", script.len());
    }

    #[test]
    fn paths_outside_the_pages_are_not_theirs() {
        for path in [
            "/meeting",
            "/meet/../Cargo.toml",
            "/consoles",
            "/console/nothing",
            "/meet/console/console.html",
            "/meet/stats/fanlight-stats.js",
            "/console/clients/x",
            "/fanlight-stats.js/",
        ] {
            assert!(ask("GET", path).is_none(), "{path}");
        }
    }

    #[cfg(not(feature = "web"))]
    #[test]
    fn without_the_pages_their_paths_say_why() {
        for path in PAGES {
            assert_eq!(ask("GET", path).unwrap().status(), StatusCode::NOT_FOUND);
        }
    }

    #[cfg(feature = "web")]
    #[test]
    fn the_pages_are_there_with_and_without_a_slash_so_that_a_link_keeps_its_query() {
        for path in PAGES {
            assert_eq!(ask("GET", path).unwrap().status(), StatusCode::OK);
            assert_eq!(ask("POST", path).unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
        }
    }
}
