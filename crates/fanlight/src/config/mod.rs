//! Configuration: LiveKit's `config.yaml`, our own keys under `fanlight:`, flags and environment on top.
//!
//! An unknown key is an error that names it and its line; a key of LiveKit that is not supported yet is a warning that
//! names it.

mod file;

pub(crate) use file::{Collector, Coturn, File, Keys, OwnTurn, Person, Room, Rtc, TurnSettings};

use fanlight_base::Redacted;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Key and secret that `--dev` uses when no keys are given, as LiveKit does.
pub(crate) const DEV_KEY: &str = "devkey";
pub(crate) const DEV_SECRET: &str = "secret";
/// Every address of this machine.
const EVERYWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
/// This machine only.
pub(crate) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Where the record is kept when nothing says otherwise.
pub(crate) const DATA_DIR_DEFAULT: &str = "./fanlight-data";
/// Shorter secrets can be guessed from one token; LiveKit complains below 32 characters too.
const SECRET_CHARS_MIN: usize = 32;

/// Everything the server needs to start.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) dev: bool,
    pub(crate) port: u16,
    pub(crate) bind_addresses: Vec<IpAddr>,
    /// Nobody asked for just these addresses: one that this machine does not have may be left out.
    pub(crate) bind_is_default: bool,
    pub(crate) keys: Keys,
    pub(crate) rtc: Rtc,
    pub(crate) room: Room,
    pub(crate) limit: file::Limit,
    pub(crate) logging: file::Logging,
    pub(crate) data_dir: PathBuf,
    pub(crate) meet: bool,
    /// Rooms that ended so many days ago leave the record; 0 keeps all.
    pub(crate) retention_days: u32,
    /// Where Prometheus reads, and as whom.
    pub(crate) prometheus: file::Prometheus,
    /// coturn's statistics.
    pub(crate) coturn: Coturn,
    /// The embedded TURN server.
    pub(crate) turn: TurnSettings,
    /// What LiveKit has no keys for.
    pub(crate) own_turn: OwnTurn,
    /// Kohaku's interface.
    pub(crate) collector: Collector,
}

/// What the command line and the environment say.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) dev: bool,
    pub(crate) config: Option<PathBuf>,
    pub(crate) bind: Vec<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) node_ip: Option<IpAddr>,
    pub(crate) keys: Option<Redacted<String>>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) strict_kohaku: bool,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    /// A file is not what it should be.
    #[error("{path}: {message}")]
    Parse { path: PathBuf, message: String },
    /// `--keys` is not `key: secret`.
    #[error("cannot read --keys: {0}; give them as \"key: secret\"")]
    Keys(String),
    /// Others may read the secrets.
    #[error("{path} can be read by others (mode {mode:o}); run: chmod 600 {path}", path = path.display())]
    KeyFileOpen { path: PathBuf, mode: u32 },
    /// No keys at all.
    #[error(
        "no API keys: set `keys:` in the configuration, --keys \"key: secret\", LIVEKIT_KEYS, or use --dev"
    )]
    NoKeys,
    /// Everybody knows the secret, and others reach the port.
    #[error(
        "{address} can be reached from other machines, and everybody knows the secret of key `{DEV_KEY}`: set another \
         secret (`openssl rand -base64 33` makes one), bind to 127.0.0.1, or try it out with --dev"
    )]
    KnownKey { address: IpAddr },
}

