//! Kohaku's configuration: `config.ini` of 2023, and the YAML, TOML and key names of the versions before and after it.
//!
//! All of them are one key and one value a line, so one reader takes them all.

use fanlight_base::Redacted;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// What stands in the file, or Kohaku's defaults.
#[derive(Debug)]
pub(crate) struct KohakuConfig {
    pub(crate) debug: bool,
    pub(crate) https: bool,
    pub(crate) listen_addr: IpAddr,
    pub(crate) listen_port: u16,
    pub(crate) exporter_https: bool,
    pub(crate) exporter_listen_addr: IpAddr,
    pub(crate) exporter_listen_port: u16,
    pub(crate) log_dir: PathBuf,
    pub(crate) log_name: String,
    pub(crate) log_stdout: bool,
    pub(crate) log_rotate_max_size_mb: u64,
    pub(crate) log_rotate_max_backups: usize,
    pub(crate) log_rotate_max_age_days: u32,
    pub(crate) postgres_uri: Option<Redacted<String>>,
    pub(crate) postgres_ca_cert_file: Option<PathBuf>,
    /// `clickhouse_addr` of an unreleased version.
    pub(crate) clickhouse_addr: Option<String>,
    pub(crate) tls_fullchain_file: Option<PathBuf>,
    pub(crate) tls_privkey_file: Option<PathBuf>,
    pub(crate) tls_verify_cacert_path: Option<PathBuf>,
    /// `None`: Kohaku's 0, the library's default.
    pub(crate) http2_max_concurrent_streams: Option<u32>,
    pub(crate) http2_max_read_frame_size: Option<u32>,
    pub(crate) http2_idle_timeout: Option<Duration>,
    pub(crate) stats_webhook_path: Option<String>,
}

/// A line of the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KohakuConfigError {
    #[error("line {line}: `{key}` is no key of Kohaku's; remove it or correct its name")]
    Unknown { line: usize, key: String },
    #[error("line {line}: `{key}` is `{value}`; write {wanted}")]
    Value { line: usize, key: String, value: String, wanted: &'static str },
    #[error("line {line}: `{text}` is neither `key = value` nor a comment")]
    Form { line: usize, text: String },
}

/// Names of other versions, with those of 2023.1.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("collector_port", "listen_port"),
    ("timescale_url", "postgres_uri"),
    ("timescale_rootcert_file", "postgres_ca_cert_file"),
    ("http2_fullchain_file", "tls_fullchain_file"),
    ("http2_privkey_file", "tls_privkey_file"),
    ("http2_verify_cacert_path", "tls_verify_cacert_path"),
    ("log_debug", "debug"),
    ("webhook_path", "stats_webhook_path"),
    ("postgres_rootcert_file", "postgres_ca_cert_file"),
];

/// Keys by which a file of 2021 or 2022 is known: TLS was its default.
const OF_2022: [&str; 4] = ["collector_port", "timescale_url", "http2_fullchain_file", "http2_privkey_file"];

/// Keys that only go with `clickhouse_addr`. One is written as Kohaku has it.
const CLICKHOUSE: [&str; 6] = [
    "clickhouse_database",
    "clickhouse_username",
    "clickhouse_passowrd",
    "clickhouse_password",
    "clickhouse_ca_cert_file",
    "clickhouse_debug",
];

const BOOL: &str = "true or false";
const NUMBER: &str = "a whole number";

/// A value with the line it stands in.
#[derive(Debug)]
struct Value {
    line: usize,
    key: String,
    text: String,
}

/// Values by the key's name of 2023.1. What is taken out was understood.
#[derive(Debug)]
struct Values(BTreeMap<String, Value>);

