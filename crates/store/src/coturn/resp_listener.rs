//! A listener that coturn's `redis-statsdb` takes for a Redis server: nothing between coturn and the record can lose a
//! message, and a killed coturn is noticed at once.

use super::nodes::{Nodes, name};
use crate::sender::EventSender;
use crate::writer::now;
use fanlight_events::Event;
use fanlight_events::turn::TurnInput;
use fanlight_telemetry::decode::coturn::{Message, read};
use fanlight_telemetry::decode::resp::{Connection, Said};
use smol_str::SmolStr;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A coturn has one connection for each of its threads, at most some 260; this is a fleet of them.
const CONNECTIONS_MAX: usize = 4_096;
/// Pause while the record takes nothing: coturn's sockets fill meanwhile, and it waits in turn.
const FULL_PAUSE: Duration = Duration::from_millis(10);
/// A connection that does not read its answers for so long is closed: coturn opens another one with its next message.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What a listener is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RespSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What coturn has to say with AUTH.
    pub password: Option<String>,
}

/// The listener; it ends when it is dropped with the task that runs it.
#[derive(Debug)]
pub struct RespListener {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// Counters of the listener; they only grow.
#[derive(Debug, Default)]
pub struct RespCounters {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections refused because there were too many.
    pub refused: AtomicU64,
    /// Connections closed because of what they said.
    pub broken: AtomicU64,
    /// Messages taken.
    pub messages: AtomicU64,
    /// Messages that are not coturn's.
    pub unreadable: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    password: Option<String>,
    events: EventSender,
    nodes: Nodes,
    counters: Arc<RespCounters>,
    places: Arc<Semaphore>,
}

impl RespListener {
    /// Begins to listen.
    pub async fn bind(settings: RespSettings, events: EventSender) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.address).await?;
        let shared = Shared {
            password: settings.password.filter(|password| !password.is_empty()),
            events,
            nodes: Nodes::default(),
            counters: Arc::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Its counters.
    pub fn counters(&self) -> Arc<RespCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Serves until the task is aborted.
    pub async fn run(self) {
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
                self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.shared.counters.connections.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let mut peer = Peer { shared, remote, node: None };
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
}

impl Peer {
    async fn serve(&mut self, mut stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut connection = Connection::new(self.shared.password.clone());
        let (mut bytes, mut answers) = (vec![0; 16 << 10], Vec::new());
        loop {
            let len = stream.read(&mut bytes).await?;
            if len == 0 {
                return Ok(());
            }
            let said = connection.handle_bytes(&bytes[..len], &mut answers).inspect_err(|_| {
                self.shared.counters.broken.fetch_add(1, Ordering::Relaxed);
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
                    self.tell(TurnInput::NodeStarted(name)).await;
                }
            }
            Said::Published { channel, payload } => {
                self.join(name.clone()).await;
                match read(&channel, &payload) {
                    Ok(Message::Event(allocation, event)) => {
                        self.shared.counters.messages.fetch_add(1, Ordering::Relaxed);
                        self.tell(TurnInput::Event { node: Some(name), name: allocation, event }).await;
                    }
                    Ok(Message::Heartbeat) => {}
                    Err(error) => {
                        self.shared.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(remote = %self.remote, channel, payload, %error, "not a message of coturn");
                    }
                }
            }
        }
    }

    /// The connection belongs to this node from now on.
    async fn join(&mut self, name: SmolStr) {
        if self.node.as_ref() == Some(&name) {
            return;
        }
        self.leave().await;
        if self.shared.nodes.join(&name) {
            self.tell(TurnInput::NodeBack(name.clone())).await;
        }
        self.node = Some(name);
    }

    async fn leave(&mut self) {
        if let Some(name) = self.node.take()
            && self.shared.nodes.leave(&name)
        {
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
