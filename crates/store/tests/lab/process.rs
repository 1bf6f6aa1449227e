//! Processes of a test: they end with it.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A loaded machine starts a program, or finishes a run, within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `command`; `package` is what Debian calls it.
    pub(crate) fn start(program: &str, package: &str, mut command: Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => {
                panic!("cannot start {program}: {error}; install it with: apt-get install {package}")
            }
        }
    }

    /// Waits until it ends by itself.
    pub(crate) fn finish(mut self) {
        wait_for("a client ends", || self.0.try_wait().unwrap().is_some());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for what another process does.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    wait_for_none(what, || if done() { Vec::new() } else { vec![()] });
}

/// Waits until nothing is left; what is left after that is shown.
pub(crate) fn wait_for_none<T: std::fmt::Debug>(what: &str, mut left: impl FnMut() -> Vec<T>) {
    let limit = Instant::now() + PATIENCE;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < limit, "not within {} s: {what}: {left:#?}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}
