//! The collector, from the configuration to open listeners: the store of clients' reports behind Kohaku's interface.

pub(crate) mod kohaku_config;
pub(crate) mod log_file;

use crate::config::{Config, LOOPBACK};
use crate::metrics::ExporterMetrics;
use crate::serve::{is_no_such_address, listen};
use crate::tls::{ServerTls, TlsError, TlsFiles};
use fanlight_http::backend::{ClientReports, NotStored, ReportSink, Stored, Storing};
use fanlight_http::collector::{
    ALPN, Access, COLLECTOR_PATH, CollectorApp, CollectorSettings, FRAME_BYTES, Http2Settings,
    WEBHOOK_PATH_DEFAULT, serve_collector, serve_exporter,
};
use fanlight_http::{ClientStats, CollectorKey, MetricsApp};
use fanlight_store::collector::{CollectError, CollectorSender};
use fanlight_telemetry::collector::ClientReport;
use kohaku_config::KohakuConfig;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where Sora's stats exporter is told to send to, in Kohaku's documents.
const PORT_DEFAULT: u16 = 5890;
/// Where Kohaku's own metrics are.
const EXPORTER_PORT_DEFAULT: u16 = 5891;

/// A key can be read in the page, but nobody should hit upon one.
const KEY_BYTES_MIN: usize = 16;

/// What is configured, whoever's file it stood in.
#[derive(Debug, Clone)]
pub(crate) struct CollectorPlan {
    listen: Place,
    exporter: Option<Place>,
    /// Nobody asked for it by name: it may be left out when it cannot be had.
    optional: bool,
    tls: Option<TlsFiles>,
    https: bool,
    exporter_https: bool,
    http2: Http2Settings,
    webhook_path: String,
    strict: bool,
    /// Requests are logged, as Kohaku did.
    loud: bool,
}

/// Where to listen, and the key that says so.
#[derive(Debug, Clone)]
struct Place {
    key: &'static str,
    addresses: Vec<SocketAddr>,
    /// An address that this machine does not have may be left out.
    is_default: bool,
}

/// The collector cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectorError {
    #[error("cannot listen on {address}: {source}; choose another {key}, or end what holds it")]
    Listen { key: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("tls_fullchain_file and tls_privkey_file belong together: set both of them, or neither")]
    HalfTls,
    #[error("{key} needs tls_fullchain_file and tls_privkey_file")]
    NoTls { key: &'static str },
    #[error(
        "the path of the webhook is `{0}`; write one that begins with / and is not taken, such as /sora/webhook/stats"
    )]
    WebhookPath(String),
    #[error("http2_max_read_frame_size is {0}; HTTP/2 has 16384 to 16777215")]
    FrameSize(u32),
    #[error(
        "fanlight.collector.keys[{0}]: the key has fewer than {KEY_BYTES_MIN} bytes; `openssl rand -hex 16` makes one"
    )]
    ShortKey(usize),
    #[error(
        "fanlight.collector.keys[{place}]: {origin:?} is no origin; write them as browsers do, such as https://example.org, or * for any"
    )]
    Origin { place: usize, origin: String },
}

