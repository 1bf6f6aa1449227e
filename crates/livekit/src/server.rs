//! What every session of this node shares.

use crate::token::Keys;
use fanlight_base::{NodeId, Now, ParticipantSid, Redacted};
use fanlight_control::Limits;
use fanlight_turn::{ApiKey, Credential, participant_credential, shared_credential};
use livekit_protocol as proto;

/// LiveKit release whose behaviour is kept: clients switch features by it.
pub const SERVER_VERSION: &str = "1.13.5";
/// LiveKit protocol number.
pub const PROTOCOL: i32 = 17;
/// LiveKit agent protocol number.
pub const AGENT_PROTOCOL: i32 = 1;
/// How often clients ping, seconds.
pub const PING_INTERVAL_S: i32 = 5;
/// How long clients wait for any message, seconds.
pub const PING_TIMEOUT_S: i32 = 15;

/// Settings of this node.
#[derive(Debug, Clone)]
pub struct Server {
    /// This node.
    pub node: NodeId,
    /// API keys; the first one signs.
    pub keys: Keys,
    /// `limit.*`.
    pub limits: Limits,
    /// `rtc.use_ice_lite`.
    pub ice_lite: bool,
    /// STUN and TURN servers told to clients; no public ones unless configured.
    pub ice_servers: Vec<IceServer>,
}

/// One entry of `ice_servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host:port`, `turn:host:port?transport=udp`, …
    pub urls: Vec<String>,
    /// How a client proves that it may use it.
    pub credential: IceCredential,
}

/// How a client proves that it may use a TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IceCredential {
    /// Not at all: STUN.
    None,
    /// The same for everybody.
    Static {
        /// User name.
        username: String,
        /// Password.
        password: Redacted<String>,
    },
    /// Made for each participant from a secret shared with the server (draft-uberti-behave-turn-rest).
    Shared {
        /// The secret.
        secret: Redacted<String>,
        /// Seconds the credential is good for.
        ttl_s: u32,
    },
    /// Made for each participant, for this node's own TURN server.
    Participant {
        /// The API key that signs it.
        key: ApiKey,
        /// Seconds the credential is good for.
        ttl_s: u32,
    },
}

impl Server {
    pub(crate) fn info(&self) -> proto::ServerInfo {
        proto::ServerInfo {
            version: SERVER_VERSION.to_owned(),
            protocol: PROTOCOL,
            node_id: self.node.as_str().to_owned(),
            agent_protocol: AGENT_PROTOCOL,
            ..Default::default()
        }
    }

    pub(crate) fn ice_servers(&self, now: Now, participant: &ParticipantSid) -> Vec<proto::IceServer> {
        self.ice_servers.iter().map(|server| server.to_proto(now, participant)).collect()
    }
}

impl IceServer {
    fn to_proto(&self, now: Now, participant: &ParticipantSid) -> proto::IceServer {
        let (username, credential) = match &self.credential {
            IceCredential::None => (String::new(), String::new()),
            IceCredential::Static { username, password } => (username.clone(), password.reveal().clone()),
            IceCredential::Shared { secret, ttl_s } => {
                told(shared_credential(secret, participant.as_str(), expires_s(now, *ttl_s)))
            }
            IceCredential::Participant { key, ttl_s } => {
                told(participant_credential(key, participant, expires_s(now, *ttl_s)))
            }
        };
        proto::IceServer { urls: self.urls.clone(), username, credential }
    }
}

fn expires_s(now: Now, ttl_s: u32) -> u64 {
    now.unix_s().saturating_add(ttl_s.into())
}

fn told(credential: Credential) -> (String, String) {
    (credential.username, credential.password.reveal().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_secret_makes_a_credential_for_one_participant_and_time() {
        let server = IceServer {
            urls: vec!["turn:h:3478?transport=udp".to_owned()],
            credential: IceCredential::Shared { secret: Redacted::new("north".to_owned()), ttl_s: 14_400 },
        };
        let now = Now { mono_ns: 0, unix_ns: 1_000_000_000_000 };
        let entry = server.to_proto(now, &"PA_x".into());
        assert_eq!(entry.username, "15400:PA_x");
        assert_eq!(entry.credential.len(), 28);
        assert!(!format!("{server:?}").contains("north"));
    }

    #[test]
    fn our_own_turn_gets_livekits_credential_of_one_participant() {
        let key = ApiKey { key: "devkey".to_owned(), secret: Redacted::new("secret".to_owned()) };
        let credential = IceCredential::Participant { key, ttl_s: 300 };
        let server = IceServer { urls: vec!["turn:h:3478?transport=udp".to_owned()], credential };
        let now = Now { mono_ns: 0, unix_ns: 1_795_231_283_000_000_000 };
        let entry = server.to_proto(now, &"PA_J7mXq2Zk9LpQ".into());
        // As LiveKit 1.13.5 made it.
        assert_eq!(entry.username, "zgTNxMjM1kzNxwXUwxUOrplMxhVb3o0XBBFfyrs1srMyA");
        assert_eq!(entry.credential, "2hnSLAnflS6Ka6xHoKKiCtf37DNbX1RiPaNBjFnaqmY");
    }
}
