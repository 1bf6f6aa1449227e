//! Reports as decoders make them.
#![allow(dead_code, reason = "each test program uses a part of it")]

use fanlight_telemetry::collector::{ClientReport, ConnectionEnvelope, Role, Source, StatsObject};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) const STEP_NS: u64 = 60_000_000_000;

/// The time of a step: each is a minute.
pub(crate) fn at(step: u64) -> u64 {
    1_795_000_000_000_000_000 + step * STEP_NS
}

/// A report with an object for each id and value.
pub(crate) fn report(connection: &str, step: u64, objects: &[(&str, u64)]) -> ClientReport {
    let object = |(id, value): &(&str, u64)| {
        let json = format!(r#"{{"id":"{id}","type":"codec","timestamp":{step}.5,"value":{value}}}"#);
        StatsObject::parse(&json).unwrap()
    };
    ClientReport {
        source: Source::SoraUserAgent,
        at_ns: at(step),
        connection: Some(ConnectionEnvelope {
            connection_id: connection.into(),
            session_id: "session".into(),
            channel_id: "sora".into(),
            client_id: "client".into(),
            role: Some(Role::Sendrecv),
            multistream: Some(true),
            simulcast: Some(false),
            spotlight: Some(false),
            ..ConnectionEnvelope::default()
        }),
        label: "WebRTC SFU Sora".into(),
        version: "2023.1.0".into(),
        node_name: "sora@127.0.0.1".into(),
        extra: "{}".into(),
        objects: objects.iter().map(object).collect(),
        rejected: Default::default(),
    }
}

/// Waits for what another thread or process does, for twenty seconds at most.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < limit, "{what} did not happen in twenty seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The outcome of a future that another thread completes.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut outcome = None;
    wait_for("an answer", || {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            outcome = Some(ready);
        }
        outcome.is_some()
    });
    outcome.unwrap()
}
