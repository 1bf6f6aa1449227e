//! What is due when: a heap of tasks, so that a timeout costs what is due and not what exists.

use fanlight_base::Mono;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deadlines of tasks. A task's owner remembers the deadline it waits for (an [`Alarm`]); entries that it no longer
/// waits for are skipped when they come up.
#[derive(Debug)]
pub(super) struct Timers<Task> {
    heap: BinaryHeap<Reverse<(Mono, Task)>>,
}

/// The deadline that a task's owner waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm(Mono);

impl Default for Alarm {
    fn default() -> Self {
        Self(Mono::NEVER)
    }
}

impl Alarm {
    /// Whether a deadline stands.
    pub(super) fn is_set(self) -> bool {
        self.0 != Mono::NEVER
    }

    /// Waits for nothing any more.
    pub(super) fn clear(&mut self) {
        self.0 = Mono::NEVER;
    }
}

impl<Task: Ord + Copy> Timers<Task> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Has `task` come up at `when`, unless it comes up earlier anyway.
    pub(super) fn arm(&mut self, alarm: &mut Alarm, when: Mono, task: Task) {
        if when < alarm.0 {
            alarm.0 = when;
            self.heap.push(Reverse((when, task)));
        }
    }

    /// The next task that is due, with its deadline for [`Timers::take`].
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<(Mono, Task)> {
        if self.heap.peek()?.0.0 > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether the owner still waits for this deadline; it then waits no more.
    pub(super) fn take(alarm: &mut Alarm, when: Mono) -> bool {
        let waited = alarm.0 == when;
        if waited {
            alarm.clear();
        }
        waited
    }

    /// The earliest deadline, perhaps of a task nobody waits for any more.
    pub(super) fn next(&self) -> Option<(Mono, Task)> {
        self.heap.peek().map(|Reverse(entry)| *entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_deadline_replaces_a_later_one() {
        let mut timers = Timers::new();
        let mut alarm = Alarm::default();
        timers.arm(&mut alarm, Mono { ns: 20 }, 'a');
        timers.arm(&mut alarm, Mono { ns: 30 }, 'a');
        timers.arm(&mut alarm, Mono { ns: 10 }, 'a');
        assert_eq!(timers.pop_due(Mono { ns: 9 }), None);
        assert_eq!(timers.pop_due(Mono { ns: 25 }), Some((Mono { ns: 10 }, 'a')));
        assert!(Timers::<char>::take(&mut alarm, Mono { ns: 10 }));
        assert_eq!(timers.pop_due(Mono { ns: 25 }), Some((Mono { ns: 20 }, 'a')));
        assert!(!Timers::<char>::take(&mut alarm, Mono { ns: 20 }));
        assert_eq!(timers.next(), None);
    }
}
