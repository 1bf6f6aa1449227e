//! Floods of clients' reports.

use super::attack::{Attack, Stint, together};
use super::http::repeat;
use super::target::{COLLECTOR_KEY, Target};
use crate::Failure;
use crate::websocket::access_token;
use std::time::{SystemTime, UNIX_EPOCH};

const CONNECTIONS: usize = 4;
/// Of each connection.
const PER_SECOND: u32 = 500;
/// Stats objects in a report.
const OBJECTS: usize = 100;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "reports-without-key",
        attackers: 1,
        run: |target, stint| pages(target, stint, &[401], |_| wrong()),
    },
    Attack {
        name: "reports-of-one-token",
        attackers: 1,
        run: |target, stint| pages(target, stint, &[204, 429, 503], token),
    },
    Attack {
        name: "reports-of-a-key",
        attackers: 1,
        run: |target, stint| pages(target, stint, &[204, 429, 503], key),
    },
    Attack { name: "reports-sora", attackers: 1, run: sora },
];

type Claim = fn(u64) -> serde_json::Value;

fn wrong() -> serde_json::Value {
    serde_json::json!({"key": "not a key of anybody's"})
}

fn token(_: u64) -> serde_json::Value {
    serde_json::json!({"token": access_token("hostile-0", "reporter").unwrap_or_default()})
}

fn key(n: u64) -> serde_json::Value {
    serde_json::json!({"key": COLLECTOR_KEY, "room": "hostile", "user": format!("user-{n}")})
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

fn objects(n: u64) -> Vec<serde_json::Value> {
    let object = |id: usize| serde_json::json!({"id": format!("T{id}"), "type": "transport", "timestamp": 1.0, "bytesSent": n});
    (0..OBJECTS).map(object).collect()
}

fn pages(target: &Target, stint: Stint, expected: &'static [u16], claim: Claim) -> Result<u64, Failure> {
    together(CONNECTIONS, |connection| {
        let report = |n: u64| {
            let mut body = claim(n);
            body["page"] = format!("page-{connection}-{n}").into();
            body["version"] = "1".into();
            body["now"] = now_ms().into();
            let connection = format!("connection-{connection}-{n}");
            body["reports"] =
                serde_json::json!([{"connection": connection, "at": now_ms(), "stats": objects(n)}]);
            post("/api/v1/client-stats", "origin: https://hostile.example\r\n", &body)
        };
        repeat(target.http, &mut stint.pace(PER_SECOND), expected, report)
    })
}

fn sora(target: &Target, stint: Stint) -> Result<u64, Failure> {
    together(CONNECTIONS, |connection| {
        let report = |n: u64| {
            let time = jiff::Timestamp::from_millisecond(now_ms() as i64).unwrap_or_default().to_string();
            let body = serde_json::json!({
                "type": "connection.user-agent", "timestamp": time, "label": "hostile", "version": "1",
                "node_name": "sora@127.0.0.1", "multistream": true, "simulcast": false, "spotlight": false,
                "role": "sendrecv", "channel_id": "hostile", "client_id": "c", "session_id": id(0),
                "connection_id": id(n * CONNECTIONS as u64 + connection as u64), "stats": objects(n),
            });
            post("/collector", "x-sora-stats-exporter-type: connection.user-agent\r\n", &body)
        };
        repeat(target.collector, &mut stint.pace(PER_SECOND), &[204, 503], report)
    })
}

/// As long as Sora makes them.
fn id(number: u64) -> String {
    format!("{number:026}")
}

fn post(path: &str, header: &str, body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {header}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
