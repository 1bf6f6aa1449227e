//! Repeats what coturn says to a real Redis server, so that whoever reads there goes on as before. The accounting never
//! waits for it.

use super::backoff::Backoff;
use super::health::InputGauge;
use super::redis_url::RedisUrl;
use super::resync::{SCAN_COUNT, STATUS_KEYS};
use fanlight_base::Random;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisError, RedisResult, Value};
use std::time::Duration;
use tokio::sync::mpsc;

/// Commands that wait for the Redis server, some 0.5 kB each; one more is dropped and counted.
const QUEUE_MAX: usize = 16_384;
/// Commands sent together.
const BATCH_MAX: usize = 256;
/// A Redis server that does not answer for so long is away.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A command of coturn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Set {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    Publish {
        channel: String,
        payload: String,
    },
    /// What coturn does at its start: every status key that an earlier process left is deleted, also those of others.
    Sweep,
}

/// The way to the Redis server.
#[derive(Debug, Clone)]
pub(super) struct Tee {
    queue: mpsc::Sender<(u32, Command)>,
    gauge: InputGauge,
}

/// Its other end.
#[derive(Debug)]
pub(super) struct TeeTask {
    url: RedisUrl,
    queue: mpsc::Receiver<(u32, Command)>,
    gauge: InputGauge,
    backoff: Backoff,
    is_warned: bool,
}

pub(super) fn tee(url: RedisUrl, gauge: InputGauge, random: Random) -> (Tee, TeeTask) {
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    let task = TeeTask { url, queue, gauge: gauge.clone(), backoff: Backoff::new(random), is_warned: false };
    (Tee { queue: sender, gauge }, task)
}

impl Tee {
    /// Repeats a command in the database that coturn selected.
    pub(super) fn repeat(&self, database: u32, command: Command) {
        if self.queue.try_send((database, command)).is_err() {
            self.gauge.tee_dropped(1);
        }
    }
}

impl TeeTask {
    /// Repeats until the task is aborted.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut connection: Option<Connection> = None;
        while self.queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let result = match connection.take() {
                Some(open) => Ok(open),
                None => Connection::open(&self.url).await,
            };
            let result = match result {
                Ok(open) => open.send(&batch).await,
                Err(error) => Err(error),
            };
            let commands = batch.len();
            batch.clear();
            match result {
                Ok((open, refused)) => {
                    self.backoff.reset();
                    if std::mem::take(&mut self.is_warned) {
                        tracing::warn!("{} takes again what coturn says", self.url);
                    }
                    self.gauge.tee_dropped(refused);
                    connection = Some(open);
                }
                Err(error) => {
                    self.gauge.tee_dropped(u64::try_from(commands).unwrap_or(u64::MAX));
                    if !std::mem::replace(&mut self.is_warned, true) {
                        tracing::warn!(
                            "{} does not take what coturn says: {error}; dropping it until fanlight.coturn.tee answers",
                            self.url
                        );
                    }
                    tokio::time::sleep(self.backoff.pause()).await;
                }
            }
        }
    }
}

struct Connection {
    redis: MultiplexedConnection,
    /// Everything goes into the database that the address names; without one into those that coturns select.
    fixed: bool,
    selected: u32,
}

impl Connection {
    async fn open(url: &RedisUrl) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT));
        let redis = url.client().get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { redis, fixed: url.database().is_some(), selected: url.database().unwrap_or(0) })
    }

    /// Sends all of them; says how many the server refused.
    async fn send(mut self, batch: &[(u32, Command)]) -> Result<(Self, u64), RedisError> {
        let mut refused = 0;
        for run in batch.chunk_by(|a, b| a.0 == b.0) {
            let database = run.first().map_or(0, |(database, _)| *database);
            // A message reaches its subscribers whatever the database; a key in another one would be somebody else's.
            let has_keys = self.select(database).await?;
            let mut pipeline = Pipeline::with_capacity(run.len());
            for (_, command) in run {
                match command {
                    Command::Publish { channel, payload } => {
                        pipeline.cmd("PUBLISH").arg(channel).arg(payload)
                    }
                    _ if !has_keys => {
                        refused += 1;
                        continue;
                    }
                    Command::Set { key, value } => pipeline.cmd("SET").arg(key).arg(value),
                    Command::Delete { key } => pipeline.cmd("DEL").arg(key),
                    Command::Sweep => {
                        refused += self.query(&std::mem::take(&mut pipeline)).await?;
                        refused += self.sweep().await?;
                        continue;
                    }
                };
            }
            refused += self.query(&pipeline).await?;
        }
        Ok((self, refused))
    }

    /// Whether keys now go where coturn wants them.
    async fn select(&mut self, database: u32) -> Result<bool, RedisError> {
        if self.fixed || database == self.selected {
            return Ok(true);
        }
        match redis::cmd("SELECT").arg(database).query_async::<()>(&mut self.redis).await {
            Ok(()) => {
                self.selected = database;
                Ok(true)
            }
            Err(error) if error.code().is_some() => {
                tracing::debug!(%error, database, "the Redis server behind the listener lacks coturn's database");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn query(&mut self, pipeline: &Pipeline) -> Result<u64, RedisError> {
        if pipeline.is_empty() {
            return Ok(0);
        }
        let mut pipeline = pipeline.clone();
        let answers: Vec<RedisResult<Value>> = pipeline.ignore_errors().query_async(&mut self.redis).await?;
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            tracing::debug!(%error, "the Redis server behind the listener refused a command of coturn");
        }
        Ok(u64::try_from(refused).unwrap_or(u64::MAX))
    }

    async fn sweep(&mut self) -> Result<u64, RedisError> {
        let (mut cursor, mut refused) = (0_u64, 0);
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(STATUS_KEYS)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut self.redis)
                .await?;
            let mut pipeline = Pipeline::with_capacity(keys.len());
            keys.iter().for_each(|key| _ = pipeline.cmd("DEL").arg(key));
            refused += self.query(&pipeline).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(refused);
            }
        }
    }
}
