//! The listening side: every request goes through LiveKit's order of checks, whatever its path.

use crate::api::client_stats::{self, ClientStats};
use crate::api::rtcstats;
use crate::backend::{Backend, Records};
use crate::body::{BodyError, Unread};
use crate::gate::Gate;
use crate::stream::{Beside, Slot, Stream};
use crate::tally::Tally;
use crate::{api, meet, page, rtc};
use axum::body::Body;
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::{Request, Response, StatusCode, request::Parts};
use fanlight_base::Now;
use fanlight_livekit::admission::{self, Step};
use fanlight_livekit::head::HEAD_BYTES_MAX;
use fanlight_livekit::http_rules::{self, Answer, HttpRequest, NodeHealth};
use fanlight_livekit::server::Server;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A request's head comes within this, or the connection is closed: half a request costs its sender nothing and us a
/// descriptor.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// What is read at once of a request: its head as [`Stream`] hands it on, and a field of its own.
const BUFFER_BYTES_MAX: usize = HEAD_BYTES_MAX + 16 * 1024;
/// Pause after a connection could not be taken.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every handler needs.
#[derive(Clone)]
pub struct App {
    /// LiveKit's settings of this node.
    pub server: Arc<Server>,
    /// The way to `control`.
    pub backend: Backend,
    /// The way to the record.
    pub record: Records,
    /// Reads the clock.
    pub now: Arc<dyn Fn() -> Now + Send + Sync>,
    /// How the process fares.
    pub health: Arc<dyn Fn() -> NodeHealth + Send + Sync>,
    /// Serve `/meet`.
    pub meet: bool,
    /// Takes what pages say of their connections; `None` when nothing keeps it.
    pub client_stats: Option<Arc<ClientStats>>,
    /// Give tokens to the page, and the record, to this machine without asking.
    pub dev: bool,
    /// What connections hold together.
    pub gate: Gate,
}

/// HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("HTTP on {address} ended: {source}")]
pub struct ServeError {
    /// Which listener.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// Serves one listener until `stop` is ready: requests that have begun are answered, nothing is waited for.
pub async fn serve(
    listener: TcpListener,
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let gate = app.gate.clone();
    serve_with(listener, gate, stop, move |remote, request: Request<Incoming>| {
        handle(app.clone(), remote, request.map(Body::new))
    })
    .await
}

/// Serves one listener until `stop` is ready; `answer` gets each request with the address it came from.
pub(crate) async fn serve_with<A>(
    listener: TcpListener,
    gate: Gate,
    stop: impl Future<Output = ()> + Send + 'static,
    answer: impl Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
) -> Result<(), ServeError>
where
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let address = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
    let mut stop = pin!(stop);
    let mut troubles = Tally::default();
    // Connections see the end of this task as the stop.
    let (_serving, stopped) = watch::channel(());
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(source) if is_passing(&source) => {
                accept_failed(&mut troubles, address, &source);
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                }
            }
            Err(source) => return Err(ServeError { address, source }),
        };
        let Some(place) = gate.enter(remote.ip()) else { continue };
        // Signalling is small messages that somebody waits for.
        let _ = stream.set_nodelay(true);
        let (stream, slot) = Stream::new(stream, &gate, remote.ip(), Some(place));
        let visit = Visit { gate: gate.clone(), remote, slot, stopped: stopped.clone() };
        tokio::spawn(visit.run(stream, answer.clone()));
    }
}

/// Says that no connection could be taken, but not each time.
pub(crate) fn accept_failed(troubles: &mut Tally, address: SocketAddr, source: &std::io::Error) {
    if let Some(count) = troubles.count(Instant::now()) {
        tracing::warn!(%address, count, %source, "cannot take connections");
    }
}

/// One connection.
struct Visit {
    gate: Gate,
    remote: SocketAddr,
    slot: Slot,
    stopped: watch::Receiver<()>,
}

impl Visit {
    async fn run<S, A>(
        self,
        stream: Stream<S>,
        answer: impl Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let Self { gate, remote, slot, mut stopped } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let Beside { refused, query } = slot.take();
            if let Some(query) = query {
                request.extensions_mut().insert(LongQuery(query.into()));
            }
            let (answer, gate) = (answer.clone(), gate.clone());
            // `hyper` keeps room for what answers as long as the connection lives: of one that says nothing, room for a pointer.
            Box::pin(async move {
                let response = match refused {
                    Some(refused) => respond(Answer::text(refused.status(), refused.to_string())),
                    None => answer(remote, request).await,
                };
                gate.answered(remote.ip(), response.status().as_u16());
                Ok::<_, Infallible>(response)
            })
        });
        let builder = patient_for_a_while();
        let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
        // A client that breaks off, or says nothing in time, is not worth a word.
        tokio::select! {
            _ = served.as_mut() => return,
            _ = stopped.changed() => served.as_mut().graceful_shutdown(),
        }
        let _ = served.await;
    }
}

/// A query that no `Uri` holds.
#[derive(Debug, Clone)]
struct LongQuery(Arc<str>);

