//! A queue with a bound that counts what it refuses.

use std::collections::VecDeque;

/// First in, first out, at most `capacity` long.
#[derive(Debug, Clone)]
pub struct Bounded<T> {
    items: VecDeque<T>,
    capacity: usize,
    refused: u64,
}

/// The queue was full; the value comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("queue full")]
pub struct Full<T>(pub T);

impl<T> Bounded<T> {
    /// An empty queue that holds at most `capacity` values.
    pub const fn new(capacity: usize) -> Self {
        Self { items: VecDeque::new(), capacity, refused: 0 }
    }

    /// Appends a value, or gives it back and counts the refusal.
    pub fn push(&mut self, value: T) -> Result<(), Full<T>> {
        if self.items.len() >= self.capacity {
            self.refused += 1;
            return Err(Full(value));
        }
        self.items.push_back(value);
        Ok(())
    }

    /// Takes the oldest value.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// How many values wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many values were ever refused.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_value_back_and_counts_it() {
        let mut queue = Bounded::new(1);
        assert_eq!(queue.push('a'), Ok(()));
        assert_eq!(queue.push('b'), Err(Full('b')));
        assert_eq!((queue.pop(), queue.pop(), queue.refused()), (Some('a'), None, 1));
    }
}
