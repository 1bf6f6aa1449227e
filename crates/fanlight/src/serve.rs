//! `fanlight`: serve until told to stop.

use crate::cli;
use crate::collector::{CollectorDoors, CollectorPlan, RunningDoors};
use crate::config::{Config, DEV_KEY, DEV_SECRET, Overrides};
use crate::coturn::CoturnInputs;
use crate::descriptors;
use crate::metrics::Metrics;
use crate::private_files;
use crate::shutdown::Signals;
use crate::wire::{Media, Process};
use fanlight_http::{MetricsApp, ServeError};
use fanlight_sfu::output::LeaveAction;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// How long sessions may take to end after the first signal: a leave goes out at once, the rest is closing DTLS.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long WebSockets may take to write what is queued once their sessions have ended.
const FLUSH_WITHIN: Duration = Duration::from_millis(300);

/// HTTP cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another {setting}, or end what holds it")]
struct ListenError {
    address: SocketAddr,
    /// What the port is chosen by.
    setting: &'static str,
    source: io::Error,
}

/// Serves until a signal comes.
pub(crate) fn run(overrides: Overrides) -> Result<(), Box<dyn Error>> {
    let (config, unsupported) = Config::load(overrides)?;
    start_logging(config.logging.level.as_deref(), config.logging.json);
    for warning in unsupported
        .into_iter()
        .chain(config.check_known_key()?)
        .chain(private_files::warnings(&config.data_dir))
    {
        tracing::warn!("{warning}");
    }
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config));
    // A thread that is stuck does not keep the process.
    runtime.shutdown_background();
    served
}

