//! `fanlight token`.

use super::say;
use crate::config::{Config, Overrides};
use clap::{Args, Subcommand};
use fanlight_base::Redacted;
use fanlight_livekit::token::{self, Grants, VIDEO_GRANT_NAMES, VideoGrant};
use fanlight_shard::Clock;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a token that lets its bearer join a room, or administer the server
    #[command(
        after_help = "Without --config, --keys and --api-secret it is signed with the key of fanlight --dev."
    )]
    Create(Box<Create>),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Room to join; other grants may do without
    #[arg(long)]
    room: Option<String>,
    /// Identity, unique in the room
    #[arg(long)]
    identity: String,
    /// Display name
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Metadata of the participant
    #[arg(long, default_value = "", hide_default_value = true)]
    metadata: String,
    /// Attribute of the participant; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
    /// Attributes as a JSON object of texts
    #[arg(long, value_name = "JSON", value_parser = texts)]
    attributes: Option<Texts>,
    /// How long it is good for: 90s, 15m, 6h, 30d, or seconds
    #[arg(long, visible_alias = "ttl", value_name = "DURATION", default_value = "6h", value_parser = seconds)]
    valid_for: u64,

    /// May publish [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        hide_possible_values = true,
        conflicts_with = "no_publish",
        help_heading = "Rights in the room"
    )]
    can_publish: Option<bool>,
    /// May subscribe [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        hide_possible_values = true,
        conflicts_with = "no_subscribe",
        help_heading = "Rights in the room"
    )]
    can_subscribe: Option<bool>,
    /// May send data [default: as --can-publish]
    #[arg(
        long,
        value_name = "BOOL",
        hide_possible_values = true,
        conflicts_with = "no_publish_data",
        help_heading = "Rights in the room"
    )]
    can_publish_data: Option<bool>,
    /// May not publish
    #[arg(long, help_heading = "Rights in the room")]
    no_publish: bool,
    /// May not subscribe
    #[arg(long, help_heading = "Rights in the room")]
    no_subscribe: bool,
    /// May not send data
    #[arg(long, help_heading = "Rights in the room")]
    no_publish_data: bool,
    /// May publish this source only: camera, microphone, screen_share, screen_share_audio; may be given several times
    #[arg(long, visible_alias = "allow-source", value_name = "SOURCE", help_heading = "Rights in the room")]
    source: Vec<String>,
    /// May change its own name, metadata and attributes
    #[arg(long, visible_alias = "allow-update-metadata", help_heading = "Rights in the room")]
    update_own_metadata: bool,
    /// Is not shown to others
    #[arg(long, help_heading = "Rights in the room")]
    hidden: bool,
    /// Records the room
    #[arg(long, help_heading = "Rights in the room")]
    recorder: bool,
    /// Is an agent
    #[arg(long, help_heading = "Rights in the room")]
    agent: bool,

    /// May administer the room
    #[arg(long, visible_alias = "admin", help_heading = "Rights on the server")]
    room_admin: bool,
    /// May make and delete rooms
    #[arg(long, visible_alias = "create", help_heading = "Rights on the server")]
    room_create: bool,
    /// May list rooms
    #[arg(long, visible_alias = "list", help_heading = "Rights on the server")]
    room_list: bool,
    /// May record rooms
    #[arg(long, help_heading = "Rights on the server")]
    room_record: bool,

    /// More grants, as they stand in a token: {"canPublish":false}; they win over the flags
    #[arg(long, value_name = "JSON", value_parser = grant)]
    grant: Option<Grant>,
    /// Kind of the participant: standard, ingress, egress, sip, agent
    #[arg(long, default_value = "standard", hide_default_value = true)]
    kind: String,
    /// Room configuration to use when this join makes the room
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    room_preset: String,

    /// Key to sign with [default: the first one]
    #[arg(long, help_heading = "Signing")]
    api_key: Option<String>,
    /// Its secret, when it is in no configuration
    #[arg(long, value_name = "SECRET", requires = "api_key", help_heading = "Signing")]
    api_secret: Option<String>,
    /// API keys, as YAML: "key: secret"
    #[arg(long, value_name = "KEYS", env = "LIVEKIT_KEYS", hide_env_values = true, help_heading = "Signing")]
    keys: Option<String>,
    /// Configuration with the keys
    #[arg(long, value_name = "FILE", help_heading = "Signing")]
    config: Option<PathBuf>,
    /// As LiveKit's tool has it; --room says the same
    #[arg(long, hide = true)]
    join: bool,
}