impl Config {
    /// Reads the file and lays the overrides over it. The sentences are warnings for the log, which this configuration
    /// sets up.
    pub(crate) fn load(overrides: Overrides) -> Result<(Self, Vec<String>), ConfigError> {
        let file = match &overrides.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let mut warnings: Vec<String> = file
            .unsupported()
            .into_iter()
            .map(|key| {
                format!("configuration key `{key}` is LiveKit's and not supported yet: it changes nothing")
            })
            .collect();
        let keys = load_keys(&file, &overrides)?;
        for (key, secret) in &keys {
            if secret.reveal().len() < SECRET_CHARS_MIN && key != DEV_KEY {
                warnings
                    .push(format!("the secret of key `{key}` is shorter than {SECRET_CHARS_MIN} characters"));
            }
        }
        let dev = overrides.dev || file.development;
        let bind_is_default = overrides.bind.is_empty() && file.bind_addresses.is_empty();
        let bind_addresses = if !overrides.bind.is_empty() {
            overrides.bind
        } else if !file.bind_addresses.is_empty() {
            file.bind_addresses.into_iter().flat_map(|address| address.0).collect()
        } else if dev {
            LOOPBACK.to_vec()
        } else {
            EVERYWHERE.to_vec()
        };
        let mut rtc = file.rtc;
        if overrides.node_ip.is_some() {
            rtc.node_ip = overrides.node_ip;
        }
        if dev {
            rtc.enable_loopback_candidate = true;
        }
        let mut prometheus = file.prometheus;
        // LiveKit's older key wins, as it does there.
        if file.prometheus_port != 0 {
            prometheus.port = file.prometheus_port;
        }
        let config = Self {
            dev,
            port: overrides.port.or(file.port).unwrap_or(7880),
            bind_addresses,
            bind_is_default,
            keys,
            rtc,
            room: file.room,
            limit: file.limit,
            logging: file.logging,
            data_dir: overrides
                .data_dir
                .or(file.fanlight.data_dir)
                .unwrap_or_else(|| PathBuf::from(DATA_DIR_DEFAULT)),
            meet: file.fanlight.meet.unwrap_or(true),
            retention_days: file
                .fanlight
                .store
                .retention_days
                .unwrap_or(fanlight_store::RETENTION_DAYS_DEFAULT),
            prometheus,
            coturn: file.fanlight.coturn,
            turn: file.turn,
            own_turn: file.fanlight.turn,
            collector: file.fanlight.collector.with_strict(overrides.strict_kohaku),
        };
        Ok((config, warnings))
    }

    /// Refuses to serve other machines with the key that everybody knows; with `--dev`, what is to be warned about.
    pub(crate) fn check_known_key(&self) -> Result<Option<String>, ConfigError> {
        let Some(address) = self.bind_addresses.iter().find(|address| !is_loopback(address)) else {
            return Ok(None);
        };
        if !self.has_known_key() {
            return Ok(None);
        }
        if !self.dev {
            return Err(ConfigError::KnownKey { address: *address });
        }
        Ok(Some(format!(
            "{address} can be reached from other machines, and everybody knows the secret of key `{DEV_KEY}`: whoever \
             reaches it may do everything"
        )))
    }

    /// The key of `--dev` with its secret is among the keys.
    pub(crate) fn has_known_key(&self) -> bool {
        self.keys.get(DEV_KEY).is_some_and(|secret| secret.reveal() == DEV_SECRET)
    }

    /// The keys as tokens are made and checked with.
    pub(crate) fn token_keys(&self) -> fanlight_livekit::token::Keys {
        fanlight_livekit::token::Keys::new(
            self.keys.iter().map(|(key, secret)| (key.as_str(), secret.reveal().as_str())),
        )
    }
}

/// `::ffff:127.0.0.1` is this machine too.
fn is_loopback(address: &IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

impl File {
    /// What a file says.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?).map_err(|message| ConfigError::Parse { path: path.into(), message })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })
}

fn load_keys(file: &File, overrides: &Overrides) -> Result<Keys, ConfigError> {
    let mut keys = file.keys.clone();
    if let Some(path) = overrides.key_file.as_ref().or(file.key_file.as_ref()) {
        refuse_open_file(path)?;
        let text = read(path)?;
        let parsed: Keys = serde_saphyr::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.clone(), message: error.to_string() })?;
        keys.extend(parsed);
    }
    if let Some(text) = &overrides.keys {
        let parsed: Keys =
            serde_saphyr::from_str(text.reveal()).map_err(|error| ConfigError::Keys(error.to_string()))?;
        keys = parsed;
    }
    if keys.is_empty() && (overrides.dev || file.development) {
        keys.insert(DEV_KEY.into(), Redacted::new(DEV_SECRET.into()));
        return Ok(keys);
    }
    if keys.is_empty() {
        return Err(ConfigError::NoKeys);
    }
    Ok(keys)
}