async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let signals = Signals::new()?;
    let listeners = listen_all(&config, config.port, "--port or --bind")?;
    let readers = match config.prometheus.port {
        0 => Vec::new(),
        port => listen_all(&config, port, "prometheus_port")?,
    };
    let collector = CollectorPlan::new(&config)?;
    let mut process = Process::start(&config)?;
    let doors = match (collector, process.clients()) {
        (Some(plan), Some(clients)) => CollectorDoors::bind(plan, &clients)?,
        _ => None,
    };
    let coturn = process.listen_to_coturn(&config.coturn).await?;
    let collected_at = doors.as_ref().map(|doors| doors.places.clone()).unwrap_or_default();
    cli::say(greeting(&config, &listeners, &readers, &process.media, &coturn, &collected_at)?);
    let (stop, stopped) = watch::channel(false);
    let mut serving = tokio::task::JoinSet::new();
    let coturn = coturn.spawn();
    for listener in listeners {
        let mut stopped = stopped.clone();
        let app = process.app.clone();
        serving.spawn(fanlight_http::serve(listener, app, async move {
            // An error means that the sender is gone: the server is ending.
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
    }
    let metrics = process.metrics(doors.as_ref().map(CollectorDoors::app));
    let mut doors = doors.map(|doors| doors.run(metrics.exporter()));
    let metrics = metrics_app(&config, metrics);
    for listener in readers {
        let mut stopped = stopped.clone();
        serving.spawn(fanlight_http::serve_metrics(listener, metrics.clone(), async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
    }
    let failed_thread = tokio::select! {
        () = signals.first() => {
            tracing::info!("ending sessions; a second signal ends them at once");
            None
        }
        thread = process.failed() => {
            tracing::error!(thread, "the server cannot go on without this thread: ending sessions");
            Some(thread)
        }
        Some(Ok(Err(error))) = serving.join_next() => return Err(error.into()),
        error = failed(doors.as_mut()) => return Err(error.into()),
    };
    let _ = stop.send(true);
    drop(coturn);
    if let Some(doors) = doors {
        doors.stop().await;
    }
    // Who is told so comes back by itself, to the server that is started in this one's place.
    let action = if failed_thread.is_some() { LeaveAction::Reconnect } else { LeaveAction::Disconnect };
    let written = process.stop(STOP_WITHIN, action).await;
    tokio::time::sleep(FLUSH_WITHIN).await;
    match failed_thread {
        Some(thread) => Err(format!("thread {thread} ended; start the server anew").into()),
        None if !written => Err("the record could not be written whole".into()),
        None => Ok(()),
    }
}

/// Ready when the collector cannot be served any longer.
async fn failed(doors: Option<&mut RunningDoors>) -> ServeError {
    match doors {
        Some(doors) => doors.failed().await,
        None => std::future::pending().await,
    }
}

fn metrics_app(config: &Config, metrics: Metrics) -> MetricsApp {
    let (user, password) = (&config.prometheus.username, &config.prometheus.password);
    MetricsApp {
        text: Arc::new(move || metrics.text().map_err(|error| error.to_string())),
        // As LiveKit has it: without both there is no login.
        login: (!user.is_empty() && !password.reveal().is_empty()).then(|| (user.clone(), password.clone())),
    }
}

fn listen_all(config: &Config, port: u16, setting: &'static str) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    let mut absent = None;
    for ip in &config.bind_addresses {
        let address = SocketAddr::new(*ip, port);
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(source) if config.bind_is_default && is_no_such_address(&source) => {
                tracing::warn!("{address} is not served: this machine has no such address ({source})");
                absent = Some(ListenError { address, setting, source });
            }
            Err(source) => return Err(ListenError { address, setting, source }),
        }
    }
    match absent {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

/// A machine without IPv6 has no `::1`; its kernel may not even know the protocol.
pub(crate) fn is_no_such_address(error: &io::Error) -> bool {
    /// `EAFNOSUPPORT` of Linux.
    const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED)
}

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { v6_only()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// `[::]` must not take the IPv4 port that is bound beside it.
fn v6_only() -> io::Result<tokio::net::TcpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None)?;
    socket.set_only_v6(true)?;
    socket.set_nonblocking(true)?;
    Ok(tokio::net::TcpSocket::from_std_stream(socket.into()))
}

fn greeting(
    config: &Config,
    listeners: &[TcpListener],
    readers: &[TcpListener],
    media: &Media,
    coturn: &CoturnInputs,
    collected_at: &[String],
) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    writeln!(text, "Fanlight {} is serving", env!("CARGO_PKG_VERSION"))?;
    for listener in listeners {
        let address = listener.local_addr()?;
        writeln!(text, "  HTTP, WebSocket  http://{address}  ws://{address}")?;
    }
    if config.meet
        && cfg!(feature = "web")
        && let Some(listener) = listeners.first()
    {
        writeln!(text, "  try it           http://{}/meet", listener.local_addr()?)?;
    }
    if cfg!(feature = "web")
        && let Some(listener) = listeners.first()
    {
        writeln!(text, "  TURN usage       http://{}/console/turn", listener.local_addr()?)?;
    }
    for reader in readers {
        writeln!(text, "  metrics          http://{}/metrics", reader.local_addr()?)?;
    }
    writeln!(text, "  media over UDP   {}", list(&media.udp))?;
    if !media.tcp.is_empty() {
        writeln!(text, "  media over TCP   {}", list(&media.tcp))?;
    }
    for (name, address) in &media.turn {
        writeln!(text, "  TURN over {name}    {address}")?;
    }
    for place in &coturn.places {
        writeln!(text, "  coturn           {place}")?;
    }
    for place in collected_at {
        writeln!(text, "  client stats     {place}")?;
    }
    if config.dev && config.has_known_key() {
        writeln!(text, "  API key          {DEV_KEY}, secret {DEV_SECRET} (development only)")?;
    }
    write!(text, "  record           {}", config.data_dir.join(fanlight_store::DATABASE_FILE).display())?;
    Ok(text)
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join("  ")
}

/// Logs go to standard error; `FANLIGHT_LOG` wins over the configuration.
fn start_logging(level: Option<&str>, json: bool) {
    let filter =
        EnvFilter::try_from_env("FANLIGHT_LOG").unwrap_or_else(|_| EnvFilter::new(level.unwrap_or("info")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // It would complain on standard error too, and end the thread that cannot.
        .log_internal_errors(false);
    // A second call in one process (a test) keeps the first subscriber.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a network for documentation (RFC 5737): no machine has it.
    const NOBODYS: [u8; 4] = [203, 0, 113, 77];

    #[tokio::test]
    async fn an_address_this_machine_lacks_is_left_out_unless_it_was_asked_for() {
        let mut config = Config::load(Overrides { dev: true, ..Overrides::default() }).expect("usable").0;
        config.bind_addresses = vec![[127, 0, 0, 1].into(), NOBODYS.into()];
        assert_eq!(listen_all(&config, 0, "--bind").expect("one is there").len(), 1);
        config.bind_is_default = false;
        let error = listen_all(&config, 0, "--bind").expect_err("it was asked for").to_string();
        assert!(error.contains("203.0.113.77:0") && error.contains("--bind"), "{error}");
        config.bind_is_default = true;
        config.bind_addresses = vec![NOBODYS.into()];
        assert!(listen_all(&config, 0, "--bind").is_err(), "a server that listens nowhere serves nobody");
    }
}
