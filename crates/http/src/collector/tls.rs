//! The collector's certificate, and those of the clients it lets in.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};

/// Where the PEM files are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain, our own certificate first.
    pub fullchain: PathBuf,
    /// Its key.
    pub privkey: PathBuf,
    /// Certificates that sign those of clients: a file, or a folder of them. With it no client comes in without one.
    pub verify_cacert: Option<PathBuf>,
}

/// How connections are secured. Cheap to clone.
#[derive(Clone)]
pub struct CollectorTls(pub(super) Arc<ServerConfig>);

impl fmt::Debug for CollectorTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CollectorTls(..)")
    }
}

/// TLS cannot be served with these files.
#[derive(Debug, thiserror::Error)]
pub enum CollectorTlsError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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
    /// Certificate and key, or the clients' authorities, do not make an identity.
    #[error("{path} cannot be used: {reason}", path = path.display())]
    Unusable {
        /// The certificate's file or the clients' authorities.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl CollectorTls {
    /// Reads the files. HTTP/2 and HTTP/1.1 are offered by ALPN.
    pub fn load(files: &TlsFiles) -> Result<Self, CollectorTlsError> {
        let chain = certificates(&files.fullchain)?;
        let key = PrivateKeyDer::from_pem_file(&files.privkey)
            .map_err(|error| no_pem(&files.privkey, "private key", &error))?;
        let unusable = |path: &Path, error: &dyn fmt::Display| CollectorTlsError::Unusable {
            path: path.into(),
            reason: error.to_string(),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&files.fullchain, &error))?;
        let builder = match &files.verify_cacert {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| unusable(path, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config =
            builder.with_single_cert(chain, key).map_err(|error| unusable(&files.fullchain, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// Authorities of a file, or of every file of a folder.
fn authorities(path: &Path) -> Result<RootCertStore, CollectorTlsError> {
    let unreadable = |source| CollectorTlsError::Read { path: path.into(), source };
    let mut files = Vec::new();
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        for entry in fs::read_dir(path).map_err(unreadable)? {
            files.push(entry.map_err(unreadable)?.path());
        }
        files.sort();
    } else {
        files.push(path.into());
    }
    let mut roots = RootCertStore::empty();
    for file in files {
        for certificate in certificates(&file)? {
            roots.add(certificate).map_err(|error| CollectorTlsError::Unusable {
                path: file.clone(),
                reason: error.to_string(),
            })?;
        }
    }
    if roots.is_empty() {
        return Err(no_pem(path, "certificate", &"the folder is empty"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CollectorTlsError> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| no_pem(path, "certificate", &error))?;
    if found.is_empty() {
        return Err(no_pem(path, "certificate", &"the file has none"));
    }
    Ok(found)
}

fn no_pem(path: &Path, what: &'static str, reason: &dyn fmt::Display) -> CollectorTlsError {
    CollectorTlsError::Pem { path: path.into(), what, reason: reason.to_string() }
}
