//! The same into PostgreSQL: a server of its own with its usual settings.

use super::cluster::{Cluster, collector};
use super::{Bodies, Load, RATIO_GOAL, measure, stored};
use crate::Failure;
use crate::figures::print;
use crate::process::Cpu;

const DATABASE: &str = "bench";

pub(super) fn run(million: u64) -> Result<(), Failure> {
    let cluster = Cluster::start();
    let uri = cluster.database(DATABASE);
    let dir = tempfile::tempdir()?;
    let collector = collector(dir.path(), &uri);
    let mut load = Load { bodies: Bodies::new(), next: 0 };
    // The tables are made with the first report.
    load.send(&collector.sender(), 1)?;
    let empty = part(&cluster, || measure(&mut load, &collector, "postgres", "empty"), &collector, "empty")?;
    while stored(&collector) < million * 1_000_000 {
        load.send(&collector.sender(), 10_000)?;
    }
    let name = format!("million_{million}");
    let full = part(&cluster, || measure(&mut load, &collector, "postgres", &name), &collector, &name)?;
    print("collector.postgres.rows_per_second_ratio", full / empty, "ratio");
    let rows = stored(&collector);
    collector.close();
    let bytes: f64 = cluster
        .sql(DATABASE, "SELECT pg_total_relation_size('sora_user_agent_stats') + pg_total_relation_size('fanlight_report')")
        .concat()
        .parse()?;
    print("collector.postgres.disk", bytes / 1e6, "MB");
    print("collector.postgres.disk_per_row", bytes / rows as f64, "bytes/row");
    if full / empty < RATIO_GOAL {
        return Err("what is stored makes it slower".into());
    }
    Ok(())
}

/// A measurement, with what the server's process for our connection used in it.
fn part(
    cluster: &Cluster,
    work: impl FnOnce() -> Result<f64, Failure>,
    collector: &fanlight_store::collector::Collector,
    name: &str,
) -> Result<f64, Failure> {
    let pid = cluster
        .sql(DATABASE, "SELECT pid FROM pg_stat_activity WHERE application_name = 'fanlight-collector'")
        .concat()
        .parse()?;
    let (rows, before) = (stored(collector), Cpu::of_threads(pid, "")?);
    let rate = work()?;
    let used = Cpu::of_threads(pid, "")?.since(&before).total_s;
    let rows = (stored(collector) - rows) as f64;
    print(&format!("collector.postgres.server_cpu.{name}"), used * 1e6 / rows, "us/row");
    Ok(rate)
}
