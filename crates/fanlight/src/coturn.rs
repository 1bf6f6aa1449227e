//! What tells of coturn, from the configuration to running tasks.

use crate::config::Coturn;
use fanlight_base::{Random, Redacted};
use fanlight_store::Store;
use fanlight_store::coturn::{
    RedisSettings, RedisSubscriber, RedisUrl, RedisUrlError, RespListener, RespSettings, TeeSettings,
};
use fanlight_telemetry::decode::release::{NoRelease, Release};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::task::JoinSet;

/// coturn cannot be listened to as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoturnError {
    #[error(
        "cannot listen for coturn on {address}: {source}; choose another fanlight.coturn.listen, or end what holds it"
    )]
    Listen { address: SocketAddr, source: io::Error },
    #[error("fanlight.coturn.version `{text}`: {source}")]
    Version { text: String, source: NoRelease },
    #[error("fanlight.coturn.{key}: {source}")]
    Url { key: &'static str, source: RedisUrlError },
    #[error("cannot read fanlight.coturn.ca_file {}: {source}", path.display())]
    CaFile { path: PathBuf, source: io::Error },
    #[error("fanlight.coturn.tee repeats what comes in by fanlight.coturn.listen: set that too")]
    TeeWithoutListener,
}

/// What is configured, ready to run.
#[derive(Debug)]
pub(crate) struct CoturnInputs {
    listener: Option<RespListener>,
    subscriber: Option<RedisSubscriber>,
    /// Where coturn is heard, for the greeting.
    pub(crate) places: Vec<String>,
}

impl CoturnInputs {
    /// Binds the listener; a Redis server is connected to once this runs.
    pub(crate) async fn bind(
        config: &Coturn,
        store: &Store,
        mut random: Random,
    ) -> Result<Self, CoturnError> {
        let mut inputs = Self { listener: None, subscriber: None, places: Vec::new() };
        let release = config.version.as_deref().map(release).transpose()?;
        let ca_pem = config.ca_file.as_ref().map(read).transpose()?;
        let url = |key, text: &Redacted<String>| {
            RedisUrl::new(text, ca_pem.clone()).map_err(|source| CoturnError::Url { key, source })
        };
        let tee = config.tee.as_ref().map(|text| url("tee", text)).transpose()?;
        let monitor = store.turn_monitor();
        if let Some(text) = &config.redis {
            let url = url("redis", text)?;
            inputs.places.push(format!("subscribed at {url}"));
            let settings = RedisSettings { url, release, random: random.fork() };
            inputs.subscriber = Some(RedisSubscriber::new(settings, store.sender(), monitor.inputs()));
        }
        let Some(address) = config.listen else {
            return if tee.is_some() { Err(CoturnError::TeeWithoutListener) } else { Ok(inputs) };
        };
        let behind = tee.as_ref().map(|url| format!(", repeated to {url}")).unwrap_or_default();
        let settings = RespSettings {
            address,
            password: config.password.clone(),
            release,
            tee: tee.map(|url| TeeSettings { url, random: random.fork() }),
        };
        let listener = RespListener::bind(settings, store.sender(), monitor.inputs()).await;
        let listener = listener.map_err(|source| CoturnError::Listen { address, source })?;
        inputs.places.push(format!("redis-statsdb on {}{behind}", listener.address().unwrap_or(address)));
        inputs.listener = Some(listener);
        Ok(inputs)
    }

    /// Runs all of them until the set is dropped.
    pub(crate) fn spawn(self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Some(listener) = self.listener {
            tasks.spawn(listener.run());
        }
        if let Some(subscriber) = self.subscriber {
            tasks.spawn(subscriber.run());
        }
        tasks
    }
}

fn release(text: &str) -> Result<Release, CoturnError> {
    text.parse().map_err(|source| CoturnError::Version { text: text.to_owned(), source })
}

fn read(path: &PathBuf) -> Result<Vec<u8>, CoturnError> {
    std::fs::read(path).map_err(|source| CoturnError::CaFile { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    async fn bind(keys: &str) -> Result<CoturnInputs, CoturnError> {
        let file = File::parse(&format!("fanlight: {{coturn: {{{keys}}}}}")).expect("keys are known");
        let dir = tempfile::tempdir().expect("a folder");
        let settings =
            fanlight_store::Settings { node: "ND_test".into(), retention_days: 0, turn: Default::default() };
        let store = Store::open(dir.path(), settings).expect("a store");
        let inputs = CoturnInputs::bind(&file.fanlight.coturn, &store, Random::from_seed([1; 32])).await;
        store.close();
        inputs
    }

    #[tokio::test]
    async fn what_is_heard_is_shown_without_passwords() {
        let keys = "listen: '127.0.0.1:0', password: secret, tee: 'redis://:secret@127.0.0.1:7001/2', \
                    redis: 'redis://u:secret@localhost:7000', version: 4.10";
        let inputs = bind(keys).await.expect("usable");
        let places = inputs.places.join("\n");
        assert!(places.contains("subscribed at redis://localhost:7000"), "{places}");
        assert!(places.contains("repeated to redis://127.0.0.1:7001/2"), "{places}");
        assert!(!format!("{inputs:?} {places}").contains("secret"), "{inputs:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named_with_its_key() {
        for (keys, expected) in [
            ("redis: 'localhost:6379'", "fanlight.coturn.redis: not the address"),
            ("listen: '127.0.0.1:0', tee: 'http://x'", "fanlight.coturn.tee: not the address"),
            ("tee: 'redis://localhost'", "fanlight.coturn.listen"),
            ("version: new", "fanlight.coturn.version `new`"),
            ("redis: 'rediss://h', ca_file: /nowhere/ca.pem", "/nowhere/ca.pem"),
        ] {
            let error = bind(keys).await.expect_err(keys).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
