//! The listening side: every request goes through LiveKit's order of checks, whatever its path.

use crate::api::client_stats::{self, ClientStats};
use crate::api::rtcstats;
use crate::backend::{Backend, Records};
use crate::{api, meet, page, rtc};
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::{Request, Response, StatusCode, request::Parts};
use fanlight_base::Now;
use fanlight_livekit::admission::{self, Step};
use fanlight_livekit::http_rules::{self, Answer, HttpRequest};
use fanlight_livekit::server::Server;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A request's head comes within this, or the connection is closed: half a request costs its sender nothing and us a
/// descriptor.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// And its body.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Connections of one listener, WebSockets included; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 65_536;
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
    /// When the media side last gave a sign of life.
    pub alive: Arc<dyn Fn() -> Now + Send + Sync>,
    /// Serve `/meet`.
    pub meet: bool,
    /// Takes what pages say of their connections; `None` when nothing keeps it.
    pub client_stats: Option<Arc<ClientStats>>,
    /// Give tokens to the page, and the record, to this machine without asking.
    pub dev: bool,
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

/// Serves one listener until `stop` is ready; open WebSockets are not waited for.
pub async fn serve(
    listener: TcpListener,
    app: App,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    serve_with(listener, stop, move |remote, request: Request<Incoming>| {
        handle(app.clone(), remote, request.map(Body::new))
    })
    .await
}

/// Serves one listener until `stop` is ready; `answer` gets each request with the address it came from.
pub(crate) async fn serve_with<A>(
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
    answer: impl Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
) -> Result<(), ServeError>
where
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let address = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
    let builder = patient_for_a_while();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::pin!(stop);
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let (stream, remote) = tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(source) if is_passing(&source) => {
                    tracing::warn!(%address, %source, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                Err(source) => return Err(ServeError { address, source }),
            },
        };
        // Signalling is small messages that somebody waits for.
        let _ = stream.set_nodelay(true);
        let (builder, answer) = (builder.clone(), answer.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(remote, request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            // A client that breaks off, or says nothing in time, is not worth a word.
            let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            drop(place);
        });
    }
}

/// What speaks HTTP on a connection, within time limits.
fn patient_for_a_while() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
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
    let body = match tokio::time::timeout(BODY_WITHIN, to_bytes(body, http_rules::BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return respond(Answer::text(
                413,
                format!("the body is over {} bytes", http_rules::BODY_BYTES_MAX),
            ));
        }
        Err(_) => {
            return respond(Answer::text(408, format!("no whole body within {} s", BODY_WITHIN.as_secs())));
        }
    };
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app).await.ok();
    let headers = header_pairs(&parts);
    let http = HttpRequest {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers: &headers,
        body: &body,
        remote: Some(remote.ip()),
    };
    let now = (app.now)();
    match admission::step(&app.server, now, &http) {
        Step::Answer(answer) => respond(answer),
        Step::Health => respond(with_cors(&http, http_rules::health(now, (app.alive)()))),
        Step::Validate(admission) => {
            let (room, may_create) = (admission.request.room.clone(), admission.request.may_create);
            match app.backend.check(room, may_create).await {
                Ok(checked) => respond(admission::validated(&http, checked)),
                Err(error) => respond(with_cors(&http, Answer::text(503, error.to_string()))),
            }
        }
        Step::Join(admission) => match upgrade {
            Some(upgrade) => rtc::join(&app, upgrade, *admission)
                .await
                .unwrap_or_else(|refusal| respond(with_cors(&http, refusal))),
            None => respond(with_cors(&http, Answer::empty(404))),
        },
        Step::RefuseResume(setup) => match upgrade {
            Some(upgrade) => rtc::refuse_resume(&app, upgrade, *setup),
            None => respond(with_cors(&http, Answer::empty(404))),
        },
        Step::Pass { path, token } if path == client_stats::PATH => {
            respond(with_cors(&http, client_stats::answer(&app, &http, token.as_deref()).await))
        }
        Step::Pass { path, token } if rtcstats::is_path(&path) => {
            rtcstats::answer(&app, &http, upgrade, token.as_deref())
        }
        Step::Pass { path, token } if path.starts_with(api::PREFIX) => {
            api::answer(&app, &http, &path, token.as_deref()).await
        }
        Step::Pass { path, .. } => pass(&app, &http, &path, remote),
    }
}

fn pass(app: &App, http: &HttpRequest<'_>, path: &str, remote: SocketAddr) -> Response<Body> {
    let not_found = || respond(with_cors(http, http_rules::not_found()));
    match path {
        "/meet/token" if app.meet && app.dev && remote.ip().is_loopback() => meet::token(app, http),
        _ if path.starts_with("/meet") && !app.meet => not_found(),
        _ => page::file(http.method, path).unwrap_or_else(not_found),
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
