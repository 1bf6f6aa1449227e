//! Sora's exporter: reports over HTTP/2 by prior knowledge, many streams on some connections.

use super::bodies::Bodies;
use crate::Failure;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// What goes wrong in a task, which must be able to change threads.
pub(super) type Trouble = String;

/// Connections to one collector. Cheap to clone.
#[derive(Clone)]
pub(super) struct Exporter {
    connections: Arc<[SendRequest<Bytes>]>,
    address: SocketAddr,
    pub(super) bodies: Arc<Bodies>,
}

/// How a report was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// 204
    Taken,
    /// 503, to be sent again.
    Later,
}

/// A report of which a part is sent.
pub(super) struct Begun {
    answer: ResponseFuture,
    body: SendStream<Bytes>,
    rest: Bytes,
}

/// The sender's own thread is the one that asks for this.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

impl Exporter {
    pub(super) async fn connect(address: SocketAddr, connections: usize) -> Result<Self, Failure> {
        let mut senders = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = h2::client::handshake(stream).await?;
            // When it ends, whoever waits for an answer on it hears of it.
            tokio::spawn(connection);
            senders.push(sender);
        }
        Ok(Self { connections: senders.into(), address, bodies: Arc::new(Bodies::new()) })
    }

    /// Sends a report whole, and waits for the answer.
    pub(super) async fn post(&self, peer: u64, step: u64) -> Result<Answer, Trouble> {
        self.begin(peer, step, 1.0).await?.finish().await
    }

    /// Sends the first part of a report.
    pub(super) async fn begin(&self, peer: u64, step: u64, part: f64) -> Result<Begun, Trouble> {
        let mut rest = Bytes::from(self.bodies.body(peer, step));
        let first = rest.split_to((rest.len() as f64 * part) as usize);
        let request = Request::post(format!("http://{}/collector", self.address))
            .header(CONTENT_TYPE, "application/json")
            .header("x-sora-stats-exporter-type", "connection.user-agent")
            .body(())
            .map_err(said)?;
        let place = peer as usize % self.connections.len();
        let connection = self.connections.get(place).ok_or("there is no connection")?;
        let mut connection = connection.clone().ready().await.map_err(said)?;
        let (answer, mut body) = connection.send_request(request, false).map_err(said)?;
        body.send_data(first, rest.is_empty()).map_err(said)?;
        Ok(Begun { answer, body, rest })
    }

    /// So many peers report once a step, each as soon as its last report is answered.
    pub(super) async fn steps(&self, peers: u64, steps: std::ops::Range<u64>) -> Result<(), Failure> {
        let mut tasks = JoinSet::new();
        for peer in 0..peers {
            let (exporter, steps) = (self.clone(), steps.clone());
            tasks.spawn(async move {
                for step in steps {
                    if exporter.post(peer, step).await? != Answer::Taken {
                        return Err("a report is refused although the database is there".to_owned());
                    }
                }
                Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }
}

impl Begun {
    /// Sends what is left, and waits for the answer.
    pub(super) async fn finish(mut self) -> Result<Answer, Trouble> {
        if !self.rest.is_empty() {
            self.body.send_data(self.rest, true).map_err(said)?;
        }
        let response: Response<RecvStream> = self.answer.await.map_err(said)?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(Answer::Taken),
            StatusCode::SERVICE_UNAVAILABLE if response.headers().contains_key(RETRY_AFTER) => {
                Ok(Answer::Later)
            }
            other => Err(format!("the collector answers {other}, and neither 204 nor 503 with Retry-After")),
        }
    }
}

pub(super) fn said(error: impl std::fmt::Display) -> Trouble {
    error.to_string()
}