impl CollectorPlan {
    /// What `fanlight.collector` says; `None` when it is off. On in development unless told otherwise.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, CollectorError> {
        let own = &config.collector;
        if !own.enabled.unwrap_or(config.dev) {
            return Ok(None);
        }
        let named: Vec<IpAddr> = own.bind_addresses.iter().flat_map(|address| address.0.clone()).collect();
        // `enabled` alone means pages and calls: nobody asked for a port that anybody may send to.
        let place = |key, port: Option<u16>, default| {
            let (ips, is_default): (&[IpAddr], bool) = match port {
                _ if !named.is_empty() => (&named, false),
                Some(_) => (&config.bind_addresses, config.bind_is_default),
                None => (&LOOPBACK, true),
            };
            let port = port.unwrap_or(default);
            Place { key, addresses: ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect(), is_default }
        };
        let tls = match (&own.tls_fullchain_file, &own.tls_privkey_file) {
            (Some(fullchain), Some(privkey)) => Some(TlsFiles {
                certificate: fullchain.clone(),
                key: privkey.clone(),
                client_authorities: own.tls_verify_cacert_path.clone(),
            }),
            (None, None) => None,
            _ => return Err(CollectorError::HalfTls),
        };
        let idle_s = own.http2_idle_timeout.filter(|seconds| *seconds > 0);
        let plan = Self {
            listen: place("fanlight.collector.port", own.port, PORT_DEFAULT),
            exporter: (own.exporter_port != Some(0))
                .then(|| place("fanlight.collector.exporter_port", own.exporter_port, EXPORTER_PORT_DEFAULT)),
            optional: own.enabled.is_none(),
            https: tls.is_some(),
            tls,
            exporter_https: own.exporter_https,
            http2: http2(
                own.http2_max_concurrent_streams,
                own.http2_max_read_frame_size,
                idle_s.map(Duration::from_secs),
            )?,
            webhook_path: webhook_path(own.webhook_path.as_deref())?,
            strict: own.strict,
            loud: false,
        };
        if plan.tls.is_none() && own.tls_verify_cacert_path.is_some() {
            return Err(CollectorError::NoTls { key: "fanlight.collector.tls_verify_cacert_path" });
        }
        plan.checked().map(Some)
    }

    /// What Kohaku's own file says.
    pub(crate) fn from_kohaku(kohaku: &KohakuConfig, strict: bool) -> Result<Self, CollectorError> {
        let place =
            |key, ip, port| Place { key, addresses: vec![SocketAddr::new(ip, port)], is_default: false };
        let files = kohaku.tls_fullchain_file.clone().zip(kohaku.tls_privkey_file.clone());
        let files = files.map(|(fullchain, privkey)| TlsFiles {
            certificate: fullchain,
            key: privkey,
            client_authorities: kohaku.tls_verify_cacert_path.clone(),
        });
        if kohaku.https && files.is_none() {
            return Err(CollectorError::NoTls { key: "https = true" });
        }
        Self {
            listen: place("listen_port", kohaku.listen_addr, kohaku.listen_port),
            exporter: Some(place(
                "exporter_listen_port",
                kohaku.exporter_listen_addr,
                kohaku.exporter_listen_port,
            )),
            optional: false,
            tls: files.filter(|_| kohaku.https || kohaku.exporter_https),
            https: kohaku.https,
            exporter_https: kohaku.exporter_https,
            http2: http2(
                kohaku.http2_max_concurrent_streams,
                kohaku.http2_max_read_frame_size,
                kohaku.http2_idle_timeout,
            )?,
            webhook_path: webhook_path(kohaku.stats_webhook_path.as_deref())?,
            strict,
            loud: true,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, CollectorError> {
        if self.exporter_https && self.tls.is_none() {
            return Err(CollectorError::NoTls { key: "exporter_https" });
        }
        Ok(self)
    }
}

fn http2(
    streams: Option<u32>,
    frame_bytes: Option<u32>,
    idle: Option<Duration>,
) -> Result<Http2Settings, CollectorError> {
    let default = Http2Settings::default();
    let frame_bytes = frame_bytes.filter(|bytes| *bytes > 0).unwrap_or(default.frame_bytes);
    if !FRAME_BYTES.contains(&frame_bytes) {
        return Err(CollectorError::FrameSize(frame_bytes));
    }
    Ok(Http2Settings {
        concurrent_streams: streams.filter(|streams| *streams > 0).unwrap_or(default.concurrent_streams),
        frame_bytes,
        idle: idle.unwrap_or(default.idle),
    })
}

fn webhook_path(path: Option<&str>) -> Result<String, CollectorError> {
    let given = path.unwrap_or(WEBHOOK_PATH_DEFAULT);
    // A slash at the end is removed from requests, too.
    let path = given.strip_suffix('/').unwrap_or(given);
    let taken = ["", "/.ok", "/health"].contains(&path);
    if taken || !path.starts_with('/') || path.contains(['?', '#', ' ']) {
        return Err(CollectorError::WebhookPath(given.to_owned()));
    }
    Ok(path.to_owned())
}

/// Open listeners, ready to run.
pub(crate) struct CollectorDoors {
    app: CollectorApp,
    collector: Vec<TcpListener>,
    exporter: Vec<TcpListener>,
    tls: Option<ServerTls>,
    plan: CollectorPlan,
    /// Where it is served, for the greeting.
    pub(crate) places: Vec<String>,
}

/// Running listeners.
pub(crate) struct RunningDoors {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), fanlight_http::ServeError>>,
}

