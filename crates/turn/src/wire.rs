//! STUN messages and ChannelData as they arrive and leave. Nothing here knows an allocation.

use crate::limits::ATTRIBUTES_MAX;
use std::net::SocketAddr;
use stun_types::attribute::{
    Attribute, AttributeFromRaw, AttributeStaticType, AttributeType, ErrorCode, Fingerprint,
    MessageIntegrity, MessageIntegritySha256, Nonce, PasswordAlgorithm, RawAttribute, Realm,
    UnknownAttributes, Userhash, Username,
};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, MAGIC_COOKIE, Message, MessageClass, MessageType, MessageWriteExt,
    MessageWriteVec, Method, StunWriteError, TransactionId,
};
use stun_types::prelude::MessageWrite;
use turn_types::attribute::{
    ChannelNumber, Data, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport, ReservationToken,
    XorPeerAddress, XorRelayedAddress,
};

/// What a client sent.
#[derive(Debug)]
pub(crate) enum Packet<'a> {
    /// A STUN message whose attributes lie within it; a FINGERPRINT is right.
    Stun(Message<'a>),
    /// Payload for a channel.
    Channel { number: u16, payload: &'a [u8] },
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// They are another protocol's.
    Foreign,
    /// They break STUN's or ChannelData's own rules.
    Malformed,
}

/// Attributes that a request may have and must be understood; others of that class are answered with 420.
const UNDERSTOOD: [AttributeType; 17] = [
    Username::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    PasswordAlgorithm::TYPE,
    Userhash::TYPE,
    ErrorCode::TYPE,
    ChannelNumber::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    Data::TYPE,
    XorRelayedAddress::TYPE,
    RequestedAddressFamily::TYPE,
    EvenPort::TYPE,
    RequestedTransport::TYPE,
    ReservationToken::TYPE,
];

/// Reads one datagram, or one frame of a stream.
pub(crate) fn read(bytes: &[u8]) -> Result<Packet<'_>, Unreadable> {
    match bytes.first() {
        Some(0..=3) => read_stun(bytes).map(Packet::Stun),
        Some(0x40..=0x7f) => read_channel_data(bytes),
        _ => Err(Unreadable::Foreign),
    }
}

fn read_channel_data(bytes: &[u8]) -> Result<Packet<'_>, Unreadable> {
    let (number, len) =
        turn_types::channel::ChannelData::parse_header(bytes).map_err(|_| Unreadable::Malformed)?;
    let (payload, padding) =
        bytes.get(4..).and_then(|rest| rest.split_at_checked(len)).ok_or(Unreadable::Malformed)?;
    // Datagrams may be padded as streams are (RFC 8656 §12.5), but hold nothing else.
    if padding.len() > 3 {
        return Err(Unreadable::Malformed);
    }
    Ok(Packet::Channel { number, payload })
}

/// The library reads attributes to the end of the bytes, not of the message: both must be the same.
fn read_stun(bytes: &[u8]) -> Result<Message<'_>, Unreadable> {
    let Some(([_, _, high, low, cookie @ ..], rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Unreadable::Foreign);
    };
    if *cookie != MAGIC_COOKIE.to_be_bytes() {
        return Err(Unreadable::Foreign);
    }
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let attributes = rest.get(12..).ok_or(Unreadable::Malformed)?;
    if len % 4 != 0 || attributes.len() != len || !attributes_fit(attributes) {
        return Err(Unreadable::Malformed);
    }
    Message::from_bytes(bytes).map_err(|_| Unreadable::Malformed)
}

fn attributes_fit(mut rest: &[u8]) -> bool {
    for _ in 0..=ATTRIBUTES_MAX {
        let Some(([_, _, high, low], tail)) = rest.split_first_chunk::<4>() else { return rest.is_empty() };
        let len = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
        match tail.get(len..) {
            Some(tail) => rest = tail,
            None => return false,
        }
    }
    false
}

