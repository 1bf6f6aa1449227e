//! What is said of one attack, and whether it hurt anybody.

use super::attack::Attack;
use super::call::Window;
use std::fmt;
use std::time::Duration;

/// Goals: more delay than without the attack, growth for each attacker, and growth that may stay.
const DELAY_MORE_MAX_MS: f64 = 5.0;
const GROWTH_MAX_BYTES: f64 = 64e6;
const STAYS_MAX_BYTES: f64 = 16e6;

/// Resident set of the server, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) before: f64,
    pub(super) peak: f64,
    pub(super) after: f64,
    /// From the end of the attack to `after`.
    pub(super) took: Duration,
}

pub(super) struct Row {
    pub(super) attack: Attack,
    pub(super) base: Window,
    pub(super) window: Window,
    /// What the attackers sent.
    pub(super) sent: u64,
    /// Why they could not, or did not go on.
    pub(super) refusal: Option<String>,
    pub(super) server_cpu_s: f64,
    /// None when the server has ended.
    pub(super) memory: Option<Memory>,
}

/// Whether memory is back where it was.
pub(super) fn within(before: f64, after: f64) -> bool {
    after <= before + STAYS_MAX_BYTES
}

impl Row {
    pub(super) const HEAD: &str = "attack\tattackers\tsent\tserver CPU, s\tp99 without, ms\tp99, ms\tmore, ms\tworst, ms\t\
         lost\tof\tclosed\tpings lost\tmemory before, MB\tpeak\tafter\tback in, s\tverdict";

    pub(super) fn is_good(&self) -> bool {
        self.broken().is_empty()
    }

    /// Goals that are not met.
    fn broken(&self) -> Vec<&'static str> {
        let Some(memory) = self.memory else { return vec!["THE SERVER ENDED"] };
        let growth_max = GROWTH_MAX_BYTES * f64::from(self.attack.attackers);
        let goals = [
            ("NO ATTACK", self.sent > 0),
            ("delay", self.window.p99_ms <= self.base.p99_ms + DELAY_MORE_MAX_MS),
            ("lost", self.window.lost == 0),
            ("closed", self.window.closed == 0 && self.window.unanswered == 0),
            ("memory", memory.peak <= memory.before + growth_max),
            ("memory stays", within(memory.before, memory.after)),
        ];
        goals.into_iter().filter(|(_, met)| !met).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attack, base, window, .. } = self;
        write!(f, "{}\t{}\t{}\t{:.1}\t", attack.name, attack.attackers, self.sent, self.server_cpu_s)?;
        let more = window.p99_ms - base.p99_ms;
        write!(f, "{:.1}\t{:.1}\t{more:+.1}\t{:.0}\t", base.p99_ms, window.p99_ms, window.worst_ms)?;
        write!(f, "{}\t{}\t{}\t{}\t", window.lost, window.expected, window.closed, window.unanswered)?;
        match self.memory {
            Some(Memory { before, peak, after, took }) => {
                write!(
                    f,
                    "{:.0}\t{:.0}\t{:.0}\t{:.0}\t",
                    before / 1e6,
                    peak / 1e6,
                    after / 1e6,
                    took.as_secs_f64()
                )?;
            }
            None => write!(f, "-\t-\t-\t-\t")?,
        }
        let broken = self.broken();
        f.write_str(&if broken.is_empty() { "good".to_owned() } else { broken.join(", ") })?;
        let notes = [window.reason.as_deref(), self.refusal.as_deref()];
        for note in notes.into_iter().flatten() {
            write!(f, " ({note})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(p99_ms: f64, lost: u64, closed: usize, peak: f64, after: f64) -> Row {
        let base = Window {
            p99_ms: 2.0,
            worst_ms: 3.0,
            expected: 100,
            lost: 0,
            closed: 0,
            unanswered: 0,
            reason: None,
        };
        let attack = Attack { name: "a", attackers: 2, run: |_, _| Ok(0) };
        let memory = Memory { before: 50e6, peak, after, took: Duration::from_secs(1) };
        let window = Window { p99_ms, lost, closed, ..base.clone() };
        Row { attack, base, window, sent: 1, refusal: None, server_cpu_s: 1.0, memory: Some(memory) }
    }

    #[test]
    fn an_attack_that_meets_each_goal_just_so_is_good() {
        assert!(row(7.0, 0, 0, 178e6, 66e6).is_good());
    }

    #[test]
    fn each_goal_that_is_missed_is_named() {
        assert_eq!(row(7.1, 0, 0, 178e6, 66e6).broken(), ["delay"]);
        assert_eq!(row(7.0, 1, 0, 178e6, 66e6).broken(), ["lost"]);
        assert_eq!(row(7.0, 0, 1, 178e6, 66e6).broken(), ["closed"]);
        assert_eq!(row(7.0, 0, 0, 178.1e6, 66.1e6).broken(), ["memory", "memory stays"]);
        let ended = Row { memory: None, ..row(2.0, 0, 0, 50e6, 50e6) };
        assert_eq!(ended.broken(), ["THE SERVER ENDED"]);
    }

    #[test]
    fn a_row_has_as_many_columns_as_the_head() {
        let columns = |text: &str| text.split('\t').count();
        assert_eq!(columns(&row(2.0, 0, 0, 50e6, 50e6).to_string()), columns(Row::HEAD));
        let ended = Row { memory: None, ..row(2.0, 0, 0, 50e6, 50e6) };
        assert_eq!(columns(&ended.to_string()), columns(Row::HEAD));
    }
}
