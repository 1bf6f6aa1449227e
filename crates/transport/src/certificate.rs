//! Our certificate, and fingerprints of certificates (RFC 8122).

use crate::limits::{
    CERTIFICATE_BYTES_MAX, DTLS_FIRST_RTO, DTLS_HANDSHAKE_TIMEOUT, DTLS_MTU_BYTES, DTLS_RETRIES,
};
use aws_lc_rs::digest;
use dimpl::DtlsCertificate;
use std::fmt;
use std::sync::Arc;

/// The certificate of this node, made once per process and shared by its transports.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    fingerprint: Fingerprint,
    certificate: DtlsCertificate,
    dtls: Arc<dimpl::Config>,
}

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Key or certificate could not be made.
    #[error("the certificate could not be generated")]
    Generate,
    /// Longer than [`CERTIFICATE_BYTES_MAX`].
    #[error("the certificate is too long")]
    TooLong,
    /// The DTLS library refuses its configuration.
    #[error("the DTLS library cannot be configured: {0}")]
    Config(String),
}

impl Certificate {
    /// A new self-signed ECDSA P-256 certificate, valid for a year.
    ///
    /// Key, serial number and dates come from the system, not from a seed: call it in a shell, once. A simulator uses
    /// [`Certificate::from_der`].
    pub fn generate() -> Result<Self, CertificateError> {
        let made = dimpl::certificate::generate_self_signed_certificate();
        let certificate = made.map_err(|_| CertificateError::Generate)?;
        Self::from_der(certificate.certificate, certificate.private_key)
    }

    /// A certificate and its PKCS #8 private key (ECDSA P-256 or P-384), both DER.
    pub fn from_der(certificate: Vec<u8>, private_key: Vec<u8>) -> Result<Self, CertificateError> {
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLong);
        }
        let dtls = dimpl::Config::builder()
            .mtu(DTLS_MTU_BYTES)
            .flight_start_rto(DTLS_FIRST_RTO)
            .flight_retries(DTLS_RETRIES)
            .handshake_timeout(DTLS_HANDSHAKE_TIMEOUT)
            // ICE has verified the address before DTLS hears of it, so a cookie would only cost a round trip.
            .use_server_cookie(false)
            .build()
            .map_err(|error| CertificateError::Config(error.to_string()))?;
        let fingerprint = Fingerprint::sha256(&certificate);
        let certificate = DtlsCertificate { certificate, private_key };
        Ok(Self(Arc::new(Inner { fingerprint, certificate, dtls: Arc::new(dtls) })))
    }

    /// Its SHA-256 fingerprint, as `a=fingerprint` says it.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.0.fingerprint
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.0.certificate.certificate
    }

    pub(crate) fn dtls_certificate(&self) -> DtlsCertificate {
        self.0.certificate.clone()
    }

    pub(crate) fn dtls_config(&self) -> Arc<dimpl::Config> {
        Arc::clone(&self.0.dtls)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.0.fingerprint)
    }
}

/// Digest of a certificate: `sha-256 AA:BB:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    hash: Hash,
    digest: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Why a fingerprint cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Neither SHA-256, SHA-384 nor SHA-512; weaker hashes authenticate nobody.
    #[error("the fingerprint's hash is not accepted")]
    Hash,
    /// Not pairs of hexadecimal digits with colons between, or too many or too few.
    #[error("the fingerprint is malformed")]
    Malformed,
}

impl Fingerprint {
    /// The SHA-256 fingerprint of a certificate.
    pub fn sha256(der: &[u8]) -> Self {
        Self { hash: Hash::Sha256, digest: digest::digest(&digest::SHA256, der).as_ref().to_vec() }
    }

    /// Reads the value of `a=fingerprint`: hash function, space, digest. Case does not matter.
    pub fn parse(text: &str) -> Result<Self, FingerprintError> {
        let (hash, digits) = text.trim().split_once(' ').ok_or(FingerprintError::Malformed)?;
        let hash = match hash.to_ascii_lowercase().as_str() {
            "sha-256" => Hash::Sha256,
            "sha-384" => Hash::Sha384,
            "sha-512" => Hash::Sha512,
            _ => return Err(FingerprintError::Hash),
        };
        let mut digest = Vec::with_capacity(hash.bytes());
        for pair in digits.trim().split(':') {
            let valid = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !valid || digest.len() == hash.bytes() {
                return Err(FingerprintError::Malformed);
            }
            digest.push(u8::from_str_radix(pair, 16).map_err(|_| FingerprintError::Malformed)?);
        }
        if digest.len() == hash.bytes() {
            Ok(Self { hash, digest })
        } else {
            Err(FingerprintError::Malformed)
        }
    }

    /// Whether this is the fingerprint of that certificate.
    pub fn matches(&self, der: &[u8]) -> bool {
        let algorithm = match self.hash {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, der).as_ref() == self.digest
    }

    /// Name of the hash function, as SDP has it.
    pub const fn hash_name(&self) -> &'static str {
        match self.hash {
            Hash::Sha256 => "sha-256",
            Hash::Sha384 => "sha-384",
            Hash::Sha512 => "sha-512",
        }
    }
}

impl Hash {
    const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash_name())?;
        for (index, byte) in self.digest.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_survives_its_text_in_any_case() {
        let fingerprint = Fingerprint::sha256(b"certificate");
        let text = fingerprint.to_string();
        assert!(text.starts_with("sha-256 ") && text.len() == 8 + 95);
        assert_eq!(Fingerprint::parse(&text), Ok(fingerprint.clone()));
        assert_eq!(Fingerprint::parse(&text.to_ascii_lowercase()), Ok(fingerprint.clone()));
        assert!(fingerprint.matches(b"certificate") && !fingerprint.matches(b"another"));
    }

    #[test]
    fn weak_and_malformed_fingerprints_are_refused() {
        let text = Fingerprint::sha256(b"x").to_string();
        assert_eq!(Fingerprint::parse("sha-1 AA:BB"), Err(FingerprintError::Hash));
        for bad in
            ["", "sha-256", "sha-256 AA", "sha-256 +A:BB", &text[..text.len() - 1], &format!("{text}:00")]
        {
            assert_eq!(Fingerprint::parse(bad), Err(FingerprintError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_generated_certificate_says_its_fingerprint() {
        let certificate = Certificate::generate().expect("a certificate");
        assert!(certificate.fingerprint().matches(certificate.der()));
        assert_eq!(format!("{certificate:?}"), format!("Certificate({})", certificate.fingerprint()));
    }
}
