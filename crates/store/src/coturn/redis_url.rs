//! Where a Redis server is, and how to get in.

use fanlight_base::Redacted;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, TlsCertificates};
use std::fmt;

/// A Redis server: its address, the credentials, TLS. Prints without the credentials.
#[derive(Clone)]
pub struct RedisUrl {
    client: Client,
    shown: String,
    database: Option<u32>,
}

/// The address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// It is no address of a Redis server. The text is not repeated: there may be a password in it.
    #[error(
        "not the address of a Redis server; write redis://[user:password@]host:port[/database], rediss:// for TLS, and \
         %40 for an @ in the password"
    )]
    Form,
    /// The certificates cannot be used.
    #[error("the certificates for {shown} cannot be used: {detail}; they are wanted as PEM")]
    Certificates {
        /// Whose they are.
        shown: String,
        /// What is wrong with them.
        detail: String,
    },
}

impl RedisUrl {
    /// Reads `redis://[user:password@]host:port[/database]`; `rediss` asks for TLS, checked against `ca_pem` or, without,
    /// against the certificates of this machine.
    pub fn new(text: &Redacted<String>, ca_pem: Option<Vec<u8>>) -> Result<Self, RedisUrlError> {
        let info = text.reveal().as_str().into_connection_info().map_err(|_| RedisUrlError::Form)?;
        let (scheme, host, port) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => ("redis", host, port),
            ConnectionAddr::TcpTls { host, port, insecure: false, .. } => ("rediss", host, port),
            _ => return Err(RedisUrlError::Form),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let has_database =
            redis::parse_redis_url(text.reveal()).is_some_and(|url| !url.path().trim_matches('/').is_empty());
        let database = if has_database {
            Some(u32::try_from(info.redis_settings().db()).map_err(|_| RedisUrlError::Form)?)
        } else {
            None
        };
        let shown = match database {
            Some(database) => format!("{scheme}://{host}:{port}/{database}"),
            None => format!("{scheme}://{host}:{port}"),
        };
        let client = match (scheme, ca_pem) {
            ("rediss", Some(pem)) => {
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) })
            }
            _ => Client::open(info),
        };
        let client = client.map_err(|error| RedisUrlError::Certificates {
            shown: shown.clone(),
            detail: error.detail().map_or_else(|| error.to_string(), str::to_owned),
        })?;
        Ok(Self { client, shown, database })
    }

    /// The database that the address names.
    pub(super) const fn database(&self) -> Option<u32> {
        self.database
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<RedisUrl, RedisUrlError> {
        RedisUrl::new(&Redacted::new(text.to_owned()), None)
    }

    #[test]
    fn an_address_prints_without_its_credentials() {
        for (text, shown, database) in [
            ("redis://u:se%40cret@10.0.0.1:6380/3", "redis://10.0.0.1:6380/3", Some(3)),
            ("redis://:secret@localhost", "redis://localhost:6379", None),
            ("rediss://u:secret@[::1]:7000/", "rediss://[::1]:7000", None),
        ] {
            let url = url(text).unwrap();
            assert_eq!((format!("{url} {url:?}"), url.database()), (format!("{shown} {shown}"), database));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for text in ["", "10.0.0.1:6379", "http://secret@x/", "redis://h/secret", "redis://h:1/-1"] {
            let error = url(text).unwrap_err();
            assert_eq!(error, RedisUrlError::Form, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let text = Redacted::new("rediss://h".to_owned());
        let error = RedisUrl::new(&text, Some(b"-----BEGIN CERTIFICATE-----\nx".to_vec())).unwrap_err();
        assert!(error.to_string().contains("rediss://h:6379"), "{error}");
    }
}
