//! Access tokens: JSON Web Tokens (RFC 7519) signed with HS256, whose claims are LiveKit's grants.
//!
//! [`verify`] pins the algorithm, looks the secret up by `iss` and checks `exp` and `nbf` against the time it is told.
//! The error texts are LiveKit's, word for word, but never carry the token itself.

mod claims;
mod grants;

pub use grants::{Grants, RtcStatsClaim, VIDEO_GRANT_NAMES, VideoGrant, kind_name};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanlight_base::{Now, Redacted};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::Value;

/// `exp` and `nbf` may be off by this much.
pub const LEEWAY_S: u64 = 60;
/// Shortest life of a refreshed token.
pub const REFRESH_LIFETIME_S: u64 = 600;
/// Longer tokens are refused unread: no head has room for one.
pub const TOKEN_BYTES_MAX: usize = crate::head::HEAD_BYTES_MAX;

/// API keys and their secrets, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<(String, Redacted<String>)>);

impl Keys {
    /// Keys with their secrets; the first one signs.
    pub fn new<K: Into<String>, S: Into<String>>(keys: impl IntoIterator<Item = (K, S)>) -> Self {
        Self(keys.into_iter().map(|(key, secret)| (key.into(), Redacted::new(secret.into()))).collect())
    }

    /// The key that signs.
    pub fn first(&self) -> Option<(&str, &Redacted<String>)> {
        self.0.first().map(|(key, secret)| (key.as_str(), secret))
    }

    /// The secret of a key.
    pub fn secret(&self, key: &str) -> Option<&Redacted<String>> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, secret)| secret)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A token that was found good.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The API key that issued it.
    pub key: String,
    /// What it grants.
    pub grants: Grants,
    /// `exp`, seconds since the Unix epoch; `None` when it never expires.
    pub expires_s: Option<u64>,
}

/// The participant kind a word means in a token; any other word is `standard`.
pub fn kind(word: &str) -> fanlight_sfu::model::ParticipantKind {
    grants::kind(word)
}

/// Why a token was refused; the text is the body of the 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JSON Web Token at all.
    #[error("invalid authorization token")]
    NotAToken,
    /// `iss` names no key of ours.
    #[error("invalid API key: {0}")]
    UnknownKey(String),
    /// The header names another algorithm than HS256.
    #[error("invalid token: <token>, error: token signature is invalid: signing method {0} is invalid")]
    WrongAlgorithm(String),
    /// The signature does not fit.
    #[error("invalid token: <token>, error: token signature is invalid: signature is invalid")]
    WrongSignature,
    /// A claim is of the wrong type.
    #[error("invalid token: <token>, error: token is malformed: {0}")]
    Malformed(String),
    /// `exp` is past, or `nbf` is to come.
    #[error("invalid token: <token>, error: token has invalid claims: {0}")]
    WrongTime(&'static str),
}

/// Checks a token and reads its grants.
pub fn verify(keys: &Keys, now: Now, token: &str) -> Result<Token, TokenError> {
    verify_late(keys, now, 0, token)
}

/// The same for a token that may have expired up to `late_s` seconds ago.
pub fn verify_late(keys: &Keys, now: Now, late_s: u64, token: &str) -> Result<Token, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::NotAToken);
    }
    let parts = Parts::split(token)?;
    let secret = keys.secret(&parts.issuer).ok_or_else(|| TokenError::UnknownKey(parts.issuer.clone()))?;
    if parts.algorithm != "HS256" {
        return Err(TokenError::WrongAlgorithm(parts.algorithm));
    }
    let key = DecodingKey::from_secret(secret.reveal().as_bytes());
    match jsonwebtoken::crypto::verify(parts.signature, parts.signed.as_bytes(), &key, Algorithm::HS256) {
        Ok(true) => {}
        _ => return Err(TokenError::WrongSignature),
    }
    let claims = claims::read(&parts.claims)?;
    let now_s = now.unix_s();
    let expired =
        claims.expires_s.is_some_and(|at| now_s > at.saturating_add(LEEWAY_S).saturating_add(late_s));
    let early = claims.not_before_s.is_some_and(|at| now_s.saturating_add(LEEWAY_S) < at);
    match (expired, early) {
        (true, true) => Err(TokenError::WrongTime("token is expired, token is not valid yet")),
        (true, false) => Err(TokenError::WrongTime("token is expired")),
        (false, true) => Err(TokenError::WrongTime("token is not valid yet")),
        (false, false) => Ok(Token { key: parts.issuer, grants: claims.grants, expires_s: claims.expires_s }),
    }
}

/// Signs `grants` with `key`, valid from `now` for `lifetime_s` seconds. `None` only when signing fails.
pub fn create(
    key: &str,
    secret: &Redacted<String>,
    grants: &Grants,
    now: Now,
    lifetime_s: u64,
) -> Option<Redacted<String>> {
    let now_s = now.unix_s();
    let claims = claims::Written::new(key, grants, now_s, now_s.saturating_add(lifetime_s));
    let claims = serde_json::to_vec(&claims).ok()?;
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).ok()?;
    Some(Redacted::new(format!("{signed}.{signature}")))
}

