//! The listener that Prometheus reads: any path answers, as with LiveKit.

use crate::app::{ServeError, serve_with};
use crate::gate::Gate;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanlight_base::Redacted;
use hyper::body::Incoming;
use std::future::Future;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Text format 0.0.4.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is served, and to whom.
#[derive(Clone)]
pub struct MetricsApp {
    /// Makes the text; an error is what keeps it from that.
    pub text: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// User and password of basic authentication; `None` serves everybody.
    pub login: Option<(String, Redacted<String>)>,
}

/// Serves one listener until `stop` is ready.
pub async fn serve_metrics(
    listener: TcpListener,
    app: MetricsApp,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    serve_with(listener, Gate::default(), stop, move |_, request: Request<Incoming>| {
        let response =
            answer(&app, request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()));
        async move { response }
    })
    .await
}

pub(crate) fn answer(app: &MetricsApp, authorization: Option<&str>) -> Response<Body> {
    let empty = |status| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    };
    if let Some((user, password)) = &app.login
        && !is_login(authorization.unwrap_or_default(), user, password.reveal())
    {
        let mut response = empty(StatusCode::UNAUTHORIZED);
        let challenge = header::HeaderValue::from_static("Basic realm=\"metrics\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    match (app.text)() {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            let kind = header::HeaderValue::from_static(CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// RFC 7617. The comparison takes as long whatever is wrong, so that nothing is learnt from its time.
fn is_login(authorization: &str, user: &str, password: &str) -> bool {
    let given = match authorization.split_once(' ') {
        Some((scheme, text)) if scheme.eq_ignore_ascii_case("basic") => STANDARD.decode(text.trim()),
        _ => return false,
    };
    let wanted = format!("{user}:{password}");
    given.is_ok_and(|given| {
        let differing = given.iter().zip(wanted.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        given.len() == wanted.len() && differing == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(login: Option<(&str, &str)>) -> MetricsApp {
        let login = login.map(|(user, password)| (user.to_owned(), Redacted::new(password.to_owned())));
        MetricsApp { text: Arc::new(|| Ok("a 1\n".to_owned())), login }
    }

    #[test]
    fn without_a_login_everybody_may_read() {
        let response = answer(&app(None), None);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
    }

    #[test]
    fn with_a_login_nobody_else_may() {
        let app = app(Some(("prom", "s:ecret")));
        let status = |text: &str| {
            let authorization = format!("Basic {}", STANDARD.encode(text));
            answer(&app, Some(&authorization)).status()
        };
        assert_eq!(status("prom:s:ecret"), StatusCode::OK);
        for wrong in ["prom:s:ecre", "prom:s:ecret ", "prom:", "", ":", "other:s:ecret"] {
            assert_eq!(status(wrong), StatusCode::UNAUTHORIZED, "{wrong}");
        }
        for wrong in [None, Some("Bearer x"), Some("Basic"), Some("Basic %%%")] {
            assert_eq!(answer(&app, wrong).status(), StatusCode::UNAUTHORIZED, "{wrong:?}");
        }
    }
}