/// A JSON object of texts.
type Texts = BTreeMap<String, String>;
/// A JSON object of grants.
type Grant = Map<String, Value>;

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("no key `{0}` is configured; --api-secret gives its secret")]
    NoSuchKey(String),
    #[error("no API key is configured")]
    NoKey,
    #[error("--join needs a --room")]
    NoRoom,
    #[error("--grant: {0}")]
    Grant(token::TokenError),
    #[error("the token could not be signed")]
    Signing,
}

impl Token {
    pub(super) fn run(self) -> Result<(), Box<dyn Error>> {
        let Self::Create(create) = self;
        let (key, secret) = create.key()?;
        let grants = create.grants()?;
        let now = Clock::new(Instant::now()).now();
        let token =
            token::create(&key, &secret, &grants, now, create.valid_for).ok_or(TokenError::Signing)?;
        say(token.reveal());
        Ok(())
    }
}

impl Create {
    fn key(&self) -> Result<(String, Redacted<String>), Box<dyn Error>> {
        if let (Some(key), Some(secret)) = (&self.api_key, &self.api_secret) {
            return Ok((key.clone(), Redacted::new(secret.clone())));
        }
        // The key and secret of --dev, unless others are given.
        let dev = self.config.is_none() && self.keys.is_none();
        let (config, keys) = (self.config.clone(), self.keys.clone().map(Redacted::new));
        let overrides = Overrides { dev, config, keys, ..Overrides::default() };
        let keys = Config::load(overrides)?.0.token_keys();
        match &self.api_key {
            Some(key) => {
                let secret = keys.secret(key).ok_or_else(|| TokenError::NoSuchKey(key.clone()))?;
                Ok((key.clone(), secret.clone()))
            }
            None => {
                let (key, secret) = keys.first().ok_or(TokenError::NoKey)?;
                Ok((key.to_owned(), secret.clone()))
            }
        }
    }

    fn grants(&self) -> Result<Grants, TokenError> {
        if self.join && self.room.is_none() {
            return Err(TokenError::NoRoom);
        }
        let video = VideoGrant {
            room_join: self.room.is_some(),
            room: self.room.clone().unwrap_or_default(),
            room_admin: self.room_admin,
            room_create: self.room_create,
            room_list: self.room_list,
            room_record: self.room_record,
            can_publish: self.can_publish.or(self.no_publish.then_some(false)),
            can_subscribe: self.can_subscribe.or(self.no_subscribe.then_some(false)),
            can_publish_data: self.can_publish_data.or(self.no_publish_data.then_some(false)),
            can_publish_sources: self.source.clone(),
            can_update_own_metadata: self.update_own_metadata.then_some(true),
            hidden: self.hidden,
            recorder: self.recorder,
            agent: self.agent,
            ..VideoGrant::default()
        };
        let video = match &self.grant {
            Some(grant) => video.with_json(grant).map_err(TokenError::Grant)?,
            None => video,
        };
        let mut attributes = self.attributes.clone().unwrap_or_default();
        attributes.extend(self.attribute.iter().cloned());
        Ok(Grants {
            identity: self.identity.clone(),
            name: self.name.clone(),
            kind: token::kind(&self.kind),
            metadata: self.metadata.clone(),
            attributes,
            room_preset: self.room_preset.clone(),
            video: Some(video),
            ..Grants::default()
        })
    }
}

