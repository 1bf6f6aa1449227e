//! The control thread: [`Control`] between signalling connections and shards.

use crate::load::LoadMeter;
use fanlight_base::PeerKey;
use fanlight_control::{Control, JoinError, JoinRequest, Output, ShardHealth, ShardIndex};
use fanlight_events::Event;
use fanlight_http::backend::{Admitted, BackendError, Requests, ToControl};
use fanlight_http::signals::SignalSender;
use fanlight_sfu::input::Command;
use fanlight_sfu::output::LeaveAction;
use fanlight_shard::{Clock, Control as FromShard, Message, Requested, ShardHandle, SignalSink};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Messages handled between two looks at the shards' notes.
const BATCH_MAX: usize = 64;
/// Longest sleep, so that the thread can be seen to live; notes of shards wake it through the same queue.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// How soon a full shard is offered its commands again.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// Commands kept here for a shard whose queue is full; joins for it are refused from then on. Ends are always kept: there
/// are two for each join at most, and no more joins than connections (`http/gate`).
const KEPT_MAX: usize = 1024;

/// Everything that can happen to the control thread.
#[derive(Debug)]
pub(crate) enum Input {
    /// From a signalling connection.
    Http(ToControl),
    /// From a shard.
    Shard(FromShard),
    /// A shard fares otherwise than before.
    ShardHealth(ShardIndex, ShardHealth),
    /// End all sessions; what clients shall do then.
    Shutdown(LeaveAction),
}

/// The thread's state.
pub(crate) struct ControlLoop {
    pub(crate) control: Control,
    pub(crate) clock: Clock,
    pub(crate) inputs: Receiver<Input>,
    pub(crate) shards: Vec<ShardLine>,
    pub(crate) load: LoadMeter,
    /// Where the signals of those go whose join is on its way to their shard.
    pub(crate) joining: HashMap<PeerKey, SignalSender>,
    pub(crate) event: Box<dyn FnMut(Event) -> bool + Send>,
    pub(crate) drained: Box<dyn FnMut() + Send>,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct ControlThread {
    /// How many turns it has made; gone when it has ended.
    pub(crate) turns: Weak<AtomicU64>,
    _thread: JoinHandle<()>,
}

/// A shard, and what its queue did not take yet.
pub(crate) struct ShardLine {
    handle: ShardHandle,
    requests: Requests,
    kept: VecDeque<Message>,
}

impl ShardLine {
    /// A line on which nothing waits.
    pub(crate) fn new(handle: ShardHandle) -> Self {
        let direct = handle.clone();
        let requests = Requests::new(move |requested| {
            let fanlight_http::backend::Requested { peer, request, credit } = requested;
            let requested = Requested { peer, request: *request, credit: Box::new(credit) };
            direct.request(requested).map_err(|_| BackendError::Gone)
        });
        Self { handle, requests, kept: VecDeque::new() }
    }

    /// Never waits, so that one shard holds up nobody on the others.
    fn send(&mut self, message: Message) {
        self.kept.push_back(message);
        self.retry();
    }

    /// Whether it is to get no more joins.
    fn is_behind(&self) -> bool {
        self.kept.len() >= KEPT_MAX
    }

    fn retry(&mut self) {
        while let Some(message) = self.kept.pop_front() {
            match self.handle.try_send(message) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    self.kept.push_front(message);
                    return;
                }
                // Who watches the threads says it.
                Err(_) => {}
            }
        }
        self.kept.shrink_to(KEPT_MAX);
    }
}

impl ControlLoop {
    /// Starts the thread, which runs until every sender of its queue is gone.
    pub(crate) fn start(self) -> io::Result<ControlThread> {
        let turns = Arc::new(AtomicU64::new(0));
        let seen = Arc::downgrade(&turns);
        let thread = thread::Builder::new().name("control".into()).spawn(move || self.run(&turns))?;
        Ok(ControlThread { turns: seen, _thread: thread })
    }

