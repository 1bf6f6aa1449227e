//! A TURN client over UDP that does what it is told when it is told.

use super::{REALM, SECRET};
use aws_lc_rs::hmac;
use base64::Engine as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stun_types::attribute::{AttributeWrite, ErrorCode, Nonce, Realm, Username};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType,
    MessageWrite, MessageWriteExt, MessageWriteVec, Method, TransactionId,
};
use turn_types::attribute::{ChannelNumber, Lifetime, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, REFRESH};

const CHANNEL: u16 = 0x4000;

/// Whether a binding request is answered.
pub(crate) fn is_answered(server: SocketAddr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
    let request = Message::builder(kind, TransactionId::generate(), MessageWriteVec::new()).finish();
    socket.connect(server).is_ok() && socket.send(&request).is_ok() && socket.recv(&mut [0; 2_048]).is_ok()
}

pub(crate) struct Client {
    socket: UdpSocket,
    user: String,
    key: IntegrityKey,
    nonce: String,
}

impl Client {
    /// Has an allocation, and a channel to `peer`.
    pub(crate) fn allocate(server: SocketAddr, name: &str, peer: u16) -> Self {
        let expiry_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3_600;
        let user = format!("{expiry_s}:{name}");
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
        let password = base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, user.as_bytes()));
        let credentials = LongTermKeyCredentials::new(user.clone(), password, REALM.into());
        let key = credentials.make_key(IntegrityAlgorithm::Sha1);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut client = Self { socket, user, key, nonce: String::new() };
        let (transport, lifetime) = (RequestedTransport::new(17), Lifetime::new(600));
        for expected in [401, 0] {
            let code = client.ask(ALLOCATE, TransactionId::generate(), &[&transport, &lifetime]);
            assert_eq!(code, expected, "an allocation for {name}");
        }
        let transaction = TransactionId::generate();
        let peer = XorPeerAddress::new((Ipv4Addr::LOCALHOST, peer).into(), transaction);
        let bound = client.ask(CHANNEL_BIND, transaction, &[&ChannelNumber::new(CHANNEL), &peer]);
        assert_eq!(bound, 0, "a channel for {name}");
        client
    }

    /// Sends so many packets of so many bytes, and has each of them back from the echo.
    pub(crate) fn exchange(&mut self, packets: usize, bytes: usize) {
        let len = u16::try_from(bytes).unwrap();
        let mut packet = [CHANNEL.to_be_bytes(), len.to_be_bytes()].concat();
        packet.resize(4 + bytes, 7);
        let mut answer = [0; 2_048];
        for _ in 0..packets {
            self.socket.send(&packet).unwrap();
            let len = self.socket.recv(&mut answer).expect("the echo answers within five seconds");
            assert_eq!(answer[..len], packet[..]);
        }
    }

    /// Extends the allocation.
    pub(crate) fn refresh(&mut self) {
        assert_eq!(self.ask(REFRESH, TransactionId::generate(), &[&Lifetime::new(600)]), 0, "refreshed");
    }

    /// Gives the allocation back.
    pub(crate) fn release(mut self) {
        assert_eq!(self.ask(REFRESH, TransactionId::generate(), &[&Lifetime::new(0)]), 0, "released");
    }

    /// A request; the error code of its answer, 0 for success.
    fn ask(&mut self, method: Method, transaction: TransactionId, attributes: &[&dyn AttributeWrite]) -> u16 {
        let kind = MessageType::from_class_method(MessageClass::Request, method);
        let mut write = Message::builder(kind, transaction, MessageWriteVec::new());
        for attribute in attributes {
            write.add_attribute(*attribute).unwrap();
        }
        if !self.nonce.is_empty() {
            write.add_attribute(&Username::new(&self.user).unwrap()).unwrap();
            write.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
            write.add_attribute(&Nonce::new(&self.nonce).unwrap()).unwrap();
            write.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1).unwrap();
        }
        self.socket.send(&write.finish()).unwrap();
        let mut bytes = [0; 2_048];
        loop {
            let len = self.socket.recv(&mut bytes).expect("coturn answers within five seconds");
            let Ok(answer) = Message::from_bytes(&bytes[..len]) else { continue };
            if answer.transaction_id() != transaction {
                continue;
            }
            if let Ok(nonce) = answer.attribute::<Nonce>() {
                nonce.nonce().clone_into(&mut self.nonce);
            }
            return match answer.class() {
                MessageClass::Success => 0,
                _ => answer.attribute::<ErrorCode>().unwrap().code(),
            };
        }
    }
}
