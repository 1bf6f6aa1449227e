//! Data messages that say where they come from, inside LiveKit's `DataPacket`.
//!
//! The few protobuf fields are written and read by hand: these clients share no code with the server.

/// A data message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Number of the room.
    pub room: u32,
    /// Number of the sending client.
    pub sender: u32,
    /// Counts the messages of the sender.
    pub number: u32,
}

const MAGIC: [u8; 4] = *b"FLdt";
/// `DataPacket.user` and `UserPacket.payload` have the same number.
const USER: u64 = 2;
const PAYLOAD: u64 = 2;
/// `DataPacket.participant_identity`, which the server writes.
const IDENTITY: u64 = 4;
/// `DataPacket.sequence`.
const SEQUENCE: u64 = 16;

impl Message {
    /// The `DataPacket`; every third one takes many SCTP packets.
    pub fn encode(self) -> Vec<u8> {
        let mut payload = self.head();
        payload.resize(payload.len() + 10 + (self.number % 3) as usize * 5_000, self.number as u8);
        let mut packet = Vec::new();
        let mut user = Vec::new();
        put_bytes(&mut user, PAYLOAD, &payload);
        put_bytes(&mut packet, USER, &user);
        put_varint(&mut packet, SEQUENCE << 3);
        put_varint(&mut packet, u64::from(self.number) + 1);
        packet
    }

    /// Reads a `DataPacket` as the server passed it on; `None` when it is not whole or not stamped with its sender.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        let user = field(packet, USER)?;
        let payload = field(user, PAYLOAD)?;
        let word =
            |index: usize| Some(u32::from_be_bytes(payload.get(index * 4..index * 4 + 4)?.try_into().ok()?));
        let message = Self { room: word(1)?, sender: word(2)?, number: word(3)? };
        let sent = message.encode();
        let whole = field(field(&sent, USER)?, PAYLOAD)? == payload;
        let stamp = format!("client-{}", message.sender);
        (whole && field(packet, IDENTITY)? == stamp.as_bytes()).then_some(message)
    }

    fn head(self) -> Vec<u8> {
        let words = [self.room, self.sender, self.number];
        MAGIC.into_iter().chain(words.into_iter().flat_map(u32::to_be_bytes)).collect()
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn put_bytes(bytes: &mut Vec<u8>, number: u64, payload: &[u8]) {
    put_varint(bytes, number << 3 | 2);
    put_varint(bytes, payload.len() as u64);
    bytes.extend_from_slice(payload);
}

/// The first length-delimited field with this number.
fn field(mut rest: &[u8], number: u64) -> Option<&[u8]> {
    loop {
        let key = varint(&mut rest)?;
        let value = varint(&mut rest)?;
        match key & 7 {
            0 => {}
            2 => {
                let (payload, behind) = rest.split_at_checked(usize::try_from(value).ok()?)?;
                if key >> 3 == number {
                    return Some(payload);
                }
                rest = behind;
            }
            _ => return None,
        }
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_only_when_whole_and_stamped_with_its_sender() {
        let message = Message { room: 1, sender: 12, number: 5 };
        let sent = message.encode();
        assert_eq!(Message::decode(&sent), None, "not stamped");
        let stamped = |stamp: &str| {
            let mut packet = sent.clone();
            put_bytes(&mut packet, IDENTITY, stamp.as_bytes());
            packet
        };
        assert_eq!(Message::decode(&stamped("client-12")), Some(message));
        assert_eq!(Message::decode(&stamped("client-1")), None);
        let mut changed = stamped("client-12");
        changed[100] ^= 1;
        assert_eq!(Message::decode(&changed), None);
    }
}