    fn run(mut self, turns: &AtomicU64) {
        let mut wait = SLEEP_MAX;
        loop {
            match self.inputs.recv_timeout(wait) {
                Ok(input) => self.handle(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..BATCH_MAX {
                let Ok(input) = self.inputs.try_recv() else { break };
                self.handle(input);
                self.drain();
            }
            let now = self.clock.now();
            if let Some(load) = self.load.measure(now.mono()) {
                self.control.handle_load(load.tracks, load.bytes_per_s);
            }
            self.control.handle_timeout(now);
            let deadline = self.drain();
            let behind = self.shards.iter().any(|shard| !shard.kept.is_empty());
            wait = deadline.min(if behind { RETRY_AFTER } else { SLEEP_MAX });
            turns.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Http(ToControl::Check { room, may_create, reply }) => {
                // The asking connection may be gone; nobody else wants the answer.
                let _ = reply.send(self.control.check(&room, may_create));
            }
            Input::Http(ToControl::Join { request, signals, reply }) => {
                let answer = self.join(*request, signals);
                // The asking connection may be gone.
                if let Err(Ok(Ok(Admitted { peer, .. }))) = reply.send(answer) {
                    self.control.handle_signal_closed(peer);
                }
            }
            Input::Http(ToControl::Closed { peer }) => self.control.handle_signal_closed(peer),
            Input::Shard(note) => self.handle_shard(note),
            Input::ShardHealth(shard, health) => self.control.handle_shard_health(now, shard, health),
            Input::Shutdown(action) => self.control.handle_shutdown(action),
        }
    }

    fn join(
        &mut self,
        request: JoinRequest,
        signals: SignalSender,
    ) -> Result<Result<Admitted, JoinError>, BackendError> {
        let line = self.line(self.control.shard_for(&request.room));
        if line.is_some_and(ShardLine::is_behind) {
            return Err(BackendError::Overloaded);
        }
        let requests = line.map(|line| line.requests.clone());
        let peer = match self.control.handle_join(self.clock.now(), request) {
            Ok(peer) => peer,
            Err(error) => return Ok(Err(error)),
        };
        self.joining.insert(peer, signals);
        requests.map(|requests| Ok(Admitted { peer, requests })).ok_or(BackendError::Gone)
    }

    fn handle_shard(&mut self, note: FromShard) {
        let now = self.clock.now();
        match note {
            FromShard::Left { peer, .. } => self.control.handle_left(now, peer),
            FromShard::Active { peer } => self.control.handle_active(peer),
            FromShard::RoomClosed { room } => self.control.handle_room_closed(now, &room),
        }
    }

    fn line(&self, shard: Option<ShardIndex>) -> Option<&ShardLine> {
        self.shards.get(usize::from(shard?.0))
    }

    fn message(&mut self, command: Command) -> Message {
        let Command::Join(join) = command else { return Message::Command(command) };
        let signals = match self.joining.remove(&join.peer) {
            Some(sender) => SignalSink::new(move |signal| sender.try_send(signal)),
            None => SignalSink::new(|_| false),
        };
        Message::Join { join, signals }
    }

    fn drain(&mut self) -> Duration {
        for shard in &mut self.shards {
            shard.retry();
        }
        loop {
            match self.control.poll_output() {
                Output::ToShard { shard, command } => {
                    let message = self.message(*command);
                    if let Some(line) = self.shards.get_mut(usize::from(shard.0)) {
                        line.send(message);
                    }
                }
                Output::Event(event) => {
                    // The store counts what it refuses.
                    (self.event)(*event);
                }
                Output::Drained => (self.drained)(),
                Output::Timeout(deadline, _why) => return deadline.since(self.clock.now().mono()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_sfu::model::RoomConfig;
    use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
    use fanlight_shard::{Shard, Sinks, bind_udp};
    use fanlight_transport::{Certificate, ClockAnchor};
    use std::sync::mpsc::{Sender, channel};
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A shard that stands still at its first event until the sender is dropped.
    fn stuck_shard() -> (Shard, Receiver<()>, Sender<()>) {
        let (entered, stuck) = channel();
        let (hold, held) = channel::<()>();
        let event = move |_| {
            let _ = entered.send(());
            // An error when the shard may go on.
            held.recv().is_ok()
        };
        let anchor = Instant::now();
        let sfu = Sfu::new(SfuConfig {
            shard: 0,
            seed: [0; 32],
            certificate: Certificate::generate().expect("a certificate"),
            anchor: ClockAnchor::new(anchor, fanlight_base::Mono::default()),
            candidates: Vec::new(),
            texts: TextLimits::default(),
            envelope: fanlight_livekit::data::ENVELOPE,
            encode_info: fanlight_livekit::convert::encode_participant,
        });
        let sinks = Sinks { control: Box::new(|_| Ok(())), event: Box::new(event), metrics: None };
        let udp = bind_udp(([127, 0, 0, 1], 0).into(), "rtc.udp_port").expect("a socket");
        let shard = Shard::start("shard-0".into(), sfu, Clock::new(anchor), vec![udp], None, sinks);
        (shard.expect("it starts"), stuck, hold)
    }

    fn room() -> Command {
        Command::CreateRoom(Box::new(RoomConfig {
            sid: "RM_1".into(),
            name: "r".into(),
            empty_timeout_s: 300,
            departure_timeout_s: 20,
            max_participants: 0,
            created_ms: 0,
            turn_password: fanlight_base::Redacted::new(String::new()),
            sif_trailer: String::new(),
            enabled_codecs: Vec::new(),
            metadata: String::new(),
        }))
    }

    #[test]
    fn a_shard_that_stands_still_is_not_waited_for_and_gets_everything_when_it_goes_on() {
        let (shard, stuck, hold) = stuck_shard();
        let mut line = ShardLine::new(shard.handle.clone());
        line.send(Message::Command(room()));
        stuck.recv_timeout(PATIENCE).expect("it has begun");
        let mut sent = 0;
        while !line.is_behind() {
            line.send(Message::Command(Command::SignalClosed { peer: PeerKey(sent) }));
            sent += 1;
        }
        assert!(sent > KEPT_MAX as u64, "its queue was filled first");
        let (handled, credit) = channel::<()>();
        let request = fanlight_sfu::input::Request::SignalRtt { rtt_ms: 1 };
        let requested = Requested { peer: PeerKey(1), request, credit: Box::new(handled) };
        shard.handle.request(requested).expect("requests have a queue of their own");
        drop(hold);
        let end = Instant::now() + PATIENCE;
        while !line.kept.is_empty() {
            assert!(Instant::now() < end, "{} are still kept", line.kept.len());
            line.retry();
        }
        let disconnected = Err(RecvTimeoutError::Disconnected);
        assert_eq!(credit.recv_timeout(PATIENCE), disconnected, "the credit comes back");
        assert!(shard.stop());
    }
}
