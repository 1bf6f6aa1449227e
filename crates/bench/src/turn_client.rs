//! A TURN client's messages, and what it reads of the answers.

use crate::Failure;
use fanlight_base::{Addresses, Redacted};
use fanlight_turn::shared_credential;
use std::net::SocketAddr;
use stun_types::attribute::{AttributeWrite, Nonce, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType,
    MessageWrite, MessageWriteExt, MessageWriteVec, Method, TransactionId,
};
use turn_types::attribute::{ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

pub(crate) const REALM: &str = "bench";
pub(crate) const SECRET: &str = "north";
/// First number of a channel (RFC 8656 §12).
pub(crate) const CHANNEL: u16 = 0x4000;
/// `REQUESTED-TRANSPORT`: UDP.
const UDP: u8 = 17;

pub(crate) struct Client {
    pub(crate) addresses: Addresses,
    username: String,
    key: IntegrityKey,
    nonce: String,
}

impl Client {
    pub(crate) fn new(addresses: Addresses, name: &str, expires_unix_s: u64) -> Self {
        let credential = shared_credential(&Redacted::new(SECRET.to_owned()), name, expires_unix_s);
        let password = credential.password.reveal().clone();
        let long_term = LongTermKeyCredentials::new(credential.username.clone(), password, REALM.to_owned());
        let key = long_term.make_key(IntegrityAlgorithm::Sha1);
        Self { addresses, username: credential.username, key, nonce: String::new() }
    }

    /// Without credentials: its answer has the nonce.
    pub(crate) fn ask_nonce(&self) -> Result<Vec<u8>, Failure> {
        Ok(begin(MessageClass::Request, ALLOCATE, transaction(), &[&RequestedTransport::new(UDP)])?.finish())
    }

    pub(crate) fn take_nonce(&mut self, answer: &[u8]) -> Result<(), Failure> {
        self.nonce = Message::from_bytes(answer)?.attribute::<Nonce>()?.nonce().to_owned();
        Ok(())
    }

    pub(crate) fn allocate(&self) -> Result<Vec<u8>, Failure> {
        self.signed(ALLOCATE, transaction(), &[&RequestedTransport::new(UDP)])
    }

    pub(crate) fn release(&self) -> Result<Vec<u8>, Failure> {
        self.signed(REFRESH, transaction(), &[&Lifetime::new(0)])
    }

    pub(crate) fn permit(&self, peer: SocketAddr) -> Result<Vec<u8>, Failure> {
        let transaction = transaction();
        self.signed(CREATE_PERMISSION, transaction, &[&XorPeerAddress::new(peer, transaction)])
    }

    pub(crate) fn bind(&self, peer: SocketAddr) -> Result<Vec<u8>, Failure> {
        let transaction = transaction();
        let peer = XorPeerAddress::new(peer, transaction);
        self.signed(CHANNEL_BIND, transaction, &[&ChannelNumber::new(CHANNEL), &peer])
    }

    fn signed(
        &self,
        method: Method,
        transaction: TransactionId,
        attributes: &[&dyn AttributeWrite],
    ) -> Result<Vec<u8>, Failure> {
        let mut write = begin(MessageClass::Request, method, transaction, attributes)?;
        write.add_attribute(&Username::new(&self.username)?)?;
        write.add_attribute(&Realm::new(REALM)?)?;
        write.add_attribute(&Nonce::new(&self.nonce)?)?;
        write.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1)?;
        Ok(write.finish())
    }
}

pub(crate) fn send_indication(peer: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let transaction = transaction();
    let peer = XorPeerAddress::new(peer, transaction);
    Ok(begin(MessageClass::Indication, SEND, transaction, &[&peer, &Data::new(payload)])?.finish())
}

pub(crate) fn channel_data(payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = u16::try_from(payload.len())?;
    Ok([&CHANNEL.to_be_bytes()[..], &length.to_be_bytes()[..], payload].concat())
}

/// Whether a response says that the request was granted.
pub(crate) fn is_success(answer: &[u8]) -> bool {
    Message::from_bytes(answer).is_ok_and(|message| message.class() == MessageClass::Success)
}

fn transaction() -> TransactionId {
    TransactionId::generate()
}

fn begin(
    class: MessageClass,
    method: Method,
    transaction: TransactionId,
    attributes: &[&dyn AttributeWrite],
) -> Result<MessageWriteVec, Failure> {
    let kind = MessageType::from_class_method(class, method);
    let mut write = Message::builder(kind, transaction, MessageWriteVec::new());
    for attribute in attributes {
        write.add_attribute(*attribute)?;
    }
    Ok(write)
}
