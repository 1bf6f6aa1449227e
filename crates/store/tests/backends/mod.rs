//! The databases that reports are kept in, each with the same ways in and out.
#![allow(dead_code, reason = "each test program uses a part of it")]

use crate::cluster::{Cluster, collector};
use fanlight_store::collector::{ClientsReader, Collector, CollectorSettings, PostgresSettings};
use std::path::Path;
use tempfile::TempDir;

/// A database of a test's own.
pub(crate) struct Backend {
    dir: TempDir,
    /// Without it it is SQLite.
    pub(crate) postgres: Option<Cluster>,
}

const DATABASE: &str = "d";

impl Backend {
    /// SQLite, then PostgreSQL.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        [false, true].into_iter().map(|postgres| {
            let backend = Self { dir: tempfile::tempdir().unwrap(), postgres: postgres.then(Cluster::start) };
            if let Some(cluster) = &backend.postgres {
                cluster.database(DATABASE);
            }
            backend
        })
    }

    /// Where the record of calls is, and the spool.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn collector(&self) -> Collector {
        match &self.postgres {
            Some(cluster) => collector(self.dir(), &cluster.uri(DATABASE)),
            None => Collector::open(self.dir(), CollectorSettings::default()).unwrap(),
        }
    }

    pub(crate) fn reader(&self) -> ClientsReader {
        match &self.postgres {
            Some(cluster) => ClientsReader::postgres(&PostgresSettings::new(cluster.uri(DATABASE))).unwrap(),
            None => ClientsReader::sqlite(self.dir()),
        }
    }
}
