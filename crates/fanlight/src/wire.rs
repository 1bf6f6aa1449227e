//! Every thread and every queue of the process, in one place.

use crate::client_metrics::MetricsLine;
use crate::collector::{self, CollectorError};
use crate::config::{self, Config, Coturn};
use crate::control_loop::{ControlLoop, ControlThread, Input, ShardLine};
use crate::coturn::CoturnInputs;
use crate::external_ip;
use crate::health::{Health, Job, Watch, Watched};
use crate::load::LoadMeter;
use crate::metrics::Metrics;
use crate::net::{self, TCP_PORT_DEFAULT};
use crate::record::OwnRecord;
use crate::turn::TurnPlan;
use fanlight_base::{NodeId, Protocol, Random, sid_suffix};
use fanlight_control::{Control, ControlConfig, Limits, RoomDefaults, ShardIndex};
use fanlight_events::Event;
use fanlight_http::backend::{Backend, BackendError, Records};
use fanlight_http::collector::CollectorApp;
use fanlight_http::{App, ClientStats, Gate};
use fanlight_livekit::server::{IceCredential, IceServer, Server};
use fanlight_sfu::output::LeaveAction;
use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
use fanlight_shard::{Acceptor, Clock, Shard, ShardHandle, ShardOf, Sinks, TurnGate, TurnThread, bind_udp};
use fanlight_store::collector::{
    ClientsReader, Collector, CollectorSender, PostgresError, PostgresSettings, PostgresSink,
};
use fanlight_store::{EventSender, Store, StoreError};
use fanlight_telemetry::turn_account::{self, Identity};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::{Certificate, ClockAnchor, ufrag};
use fanlight_turn::MediaSocket;
use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Instant;
use tokio::sync::oneshot;

/// Inputs that may wait for the control thread, from HTTP and from shards. A join is some five, from the check to the end;
/// a few thousand clients may come at once. When it is full HTTP answers 503 and shards offer again.
const CONTROL_INPUTS_MAX: usize = 32_768;

/// Life of a credential made for `rtc.turn_servers`, in seconds, as LiveKit has it.
const TURN_TTL_S: u32 = 14_400;

/// The running server, without HTTP.
pub(crate) struct Process {
    pub(crate) app: App,
    pub(crate) media: Media,
    inputs: SyncSender<Input>,
    drained: oneshot::Receiver<()>,
    watch: Watch,
    control: ControlThread,
    shards: Vec<Shard>,
    acceptor: Option<Acceptor>,
    turn: Option<TurnThread>,
    store: Store,
    clients: Option<Clients>,
}

/// The store of clients' reports, and the line to it of what LiveKit's clients measure.
struct Clients {
    store: Collector,
    metrics: MetricsLine,
}

/// Where media is served, for the greeting.
#[derive(Debug, Clone)]
pub(crate) struct Media {
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) tcp: Vec<SocketAddr>,
    /// TURN: over what, and where.
    pub(crate) turn: Vec<(&'static str, SocketAddr)>,
}