impl KohakuConfig {
    /// Reads the file's text.
    pub(crate) fn parse(text: &str) -> Result<Self, KohakuConfigError> {
        let mut values = Values::read(text)?;
        let of_2022 = values.0.values().any(|value| OF_2022.contains(&value.key.as_str()));
        let h2c = values.bool("http2_h2c")?;
        let sslmode = values.text("timescale_sslmode");
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        for key in CLICKHOUSE {
            values.0.remove(key);
        }
        let config = Self {
            debug: values.bool("debug")?.unwrap_or(false),
            https: values.bool("https")?.unwrap_or(!h2c.unwrap_or(!of_2022)),
            listen_addr: values.ip("listen_addr")?.unwrap_or(everywhere),
            listen_port: values.number("listen_port", "a port")?.unwrap_or(5890),
            exporter_https: values.bool("exporter_https")?.unwrap_or(false),
            exporter_listen_addr: values.ip("exporter_listen_addr")?.unwrap_or(everywhere),
            exporter_listen_port: values.number("exporter_listen_port", "a port")?.unwrap_or(5891),
            log_dir: values.path("log_dir").unwrap_or_else(|| ".".into()),
            log_name: values.text("log_name").unwrap_or_else(|| "kohaku.jsonl".into()),
            log_stdout: values.bool("log_stdout")?.unwrap_or(false),
            log_rotate_max_size_mb: values.number("log_rotate_max_size", NUMBER)?.unwrap_or(200),
            log_rotate_max_backups: values.number("log_rotate_max_backups", NUMBER)?.unwrap_or(7),
            log_rotate_max_age_days: values.number("log_rotate_max_age", NUMBER)?.unwrap_or(30),
            postgres_uri: values.text("postgres_uri").map(|uri| Redacted::new(with_sslmode(uri, sslmode))),
            postgres_ca_cert_file: values.path("postgres_ca_cert_file"),
            clickhouse_addr: values.text("clickhouse_addr"),
            tls_fullchain_file: values.path("tls_fullchain_file"),
            tls_privkey_file: values.path("tls_privkey_file"),
            tls_verify_cacert_path: values.path("tls_verify_cacert_path"),
            http2_max_concurrent_streams: values.more_than_0("http2_max_concurrent_streams")?,
            http2_max_read_frame_size: values.more_than_0("http2_max_read_frame_size")?,
            http2_idle_timeout: values
                .more_than_0("http2_idle_timeout")?
                .map(|seconds| Duration::from_secs(u64::from(seconds))),
            stats_webhook_path: values.text("stats_webhook_path"),
        };
        // The first line that was not understood.
        match values.0.into_values().min_by_key(|value| value.line) {
            Some(Value { line, key, .. }) => Err(KohakuConfigError::Unknown { line, key }),
            None => Ok(config),
        }
    }
}

