//! Long-term credentials that need no table: the password follows from the user name and a secret.

use crate::base62;
use crate::limits::USERNAME_BYTES_MAX;
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fanlight_base::{ParticipantSid, Redacted};
use smol_str::SmolStr;

/// An API key with its secret, as LiveKit's `keys` have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key.
    pub key: String,
    /// Its secret.
    pub secret: Redacted<String>,
}

/// Whom the server believes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// Participants' credentials are signed with one of these.
    pub participants: Vec<ApiKey>,
    /// The secret of `use-auth-secret` credentials (draft-uberti-behave-turn-rest).
    pub static_auth_secret: Option<Redacted<String>>,
}

/// What a client is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// USERNAME.
    pub username: String,
    /// The password.
    pub password: Redacted<String>,
}

/// Whom a user name stands for; the password has yet to be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) password: String,
    /// Quotas count by this: the same for all credentials of one person.
    pub(crate) person: SmolStr,
    pub(crate) participant: Option<ParticipantSid>,
    pub(crate) expires_unix_s: u64,
}

/// A participant's credential as LiveKit makes it: user name base62 of `key|sid|expiry`, password base62 of the SHA-256
/// of `secret|sid|expiry`.
pub fn participant_credential(key: &ApiKey, participant: &ParticipantSid, expires_unix_s: u64) -> Credential {
    let username = base62::encode(format!("{}|{participant}|{expires_unix_s}", key.key).as_bytes());
    let password = participant_password(key, participant.as_str(), expires_unix_s);
    Credential { username, password: Redacted::new(password) }
}

/// A `use-auth-secret` credential: user name `<expiry>:<name>`, password base64 of the HMAC-SHA1 of the user name.
pub fn shared_credential(secret: &Redacted<String>, name: &str, expires_unix_s: u64) -> Credential {
    let username = format!("{expires_unix_s}:{name}");
    let password = Redacted::new(shared_password(secret, &username));
    Credential { username, password }
}

impl Credentials {
    /// Whom the name stands for, when it has one of the forms that are believed here.
    pub(crate) fn claim(&self, username: &str) -> Option<Claim> {
        if username.len() > USERNAME_BYTES_MAX || username.chars().any(char::is_control) {
            return None;
        }
        match username.split_once(':') {
            Some((expiry, name)) => {
                let secret = self.static_auth_secret.as_ref()?;
                Some(Claim {
                    password: shared_password(secret, username),
                    person: name.into(),
                    participant: None,
                    expires_unix_s: decimal(expiry)?,
                })
            }
            None => self.participant_claim(username),
        }
    }

    fn participant_claim(&self, username: &str) -> Option<Claim> {
        let decoded = String::from_utf8(base62::decode(username)?).ok()?;
        let mut parts = decoded.split('|');
        let (name, sid, expiry) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || sid.is_empty() || decoded.chars().any(char::is_control) {
            return None;
        }
        let key = self.participants.iter().find(|key| key.key == name)?;
        let expires_unix_s = decimal(expiry)?;
        Some(Claim {
            password: participant_password(key, sid, expires_unix_s),
            person: sid.into(),
            participant: Some(sid.into()),
            expires_unix_s,
        })
    }
}

fn participant_password(key: &ApiKey, sid: &str, expires_unix_s: u64) -> String {
    let text = format!("{}|{sid}|{expires_unix_s}", key.secret.reveal());
    base62::encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn shared_password(secret: &Redacted<String>, username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.reveal().as_bytes());
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

/// Digits only: `parse` would take a sign.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKey {
        ApiKey { key: "devkey".into(), secret: Redacted::new("secret".into()) }
    }

    fn credentials() -> Credentials {
        Credentials { participants: vec![key()], static_auth_secret: Some(Redacted::new("north".into())) }
    }

    #[test]
    fn a_participants_credential_is_livekits() {
        let made = participant_credential(&key(), &"PA_J7mXq2Zk9LpQ".into(), 1_795_231_583);
        assert_eq!(made.username, "zgTNxMjM1kzNxwXUwxUOrplMxhVb3o0XBBFfyrs1srMyA");
        assert_eq!(made.password.reveal(), "2hnSLAnflS6Ka6xHoKKiCtf37DNbX1RiPaNBjFnaqmY");
        let claim = credentials().claim(&made.username).unwrap();
        assert_eq!(&claim.password, made.password.reveal());
        assert_eq!((claim.person.as_str(), claim.expires_unix_s), ("PA_J7mXq2Zk9LpQ", 1_795_231_583));
        assert_eq!(claim.participant, Some("PA_J7mXq2Zk9LpQ".into()));
    }

    #[test]
    fn a_shared_credential_is_coturns() {
        // printf 1000:alice | openssl dgst -sha1 -hmac north -binary | base64
        let made = shared_credential(&Redacted::new("north".into()), "alice", 1000);
        assert_eq!(made.username, "1000:alice");
        assert_eq!(made.password.reveal(), EXPECTED_SHARED);
        let claim = credentials().claim("1000:alice").unwrap();
        assert_eq!((claim.person.as_str(), claim.expires_unix_s), ("alice", 1000));
        assert_eq!(&claim.password, made.password.reveal());
        assert!(!format!("{made:?}").contains(EXPECTED_SHARED));
    }

    const EXPECTED_SHARED: &str = "6ANS2sM+SnH+pQyRUs6nGfTCfYk=";

    #[test]
    fn names_of_no_known_form_are_nobodys() {
        let known = credentials();
        let two_parts = base62::encode(b"devkey|PA_x");
        let four_parts = base62::encode(b"devkey|PA_x|1|2");
        let stranger = base62::encode(b"other|PA_x|1");
        let line = base62::encode(b"devkey|PA_x\n|1");
        let long = format!("1:{}", "x".repeat(USERNAME_BYTES_MAX));
        for name in ["", "alice", ":", "x:alice", "+5:a", "1:a\nb", "99999999999999999999:a"] {
            assert_eq!(known.claim(name), None, "{name}");
        }
        for name in [two_parts, four_parts, stranger, line, long] {
            assert_eq!(known.claim(&name), None, "{name}");
        }
        assert_eq!(Credentials::default().claim("1000:alice"), None);
    }
}