impl Process {
    /// Opens the record, binds the sockets, starts the threads.
    pub(crate) fn start(config: &Config) -> Result<Self, Box<dyn Error>> {
        let anchor = Instant::now();
        let clock = Clock::new(anchor);
        let mut random = Random::from_seed(system_seed()?);
        let node = NodeId::from(format!("ND_{}", sid_suffix(&mut random)));
        let store = open_record(config, &node)?;
        let clients = Clients::open_if_wanted(config)?;
        let events = store.sender();
        let (inputs, receiver) = sync_channel(CONTROL_INPUTS_MAX);

        let plan = MediaPlan::new(config, &mut random)?;
        let turn = TurnPlan::bind(config, &plan.addresses)?;
        let (media, ice_servers) = (plan.media(turn.as_ref()), ice_servers(config, turn.as_ref()));
        let gate = turn.as_ref().map(TurnPlan::gate);
        let sinks = || sinks(inputs.clone(), events.clone(), clients.as_ref());
        let shards = plan.start(anchor, &mut random, gate.as_ref(), sinks)?;
        let handles: Vec<ShardHandle> = shards.iter().map(|shard| shard.handle.clone()).collect();
        let acceptor = plan.accept(handles.clone())?;
        let turn = match turn {
            Some(turn) => {
                let (media, shard_of) = (plan.media_sockets(), plan.shard_of(&handles));
                let monitor = store.turn_monitor();
                Some(turn.start(clock, random.fork(), media, shard_of, events.clone(), monitor.inputs())?)
            }
            None => None,
        };

        let limits = limits(config);
        let control = Control::new(ControlConfig {
            node: node.clone(),
            shards: u16::try_from(shards.len()).unwrap_or(u16::MAX),
            limits: limits.clone(),
            room: room_defaults(config),
            random: random.fork(),
        });
        let (say_drained, drained) = oneshot::channel();
        let state = ControlLoop {
            control,
            clock,
            inputs: receiver,
            shards: handles.into_iter().map(ShardLine::new).collect(),
            load: LoadMeter::new(&shards),
            joining: HashMap::new(),
            event: event_sink(events),
            drained: once(say_drained),
        };
        let control = state.start()?;
        let calls =
            Threads { control: &control, shards: &shards, acceptor: acceptor.as_ref(), turn: turn.as_ref() };
        let threads = calls.and_those_of_the_record(&store, clients.as_ref());
        let reports = clients.as_ref().map(|clients| clients.store.sender());
        let health = Health::new(&threads, clock, store.sender(), reports);
        let watch = Watch::start(threads, health, inputs.clone())?;
        let keys = config.token_keys();
        let server = Server { node, keys, limits, ice_lite: config.rtc.use_ice_lite, ice_servers };
        let health = watch.health.clone();
        let app = App {
            server: Arc::new(server),
            backend: backend(inputs.clone()),
            record: Records::new(own_record(config, &store)?),
            now: Arc::new(move || clock.now()),
            health: Arc::new(move || health.node()),
            meet: config.meet,
            client_stats: clients.as_ref().map(|clients| clients.door(config)).transpose()?,
            dev: config.dev,
            gate: Gate::default(),
        };
        Ok(Self { app, media, inputs, drained, watch, control, shards, acceptor, turn, store, clients })
    }

    /// What Prometheus reads.
    pub(crate) fn metrics(&self, collector: Option<&CollectorApp>) -> Metrics {
        Metrics {
            started: (self.app.now)(),
            now: Arc::clone(&self.app.now),
            shards: self.shards.iter().map(|shard| (shard.counters.clone(), shard.load.clone())).collect(),
            acceptor: self.acceptor.as_ref().map(|acceptor| acceptor.counters.clone()),
            turn: self.turn.as_ref().map(|turn| turn.counters.clone()),
            monitor: self.store.turn_monitor(),
            events: self.store.sender(),
            collector: collector.cloned().zip(self.clients()),
            client_stats: self.app.client_stats.clone(),
            client_metrics: self.clients.as_ref().map(|clients| clients.metrics.counters()),
            gate: self.app.gate.clone(),
            health: self.watch.health.clone(),
        }
    }

    /// The way of clients' reports to their store, when it is open.
    pub(crate) fn clients(&self) -> Option<CollectorSender> {
        self.clients.as_ref().map(|clients| clients.store.sender())
    }

    /// Ready when a thread has ended without which there is nothing to serve; the thread's name.
    pub(crate) async fn failed(&mut self) -> String {
        self.watch.ended().await
    }

    /// What tells of coturn, as configured; whoever gets it runs it.
    pub(crate) async fn listen_to_coturn(&self, coturn: &Coturn) -> Result<CoturnInputs, Box<dyn Error>> {
        let random = Random::from_seed(system_seed()?);
        Ok(CoturnInputs::bind(coturn, &self.store, random).await?)
    }