/// Seconds a refreshed token lives: what the token of the join has left, but ten minutes at least.
pub fn refresh_lifetime_s(now: Now, expires_s: Option<u64>) -> u64 {
    expires_s.map_or(0, |at| at.saturating_sub(now.unix_s())).max(REFRESH_LIFETIME_S)
}

/// A token taken apart, nothing verified yet.
struct Parts<'a> {
    algorithm: String,
    issuer: String,
    claims: serde_json::Map<String, Value>,
    /// Header and claims as they were signed.
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::NotAToken)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::NotAToken)?;
        let (header, claims) = (object(header)?, object(claims)?);
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(TokenError::NotAToken)?.to_owned();
        let issuer = match claims.get("iss") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(issuer)) => issuer.clone(),
            Some(_) => return Err(TokenError::NotAToken),
        };
        Ok(Self { algorithm, issuer, claims, signed, signature })
    }
}

fn object(segment: &str) -> Result<serde_json::Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::NotAToken)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(TokenError::NotAToken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Now = Now { mono_ns: 0, unix_ns: 1_800_000_000_000_000_000 };

    fn keys() -> Keys {
        Keys::new([("devkey", "secret"), ("other", "word")])
    }

    fn grants() -> Grants {
        let video = VideoGrant { room_join: true, room: "r".to_owned(), ..VideoGrant::default() };
        Grants { identity: "alice".to_owned(), video: Some(video), ..Grants::default() }
    }

    fn signed(claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let key = EncodingKey::from_secret(b"secret");
        format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap())
    }

    #[test]
    fn an_expired_token_may_be_taken_for_a_while() {
        let (keys, grants) = (keys(), grants());
        let (key, secret) = keys.first().unwrap();
        let token = create(key, secret, &grants, NOW, 60).unwrap();
        let later = |s: u64| Now { unix_ns: NOW.unix_ns + s * 1_000_000_000, ..NOW };
        assert!(verify(&keys, later(600), token.reveal()).is_err());
        assert!(verify_late(&keys, later(600), 600, token.reveal()).is_ok());
        assert!(verify_late(&keys, later(800), 600, token.reveal()).is_err());
    }

    #[test]
    fn a_created_token_verifies_and_grants_what_it_was_made_with() {
        let keys = keys();
        let (key, secret) = keys.first().unwrap();
        let token = create(key, secret, &grants(), NOW, 60).unwrap();
        let verified = verify(&keys, NOW, token.reveal()).unwrap();
        assert_eq!(verified.grants, grants());
        assert_eq!((verified.key.as_str(), verified.expires_s), ("devkey", Some(NOW.unix_s() + 60)));
    }

    #[test]
    fn the_claim_of_rtcstats_is_read_and_keeps_nobody_out() {
        let read = |claim: Value| {
            let token = signed(&json!({ "iss": "devkey", "rtcStats": claim }));
            verify(&keys(), NOW, &token).unwrap().grants.rtc_stats
        };
        let named =
            RtcStatsClaim { user: "u".to_owned(), conference: "c".to_owned(), ..RtcStatsClaim::default() };
        assert_eq!(read(json!({ "user": "u", "conference": "c", "more": 1 })), Some(named));
        for other in [json!(5), json!(null), json!({ "user": 5 }), json!([])] {
            assert_eq!(read(other.clone()).unwrap_or_default(), RtcStatsClaim::default(), "{other}");
        }
    }

    #[test]
    fn a_secret_and_a_token_print_nothing_of_themselves() {
        let keys = keys();
        let (key, secret) = keys.first().unwrap();
        let token = create(key, secret, &grants(), NOW, 60).unwrap();
        assert!(!format!("{keys:?}").contains("word"));
        assert_eq!(format!("{token:?}"), "<redacted>");
    }

    #[test]
    fn times_are_checked_with_a_leeway_of_a_minute() {
        let now_s = NOW.unix_s();
        let cases = [
            (json!({"iss": "devkey", "exp": now_s - 60}), None),
            (json!({"iss": "devkey", "exp": now_s - 61}), Some("token is expired")),
            (json!({"iss": "devkey", "nbf": now_s + 60}), None),
            (json!({"iss": "devkey", "nbf": now_s + 61}), Some("token is not valid yet")),
            (json!({"iss": "devkey", "exp": (now_s + 9).to_string()}), None),
            (json!({"iss": "devkey", "exp": 9_999_999_999.5}), None),
            (json!({"iss": "devkey"}), None),
        ];
        for (claims, expected) in cases {
            let error = verify(&keys(), NOW, &signed(&claims)).err();
            assert_eq!(error, expected.map(TokenError::WrongTime), "{claims}");
        }
    }

    #[test]
    fn the_signature_is_that_of_the_key_which_the_issuer_names() {
        let token = signed(&json!({"iss": "other"}));
        assert_eq!(verify(&keys(), NOW, &token), Err(TokenError::WrongSignature));
    }

    #[test]
    fn a_refreshed_token_lives_as_long_as_the_old_one_but_ten_minutes_at_least() {
        let now_s = NOW.unix_s();
        assert_eq!(refresh_lifetime_s(NOW, None), 600);
        assert_eq!(refresh_lifetime_s(NOW, Some(now_s - 30)), 600);
        assert_eq!(refresh_lifetime_s(NOW, Some(now_s + 21_300)), 21_300);
    }
}
