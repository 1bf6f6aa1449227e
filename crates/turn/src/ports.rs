//! Ports of the relay range: which are in use, and which is next.

use fanlight_base::Random;

/// First and last port of relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
}

impl PortRange {
    /// How many ports.
    pub const fn len(&self) -> u32 {
        match self.last.checked_sub(self.first) {
            Some(rest) => rest as u32 + 1,
            None => 0,
        }
    }

    /// Whether the last port comes before the first, or port 0 is among them.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0 || self.first == 0
    }
}

/// The ports of one address family.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    range: PortRange,
    used: Vec<bool>,
    count: u32,
}

impl Ports {
    pub(crate) fn new(range: PortRange) -> Self {
        Self { range, used: vec![false; range.len() as usize], count: 0 }
    }

    /// Takes a free port, the first one from a random place on; only an even one when asked.
    pub(crate) fn take(&mut self, random: &mut Random, even: bool) -> Option<u16> {
        let len = self.used.len();
        if self.count as usize >= len {
            return None;
        }
        let start = random.below(len as u64) as usize;
        let first = self.range.first;
        let suits = |index: usize| {
            let port = u16::try_from(index).ok().and_then(|index| first.checked_add(index))?;
            (!even || port % 2 == 0).then_some(port)
        };
        let (index, port) = (start..len)
            .chain(0..start)
            .filter(|index| self.used.get(*index) == Some(&false))
            .find_map(|index| suits(index).map(|port| (index, port)))?;
        if let Some(used) = self.used.get_mut(index) {
            *used = true;
            self.count += 1;
        }
        Some(port)
    }

    /// Gives a port back.
    pub(crate) fn give_back(&mut self, port: u16) {
        let index = port.checked_sub(self.range.first).map(usize::from);
        if let Some(used @ true) = index.and_then(|index| self.used.get_mut(index)) {
            *used = false;
            self.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_given_once_and_again_when_it_is_back() {
        let mut random = Random::from_seed([4; 32]);
        let mut ports = Ports::new(PortRange { first: 30_000, last: 30_009 });
        let mut taken: Vec<u16> = (0..10).filter_map(|_| ports.take(&mut random, false)).collect();
        assert_ne!(taken, (30_000..30_010).collect::<Vec<u16>>(), "in no guessable order");
        taken.sort_unstable();
        assert_eq!(taken, (30_000..30_010).collect::<Vec<u16>>());
        assert_eq!(ports.take(&mut random, false), None);
        ports.give_back(30_004);
        ports.give_back(30_004);
        ports.give_back(29_999);
        ports.give_back(30_010);
        assert_eq!(ports.take(&mut random, false), Some(30_004));
        assert_eq!(ports.take(&mut random, false), None);
    }

    #[test]
    fn an_even_port_is_even() {
        let mut random = Random::from_seed([5; 32]);
        let mut ports = Ports::new(PortRange { first: 30_001, last: 30_005 });
        let even: Vec<u16> = (0..4).filter_map(|_| ports.take(&mut random, true)).collect();
        assert_eq!(even.len(), 2);
        assert!(even.iter().all(|port| port % 2 == 0));
        assert!(ports.take(&mut random, false).is_some());
    }

    #[test]
    fn a_range_of_the_highest_port_works() {
        let mut ports = Ports::new(PortRange { first: 65_535, last: 65_535 });
        assert_eq!(ports.take(&mut Random::from_seed([6; 32]), false), Some(65_535));
        assert!(PortRange { first: 2, last: 1 }.is_empty() && PortRange { first: 0, last: 9 }.is_empty());
    }
}
