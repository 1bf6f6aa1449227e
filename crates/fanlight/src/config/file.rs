//! The file: every key of LiveKit 1.13's configuration, each either used or known and not supported yet.

use fanlight_base::Redacted;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// API keys and their secrets.
pub(crate) type Keys = BTreeMap<String, Redacted<String>>;

/// Declares a section: its supported fields, then the keys that LiveKit has and we do not support yet.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_attr:meta])* $field:ident: $kind:ty,)* } unsupported { $($ignored:ident,)* } nested { $($nested:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($(#[$field_attr])* pub(crate) $field: $kind,)*
            $($ignored: Option<IgnoredAny>,)*
        }

        impl $name {
            #[allow(unused_variables, clippy::ptr_arg, reason = "a section may have nothing to report")]
            fn collect_unsupported(&self, prefix: &str, keys: &mut Vec<String>) {
                $(if self.$ignored.is_some() { keys.push(format!("{prefix}{}", stringify!($ignored))); })*
                $(self.$nested.collect_unsupported(concat!(stringify!($nested), "."), keys);)*
            }
        }
    };
}

section! {
    /// The whole file.
    File {
        port: Option<u16>,
        bind_addresses: Vec<BindAddress>,
        keys: Keys,
        key_file: Option<PathBuf>,
        rtc: Rtc,
        room: Room,
        logging: Logging,
        limit: Limit,
        turn: TurnSettings,
        development: bool,
        prometheus_port: u16,
        prometheus: Prometheus,
        fanlight: Own,
    } unsupported {
        redis, webhook, region, node_selector, ingress, signal_relay, psrpc, api,
        node_stats, audio, video, agents, metric, trace, debug_handler, sip, log_level, whip, enable_data_tracks,
        enable_participant_data_blob,
    } nested { rtc, room, logging, limit, prometheus, turn, fanlight, }
}

section! {
    /// `rtc:`
    Rtc {
        udp_port: Option<Ports>,
        tcp_port: Option<u16>,
        node_ip: Option<IpAddr>,
        use_external_ip: bool,
        use_ice_lite: bool,
        port_range_start: Option<u16>,
        port_range_end: Option<u16>,
        interfaces: Filter,
        ips: Filter,
        enable_loopback_candidate: bool,
        stun_servers: Vec<String>,
        turn_servers: Vec<TurnServer>,
    } unsupported {
        use_mdns, packet_buffer_size, packet_buffer_size_video, packet_buffer_size_audio, pli_throttle,
        congestion_control, allow_tcp_fallback, tcp_fallback_rtt_threshold, allow_udp_unstable_fallback,
        reconnect_on_publication_error, reconnect_on_subscription_error, reconnect_on_data_channel_error,
        data_channel_max_buffered_amount, datachannel_slow_threshold, datachannel_lossy_target_latency,
        datachannel_data_track_target_latency, forward_stats, batch_io, strict_acks, enable_warp, force_tcp,
        sctp_max_receive_buffer_size, sctp_max_message_size, sctp_min_cwnd,
    } nested { }
}

section! {
    /// `room:`
    Room {
        auto_create: Option<bool>,
        enabled_codecs: Vec<EnabledCodec>,
        max_participants: u32,
        empty_timeout: Option<u32>,
        departure_timeout: Option<u32>,
        max_metadata_size: Option<u32>,
        max_room_name_length: Option<usize>,
        max_participant_identity_length: Option<usize>,
    } unsupported {
        enable_remote_unmute, playout_delay, sync_streams, create_room_timeout, create_room_attempts,
        update_batch_target_size, enable_full_room_in_webhooks, room_configurations, user_packet_deduper,
        roomconfigurations, create_room_enabled,
    } nested { }
}

section! {
    /// `logging:`
    Logging {
        level: Option<String>,
        json: bool,
    } unsupported { sample, pion_level, component_levels, item_sample_seconds, item_sample_initial, item_sample_interval, } nested { }
}