#[cfg(unix)]
fn refuse_open_file(path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        std::fs::metadata(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(ConfigError::KeyFileOpen { path: path.into(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_open_file(_path: &Path) -> Result<(), ConfigError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_without_a_file_has_livekits_key_and_listens_on_loopback() {
        let config = Config::load(Overrides { dev: true, ..Overrides::default() }).unwrap().0;
        assert_eq!(config.keys.get("devkey").map(|secret| secret.reveal().as_str()), Some("secret"));
        assert!(config.bind_addresses.iter().all(IpAddr::is_loopback));
        assert_eq!(config.port, 7880);
    }

    #[test]
    fn the_port_for_prometheus_stands_in_one_of_two_places() {
        let port = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config.yaml");
            std::fs::write(&path, text).unwrap();
            let overrides = Overrides { dev: true, config: Some(path), ..Overrides::default() };
            Config::load(overrides).unwrap().0.prometheus.port
        };
        assert_eq!(port("port: 1\n"), 0);
        assert_eq!(port("prometheus_port: 6789\n"), 6789);
        assert_eq!(port("prometheus: {port: 6790, username: u, password: p}\n"), 6790);
        assert_eq!(port("prometheus_port: 6789\nprometheus: {port: 6790}\n"), 6789);
    }

    #[test]
    fn without_keys_the_error_says_where_to_put_them() {
        let error = Config::load(Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("LIVEKIT_KEYS"), "{error}");
    }

    #[test]
    fn keys_of_the_command_line_replace_those_of_the_file() {
        let dir = std::env::temp_dir().join(format!("fanlight-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("config.yaml");
        std::fs::write(&path, "keys:\n  filekey: 0123456789012345678901234567890123456789\nport: 9000\n")
            .unwrap();
        let overrides = Overrides {
            config: Some(path),
            keys: Some(Redacted::new("other: 0123456789012345678901234567890123456789".into())),
            ..Overrides::default()
        };
        let config = Config::load(overrides).unwrap().0;
        assert_eq!(config.keys.keys().collect::<Vec<_>>(), ["other"]);
        assert_eq!(config.port, 9000);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("fanlight-keys-{}", std::process::id()));
        std::fs::write(&path, "a: b\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Config::load(Overrides { key_file: Some(path), ..Overrides::default() }).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    fn bound(text: &str, dev: bool) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        Config::load(Overrides { dev, config: Some(path), ..Overrides::default() }).unwrap().0
    }

    #[test]
    fn the_key_everybody_knows_serves_no_other_machine_without_dev_and_is_warned_about_with_it() {
        let known = "keys: {devkey: secret}\n";
        for beyond in ["", "bind_addresses: [192.0.2.1]\n", "bind_addresses: [127.0.0.1, \"::\"]\n"] {
            let error = bound(&format!("{known}{beyond}"), false).check_known_key().unwrap_err().to_string();
            assert!(error.contains("devkey") && error.contains("--dev"), "{error}");
        }
        let warned = bound(&format!("{known}bind_addresses: [0.0.0.0]\n"), true).check_known_key().unwrap();
        assert!(warned.is_some_and(|warning| warning.contains("0.0.0.0")));
        for fine in [
            format!("{known}bind_addresses: [localhost]\n"),
            "keys: {devkey: secretsecretsecretsecretsecretsecret}\n".to_owned(),
        ] {
            assert_eq!(bound(&fine, false).check_known_key().unwrap(), None, "{fine}");
        }
        assert_eq!(bound("port: 1\n", true).check_known_key().unwrap(), None);
    }

    #[test]
    fn no_secret_is_in_what_a_configuration_prints_for_debugging() {
        let text = "keys: {a: MARKER}\nprometheus: {username: u, password: MARKER}\nrtc:\n  turn_servers:\n  \
                    - {host: h, username: u, credential: MARKER, secret: MARKER}\nfanlight:\n  \
                    turn: {static_auth_secret: MARKER}\n  \
                    coturn: {password: MARKER, tee: \"redis://:MARKER@h\", redis: \"redis://:MARKER@h\"}\n  \
                    collector: {postgres_uri: \"postgres://u:MARKER@h/d\", keys: [{key: MARKER, origins: []}]}\n";
        let shown = format!("{:?} {:?}", File::parse(text).unwrap(), bound(text, false));
        assert!(shown.contains("<redacted>") && !shown.contains("MARKER"), "{shown}");
        let overrides = Overrides { keys: Some(Redacted::new("a: MARKER".into())), ..Overrides::default() };
        assert!(!format!("{overrides:?}").contains("MARKER"));
        assert!(!format!("{:?}", Config::load(overrides).unwrap()).contains("MARKER"));
    }
}
