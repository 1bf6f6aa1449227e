//! The end of a media thread that nobody asked for.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod room;

use fanlight_base::{Mono, PeerKey};
use fanlight_events::{Event, FactBody};
use fanlight_sfu::envelope::DataEnvelope;
use fanlight_sfu::input::Command;
use fanlight_sfu::model::DisconnectReason;
use fanlight_sfu::output::{LeaveAction, Signal};
use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
use fanlight_shard::{Clock, Message, Shard, SignalSink, Sinks};
use fanlight_transport::{Certificate, ClockAnchor};
use room::{join, no_data, room_config};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A shard that panics outside its rooms when somebody of this identity has come in.
fn start(fatal: &'static str) -> Shard {
    let anchor = Instant::now();
    let sfu = Sfu::new(SfuConfig {
        shard: 0,
        seed: [7; 32],
        certificate: Certificate::generate().expect("a certificate"),
        anchor: ClockAnchor::new(anchor, Mono::default()),
        candidates: Vec::new(),
        texts: TextLimits::default(),
        envelope: DataEnvelope { route: no_data },
        encode_info: |_| Vec::new(),
    });
    let event = move |event| {
        if let Event::Fact(fact) = event
            && let FactBody::ParticipantJoined(joined) = fact.body
        {
            assert_ne!(joined.identity.as_str(), fatal, "meant by the test");
        }
        true
    };
    let sinks = Sinks { control: Box::new(|_| Ok(())), event: Box::new(event), metrics: None };
    Shard::start("shard".into(), sfu, Clock::new(anchor), Vec::new(), None, sinks).expect("it starts")
}

fn come_in(shard: &Shard, number: u64) -> Receiver<Signal> {
    let (say, said) = channel();
    let signals = SignalSink::new(move |signal| say.send(signal).is_ok());
    let join = Box::new(join(PeerKey(number), "RM_a"));
    shard.handle.send(Message::Join { join, signals }).expect("it takes messages");
    said
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_idle_thread_turns_and_one_that_panicked_has_ended_and_has_told_everybody_to_join_anew() {
    let shard = start("user2");
    let turns = || shard.turns.upgrade().map(|turns| turns.load(std::sync::atomic::Ordering::Relaxed));
    let before = turns();
    wait_until(|| turns() > before);
    let room = Command::CreateRoom(Box::new(room_config("RM_a")));
    shard.handle.send(Message::Command(room)).expect("it takes messages");
    let said = [come_in(&shard, 1), come_in(&shard, 2)];
    let reason = DisconnectReason::ServerShutdown;
    for said in said {
        // All of it comes, then the thread's end is dropped.
        let last = said.iter().last();
        assert_eq!(last, Some(Signal::Leave { reason, action: LeaveAction::Reconnect }));
    }
    wait_until(|| turns().is_none());
    assert!(!shard.stop(), "it had panicked");
}
