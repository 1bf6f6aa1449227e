//! A dense table whose keys go stale when their value is removed.

/// A place in a [`Slots`] and which of its successive values is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot {
    pub(super) index: u32,
    generation: u32,
}

impl Slot {
    /// The place alone, for tables kept beside.
    pub(super) const fn index(self) -> usize {
        self.index as usize
    }
}

/// Values at dense places; a place is used again under another generation.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, value: T) -> Slot {
        self.insert_with(|_| value)
    }

    /// Adds a value that knows its own key.
    pub(super) fn insert_with(&mut self, make: impl FnOnce(Slot) -> T) -> Slot {
        if let Some(index) = self.free.pop()
            && let Some(entry) = self.entries.get_mut(index as usize)
        {
            let slot = Slot { index, generation: entry.generation };
            entry.value = Some(make(slot));
            return slot;
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let slot = Slot { index, generation: 0 };
        self.entries.push(Entry { generation: 0, value: Some(make(slot)) });
        slot
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        let entry = self.entries.get(slot.index())?;
        if entry.generation == slot.generation { entry.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let entry = self.entries.get_mut(slot.index())?;
        if entry.generation == slot.generation { entry.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        let entry = self.entries.get_mut(slot.index())?;
        if entry.generation != slot.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot.index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_value_finds_nothing_though_its_place_is_used_again() {
        let mut slots = Slots::default();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!((first.index(), slots.get(first), slots.get(second)), (second.index(), None, Some(&'b')));
        assert_eq!((slots.remove(first), slots.get(second)), (None, Some(&'b')));
    }
}
