//! Fuzz targets: plain functions that must neither panic nor break the properties they assert.
//!
//! The corpora in `fuzz/corpus/<name>/` are replayed, with mutations, by an ordinary test.

use crate::framing::{Deframer, frame_len};
use crate::limits::{AMPLIFICATION_MAX, FRAME_BYTES_MAX};
use crate::{
    ApiKey, Config, Credentials, MediaSocket, NodeAddresses, Outgoing, Output, PeerRules, PortRange, Quotas,
    RelayAddress, Relays, TurnServer, participant_credential,
};
use fanlight_base::{Addresses, Now, Protocol, Random, Redacted};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use stun_types::attribute::{Attribute, AttributeStaticType, MessageIntegrity, Nonce, Realm, Username};
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, MAGIC_COOKIE, Message};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};

/// A target: a function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target with the name of its corpus.
pub const TARGETS: [(&str, Target); 3] =
    [("turn_datagram", fuzz_datagram), ("turn_request", fuzz_request), ("turn_framing", fuzz_framing)];

const NOW: Now = Now { mono_ns: 5_000_000_000, unix_ns: 1_800_000_000_000_000_000 };
const REALM: &str = "livekit";

/// A server with one client that has an allocation with both families, and a stranger.
struct Rig {
    server: TurnServer,
    out: Outgoing,
    username: String,
    key: IntegrityKey,
    nonce: String,
}

/// Any bytes, from a stranger, from a client with an allocation and from a peer.
pub fn fuzz_datagram(data: &[u8]) {
    let Some(mut rig) = Rig::new() else { return };
    let allocations = rig.server.allocations();
    rig.server.handle_datagram(NOW, client(2), data, &mut rig.out);
    let answered: usize = rig.out.clients.runs().iter().map(|run| run.bytes().len()).sum();
    assert!(answered <= data.len() * AMPLIFICATION_MAX, "{answered} bytes for {}", data.len());
    assert!(rig.out.peers.is_empty() && rig.out.media.is_empty(), "a stranger reaches nobody");
    assert_eq!(rig.server.allocations(), allocations, "a stranger makes no state");
    rig.server.handle_datagram(NOW, client(1), data, &mut rig.out);
    rig.server.handle_stream_frame(
        NOW,
        Addresses { protocol: Protocol::Tcp, ..client(1) },
        None,
        data,
        &mut rig.out,
    );
    let relayed = SocketAddr::from(([8, 8, 4, 4], 30_000));
    rig.server.handle_from_media(NOW, media().local, relayed, data, &mut rig.out);
    rig.drain();
}

/// Any attributes in a request that is signed as it should be: what only an authenticated client can send.
pub fn fuzz_request(data: &[u8]) {
    let Some(mut rig) = Rig::new() else { return };
    let Some((first, attributes)) = data.split_first() else { return };
    let method = [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND];
    let Some(method) = method.get(usize::from(first & 3)) else { return };
    let from = client(if first & 4 == 0 { 1 } else { 2 });
    let nonce = if from == client(1) { rig.nonce.clone() } else { rig.challenge(from).unwrap_or_default() };
    let Some(request) = rig.signed(method.value(), attributes, &nonce) else { return };
    rig.out.clear();
    rig.server.handle_datagram(NOW, from, &request, &mut rig.out);
    rig.drain();
    let answered: usize = rig.out.clients.runs().iter().map(|run| run.bytes().len()).sum();
    assert!(answered <= request.len() * AMPLIFICATION_MAX, "{answered} bytes for {}", request.len());
    assert!(rig.server.allocations() <= 2);
}

/// Any stream, in pieces of any size: frames do not depend on how the stream was cut.
pub fn fuzz_framing(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    let pieces = frames(stream, usize::from(*first).max(1));
    assert_eq!(whole, pieces);
    if let Ok(Some(len)) = frame_len(stream) {
        assert!(len <= FRAME_BYTES_MAX && len % 4 == 0);
    }
}

