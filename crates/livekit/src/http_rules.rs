//! What is pure about the HTTP layer: requests as values, CORS, paths and the answers that need nobody else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanlight_base::Now;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

/// A node whose threads were not looked at for so long is not healthy; LiveKit's limit of its node's statistics.
pub const HEALTH_MAX_AGE: Duration = Duration::from_secs(4);
/// Largest form: its token may be as long as one in a head.
pub const FORM_BYTES_MAX: usize = crate::head::HEAD_BYTES_MAX;

/// Methods that other origins may use.
const CORS_METHODS: [&str; 6] = ["OPTIONS", "HEAD", "GET", "POST", "PATCH", "DELETE"];
const TEXT: &str = "text/plain; charset=utf-8";

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// Method, upper case.
    pub method: &'a str,
    /// Path as sent, still percent-encoded, without the query.
    pub path: &'a str,
    /// Query without the question mark; empty when there is none.
    pub query: &'a str,
    /// Header names in any case, with their values.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, of form posts only; others may leave it empty.
    pub body: &'a [u8],
    /// Address of the connection.
    pub remote: Option<IpAddr>,
}

impl<'a> HttpRequest<'a> {
    /// The first header of this name, blanks around its value cut off.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Form and query values: the body of a form post first, then the query.
    pub fn parameters(&self) -> Parameters {
        let body = if self.is_form() { std::str::from_utf8(self.body).unwrap_or_default() } else { "" };
        Parameters(pairs(body).chain(pairs(self.query)).collect())
    }

    /// Whether the body, where there is one, is a form.
    pub fn is_form(&self) -> bool {
        matches!(self.method, "POST" | "PUT" | "PATCH")
            && self.header("content-type").is_some_and(|kind| {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
            })
    }

    /// Whether the client asks for a WebSocket.
    pub fn is_websocket_upgrade(&self) -> bool {
        let names = |header, word: &str| {
            self.header(header)
                .is_some_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
        };
        names("connection", "upgrade") && names("upgrade", "websocket")
    }

    /// The client's address as proxies tell it, else that of the connection.
    pub fn client_address(&self) -> String {
        let first = |name| {
            let value = self.header(name)?.split(',').next()?.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        first("cf-connecting-ip")
            .or_else(|| first("x-forwarded-for"))
            .or_else(|| first("x-real-ip"))
            .or_else(|| self.remote.map(|address| address.to_string()))
            .unwrap_or_default()
    }
}

/// Form and query values.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The names, in the order in which they came.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The first value of this name; empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}

/// An answer that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers beside `Date` and `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: vec![("Content-Type", TEXT.to_owned())], body: body.into() }
    }

    /// Nothing but a status.
    pub const fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// The same with a header, replacing one of that name.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(found, _)| *found != name);
        self.headers.push((name, value.into()));
        self
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// The page nobody knows.
pub fn not_found() -> Answer {
    Answer::text(404, "404 page not found\n").with("X-Content-Type-Options", "nosniff")
}

/// How a node fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHealth {
    /// When its threads were last looked at.
    pub updated: Now,
    /// What keeps it from serving calls; a line each.
    pub failures: Vec<String>,
    /// What else is wrong with it, while calls are served; a line each.
    pub warnings: Vec<String>,
}

/// The answer of `/`, as LiveKit gives it, with a line for each thing that is wrong. What does not keep the node from serving
/// calls leaves it at 200: whoever restarts unhealthy nodes would end them.
pub fn health(now: Now, node: &NodeHealth) -> Answer {
    let fresh = now.mono().since(node.updated.mono()) <= HEALTH_MAX_AGE;
    let (status, first) = if fresh && node.failures.is_empty() {
        (200, "OK".to_owned())
    } else {
        (406, format!("Not Ready\nNode Updated At {} +0000 UTC", utc(node.updated.unix_s())))
    };
    let wrong = node.failures.iter().chain(&node.warnings);
    Answer::text(status, wrong.fold(first, |text, line| text + "\n" + line))
}

