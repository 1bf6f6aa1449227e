//! Finding the allocation that a message is about, and the session of a person.

use super::allocation::{Allocation, State};
use super::session::Session;
use super::{Output, TurnAccount, is_participant_sid};
use fanlight_base::ParticipantSid;
use fanlight_events::turn::AllocationName;
use rustc_hash::{FxHashMap, FxHasher};
use std::collections::BTreeSet;
use std::hash::Hasher;

/// Slots by a number that several may share, which is rare.
#[derive(Debug, Default)]
pub(super) struct Index {
    first: FxHashMap<u64, u32>,
    /// All but the first of a number.
    others: BTreeSet<(u64, u32)>,
}

impl Index {
    pub(super) fn insert(&mut self, key: u64, slot: u32) {
        if *self.first.entry(key).or_insert(slot) != slot {
            self.others.insert((key, slot));
        }
    }

    pub(super) fn remove(&mut self, key: u64, slot: u32) {
        if self.others.remove(&(key, slot)) || self.first.get(&key) != Some(&slot) {
            return;
        }
        let next = self.others(key).next();
        match next {
            Some(next) => {
                self.others.remove(&(key, next));
                self.first.insert(key, next);
            }
            None => _ = self.first.remove(&key),
        }
    }

    fn slots(&self, key: u64) -> impl Iterator<Item = u32> {
        self.first.get(&key).copied().into_iter().chain(self.others(key))
    }

    fn others(&self, key: u64) -> impl Iterator<Item = u32> {
        // Looking into an empty set costs nothing, which is what it is on most servers.
        self.others.range((key, 0)..=(key, u32::MAX)).map(|(_, slot)| *slot)
    }
}

/// The key of a person. Equal ones of two persons cost a comparison, no more.
pub(super) fn person_key(person: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(person.as_bytes());
    hasher.finish()
}

/// Whose allocation a message can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    One(u32),
    Several,
    None,
}

/// How well an allocation fits a message, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is open and has the very user name.
    Open,
    /// It is over, or was lost.
    Ended,
    /// Until 4.12 coturn garbles names with `%`, differently in each message.
    Garbled,
}

impl TurnAccount {
    /// The allocation that a message is about: the one that fits best. `node` is empty where neither the input nor the
    /// message says which server it is about; `named` when it is the input that does.
    pub(super) fn find(&self, node: &str, named: bool, name: &AllocationName) -> Found {
        let mut best: Option<(Fit, Found)> = None;
        for slot in self.by_id.slots(name.id) {
            let Some(allocation) = self.allocations.get(slot) else { continue };
            let of_node = node.is_empty() && !named
                || allocation.node == node
                || (!named && allocation.node.is_empty());
            if !of_node || allocation.name.realm != name.realm {
                continue;
            }
            let open = !matches!(allocation.state, State::Lost | State::Finished);
            let fit = match allocation.name.user == name.user {
                true if open => Fit::Open,
                true => Fit::Ended,
                false if open && alike(&allocation.name.user, &name.user) => Fit::Garbled,
                false => continue,
            };
            match best {
                Some((better, _)) if better < fit => {}
                Some((same, _)) if same == fit => best = Some((fit, Found::Several)),
                _ => best = Some((fit, Found::One(slot))),
            }
        }
        best.map_or(Found::None, |(_, found)| found)
    }

    /// Slots of the allocations that are asked for, in the order in which they opened, each with what is asked of it.
    pub(super) fn in_order<T>(
        &self,
        is_wanted: impl Fn(u32, &Allocation) -> bool,
        what: impl Fn(&Allocation) -> T,
    ) -> Vec<(u32, T)> {
        let wanted = self.allocations.iter().filter(|(slot, allocation)| is_wanted(*slot, allocation));
        let mut slots: Vec<(u64, u32)> = wanted.map(|(slot, allocation)| (allocation.number, slot)).collect();
        slots.sort_unstable();
        slots.into_iter().filter_map(|(_, slot)| Some((slot, what(self.allocations.get(slot)?)))).collect()
    }

    /// The session of whoever has this name, the newest if there are two; a new one when there is none.
    pub(super) fn session_of(&mut self, name: &AllocationName) -> u32 {
        let who = self.settings.identity.read(&name.user);
        let its =
            self.open_sessions(&who.person).filter(|(_, one)| one.who == who && one.realm == name.realm);
        if let Some((slot, _)) = its.max_by_key(|(_, session)| session.number) {
            return slot;
        }
        if is_participant_sid(&who.person) {
            self.outputs.push_back(Output::WhoIs(ParticipantSid::from(who.person.as_str())));
        }
        let number = self.next_number();
        self.insert_session(Session::new(number, name.realm.clone(), who))
    }

    pub(super) fn insert_session(&mut self, session: Session) -> u32 {
        let key = person_key(&session.who.person);
        let slot = self.sessions.insert(session);
        self.by_person.insert(key, slot);
        slot
    }

    /// Slots of a person's sessions that are not closed.
    pub(super) fn sessions_of(&self, person: &str) -> Vec<u32> {
        self.open_sessions(person).map(|(slot, _)| slot).collect()
    }

    fn open_sessions(&self, person: &str) -> impl Iterator<Item = (u32, &Session)> {
        let all = self.by_person.slots(person_key(person));
        all.filter_map(|slot| Some((slot, self.sessions.get(slot)?)))
            .filter(move |(_, session)| !session.closed && session.who.person == person)
    }
}

/// Whether two user names may be one that was garbled: they begin and end alike.
fn alike(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let shorter = a.len().min(b.len());
    let common = |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(a, b)| a == b).count();
    let start = common(&mut a.iter().zip(b));
    let end = common(&mut a.iter().rev().zip(b.iter().rev()));
    shorter > 0 && start > 0 && end > 0 && (start + end).min(shorter) * 2 >= shorter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_slots_share_a_number_whichever_goes_first() {
        let mut index = Index::default();
        for slot in [3, 1, 2] {
            index.insert(7, slot);
        }
        index.insert(8, 4);
        let slots = |index: &Index, key| index.slots(key).collect::<Vec<_>>();
        assert_eq!(slots(&index, 7), [3, 1, 2]);
        index.remove(7, 3);
        assert_eq!(slots(&index, 7), [1, 2]);
        index.remove(7, 2);
        index.remove(7, 9);
        assert_eq!((slots(&index, 7), slots(&index, 8), slots(&index, 9)), (vec![1], vec![4], vec![]));
        index.remove(7, 1);
        assert!(slots(&index, 7).is_empty() && index.others.is_empty() && index.first.len() == 1);
    }
}
