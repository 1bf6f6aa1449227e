//! Values under small numbers that are used again, so that an index costs a few bytes and a look-up no search.

/// Values by slot.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<Box<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a value; gives its slot. More than 2^32 values are beyond every limit here.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let value = Some(Box::new(value));
        if let Some(slot) = self.free.pop()
            && let Some(place) = self.slots.get_mut(slot as usize)
        {
            *place = value;
            return slot;
        }
        self.slots.push(value);
        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Box<T>> {
        let value = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(slot, value)| Some((slot, value.as_deref()?)))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again() {
        let mut slab = Slab::default();
        let slots = ["a", "b", "c"].map(|value| slab.insert(value));
        assert_eq!(slab.remove(slots[1]).as_deref(), Some(&"b"));
        assert_eq!((slab.remove(slots[1]), slab.get(slots[1]), slab.len()), (None, None, 2));
        assert_eq!(slab.insert("d"), slots[1]);
        let all: Vec<(u32, &str)> = slab.iter().map(|(slot, value)| (slot, *value)).collect();
        assert_eq!(all, [(0, "a"), (1, "d"), (2, "c")]);
    }
}
