//! Users with allocations or with bytes on their account: what the quotas count.

use crate::limits::{QUOTA_EVENT, USERS_MAX};
use fanlight_base::Mono;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bytes that one user may relay within a window, both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteQuota {
    /// Payload bytes.
    pub bytes: u64,
    /// The window begins with a user's first allocation; after it the count begins again.
    pub window: Duration,
}

#[derive(Debug)]
struct User {
    person: SmolStr,
    /// Slots of this user's allocations.
    slots: Vec<u32>,
    used_bytes: u64,
    window_ends: Mono,
    said: Option<Mono>,
}

/// Every user known now.
#[derive(Debug)]
pub(crate) struct Users {
    quota: Option<ByteQuota>,
    users: Vec<Option<User>>,
    free: Vec<u32>,
    by_person: BTreeMap<SmolStr, u32>,
    /// Users without allocations whose bytes are remembered until their window ends.
    idle: BTreeSet<(Mono, u32)>,
}

impl Users {
    pub(crate) const fn new(quota: Option<ByteQuota>) -> Self {
        Self { quota, users: Vec::new(), free: Vec::new(), by_person: BTreeMap::new(), idle: BTreeSet::new() }
    }

    /// How many are known.
    pub(crate) fn len(&self) -> usize {
        self.by_person.len()
    }

    /// How many allocations a person has, and whether the bytes are used up.
    pub(crate) fn standing(&mut self, now: Mono, person: &str) -> (usize, bool) {
        let Some(index) = self.by_person.get(person).copied() else { return (0, false) };
        self.roll(now, index);
        let quota = self.quota;
        self.get(index).map_or((0, false), |user| {
            (user.slots.len(), quota.is_some_and(|quota| user.used_bytes >= quota.bytes))
        })
    }

    /// Notes an allocation; `None` when there are too many users.
    pub(crate) fn open(&mut self, now: Mono, person: &SmolStr, slot: u32) -> Option<u32> {
        let index = match self.by_person.get(person) {
            Some(index) => *index,
            None => self.insert(now, person)?,
        };
        if let Some(user) = self.users.get_mut(index as usize).and_then(Option::as_mut) {
            user.slots.push(slot);
            self.idle.remove(&(user.window_ends, index));
        }
        Some(index)
    }

    /// Notes the end of an allocation.
    pub(crate) fn close(&mut self, now: Mono, index: u32, slot: u32) {
        let Some(user) = self.users.get_mut(index as usize).and_then(Option::as_mut) else { return };
        user.slots.retain(|one| *one != slot);
        if !user.slots.is_empty() {
            return;
        }
        if self.quota.is_some() && user.used_bytes > 0 && user.window_ends > now {
            self.idle.insert((user.window_ends, index));
        } else {
            self.remove(index);
        }
    }

    /// Counts payload; true when this used up the quota.
    pub(crate) fn charge(&mut self, now: Mono, index: u32, bytes: u64) -> bool {
        let Some(quota) = self.quota else { return false };
        self.roll(now, index);
        let Some(user) = self.users.get_mut(index as usize).and_then(Option::as_mut) else { return false };
        let before = user.used_bytes;
        user.used_bytes = before.saturating_add(bytes);
        before < quota.bytes && user.used_bytes >= quota.bytes
    }

    /// The slots of a user's allocations.
    pub(crate) fn slots(&self, index: u32) -> &[u32] {
        self.get(index).map_or(&[], |user| &user.slots)
    }

    /// Whether a hit quota of this person should be said now.
    pub(crate) fn may_say(&mut self, now: Mono, person: &str) -> bool {
        let Some(user) = self
            .by_person
            .get(person)
            .and_then(|index| self.users.get_mut(*index as usize))
            .and_then(Option::as_mut)
        else {
            return false;
        };
        let due = user.said.is_none_or(|said| now.since(said) >= QUOTA_EVENT);
        if due {
            user.said = Some(now);
        }
        due
    }

    /// When the next forgotten user's window ends.
    pub(crate) fn next_end(&self) -> Mono {
        self.idle.first().map_or(Mono::NEVER, |(when, _)| *when)
    }

    /// Forgets one user whose window has ended; false when there is none.
    pub(crate) fn forget_one(&mut self, now: Mono) -> bool {
        match self.idle.first().copied() {
            Some((when, index)) if when <= now => {
                self.idle.pop_first();
                self.remove(index);
                true
            }
            _ => false,
        }
    }

    fn get(&self, index: u32) -> Option<&User> {
        self.users.get(index as usize).and_then(Option::as_ref)
    }