/// Attributes of the class that must be understood and are not.
pub(crate) fn not_understood(message: &Message<'_>) -> Vec<AttributeType> {
    let mut unknown: Vec<AttributeType> = message
        .iter_attributes()
        .map(|(_, attribute)| attribute.get_type())
        .filter(|kind| kind.comprehension_required() && !UNDERSTOOD.contains(kind))
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

/// The first attribute of a type: an error when it is there and breaks its rules.
pub(crate) fn attribute<'a, A>(message: &'a Message<'a>) -> Result<Option<A>, Unreadable>
where
    A: AttributeFromRaw<'a> + AttributeStaticType,
{
    match message.raw_attribute(A::TYPE) {
        Some(raw) => A::from_raw(raw).map(Some).map_err(|_| Unreadable::Malformed),
        None => Ok(None),
    }
}

/// An attribute of text, as it stands there.
pub(crate) fn text(message: &Message<'_>, kind: AttributeType) -> Option<String> {
    let raw: RawAttribute<'_> = message.raw_attribute(kind)?;
    std::str::from_utf8(&raw.value).ok().map(str::to_owned)
}

/// The first XOR-PEER-ADDRESS.
pub(crate) fn peer(message: &Message<'_>) -> Option<SocketAddr> {
    let peer = attribute::<XorPeerAddress>(message).ok().flatten()?;
    Some(peer.addr(message.transaction_id()))
}

/// Every XOR-PEER-ADDRESS, in order.
pub(crate) fn peers(message: &Message<'_>) -> Result<Vec<SocketAddr>, Unreadable> {
    message
        .iter_attributes()
        .filter(|(_, attribute)| attribute.get_type() == XorPeerAddress::TYPE)
        .map(|(_, raw)| {
            let peer = XorPeerAddress::from_raw_ref(&raw).map_err(|_| Unreadable::Malformed)?;
            Ok(peer.addr(message.transaction_id()))
        })
        .collect()
}

/// Begins a success response.
pub(crate) fn success(method: Method, transaction: TransactionId) -> MessageWriteVec {
    let kind = MessageType::from_class_method(MessageClass::Success, method);
    Message::builder(kind, transaction, MessageWriteVec::new())
}

/// An error response. Without a reason phrase: challenges must be short, and no client shows it.
pub(crate) fn error(
    method: Method,
    transaction: TransactionId,
    code: u16,
    unknown: &[AttributeType],
) -> Result<MessageWriteVec, StunWriteError> {
    let kind = MessageType::from_class_method(MessageClass::Error, method);
    let mut write = Message::builder(kind, transaction, MessageWriteVec::new());
    write.add_attribute(&ErrorCode::new(code, "")?)?;
    if !unknown.is_empty() {
        write.add_attribute(&UnknownAttributes::new(unknown))?;
    }
    Ok(write)
}

/// Signs and ends a message. It has a FINGERPRINT when the request had one.
pub(crate) fn finish(
    mut write: MessageWriteVec,
    key: Option<&IntegrityKey>,
    fingerprint: bool,
) -> Result<Vec<u8>, StunWriteError> {
    if let Some(key) = key {
        write.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1)?;
    }
    if fingerprint {
        write.add_fingerprint()?;
    }
    Ok(write.finish())
}

/// Whether a message ends in a FINGERPRINT.
pub(crate) fn has_fingerprint(message: &Message<'_>) -> bool {
    message.has_attribute(Fingerprint::TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

    fn message(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes[2..4].copy_from_slice(&(attributes.len() as u16).to_be_bytes());
        bytes.extend_from_slice(attributes);
        bytes
    }

    fn why(bytes: &[u8]) -> Option<Unreadable> {
        read(bytes).err()
    }

    #[test]
    fn lengths_that_do_not_add_up_are_malformed() {
        assert_eq!(why(&HEADER), None);
        assert_eq!(why(&HEADER[..19]), Some(Unreadable::Malformed));
        assert_eq!(
            why(&[&HEADER[..], &[0; 4]].concat()),
            Some(Unreadable::Malformed),
            "bytes behind the message"
        );
        let mut longer = HEADER;
        longer[3] = 4;
        assert_eq!(why(&longer), Some(Unreadable::Malformed), "a message behind its bytes");
        assert_eq!(
            why(&message(&[0, 6, 0, 5, 1, 2, 3, 4])),
            Some(Unreadable::Malformed),
            "an attribute beyond the end"
        );
        assert_eq!(why(&message(&[0, 6, 0xff, 0xff])), Some(Unreadable::Malformed));
        assert_eq!(why(&message(&[0x80, 0x22, 0, 1, 65, 0, 0, 0])), None);
    }

    #[test]
    fn too_many_attributes_are_malformed() {
        let one = [0x80, 0x99, 0, 0];
        assert_eq!(why(&message(&one.repeat(ATTRIBUTES_MAX))), None);
        assert_eq!(why(&message(&one.repeat(ATTRIBUTES_MAX + 1))), Some(Unreadable::Malformed));
    }

    #[test]
    fn other_protocols_are_foreign() {
        for bytes in
            [&[][..], &[22, 254, 253, 0, 0], &[0x80, 96], &[0x80, 0, 0, 0], &[0, 1, 0, 0, 1, 2, 3, 4]]
        {
            assert_eq!(why(bytes), Some(Unreadable::Foreign), "{bytes:?}");
        }
    }

    #[test]
    fn channel_data_holds_its_payload_and_padding_only() {
        let payload = |bytes: &[u8]| match read(bytes) {
            Ok(Packet::Channel { number: 0x4001, payload }) => Some(payload.to_vec()),
            _ => None,
        };
        assert_eq!(payload(&[0x40, 1, 0, 2, 7, 8]), Some(vec![7, 8]));
        assert_eq!(payload(&[0x40, 1, 0, 2, 7, 8, 0, 0]), Some(vec![7, 8]));
        assert_eq!(payload(&[0x40, 1, 0, 2, 7, 8, 0, 0, 0, 0]), None);
        assert_eq!(payload(&[0x40, 1, 0, 2, 7]), None);
        assert_eq!(payload(&[0x40, 1, 0, 0]), Some(vec![]));
    }

    #[test]
    fn attributes_behind_the_integrity_do_not_count() {
        let mut attributes = vec![0, 8, 0, 20];
        attributes.extend([0; 20]);
        attributes.extend([0, 0x0c, 0, 4, 0x40, 0, 0, 0]);
        let bytes = message(&attributes);
        let Ok(Packet::Stun(found)) = read(&bytes) else { panic!("readable") };
        assert!(found.has_attribute(MessageIntegrity::TYPE));
        assert!(!found.has_attribute(ChannelNumber::TYPE));
    }
}
