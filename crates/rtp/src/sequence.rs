//! Sequence numbers and timestamps as they would be without wrapping around.

/// The number nearest to `reference` whose low 16 bits are `sequence`.
///
/// Half the number space forward and half back (RFC 3711 §3.3.1, RFC 3550 A.1). Numbers never fall below zero: near
/// zero the number of the same cycle is taken.
pub fn extend_sequence(reference: u64, sequence: u16) -> u64 {
    let step = i64::from(sequence.wrapping_sub(reference as u16) as i16);
    reference.checked_add_signed(step).unwrap_or_else(|| (reference & !0xffff) | u64::from(sequence))
}

/// The number nearest to `reference` whose low 32 bits are `timestamp`; never below zero, as [`extend_sequence`].
pub fn extend_timestamp(reference: u64, timestamp: u32) -> u64 {
    let step = i64::from(timestamp.wrapping_sub(reference as u32) as i32);
    reference.checked_add_signed(step).unwrap_or_else(|| (reference & !0xffff_ffff) | u64::from(timestamp))
}

/// Extends the sequence numbers of one stream.
///
/// The first number becomes itself plus 65,536, so that packets from before the first one received have a place too.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequenceExtender {
    highest: Option<u64>,
}

impl SequenceExtender {
    /// An extender that has seen nothing.
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// The extended number of a packet, without remembering it.
    pub fn peek(&self, sequence: u16) -> u64 {
        match self.highest {
            Some(highest) => extend_sequence(highest, sequence),
            None => u64::from(sequence).saturating_add(1 << 16),
        }
    }

    /// The extended number of a packet that was accepted.
    pub fn extend(&mut self, sequence: u16) -> u64 {
        let extended = self.peek(sequence);
        self.highest = Some(self.highest.map_or(extended, |highest| highest.max(extended)));
        extended
    }

    /// The highest number seen.
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Extends the timestamps of one stream; the first becomes itself plus 2^32.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimestampExtender {
    latest: Option<u64>,
}

impl TimestampExtender {
    /// An extender that has seen nothing.
    pub const fn new() -> Self {
        Self { latest: None }
    }

    /// The extended timestamp, without remembering it.
    pub fn peek(&self, timestamp: u32) -> u64 {
        match self.latest {
            Some(latest) => extend_timestamp(latest, timestamp),
            None => u64::from(timestamp).saturating_add(1 << 32),
        }
    }

    /// The extended timestamp of a packet that was accepted.
    pub fn extend(&mut self, timestamp: u32) -> u64 {
        let extended = self.peek(timestamp);
        self.latest = Some(self.latest.map_or(extended, |latest| latest.max(extended)));
        extended
    }

    /// The latest timestamp seen.
    pub const fn latest(&self) -> Option<u64> {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_go_on_across_the_wrap_and_back() {
        let mut extender = SequenceExtender::new();
        let first = extender.extend(65_534);
        assert_eq!(extender.extend(1), first + 3);
        assert_eq!(extender.extend(65_535), first + 1);
        assert_eq!(extender.highest(), Some(first + 3));
    }

    #[test]
    fn a_packet_from_before_the_first_has_a_place() {
        let mut extender = SequenceExtender::new();
        let first = extender.extend(0);
        assert_eq!(extender.extend(65_535), first - 1);
    }

    #[test]
    fn nothing_goes_below_zero() {
        assert_eq!(extend_sequence(5, 65_000), 65_000);
        assert_eq!(extend_timestamp(5, u32::MAX), u64::from(u32::MAX));
    }

    proptest! {
        #[test]
        fn any_step_within_half_the_space_is_followed(start in 65_536_u64..1 << 47, step in -32_768_i64..32_768) {
            let target = start.checked_add_signed(step).unwrap();
            prop_assert_eq!(extend_sequence(start, target as u16), target);
        }

        #[test]
        fn any_timestamp_step_within_half_the_space_is_followed(
            start in (1_u64 << 32)..1 << 62,
            step in i64::from(i32::MIN)..=i64::from(i32::MAX),
        ) {
            let target = start.checked_add_signed(step).unwrap();
            prop_assert_eq!(extend_timestamp(start, target as u32), target);
        }

        #[test]
        fn a_shuffled_stream_extends_to_what_was_sent(start in any::<u16>(), steps in prop::collection::vec(-20_i64..200, 1..300)) {
            let mut extender = SequenceExtender::new();
            let mut true_number = i64::from(start) + 65_536;
            for step in steps {
                prop_assert_eq!(extender.extend(true_number as u16), true_number as u64);
                true_number = (true_number + step).max(65_536);
            }
        }
    }
}
