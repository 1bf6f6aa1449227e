//! What an attack is, all of them in their order, and the process that carries one out.

use super::target::Target;
use super::{coturn, data, dtls, http, reads, reports, rtcp, rtp, sctp, signalling, stun, turn};
use crate::Failure;
use std::time::{Duration, Instant};

/// Carries an attack out; gives how many messages were sent.
pub(super) type Run = fn(&Target, Stint) -> Result<u64, Failure>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Participants whom a token let in, or one host without any.
    pub(super) attackers: u32,
    pub(super) run: Run,
}

/// By the part of the server that they are aimed at.
const ALL: [&[Attack]; 12] = [
    sctp::ATTACKS,
    stun::ATTACKS,
    dtls::ATTACKS,
    rtp::ATTACKS,
    rtcp::ATTACKS,
    data::ATTACKS,
    signalling::ATTACKS,
    http::ATTACKS,
    coturn::ATTACKS,
    turn::ATTACKS,
    reports::ATTACKS,
    reads::ATTACKS,
];

/// Those whose names begin with one of `names`, or all.
pub(super) fn chosen(names: &[&str]) -> Result<Vec<&'static Attack>, Failure> {
    let all = ALL.iter().flat_map(|attacks| attacks.iter());
    let is_chosen =
        |attack: &&Attack| names.is_empty() || names.iter().any(|name| attack.name.starts_with(name));
    let chosen: Vec<&Attack> = all.clone().filter(is_chosen).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all.map(|attack| attack.name).collect();
        return Err(format!("no such attack; there are {}", names.join(", ")).into());
    }
    Ok(chosen)
}

/// Carries one out in this process, and says how many messages were sent and what kept it from more.
pub(super) fn serve(name: &str, seconds: u64, target: &[&str]) -> Result<(), Failure> {
    let attacks = chosen(&[name])?;
    let attack = attacks.iter().find(|attack| attack.name == name).ok_or("no such attack")?;
    let target = Target::from_words(target)?;
    match (attack.run)(&target, Stint::of(Duration::from_secs(seconds))) {
        Ok(sent) => println!("{sent}\t"),
        Err(failure) => println!("0\t{failure}"),
    }
    Ok(())
}

/// The time that an attack may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stint {
    ends: Instant,
}

impl Stint {
    fn of(time: Duration) -> Self {
        Self { ends: Instant::now() + time }
    }

    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.ends
    }

    /// Waits until it is over.
    pub(super) fn sit_out(self) {
        std::thread::sleep(self.ends.saturating_duration_since(Instant::now()));
    }

    /// So many messages a second from now on.
    pub(super) fn pace(self, per_second: u32) -> Pace {
        Pace { stint: self, started: Instant::now(), per_second, count: 0 }
    }
}

/// What a sender that was held up makes up for at once.
const ARREARS_MAX: Duration = Duration::from_millis(20);

const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A bounded rate: without one, the kernel's queue would be what drops honest packets.
#[derive(Debug)]
pub(super) struct Pace {
    stint: Stint,
    started: Instant,
    per_second: u32,
    count: u64,
}

impl Pace {
    /// Waits until the next message may leave; false when the time is over. Who was held up catches up, but not with everything.
    pub(super) fn next(&mut self) -> bool {
        if self.stint.is_over() {
            return false;
        }
        let due = Duration::from_secs_f64(self.count as f64 / f64::from(self.per_second));
        let passed = self.started.elapsed();
        let ahead = due.saturating_sub(passed);
        self.started += passed.saturating_sub(due + ARREARS_MAX);
        if ahead > Duration::from_millis(1) {
            std::thread::sleep(ahead);
        }
        self.count += 1;
        true
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }
}

/// All at once, each with its number; the sum of what they sent. One that fails says why on the terminal and counts for nothing.
pub(super) fn together(
    attackers: usize,
    attack: impl Fn(usize) -> Result<u64, Failure> + Sync,
) -> Result<u64, Failure> {
    let (sent, failures): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
        let attack = &attack;
        let threads: Vec<_> = (0..attackers)
            .map(|number| scope.spawn(move || attack(number).map_err(|failure| failure.to_string())))
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).partition(Result::is_ok)
    });
    match failures.into_iter().find_map(Result::err) {
        Some(failure) if sent.is_empty() => Err(failure.into()),
        _ => Ok(sent.into_iter().filter_map(Result::ok).sum()),
    }
}

/// One session after another, each with its number, until the time is over: whoever is sent away comes again.
pub(super) fn again(
    stint: Stint,
    per_second: u32,
    mut session: impl FnMut(u32, &mut Pace) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let (mut pace, mut joined, mut refusal) = (stint.pace(per_second), 0, None);
    while !stint.is_over() {
        joined += 1;
        if let Err(failure) = session(joined, &mut pace) {
            refusal = Some(failure);
            std::thread::sleep(AGAIN_AFTER);
        }
    }
    match refusal {
        Some(failure) if pace.count() == 0 => Err(failure),
        _ => Ok(pace.count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_attack_has_a_name_of_its_own() {
        let all = chosen(&[]).unwrap();
        let names: BTreeSet<&str> = all.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|attack| attack.attackers > 0));
    }

    #[test]
    fn attacks_are_chosen_by_how_their_names_begin() {
        assert!(chosen(&["sctp"]).unwrap().iter().all(|attack| attack.name.starts_with("sctp")));
        assert!(chosen(&["nothing of this kind"]).is_err());
    }
}