/// The answer to a preflight request (any `OPTIONS` that names a method), on every path and before any token is read.
pub fn preflight(request: &HttpRequest<'_>) -> Option<Answer> {
    let method = request.header("access-control-request-method").filter(|method| !method.is_empty())?;
    if request.method != "OPTIONS" {
        return None;
    }
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    let answer = Answer::empty(204).with("Vary", vary);
    let origin = request.header("origin").filter(|origin| !origin.is_empty());
    let Some(origin) = origin.filter(|_| CORS_METHODS.contains(&method)) else { return Some(answer) };
    let answer = answer
        .with("Access-Control-Allow-Origin", origin)
        .with("Access-Control-Allow-Methods", method)
        .with("Access-Control-Max-Age", "86400");
    Some(match request.header("access-control-request-headers").filter(|headers| !headers.is_empty()) {
        Some(headers) => answer.with("Access-Control-Allow-Headers", headers),
        None => answer,
    })
}

/// Headers for every other answer but a switch of protocols: any origin may read it.
pub fn cors(request: &HttpRequest<'_>) -> Vec<(&'static str, String)> {
    let mut headers = vec![("Vary", "Origin".to_owned())];
    let origin = request.header("origin").filter(|origin| !origin.is_empty());
    if let Some(origin) = origin.filter(|_| CORS_METHODS.contains(&request.method)) {
        headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
        headers.push(("Access-Control-Expose-Headers", "*".to_owned()));
    }
    headers
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanPath<'a> {
    /// Route by this, still percent-encoded.
    Path(Cow<'a, str>),
    /// Send the client there.
    Redirect(Answer),
}

/// Whether a path has control characters, as they are or escaped: nothing here has such a name, and logs would show them.
pub fn has_controls(path: &str) -> bool {
    match percent_decode(path, false) {
        Some(decoded) => decoded.chars().any(char::is_control),
        // Not UTF-8, or a broken escape; those that are whole count.
        None => path.chars().any(char::is_control) || path.split('%').skip(1).any(is_control_escape),
    }
}

/// Of what follows a percent sign.
fn is_control_escape(text: &str) -> bool {
    let byte = text.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|byte| byte.is_ascii_control())
}

/// A path as `Location` may have it: nothing in it that a browser takes for a slash or for another origin.
fn escape_path(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match is_plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Takes one of two leading slashes off and sends clients of other unclean paths (`/a//b`, `/./a`) to the clean one.
pub fn clean_path<'a>(path: &'a str, query: &str) -> CleanPath<'a> {
    let decoded = percent_decode(path, false).unwrap_or_else(|| path.to_owned());
    let path: Cow<'a, str> = match decoded.strip_prefix("//") {
        Some(rest) => format!("/{rest}").into(),
        None => path.into(),
    };
    let mut clean: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            name => clean.push(name),
        }
    }
    let mut cleaned = format!("/{}", clean.join("/"));
    if path.ends_with('/') && !clean.is_empty() {
        cleaned.push('/');
    }
    if cleaned == path {
        return CleanPath::Path(path);
    }
    let cleaned = escape_path(&cleaned);
    let body = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape_html(&cleaned));
    let location = if query.is_empty() { cleaned } else { format!("{cleaned}?{query}") };
    let answer = Answer::text(307, body).with("Content-Type", "text/html; charset=utf-8");
    CleanPath::Redirect(answer.with("Location", location))
}

/// The refusal of a WebSocket handshake, if it deserves one (RFC 6455 §4.2.1).
pub fn check_handshake(request: &HttpRequest<'_>) -> Result<(), Answer> {
    let refuse = |status, text: &str| {
        let answer = Answer::text(status, text).with("Sec-Websocket-Version", "13");
        Err(answer.with("X-Content-Type-Options", "nosniff"))
    };
    if request.method != "GET" {
        let text = "Method Not Allowed\nwebsocket: the client is not using the websocket protocol: request method is not GET";
        return refuse(405, text);
    }
    if request.header("sec-websocket-version") != Some("13") {
        let text =
            "Bad Request\nwebsocket: unsupported version: 13 not found in 'Sec-Websocket-Version' header";
        return refuse(400, text);
    }
    let key = request.header("sec-websocket-key").and_then(|key| STANDARD.decode(key).ok());
    if key.is_none_or(|key| key.len() != 16) {
        let text = "Bad Request\nwebsocket: not a websocket handshake: 'Sec-WebSocket-Key' header must be Base64 encoded value of 16-byte in length";
        return refuse(400, text);
    }
    Ok(())
}

fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    // A pair with a semicolon or a broken escape is left out, the others count.
    text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decode(name, true)?, percent_decode(value, true)?))
    })
}

fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from((high << 4) | low).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// `2026-11-21 06:27:00` of seconds since the Unix epoch.
fn utc(unix_s: u64) -> String {
    let timestamp = i64::try_from(unix_s).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    timestamp.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_node_says_when_it_was_last_well() {
        let updated = Now { mono_ns: 1, unix_ns: 1_795_242_420_000_000_000 };
        let now = Now { mono_ns: 5_000_000_000, ..updated };
        let mut node = NodeHealth { updated, failures: Vec::new(), warnings: Vec::new() };
        let not_ready = "Not Ready\nNode Updated At 2026-11-21 06:27:00 +0000 UTC";
        assert_eq!(health(now, &node).body, not_ready);
        assert_eq!(health(updated, &node), Answer::text(200, "OK"));
        node.warnings.push("the record cannot be written".to_owned());
        assert_eq!(health(updated, &node), Answer::text(200, "OK\nthe record cannot be written"));
        node.failures.push("thread shard-0 is stuck".to_owned());
        let both = format!("{not_ready}\nthread shard-0 is stuck\nthe record cannot be written");
        assert_eq!(health(updated, &node), Answer::text(406, both));
    }

    #[test]
    fn dates_around_leap_days_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(utc(1_709_251_200), "2024-03-01 00:00:00");
    }

    #[test]
    fn addresses_come_from_the_nearest_proxy_header() {
        let headers = [("X-Real-IP", "9.9.9.9"), ("x-forwarded-for", "1.1.1.1, 2.2.2.2")];
        let request = HttpRequest {
            method: "GET",
            path: "/",
            query: "",
            headers: &headers,
            body: b"",
            remote: Some([127, 0, 0, 1].into()),
        };
        assert_eq!(request.client_address(), "1.1.1.1");
        assert_eq!(HttpRequest { headers: &[], ..request }.client_address(), "127.0.0.1");
    }

    #[test]
    fn a_redirect_stays_on_its_origin() {
        for path in [
            "///evil.example",
            "////evil.example/",
            "/x/..//evil.example",
            "/./\\evil.example",
            "/x/../\\evil.example/..",
            "//\\evil.example/.",
            "/%2F/evil.example/.",
            "/%2F%5Cevil.example/.",
            "/%2F%2Fevil.example/.",
            "/%5C/./evil.example",
            "/./%09/evil.example",
            "/.//%2e%2e//evil.example",
        ] {
            let CleanPath::Redirect(answer) = clean_path(path, "") else { continue };
            let location = answer.header("Location").unwrap();
            let mut characters = location.chars();
            assert_eq!(characters.next(), Some('/'), "{path}: {location}");
            assert!(!matches!(characters.next(), Some('/' | '\\')), "{path}: {location}");
            assert!(!location.contains('\\') && !has_raw_controls(location), "{path}: {location}");
        }
    }

    fn has_raw_controls(text: &str) -> bool {
        text.chars().any(char::is_control)
    }

    #[test]
    fn control_characters_in_a_path_are_found_however_they_are_written() {
        for path in ["/a\tb", "/a%00", "/%0d%0aSet-Cookie:x", "/a%7f", "/%C2%85", "/%0A%zz", "/%ff%01"] {
            assert!(has_controls(path), "{path}");
        }
        for path in ["/", "/a%20b", "/%C3%A9", "/%zz", "/%ff", "/a%2500"] {
            assert!(!has_controls(path), "{path}");
        }
    }

    #[test]
    fn broken_pairs_are_left_out_and_the_first_value_counts() {
        let parameters = Parameters(pairs("a=1&a=2&b=%zz&c;d=1&e=x+y%20z").collect());
        assert_eq!((parameters.get("a"), parameters.get("b"), parameters.get("e")), ("1", "", "x y z"));
    }
}
