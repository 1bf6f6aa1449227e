//! The collector: takes clients' reports as Kohaku did, from Sora's stats exporter and its stats webhook, on a listener of its
//! own.
//!
//! 204 is said once a report is safe. [`ReportSink`] knows when that is; a report that it refuses is answered with 503.

mod connection;
mod limits;
mod meter;
mod route;

pub use connection::Http2Settings;
pub use limits::FRAME_BYTES;
pub use meter::{CollectorSnapshot, Histogram, RequestLabels, RequestSeries};
pub use route::{COLLECTOR_PATH, WEBHOOK_PATH_DEFAULT};

use crate::app::ServeError;
use crate::backend::{NotStored, ReportSink};
use crate::gate::{self, Gate, Share};
use crate::metrics::{self, MetricsApp};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use connection::{ConnectionCounters, Door};
use fanlight_telemetry::collector::limits::BODY_BYTES_MAX;
use fanlight_telemetry::decode::kohaku::{self, Kind};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use limits::{BODIES_BYTES_MAX, BODY_WITHIN, CONNECTIONS_MAX, RETRY_AFTER_S};
use meter::{Answered, Meter};
use route::Route;
use rustls::ServerConfig;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// What the collector does differently from one installation to another.
#[derive(Clone)]
pub struct CollectorSettings {
    /// Where Sora's stats webhook posts to.
    pub webhook_path: String,
    /// Answer as Kohaku did.
    pub strict: bool,
    /// Bytes of bodies that are being read or stored, all together, half of them from one host; what is more is answered with 503.
    pub bodies_bytes_max: usize,
    /// Gets every request once it is answered, but those for health.
    pub access: Arc<dyn Fn(&Access<'_>) + Send + Sync>,
}

impl fmt::Debug for CollectorSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorSettings")
            .field("webhook_path", &self.webhook_path)
            .field("strict", &self.strict)
            .finish_non_exhaustive()
    }
}

impl Default for CollectorSettings {
    fn default() -> Self {
        Self {
            webhook_path: WEBHOOK_PATH_DEFAULT.to_owned(),
            strict: false,
            bodies_bytes_max: BODIES_BYTES_MAX,
            access: Arc::new(|_| {}),
        }
    }
}

/// An answered request, for the log.
#[derive(Debug, Clone)]
pub struct Access<'a> {
    /// Method.
    pub method: &'a str,
    /// Path and query as they came.
    pub uri: &'a str,
    /// Host as the client says it.
    pub host: &'a str,
    /// Where it came from.
    pub remote_ip: IpAddr,
    /// What the client calls itself.
    pub user_agent: &'a str,
    /// Status.
    pub status: u16,
    /// What was wrong; empty when nothing was.
    pub error: &'a str,
    /// From its first line to the answer.
    pub latency: Duration,
    /// Bytes of its body.
    pub bytes_in: usize,
    /// Bytes of the answer's.
    pub bytes_out: usize,
}

/// The collector's state. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct CollectorApp(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reports: ReportSink,
    settings: CollectorSettings,
    gate: Gate,
    meter: Meter,
    connections: Arc<ConnectionCounters>,
}

impl CollectorApp {
    /// Reports go to this sink.
    pub fn new(reports: ReportSink, settings: CollectorSettings) -> Self {
        Self(Arc::new(Inner {
            reports,
            gate: Gate::new([CONNECTIONS_MAX, 0, settings.bodies_bytes_max, 0]),
            settings,
            meter: Meter::default(),
            connections: Arc::default(),
        }))
    }

    /// What was counted by now.
    pub fn snapshot(&self) -> CollectorSnapshot {
        let connections = &self.0.connections;
        CollectorSnapshot {
            connections: connections.accepted.load(Ordering::Relaxed),
            tls_failed: connections.tls_failed.load(Ordering::Relaxed),
            idle: connections.idle.load(Ordering::Relaxed),
            resets: connections.resets.load(Ordering::Relaxed),
            ..self.0.meter.snapshot()
        }
    }
}