    /// Ends all sessions with a leave that tells clients what to do, then the threads, then closes the record. Returns false when the record could not
    /// be written whole.
    pub(crate) async fn stop(self, patience: std::time::Duration, action: LeaveAction) -> bool {
        let Self { app, inputs, drained, watch, control, shards, acceptor, turn, store, clients, .. } = self;
        // A control thread that is stuck has no room for it, and nobody waits for one that has ended.
        let asked = inputs.try_send(Input::Shutdown(action)).is_ok();
        if asked && tokio::time::timeout(patience, drained).await.is_err() {
            tracing::warn!("not every session ended within {} s", patience.as_secs());
        }
        drop(app);
        tokio::task::spawn_blocking(move || {
            // It holds a way to the control thread, and would take the ends that follow for faults.
            watch.stop();
            if let Some(acceptor) = acceptor {
                acceptor.stop();
            }
            if turn.is_some_and(|turn| !turn.stop()) {
                tracing::error!("the TURN thread had panicked, or does not end");
            }
            // All at once, so that several stuck ones take no longer than one.
            let stopping: Vec<_> =
                shards.into_iter().map(|shard| std::thread::spawn(move || shard.stop())).collect();
            if !stopping.into_iter().all(|stopped| stopped.join().unwrap_or(false)) {
                tracing::error!("a media thread had panicked, or does not end");
            }
            drop(inputs);
            // The control thread ends when the last sender is gone; HTTP tasks may hold one a little longer.
            drop(control);
            if let Some(clients) = clients {
                clients.close();
            }
            let closed = store.close();
            if closed.unwritten_rows > 0 {
                tracing::error!(rows = closed.unwritten_rows, "rows could not be written to the record");
            }
            closed.whole
        })
        .await
        .unwrap_or(false)
    }
}

/// The threads that calls need.
struct Threads<'a> {
    control: &'a ControlThread,
    shards: &'a [Shard],
    acceptor: Option<&'a Acceptor>,
    turn: Option<&'a TurnThread>,
}

impl Threads<'_> {
    /// All threads that are looked at.
    fn and_those_of_the_record(self, store: &Store, clients: Option<&Clients>) -> Vec<Watched> {
        let calls = |name: &str, turns| Watched { name: name.to_owned(), job: Job::Calls, turns };
        let record = |name: &str, turns| Watched { name: name.to_owned(), job: Job::Record, turns };
        let shards = self.shards.iter().zip(0u16..).map(|(shard, index)| Watched {
            name: shard_name(index),
            job: Job::Shard(ShardIndex(index)),
            turns: shard.turns.clone(),
        });
        shards
            .chain([calls("control", self.control.turns.clone())])
            .chain(self.acceptor.map(|acceptor| calls("ice-tcp", acceptor.turns.clone())))
            .chain(self.turn.map(|turn| calls("turn", turn.turns.clone())))
            .chain([record("store", store.turns())])
            .chain(clients.map(|clients| record("collector", clients.store.turns())))
            .chain(clients.map(|clients| record("client-metrics", clients.metrics.turns())))
            .collect()
    }
}

fn shard_name(index: u16) -> String {
    format!("shard-{index}")
}

impl Clients {
    /// Opens them in development, unless told otherwise, as with the listener.
    fn open_if_wanted(config: &Config) -> Result<Option<Self>, Box<dyn Error>> {
        if !config.collector.enabled.unwrap_or(config.dev) {
            return Ok(None);
        }
        let store = open_clients(&config.data_dir, &config.collector)?;
        let metrics = MetricsLine::start(store.sender())?;
        Ok(Some(Self { store, metrics }))
    }

    /// What takes reports of pages.
    fn door(&self, config: &Config) -> Result<Arc<ClientStats>, CollectorError> {
        collector::client_stats(config, self.store.sender())
    }

    /// Stores what waits; the media threads must have ended.
    fn close(self) {
        if !self.metrics.finish() {
            tracing::error!("the thread of clients' metrics had panicked, or does not end");
        }
        self.store.close();
    }
}