section! {
    /// `limit:`; 0 is no limit.
    Limit {
        num_tracks: i64,
        bytes_per_sec: Amount,
        max_metadata_size: Option<u32>,
        max_attributes_size: Option<u32>,
        max_room_name_length: Option<usize>,
        max_participant_identity_length: Option<usize>,
        max_participant_name_length: Option<usize>,
    } unsupported {
        subscription_limit_video, subscription_limit_audio, signal_message_size_limit,
        max_api_body_size, max_agent_message_size, max_participant_data_blob_key_length,
        max_participant_data_blob_size, max_custom_encoding_length,
    } nested { }
}

section! {
    /// `turn:`, the embedded TURN server.
    TurnSettings {
        enabled: bool,
        domain: String,
        cert_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
        tls_port: Option<u16>,
        udp_port: Option<u16>,
        relay_range_start: Option<u16>,
        relay_range_end: Option<u16>,
        external_tls: bool,
        bind_addresses: Vec<BindAddress>,
        per_user_relay_allocation_limit: Option<u32>,
        ttl_seconds: Option<u32>,
        allow_restricted_peer_cidrs: Vec<String>,
        deny_peer_cidrs: Vec<String>,
    } unsupported { } nested { }
}

section! {
    /// `fanlight.turn:`, what LiveKit's section has no keys for.
    OwnTurn {
        realm: Option<String>,
        static_auth_secret: Option<Redacted<String>>,
        tcp: Option<bool>,
        total_allocations: Option<u32>,
        allocation_bps: Option<u64>,
        user_quota_bytes: Option<u64>,
        user_quota_window_s: Option<u64>,
    } unsupported { } nested { }
}

section! {
    /// `prometheus:`; port 0 is off.
    Prometheus {
        port: u16,
        username: String,
        password: Redacted<String>,
    } unsupported { } nested { }
}

section! {
    /// `fanlight:`, our own keys.
    Own {
        data_dir: Option<PathBuf>,
        meet: Option<bool>,
        store: Store,
        coturn: Coturn,
        turn: OwnTurn,
        collector: Collector,
    } unsupported { } nested { store, coturn, turn, collector, }
}

section! {
    /// `fanlight.collector:`, where clients' reports come in as they came to Kohaku. What Kohaku has a key for has its name.
    Collector {
        enabled: Option<bool>,
        port: Option<u16>,
        bind_addresses: Vec<BindAddress>,
        exporter_port: Option<u16>,
        exporter_https: bool,
        webhook_path: Option<String>,
        strict: bool,
        tls_fullchain_file: Option<PathBuf>,
        tls_privkey_file: Option<PathBuf>,
        tls_verify_cacert_path: Option<PathBuf>,
        http2_max_concurrent_streams: Option<u32>,
        http2_max_read_frame_size: Option<u32>,
        http2_idle_timeout: Option<u64>,
        retention_days: Option<u32>,
        retention_bytes: Option<u64>,
        heartbeat_s: Option<u64>,
        spool_max_bytes: Option<u64>,
        postgres_uri: Option<Redacted<String>>,
        postgres_ca_cert_file: Option<PathBuf>,
        timescale_compress_after_days: Option<u32>,
        keys: Vec<CollectorKey>,
    } unsupported { } nested { }
}

/// A key with which pages of these origins may report without an access token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollectorKey {
    pub(crate) key: Redacted<String>,
    pub(crate) origins: Vec<String>,
}

section! {
    /// `fanlight.coturn:`, what coturn's statistics come in by, and who its user names stand for.
    Coturn {
        listen: Option<SocketAddr>,
        password: Option<Redacted<String>>,
        tee: Option<Redacted<String>>,
        redis: Option<Redacted<String>>,
        ca_file: Option<PathBuf>,
        version: Option<String>,
        user: Option<Person>,
        separator: Option<char>,
        room_separator: Option<char>,
        merge_gap_s: u64,
    } unsupported { } nested { }
}

impl Collector {
    /// Strict if either says so.
    pub(crate) fn with_strict(self, strict: bool) -> Self {
        Self { strict: self.strict || strict, ..self }
    }
}

/// How a person is found in a TURN user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Person {
    /// The whole name.
    Whole,
    /// Behind a Unix time; the default.
    AfterTime,
    /// Behind the first separator.
    AfterSeparator,
    /// Before the first separator.
    BeforeSeparator,
}

section! {
    /// `fanlight.store:`
    Store {
        retention_days: Option<u32>,
    } unsupported { } nested { }
}

