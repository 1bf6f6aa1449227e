//! The real server, with its collector on ports of its own.

use crate::Failure;
use crate::server::{Server, free_tcp_address, until_listening};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(super) struct Target {
    pub(super) server: Server,
    pub(super) address: SocketAddr,
    exporter: SocketAddr,
}

/// What the collector counts, as its exporter says it.
pub(super) struct Counts(String);

impl Target {
    /// `keys` are lines of `fanlight.collector`, such as `postgres_uri: …`.
    pub(super) fn start(keys: &[String]) -> Result<Self, Failure> {
        let (collector, exporter) = (free_tcp_address()?, free_tcp_address()?);
        let mut more = format!(
            "fanlight:\n  collector:\n    enabled: true\n    port: {}\n    exporter_port: {}\n",
            collector.port(),
            exporter.port()
        );
        for key in keys {
            more += &format!("    {key}\n");
        }
        let server = Server::start_with(&more)?;
        until_listening(collector)?;
        Ok(Self { server, address: collector, exporter })
    }

    pub(super) fn counts(&self) -> Result<Counts, Failure> {
        let mut stream = TcpStream::connect(self.exporter)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        if text.starts_with("HTTP/1.1 200") {
            Ok(Counts(text))
        } else {
            Err(format!("metrics: {}", text.lines().next().unwrap_or_default()).into())
        }
    }
}

impl Counts {
    /// The value of `fanlight_collector_…`, labels included; 0 of what has not been counted.
    pub(super) fn of(&self, name: &str) -> f64 {
        let value =
            |line: &str| line.strip_prefix("fanlight_collector_")?.strip_prefix(name)?.trim().parse().ok();
        self.0.lines().find_map(value).unwrap_or(0.0)
    }

    /// Objects in the database. Nothing may have gone another way: what is measured is a row each.
    pub(super) fn rows(&self) -> Result<f64, Failure> {
        for other in ["unchanged_objects_total", "spooled_reports_total", "duplicate_reports_total"] {
            let count = self.of(other);
            if count > 0.0 {
                return Err(format!("{count} {other}: the figures would be of something else").into());
            }
        }
        Ok(self.of("stored_objects_total"))
    }
}