/// Protocols to offer by ALPN where the listener has TLS.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Serves one listener until `stop` is ready, then lets requests that have begun end.
pub async fn serve_collector(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    http2: Http2Settings,
    app: CollectorApp,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let counters = Arc::clone(&app.0.connections);
    let door = Door { listener, tls, http2, counters, gate: app.0.gate.clone() };
    door.serve(stop, move |remote, request| {
        let app = Arc::clone(&app.0);
        async move { app.answer(remote, request).await }
    })
    .await
}

/// Serves the collector's metrics until `stop` is ready.
pub async fn serve_exporter(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    metrics: MetricsApp,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let gate = Gate::new([CONNECTIONS_MAX, 0, 0, 0]);
    let door = Door { listener, tls, http2: Http2Settings::default(), counters: Arc::default(), gate };
    door.serve(stop, move |_, request: Request<Incoming>| {
        let response = match request.uri().path().trim_end_matches('/') {
            "/metrics" => metrics::answer(&metrics, text(request.headers(), &header::AUTHORIZATION)),
            _ => Answer::error(StatusCode::NOT_FOUND, "Not Found").into_response(),
        };
        async move { response }
    })
    .await
}

impl Inner {
    async fn answer(&self, remote: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let settings = &self.settings;
        let path = parts.uri.path();
        let route = route::route(
            &parts.method,
            path,
            parts.version,
            &parts.headers,
            &settings.webhook_path,
            settings.strict,
        );
        let mut bytes_in = 0;
        let answer = match route {
            Route::Report(kind) => {
                let answer = self.report(kind, remote.ip(), &parts, body, &mut bytes_in).await;
                self.meter.report(answer.status.as_u16());
                answer
            }
            Route::Health => self.health(),
            refused => self.refuse(refused, parts.method.as_str()),
        };
        let host = host(&parts);
        let took = begun.elapsed();
        let bytes_out = answer.body_bytes();
        self.meter.answered(&Answered {
            code: answer.status.as_u16(),
            method: parts.method.as_str(),
            host,
            url: route::path_label(path, &settings.webhook_path),
            took,
            request_bytes: bytes_in,
            response_bytes: bytes_out,
        });
        if route != Route::Health {
            (settings.access)(&Access {
                method: parts.method.as_str(),
                uri: parts.uri.path_and_query().map_or(path, |uri| uri.as_str()),
                host,
                remote_ip: remote.ip(),
                user_agent: text(&parts.headers, &header::USER_AGENT).unwrap_or_default(),
                status: answer.status.as_u16(),
                error: answer.message.as_deref().unwrap_or_default(),
                latency: took,
                bytes_in,
                bytes_out,
            });
        }
        answer.into_response()
    }

    async fn report(
        &self,
        kind: Kind,
        remote: IpAddr,
        parts: &Parts,
        body: Incoming,
        bytes_in: &mut usize,
    ) -> Answer {
        let (body, place) = match self.read(remote, parts, body).await {
            Ok(read) => read,
            Err(error) => return self.unread(&error),
        };
        *bytes_in = body.len();
        let report = match kohaku::parse(kind, &body) {
            Ok(report) => report,
            Err(bad) => return self.bad(&bad),
        };
        drop(body);
        let rejected = report.rejected.clone();
        let stored = self.reports.store(report).await;
        drop(place);
        match stored {
            Ok(_) => {
                for (reason, objects) in rejected {
                    self.meter.rejected(reason.name(), objects);
                }
                Answer::empty(StatusCode::NO_CONTENT)
            }
            Err(error) => self.not_stored(&error),
        }
    }

    /// All of a body, with its share of what bodies may take together.
    async fn read(&self, remote: IpAddr, parts: &Parts, body: Incoming) -> Result<(Vec<u8>, Share), Unread> {
        let length = text(&parts.headers, &header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        if length.is_some_and(|bytes: usize| bytes > BODY_BYTES_MAX) {
            return Err(Unread::TooLarge);
        }
        let reading = self.gather(remote, body);
        tokio::time::timeout(BODY_WITHIN, reading).await.unwrap_or(Err(Unread::Late))
    }

    async fn gather(&self, remote: IpAddr, mut body: Incoming) -> Result<(Vec<u8>, Share), Unread> {
        let mut gathered = Vec::new();
        let mut place = self.gate.share(gate::Kind::BodyBytes, remote);
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            if gathered.len() + bytes.len() > BODY_BYTES_MAX {
                return Err(Unread::TooLarge);
            }
            if !place.grow(bytes.len()) {
                return Err(Unread::TooMany);
            }
            gathered.extend_from_slice(&bytes);
        }
        Ok((gathered, place))
    }

