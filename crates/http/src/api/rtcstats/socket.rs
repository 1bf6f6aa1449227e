//! One WebSocket of rtcstats: reads as fast as the store keeps up.

use super::super::client_stats::ClientStats;
use super::sessions::{Ended, Seat};
use crate::app::App;
use crate::backend::NotStored;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use fanlight_telemetry::collector::ClientReport;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

/// Messages that are stored together; more are not read before these are safe.
pub(super) const BATCH_MESSAGES: usize = 64;
/// Bytes of such messages, after which no further one is read.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes a second that a page may go on to say; stats of a call of fifty people are 50 kB.
const BYTES_PER_S: u64 = 256 << 10;
/// How far it may be ahead of that: 4 MB, which it had kept while it was connecting.
const AHEAD: Duration = Duration::from_secs(16);
/// A socket is asked for a sign of life so often.
const PING_EVERY: Duration = Duration::from_secs(20);
/// It is closed when it has given none for so long.
const IDLE: Duration = Duration::from_secs(60);
/// How long a message of ours may take to leave.
const SEND_WITHIN: Duration = Duration::from_secs(10);
/// How long the store is tried while it takes nothing.
const STORE_WITHIN: Duration = Duration::from_secs(60);
/// Pauses between two tries, the first and the longest.
const STORE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a page may take to hear that it is closed.
const HEAR_WITHIN: Duration = Duration::from_secs(2);
/// What is read at a time.
pub(super) const READ_BUFFER_BYTES: usize = 4096;
/// The reason of a close has at most so many bytes (RFC 6455, 5.5.1, less the code).
const REASON_BYTES_MAX: usize = 123;

/// Going away (RFC 6455, 7.4.1).
const AWAY: u16 = 1001;
/// Policy violation: whoever this is may not.
pub(super) const DENIED: u16 = 1008;
/// Internal error: what was said cannot be stored.
const NOT_STORED: u16 = 1011;
/// Try again later (IANA's registry of close codes).
pub(super) const LATER: u16 = 1013;

pub(super) struct Socket {
    app: App,
    door: Arc<ClientStats>,
    seat: Taken,
    socket: WebSocket,
    /// When all that has been read would have come at [`BYTES_PER_S`].
    paid_until: Instant,
    heard: Instant,
}

/// Gives the place back however the socket ends.
struct Taken {
    app: App,
    door: Arc<ClientStats>,
    seat: Seat,
    ended: Ended,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.door.rtcstats.leave((self.app.now)().mono(), &self.seat, self.ended);
    }
}

/// What was read before the next store.
#[derive(Default)]
struct Batch {
    reports: Vec<ClientReport>,
    bytes: usize,
}

/// Why to close, with a code and words.
type End = (Ended, Option<(u16, String)>);

impl Socket {
    pub(super) fn new(app: App, door: Arc<ClientStats>, seat: Seat, socket: WebSocket) -> Self {
        let seat = Taken { app: app.clone(), door: Arc::clone(&door), seat, ended: Ended::Left };
        let now = Instant::now();
        Self { app, door, seat, socket, paid_until: now, heard: now }
    }

    pub(super) async fn run(mut self) {
        let (ended, said) = self.read().await;
        self.seat.ended = ended;
        let Self { seat, socket, .. } = self;
        drop(seat);
        if let Some((code, text)) = said {
            close(socket, code, text).await;
        }
    }

    async fn read(&mut self) -> End {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let replaced = Arc::clone(&self.seat.seat.replaced);
        loop {
            let message = tokio::select! {
                biased;
                () = replaced.notified() => {
                    return (Ended::Replaced, Some((AWAY, "another WebSocket goes on with this session".to_owned())));
                }
                message = self.socket.recv() => message,
                _ = pings.tick() => {
                    if self.heard.elapsed() > IDLE {
                        let text = format!("no sign of life for {} s", IDLE.as_secs());
                        return (Ended::Idle, Some((AWAY, text)));
                    }
                    let sent = timeout(SEND_WITHIN, self.socket.send(Message::Ping(Vec::new().into()))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return (Ended::Idle, None);
                    }
                    continue;
                }
            };
            let mut batch = Batch::default();
            let mut open = self.take(&mut batch, message);
            while open && batch.reports.len() < BATCH_MESSAGES && batch.bytes < BATCH_BYTES {
                // What is here already, without waiting for more.
                let Ok(message) = timeout(Duration::ZERO, self.socket.recv()).await else { break };
                open = self.take(&mut batch, message);
            }
            let bytes = batch.bytes;
            if let Err(end) = store(&self.door, batch.reports).await {
                return end;
            }
            if !open {
                return (Ended::Left, None);
            }
            self.pace(bytes).await;
        }
    }

    /// Reads a message; `false` when it was the last one.
    fn take(&mut self, batch: &mut Batch, message: Option<Result<Message, axum::Error>>) -> bool {
        let Some(Ok(message)) = message else { return false };
        self.heard = Instant::now();
        let now_ms = (self.app.now)().unix_ms();
        match message {
            Message::Text(text) => {
                batch.bytes += text.len();
                batch.reports.extend(self.seat.seat.read(now_ms, text.as_str()));
            }
            // It is JSON, which has no other form.
            Message::Binary(bytes) => {
                batch.bytes += bytes.len();
                let text = String::from_utf8_lossy(&bytes);
                batch.reports.extend(self.seat.seat.read(now_ms, &text));
            }
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return false,
        }
        true
    }

    async fn pace(&mut self, bytes: usize) {
        let now = Instant::now();
        let takes = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / BYTES_PER_S);
        self.paid_until = self.paid_until.max(now) + takes;
        if let Some(ahead) = self.paid_until.checked_sub(AHEAD) {
            sleep_until(ahead).await;
        }
    }
}

/// Stores reports, and waits for the store while it takes none.
async fn store(door: &ClientStats, reports: Vec<ClientReport>) -> Result<(), End> {
    if reports.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    let (mut pause, longest) = STORE_PAUSES;
    loop {
        // One that comes twice is stored once.
        match door.reports.store_all(reports.clone()).await {
            Ok(()) => return Ok(()),
            Err(NotStored::Unfit(_)) => {
                door.rtcstats.unfit();
                return Ok(());
            }
            Err(NotStored::Busy | NotStored::Full(_)) if began.elapsed() < STORE_WITHIN => {
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            Err(error) => return Err((Ended::Store, Some((NOT_STORED, error.to_string())))),
        }
    }
}

/// Closes, and reads on until the page has heard it: what is not read would reset the connection.
pub(super) async fn close(mut socket: WebSocket, code: u16, text: String) {
    let reason = text.get(..text.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default();
    let frame = CloseFrame { code, reason: reason.into() };
    let heard = async {
        // The page may be gone already.
        let _ = socket.send(Message::Close(Some(frame))).await;
        while let Some(Ok(_)) = socket.recv().await {}
    };
    let _ = timeout(HEAR_WITHIN, heard).await;
}
