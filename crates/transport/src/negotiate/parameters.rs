//! What the transport puts into a description and takes out of one.

use super::NegotiateError;
use crate::sdp::{MediaSection, SessionDescription};
use crate::{DtlsRole, Fingerprint, RemoteParameters, Setup};
use fanlight_base::Redacted;

/// Most remote candidates taken from one description; a machine with ten addresses has 40 host candidates.
const CANDIDATES_MAX: usize = 128;

/// Our side's transport values for a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalParameters {
    /// ICE user name fragment.
    pub ice_ufrag: String,
    /// ICE password.
    pub ice_pwd: Redacted<String>,
    /// `sha-256 AB:CD:…`.
    pub fingerprint: String,
    /// `candidate:…` lines; they go into the first section only. Empty while candidates are trickled.
    pub candidates: Vec<String>,
    /// Whether these are all candidates.
    pub end_of_candidates: bool,
    /// Says `a=ice-lite`.
    pub ice_lite: bool,
}

/// The transport values of the client's description.
#[derive(Debug, Clone)]
pub struct RemoteTransport {
    /// For [`crate::Transport::set_remote`].
    pub parameters: RemoteParameters,
    /// `candidate:…` lines.
    pub candidates: Vec<String>,
    /// Whether the client is an ICE-lite agent.
    pub ice_lite: bool,
}

impl RemoteTransport {
    /// Reads a description.
    ///
    /// # Errors
    /// [`NegotiateError::NoIce`], [`NegotiateError::NoFingerprint`].
    pub fn read(description: &SessionDescription) -> Result<Self, NegotiateError> {
        let credentials = description.ice_credentials().ok_or(NegotiateError::NoIce)?;
        let fingerprint = description.fingerprint().ok_or(NegotiateError::NoFingerprint)?;
        Ok(Self {
            parameters: RemoteParameters {
                ufrag: credentials.ufrag.to_owned(),
                password: Redacted::new(credentials.pwd.to_owned()),
                fingerprint: Fingerprint::parse(fingerprint).map_err(|_| NegotiateError::NoFingerprint)?,
                setup: description.setup().unwrap_or(Setup::ActPass),
            },
            candidates: description.candidates().take(CANDIDATES_MAX).map(str::to_owned).collect(),
            ice_lite: description.is_ice_lite(),
        })
    }
}

/// Our role in answer to an offer: passive wherever the client can be active, because only the passive side chooses
/// the SRTP profile. (LiveKit answers `active`.)
pub(super) fn role_for_offer(client: Setup) -> DtlsRole {
    match client {
        Setup::Passive => DtlsRole::Active,
        Setup::ActPass | Setup::Active => DtlsRole::Passive,
    }
}

/// The `o=` line of one peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Session id: 63 random bits.
    pub session_id: u64,
    /// Version of the next description; LiveKit begins with the Unix time in seconds.
    pub version: u64,
}

impl Origin {
    /// This description's line; the next one has a higher version (RFC 3264 §8).
    pub(super) const fn next(&mut self) -> Self {
        let current = *self;
        self.version = self.version.saturating_add(1);
        current
    }
}

/// The data channel section as the client described it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSection {
    /// The client's SCTP port.
    pub sctp_port: u16,
    /// Largest message the client takes, in bytes; 0 means any size (RFC 8841 §6).
    pub max_message_size_bytes: u64,
}

impl DataSection {
    /// What holds when `a=max-message-size` is missing (RFC 8841 §6.1).
    const DEFAULT_MESSAGE_SIZE_BYTES: u64 = 65_536;

    pub(super) fn read(section: &MediaSection<'_>) -> Self {
        Self {
            sctp_port: section.sctp_port().unwrap_or(super::SCTP_PORT),
            max_message_size_bytes: section
                .max_message_size_bytes()
                .unwrap_or(Self::DEFAULT_MESSAGE_SIZE_BYTES),
        }
    }
}