/// What speaks HTTP on a connection, within time limits.
fn patient_for_a_while() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_buf_size(BUFFER_BYTES_MAX);
    builder
}

/// Whether accepting can go on: the connection was broken off, or there are no descriptors just now.
pub(crate) fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    /// `EMFILE` and `ENFILE`.
    const NO_DESCRIPTORS: [i32; 2] = [24, 23];
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
        || error.raw_os_error().is_some_and(|code| NO_DESCRIPTORS.contains(&code))
}

async fn handle(app: App, remote: SocketAddr, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app).await.ok();
    let long_query = parts.extensions.remove::<LongQuery>();
    let headers = header_pairs(&parts);
    let mut http = HttpRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: long_query.as_ref().map_or_else(|| parts.uri.query().unwrap_or_default(), |long| &long.0),
        headers: &headers,
        body: &[],
        remote: Some(remote.ip()),
    };
    let body = Unread::new(body, &app.gate, remote.ip(), http.header("content-length"));
    match admission::wants_form(&app.server, (app.now)(), &http) {
        Ok(false) => route(&app, &http, remote.ip(), upgrade, body).await,
        Ok(true) => match body.read(http_rules::FORM_BYTES_MAX).await {
            Ok(form) => {
                http.body = &form.bytes;
                let nothing = Unread::new(Body::empty(), &app.gate, remote.ip(), None);
                route(&app, &http, remote.ip(), upgrade, nothing).await
            }
            Err(error) => respond(with_cors(&http, unread(&error))),
        },
        Err(refusal) => respond(refusal),
    }
}

/// The answer to a body that was not read.
pub(crate) fn unread(error: &BodyError) -> Answer {
    Answer::text(error.status(), error.to_string())
}

async fn route(
    app: &App,
    http: &HttpRequest<'_>,
    remote: IpAddr,
    upgrade: Option<WebSocketUpgrade>,
    body: Unread,
) -> Response<Body> {
    let now = (app.now)();
    match admission::step(&app.server, now, http) {
        Step::Answer(answer) => respond(answer),
        Step::Health => respond(with_cors(http, http_rules::health(now, &(app.health)()))),
        Step::Validate(admission) => {
            let (room, may_create) = (admission.request.room.clone(), admission.request.may_create);
            match app.backend.check(room, may_create).await {
                Ok(checked) => respond(admission::validated(http, checked)),
                Err(error) => respond(with_cors(http, Answer::text(503, error.to_string()))),
            }
        }
        Step::Join(admission) => match upgrade {
            Some(upgrade) => rtc::join(app, upgrade, *admission, remote)
                .await
                .unwrap_or_else(|refusal| respond(with_cors(http, refusal))),
            None => respond(with_cors(http, Answer::empty(404))),
        },
        Step::RefuseResume(setup) => match upgrade {
            Some(upgrade) => rtc::refuse_resume(app, upgrade, *setup, remote),
            None => respond(with_cors(http, Answer::empty(404))),
        },
        Step::Pass { path, token } if path == client_stats::PATH => {
            respond(with_cors(http, client_stats::answer(app, http, token.as_deref(), body).await))
        }
        Step::Pass { path, token } if rtcstats::is_path(&path) => {
            rtcstats::answer(app, http, upgrade, token.as_deref())
        }
        Step::Pass { path, token } if path.starts_with(api::PREFIX) => {
            api::answer(app, http, &path, token.as_deref()).await
        }
        Step::Pass { path, .. } if path == "/meet/token" && app.meet && app.dev => {
            meet::token(app, http, body).await
        }
        Step::Pass { path, .. } => pass(app, http, &path),
    }
}

fn pass(app: &App, http: &HttpRequest<'_>, path: &str) -> Response<Body> {
    let not_found = || respond(with_cors(http, http_rules::not_found()));
    match path {
        _ if path.starts_with("/meet") && !app.meet => not_found(),
        _ => page::file(http, path).unwrap_or_else(not_found),
    }
}

/// Turns a pure answer into a response.
pub(crate) fn respond(answer: Answer) -> Response<Body> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(answer.body)).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer cannot be sent as it is");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

fn with_cors(http: &HttpRequest<'_>, answer: Answer) -> Answer {
    http_rules::cors(http).into_iter().fold(answer, |answer, (name, value)| answer.with(name, value))
}

/// Headers whose values are text; others do not matter to any rule.
fn header_pairs(parts: &Parts) -> Vec<(&str, &str)> {
    parts.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn half_a_request_is_not_waited_for() {
        for half in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: example.org\r\n"] {
            let (mut client, server) = duplex(1024);
            client.write_all(half.as_bytes()).await.unwrap();
            let service = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Body::empty()))
            });
            let builder = patient_for_a_while();
            let served = builder.serve_connection(TokioIo::new(server), service).with_upgrades();
            let ended = tokio::time::timeout(HEADERS_WITHIN * 2, served).await;
            assert!(ended.is_ok(), "still waiting after {half:?}");
        }
    }
}
