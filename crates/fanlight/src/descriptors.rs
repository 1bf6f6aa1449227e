//! How many sockets the process may hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a node with a few thousand clients needs: one descriptor for each connection and each TURN relay.
const WANTED: u64 = 65_536;

/// Takes as many as the system allows without privileges; what is too few for a busy server is said.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    if let Some(now) = now.filter(|now| *now < WANTED) {
        tracing::warn!(
            "the process may open {now} files and sockets only, one for each connection and TURN relay; raise it with \
             LimitNOFILE= in the systemd unit, or ulimit -n {WANTED}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_the_system_allows() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
