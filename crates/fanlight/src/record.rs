//! The record as HTTP handlers ask for it.

use fanlight_http::backend::{Record, RecordError, Series, Span};
use fanlight_store::collector::ClientsReader;
use fanlight_store::{ReportError, TurnMonitor};
use fanlight_telemetry::collector::query::{ClientConnection, ClientQuery, StoredObject, StoredReport};
use fanlight_telemetry::collector::sides::ClientSides;
use fanlight_telemetry::turn_account::usage::{By, Price, Usage};
use fanlight_telemetry::turn_account::{AllocationRecord, SessionRecord};
use fanlight_telemetry::turn_query::{Filter, Page, Slice};
use serde_json::Value;
use std::path::PathBuf;

/// The record of this process.
pub(crate) struct OwnRecord {
    pub(crate) dir: PathBuf,
    pub(crate) monitor: TurnMonitor,
    pub(crate) clients: ClientsReader,
}

impl Record for OwnRecord {
    fn turn_sessions(&self, filter: &Filter, slice: Slice) -> Result<Page<SessionRecord>, RecordError> {
        fanlight_store::turn_sessions(&self.dir, filter, slice).map_err(unreadable)
    }

    fn turn_allocations(&self, filter: &Filter, slice: Slice) -> Result<Page<AllocationRecord>, RecordError> {
        fanlight_store::turn_allocations(&self.dir, filter, slice).map_err(unreadable)
    }

    fn turn_usage(&self, filter: &Filter, by: By, price: Price) -> Result<Vec<Usage>, RecordError> {
        fanlight_store::turn_usage(&self.dir, filter, by, price).map_err(unreadable)
    }

    fn clients(&self, query: &ClientQuery) -> Result<Page<ClientConnection>, RecordError> {
        self.clients.connections(query).map_err(unreadable)
    }

    fn client_latest(&self, number: u64) -> Result<Vec<StoredObject>, RecordError> {
        self.clients.latest(number).map_err(unreadable)
    }

    fn client_series(&self, number: u64, series: &Series) -> Result<Vec<StoredObject>, RecordError> {
        let Span { from_ns, to_ns, limit } = series.span;
        self.clients.series(number, &series.kind, &series.id, (from_ns, to_ns), limit).map_err(unreadable)
    }

    fn client_reports(&self, number: u64, span: Span) -> Result<Vec<StoredReport>, RecordError> {
        self.clients.reports(number, (span.from_ns, span.to_ns), span.limit).map_err(unreadable)
    }

    fn client_sides(&self, connection: &ClientConnection) -> Result<Option<ClientSides>, RecordError> {
        self.clients.sides(&self.dir, connection).map_err(unreadable)
    }

    fn turn_health(&self) -> Value {
        serde_json::to_value(self.monitor.snapshot()).unwrap_or_default()
    }
}

fn unreadable(error: ReportError) -> RecordError {
    RecordError(error.to_string())
}
