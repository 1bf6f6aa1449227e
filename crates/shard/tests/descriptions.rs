//! Descriptions of one connection are turns apart, however fast it sends them.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use fanlight_base::{Mono, PeerKey};
use fanlight_sfu::envelope::{BadEnvelope, DataEnvelope, Routed, Sender};
use fanlight_sfu::input::Request;
use fanlight_sfu::{Sfu, SfuConfig, TextLimits};
use fanlight_shard::{Clock, Counters, Requested, Shard, ShardHandle, Sinks, bind_udp};
use fanlight_transport::negotiate::RemoteDescription;
use fanlight_transport::{Certificate, ClockAnchor};
use std::sync::mpsc::{Sender as Queue, channel};
use std::time::{Duration, Instant};

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const OFFERS: usize = 300;

/// What a connection may have in the shard's queue; it sends the next offer the moment it has it back.
struct Credit {
    connection: ShardHandle,
    counters: Counters,
    left: usize,
    turns: Queue<u64>,
}

impl Credit {
    fn spend(self) {
        let connection = self.connection.clone();
        let request = Request::Offer { id: 1, sdp: Box::new(offer()) };
        connection.request(Requested { peer: PeerKey(1), request, credit: Box::new(self) }).unwrap();
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.turns.send(self.counters.snapshot().turns).unwrap();
        if let Some(left) = self.left.checked_sub(1) {
            let (connection, counters) = (self.connection.clone(), self.counters.clone());
            Credit { connection, counters, left, turns: self.turns.clone() }.spend();
        }
    }
}

#[test]
fn a_connection_has_one_description_a_turn() {
    let anchor = Instant::now();
    let sfu = Sfu::new(SfuConfig {
        shard: 0,
        seed: [1; 32],
        certificate: Certificate::generate().unwrap(),
        anchor: ClockAnchor::new(anchor, Mono::default()),
        candidates: Vec::new(),
        texts: TextLimits::default(),
        envelope: DataEnvelope { route: no_data },
        encode_info: |_| Vec::new(),
    });
    let sinks = Sinks { control: Box::new(|_| Ok(())), event: Box::new(|_| true), metrics: None };
    let udp = bind_udp(([127, 0, 0, 1], 0).into(), "rtc.udp_port").unwrap();
    let shard = Shard::start("shard".to_owned(), sfu, Clock::new(anchor), vec![udp], None, sinks).unwrap();
    let (turns, seen) = channel();
    let (connection, counters) = (shard.handle.clone(), shard.counters.clone());
    Credit { connection, counters, left: OFFERS - 1, turns }.spend();
    let turns: Vec<u64> = (0..OFFERS).map(|_| seen.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(turns.is_sorted_by(|earlier, later| earlier < later), "two in one turn: {turns:?}");
    assert!(shard.stop(), "it ended well");
}

fn offer() -> RemoteDescription {
    let fingerprint = vec!["00"; 32].join(":");
    let text = format!(
        "v=0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n"
    );
    RemoteDescription::parse(&text).unwrap()
}

fn no_data(_: &[u8], _: &Sender<'_>) -> Result<Routed, BadEnvelope> {
    Err(BadEnvelope)
}