/// One port or a range, `7882` or `7882-7890`, as LiveKit writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PortsText")]
pub(crate) struct Ports {
    pub(crate) start: u16,
    pub(crate) end: u16,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PortsText {
    One(u16),
    Text(String),
}

impl TryFrom<PortsText> for Ports {
    type Error = String;

    fn try_from(text: PortsText) -> Result<Self, Self::Error> {
        let text = match text {
            PortsText::One(port) => return Ok(Self { start: port, end: port }),
            PortsText::Text(text) => text,
        };
        let (start, end) = text.split_once('-').unwrap_or((&text, &text));
        let port = |text: &str| {
            text.trim().parse::<u16>().map_err(|_| format!("`{text}` is not a port; write 7882 or 7882-7890"))
        };
        let ports = Self { start: port(start)?, end: port(end)? };
        if ports.start > ports.end {
            return Err(format!("the range {text} ends before it begins"));
        }
        Ok(ports)
    }
}

/// `includes` and `excludes`; an empty list of includes takes everything.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Filter {
    pub(crate) includes: Vec<String>,
    pub(crate) excludes: Vec<String>,
}

/// A number that may have underscores, as in LiveKit's sample.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(try_from = "AmountText")]
pub(crate) struct Amount(pub(crate) f64);

#[derive(Deserialize)]
#[serde(untagged)]
enum AmountText {
    Number(f64),
    Text(String),
}

impl TryFrom<AmountText> for Amount {
    type Error = String;

    fn try_from(text: AmountText) -> Result<Self, Self::Error> {
        match text {
            AmountText::Number(number) => Ok(Self(number)),
            AmountText::Text(text) => {
                text.replace('_', "").parse().map(Self).map_err(|_| format!("`{text}` is no number"))
            }
        }
    }
}

/// One of `bind_addresses`: an address, `localhost`, or nothing for all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct BindAddress(pub(crate) Vec<IpAddr>);

impl TryFrom<String> for BindAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(match text.as_str() {
            "" => super::EVERYWHERE.to_vec(),
            "localhost" => super::LOOPBACK.to_vec(),
            text => {
                vec![text.parse().map_err(|_| format!("`{text}` is no address; write 0.0.0.0 or ::1"))?]
            }
        }))
    }
}

/// One of `rtc.turn_servers`, told to clients.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TurnServer {
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) port: Option<u16>,
    #[serde(default)]
    pub(crate) protocol: TurnProtocol,
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) credential: Redacted<String>,
    /// Shared with the TURN server; each participant gets a credential of its own.
    #[serde(default)]
    pub(crate) secret: Redacted<String>,
    /// Seconds such a credential is good for.
    #[serde(default)]
    pub(crate) ttl: Option<u32>,
}

/// How clients reach a TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TurnProtocol {
    Tls,
    #[default]
    Tcp,
    Udp,
}

impl TurnServer {
    /// As clients are told it (RFC 7065).
    pub(crate) fn url(&self) -> String {
        let (scheme, transport, port) = match self.protocol {
            TurnProtocol::Tls => ("turns", "tcp", 5349),
            TurnProtocol::Tcp => ("turn", "tcp", 3478),
            TurnProtocol::Udp => ("turn", "udp", 3478),
        };
        format!("{scheme}:{}:{}?transport={transport}", self.host, self.port.unwrap_or(port))
    }
}

/// One of `room.enabled_codecs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnabledCodec {
    pub(crate) mime: String,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "LiveKit takes it too and matches by MIME type alone for every codec we play"
    )]
    fmtp_line: Option<String>,
}

impl File {
    /// Parses the file's text; the error names key and line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// Keys that are set, are LiveKit's, and change nothing yet.
    pub(crate) fn unsupported(&self) -> Vec<String> {
        let mut keys = Vec::new();
        self.collect_unsupported("", &mut keys);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = File::parse("port: 7880\nrtc:\n  udp_port: 7882\n  udp_prot: 1\n").unwrap_err();
        assert!(error.contains("udp_prot") && error.contains('4'), "{error}");
    }

    #[test]
    fn a_known_key_that_is_not_supported_yet_is_reported_by_its_full_name() {
        let file = File::parse("redis:\n  address: 127.0.0.1:6379\nrtc:\n  use_mdns: true\n").unwrap();
        assert_eq!(file.unsupported(), ["redis", "rtc.use_mdns"]);
    }

