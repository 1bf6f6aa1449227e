//! The tables and how an older file becomes a newer one.

use super::immediate;
use rusqlite::Connection;

/// Version of the schema, in `user_version`.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Each brings the schema from its index to the next version. They are never edited, only added to.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_record.sql"),
    include_str!("migrations/0002_turn.sql"),
    include_str!("migrations/0003_turn_participant.sql"),
    include_str!("migrations/0004_turn_status.sql"),
];

/// Version of the schema of an open database; 0 for an empty one.
pub(crate) fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings the schema up to date; all or nothing.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = immediate(connection)?;
    let found = usize::try_from(version(&transaction)?).unwrap_or(usize::MAX);
    for migration in MIGRATIONS.iter().skip(found) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
