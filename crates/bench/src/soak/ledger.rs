//! What the server has answered, and whether it is there.

use crate::Failure;
use fanlight_store::collector::ClientsReader;
use fanlight_store::{ReportError, report};
use fanlight_telemetry::collector::query::ClientQuery;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// The spool is read into the database after the start; what is not there after this is lost.
const REPLAY_MAX: Duration = Duration::from_secs(20);

/// The room of one life.
#[derive(Debug, Clone)]
pub(super) struct Room {
    pub(super) name: String,
}

impl Room {
    pub(super) fn of(life: u64) -> Self {
        Self { name: format!("soak-{life}") }
    }
}

/// A report that was answered with 204: its connection, and its time in milliseconds since the Unix epoch.
pub(super) type Answered = (String, u64);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Times by connection, not looked for yet.
    reports: BTreeMap<String, Vec<u64>>,
    /// Rooms not looked for yet.
    lived: Vec<Room>,
    /// Reports that were there.
    pub(super) checked: u64,
    /// Rooms that were there; of some the server was killed before it wrote that they began.
    pub(super) rooms: u64,
}

impl Ledger {
    pub(super) fn answered(&mut self, reports: Vec<Answered>) {
        for (connection, at_ms) in reports {
            self.reports.entry(connection).or_default().push(at_ms);
        }
    }

    pub(super) fn lived(&mut self, room: Room) {
        self.lived.push(room);
    }

    /// Looks for everything that was not looked for yet.
    pub(super) fn check(&mut self, dir: &Path) -> Result<(), Failure> {
        let reader = ClientsReader::sqlite(dir);
        for (connection, mut at_ms) in std::mem::take(&mut self.reports) {
            at_ms.sort_unstable();
            let begun = Instant::now();
            loop {
                match missing(&reader, &connection, &at_ms)?.as_slice() {
                    [] => break,
                    missing if begun.elapsed() > REPLAY_MAX => {
                        return Err(
                            format!("{connection}: {missing:?} were answered and are not there").into()
                        );
                    }
                    _ => std::thread::sleep(Duration::from_millis(50)),
                }
            }
            self.checked += at_ms.len() as u64;
        }
        for room in std::mem::take(&mut self.lived) {
            self.rooms += u64::from(is_over(dir, &room.name)?);
        }
        Ok(())
    }
}

/// Which of these are not on record; a report that is there twice is an error.
fn missing(reader: &ClientsReader, connection: &str, at_ms: &[u64]) -> Result<Vec<u64>, Failure> {
    let query =
        ClientQuery { connection_id: Some(connection.to_owned()), limit: 10, ..ClientQuery::default() };
    let mut found: Vec<u64> = Vec::new();
    for row in reader.connections(&query)?.rows {
        let reports = reader.reports(row.number, (0, u64::MAX >> 1), u64::from(u32::MAX))?;
        found.extend(reports.iter().map(|report| report.at_ns / 1_000_000));
    }
    found.sort_unstable();
    if let Some([twice, _]) = found.array_windows().find(|[one, next]| one == next) {
        return Err(format!("{connection}: the report of {twice} is there twice").into());
    }
    Ok(at_ms.iter().copied().filter(|at_ms| found.binary_search(at_ms).is_err()).collect())
}

/// Whether a room of an earlier life is on record; if it is, it has ended with everybody in it.
fn is_over(dir: &Path, name: &str) -> Result<bool, Failure> {
    let report = match report(dir, name) {
        Ok(report) => report,
        Err(ReportError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    for room in &report.rooms {
        if room.ended_ms.is_none() || room.participants.iter().any(|it| it.left_ms.is_none()) {
            return Err(format!("{name} is of a server that was killed, and is open").into());
        }
    }
    Ok(true)
}
