//! `postgres_uri` as Kohaku takes it, which is what libpq and pgx take.

use super::Tls;
use super::tls::Trust;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::path::{Path, PathBuf};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// The settings cannot be used. None of these texts holds the password.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Not an address of a database.
    #[error(
        "postgres_uri is no address of a database: {0}; write postgres://user:password@host:5432/database?sslmode=verify-full"
    )]
    Uri(String),
    /// An unknown `sslmode`.
    #[error("sslmode in postgres_uri is `{0}`; write disable, prefer, require, verify-ca or verify-full")]
    SslMode(String),
    /// The authorities' certificates cannot be read.
    #[error("postgres_ca_cert_file {}: {detail}; write a file with certificates in PEM", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no thread to read on.
    #[error("cannot start the thread that reads PostgreSQL: {0}")]
    Thread(String),
    /// TLS cannot be had.
    #[error("TLS to PostgreSQL: {0}; set postgres_ca_cert_file")]
    Tls(String),
}

/// Where the database is, and how it is spoken to. It prints without user and password.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: Option<Tls>,
}

impl Target {
    pub(super) fn parse(uri: &str, ca_cert_file: Option<&Path>) -> Result<Self, PostgresError> {
        let (address, parameters) = split(uri);
        let mut rest = Vec::new();
        let (mut mode, mut ca) = (None, ca_cert_file.map(Path::to_owned));
        for (name, value) in parameters {
            match name.as_str() {
                "sslmode" => mode = Some(value),
                "sslrootcert" => ca = ca.or_else(|| Some(PathBuf::from(value))),
                // Of pgx's pool; one connection is enough here.
                name if name.starts_with("pool_") => {}
                _ => rest.push(format!("{name}={value}")),
            }
        }
        let mut config: Config = join(address, &rest).parse().map_err(|error| uri_error(&error))?;
        let (ssl_mode, trust) = mode_and_trust(mode.as_deref(), ca.is_some())?;
        config.ssl_mode(ssl_mode);
        // Of several hosts the one that can be written to; a standby is as good as away.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(PostgresError::Uri("it names no host".to_owned()));
        }
        let tls = match trust {
            None => None,
            Some(Trust::Anyone) => Some((Trust::Anyone, RootCertStore::empty())),
            Some(trust) => Some((trust, roots(ca.as_deref())?)),
        };
        let tls = tls.map(|(trust, roots)| Tls::new(trust, roots)).transpose().map_err(PostgresError::Tls)?;
        Ok(Self { config, tls })
    }
}

impl Target {
    /// Under this name the server's operator sees the connection, unless the address has another.
    pub(super) fn named(mut self, name: &str) -> Self {
        if self.config.get_application_name().is_none() {
            self.config.application_name(name);
        }
        self
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgreSQL at ")?;
        let ports = self.config.get_ports();
        for (place, host) in self.config.get_hosts().iter().enumerate() {
            let port = ports.get(place).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(f, "{name}:{port}")?,
                Host::Unix(path) => write!(f, "{}:{port}", path.display())?,
            }
            if place + 1 < self.config.get_hosts().len() {
                f.write_str(",")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or_default())
    }
}

fn uri_error(error: &tokio_postgres::Error) -> PostgresError {
    use std::error::Error as _;
    PostgresError::Uri(error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

/// The address without its parameters. Of the form `host=… dbname=…` only what is written without quotes is taken apart.
fn split(uri: &str) -> (&str, Vec<(String, String)>) {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    if uri.contains("://") {
        let (address, parameters) = uri.split_once('?').unwrap_or((uri, ""));
        (address, parameters.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    } else if uri.contains(['\'', '\\']) {
        (uri, Vec::new())
    } else {
        ("", uri.split_whitespace().map(pair).collect())
    }
}

fn join(address: &str, parameters: &[String]) -> String {
    match (address, parameters) {
        (address, []) => address.to_owned(),
        ("", parameters) => parameters.join(" "),
        (address, parameters) => format!("{address}?{}", parameters.join("&")),
    }
}

/// As libpq has it, but for one thing: who names authorities and no mode wants the server to be checked.
fn mode_and_trust(mode: Option<&str>, has_ca: bool) -> Result<(SslMode, Option<Trust>), PostgresError> {
    Ok(match (mode, has_ca) {
        (Some("disable"), _) => (SslMode::Disable, None),
        (None, true) | (Some("verify-full"), _) => (SslMode::Require, Some(Trust::Host)),
        (Some("allow" | "prefer" | "require"), true) | (Some("verify-ca"), _) => {
            (SslMode::Require, Some(Trust::Authority))
        }
        (None | Some("allow" | "prefer"), false) => (SslMode::Prefer, Some(Trust::Anyone)),
        (Some("require"), false) => (SslMode::Require, Some(Trust::Anyone)),
        (Some(other), _) => return Err(PostgresError::SslMode(other.to_owned())),
    })
}

/// The file's authorities, else the machine's.
fn roots(file: Option<&Path>) -> Result<RootCertStore, PostgresError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(PostgresError::Tls("this machine knows no authorities".to_owned()));
        }
        return Ok(roots);
    };
    let wrong = |detail: String| PostgresError::Certificates { path: path.to_owned(), detail };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (uri, shown) in [
            (
                "postgres://u:p%23=w@127.0.0.1:5433/kohaku?sslmode=disable",
                "PostgreSQL at 127.0.0.1:5433/kohaku",
            ),
            ("postgresql://u:unsayable@db.example/k?pool_max_conns=4", "PostgreSQL at db.example:5432/k"),
            ("host=/run/pg user=u password=unsayable sslmode=disable", "PostgreSQL at /run/pg:5432/u"),
            ("postgres://u@a:1,b:2/k", "PostgreSQL at a:1,b:2/k"),
        ] {
            let target = Target::parse(uri, None).unwrap();
            assert_eq!(target.to_string(), shown);
            assert!(!format!("{target:?}").contains("unsayable"), "{target:?}");
        }
    }

    #[test]
    fn how_far_the_server_is_believed_follows_libpq() {
        use SslMode::{Disable, Prefer, Require};
        for (mode, has_ca, expected) in [
            (None, false, (Prefer, Some(Trust::Anyone))),
            (None, true, (Require, Some(Trust::Host))),
            (Some("disable"), true, (Disable, None)),
            (Some("require"), false, (Require, Some(Trust::Anyone))),
            (Some("require"), true, (Require, Some(Trust::Authority))),
            (Some("verify-ca"), false, (Require, Some(Trust::Authority))),
            (Some("verify-full"), true, (Require, Some(Trust::Host))),
        ] {
            assert_eq!(mode_and_trust(mode, has_ca).unwrap(), expected, "{mode:?} {has_ca}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (uri, expected) in [
            ("postgres://u:secret@h/d?sslmode=maybe", "sslmode in postgres_uri is `maybe`"),
            ("postgres://u:secret@h:x/d", "postgres_uri is no address of a database"),
            ("postgres://u:secret@h/d?colour=red", "postgres_uri is no address of a database"),
            ("user=u", "postgres_uri is no address of a database: it names no host"),
        ] {
            let error = Target::parse(uri, None).unwrap_err().to_string();
            assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
        }
        let error = Target::parse("postgres://h/d", Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert!(error.to_string().starts_with("postgres_ca_cert_file /nowhere/ca.pem: "), "{error}");
    }
}
