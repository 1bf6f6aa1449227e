//! The listening side: every request goes through LiveKit's order of checks, whatever its path.

use crate::backend::Backend;
use crate::{meet, rtc};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, State, WebSocketUpgrade};
use axum::http::{Request, Response, StatusCode, request::Parts};
use fanlight_base::Now;
use fanlight_livekit::admission::{self, Step};
use fanlight_livekit::http_rules::{self, Answer, HttpRequest};
use fanlight_livekit::server::Server;
use fanlight_livekit::token::Token;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What every handler needs.
#[derive(Clone)]
pub struct App {
    /// LiveKit's settings of this node.
    pub server: Arc<Server>,
    /// The way to `control`.
    pub backend: Backend,
    /// Reads the clock.
    pub now: Arc<dyn Fn() -> Now + Send + Sync>,
    /// When the media side last gave a sign of life.
    pub alive: Arc<dyn Fn() -> Now + Send + Sync>,
    /// Serve `/meet`.
    pub meet: bool,
    /// Give tokens to the page on this machine without asking.
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
    let address = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
    let service =
        Router::new().fallback(handle).with_state(app).into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        ended = axum::serve(listener, service).into_future() => {
            ended.map_err(|source| ServeError { address, source })
        }
        () = stop => Ok(()),
    }
}

async fn handle(
    State(app): State<App>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, http_rules::BODY_BYTES_MAX).await else {
        return respond(Answer::text(413, format!("the body is over {} bytes", http_rules::BODY_BYTES_MAX)));
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
        Step::Pass { path, token } => pass(&app, &http, &path, remote, token.as_deref()),
    }
}

fn pass(
    app: &App,
    http: &HttpRequest<'_>,
    path: &str,
    remote: SocketAddr,
    _token: Option<&Token>,
) -> Response<Body> {
    let not_found = || respond(with_cors(http, http_rules::not_found()));
    if !app.meet {
        return not_found();
    }
    match path {
        "/meet/token" if app.dev && remote.ip().is_loopback() => meet::token(app, http),
        _ => meet::file(http.method, path).unwrap_or_else(not_found),
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
