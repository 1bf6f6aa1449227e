//! What is older than it is to be kept goes, a portion at a time.

use super::schema::{LOCK, Shape};
use std::time::SystemTime;
use tokio_postgres::{Client, Error};

/// Rows deleted at a time: some 100 ms.
const ROWS: i64 = 4_096;

const OBJECTS: &str = "DELETE FROM sora_user_agent_stats WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM sora_user_agent_stats WHERE created_at < $1 ORDER BY created_at LIMIT $2))";
const KOHAKUS_CONNECTIONS: &str = "DELETE FROM sora_connection WHERE pk = ANY (ARRAY(
    SELECT pk FROM sora_connection WHERE created_at < $1 AND NOT EXISTS (
      SELECT 1 FROM sora_user_agent_stats AS stats WHERE stats.connection_id = sora_connection.connection_id)
    ORDER BY pk LIMIT $2))";
const REPORTS: &str = "DELETE FROM fanlight_report WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM fanlight_report WHERE created_at < $1 ORDER BY created_at LIMIT $2))";
/// One that is being written to is not old.
const CONNECTIONS: &str = "DELETE FROM fanlight_connection WHERE number = ANY (ARRAY(
    SELECT number FROM fanlight_connection WHERE received_at < $1 ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED))";

/// By time of arrival; gives back how many objects that were, and whether there is more. What TimescaleDB keeps in chunks goes by
/// chunks, and Kohaku's connections stay, as in Kohaku.
pub(super) async fn prune(
    client: &mut Client,
    shape: Shape,
    before: SystemTime,
) -> Result<(u64, bool), Error> {
    let mut most = 0;
    let mut objects = 0;
    match shape {
        Shape::Hypertable => {
            client.query("SELECT drop_chunks('sora_user_agent_stats', $1::timestamptz)", &[&before]).await?;
        }
        Shape::Plain => {
            objects = client.execute(OBJECTS, &[&before, &ROWS]).await?;
            most = objects;
            if objects == 0 {
                most = client.execute(KOHAKUS_CONNECTIONS, &[&before, &ROWS]).await?;
            }
        }
    }
    let full = u64::try_from(ROWS).unwrap_or(u64::MAX);
    let reports = client.execute(REPORTS, &[&before, &ROWS]).await?;
    most = most.max(reports);
    if reports < full {
        // No old report is left, so that these have none.
        let transaction = client.transaction().await?;
        transaction.batch_execute(LOCK).await?;
        most = most.max(transaction.execute(CONNECTIONS, &[&before, &ROWS]).await?);
        transaction.commit().await?;
    }
    Ok((objects, most >= full || (objects > 0 && shape == Shape::Plain)))
}
