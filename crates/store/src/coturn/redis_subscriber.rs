//! Listens at the Redis server that coturns report to.
//!
//! What is published while nobody listens is lost. So after every gap the store is read: it has the last status of what
//! is open (`resync`).

use super::backoff::Backoff;
use super::health::{InputGauge, InputHealth};
use super::redis_url::RedisUrl;
use super::resync::{Seen, Snapshot, snapshot};
use crate::sender::EventSender;
use crate::writer::now;
use fanlight_base::{Bounded, Now, Random};
use fanlight_events::Event;
use fanlight_events::turn::{AllocationName, StoredAllocation, TurnEvent, TurnInput};
use fanlight_telemetry::decode::coturn::{Message, read};
use fanlight_telemetry::decode::release::Release;
use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, RedisError};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

/// All that coturn publishes of allocations, once: overlapping patterns would deliver twice.
const MESSAGES: &str = "turn/*";
/// Relay threads until 4.6.1 say here that they live.
const HEARTBEATS: &str = "__XXX__";
/// A Redis server that is there answers within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A connection that died without a word is noticed by this.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Answers of a Redis server that will serve us later.
const PASSING: [&str; 5] = ["LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN"];
/// Pause while the record takes nothing.
const FULL_PAUSE: Duration = Duration::from_millis(10);
/// Messages that wait for the record, some 0.5 kB each: several seconds of a large fleet. One more, and the connection is
/// closed: a gap like any other, after which the store is read.
const BACKLOG_MAX: usize = 32_768;
/// Allocations that are spoken of while the store is read. With more, what it lacks proves nothing.
const HEARD_MAX: usize = 32_768;

/// What a subscriber is made with.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// The Redis server.
    pub url: RedisUrl,
    /// Release of the coturns.
    pub release: Option<Release>,
    /// For pauses.
    pub random: Random,
}

/// The subscriber; it ends when it is dropped with the task that runs it.
#[derive(Debug)]
pub struct RedisSubscriber {
    url: RedisUrl,
    release: Option<Release>,
    events: EventSender,
    gauge: InputGauge,
    backoff: Backoff,
    backlog: Bounded<(Now, TurnInput)>,
    seen: Seen,
    run_id: Option<String>,
    /// The record was told that nothing is heard.
    is_away: bool,
    /// The trouble was said in the log.
    is_warned: bool,
}

/// Why nothing is heard for a while.
#[derive(Debug, thiserror::Error)]
enum Gap {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no answer within {} s", ANSWER_LIMIT.as_secs())]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("the connection closed")]
    Closed,
    #[error("the record is too slow: {BACKLOG_MAX} messages wait for it")]
    Full,
}

/// The last word on each allocation since the store is being read; `None`: it is gone.
#[derive(Debug, Default)]
struct Heard {
    last: BTreeMap<AllocationName, Option<StoredAllocation>>,
    overflown: bool,
}

impl RedisSubscriber {
    /// Listed in `health`, not connected yet.
    pub fn new(settings: RedisSettings, events: EventSender, health: &InputHealth) -> Self {
        Self {
            gauge: health.add("redis", settings.url.to_string()),
            url: settings.url,
            release: settings.release,
            events,
            backoff: Backoff::new(settings.random),
            backlog: Bounded::new(BACKLOG_MAX),
            seen: Seen::default(),
            run_id: None,
            is_away: false,
            is_warned: false,
        }
    }

    /// Listens until the task is aborted.
    pub async fn run(mut self) {
        loop {
            let gap = match self.listen().await {
                Err(gap) => gap,
                Ok(never) => match never {},
            };
            self.away(&gap).await;
            tokio::time::sleep(self.backoff.pause()).await;
        }
    }

    /// Subscribes first, then reads the store, so that nothing falls in between.
    async fn listen(&mut self) -> Result<Infallible, Gap> {
        let pubsub = tokio::time::timeout(ANSWER_LIMIT, self.url.client().get_async_pubsub()).await??;
        let (mut sink, stream) = pubsub.split();
        tokio::time::timeout(ANSWER_LIMIT, sink.psubscribe(MESSAGES)).await??;
        tokio::time::timeout(ANSWER_LIMIT, sink.subscribe(HEARTBEATS)).await??;
        self.gauge.set_connected(true);
        self.follow(sink, stream).await
    }

