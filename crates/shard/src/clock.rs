//! The only place of this crate that reads a clock.

use fanlight_base::Now;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Reads both clocks of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts at `anchor`; all threads of a process share one anchor.
    pub const fn new(anchor: Instant) -> Self {
        Self { anchor }
    }

    /// Now.
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono_ns: u64::try_from(self.anchor.elapsed().as_nanos()).unwrap_or(u64::MAX),
            unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}
