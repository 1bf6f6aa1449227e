//! The embedded TURN server, from the configuration to its thread.

use crate::config::{Config, OwnTurn, TurnSettings};
use crate::net::{self, MediaAddress};
use crate::tls::{ServerTls, TlsError, TlsFiles};
use fanlight_base::{Random, Redacted};
use fanlight_livekit::server::{IceCredential, IceServer};
use fanlight_shard::{Clock, ShardOf, TurnError, TurnGate, TurnListen, TurnSockets, TurnThread};
use fanlight_store::EventSender;
use fanlight_store::coturn::InputHealth;
use fanlight_turn::{
    ApiKey, ByteQuota, Cidr, ConfigError, Credentials, MediaSocket, NodeAddresses, NotCidr, PeerRules,
    PortRange, Quotas, RelayAddress, Relays, TurnServer,
};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// As LiveKit's.
const REALM_DEFAULT: &str = "livekit";
/// LiveKit's defaults of `turn.relay_range_start` and `relay_range_end`.
const RELAY_PORTS_DEFAULT: (u16, u16) = (30_000, 40_000);
/// LiveKit's default of `turn.ttl_seconds`: a client allocates right after it is told.
const TTL_DEFAULT_S: u32 = 300;
/// LiveKit's limit of `turn.ttl_seconds`.
const TTL_MAX_S: u32 = 86_400;
/// Over which time `fanlight.turn.user_quota_bytes` is counted when nothing says so: a day.
const QUOTA_WINDOW_DEFAULT_S: u64 = 86_400;
/// The port of HTTPS, where a load balancer takes TLS for us.
const HTTPS_PORT: u16 = 443;
/// Our own server among those that the record knows: it is the same one after a restart.
const NODE: &str = "fanlight";

