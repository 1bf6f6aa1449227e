//! Signals on their way to one WebSocket: a queue bounded in bytes, in which a participant's newest state replaces what
//! waits.

use fanlight_base::ParticipantSid;
use fanlight_sfu::output::Signal;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Bytes that may wait for one WebSocket: a full update of the largest room, 3000 participants of some kilobytes, or thirty
/// of the largest metadata. A client that is further behind is closed and joins anew. Infos are shared by all queues they
/// wait in and counted in each; but for those that a join finds, which is only one message.
pub const SIGNALS_BYTES_MAX: usize = 16 << 20;

/// A queue for one connection.
pub fn queue() -> (SignalSender, SignalReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let fill = Arc::new(Fill::default());
    let backlog = Backlog::default();
    (SignalSender { sender, fill: Arc::clone(&fill) }, SignalReceiver { receiver, backlog, fill })
}

/// How full a queue is.
#[derive(Debug, Default)]
struct Fill {
    bytes: AtomicUsize,
    /// More came than fits: the connection is given up.
    overflowed: AtomicBool,
}

/// The end that a shard holds.
#[derive(Debug)]
pub struct SignalSender {
    sender: mpsc::UnboundedSender<Signal>,
    fill: Arc<Fill>,
}

impl SignalSender {
    /// Never waits; `false` when the connection is gone or too far behind. A signal always fits an empty queue.
    pub fn try_send(&self, signal: Signal) -> bool {
        let bytes = counted(&signal);
        let before = self.fill.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before.saturating_add(bytes) > SIGNALS_BYTES_MAX {
            self.fill.overflowed.store(true, Ordering::Release);
            return false;
        }
        self.sender.send(signal).is_ok()
    }
}

/// The end that the connection's task holds.
#[derive(Debug)]
pub struct SignalReceiver {
    receiver: mpsc::UnboundedReceiver<Signal>,
    backlog: Backlog,
    fill: Arc<Fill>,
}

impl SignalReceiver {
    /// The next signal; `None` when the sender is gone and everything was taken, or when the connection is given up.
    pub async fn recv(&mut self) -> Option<Signal> {
        if self.is_given_up() {
            return None;
        }
        while let Ok(signal) = self.receiver.try_recv() {
            self.keep(signal);
        }
        if self.backlog.is_empty() {
            let signal = self.receiver.recv().await?;
            self.keep(signal);
        }
        let signal = self.backlog.pop()?;
        self.fill.bytes.fetch_sub(counted(&signal), Ordering::Relaxed);
        Some(signal)
    }

    /// Takes what comes while a message is being written, so that the newest state replaces what waits. Ends only when
    /// the connection is given up.
    pub async fn given_up(&mut self) {
        while let Some(signal) = self.receiver.recv().await {
            self.keep(signal);
        }
        if !self.is_given_up() {
            std::future::pending().await
        }
    }

    /// Whether more came than fits. What waits is let go.
    fn is_given_up(&mut self) -> bool {
        let given_up = self.fill.overflowed.load(Ordering::Acquire);
        if given_up {
            self.receiver.close();
            while self.receiver.try_recv().is_ok() {}
            self.backlog = Backlog::default();
        }
        given_up
    }

    fn keep(&mut self, signal: Signal) {
        let replaced = self.backlog.push(signal);
        self.fill.bytes.fetch_sub(replaced, Ordering::Relaxed);
    }
}

/// Signals in order. An update of a participant that waits already takes the place of the older one.
#[derive(Debug, Default)]
struct Backlog {
    signals: VecDeque<Signal>,
    /// Number of the first signal.
    first: u64,
    /// Numbers of the signals that tell of a participant alone.
    updates: HashMap<ParticipantSid, u64>,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.signals.is_empty()
    }

    /// Appends or replaces; how many bytes were replaced.
    fn push(&mut self, signal: Signal) -> usize {
        let Some(sid) = subject(&signal).cloned() else {
            // What comes after a batch must not overtake it.
            if let Signal::Participants(infos) = &signal {
                for info in infos {
                    self.updates.remove(&info.sid);
                }
            }
            self.signals.push_back(signal);
            return 0;
        };
        let place =
            self.updates.get(&sid).and_then(|number| usize::try_from(number.checked_sub(self.first)?).ok());
        if let Some(older) = place.and_then(|place| self.signals.get_mut(place)) {
            return counted(&std::mem::replace(older, signal));
        }
        self.updates.insert(sid, self.first + self.signals.len() as u64);
        self.signals.push_back(signal);
        0
    }

    fn pop(&mut self) -> Option<Signal> {
        let signal = self.signals.pop_front()?;
        self.first += 1;
        if let Some(sid) = subject(&signal)
            && self.updates.get(sid).is_some_and(|number| *number < self.first)
        {
            self.updates.remove(sid);
        }
        if self.signals.is_empty() {
            // Memory of a flood goes back.
            *self = Self { first: self.first, ..Self::default() };
        }
        Some(signal)
    }
}

