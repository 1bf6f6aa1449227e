//! The file: every key of LiveKit 1.13's configuration, each either used or known and not supported yet.

use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// API keys and their secrets.
pub(crate) type Keys = BTreeMap<String, String>;

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
            #[allow(unused_variables, reason = "a section may have nothing to report")]
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
        bind_addresses: Vec<IpAddr>,
        keys: Keys,
        key_file: Option<PathBuf>,
        rtc: Rtc,
        room: Room,
        logging: Logging,
        limit: Limit,
        development: bool,
        fanlight: Own,
    } unsupported {
        redis, turn, webhook, prometheus, prometheus_port, region, node_selector, ingress, signal_relay, psrpc, api,
        node_stats, audio, video, agents, metric, trace, debug_handler, sip, log_level, whip, enable_data_tracks,
        enable_participant_data_blob,
    } nested { rtc, room, logging, limit, fanlight, }
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
        max_metadata_size: Option<u32>,
        max_attributes_size: Option<u32>,
        max_room_name_length: Option<usize>,
        max_participant_identity_length: Option<usize>,
        max_participant_name_length: Option<usize>,
    } unsupported {
        bytes_per_sec, subscription_limit_video, subscription_limit_audio, signal_message_size_limit,
        max_api_body_size, max_agent_message_size, max_participant_data_blob_key_length,
        max_participant_data_blob_size, max_custom_encoding_length,
    } nested { }
}

section! {
    /// `fanlight:`, our own keys.
    Own {
        data_dir: Option<PathBuf>,
        meet: Option<bool>,
        store: Store,
    } unsupported { } nested { store, }
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

/// One of `rtc.turn_servers`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "handed to clients once TURN is accounted; parsed now so that the file is checked"
)]
pub(crate) struct TurnServer {
    host: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    credential: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    ttl: Option<u32>,
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
        if !self.rtc.turn_servers.is_empty() {
            keys.push("rtc.turn_servers".into());
        }
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
    fn livekits_sample_settings_parse() {
        let text = "port: 7880\nbind_addresses: [127.0.0.1]\nkeys: {devkey: secretsecretsecretsecretsecretsecret}\n\
                    rtc: {udp_port: 17882, tcp_port: 17881, node_ip: 127.0.0.1, enable_loopback_candidate: true, \
                    use_external_ip: false, stun_servers: [\"127.0.0.1:17878\"], interfaces: {includes: [lo]}, \
                    ips: {includes: [\"127.0.0.1/32\"]}}\n";
        let file = File::parse(text).unwrap();
        assert_eq!(file.port, Some(7880));
        assert!(file.unsupported().is_empty());
    }
}