    async fn follow(&mut self, sink: PubSubSink, mut stream: PubSubStream) -> Result<Infallible, Gap> {
        let reading = snapshot(self.url.clone(), std::mem::take(&mut self.seen), now);
        let pinging = ping(sink);
        tokio::pin!(reading, pinging);
        let mut heard = Some(Heard::default());
        loop {
            self.pass_on();
            tokio::select! {
                message = stream.next() => self.take(&message.ok_or(Gap::Closed)?, heard.as_mut())?,
                (result, seen) = &mut reading, if heard.is_some() => {
                    self.seen = seen;
                    self.resync(result, heard.take().unwrap_or_default())?;
                }
                gap = &mut pinging => return Err(gap),
                () = tokio::time::sleep(FULL_PAUSE), if !self.backlog.is_empty() => {}
            }
        }
    }

    fn take(&mut self, message: &Msg, heard: Option<&mut Heard>) -> Result<(), Gap> {
        let at = now();
        let channel: Vec<u8> = message.get_channel().unwrap_or_default();
        let channel = String::from_utf8_lossy(&channel);
        let payload = String::from_utf8_lossy(message.get_payload_bytes());
        match read(&channel, &payload) {
            Ok(Message::Event(name, event)) => {
                self.gauge.message(at.unix_ms());
                if let Some(heard) = heard {
                    heard.note(at.unix_ms(), &name, &event);
                }
                let event = match self.release {
                    Some(release) => release.correct(event),
                    None => event,
                };
                self.queue(at, TurnInput::Event { node: None, name, event })
            }
            Ok(Message::Heartbeat) => {
                self.gauge.heard(at.unix_ms());
                Ok(())
            }
            Err(error) => {
                self.gauge.unreadable();
                tracing::debug!(%channel, %payload, %error, "not a message of coturn");
                Ok(())
            }
        }
    }

