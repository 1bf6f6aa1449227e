//! Connections: HTTP/1.1 and HTTP/2 on one port, with or without TLS, idle ones and those that misuse resets closed.

use super::limits::{
    BUFFER_BYTES_MAX, CONNECTION_WINDOW_BYTES, HANDSHAKE_WITHIN, HEADERS_BYTES_MAX, RESETS_MAX, STOP_WITHIN,
    STREAM_WINDOW_BYTES,
};
use crate::app::{ACCEPT_PAUSE, ServeError, accept_failed, is_passing};
use crate::gate::Gate;
use crate::tally::Tally;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

/// How connections are spoken with.
#[derive(Debug, Clone)]
pub struct Http2Settings {
    /// Streams that one connection may have open.
    pub concurrent_streams: u32,
    /// Largest frame that is taken, in bytes.
    pub frame_bytes: u32,
    /// A connection without a request is closed after this.
    pub idle: Duration,
}

impl Default for Http2Settings {
    fn default() -> Self {
        use super::limits::{FRAME_BYTES_DEFAULT, IDLE_DEFAULT, STREAMS_DEFAULT};
        Self { concurrent_streams: STREAMS_DEFAULT, frame_bytes: FRAME_BYTES_DEFAULT, idle: IDLE_DEFAULT }
    }
}

/// What a listener counts.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounters {
    pub(super) accepted: AtomicU64,
    pub(super) tls_failed: AtomicU64,
    pub(super) idle: AtomicU64,
    pub(super) resets: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One listener, as it is served.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) http2: Http2Settings,
    pub(super) counters: Arc<ConnectionCounters>,
    pub(super) gate: Gate,
}

impl Door {
    /// Serves until `stop` is ready, then lets requests that have begun end.
    pub(super) async fn serve<A>(
        self,
        stop: impl Future<Output = ()> + Send,
        answer: impl Fn(SocketAddr, Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    ) -> Result<(), ServeError>
    where
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let address = self.listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
        let mut troubles = Tally::default();
        let (say_stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(source) if is_passing(&source) => {
                    accept_failed(&mut troubles, address, &source);
                    tokio::select! {
                        () = &mut stop => break,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    }
                }
                Err(source) => return Err(ServeError { address, source }),
            };
            let Some(place) = self.gate.enter(remote.ip()) else { continue };
            count(&self.counters.accepted);
            let answer = answer.clone();
            let talk = Talk::new(&self.http2, Arc::clone(&self.counters), stopped.clone());
            let tls = self.tls.clone();
            connections.spawn(async move {
                talk.begin(tls, stream, move |request| answer(remote, request)).await;
                drop(place);
            });
        }
        drop(self.listener);
        let _ = say_stop.send(true);
        let _ = timeout(STOP_WITHIN, async { while connections.join_next().await.is_some() {} }).await;
        Ok(())
    }
}

/// One connection.
struct Talk {
    http2: Http2Settings,
    counters: Arc<ConnectionCounters>,
    stopped: watch::Receiver<bool>,
    requests: Arc<Requests>,
}

/// What is known of a connection's requests.
#[derive(Default)]
struct Requests {
    open: AtomicU64,
    answered: AtomicU64,
    given_up: AtomicU64,
    changed: Notify,
}

/// One request; dropped before it is answered when the client gives it up.
struct OpenRequest {
    requests: Arc<Requests>,
    answered: bool,
}

impl OpenRequest {
    fn new(requests: &Arc<Requests>) -> Self {
        count(&requests.open);
        requests.changed.notify_one();
        Self { requests: Arc::clone(requests), answered: false }
    }

    /// Its answer is there.
    fn end(mut self) {
        self.answered = true;
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        count(if self.answered { &self.requests.answered } else { &self.requests.given_up });
        self.requests.open.fetch_sub(1, Ordering::Relaxed);
        self.requests.changed.notify_one();
    }
}

impl Talk {
    fn new(http2: &Http2Settings, counters: Arc<ConnectionCounters>, stopped: watch::Receiver<bool>) -> Self {
        Self { http2: http2.clone(), counters, stopped, requests: Arc::default() }
    }

    async fn begin<A>(
        self,
        tls: Option<Arc<ServerConfig>>,
        stream: TcpStream,
        answer: impl Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    ) where
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.go_on(stream, answer).await };
        match timeout(HANDSHAKE_WITHIN, TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => self.go_on(stream, answer).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                count(&self.counters.tls_failed);
            }
            Err(_) => count(&self.counters.tls_failed),
        }
    }

    async fn go_on<A>(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        answer: impl Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    ) where
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let requests = Arc::clone(&self.requests);
        let service = service_fn(move |request| {
            let open = OpenRequest::new(&requests);
            let response = answer(request);
            async move {
                let response = response.await;
                open.end();
                Ok::<_, Infallible>(response)
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut deadline = Instant::now() + self.http2.idle;
        let requests = &*self.requests;
        loop {
            let idle = requests.open.load(Ordering::Relaxed) == 0;
            tokio::select! {
                // A client that breaks off is not worth a word.
                _ = connection.as_mut() => return,
                () = requests.changed.notified() => {
                    deadline = Instant::now() + self.http2.idle;
                    let answered = requests.answered.load(Ordering::Relaxed);
                    if requests.given_up.load(Ordering::Relaxed) > answered.saturating_add(RESETS_MAX) {
                        count(&self.counters.resets);
                        return;
                    }
                }
                () = sleep_until(deadline), if idle => {
                    count(&self.counters.idle);
                    break;
                }
                _ = self.stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(STOP_WITHIN, connection).await;
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // Counts from the last answer, so it is also how long a connection may be idle.
            .header_read_timeout(self.http2.idle)
            .max_buf_size(BUFFER_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.http2.concurrent_streams)
            .max_frame_size(self.http2.frame_bytes)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// What a client of HTTP/2 begins with: the preface and empty SETTINGS.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_whole_is_not_waited_for() {
        for half in [&b""[..], b"PRI * HT", b"POST /collector HTTP/1.1\r\nHost: x\r\n", PREFACE] {
            let counters = Arc::new(ConnectionCounters::default());
            let (mut client, server) = duplex(64 * 1024);
            client.write_all(half).await.unwrap();
            let (_say_stop, stopped) = watch::channel(false);
            let settings = Http2Settings::default();
            let talk = Talk::new(&settings, Arc::clone(&counters), stopped);
            let begun = Instant::now();
            talk.go_on(server, |_| async { Response::new(Body::empty()) }).await;
            assert!(begun.elapsed() >= settings.idle, "{half:?}: Sora's connections may be idle for so long");
            assert!(begun.elapsed() <= settings.idle + STOP_WITHIN * 2, "{half:?}");
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_stops_ends_idle_connections() {
        let (_client, server) = duplex(1024);
        let (say_stop, stopped) = watch::channel(false);
        let talk = Talk::new(&Http2Settings::default(), Arc::default(), stopped);
        let begun = Instant::now();
        say_stop.send(true).unwrap();
        talk.go_on(server, |_| async { Response::new(Body::empty()) }).await;
        assert!(begun.elapsed() <= STOP_WITHIN);
    }
}
