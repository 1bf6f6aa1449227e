//! Memory with 1,000 reports under way, each half sent.

use super::exporter::{Answer, Begun, Exporter, runtime};
use super::target::Target;
use crate::Failure;
use crate::figures::print;
use crate::process::{peak_bytes, resident_bytes};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

const CONNECTIONS: usize = 20;
const STREAMS: u64 = 1_000;
/// After so many times that all streams were opened and answered memory is looked at: by the second the database's cache is full.
const LOOKS: [u64; 3] = [1, 10, 20];
/// What was sent has arrived by then, and what was answered is given back.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn run() -> Result<(), Failure> {
    let target = Target::start(&[])?;
    runtime()?.block_on(waves(&target))
}

async fn waves(target: &Target) -> Result<(), Failure> {
    let resident = || resident_bytes(target.server.pid);
    let exporter = Exporter::connect(target.address, CONNECTIONS).await?;
    // What is needed once: a report on each connection.
    exporter.steps(CONNECTIONS as u64, 0..1).await?;
    sleep(SETTLE).await;
    let before = resident()?;
    print("collector.streams", STREAMS as f64, "streams");
    print("collector.streams.before", before / 1e6, "MB");
    let mut wave = 0;
    for look in LOOKS {
        while wave < look {
            wave += 1;
            let begun = begin(&exporter, wave).await?;
            if wave == 1 {
                sleep(SETTLE).await;
                let open = resident()?;
                print("collector.streams.half_sent", open / 1e6, "MB");
                print("collector.streams.half_sent_each", (open - before) / STREAMS as f64, "bytes");
            }
            finish(begun).await?;
        }
        sleep(SETTLE).await;
        print(&format!("collector.streams.answered_{look}_times"), resident()? / 1e6, "MB");
    }
    print("collector.streams.peak", peak_bytes(target.server.pid)? / 1e6, "MB");
    Ok(())
}

async fn begin(exporter: &Exporter, step: u64) -> Result<Vec<Begun>, Failure> {
    let mut begun = Vec::new();
    for peer in 0..STREAMS {
        begun.push(exporter.begin(peer, step, 0.5).await?);
    }
    Ok(begun)
}

/// All at once.
async fn finish(begun: Vec<Begun>) -> Result<(), Failure> {
    let mut tasks: JoinSet<_> = begun.into_iter().map(Begun::finish).collect();
    while let Some(answer) = tasks.join_next().await {
        if answer?? != Answer::Taken {
            return Err("one of 1,000 reports is refused".into());
        }
    }
    Ok(())
}