/// `90s`, `1h30m`, `30d`, or seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no duration; write 90s, 15m, 6h or 30d");
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let mut total = 0u64;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = rest.split_at(end);
        let mut letters = unit.chars();
        let factor = match letters.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(factor).and_then(|more| total.checked_add(more)).ok_or_else(wrong)?;
        rest = letters.as_str();
    }
    Ok(total)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn texts(text: &str) -> Result<Texts, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}; write {{\"key\":\"value\"}}"))
}

fn grant(text: &str) -> Result<Grant, String> {
    let grant: Grant =
        serde_json::from_str(text).map_err(|error| format!("{error}; write {{\"canPublish\":false}}"))?;
    match grant.keys().find(|name| !VIDEO_GRANT_NAMES.contains(&name.as_str())) {
        Some(unknown) => {
            Err(format!("no grant is called `{unknown}`; there are {}", VIDEO_GRANT_NAMES.join(", ")))
        }
        None => Ok(grant),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, Command};
    use super::*;
    use clap::Parser;

    fn parse(words: &[&str]) -> Result<Create, clap::Error> {
        let mut call = vec!["fanlight", "token", "create", "--identity", "alice"];
        call.extend(words);
        match Arguments::try_parse_from(call)?.command {
            Some(Command::Token(Token::Create(create))) => Ok(*create),
            other => panic!("{other:?}"),
        }
    }

    fn granted(words: &[&str]) -> VideoGrant {
        parse(words).unwrap().grants().unwrap().video.unwrap()
    }

    #[test]
    fn flags_become_grants() {
        let video = granted(&["--room", "r", "--can-publish", "false", "--source", "camera", "--hidden"]);
        assert_eq!((video.room_join, video.room.as_str(), video.can_publish), (true, "r", Some(false)));
        assert!(video.hidden && video.can_publish_sources == ["camera"]);
        let video = granted(&["--create", "--list", "--admin", "--no-subscribe"]);
        assert!(video.room_create && video.room_list && video.room_admin && !video.room_join);
        assert_eq!((video.can_subscribe, video.can_publish), (Some(false), None));
    }

    #[test]
    fn grants_as_json_win_over_flags_and_a_misspelt_one_is_named() {
        let video = granted(&["--room", "r", "--can-publish", "true", "--grant", "{\"canPublish\":false}"]);
        assert_eq!((video.can_publish, video.room.as_str()), (Some(false), "r"));
        let error = parse(&["--grant", "{\"canPublsh\":false}"]).unwrap_err().to_string();
        assert!(error.contains("canPublsh") && error.contains("canPublish,"), "{error}");
        let error = parse(&["--grant", "{\"canPublish\":\"no\"}"]).unwrap().grants().unwrap_err().to_string();
        assert!(error.contains("--grant") && error.contains("canPublish"), "{error}");
    }

    #[test]
    fn attributes_come_one_by_one_or_as_json() {
        let create = parse(&["--attributes", "{\"a\":\"1\",\"b\":\"2\"}", "--attribute", "b=3=4"]).unwrap();
        let attributes = create.grants().unwrap().attributes;
        assert_eq!(attributes, [("a", "1"), ("b", "3=4")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(parse(&["--attributes", "{\"a\":1}"]).is_err() && parse(&["--attribute", "a"]).is_err());
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (text, expected) in [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("30d", 2_592_000)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        assert_eq!(parse(&[]).unwrap().valid_for, 6 * 3600);
        assert_eq!(parse(&["--ttl", "60"]).unwrap().valid_for, 60);
        for wrong in ["", "h", "5x", "1h2", "99999999999999999999d", "-5"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_join_without_a_room_is_refused() {
        assert!(parse(&["--join"]).unwrap().grants().is_err());
        assert!(parse(&["--join", "--room", "r"]).unwrap().grants().is_ok());
    }
}