fn counted(signal: &Signal) -> usize {
    match signal {
        // Whatever the room holds, what is said right after the join must fit too.
        Signal::Joined(_) => 0,
        signal => signal.bytes(),
    }
}

fn subject(signal: &Signal) -> Option<&ParticipantSid> {
    match signal {
        Signal::Participants(infos) => match infos.as_slice() {
            [info] => Some(&info.sid),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanlight_base::TrackSid;
    use fanlight_sfu::model::{ParticipantInfo, ParticipantKind, ParticipantState, Permission, SharedInfo};
    use std::collections::BTreeMap;

    fn info(sid: &str, version: u32, metadata_bytes: usize) -> SharedInfo {
        let info = ParticipantInfo {
            sid: sid.into(),
            identity: sid.into(),
            state: ParticipantState::Active,
            tracks: Vec::new(),
            metadata: "m".repeat(metadata_bytes),
            joined_ms: 0,
            name: String::new(),
            version,
            permission: Permission::default(),
            is_publisher: true,
            kind: ParticipantKind::Standard,
            kind_details: Vec::new(),
            attributes: BTreeMap::new(),
            disconnect_reason: None,
            client_protocol: 0,
            capabilities: Vec::new(),
        };
        SharedInfo::new(info, |info| info.metadata.clone().into_bytes())
    }

    fn update(sid: &str, version: u32) -> Signal {
        Signal::Participants(vec![info(sid, version, 0)])
    }

    fn other(track: &str) -> Signal {
        Signal::TrackSubscribed(TrackSid::from(track))
    }

    fn taken(receiver: &mut SignalReceiver) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut taken = Vec::new();
        while let Some(signal) = runtime.block_on(receiver.recv()) {
            taken.push(match signal {
                Signal::Participants(infos) => {
                    infos.iter().map(|info| format!("{}{} ", info.sid, info.version)).collect()
                }
                Signal::TrackSubscribed(track) => track.as_str().to_owned(),
                _ => unreachable!(),
            });
        }
        taken
    }

    #[test]
    fn the_newest_state_of_a_participant_takes_the_place_of_what_waits() {
        let (sender, mut receiver) = queue();
        for signal in
            [update("a", 1), other("T1"), update("b", 1), update("a", 2), other("T2"), update("a", 3)]
        {
            assert!(sender.try_send(signal));
        }
        drop(sender);
        assert_eq!(taken(&mut receiver), ["a3 ", "T1", "b1 ", "T2"]);
        assert_eq!(receiver.fill.bytes.load(Ordering::Relaxed), 0, "every byte is given back");
    }

    #[test]
    fn no_update_overtakes_a_batch_that_tells_of_the_same_participant() {
        let (sender, mut receiver) = queue();
        let batch = Signal::Participants(vec![info("a", 2, 0), info("b", 2, 0)]);
        for signal in [update("a", 1), batch, update("a", 3)] {
            assert!(sender.try_send(signal));
        }
        drop(sender);
        assert_eq!(taken(&mut receiver), ["a1 ", "a2 b2 ", "a3 "]);
    }

    #[test]
    fn a_connection_that_does_not_read_is_given_up_after_so_many_bytes() {
        let (sender, mut receiver) = queue();
        let large = info("a", 1, 500_000);
        let accepted =
            (0..1000).take_while(|_| sender.try_send(Signal::Participants(vec![large.clone()]))).count();
        assert!((30..=34).contains(&accepted), "{accepted}");
        drop(sender);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(receiver.given_up());
        assert!(runtime.block_on(receiver.recv()).is_none(), "what waits is let go");
    }

    #[test]
    fn a_signal_larger_than_the_bound_fits_an_empty_queue() {
        let (sender, _receiver) = queue();
        assert!(sender.try_send(Signal::Participants(vec![info("a", 1, SIGNALS_BYTES_MAX)])));
        assert!(!sender.try_send(other("T1")));
    }
}
