//! Asking a STUN server where we come from (RFC 8489 §3), as a client.

use crate::wire::{self, Packet};
use fanlight_base::Random;
use std::net::SocketAddr;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::{BINDING, Message, MessageClass, MessageType, MessageWriteVec, TransactionId};
use stun_types::prelude::MessageWrite;

/// A Binding request under way.
#[derive(Debug, Clone, Copy)]
pub struct BindingQuery {
    transaction: TransactionId,
}

impl BindingQuery {
    /// A request of its own transaction, and its bytes.
    pub fn new(random: &mut Random) -> (Self, Vec<u8>) {
        let transaction = u128::from(random.u64()) << 32 | u128::from(random.u32());
        let transaction = TransactionId::from(transaction);
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let bytes = Message::builder(kind, transaction, MessageWriteVec::new()).finish();
        (Self { transaction }, bytes)
    }

    /// The address that the server saw; `None` when these bytes are not its answer.
    pub fn answer(&self, bytes: &[u8]) -> Option<SocketAddr> {
        let Ok(Packet::Stun(message)) = wire::read(bytes) else { return None };
        let ours = message.transaction_id() == self.transaction
            && message.class() == MessageClass::Success
            && message.method() == BINDING;
        let mapped = wire::attribute::<XorMappedAddress>(&message).ok().flatten().filter(|_| ours)?;
        Some(mapped.addr(self.transaction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stun_types::message::MessageWriteExt;

    fn answer_to(query: BindingQuery, address: SocketAddr) -> Vec<u8> {
        let mut write = wire::success(BINDING, query.transaction);
        write.add_attribute(&XorMappedAddress::new(address, query.transaction)).unwrap();
        write.finish()
    }

    #[test]
    fn only_the_answer_to_the_question_is_believed() {
        let mut random = Random::from_seed([1; 32]);
        let (query, request) = BindingQuery::new(&mut random);
        let (other, _) = BindingQuery::new(&mut random);
        let address: SocketAddr = "203.0.113.9:5000".parse().unwrap();
        assert_eq!(request.len(), 20);
        assert_eq!(query.answer(&answer_to(query, address)), Some(address));
        assert_eq!(other.answer(&answer_to(query, address)), None);
        assert_eq!(query.answer(&request), None);
        assert_eq!(query.answer(b"nonsense"), None);
    }
}
