//! Certificates of the listeners. They are read again when their files were renewed, so that no call ends for it.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use std::{fmt, fs, io};

/// Files are looked at this often. Whoever renews certificates leaves the old ones good for weeks.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Where the PEM files are.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    /// The certificate chain, our own certificate first.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Certificates that sign those of clients: a file, or a folder of them. With it no client comes in without one. Read once.
    pub(crate) client_authorities: Option<PathBuf>,
}

/// TLS cannot be served with these files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: no {what} in PEM form: {reason}", path = path.display())]
    Pem { path: PathBuf, what: &'static str, reason: String },
    #[error("{path} cannot be used: {reason}", path = path.display())]
    Unusable { path: PathBuf, reason: String },
}

/// How connections are secured, with a certificate that can be renewed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    identity: Arc<Identity>,
}

impl ServerTls {
    /// Reads the files; `alpn` are the protocols to offer.
    pub(crate) fn load(files: &TlsFiles, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let identity = Arc::new(Identity::load(&files.certificate, &files.key)?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&files.certificate, &error))?;
        let builder = match &files.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| unusable(path, &error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { config: Arc::new(config), identity })
    }

    /// Takes a renewed certificate for new connections, for as long as the process lives.
    pub(crate) async fn keep_renewed(self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let identity = Arc::clone(&self.identity);
            let path = identity.certificate.display().to_string();
            match tokio::task::spawn_blocking(move || identity.renew()).await {
                Ok(Ok(true)) => tracing::info!(path, "a renewed certificate is used from now on"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::error!(%error, "the certificate read before stays in use"),
                Err(error) => tracing::error!(%error, "the certificate could not be looked at"),
            }
        }
    }
}

/// A certificate with its key, and the files they are from.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<(Stamps, Arc<CertifiedKey>)>,
}

/// Which files certificate and key are, when they were written, and how long they are; `None` of one that is not there.
type Stamps = [Option<(u64, SystemTime, u64)>; 2];

impl Identity {
    fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let stamps = [certificate, key].map(stamp);
        let current = RwLock::new((stamps, Arc::new(certified(certificate, key)?)));
        Ok(Self { certificate: certificate.into(), key: key.into(), current })
    }

    /// Reads the files again when they have changed; `true` when they are another identity. Half-written ones are an error, said
    /// once, and are read again when they change again.
    fn renew(&self) -> Result<bool, TlsError> {
        let stamps = [&*self.certificate, &*self.key].map(stamp);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamps {
            return Ok(false);
        }
        let read = certified(&self.certificate, &self.key);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.0 = stamps;
        current.1 = Arc::new(read?);
        Ok(true)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.certificate.display())
    }
}

fn stamp(path: &Path) -> Option<(u64, SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    // Files that were written within one tick of the kernel's clock differ by their inode.
    Some((metadata.ino(), metadata.modified().ok()?, metadata.len()))
}

fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| no_pem(key, "private key", &error))?;
    CertifiedKey::from_der(chain, secret, &rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|error| unusable(certificate, &format!("with {}: {error}", key.display())))
}

/// Authorities of a file, or of every file of a folder.
fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.into(), source };
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
            roots.add(certificate).map_err(|error| unusable(&file, &error))?;
        }
    }
    if roots.is_empty() {
        return Err(no_pem(path, "certificate", &"the folder is empty"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| no_pem(path, "certificate", &error))?;
    if found.is_empty() {
        return Err(no_pem(path, "certificate", &"the file has none"));
    }
    Ok(found)
}

fn no_pem(path: &Path, what: &'static str, reason: &dyn fmt::Display) -> TlsError {
    TlsError::Pem { path: path.into(), what, reason: reason.to_string() }
}

fn unusable(path: &Path, reason: &dyn fmt::Display) -> TlsError {
    TlsError::Unusable { path: path.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, remove_file, write};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().expect("a folder"));
            folder.sign("server");
            folder
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// `{name}.pem` and `{name}.key`; gives back the certificate.
        fn sign(&self, name: &str) -> CertificateDer<'static> {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
            write(self.file(&format!("{name}.pem")), made.cert.pem()).expect("written");
            write(self.file(&format!("{name}.key")), made.signing_key.serialize_pem()).expect("written");
            made.cert.der().clone()
        }

        fn load(
            &self,
            [certificate, key]: [&str; 2],
            authorities: Option<&str>,
        ) -> Result<ServerTls, TlsError> {
            let files = TlsFiles {
                certificate: self.file(certificate),
                key: self.file(key),
                client_authorities: authorities.map(|name| self.file(name)),
            };
            ServerTls::load(&files, &[b"h2"])
        }
    }

    fn served(tls: &ServerTls) -> CertificateDer<'static> {
        tls.identity.current.read().expect("not poisoned").1.cert[0].clone()
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = Folder::new();
        folder.sign("other");
        write(folder.file("empty.pem"), "nothing").expect("written");
        create_dir(folder.file("nobody")).expect("made");
        for (files, authorities, expected) in [
            (["absent.pem", "server.key"], None, "absent.pem"),
            (["empty.pem", "server.key"], None, "empty.pem: no certificate"),
            (["server.pem", "server.pem"], None, "server.pem: no private key"),
            (["server.pem", "other.key"], None, "server.pem cannot be used: with "),
            (["server.pem", "server.key"], Some("absent"), "cannot read"),
            (["server.pem", "server.key"], Some("empty.pem"), "empty.pem: no certificate"),
            (["server.pem", "server.key"], Some("nobody"), "nobody: no certificate"),
        ] {
            let error = folder.load(files, authorities).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn authorities_are_of_a_file_or_of_all_files_of_a_folder() {
        let folder = Folder::new();
        create_dir(folder.file("cas")).expect("made");
        for name in ["cas/one", "cas/two"] {
            folder.sign(name);
            remove_file(folder.file(&format!("{name}.key"))).expect("removed");
        }
        let count = |name| authorities(&folder.file(name)).expect("usable").len();
        assert_eq!((count("cas/one.pem"), count("cas")), (1, 2));
        assert!(folder.load(["server.pem", "server.key"], Some("cas")).is_ok());
    }

    #[test]
    fn a_renewed_certificate_is_taken_once_it_is_whole() {
        let folder = Folder::new();
        let tls = folder.load(["server.pem", "server.key"], None).expect("usable");
        let first = served(&tls);
        assert!(!tls.identity.renew().expect("nothing has changed"));

        let renewed = folder.sign("renewed");
        write(folder.file("server.pem"), "half of a cert").expect("written");
        assert!(tls.identity.renew().is_err());
        assert!(!tls.identity.renew().expect("an error is said once"));
        assert_eq!(served(&tls), first);

        fs::rename(folder.file("renewed.pem"), folder.file("server.pem")).expect("renamed");
        assert!(tls.identity.renew().is_err(), "the key is still that of the first");
        assert_eq!(served(&tls), first);
        fs::rename(folder.file("renewed.key"), folder.file("server.key")).expect("renamed");
        assert!(tls.identity.renew().expect("whole"));
        assert_eq!(served(&tls), renewed);

        remove_file(folder.file("server.pem")).expect("removed");
        assert!(tls.identity.renew().is_err());
        assert_eq!(served(&tls), renewed);
    }

    #[test]
    fn what_is_logged_of_it_has_no_key() {
        let tls = Folder::new().load(["server.pem", "server.key"], None).expect("usable");
        let said = format!("{tls:?}");
        assert!(said.contains("server.pem") && !said.contains("key:"), "{said}");
    }
}
