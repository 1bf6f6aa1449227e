//! Connectivity checks made by hand, with the integrity that their password gives (RFC 8489 §14.5).

use aws_lc_rs::hmac;

/// A binding request, and its success.
pub(crate) const REQUEST: u16 = 0x0001;
pub(crate) const SUCCESS: u16 = 0x0101;
pub(crate) const USERNAME: u16 = 0x0006;
pub(crate) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(crate) const USE_CANDIDATE: u16 = 0x0025;
const PRIORITY: u16 = 0x0024;
const ICE_CONTROLLING: u16 = 0x802a;
const ICE_CONTROLLED: u16 = 0x8029;
const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(crate) const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// What an attribute of the integrity adds to a message.
const INTEGRITY_BYTES: u16 = 24;

/// Type and value of an attribute.
pub(crate) type Attribute = (u16, Vec<u8>);

/// Attributes of a check (RFC 8445 §7.1). Whoever controls and has this tie-breaker never conflicts with a server that answers.
pub(crate) fn check(username: &str) -> Vec<Attribute> {
    vec![
        (USERNAME, username.as_bytes().to_vec()),
        (PRIORITY, 1_845_501_695_u32.to_be_bytes().to_vec()),
        (ICE_CONTROLLING, vec![0, 0, 0, 0, 0, 0, 0, 1]),
    ]
}

/// The same of an agent that is controlled: the one that answered a description.
pub(crate) fn controlled_check(username: &str) -> Vec<Attribute> {
    let role = |(kind, value)| (if kind == ICE_CONTROLLING { ICE_CONTROLLED } else { kind }, value);
    check(username).into_iter().map(role).collect()
}

/// A message with these attributes and its integrity.
pub(crate) fn message(kind: u16, transaction: [u8; 12], attributes: &[Attribute], password: &str) -> Vec<u8> {
    let mut message = [&kind.to_be_bytes()[..], &[0, 0], &COOKIE, &transaction].concat();
    for (kind, value) in attributes {
        append(&mut message, *kind, value);
    }
    set_length(&mut message, INTEGRITY_BYTES);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let integrity = hmac::sign(&key, &message);
    append(&mut message, MESSAGE_INTEGRITY, integrity.as_ref());
    set_length(&mut message, 0);
    message
}

/// The transaction of a message of this type.
pub(crate) fn transaction(message: &[u8], kind: u16) -> Option<[u8; 12]> {
    let (head, rest) = message.split_first_chunk::<8>()?;
    let is_it = head.starts_with(&kind.to_be_bytes()) && head.ends_with(&COOKIE);
    rest.first_chunk().filter(|_| is_it).copied()
}

fn append(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Makes the length right for so many bytes more.
fn set_length(message: &mut [u8], more: u16) {
    let length = u16::try_from(message.len().saturating_sub(20)).unwrap_or(u16::MAX).saturating_add(more);
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}
