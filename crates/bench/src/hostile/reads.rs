//! Questions without end: metrics, the record, health.

use super::attack::{Attack, Stint, together};
use super::http::repeat;
use super::target::Target;
use crate::Failure;

const CONNECTIONS: usize = 4;
/// Of each connection.
const PER_SECOND: u32 = 500;

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "reads-metrics", attackers: 1, run: metrics },
    Attack { name: "reads-api", attackers: 1, run: api },
    Attack { name: "reads-clients", attackers: 1, run: clients },
    Attack { name: "reads-rooms", attackers: 1, run: rooms },
];

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
}

fn metrics(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(CONNECTIONS, |_| {
        repeat(target.metrics, &mut stint.pace(PER_SECOND), &[200], |_| get("/metrics"))
    })
}

fn api(target: &Target, stint: Stint) -> Result<u64, Failure> {
    const PATHS: [&str; 3] = [
        "/api/v1/turn/sessions?format=csv&sort=bytes",
        "/api/v1/turn/usage?by=day",
        "/api/v1/turn/allocations?limit=1000",
    ];
    read(target, stint, &PATHS)
}

fn clients(target: &Target, stint: Stint) -> Result<u64, Failure> {
    read(target, stint, &["/api/v1/clients?limit=1000"])
}

fn rooms(target: &Target, stint: Stint) -> Result<u64, Failure> {
    read(target, stint, &["/", "/meet", "/console/"])
}

/// Too many readers at a time are answered with 503.
fn read(target: &Target, stint: Stint, paths: &'static [&str]) -> Result<u64, Failure> {
    together(CONNECTIONS, |_| {
        let request = |n: u64| get(paths[n as usize % paths.len()]);
        repeat(target.http, &mut stint.pace(PER_SECOND), &[200, 503], request)
    })
}