/// Opens the store of clients' reports, with a thread of its own: PostgreSQL where it is configured, else SQLite. The spool is in
/// `dir` either way.
pub(crate) fn open_clients(dir: &Path, config: &config::Collector) -> Result<Collector, Box<dyn Error>> {
    let default = fanlight_store::collector::CollectorSettings::default();
    let mut dedup = default.dedup;
    if let Some(seconds) = config.heartbeat_s {
        dedup.heartbeat_ms = seconds.saturating_mul(1_000);
    }
    let settings = fanlight_store::collector::CollectorSettings {
        retention_days: config.retention_days.unwrap_or(default.retention_days),
        retention_bytes: config.retention_bytes.unwrap_or(default.retention_bytes),
        spool_bytes_max: config.spool_max_bytes.unwrap_or(default.spool_bytes_max),
        dedup,
        ..default
    };
    let Some(postgres) = postgres(config) else { return Ok(Collector::open(dir, settings)?) };
    Ok(Collector::with_sink(dir, settings, Box::new(PostgresSink::new(&postgres)?))?)
}

fn own_record(config: &Config, store: &Store) -> Result<OwnRecord, PostgresError> {
    Ok(OwnRecord {
        dir: config.data_dir.clone(),
        monitor: store.turn_monitor(),
        clients: clients_reader(&config.data_dir, &config.collector)?,
    })
}

/// Reads clients' reports where [`open_clients`] keeps them. PostgreSQL is read on a thread of its own.
pub(crate) fn clients_reader(dir: &Path, config: &config::Collector) -> Result<ClientsReader, PostgresError> {
    match postgres(config) {
        Some(postgres) => ClientsReader::postgres(&postgres),
        None => Ok(ClientsReader::sqlite(dir)),
    }
}

fn postgres(config: &config::Collector) -> Option<PostgresSettings> {
    let usual = PostgresSettings::new(config.postgres_uri.as_ref()?.reveal().clone());
    Some(PostgresSettings {
        ca_cert_file: config.postgres_ca_cert_file.clone(),
        compress_after_days: config.timescale_compress_after_days.unwrap_or(usual.compress_after_days),
        ..usual
    })
}

fn open_record(config: &Config, node: &NodeId) -> Result<Store, StoreError> {
    let settings = fanlight_store::Settings {
        node: node.clone(),
        retention_days: config.retention_days,
        turn: turn_settings(&config.coturn),
    };
    Store::open(&config.data_dir, settings)
}

/// Sockets and candidates of all shards.
struct MediaPlan {
    addresses: Vec<net::MediaAddress>,
    udp_ports: Vec<u16>,
    tcp_port: u16,
    texts: TextLimits,
}

