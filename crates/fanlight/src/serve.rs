//! `fanlight`: serve until told to stop.

use crate::cli;
use crate::config::{Config, Overrides};
use crate::shutdown::Signals;
use crate::wire::{Media, Process};
use fanlight_store::coturn::RespListener;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
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
#[error("cannot listen on {address}: {source}; choose another --port or --bind, or end what holds it")]
struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Serves until a signal comes.
pub(crate) fn run(overrides: Overrides) -> Result<(), Box<dyn Error>> {
    let (config, unsupported) = Config::load(overrides)?;
    start_logging(config.logging.level.as_deref(), config.logging.json);
    for warning in unsupported {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let signals = Signals::new()?;
    let listeners = listen_all(&config)?;
    let process = Process::start(&config)?;
    let coturn = process.listen_to_coturn(&config.coturn).await?;
    cli::say(greeting(&config, &listeners, &process.media, coturn.as_ref())?);
    let (stop, stopped) = watch::channel(false);
    let mut serving = tokio::task::JoinSet::new();
    let coturn = coturn.map(|listener| tokio::spawn(listener.run()));
    for listener in listeners {
        let mut stopped = stopped.clone();
        let app = process.app.clone();
        serving.spawn(fanlight_http::serve(listener, app, async move {
            // An error means that the sender is gone: the server is ending.
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
    }
    tokio::select! {
        () = signals.first() => {}
        Some(Ok(Err(error))) = serving.join_next() => return Err(error.into()),
    }
    tracing::info!("ending sessions; a second signal ends them at once");
    if let Some(coturn) = coturn {
        coturn.abort();
    }
    let written = process.stop(STOP_WITHIN).await;
    tokio::time::sleep(FLUSH_WITHIN).await;
    let _ = stop.send(true);
    if written { Ok(()) } else { Err("the record could not be written whole".into()) }
}

fn listen_all(config: &Config) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    let mut absent = None;
    for ip in &config.bind_addresses {
        let address = SocketAddr::new(*ip, config.port);
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(source) if config.bind_is_default && is_no_such_address(&source) => {
                tracing::warn!("{address} is not served: this machine has no such address ({source})");
                absent = Some(ListenError { address, source });
            }
            Err(source) => return Err(ListenError { address, source }),
        }
    }
    match absent {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

/// A machine without IPv6 has no `::1`; its kernel may not even know the protocol.
fn is_no_such_address(error: &io::Error) -> bool {
    /// `EAFNOSUPPORT` of Linux.
    const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
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
    media: &Media,
    coturn: Option<&RespListener>,
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
    writeln!(text, "  media over UDP   {}", list(&media.udp))?;
    if !media.tcp.is_empty() {
        writeln!(text, "  media over TCP   {}", list(&media.tcp))?;
    }
    if let Some(listener) = coturn {
        writeln!(text, "  coturn           redis-statsdb on {}", listener.address()?)?;
    }
    if config.dev {
        for (key, secret) in config.keys.iter().filter(|(key, _)| *key == "devkey") {
            writeln!(text, "  API key          {key}, secret {secret} (development only)")?;
        }
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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
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
        config.port = 0;
        config.bind_addresses = vec![[127, 0, 0, 1].into(), NOBODYS.into()];
        assert_eq!(listen_all(&config).expect("one is there").len(), 1);
        config.bind_is_default = false;
        let error = listen_all(&config).expect_err("it was asked for").to_string();
        assert!(error.contains("203.0.113.77:0") && error.contains("--bind"), "{error}");
        config.bind_is_default = true;
        config.bind_addresses = vec![NOBODYS.into()];
        assert!(listen_all(&config).is_err(), "a server that listens nowhere serves nobody");
    }
}