    #[test]
    fn ports_are_one_or_a_range() {
        let port =
            |text: &str| File::parse(&format!("rtc:\n  udp_port: {text}\n")).map(|file| file.rtc.udp_port);
        assert_eq!(port("7882"), Ok(Some(Ports { start: 7882, end: 7882 })));
        assert_eq!(port("7882-7890"), Ok(Some(Ports { start: 7882, end: 7890 })));
        assert!(port("9-1").is_err());
    }

    #[test]
    fn addresses_to_bind_are_written_as_livekit_does() {
        let bind = |text: &str| File::parse(&format!("bind_addresses: [{text}]\n"));
        assert_eq!(bind("\"\"").unwrap().bind_addresses[0].0.len(), 2);
        assert_eq!(bind("localhost").unwrap().bind_addresses[0].0.len(), 2);
        assert_eq!(bind("10.0.0.1").unwrap().bind_addresses[0].0, [IpAddr::from([10, 0, 0, 1])]);
        let error = bind("there").unwrap_err();
        assert!(error.contains("there"), "{error}");
    }

    #[test]
    fn turn_servers_have_the_urls_livekit_gives_them() {
        let text = "rtc:\n  turn_servers:\n  - {host: t.example, port: 443, protocol: tls, secret: s, ttl: 60}\n  \
                    - {host: u.example, protocol: udp, username: u, credential: c}\n  - host: v.example\n";
        let servers = File::parse(text).unwrap().rtc.turn_servers;
        let urls: Vec<String> = servers.iter().map(TurnServer::url).collect();
        assert_eq!(
            urls,
            [
                "turns:t.example:443?transport=tcp",
                "turn:u.example:3478?transport=udp",
                "turn:v.example:3478?transport=tcp"
            ]
        );
    }

    #[test]
    fn unknown_keys_of_every_section_are_named_with_their_line() {
        for section in ["room", "logging", "limit", "fanlight", "rtc"] {
            let error = File::parse(&format!("port: 1\n{section}:\n  nonsense: 1\n")).unwrap_err();
            assert!(error.contains("nonsense") && error.contains('3'), "{section}: {error}");
        }
        let error = File::parse("port: 1\nprot: 2\n").unwrap_err();
        assert!(error.contains("prot") && error.contains('2'), "{error}");
    }

    #[test]
    fn limits_are_numbers_as_livekits_sample_writes_them() {
        let limit = File::parse("limit: {num_tracks: 400, bytes_per_sec: 1_000_000_000}\n").unwrap().limit;
        assert_eq!((limit.num_tracks, limit.bytes_per_sec), (400, Amount(1e9)));
        assert_eq!(File::parse("limit: {bytes_per_sec: 5e6}\n").unwrap().limit.bytes_per_sec, Amount(5e6));
        let error = File::parse("limit: {bytes_per_sec: many}\n").unwrap_err();
        assert!(error.contains("many"), "{error}");
    }

    #[test]
    fn livekits_sample_settings_parse() {
        let text = "port: 7880\nbind_addresses: [127.0.0.1]\nkeys: {devkey: secretsecretsecretsecretsecretsecret}\n\
                    rtc: {udp_port: 17882, tcp_port: 17881, node_ip: 127.0.0.1, enable_loopback_candidate: true, \
                    use_external_ip: false, stun_servers: [\"127.0.0.1:17878\"], interfaces: {includes: [lo]}, \
                    ips: {includes: [\"127.0.0.1/32\"]}}\n";
        let file = File::parse(text).unwrap();
        assert_eq!(file.port, Some(7880));
        assert!(file.unsupported().is_empty());
    }

    #[test]
    fn a_file_of_any_depth_or_of_aliases_upon_aliases_is_an_error() {
        let run = || {
            let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
            for (own, other) in ('b'..='z').zip('a'..) {
                bomb += &format!("{own}: &{own} [{}]\n", vec![format!("*{other}"); 9].join(","));
            }
            for text in [format!("redis: {}", "[".repeat(100_000)), "{a: ".repeat(100_000), bomb] {
                assert!(File::parse(&text).is_err());
            }
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
    }
}
