//! Names and ids as types, so that they cannot be mixed up.

use crate::Random;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// The text as it goes over the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether it is the empty text.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl<T: AsRef<str>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(SmolStr::new(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Session id of a room, `RM_…`; a room made anew under the same name has another.
    RoomSid
);
text_id!(
    /// Name of a room as applications choose it.
    RoomName
);
text_id!(
    /// Session id of a participant, `PA_…`; every join makes a new one.
    ParticipantSid
);
text_id!(
    /// Identity of a participant as its token says it; unique in a room.
    Identity
);
text_id!(
    /// Id of a published track, `TR_…`.
    TrackSid
);
text_id!(
    /// Id of a node, `ND_…`.
    NodeId
);

/// One participant session inside this process: what signalling, shards and telemetry use to name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u64);

/// Random part of a sid: 12 characters of `[0-9A-Za-z]`, as LiveKit makes them.
pub fn sid_suffix(random: &mut Random) -> String {
    random.alphanumeric(12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_has_twelve_alphanumeric_characters() {
        let suffix = sid_suffix(&mut Random::from_seed([7; 32]));
        assert_eq!(suffix.len(), 12);
        assert!(suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
