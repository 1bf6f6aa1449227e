//! A listener that coturn's `redis-statsdb` takes for a Redis server: nothing between coturn and the record can lose a
//! message, and a killed coturn is noticed at once.

use super::health::{InputGauge, InputHealth};
use super::nodes::{Nodes, name};
use super::redis_url::RedisUrl;
use super::tee::{Command, Tee, TeeTask, tee};
use crate::sender::EventSender;
use crate::writer::now;
use fanlight_base::{Random, Redacted};
use fanlight_events::Event;
use fanlight_events::turn::TurnInput;
use fanlight_telemetry::decode::coturn::{Message, read};
use fanlight_telemetry::decode::release::Release;
use fanlight_telemetry::decode::resp::{Connection, Said};
use smol_str::SmolStr;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A coturn has one connection for each of its threads, at most some 260; this is a fleet of them.
const CONNECTIONS_MAX: usize = 4_096;
/// Pause while the record takes nothing: coturn's sockets fill meanwhile, and it waits in turn.
const FULL_PAUSE: Duration = Duration::from_millis(10);
/// A connection that does not read its answers for so long is closed: coturn opens another one with its next message.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// coturn says AUTH as soon as it is connected; who does not say the password by then holds a place for nothing.
const AUTH_LIMIT: Duration = Duration::from_secs(10);

/// What a listener is made with.
#[derive(Debug, Clone)]
pub struct RespSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What coturn has to say with AUTH.
    pub password: Option<Redacted<String>>,
    /// Release of the coturns.
    pub release: Option<Release>,
    /// To whom everything is repeated.
    pub tee: Option<TeeSettings>,
}

/// A Redis server behind the listener.
#[derive(Debug, Clone)]
pub struct TeeSettings {
    /// The Redis server.
    pub url: RedisUrl,
    /// For pauses.
    pub random: Random,
}

/// The listener; it ends when it is dropped with the task that runs it.
#[derive(Debug)]
pub struct RespListener {
    listener: TcpListener,
    shared: Arc<Shared>,
    tee: Option<TeeTask>,
}

#[derive(Debug)]
struct Shared {
    password: Option<Redacted<String>>,
    release: Option<Release>,
    events: EventSender,
    nodes: Nodes,
    gauge: InputGauge,
    tee: Option<Tee>,
    places: Arc<Semaphore>,
}

impl RespListener {
    /// Begins to listen; from then on it is listed in `health`.
    pub async fn bind(settings: RespSettings, events: EventSender, health: &InputHealth) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.address).await?;
        let gauge = health.add("resp", listener.local_addr()?.to_string());
        let (tee, task) = settings.tee.map(|to| tee(to.url, gauge.clone(), to.random)).unzip();
        let shared = Shared {
            password: settings.password.filter(|password| !password.reveal().is_empty()),
            release: settings.release,
            events,
            nodes: Nodes::default(),
            gauge,
            tee,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        Ok(Self { listener, shared: Arc::new(shared), tee: task })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the task is aborted.
    pub async fn run(self) {
        let mut tee = JoinSet::new();
        if let Some(task) = self.tee {
            tee.spawn(task.run());
        }
        loop {
            let (stream, remote) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of coturn");
                    tokio::time::sleep(FULL_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
                self.shared.gauge.refused();
                continue;
            };
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let release = shared.release;
                let mut peer = Peer { shared, remote, node: None, release, reports: false };
                if let Err(error) = peer.serve(stream).await {
                    tracing::warn!(%remote, %error, "a connection to the coturn listener ended");
                }
                peer.leave().await;
                drop(place);
            });
        }
    }
}

struct Peer {
    shared: Arc<Shared>,
    remote: SocketAddr,
    node: Option<SmolStr>,
    release: Option<Release>,
    reports: bool,
}