impl Values {
    fn read(text: &str) -> Result<Self, KohakuConfigError> {
        let mut values = BTreeMap::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            // `---` begins a YAML document, `[DEFAULT]` names the section in which INI begins anyway.
            let is_remark = line.is_empty() || line.starts_with(['#', ';']);
            if is_remark || line == "---" || line.eq_ignore_ascii_case("[default]") {
                continue;
            }
            let form = || KohakuConfigError::Form { line: number, text: line.to_owned() };
            if line.starts_with('[') {
                return Err(form());
            }
            let (key, value) = line.split_once(['=', ':']).ok_or_else(form)?;
            let key = unquoted(key.trim()).to_lowercase();
            let name =
                OTHER_NAMES.iter().find(|(other, _)| *other == key).map_or(key.as_str(), |(_, name)| name);
            let text = unquoted(without_remark(value.trim())).to_owned();
            values.insert(name.to_owned(), Value { line: number, key, text });
        }
        Ok(Self(values))
    }

    /// Empty is not set.
    fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).map(|value| value.text).filter(|text| !text.is_empty())
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn bool(&mut self, name: &str) -> Result<Option<bool>, KohakuConfigError> {
        self.take(name, BOOL, |text| match text.to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "y" | "yes" | "on" => Some(true),
            "0" | "f" | "false" | "n" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    fn ip(&mut self, name: &str) -> Result<Option<IpAddr>, KohakuConfigError> {
        self.take(name, "an address such as 0.0.0.0", |text| text.parse().ok())
    }

    fn number<T: std::str::FromStr>(
        &mut self,
        name: &str,
        wanted: &'static str,
    ) -> Result<Option<T>, KohakuConfigError> {
        self.take(name, wanted, |text| text.parse().ok())
    }

    fn more_than_0(&mut self, name: &str) -> Result<Option<u32>, KohakuConfigError> {
        Ok(self.number(name, NUMBER)?.filter(|number| *number > 0))
    }

    fn take<T>(
        &mut self,
        name: &str,
        wanted: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, KohakuConfigError> {
        let Some(Value { line, key, text }) = self.0.remove(name) else { return Ok(None) };
        match read(&text) {
            Some(value) => Ok(Some(value)),
            None if text.is_empty() => Ok(None),
            None => Err(KohakuConfigError::Value { line, key, value: text, wanted }),
        }
    }
}

/// Of a value, what stands before a remark.
fn without_remark(value: &str) -> &str {
    if let Some(quote) = value.chars().next().filter(|first| "\"'`".contains(*first))
        && let Some(end) = value.get(1..).and_then(|rest| rest.find(quote))
    {
        return value.get(..end + 2).unwrap_or(value);
    }
    if value.starts_with(['#', ';']) {
        return "";
    }
    let remark = [" #", " ;", "\t#", "\t;"].into_iter().filter_map(|begin| value.find(begin)).min();
    remark.and_then(|at| value.get(..at)).unwrap_or(value).trim_end()
}

fn unquoted(text: &str) -> &str {
    let inside = ['"', '\'', '`'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    inside.unwrap_or(text)
}

/// Before 2023 the mode stood in a key of its own.
fn with_sslmode(uri: String, sslmode: Option<String>) -> String {
    match sslmode {
        Some(mode) if !uri.contains("sslmode=") => {
            let separator = if uri.contains('?') { '&' } else { '?' };
            format!("{uri}{separator}sslmode={mode}")
        }
        _ => uri,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of 2023.1, as an operator writes them.
    const OF_2023: &str = "\
# Kohaku
debug = true
https = true
listen_addr = 127.0.0.1
listen_port = 5990 ; not the usual one

exporter_https = off
exporter_listen_addr = ::1
exporter_listen_port = 5991
LOG_DIR = /var/log/kohaku
log_name = k.jsonl
log_stdout = no
log_rotate_max_size = 10
log_rotate_max_backups = 2
log_rotate_max_age = 3
postgres_uri = postgres://u:p%23=w@127.0.0.1:5432/kohaku?sslmode=disable
postgres_ca_cert_file = \"/etc/pg ca.pem\"
tls_fullchain_file = /etc/f.pem
tls_privkey_file = /etc/k.pem
tls_verify_cacert_path = /etc/cas
http2_max_concurrent_streams = 250
http2_max_read_frame_size = 1048576
http2_idle_timeout = 60
";

    #[test]
    fn every_key_of_2023_is_read() {
        let config = KohakuConfig::parse(OF_2023).unwrap();
        assert!(config.debug && config.https && !config.exporter_https && !config.log_stdout);
        assert_eq!((config.listen_addr, config.listen_port), ([127, 0, 0, 1].into(), 5990));
        assert_eq!(config.exporter_listen_addr.to_string(), "::1");
        assert_eq!(config.exporter_listen_port, 5991);
        assert_eq!(config.log_dir, PathBuf::from("/var/log/kohaku"));
        assert_eq!(config.log_name, "k.jsonl");
        let rotate =
            (config.log_rotate_max_size_mb, config.log_rotate_max_backups, config.log_rotate_max_age_days);
        assert_eq!(rotate, (10, 2, 3));
        let uri = config.postgres_uri.unwrap();
        assert_eq!(uri.reveal(), "postgres://u:p%23=w@127.0.0.1:5432/kohaku?sslmode=disable");
        assert_eq!(config.postgres_ca_cert_file, Some("/etc/pg ca.pem".into()));
        assert_eq!(config.tls_verify_cacert_path, Some("/etc/cas".into()));
        assert_eq!(config.http2_max_concurrent_streams, Some(250));
        assert_eq!(config.http2_max_read_frame_size, Some(1_048_576));
        assert_eq!(config.http2_idle_timeout, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_left_out_is_as_kohaku_has_it() {
        let config = KohakuConfig::parse("http2_idle_timeout = 0\nlog_name =\n[DEFAULT]\n").unwrap();
        assert!(!config.https && !config.debug && !config.log_stdout);
        assert_eq!((config.listen_port, config.exporter_listen_port), (5890, 5891));
        assert!(config.listen_addr.is_unspecified() && config.exporter_listen_addr.is_unspecified());
        assert_eq!((config.log_dir, config.log_name.as_str()), (".".into(), "kohaku.jsonl"));
        assert_eq!(config.http2_idle_timeout, None);
    }

    #[test]
    fn files_of_other_versions_are_read_too() {
        let toml = "collector_port = 5890\ntimescale_url = \"postgres://h/db\" # there\ntimescale_sslmode = \"disable\"\n\
                    http2_fullchain_file = \"\"\nhttp2_h2c = true\nlog_debug = true\n";
        let config = KohakuConfig::parse(toml).unwrap();
        assert!(!config.https && config.debug);
        assert_eq!(config.postgres_uri.unwrap().reveal(), "postgres://h/db?sslmode=disable");
        let yaml = "---\ncollector_port: 5999\nhttp2_fullchain_file: 'f.pem'\nhttp2_privkey_file: k.pem\n";
        let config = KohakuConfig::parse(yaml).unwrap();
        assert!(config.https, "before 2023 TLS was the default");
        assert_eq!((config.listen_port, config.tls_fullchain_file), (5999, Some("f.pem".into())));
        let clickhouse =
            "clickhouse_addr = 127.0.0.1:9000\nclickhouse_passowrd = p\nstats_webhook_path = /w\n";
        let config = KohakuConfig::parse(clickhouse).unwrap();
        assert_eq!(config.clickhouse_addr.as_deref(), Some("127.0.0.1:9000"));
        assert_eq!(config.stats_webhook_path.as_deref(), Some("/w"));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        for (text, expected) in [
            ("debug = true\n\nlisten_prot = 1\n", "line 3: `listen_prot` is no key"),
            ("listen_port = 70000\n", "line 1: `listen_port` is `70000`; write a port"),
            ("https = maybe\n", "line 1: `https` is `maybe`; write true or false"),
            ("listen_addr = here\n", "line 1: `listen_addr` is `here`; write an address"),
            ("; fine\ncollector_port: x\n", "line 2: `collector_port` is `x`"),
            ("debug\n", "line 1: `debug` is neither"),
            ("[kohaku]\n", "line 1: `[kohaku]` is neither"),
        ] {
            let error = KohakuConfig::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