    fn resync(&mut self, result: Result<Snapshot, RedisError>, heard: Heard) -> Result<(), Gap> {
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(error) if error.code().is_none_or(|code| PASSING.contains(&code)) => return Err(error.into()),
            // It does not let us: then only messages are left.
            Err(error) => {
                tracing::warn!(
                    %error,
                    "{} does not let its keys be read, so what happened during a gap stays unknown; allow SCAN, GET, \
                     OBJECT, SELECT and INFO",
                    self.url
                );
                self.is_back();
                return self.queue(now(), TurnInput::Back);
            }
        };
        if self.run_id.is_some() && snapshot.run_id.is_some() && self.run_id != snapshot.run_id {
            tracing::warn!(
                "{} was started anew; a coturn does not read its answers any more after that: restart it too, or point it \
                 at fanlight.coturn.listen",
                self.url
            );
        }
        self.run_id = snapshot.run_id.or(self.run_id.take());
        self.is_back();
        let (complete_since_ms, stored) = heard.over(snapshot.began_ms, snapshot.stored);
        self.queue(now(), TurnInput::Resync { complete_since_ms, stored })
    }

    fn is_back(&mut self) {
        self.backoff.reset();
        self.is_away = false;
        if std::mem::take(&mut self.is_warned) {
            tracing::warn!("coturn is heard again by {}", self.url);
        }
    }

    fn queue(&mut self, at: Now, input: TurnInput) -> Result<(), Gap> {
        self.backlog.push((at, input)).map_err(|_| Gap::Full)
    }

    /// Hands to the record what it has room for.
    fn pass_on(&mut self) {
        while self.events.has_room()
            && let Some((at, input)) = self.backlog.pop()
        {
            // A record that is closed takes nothing more: the process ends.
            let _ = self.events.try_send(Event::Turn(at, input));
        }
    }

    async fn away(&mut self, gap: &Gap) {
        self.gauge.set_connected(false);
        if !std::mem::replace(&mut self.is_warned, true) {
            tracing::warn!(
                "nothing is heard of coturn by {}: {gap}; trying again until fanlight.coturn.redis answers",
                self.url
            );
        }
        if std::mem::replace(&mut self.is_away, true) {
            return;
        }
        self.gauge.gap();
        loop {
            self.pass_on();
            // Nothing is left once there is a place, and the word of the gap comes after all that was heard.
            if self.backlog.is_empty() && self.events.has_room() {
                break;
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
        let _ = self.events.try_send(Event::Turn(now(), TurnInput::Lost));
    }
}

impl Heard {
    fn note(&mut self, at_ms: u64, name: &AllocationName, event: &TurnEvent) {
        let last = match event {
            TurnEvent::Opened { .. } | TurnEvent::Refreshed { .. } => {
                Some(StoredAllocation { name: name.clone(), status: event.clone(), since_ms: at_ms })
            }
            TurnEvent::Deleted => None,
            TurnEvent::Traffic(..) | TurnEvent::Total(..) => return,
        };
        if self.last.len() < HEARD_MAX || self.last.contains_key(name) {
            self.last.insert(name.clone(), last);
        } else {
            self.overflown = true;
        }
    }

    /// What was heard is younger than what was read.
    fn over(
        self,
        began_ms: Option<u64>,
        stored: Vec<StoredAllocation>,
    ) -> (Option<u64>, Vec<StoredAllocation>) {
        let mut all: BTreeMap<AllocationName, StoredAllocation> =
            stored.into_iter().map(|one| (one.name.clone(), one)).collect();
        for (name, last) in self.last {
            match last {
                Some(one) => _ = all.insert(name, one),
                None => _ = all.remove(&name),
            }
        }
        (began_ms.filter(|_| !self.overflown), all.into_values().collect())
    }
}

/// Asks now and then whether anybody is there, until nobody is.
async fn ping(mut sink: PubSubSink) -> Gap {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        match tokio::time::timeout(ANSWER_LIMIT, sink.ping::<redis::Value>()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(elapsed) => return elapsed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_events::turn::Path;

    fn name(id: u64) -> AllocationName {
        AllocationName { realm: "r".into(), user: "u".into(), id }
    }

    fn status(lifetime_s: u32) -> TurnEvent {
        TurnEvent::Refreshed { lifetime_s, path: Path::default() }
    }

    fn stored(id: u64, since_ms: u64) -> StoredAllocation {
        StoredAllocation { name: name(id), status: status(600), since_ms }
    }

    #[test]
    fn what_is_heard_while_the_store_is_read_is_the_last_word() {
        let mut heard = Heard::default();
        heard.note(50, &name(1), &TurnEvent::Deleted);
        heard.note(60, &name(2), &status(600));
        heard.note(70, &name(4), &status(600));
        heard.note(80, &name(4), &TurnEvent::Deleted);
        let (complete, all) =
            heard.over(Some(7), vec![stored(1, 10), stored(2, 20), stored(3, 30), stored(4, 40)]);
        assert_eq!((complete, all), (Some(7), vec![stored(2, 60), stored(3, 30)]));
    }

    #[test]
    fn what_a_hostile_redis_nests_or_promises_is_an_error_and_no_overflow() {
        // As large as the stack of a thread of tokio.
        let run = || {
            for kind in
                ["*1\r\n", "%1\r\n", "~1\r\n", ">1\r\n", "|1\r\n", "*2\r\n$1\r\nx\r\n", "%1\r\n+k\r\n"]
            {
                let nested = kind.repeat(100_000);
                assert!(redis::parse_redis_value(nested.as_bytes()).is_err(), "{kind:?}");
            }
            for promised in
                ["*9223372036854775807\r\n", "%4611686018427387904\r\n", "$9223372036854775807\r\nx"]
            {
                assert!(redis::parse_redis_value(promised.as_bytes()).is_err(), "{promised:?}");
            }
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
    }
}
