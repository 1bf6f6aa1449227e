//! Where rows go: how the server is told, what of the machine it uses.

use super::cluster::Cluster;
use super::target::Target;
use crate::Failure;
use crate::process::{Cpu, family_cpu_s};
use fanlight_store::collector::CLIENTS_FILE;
use std::fs;

/// Seconds of processor time by now, by the name of the figure.
pub(super) type Used = Vec<(&'static str, f64)>;
/// Bytes by the name of the figure. `disk` is of everything that stays.
pub(super) type Disk = Vec<(&'static str, f64)>;

pub(super) trait Database {
    fn name(&self) -> &'static str;
    /// Lines of `fanlight.collector`.
    fn keys(&self) -> Vec<String>;
    /// A row, with what stands for it in indexes, is no larger.
    fn bytes_per_row_max(&self) -> u64;
    /// The figure named `cpu` is of everything that works for a row.
    fn used(&self, target: &Target) -> Result<Used, Failure>;
    fn disk(&self, target: &Target) -> Result<Disk, Failure>;
}

pub(super) struct Sqlite;

impl Database for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn keys(&self) -> Vec<String> {
        Vec::new()
    }

    fn bytes_per_row_max(&self) -> u64 {
        800
    }

    fn used(&self, target: &Target) -> Result<Used, Failure> {
        let server = server_used(target)?;
        let all = server.iter().map(|(_, seconds)| seconds).sum();
        Ok([vec![("cpu", all)], server].concat())
    }

    fn disk(&self, target: &Target) -> Result<Disk, Failure> {
        let file = target.server.data_dir().join(CLIENTS_FILE);
        let log = file.with_extension("db-wal");
        Ok(vec![
            ("disk", fs::metadata(file)?.len() as f64),
            ("disk_log", fs::metadata(log).map_or(0.0, |log| log.len() as f64)),
        ])
    }
}

/// The server's threads: the one that writes, and those that serve HTTP with all others.
fn server_used(target: &Target) -> Result<Used, Failure> {
    let pid = target.server.pid;
    let writing = Cpu::of_threads(pid, "collector")?.total_s;
    let all = Cpu::of_threads(pid, "")?.total_s;
    Ok(vec![("cpu.http", all - writing), ("cpu.writing", writing)])
}

/// A server of our own, with its usual settings.
pub(super) struct Postgres {
    pub(super) cluster: Cluster,
    uri: String,
}

impl Postgres {
    pub(super) const DATABASE: &str = "bench";

    pub(super) fn start() -> Self {
        let cluster = Cluster::start();
        let uri = cluster.database(Self::DATABASE);
        Self { cluster, uri }
    }

    fn bytes(&self, of: &str) -> Result<f64, Failure> {
        Ok(self.cluster.sql(Self::DATABASE, &format!("SELECT {of}")).concat().parse()?)
    }
}

impl Database for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn keys(&self) -> Vec<String> {
        vec![format!("postgres_uri: {}", self.uri)]
    }

    fn bytes_per_row_max(&self) -> u64 {
        1_200
    }

    fn used(&self, target: &Target) -> Result<Used, Failure> {
        let server = server_used(target)?;
        let backend = "SELECT pid FROM pg_stat_activity WHERE application_name = 'fanlight-collector'";
        let backend = self.cluster.sql(Self::DATABASE, backend).concat().parse()?;
        let backend = Cpu::of_threads(backend, "")?.total_s;
        let family = family_cpu_s(self.cluster.pid())?;
        let all = family + server.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let database = vec![("cpu.backend", backend), ("cpu.other_postgres", family - backend)];
        Ok([vec![("cpu", all)], server, database].concat())
    }

    fn disk(&self, _: &Target) -> Result<Disk, Failure> {
        Ok(vec![
            ("disk", self.bytes("pg_database_size(current_database())")?),
            ("disk_indexes", self.bytes("pg_indexes_size('sora_user_agent_stats')")?),
            ("disk_log", self.bytes("sum(size) FROM pg_ls_waldir()")?),
        ])
    }
}