impl MediaPlan {
    fn new(config: &Config, random: &mut Random) -> Result<Self, Box<dyn Error>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = u16::try_from(cores).unwrap_or(u16::MAX).min(ufrag::SHARDS_MAX);
        let udp_ports = net::udp_ports(&config.rtc, wanted);
        if udp_ports.len() < usize::from(wanted) {
            tracing::warn!(
                shards = udp_ports.len(),
                cores,
                "each media thread needs a UDP port of its own: widen rtc.udp_port to use more cores"
            );
        }
        let node_ip = match config.rtc.node_ip {
            None if config.rtc.use_external_ip => Some(external_ip::find(&config.rtc.stun_servers, random)?),
            node_ip => node_ip,
        };
        Ok(Self {
            addresses: net::media_addresses(&config.rtc, node_ip)?,
            udp_ports,
            tcp_port: config.rtc.tcp_port.unwrap_or(TCP_PORT_DEFAULT),
            texts: text_limits(&limits(config)),
        })
    }

    fn start(
        &self,
        anchor: Instant,
        random: &mut Random,
        turn: Option<&TurnGate>,
        sinks: impl Fn() -> Sinks,
    ) -> Result<Vec<Shard>, Box<dyn Error>> {
        let certificate = Certificate::generate()?;
        let mut shards = Vec::new();
        for (index, port) in (0u16..).zip(&self.udp_ports) {
            let mut endpoints = Vec::new();
            let udp = net::with_port(&self.addresses, *port);
            for address in &udp {
                endpoints.push(bind_udp(address.bound, "rtc.udp_port")?);
            }
            let mut candidates: Vec<LocalCandidate> =
                udp.iter().map(|address| address.candidate(Protocol::Udp)).collect();
            candidates.extend(self.tcp().iter().map(|address| address.candidate(Protocol::Tcp)));
            let mut seed = [0; 32];
            random.fill(&mut seed);
            let sfu = Sfu::new(SfuConfig {
                shard: index,
                seed,
                certificate: certificate.clone(),
                anchor: ClockAnchor::new(anchor, fanlight_base::Mono::default()),
                candidates,
                texts: self.texts,
                envelope: fanlight_livekit::data::ENVELOPE,
                encode_info: fanlight_livekit::convert::encode_participant,
            });
            shards.push(Shard::start(
                shard_name(index),
                sfu,
                Clock::new(anchor),
                endpoints,
                turn.cloned(),
                sinks(),
            )?);
        }
        Ok(shards)
    }

    fn accept(&self, shards: Vec<ShardHandle>) -> Result<Option<Acceptor>, Box<dyn Error>> {
        let addresses: Vec<SocketAddr> = self.tcp().iter().map(|address| address.bound).collect();
        if addresses.is_empty() {
            return Ok(None);
        }
        Ok(Some(Acceptor::start(&addresses, move |name| {
            shards.get(usize::from(ufrag::shard(name)?)).cloned()
        })?))
    }

    /// One port for all shards.
    fn tcp(&self) -> Vec<net::MediaSocket> {
        if self.tcp_port == 0 {
            return Vec::new();
        }
        net::with_port(&self.addresses, self.tcp_port)
    }

    fn media(&self, turn: Option<&TurnPlan>) -> Media {
        Media {
            udp: self.udp().map(|(_, address)| address.announced).collect(),
            tcp: self.tcp().into_iter().map(|address| address.announced).collect(),
            turn: turn.map(|turn| turn.places.clone()).unwrap_or_default(),
        }
    }

    /// UDP sockets with the place of their shard.
    fn udp(&self) -> impl Iterator<Item = (usize, net::MediaSocket)> {
        let sockets = |port: &u16| net::with_port(&self.addresses, *port);
        let ports = self.udp_ports.iter().enumerate();
        ports.flat_map(move |(shard, port)| sockets(port).into_iter().map(move |socket| (shard, socket)))
    }

    fn media_sockets(&self) -> Vec<MediaSocket> {
        let sockets = self.udp().map(|(_, socket)| socket);
        sockets.map(|socket| MediaSocket { advertised: socket.announced, local: socket.bound }).collect()
    }

    fn shard_of(&self, shards: &[ShardHandle]) -> ShardOf {
        let owned = self.udp().filter_map(|(shard, socket)| Some((socket.bound, shards.get(shard)?.clone())));
        owned.collect()
    }
}

fn sinks(inputs: SyncSender<Input>, events: EventSender, clients: Option<&Clients>) -> Sinks {
    Sinks {
        control: Box::new(move |note| match inputs.try_send(Input::Shard(note)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(Input::Shard(note))) => Err(note),
            Err(TrySendError::Full(_)) => Ok(()),
        }),
        event: event_sink(events),
        metrics: clients.map(|clients| clients.metrics.sink()),
    }
}

fn event_sink(events: EventSender) -> Box<dyn FnMut(Event) -> bool + Send> {
    Box::new(move |event| events.try_send(event))
}

fn backend(inputs: SyncSender<Input>) -> Backend {
    Backend::new(move |message| {
        inputs.try_send(Input::Http(message)).map_err(|error| match error {
            TrySendError::Full(_) => BackendError::Overloaded,
            TrySendError::Disconnected(_) => BackendError::Gone,
        })
    })
}

fn once(sender: oneshot::Sender<()>) -> Box<dyn FnMut() + Send> {
    let mut sender = Some(sender);
    Box::new(move || {
        if let Some(sender) = sender.take() {
            // Nobody waits for it unless the process is stopping.
            let _ = sender.send(());
        }
    })
}

