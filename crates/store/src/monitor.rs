//! How TURN fares, from the writer's thread to whoever shows it.

use crate::coturn::{InputHealth, InputSnapshot};
use fanlight_telemetry::TurnStatus;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A look at TURN and its inputs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TurnMonitor {
    status: Arc<Mutex<TurnStatus>>,
    inputs: InputHealth,
}

/// TURN and its inputs at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TurnHealth {
    /// What tells of TURN servers.
    pub inputs: Vec<InputSnapshot>,
    /// What became of it.
    #[serde(flatten)]
    pub status: TurnStatus,
}

impl TurnMonitor {
    /// As it stands.
    pub fn snapshot(&self) -> TurnHealth {
        TurnHealth { inputs: self.inputs.snapshot(), status: self.lock().clone() }
    }

    /// Where inputs say how they fare.
    pub fn inputs(&self) -> &InputHealth {
        &self.inputs
    }

    pub(crate) fn publish(&self, status: &TurnStatus) {
        let mut published = self.lock();
        if *published != *status {
            published.clone_from(status);
        }
    }

    fn lock(&self) -> MutexGuard<'_, TurnStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