    /// Begins a new window when the last one is over. Idle users are forgotten by then.
    fn roll(&mut self, now: Mono, index: u32) {
        let Some(quota) = self.quota else { return };
        let Some(user) = self.users.get_mut(index as usize).and_then(Option::as_mut) else { return };
        if user.window_ends <= now && !user.slots.is_empty() {
            user.used_bytes = 0;
            user.window_ends = now + quota.window;
        }
    }

    fn insert(&mut self, now: Mono, person: &SmolStr) -> Option<u32> {
        if self.by_person.len() >= USERS_MAX {
            return None;
        }
        let window_ends = self.quota.map_or(Mono::NEVER, |quota| now + quota.window);
        let user = User { person: person.clone(), slots: Vec::new(), used_bytes: 0, window_ends, said: None };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.users.push(None);
                u32::try_from(self.users.len().saturating_sub(1)).ok()?
            }
        };
        *self.users.get_mut(index as usize)? = Some(user);
        self.by_person.insert(person.clone(), index);
        Some(index)
    }

    fn remove(&mut self, index: u32) {
        if let Some(user) = self.users.get_mut(index as usize).and_then(Option::take) {
            self.by_person.remove(&user.person);
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono { ns: s * 1_000_000_000 }
    }

    fn with_quota() -> Users {
        Users::new(Some(ByteQuota { bytes: 100, window: Duration::from_secs(3600) }))
    }

    #[test]
    fn a_user_without_a_byte_quota_is_forgotten_with_its_last_allocation() {
        let mut users = Users::new(None);
        let index = users.open(at(0), &"ann".into(), 1).unwrap();
        assert_eq!(users.open(at(0), &"ann".into(), 2), Some(index));
        assert_eq!(users.standing(at(0), "ann"), (2, false));
        assert!(!users.charge(at(0), index, u64::MAX));
        users.close(at(0), index, 1);
        assert_eq!((users.len(), users.slots(index)), (1, &[2][..]));
        users.close(at(0), index, 2);
        assert_eq!(users.len(), 0);
    }

    #[test]
    fn bytes_outlive_the_allocation_until_the_window_ends() {
        let mut users = with_quota();
        let index = users.open(at(0), &"ann".into(), 1).unwrap();
        assert!(!users.charge(at(1), index, 99));
        assert!(users.charge(at(1), index, 1), "said once");
        assert!(!users.charge(at(1), index, 1));
        users.close(at(2), index, 1);
        assert_eq!(users.standing(at(3), "ann"), (0, true));
        assert_eq!(users.next_end(), at(3600));
        assert!(!users.forget_one(at(3599)) && users.forget_one(at(3600)) && !users.forget_one(at(3600)));
        assert_eq!(users.standing(at(3600), "ann"), (0, false));
        assert_eq!(users.len(), 0);
    }

    #[test]
    fn a_new_window_begins_for_an_allocation_that_lasts() {
        let mut users = with_quota();
        let index = users.open(at(0), &"ann".into(), 1).unwrap();
        assert!(users.charge(at(0), index, 100));
        assert_eq!(users.standing(at(3600), "ann"), (1, false));
        assert!(users.charge(at(3601), index, 100));
    }

    #[test]
    fn a_user_who_comes_back_keeps_what_was_used() {
        let mut users = with_quota();
        let index = users.open(at(0), &"ann".into(), 1).unwrap();
        assert!(!users.charge(at(0), index, 60));
        users.close(at(1), index, 1);
        let index = users.open(at(2), &"ann".into(), 7).unwrap();
        assert_eq!(users.next_end(), Mono::NEVER);
        assert!(users.charge(at(2), index, 40));
    }

    #[test]
    fn a_hit_quota_is_said_once_a_minute() {
        let mut users = with_quota();
        users.open(at(0), &"ann".into(), 1).unwrap();
        assert!(users.may_say(at(0), "ann") && !users.may_say(at(59), "ann") && users.may_say(at(60), "ann"));
        assert!(!users.may_say(at(0), "bob"));
    }

    #[test]
    fn there_are_only_so_many_users() {
        let mut users = Users::new(None);
        let opened = (0..=USERS_MAX)
            .filter(|index| users.open(at(0), &format!("{index}").into(), 1).is_some())
            .count();
        assert_eq!((opened, users.len()), (USERS_MAX, USERS_MAX));
        users.close(at(0), 0, 1);
        assert_eq!(users.open(at(0), &"late".into(), 1), Some(0));
    }
}