impl CollectorDoors {
    /// Binds. `None` when nobody asked for the collector by name and it cannot be had.
    pub(crate) fn bind(
        plan: CollectorPlan,
        sender: &CollectorSender,
    ) -> Result<Option<Self>, CollectorError> {
        let tls = plan.tls.as_ref().map(|files| ServerTls::load(files, &ALPN)).transpose()?;
        let collector = match plan.listen.bind() {
            Ok(listeners) => listeners,
            Err(error) if plan.optional => {
                tracing::warn!("the collector is not served: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let exporter = match plan.exporter.as_ref().map(Place::bind).transpose() {
            Ok(listeners) => listeners.unwrap_or_default(),
            Err(error) if plan.optional => {
                tracing::warn!("the collector's metrics are not served: {error}");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        let mut places = Vec::new();
        for address in collector.iter().filter_map(|listener| listener.local_addr().ok()) {
            places.push(format!("{}://{address}{COLLECTOR_PATH}", scheme(plan.https)));
        }
        for address in exporter.iter().filter_map(|listener| listener.local_addr().ok()) {
            places.push(format!("{}://{address}/metrics", scheme(plan.exporter_https)));
        }
        let settings = CollectorSettings {
            webhook_path: plan.webhook_path.clone(),
            strict: plan.strict,
            access: Arc::new(if plan.loud { log_access_loudly } else { log_access }),
            ..CollectorSettings::default()
        };
        let app = CollectorApp::new(ReportSink::new(OwnReports(sender.clone())), settings);
        Ok(Some(Self { app, collector, exporter, tls, plan, places }))
    }

    /// What is served; counts.
    pub(crate) fn app(&self) -> &CollectorApp {
        &self.app
    }

    /// Serves until [`RunningDoors::stop`].
    pub(crate) fn run(self, metrics: Option<ExporterMetrics>) -> RunningDoors {
        let (stop, stopped) = watch::channel(false);
        let until = move |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone: the process is ending.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let mut tasks = JoinSet::new();
        let config = self.tls.as_ref().map(|tls| Arc::clone(&tls.config));
        let tls = config.clone().filter(|_| self.plan.https);
        for listener in self.collector {
            let (http2, app) = (self.plan.http2.clone(), self.app.clone());
            tasks.spawn(serve_collector(listener, tls.clone(), http2, app, until(stopped.clone())));
        }
        let text = Arc::new(move || {
            let metrics = metrics.as_ref().ok_or("there are no metrics")?;
            metrics.text().map_err(|error| error.to_string())
        });
        let metrics = MetricsApp { text, login: None };
        let tls = config.filter(|_| self.plan.exporter_https);
        for listener in self.exporter {
            tasks.spawn(serve_exporter(listener, tls.clone(), metrics.clone(), until(stopped.clone())));
        }
        if let Some(tls) = self.tls {
            tokio::spawn(tls.keep_renewed());
        }
        RunningDoors { stop, tasks }
    }
}

impl RunningDoors {
    /// Takes no more requests, and answers those that have begun.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ready when a listener fails.
    pub(crate) async fn failed(&mut self) -> fanlight_http::ServeError {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(error))) => return error,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl Place {
    fn bind(&self) -> Result<Vec<TcpListener>, CollectorError> {
        let mut listeners = Vec::new();
        let mut absent = None;
        for address in self.addresses.iter().copied() {
            match listen(address) {
                Ok(listener) => listeners.push(listener),
                Err(source) => {
                    let may_be_absent = self.is_default && is_no_such_address(&source);
                    let error = CollectorError::Listen { key: self.key, address, source };
                    if !may_be_absent {
                        return Err(error);
                    }
                    absent = Some(error);
                }
            }
        }
        match absent {
            Some(error) if listeners.is_empty() => Err(error),
            _ => Ok(listeners),
        }
    }
}

/// What takes reports of pages.
pub(crate) fn client_stats(
    config: &Config,
    sender: CollectorSender,
) -> Result<Arc<ClientStats>, CollectorError> {
    let mut keys = Vec::new();
    for (place, known) in config.collector.keys.iter().enumerate() {
        if known.key.reveal().len() < KEY_BYTES_MIN {
            return Err(CollectorError::ShortKey(place));
        }
        let none = known.origins.is_empty().then(String::new);
        let wrong = known.origins.iter().find(|origin| !is_origin(origin)).cloned();
        if let Some(origin) = none.or(wrong) {
            return Err(CollectorError::Origin { place, origin });
        }
        keys.push(CollectorKey { key: known.key.clone(), origins: known.origins.clone() });
    }
    Ok(Arc::new(ClientStats::new(ReportSink::new(OwnReports(sender)), keys)))
}

/// Scheme, host and perhaps port, without a path.
fn is_origin(text: &str) -> bool {
    text == "*"
        || text.split_once("://").is_some_and(|(scheme, authority)| {
            !scheme.is_empty() && !authority.is_empty() && !authority.contains(['/', '*', '@', ' '])
        })
}

/// The store as HTTP handlers ask it.
struct OwnReports(CollectorSender);

impl ClientReports for OwnReports {
    fn store(&self, report: ClientReport) -> Storing {
        let answer = self.0.send(report);
        Box::pin(async move {
            let stored = answer.await.map_err(|error| {
                let text = error.to_string();
                match error {
                    CollectError::Busy => NotStored::Busy,
                    CollectError::Full(_) => NotStored::Full(text),
                    CollectError::Refused(_) => NotStored::Unfit(text),
                    CollectError::Closed => NotStored::Gone,
                }
            })?;
            Ok(Stored { stored: stored.objects, unchanged: stored.unchanged })
        })
    }

    fn ready(&self) -> Result<(), NotStored> {
        if self.0.is_ready() {
            return Ok(());
        }
        Err(NotStored::Full("the store of reports takes nothing just now".to_owned()))
    }
}

/// One line a request, in Kohaku's names.
macro_rules! access_line {
    ($level:ident, $access:expr) => {{
        let access = $access;
        tracing::$level!(
            remote_ip = %access.remote_ip,
            host = access.host,
            user_agent = access.user_agent,
            uri = access.uri,
            status = access.status,
            error = access.error,
            latency = access.latency.as_secs_f64() * 1_000.0,
            bytes_in = access.bytes_in,
            bytes_out = access.bytes_out,
            "{}",
            access.method
        );
    }};
}

fn log_access(access: &Access<'_>) {
    access_line!(debug, access);
}

fn log_access_loudly(access: &Access<'_>) {
    access_line!(info, access);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn plan(keys: &str, dev: bool) -> Result<Option<CollectorPlan>, CollectorError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.yaml");
        let key = "keys: {k: 0123456789012345678901234567890123456789}\n";
        let text = format!("{key}fanlight: {{collector: {{{keys}}}}}\n");
        std::fs::write(&path, text).expect("written");
        let overrides = Overrides { dev, config: Some(path), ..Overrides::default() };
        CollectorPlan::new(&Config::load(overrides).expect("known keys").0)
    }

    #[test]
    fn it_is_on_in_development_on_loopback_and_else_when_asked_for() {
        let dev = plan("", true).expect("usable").expect("on");
        assert!(dev.optional && dev.listen.addresses.iter().all(|address| address.ip().is_loopback()));
        assert_eq!(dev.listen.addresses[0].port(), 5890);
        assert!(plan("enabled: false", true).expect("usable").is_none());
        assert!(plan("", false).expect("usable").is_none());
        let on = plan("enabled: true, port: 1, exporter_port: 0, bind_addresses: [10.0.0.1]", false);
        let on = on.expect("usable").expect("on");
        assert_eq!(on.listen.addresses, [SocketAddr::from(([10, 0, 0, 1], 1))]);
        assert!(!on.optional && on.exporter.is_none() && !on.listen.is_default);
    }

    #[test]
    fn enabled_alone_opens_no_port_to_the_world() {
        let ips = |place: &Place| place.addresses.iter().all(|address| address.ip().is_loopback());
        let plain = plan("enabled: true", false).expect("usable").expect("on");
        assert!(ips(&plain.listen) && plain.exporter.as_ref().is_some_and(ips));
        let named = plan("enabled: true, port: 5890", false).expect("usable").expect("on");
        assert!(named.listen.addresses.iter().all(|address| address.ip().is_unspecified()));
        assert!(named.exporter.as_ref().is_some_and(ips), "its own port is not named");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_key() {
        for (keys, expected) in [
            ("tls_privkey_file: k.pem", "tls_fullchain_file"),
            ("tls_verify_cacert_path: ca.pem", "fanlight.collector.tls_verify_cacert_path needs"),
            ("exporter_https: true", "exporter_https needs"),
            ("webhook_path: stats", "`stats`"),
            ("webhook_path: /health/", "`/health/`"),
            ("http2_max_read_frame_size: 100", "http2_max_read_frame_size is 100"),
        ] {
            let error = plan(keys, true).expect_err(keys).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_origin_is_what_browsers_send() {
        for origin in ["https://example.org", "http://localhost:8080", "*", "app://x"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in ["", "example.org", "https://", "https://example.org/", "https://*.example.org", "null"]
        {
            assert!(!is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn kohakus_file_says_the_same() {
        let read =
            |text: &str| CollectorPlan::from_kohaku(&KohakuConfig::parse(text).expect("readable"), false);
        let plan = read("listen_addr = 127.0.0.1\nhttp2_max_concurrent_streams = 300\n").expect("usable");
        assert_eq!(plan.listen.addresses, [SocketAddr::from(([127, 0, 0, 1], 5890))]);
        assert!(plan.tls.is_none() && plan.loud && !plan.optional);
        assert_eq!((plan.http2.concurrent_streams, plan.http2.idle.as_secs()), (300, 60));
        let files = "tls_fullchain_file = f\ntls_privkey_file = k\ntls_verify_cacert_path = c\n";
        let plan = read(&format!("{files}https = true\nstats_webhook_path = /w/\n")).expect("usable");
        assert!(plan.https && plan.tls.is_some_and(|files| files.client_authorities.is_some()));
        assert_eq!(plan.webhook_path, "/w");
        assert!(read(files).expect("usable").tls.is_none(), "without https it is h2c");
        assert!(read("https = true\n").expect_err("no files").to_string().contains("tls_fullchain_file"));
    }
}