fn frames(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, bool) {
    let mut deframer = Deframer::new();
    let mut found = Vec::new();
    for piece in stream.chunks(size) {
        deframer.push(piece);
        loop {
            match deframer.next_frame() {
                Ok(Some(frame)) => found.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}

fn client(last: u8) -> Addresses {
    let remote = SocketAddr::from(([198, 51, 100, last], 5000));
    Addresses { local: SocketAddr::from(([8, 8, 4, 4], 3478)), remote, protocol: Protocol::Udp }
}

fn media() -> MediaSocket {
    MediaSocket {
        advertised: SocketAddr::from(([8, 8, 4, 4], 7882)),
        local: SocketAddr::from(([10, 0, 0, 1], 7882)),
    }
}

fn config(key: &ApiKey) -> Config {
    let v4 = RelayAddress { bind: Ipv4Addr::new(10, 0, 0, 1), advertised: Ipv4Addr::new(8, 8, 4, 4) };
    let v6 = Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1);
    Config {
        realm: REALM.into(),
        credentials: Credentials { participants: vec![key.clone()], static_auth_secret: None },
        relays: Relays {
            v4: Some(v4),
            v6: Some(RelayAddress { bind: v6, advertised: v6 }),
            ports: PortRange { first: 30_000, last: 30_003 },
        },
        peers: PeerRules::default(),
        node: NodeAddresses { own: Vec::new(), media: vec![media()] },
        quotas: Quotas::default(),
        first_id: 1,
    }
}

impl Rig {
    fn new() -> Option<Self> {
        let api_key = ApiKey { key: "devkey".into(), secret: Redacted::new("secret".into()) };
        let credential = participant_credential(&api_key, &"PA_fuzz".into(), NOW.unix_s() + 300);
        let credentials = LongTermKeyCredentials::new(
            credential.username.clone(),
            credential.password.reveal().clone(),
            REALM.into(),
        );
        let mut rig = Self {
            server: TurnServer::new(config(&api_key), Random::from_seed([9; 32])).ok()?,
            out: Outgoing::new(),
            username: credential.username,
            key: credentials.make_key(IntegrityAlgorithm::Sha1),
            nonce: String::new(),
        };
        rig.nonce = rig.challenge(client(1))?;
        // REQUESTED-TRANSPORT UDP and ADDITIONAL-ADDRESS-FAMILY IPv6; a channel to 9.9.9.9:4000.
        rig.request(ALLOCATE.value(), &[0, 0x19, 0, 4, 17, 0, 0, 0, 0x80, 0, 0, 4, 2, 0, 0, 0])?;
        let [port_high, port_low] = (4000u16 ^ 0x2112).to_be_bytes();
        let [a, b, c, d] = (u32::from_be_bytes([9, 9, 9, 9]) ^ MAGIC_COOKIE).to_be_bytes();
        let peer = [0, 0x12, 0, 8, 0, 1, port_high, port_low, a, b, c, d];
        rig.request(CHANNEL_BIND.value(), &[&[0, 0x0c, 0, 4, 0x40, 0, 0, 0][..], &peer].concat())?;
        (rig.server.counters().successes == 2).then_some(rig)
    }

    fn request(&mut self, method: u16, attributes: &[u8]) -> Option<()> {
        let request = self.signed(method, attributes, &self.nonce.clone())?;
        self.server.handle_datagram(NOW, client(1), &request, &mut self.out);
        self.drain();
        self.out.clear();
        Some(())
    }

    /// Asks for a nonce as clients do.
    fn challenge(&mut self, from: Addresses) -> Option<String> {
        let mut bare = header(ALLOCATE.value(), 8).to_vec();
        bare.extend([0, 0x19, 0, 4, 17, 0, 0, 0]);
        self.server.handle_datagram(NOW, from, &bare, &mut self.out);
        let answer = self.out.clients.runs().first()?.bytes().to_vec();
        self.out.clear();
        let message = Message::from_bytes(&answer).ok()?;
        message.attribute::<Nonce>().ok().map(|nonce| nonce.nonce().to_owned())
    }

    /// A request with these attributes, as they are, and what signs it.
    fn signed(&self, method: u16, attributes: &[u8], nonce: &str) -> Option<Vec<u8>> {
        let mut body = attributes.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        for (kind, text) in
            [(Username::TYPE, self.username.as_str()), (Realm::TYPE, REALM), (Nonce::TYPE, nonce)]
        {
            body.extend(kind.value().to_be_bytes());
            body.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
            body.extend(text.as_bytes());
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let integrity = MessageIntegrity::new([0; 20]);
        let len = u16::try_from(body.len()).ok()?.checked_add(integrity.length())?.checked_add(4)?;
        let mut request = header(method, len).to_vec();
        request.extend(body);
        let tag = MessageIntegrity::compute(&[&request], &self.key).ok()?;
        request.extend(MessageIntegrity::TYPE.value().to_be_bytes());
        request.extend(integrity.length().to_be_bytes());
        request.extend(tag);
        Some(request)
    }

    /// Opens every relay asked for and forgets what is said.
    fn drain(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::OpenRelay { key, .. } => self.server.handle_relay_opened(NOW, key, &mut self.out),
                Output::Timeout(..) => return,
                Output::CloseRelay { .. } | Output::Account(_) => {}
            }
        }
    }
}

fn header(method: u16, len: u16) -> [u8; 20] {
    let mut header = [0; 20];
    let fields = [method.to_be_bytes(), len.to_be_bytes()].concat();
    let bytes = fields.into_iter().chain(MAGIC_COOKIE.to_be_bytes()).chain([7; 12]);
    for (to, from) in header.iter_mut().zip(bytes) {
        *to = from;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rig_has_an_allocation_and_a_channel() {
        let mut rig = Rig::new().expect("a rig");
        rig.server.handle_datagram(NOW, client(1), &[0x40, 0, 0, 1, 5], &mut rig.out);
        assert_eq!(rig.out.peers.runs()[0].bytes(), [5]);
    }
}
