//! Ctrl-C and SIGTERM: the first ends sessions, the second ends the process.

use std::process;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a process that a signal ended (128 + SIGINT).
const EXIT_FORCED: i32 = 130;

/// Both signals that ask the server to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the first one; from then on a second one ends the process at once.
    pub(crate) async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("asked twice to end: sessions are cut");
            process::exit(EXIT_FORCED);
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