/// TURN cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnPlanError {
    #[error("turn.enabled needs a port: set turn.udp_port (3478 is usual), turn.tls_port (5349) or both")]
    NoPort,
    #[error("turn.tls_port needs turn.domain: clients check the certificate against it")]
    NoDomain,
    #[error(
        "turn.tls_port needs {0}; where something in front of this server ends TLS, set turn.external_tls"
    )]
    NoCertificate(&'static str),
    #[error("turn.{key}: {source}")]
    Cidr { key: &'static str, source: NotCidr },
    #[error(transparent)]
    Net(#[from] net::NetError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Core(#[from] ConfigError),
    #[error(transparent)]
    Sockets(#[from] TurnError),
}

/// Sockets that are bound, and what the server on them will be.
pub(crate) struct TurnPlan {
    sockets: TurnSockets,
    tls: Option<ServerTls>,
    config: fanlight_turn::Config,
    pub(crate) ice_server: IceServer,
    /// Where clients come in, for the greeting.
    pub(crate) places: Vec<(&'static str, SocketAddr)>,
}

impl TurnPlan {
    /// Binds what is configured; `None` when TURN is off.
    pub(crate) fn bind(config: &Config, media: &[MediaAddress]) -> Result<Option<Self>, TurnPlanError> {
        let settings = &config.turn;
        if !settings.enabled {
            return Ok(None);
        }
        let ports = Ports::of(settings, &config.own_turn)?;
        let addresses = listen_on(settings, media)?;
        let at = |port: Option<u16>| -> Vec<SocketAddr> {
            port.map(|port| addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
                .unwrap_or_default()
        };
        let tls = ports.tls.map(|_| secured(settings)).transpose()?;
        let listen = TurnListen {
            udp: at(ports.udp),
            tcp: at(ports.tcp).into_iter().chain(at(ports.external_tls)).collect(),
            tls: at(ports.tls),
            secured: tls.as_ref().map(|tls| Arc::clone(&tls.config)),
        };
        let sockets = TurnSockets::bind(listen)?;
        let relays = relays(settings, media);
        let named = |name, addresses: &[SocketAddr]| {
            addresses.iter().map(|address| (name, *address)).collect::<Vec<_>>()
        };
        let places =
            [named("UDP", &sockets.udp), named("TCP", &sockets.tcp), named("TLS", &sockets.tls)].concat();
        let ice_server = ice_server(config, &ports, &relays);
        let config = fanlight_turn::Config {
            realm: config.own_turn.realm.as_deref().unwrap_or(REALM_DEFAULT).into(),
            credentials: Credentials {
                participants: config.keys.iter().map(api_key).collect(),
                static_auth_secret: config.own_turn.static_auth_secret.clone(),
            },
            relays,
            peers: PeerRules {
                allow_restricted: cidrs(
                    "allow_restricted_peer_cidrs",
                    &settings.allow_restricted_peer_cidrs,
                )?,
                deny: cidrs("deny_peer_cidrs", &settings.deny_peer_cidrs)?,
            },
            node: NodeAddresses { own: own_addresses(media)?, media: Vec::new() },
            quotas: quotas(settings, &config.own_turn),
            first_id: 1,
        };
        Ok(Some(Self { sockets, tls, config, ice_server, places }))
    }

    /// For the media threads.
    pub(crate) fn gate(&self) -> TurnGate {
        self.sockets.gate()
    }

    /// Starts the thread, and what renews its certificate, which needs the runtime. `media` are the sockets that may always be reached, `shards` whose they are.
    pub(crate) fn start(
        self,
        clock: Clock,
        random: Random,
        media: Vec<MediaSocket>,
        shards: ShardOf,
        events: EventSender,
        inputs: &InputHealth,
    ) -> Result<TurnThread, TurnPlanError> {
        let mut config = self.config;
        config.node.media = media;
        let server = TurnServer::new(config, random)?;
        let places: Vec<String> =
            self.places.iter().map(|(name, address)| format!("{name} {address}")).collect();
        let gauge = inputs.add("own", places.join(", "));
        gauge.node(&NODE.into(), true);
        let event = Box::new(move |event: &fanlight_events::Event| {
            let taken = events.has_room() && events.try_send(event.clone());
            if let (true, fanlight_events::Event::Turn(heard, _)) = (taken, event) {
                gauge.message(heard.unix_ms());
            }
            taken
        });
        if let Some(tls) = self.tls {
            tokio::spawn(tls.keep_renewed());
        }
        Ok(self.sockets.start(server, NODE.into(), clock, shards, event)?)
    }
}

/// Ports by what is spoken on them.
struct Ports {
    udp: Option<u16>,
    tcp: Option<u16>,
    tls: Option<u16>,
    /// Plain TCP behind somebody else's TLS.
    external_tls: Option<u16>,
}

impl Ports {
    fn of(settings: &TurnSettings, own: &OwnTurn) -> Result<Self, TurnPlanError> {
        let udp = settings.udp_port.filter(|port| *port > 0);
        let tls = settings.tls_port.filter(|port| *port > 0);
        if udp.is_none() && tls.is_none() {
            return Err(TurnPlanError::NoPort);
        }
        if tls.is_some() && settings.domain.is_empty() {
            return Err(TurnPlanError::NoDomain);
        }
        Ok(Self {
            udp,
            tcp: udp.filter(|_| own.tcp.unwrap_or(true)),
            tls: tls.filter(|_| !settings.external_tls),
            external_tls: tls.filter(|_| settings.external_tls),
        })
    }
}

fn secured(settings: &TurnSettings) -> Result<ServerTls, TurnPlanError> {
    let path = |path: &Option<PathBuf>, key| path.clone().ok_or(TurnPlanError::NoCertificate(key));
    let files = TlsFiles {
        certificate: path(&settings.cert_file, "turn.cert_file")?,
        key: path(&settings.key_file, "turn.key_file")?,
        client_authorities: None,
    };
    // ALPN of TURN (RFC 7443) is left out: clients that offer none, or other protocols, are served as well.
    Ok(ServerTls::load(&files, &[])?)
}

/// The addresses asked for, each by itself: an answer must leave from where the question came in.
fn listen_on(settings: &TurnSettings, media: &[MediaAddress]) -> Result<Vec<IpAddr>, TurnPlanError> {
    let mut wanted: Vec<IpAddr> = Vec::new();
    for address in settings.bind_addresses.iter().flat_map(|one| &one.0) {
        match address.is_unspecified() {
            true => wanted
                .extend(net::own_addresses()?.into_iter().filter(|own| own.is_ipv4() == address.is_ipv4())),
            false => wanted.push(*address),
        }
    }
    if wanted.is_empty() {
        wanted.extend(media.iter().map(|address| address.bound));
    }
    let mut chosen = Vec::new();
    for address in wanted {
        if !chosen.contains(&address) {
            chosen.push(address);
        }
    }
    Ok(chosen)
}

fn relays(settings: &TurnSettings, media: &[MediaAddress]) -> Relays {
    // An address that others can reach, where there is one.
    let mut chosen = media.to_vec();
    chosen.sort_by_key(|address| address.announced.is_loopback());
    let pairs = || chosen.iter().map(|address| (address.bound, address.announced));
    Relays {
        v4: pairs().find_map(|pair| match pair {
            (IpAddr::V4(bind), IpAddr::V4(advertised)) => Some(RelayAddress { bind, advertised }),
            _ => None,
        }),
        v6: pairs().find_map(|pair| match pair {
            (IpAddr::V6(bind), IpAddr::V6(advertised)) => Some(RelayAddress { bind, advertised }),
            _ => None,
        }),
        ports: PortRange {
            first: settings.relay_range_start.unwrap_or(RELAY_PORTS_DEFAULT.0),
            last: settings.relay_range_end.unwrap_or(RELAY_PORTS_DEFAULT.1),
        },
    }
}

fn ice_server(config: &Config, ports: &Ports, relays: &Relays) -> IceServer {
    let v4 = relays.v4.map(|relay| relay.advertised.to_string());
    let host = v4.or_else(|| relays.v6.map(|relay| format!("[{}]", relay.advertised))).unwrap_or_default();
    let domain = &config.turn.domain;
    let mut urls = Vec::new();
    urls.extend(ports.udp.map(|port| format!("turn:{host}:{port}?transport=udp")));
    urls.extend(ports.tcp.map(|port| format!("turn:{host}:{port}?transport=tcp")));
    let outside = ports.external_tls.map(|_| HTTPS_PORT);
    urls.extend(ports.tls.or(outside).map(|port| format!("turns:{domain}:{port}?transport=tcp")));
    let ttl_s = config.turn.ttl_seconds.filter(|ttl_s| *ttl_s > 0).unwrap_or(TTL_DEFAULT_S).min(TTL_MAX_S);
    let credential = match config.keys.iter().next() {
        Some(key) => IceCredential::Participant { key: api_key(key), ttl_s },
        None => IceCredential::None,
    };
    IceServer { urls, credential }
}

fn api_key((key, secret): (&String, &Redacted<String>)) -> ApiKey {
    ApiKey { key: key.clone(), secret: secret.clone() }
}

fn cidrs(key: &'static str, texts: &[String]) -> Result<Vec<Cidr>, TurnPlanError> {
    let parsed: Result<_, NotCidr> = texts.iter().map(|text| text.parse()).collect();
    parsed.map_err(|source| TurnPlanError::Cidr { key, source })
}

fn own_addresses(media: &[MediaAddress]) -> Result<Vec<IpAddr>, net::NetError> {
    let mut own = net::own_addresses()?;
    own.extend(media.iter().map(|address| address.announced));
    Ok(own)
}

fn quotas(settings: &TurnSettings, own: &OwnTurn) -> Quotas {
    let default = Quotas::default();
    let unlimited = |limit: u32| if limit == 0 { u32::MAX } else { limit };
    let window_s = own.user_quota_window_s.unwrap_or(QUOTA_WINDOW_DEFAULT_S);
    Quotas {
        user_allocations: settings
            .per_user_relay_allocation_limit
            .map_or(default.user_allocations, unlimited),
        total_allocations: own.total_allocations.map_or(default.total_allocations, unlimited),
        allocation_bps: own.allocation_bps.filter(|bps| *bps > 0),
        user_bytes: own
            .user_quota_bytes
            .filter(|bytes| *bytes > 0)
            .map(|bytes| ByteQuota { bytes, window: Duration::from_secs(window_s) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn config(yaml: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fanlight.yaml");
        std::fs::write(&path, format!("keys: {{devkey: secretsecretsecretsecretsecretsecret}}\n{yaml}\n"))
            .unwrap();
        Config::load(Overrides { config: Some(path), ..Overrides::default() }).unwrap().0
    }

    fn loopback() -> Vec<MediaAddress> {
        let ip = IpAddr::from([127, 0, 0, 1]);
        vec![MediaAddress { bound: ip, announced: ip }]
    }

    fn refusal(yaml: &str) -> String {
        match TurnPlan::bind(&config(yaml), &loopback()) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{yaml} was accepted"),
        }
    }

    #[test]
    fn without_turn_enabled_nothing_is_bound() {
        assert!(TurnPlan::bind(&config("turn: {udp_port: 3478}"), &loopback()).unwrap().is_none());
    }

    #[test]
    fn what_cannot_work_is_refused_in_words_that_name_the_key() {
        assert!(refusal("turn: {enabled: true}").contains("turn.udp_port"));
        assert!(refusal("turn: {enabled: true, tls_port: 5349}").contains("turn.domain"));
        let no_certificate = refusal("turn: {enabled: true, tls_port: 5349, domain: t.example}");
        assert!(no_certificate.contains("turn.cert_file"), "{no_certificate}");
        let bad = refusal("turn: {enabled: true, udp_port: 34781, deny_peer_cidrs: [here]}");
        assert!(bad.contains("turn.deny_peer_cidrs") && bad.contains("here"), "{bad}");
    }

    fn urls(yaml: &str) -> Vec<String> {
        let config = config(yaml);
        let relays = relays(&config.turn, &loopback());
        ice_server(&config, &Ports::of(&config.turn, &config.own_turn).unwrap(), &relays).urls
    }

    #[test]
    fn clients_are_told_the_ports_there_are_and_443_only_behind_a_load_balancer() {
        assert_eq!(
            urls("turn: {enabled: true, udp_port: 3478, tls_port: 5349, domain: t.example}"),
            [
                "turn:127.0.0.1:3478?transport=udp",
                "turn:127.0.0.1:3478?transport=tcp",
                "turns:t.example:5349?transport=tcp"
            ]
        );
        assert_eq!(
            urls("turn: {enabled: true, tls_port: 5349, domain: t.example, external_tls: true}"),
            ["turns:t.example:443?transport=tcp"]
        );
        assert_eq!(
            urls("turn: {enabled: true, udp_port: 3478}\nfanlight: {turn: {tcp: false}}"),
            ["turn:127.0.0.1:3478?transport=udp"]
        );
    }

    #[test]
    fn quotas_are_livekits_unless_configured() {
        let of = |yaml: &str| {
            let config = config(yaml);
            quotas(&config.turn, &config.own_turn)
        };
        assert_eq!(of("turn: {enabled: true}"), Quotas::default());
        let own = of(
            "turn: {per_user_relay_allocation_limit: 0}\nfanlight: {turn: {user_quota_bytes: 5, allocation_bps: 7}}",
        );
        assert_eq!((own.user_allocations, own.allocation_bps), (u32::MAX, Some(7)));
        assert_eq!(own.user_bytes, Some(ByteQuota { bytes: 5, window: Duration::from_secs(86_400) }));
    }
}
