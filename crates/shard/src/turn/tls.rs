//! The certificate with which TURN is served over TLS.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A certificate chain with its key.
#[derive(Clone)]
pub struct TlsIdentity(pub(super) Arc<ServerConfig>);

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TlsIdentity(..)")
    }
}

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("{path}: no {what} in PEM form: {reason}", path = path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not make an identity.
    #[error("the certificate of {certificate} and the key of {key} cannot be used: {source}", certificate = certificate.display(), key = key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl TlsIdentity {
    /// Reads `turn.cert_file` (the chain, our own certificate first) and `turn.key_file`.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let pem = |path: &Path, what, error: &dyn fmt::Display| TlsError::Pem {
            path: path.into(),
            what,
            reason: error.to_string(),
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|error| pem(certificate, "certificate", &error))?;
        if chain.is_empty() {
            return Err(pem(certificate, "certificate", &"the file has none"));
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, "private key", &error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
        config.map(|config| Self(Arc::new(config))).map_err(|source| TlsError::Unusable {
            certificate: certificate.into(),
            key: key.into(),
            source,
        })
    }
}