impl Peer {
    async fn serve(&mut self, mut stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let password = self.shared.password.as_ref().map(|password| password.reveal().clone());
        let mut connection = Connection::new(password);
        let (mut bytes, mut answers) = (vec![0; 16 << 10], Vec::new());
        let auth_by = tokio::time::Instant::now() + AUTH_LIMIT;
        loop {
            let reading = stream.read(&mut bytes);
            let len = if connection.is_authorised() {
                reading.await?
            } else {
                tokio::time::timeout_at(auth_by, reading)
                    .await
                    .inspect_err(|_| self.shared.gauge.refused())??
            };
            if len == 0 {
                return Ok(());
            }
            let said = connection.handle_bytes(&bytes[..len], &mut answers).inspect_err(|_| {
                self.shared.gauge.broken();
            })?;
            for said in said {
                self.take(&connection, said).await;
            }
            tokio::time::timeout(ANSWER_LIMIT, stream.write_all(&answers)).await??;
            answers.clear();
        }
    }

    async fn take(&mut self, connection: &Connection, said: Said) {
        let name = name(self.remote.ip(), &connection.user, connection.database);
        match said {
            Said::Named => self.join(name).await,
            Said::Started => {
                self.join(name.clone()).await;
                if self.shared.nodes.starts(&name, Instant::now()) {
                    self.repeat(connection, || Command::Sweep);
                    self.tell(TurnInput::NodeStarted(name)).await;
                }
            }
            // The accounting takes what is published, which is the same.
            Said::Set { key, value } => self.repeat(connection, || Command::Set { key, value }),
            Said::Deleted { key } => self.repeat(connection, || Command::Delete { key }),
            Said::Published { channel, payload } => {
                self.join(name.clone()).await;
                self.published(name, &channel, &payload).await;
                self.repeat(connection, || Command::Publish { channel, payload });
            }
        }
    }

    async fn published(&mut self, node: SmolStr, channel: &str, payload: &str) {
        let unix_ms = now().unix_ms();
        if !std::mem::replace(&mut self.reports, true) {
            self.shared.nodes.reports(&node);
        }
        match read(channel, payload) {
            Ok(Message::Event(name, event)) => {
                self.shared.gauge.message(unix_ms);
                let event = match self.release {
                    Some(release) => release.correct(event),
                    None => event,
                };
                self.tell(TurnInput::Event { node: Some(node), name, event }).await;
            }
            Ok(Message::Heartbeat) => {
                // Whatever is configured for the others, this one is old.
                self.release = Some(Release::WITH_HEARTBEAT);
                self.shared.gauge.heard(unix_ms);
            }
            Err(error) => {
                self.shared.gauge.unreadable();
                tracing::debug!(remote = %self.remote, channel, payload, %error, "not a message of coturn");
            }
        }
    }

    fn repeat(&self, connection: &Connection, command: impl FnOnce() -> Command) {
        if let Some(tee) = &self.shared.tee {
            tee.repeat(connection.database, command());
        }
    }

    /// The connection belongs to this node from now on.
    async fn join(&mut self, name: SmolStr) {
        if self.node.as_ref() == Some(&name) {
            return;
        }
        self.leave().await;
        if self.shared.nodes.join(&name) {
            self.shared.gauge.node(&name, true);
            self.tell(TurnInput::NodeBack(name.clone())).await;
        }
        self.node = Some(name);
    }

    async fn leave(&mut self) {
        if let Some(name) = self.node.take()
            && let Some(left) = self.shared.nodes.leave(&name)
        {
            self.shared.gauge.node(&name, false);
            if left.had_reported {
                self.shared.gauge.gap();
            }
            self.tell(TurnInput::NodeGone(name)).await;
        }
    }

    /// Every message counts, so this waits while the record is full.
    async fn tell(&self, input: TurnInput) {
        let heard = now();
        while !self.shared.events.has_room() {
            tokio::time::sleep(FULL_PAUSE).await;
        }
        // A record that is closed takes nothing more: the process ends.
        let _ = self.shared.events.try_send(Event::Turn(heard, input));
    }
}
