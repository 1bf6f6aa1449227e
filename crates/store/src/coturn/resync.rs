//! What a Redis server still has of coturn's allocations: read after every gap.

use super::redis_url::RedisUrl;
use fanlight_base::Now;
use fanlight_events::turn::{StoredAllocation, TurnEvent};
use fanlight_telemetry::decode::coturn::{Message, read};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult};
use std::collections::BTreeMap;
use std::time::Duration;

/// Status keys of every form: with and without a realm.
pub(super) const STATUS_KEYS: &str = "turn/*/allocation/*/status";
/// Keys that one SCAN looks at.
pub(super) const SCAN_COUNT: u32 = 1_000;
/// A database of ten million keys is looked through whole; a larger one is not coturn's alone, and its address should name a
/// database.
const SCANS_MAX: u32 = 10_000;
/// Allocations taken from the store; 0.5 kB each.
const ALLOCATIONS_MAX: usize = 100_000;
/// A loaded Redis answers within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Redis tells idle times in whole seconds.
const IDLE_ERROR_MS: u64 = 1_000;

/// What the store has.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Allocations that it has a status of.
    pub(super) stored: Vec<StoredAllocation>,
    /// When the Redis server was started; `None` when that is not known, or not all was read.
    pub(super) began_ms: Option<u64>,
    /// Id of that run of the Redis server.
    pub(super) run_id: Option<String>,
}

/// Keys read before. Reading a key makes Redis forget since when it was there, so it is read again only when it was
/// written since.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<(u32, String), (u64, StoredAllocation)>);

/// Reads the store.
pub(super) async fn snapshot(
    url: RedisUrl,
    mut seen: Seen,
    now: impl Fn() -> Now + Send,
) -> (Result<Snapshot, RedisError>, Seen) {
    let result = read_store(&url, &mut seen, &now).await;
    (result, seen)
}

async fn read_store(
    url: &RedisUrl,
    seen: &mut Seen,
    now: &(impl Fn() -> Now + Send),
) -> Result<Snapshot, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT));
    let mut connection = url.client().get_multiplexed_async_connection_with_config(&config).await?;
    // From 7.2 on reading does not count as use; before, this is an error and `Seen` helps.
    let _: RedisResult<()> =
        redis::cmd("CLIENT").arg("NO-TOUCH").arg("ON").query_async(&mut connection).await;
    let info: RedisResult<String> = redis::cmd("INFO").query_async(&mut connection).await;
    let info = Info::read(&info.unwrap_or_default(), now().unix_ms());
    let databases = match url.database() {
        Some(database) => vec![database],
        None => info.databases,
    };
    let mut snapshot = Snapshot { began_ms: info.began_ms, run_id: info.run_id, ..Snapshot::default() };
    let mut scans = 0;
    for database in databases {
        if url.database().is_none() {
            redis::cmd("SELECT").arg(database).query_async::<()>(&mut connection).await?;
        }
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(STATUS_KEYS)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .query_async(&mut connection)
                .await?;
            read_keys(&mut connection, seen, now, database, keys, &mut snapshot).await?;
            scans += 1;
            cursor = next;
            if cursor == 0 {
                break;
            }
            if scans >= SCANS_MAX || snapshot.stored.len() >= ALLOCATIONS_MAX {
                tracing::warn!(
                    "{url} has too many keys to look through; name coturn's database in fanlight.coturn.redis"
                );
                snapshot.began_ms = None;
                return Ok(snapshot);
            }
        }
    }
    Ok(snapshot)
}

/// Since when each key has its value, then the values.
async fn read_keys(
    connection: &mut MultiplexedConnection,
    seen: &mut Seen,
    now: &(impl Fn() -> Now + Send),
    database: u32,
    keys: Vec<String>,
    snapshot: &mut Snapshot,
) -> Result<(), RedisError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut idle = redis::pipe();
    keys.iter().for_each(|key| _ = idle.cmd("OBJECT").arg("IDLETIME").arg(key));
    // A server that evicts by frequency does not know it and answers each with an error.
    let idle: Vec<RedisResult<Option<u64>>> = idle.ignore_errors().query_async(connection).await?;
    let at_ms = now().unix_ms();
    let mut wanted = Vec::new();
    for (key, idle) in keys.into_iter().zip(idle) {
        let idle_ms = idle.ok().flatten().map(|idle_s| idle_s.saturating_mul(1_000));
        // Not before it was written: what began earlier would be held longer than it was.
        let since_ms = at_ms.saturating_sub(idle_ms.unwrap_or(0).saturating_sub(IDLE_ERROR_MS));
        let place = (database, key);
        match seen.0.get(&place) {
            Some((read_ms, stored)) if idle_ms.is_some() && since_ms <= read_ms + 2 * IDLE_ERROR_MS => {
                snapshot.stored.push(stored.clone());
            }
            _ => wanted.push((place.1, since_ms)),
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut get = redis::pipe();
    wanted.iter().for_each(|(key, _)| _ = get.cmd("GET").arg(key));
    let values: Vec<RedisResult<Option<String>>> = get.ignore_errors().query_async(connection).await?;
    for ((key, since_ms), value) in wanted.into_iter().zip(values) {
        let Ok(Some(value)) = value else { continue };
        let Ok(Message::Event(name, status)) = read(&key, &value) else { continue };
        if !matches!(status, TurnEvent::Opened { .. } | TurnEvent::Refreshed { .. }) {
            continue;
        }
        let stored = StoredAllocation { name, status, since_ms };
        if seen.0.len() >= ALLOCATIONS_MAX {
            // What is gone by now is in there too.
            seen.0.clear();
        }
        seen.0.insert((database, key), (at_ms, stored.clone()));
        snapshot.stored.push(stored);
    }
    Ok(())
}

/// What INFO tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    began_ms: Option<u64>,
    run_id: Option<String>,
    /// Databases with keys; the first where INFO is not allowed.
    databases: Vec<u32>,
}

impl Info {
    fn read(text: &str, at_ms: u64) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let uptime_s: Option<u64> = field("uptime_in_seconds").and_then(|text| text.trim().parse().ok());
        let databases = text.lines().filter_map(|line| {
            let (number, keys) = line.strip_prefix("db")?.split_once(':')?;
            keys.starts_with("keys=").then(|| number.parse().ok())?
        });
        Self {
            began_ms: uptime_s.map(|uptime_s| at_ms.saturating_sub(uptime_s.saturating_mul(1_000))),
            run_id: field("run_id").map(|id| id.trim().to_owned()),
            databases: if text.is_empty() { vec![0] } else { databases.collect() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_tells_since_when_the_server_runs_and_which_databases_have_keys() {
        let text = "# Server\r\nrun_id:4f6c\r\nuptime_in_seconds:17\r\n# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0\r\n\
                    db12:keys=1,expires=0,avg_ttl=0\r\n";
        let info = Info::read(text, 100_000);
        assert_eq!((info.began_ms, info.run_id.as_deref()), (Some(83_000), Some("4f6c")));
        assert_eq!(info.databases, [0, 12]);
    }

    #[test]
    fn without_info_nothing_is_called_complete() {
        assert_eq!(Info::read("", 100_000), Info { databases: vec![0], ..Info::default() });
    }
}
