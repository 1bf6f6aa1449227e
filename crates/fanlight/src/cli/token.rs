//! `fanlight token`.

use super::say;
use crate::config::{Config, Overrides};
use clap::{Args, Subcommand};
use fanlight_livekit::token::{self, Grants, Keys, VideoGrant};
use fanlight_shard::Clock;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a token that lets its bearer join a room
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
    #[arg(long, default_value = "")]
    name: String,
    /// Metadata
    #[arg(long, default_value = "")]
    metadata: String,
    /// How long it is good for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 6 * 3600)]
    ttl: u64,
    /// Key to sign with [default: the first one]
    #[arg(long)]
    api_key: Option<String>,
    /// Configuration with the keys; without any keys the token is for --dev
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// May administer the room
    #[arg(long)]
    room_admin: bool,
    /// May make and delete rooms
    #[arg(long)]
    room_create: bool,
    /// May list rooms
    #[arg(long)]
    room_list: bool,
    /// May not publish
    #[arg(long)]
    no_publish: bool,
    /// May not subscribe
    #[arg(long)]
    no_subscribe: bool,
    /// May not send data
    #[arg(long)]
    no_publish_data: bool,
    /// May publish these sources only: camera, microphone, screen_share, screen_share_audio
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// May change its own name, metadata and attributes
    #[arg(long)]
    update_own_metadata: bool,
    /// Is not shown to others
    #[arg(long)]
    hidden: bool,
    /// Records the room
    #[arg(long)]
    recorder: bool,
    /// Is an agent
    #[arg(long)]
    agent: bool,
}

#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("no key `{0}` is configured")]
    NoSuchKey(String),
    #[error("no API key is configured")]
    NoKey,
    #[error("the token could not be signed")]
    Signing,
}

impl Token {
    pub(super) fn run(self, keys: Option<String>) -> Result<(), Box<dyn Error>> {
        let Self::Create(create) = self;
        // The key and secret of --dev, unless others are given.
        let dev = create.config.is_none() && keys.is_none();
        let overrides = Overrides { dev, config: create.config.clone(), keys, ..Overrides::default() };
        let keys = Keys::new(Config::load(overrides)?.0.keys);
        let (key, secret) = match &create.api_key {
            Some(key) => {
                let secret = keys.secret(key).ok_or_else(|| TokenError::NoSuchKey(key.clone()))?;
                (key.as_str(), secret)
            }
            None => keys.first().ok_or(TokenError::NoKey)?,
        };
        let now = Clock::new(Instant::now()).now();
        let token =
            token::create(key, secret, &create.grants(), now, create.ttl).ok_or(TokenError::Signing)?;
        say(token.reveal());
        Ok(())
    }
}

impl Create {
    fn grants(&self) -> Grants {
        let video = VideoGrant {
            room_join: self.room.is_some(),
            room: self.room.clone().unwrap_or_default(),
            room_admin: self.room_admin,
            room_create: self.room_create,
            room_list: self.room_list,
            can_publish: self.no_publish.then_some(false),
            can_subscribe: self.no_subscribe.then_some(false),
            can_publish_data: self.no_publish_data.then_some(false),
            can_publish_sources: self.source.clone(),
            can_update_own_metadata: self.update_own_metadata.then_some(true),
            hidden: self.hidden,
            recorder: self.recorder,
            agent: self.agent,
            ..VideoGrant::default()
        };
        Grants {
            identity: self.identity.clone(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            video: Some(video),
            ..Grants::default()
        }
    }
}