fn system_seed() -> Result<[u8; 32], Box<dyn Error>> {
    use std::io::Read;
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn limits(config: &Config) -> Limits {
    let default = Limits::default();
    let bytes = |limit: Option<u32>, default: usize| limit.map_or(default, |bytes| bytes as usize);
    Limits {
        num_tracks: u32::try_from(config.limit.num_tracks.max(0)).unwrap_or(u32::MAX),
        bytes_per_s: whole(config.limit.bytes_per_sec.0),
        metadata_bytes: bytes(
            config.limit.max_metadata_size.or(config.room.max_metadata_size),
            default.metadata_bytes,
        ),
        attributes_bytes: bytes(config.limit.max_attributes_size, default.attributes_bytes),
        room_name_bytes: config
            .limit
            .max_room_name_length
            .or(config.room.max_room_name_length)
            .unwrap_or(default.room_name_bytes),
        identity_bytes: config
            .limit
            .max_participant_identity_length
            .or(config.room.max_participant_identity_length)
            .unwrap_or(default.identity_bytes),
        name_bytes: config.limit.max_participant_name_length.unwrap_or(default.name_bytes),
    }
}

const fn text_limits(limits: &Limits) -> TextLimits {
    TextLimits {
        name_bytes: limits.name_bytes,
        metadata_bytes: limits.metadata_bytes,
        attributes_bytes: limits.attributes_bytes,
    }
}

/// LiveKit's file has a floating-point number here.
fn whole(number: f64) -> u64 {
    // Saturates, and 0 for what is no number.
    number.max(0.0) as u64
}

fn turn_settings(coturn: &Coturn) -> turn_account::Settings {
    let person = match coturn.user {
        Some(config::Person::Whole) => turn_account::Person::Whole,
        Some(config::Person::AfterTime) | None => turn_account::Person::AfterTime,
        Some(config::Person::AfterSeparator) => turn_account::Person::AfterSeparator,
        Some(config::Person::BeforeSeparator) => turn_account::Person::BeforeSeparator,
    };
    let separator = coturn.separator.unwrap_or(Identity::default().separator);
    turn_account::Settings {
        identity: Identity { person, separator, room_separator: coturn.room_separator },
        merge_gap_ms: coturn.merge_gap_s.saturating_mul(1_000),
    }
}

fn room_defaults(config: &Config) -> RoomDefaults {
    let default = RoomDefaults::default();
    let wanted = &config.room.enabled_codecs;
    let enabled_codecs = default
        .enabled_codecs
        .into_iter()
        .filter(|codec| wanted.is_empty() || wanted.iter().any(|one| one.mime.eq_ignore_ascii_case(codec)))
        .collect();
    RoomDefaults {
        auto_create: config.room.auto_create.unwrap_or(default.auto_create),
        empty_timeout_s: config.room.empty_timeout.unwrap_or(default.empty_timeout_s),
        departure_timeout_s: config.room.departure_timeout.unwrap_or(default.departure_timeout_s),
        max_participants: config.room.max_participants,
        enabled_codecs,
        presets: default.presets,
    }
}

/// What clients are told, in LiveKit's order; nothing that is not configured.
fn ice_servers(config: &Config, turn: Option<&TurnPlan>) -> Vec<IceServer> {
    let mut servers: Vec<IceServer> = turn.map(|turn| turn.ice_server.clone()).into_iter().collect();
    servers.extend(config.rtc.turn_servers.iter().map(|server| {
        let credential = if server.secret.reveal().is_empty() {
            let (username, password) = (server.username.clone(), server.credential.clone());
            IceCredential::Static { username, password }
        } else {
            let ttl_s = server.ttl.filter(|ttl_s| *ttl_s > 0).unwrap_or(TURN_TTL_S);
            IceCredential::Shared { secret: server.secret.clone(), ttl_s }
        };
        IceServer { urls: vec![server.url()], credential }
    }));
    if !config.rtc.stun_servers.is_empty() {
        let urls = config.rtc.stun_servers.iter().map(|server| format!("stun:{server}")).collect();
        servers.push(IceServer { urls, credential: IceCredential::None });
    }
    servers
}
