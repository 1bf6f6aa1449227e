//! `fanlight collector`: Kohaku's place taken, with Kohaku's own configuration.

use crate::collector::kohaku_config::KohakuConfig;
use crate::collector::log_file::{KohakuLines, RotatingFile, Rotation};
use crate::collector::{CollectorDoors, CollectorPlan};
use crate::config::{self, DATA_DIR_DEFAULT};
use crate::metrics::ExporterMetrics;
use crate::shutdown::Signals;
use crate::wire;
use fanlight_base::Now;
use fanlight_store::collector::CLIENTS_FILE;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use tracing_subscriber::filter::LevelFilter;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, clap::Args)]
pub(super) struct Collector {
    /// Kohaku's configuration: config.ini, or the YAML or TOML of older versions
    #[arg(long, value_name = "FILE")]
    kohaku_config: PathBuf,
    /// Where reports are kept [default: ./fanlight-data]
    #[arg(long, value_name = "DIR", default_value = DATA_DIR_DEFAULT, hide_default_value = true)]
    data_dir: PathBuf,
    /// Keep reports in SQLite in the data folder, even if the configuration names PostgreSQL
    #[arg(long)]
    sqlite: bool,
    /// Answer exactly as Kohaku does, errors included
    #[arg(long)]
    strict_kohaku: bool,
}

/// Reports cannot go where the configuration says.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: clickhouse_addr is set, and this version cannot write to ClickHouse; set postgres_uri instead, or add --sqlite to keep \
     reports in {file}",
    path = path.display(), file = file.display()
)]
struct NoDatabase {
    path: PathBuf,
    file: PathBuf,
}

impl Collector {
    pub(super) fn run(self) -> Result<(), Box<dyn Error>> {
        let path = &self.kohaku_config;
        let about = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let kohaku = KohakuConfig::parse(&text).map_err(|error| about(&error))?;
        let plan = CollectorPlan::from_kohaku(&kohaku, self.strict_kohaku).map_err(|error| about(&error))?;
        self.refuse_other_databases(&kohaku)?;
        start_logging(&kohaku)?;
        say_configuration(&kohaku);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let keeping = self.keeping(&kohaku);
        runtime.block_on(serve(plan, &self.data_dir, &keeping))
    }

    fn refuse_other_databases(&self, kohaku: &KohakuConfig) -> Result<(), NoDatabase> {
        if self.sqlite || kohaku.clickhouse_addr.is_none() {
            return Ok(());
        }
        let file = self.data_dir.join(CLIENTS_FILE);
        Err(NoDatabase { path: self.kohaku_config.clone(), file })
    }

    /// How reports are kept: Kohaku's file says where, all else is as usual.
    fn keeping(&self, kohaku: &KohakuConfig) -> config::Collector {
        if self.sqlite {
            return config::Collector::default();
        }
        config::Collector {
            postgres_uri: kohaku.postgres_uri.clone(),
            postgres_ca_cert_file: kohaku.postgres_ca_cert_file.clone(),
            ..config::Collector::default()
        }
    }
}

async fn serve(
    plan: CollectorPlan,
    data_dir: &Path,
    keeping: &config::Collector,
) -> Result<(), Box<dyn Error>> {
    let signals = Signals::new()?;
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let started = Now { mono_ns: 0, unix_ns: u64::try_from(started.as_nanos()).unwrap_or(u64::MAX) };
    let clients = wire::open_clients(data_dir, keeping)?;
    // It is never optional here.
    let Some(doors) = CollectorDoors::bind(plan, &clients.sender())? else { return Ok(()) };
    super::say(format_args!("Fanlight {} collects clients' stats", env!("CARGO_PKG_VERSION")));
    for place in &doors.places {
        super::say(format_args!("  {place}"));
        tracing::info!(
            address = place,
            "{}",
            if place.ends_with("/metrics") { "EXPORTER-STARTED" } else { "SERVER-STARTED" }
        );
    }
    super::say(format_args!("  kept in {}", clients.place()));
    let metrics = ExporterMetrics { started, app: doors.app().clone(), store: clients.sender() };
    let mut doors = doors.run(Some(metrics));
    let failed = tokio::select! {
        () = signals.first() => None,
        error = doors.failed() => Some(error),
    };
    doors.stop().await;
    tokio::task::spawn_blocking(move || clients.close()).await?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// One line for each key that matters when something is wrong; no secrets.
fn say_configuration(kohaku: &KohakuConfig) {
    let path =
        |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    tracing::info!(
        debug = kohaku.debug,
        https = kohaku.https,
        exporter_https = kohaku.exporter_https,
        "CONF"
    );
    tracing::info!(listen_addr = %kohaku.listen_addr, listen_port = kohaku.listen_port, "CONF");
    tracing::info!(
        exporter_listen_addr = %kohaku.exporter_listen_addr,
        exporter_listen_port = kohaku.exporter_listen_port,
        "CONF"
    );
    tracing::info!(
        tls_fullchain_file = path(&kohaku.tls_fullchain_file),
        tls_verify_cacert_path = path(&kohaku.tls_verify_cacert_path),
        postgres_ca_cert_file = path(&kohaku.postgres_ca_cert_file),
        "CONF"
    );
}

/// To Kohaku's file, or to standard output.
fn start_logging(kohaku: &KohakuConfig) -> Result<(), Box<dyn Error>> {
    let level = if kohaku.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // What cannot be written would be complained of on standard error, and end the thread where that is closed too.
    let builder = tracing_subscriber::fmt().log_internal_errors(false);
    let builder = builder.with_max_level(level).event_format(KohakuLines);
    if kohaku.log_stdout {
        return Ok(builder.with_writer(std::io::stdout).try_init().map_err(|error| error.to_string())?);
    }
    let path = kohaku.log_dir.join(&kohaku.log_name);
    let rotation = Rotation {
        max_bytes: kohaku.log_rotate_max_size_mb.saturating_mul(1 << 20),
        max_backups: kohaku.log_rotate_max_backups,
        max_age: DAY.saturating_mul(kohaku.log_rotate_max_age_days),
    };
    let file = RotatingFile::open(path.clone(), rotation).map_err(|error| {
        format!("cannot write the log to {}: {error}; see log_dir and log_name", path.display())
    })?;
    Ok(builder.with_writer(Mutex::new(file)).try_init().map_err(|error| error.to_string())?)
}