    fn health(&self) -> Answer {
        match self.reports.ready() {
            Ok(()) => Answer::empty(StatusCode::NO_CONTENT),
            Err(error) if self.settings.strict => {
                Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
            }
            Err(error) => Answer::later(&error.to_string()),
        }
    }

    fn refuse(&self, route: Route, method: &str) -> Answer {
        let ours = |text| if self.settings.strict { "Bad Request" } else { text };
        match route {
            Route::NoMethod(allowed) => {
                tracing::debug!(method, "the collector does not take this method");
                let mut answer = Answer::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                answer.headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
                answer
            }
            Route::UnknownType => Answer::bad(ours(
                "unknown type of report: send x-sora-stats-exporter-type: connection.user-agent or node.erlang-vm to /collector, \
                 sora-stats-webhook-type: connection.rtc to the webhook's path",
            )),
            Route::OldHttp => Answer::bad("Bad Request"),
            // As echo says what cannot be bound.
            Route::NoJson if self.settings.strict => Answer::bad("code=415, message=Unsupported Media Type"),
            Route::NoJson => {
                Answer::bad("the body must be application/json, and its content-type must say so")
            }
            Route::NoPath | Route::Report(_) | Route::Health => {
                Answer::error(StatusCode::NOT_FOUND, "Not Found")
            }
        }
    }

    fn unread(&self, error: &Unread) -> Answer {
        let text = error.to_string();
        match error {
            _ if self.settings.strict => Answer::bad(&text),
            Unread::TooLarge => Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &text),
            Unread::Late => Answer::error(StatusCode::REQUEST_TIMEOUT, &text),
            Unread::TooMany => Answer::later(&text),
            Unread::Broken => Answer::bad(&text),
        }
    }

    fn bad(&self, bad: &kohaku::BadReport) -> Answer {
        if !self.settings.strict {
            return Answer::bad(&bad.to_string());
        }
        let text = bad.kohaku();
        if text.contains(FALLS_OVER) {
            return Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
        }
        Answer::bad(&text)
    }

    fn not_stored(&self, error: &NotStored) -> Answer {
        let text = error.to_string();
        match error {
            NotStored::Unfit(_) => Answer::bad(&text),
            _ if self.settings.strict => Answer::bad(&text),
            NotStored::Busy | NotStored::Full(_) | NotStored::Gone => Answer::later(&text),
        }
    }
}

/// Of a report without `simulcast`: Kohaku wanted to log its value, and there is none.
const FALLS_OVER: &str = "for 'Simulcast' failed on the 'required' tag";

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the body is over {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("no whole body within {} s", BODY_WITHIN.as_secs())]
    Late,
    #[error("too many reports are being read; send it again later")]
    TooMany,
    #[error("the body ended before it was whole")]
    Broken,
}

/// Status and text, in the form of Kohaku's framework.
struct Answer {
    status: StatusCode,
    message: Option<String>,
    headers: HeaderMap,
}

impl Answer {
    fn empty(status: StatusCode) -> Self {
        Self { status, message: None, headers: HeaderMap::new() }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self { status, message: Some(message.to_owned()), headers: HeaderMap::new() }
    }

    fn bad(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, message)
    }

    /// 503, to be tried again.
    fn later(message: &str) -> Self {
        let mut answer = Self::error(StatusCode::SERVICE_UNAVAILABLE, message);
        answer.headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        answer
    }

    fn body(&self) -> String {
        let json = |message| format!("{}\n", serde_json::json!({ "message": message }));
        self.message.as_ref().map(json).unwrap_or_default()
    }

    fn body_bytes(&self) -> usize {
        self.body().len()
    }

    fn into_response(self) -> Response<Body> {
        let body = self.body();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if self.message.is_some() {
            let json = HeaderValue::from_static("application/json; charset=UTF-8");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        response
    }
}

/// `:authority` of HTTP/2, `Host` of HTTP/1.1.
fn host(parts: &Parts) -> &str {
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    authority.or_else(|| text(&parts.headers, &header::HOST)).unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
