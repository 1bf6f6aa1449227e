//! What an attacker or a broken network can send: nothing of it is answered, and nothing of it ends anything.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::{Addresses, Protocol, Random, SendBatch};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::demux::stun_local_ufrag;
use fanlight_transport::{
    CandidateIgnored, Certificate, CertificateError, DtlsRole, Ignored, Received, RtpOut, Stamps,
};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use support::{
    ABS_SEND_TIME_AT, Options, SERVER_SSRC, TRANSPORT_CC_AT, World, client_address, header, server_address,
};

fn elsewhere() -> SocketAddr {
    ([10, 9, 9, 9], 666).into()
}

fn tuple(remote: SocketAddr) -> Addresses {
    Addresses { local: server_address(), remote, protocol: Protocol::Udp }
}

/// What the server makes of a datagram, and how many it sends for it.
fn feed(world: &mut World, from: SocketAddr, bytes: &[u8]) -> (Option<Ignored>, usize) {
    let mut batch = SendBatch::new();
    let mut bytes = bytes.to_vec();
    let now = world.now;
    let received = world.server.transport.handle_datagram(now, tuple(from), &mut bytes, &mut batch);
    let ignored = match received {
        Received::Nothing(ignored) => Some(ignored),
        Received::Check | Received::Rtp(_) | Received::Rtcp(_) => None,
    };
    (ignored, batch.runs().iter().map(|run| run.segments()).sum())
}

type Captured = Rc<RefCell<Vec<Vec<u8>>>>;

/// A world that keeps what the client sends to the server.
fn capture(options: Options) -> (World, Captured) {
    let mut world = World::new(options);
    let captured = Captured::default();
    let sink = captured.clone();
    world.filter = Box::new(move |node, packet| {
        if node == 0 {
            sink.borrow_mut().push(packet.bytes.clone());
        }
        true
    });
    (world, captured)
}

fn is_dtls(bytes: &[u8]) -> bool {
    (20..64).contains(&bytes[0])
}

fn alive(world: &mut World) {
    let received = world.server.rtp.len();
    let instant = world.instant();
    let sequence = 1_000 + received as u64;
    world.theirs().write(instant, sequence, b"still here");
    world.collect();
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.server.rtp.len(), received + 1);
}

fn lite() -> Options {
    Options { lite: true, ..Options::default() }
}

#[test]
fn a_client_hello_from_an_unverified_address_is_not_answered() {
    for options in [lite(), Options::default()] {
        let (mut world, captured) = capture(options);
        world.run_until(Duration::from_secs(5), World::is_connected);
        let hellos: Vec<_> = captured.borrow().iter().filter(|bytes| is_dtls(bytes)).cloned().collect();

        let (mut fresh, _) = capture(options);
        for hello in &hellos {
            assert_eq!(feed(&mut fresh, elsewhere(), hello), (Some(Ignored::UnverifiedAddress), 0));
            assert_eq!(feed(&mut fresh, client_address(), hello), (Some(Ignored::UnverifiedAddress), 0));
        }
        assert_eq!(fresh.server.transport.selected(), None);
        fresh.run_until(Duration::from_secs(5), World::is_connected);
        alive(&mut fresh);
    }
}

#[test]
fn a_full_agent_holds_an_early_client_hello_until_its_own_check_succeeds() {
    // The client's check is answered and its ClientHello arrives, but our check to it is still on its way.
    let mut world = World::new(Options { candidates_to_server: false, ..Options::default() });
    let dtls_seen = Rc::new(RefCell::new(0));
    let counter = dtls_seen.clone();
    world.filter = Box::new(move |node, packet| {
        *counter.borrow_mut() += usize::from(node == 0 && is_dtls(&packet.bytes));
        true
    });
    let time = world.run_until(Duration::from_secs(5), World::is_connected);
    assert!(time < Duration::from_millis(900), "{time:?}: a second would be the client's retransmission");
    assert_eq!(world.server.transport.counters().unverified_address, 0);
}

#[test]
fn an_alert_before_the_client_hello_changes_nothing() {
    let mut world = World::new(lite());
    world.run_until(Duration::from_secs(5), |world| world.server.transport.counters().stun > 0);
    let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
    let (_, sent) = feed(&mut world, client_address(), &alert);
    assert_eq!(sent, 0);
    world.run_until(Duration::from_secs(5), World::is_connected);
    alive(&mut world);
}

#[test]
fn an_active_side_survives_a_foreign_first_datagram() {
    let mut world = World::new(Options { role: DtlsRole::Active, ..lite() });
    world.run_until(Duration::from_secs(5), |world| world.server.transport.selected().is_some());
    for first in [20, 21, 22, 23, 25, 26, 0x2f] {
        feed(&mut world, client_address(), &[&[first, 0xfe, 0xfd][..], &[0; 40]].concat());
    }
    world.run_until(Duration::from_secs(5), World::is_connected);
    alive(&mut world);
}

#[test]
fn truncated_and_mutated_datagrams_do_nothing() {
    for options in [lite(), Options::default()] {
        let (mut world, captured) = capture(options);
        world.run_until(Duration::from_secs(5), World::is_connected);
        let datagrams = captured.borrow().clone();
        let mut random = Random::from_seed([3; 32]);
        for datagram in &datagrams {
            for _ in 0..20 {
                let len = random.below(datagram.len() as u64) as usize;
                feed(&mut world, client_address(), &datagram[..len]);
                let mut mutated = datagram.clone();
                let at = random.below(mutated.len() as u64) as usize;
                // Not the record's epoch: plaintext records after the handshake are the library's to drop, which the
                // mutations of everything else already try.
                mutated[at] ^= random.below(255) as u8 + 1;
                feed(&mut world, client_address(), &mutated);
                feed(&mut world, elsewhere(), &mutated);
            }
        }
        for _ in 0..2_000 {
            let mut noise = vec![0; random.below(200) as usize];
            random.fill(&mut noise);
            feed(&mut world, client_address(), &noise);
            feed(&mut world, elsewhere(), &noise);
        }
        assert!(world.is_connected(), "{:?}", world.server.events.last());
        alive(&mut world);
    }
}

#[test]
fn a_wrong_tag_never_comes_out_and_is_counted() {
    let (mut world, captured) = capture(lite());
    world.run_until(Duration::from_secs(5), World::is_connected);
    let instant = world.instant();
    world.theirs().write(instant, 1, b"genuine");
    world.collect();
    world.run_for(Duration::from_millis(50));
    let is_rtp = |bytes: &&Vec<u8>| bytes[0] >= 128 && bytes[1] == 111;
    let packet = captured.borrow().iter().rfind(is_rtp).expect("sent").clone();
    let before = world.server.transport.counters();
    for _ in 0..200 {
        let mut forged = packet.clone();
        forged[3] ^= 2;
        *forged.last_mut().expect("not empty") ^= 1;
        assert_eq!(feed(&mut world, client_address(), &forged).0, Some(Ignored::WrongTag));
    }
    assert_eq!(feed(&mut world, client_address(), &packet).0, Some(Ignored::Replayed));
    assert_eq!(feed(&mut world, elsewhere(), &packet).0, Some(Ignored::UnverifiedAddress));
    let after = world.server.transport.counters();
    assert_eq!(after.wrong_tag - before.wrong_tag, 200);
    assert_eq!((after.replayed, after.unverified_address), (1, before.unverified_address + 1));
    alive(&mut world);
}

#[test]
fn media_before_the_handshake_is_dropped_and_cannot_be_sent() {
    let mut world = World::new(lite());
    world.run_until(Duration::from_secs(5), |world| world.server.transport.counters().stun > 0);
    let rtp = header(1, 1);
    assert_eq!(feed(&mut world, client_address(), &rtp).0, Some(Ignored::NoKeys));
    let out = RtpOut {
        header: &rtp,
        prefix: &[],
        payload: &[],
        padding_bytes: 0,
        extended_sequence: 1,
        transport_cc_offset: None,
        abs_send_time_offset: None,
    };
    assert!(world.with_server(|server, now, batch| server.send_rtp(now, batch, &out)).is_none());
    assert!(!world.with_server(|server, _, batch| server.send_rtcp(batch, &[0x80, 201, 0, 1, 0, 0, 0, 1])));
    assert_eq!(world.server.transport.counters().unsendable, 2);
}

#[test]
fn candidates_that_cannot_be_used_are_ignored_with_a_reason() {
    let mut world = World::new(Options::default());
    let mut add = |line: &str| world.with_server(|server, now, _| server.add_remote_candidate(now, line));
    let mdns = "candidate:1 1 udp 2113937151 0c7e0f2c-4a0a-4f5b-9f1c-6a3f1f6f3b3d.local 50000 typ host";
    assert_eq!(add(mdns), Err(CandidateIgnored::MulticastDns));
    assert_eq!(
        add("candidate:1 1 TCP 2105458943 192.0.2.2 9 typ host tcptype active"),
        Err(CandidateIgnored::Tcp)
    );
    assert_eq!(add(""), Err(CandidateIgnored::End));
    assert_eq!(add("a=end-of-candidates"), Err(CandidateIgnored::End));
    assert_eq!(add("nonsense"), Err(CandidateIgnored::Malformed));
    assert_eq!(add("candidate:1 1 udp x 1.2.3.4 5 typ host"), Err(CandidateIgnored::Malformed));
    assert_eq!(
        add(&format!("candidate:1 1 udp 1 1.2.3.4 5 typ host {}", "x ".repeat(400))),
        Err(CandidateIgnored::Malformed)
    );
    assert_eq!(add("candidate:1 1 udp 1 1.2.3.4 5 typ host ufrag other"), Err(CandidateIgnored::OtherUfrag));
    let taken: SocketAddr = ([1, 2, 3, 4], 5).into();
    assert_eq!(add("a=candidate:1 1 UDP 1 1.2.3.4 5 typ host"), Ok(taken));
    assert_eq!(add("1 1 udp 1 1.2.3.4 5 typ host"), Ok(taken));
    let mut last = Ok(taken);
    for port in 1_000..1_100 {
        last = add(&support::candidate_line(([1, 2, 3, 4], port).into()));
    }
    assert_eq!(last, Err(CandidateIgnored::TooMany));
    world.run_until(Duration::from_secs(5), World::is_connected);
    alive(&mut world);
}

#[test]
fn local_candidates_may_share_a_socket_but_not_be_nonsense() {
    let mut world = World::new(lite());
    let socket = server_address();
    let transport = &mut world.server.transport;
    let announced: SocketAddr = ([203, 0, 113, 1], 7882).into();
    assert!(transport.add_local_candidate(LocalCandidate {
        addr: socket,
        announced,
        protocol: Protocol::Udp
    }));
    assert!(transport.add_local_candidate(LocalCandidate::new(socket, Protocol::Tcp)));
    assert!(!transport.add_local_candidate(LocalCandidate::new(([0, 0, 0, 0], 1).into(), Protocol::Udp)));
    assert!(!transport.add_local_candidate(LocalCandidate::new(([224, 0, 0, 1], 1).into(), Protocol::Udp)));
    assert_eq!(transport.local_candidates().len(), 3);
}

#[test]
fn stun_is_found_by_its_ufrag_and_accepted_by_its_integrity_only() {
    let (mut world, captured) = capture(lite());
    world.run_until(Duration::from_secs(5), World::is_connected);
    let request = captured.borrow().iter().find(|bytes| bytes[0] == 0).expect("a check").clone();
    assert_eq!(stun_local_ufrag(&request), Some(world.server.transport.local_ufrag()));
    assert!(world.server.transport.accepts(&request));
    let mut forged = request.clone();
    let at = forged.len() - 20;
    forged[at] ^= 1;
    assert!(!world.server.transport.accepts(&forged));
    assert_eq!(feed(&mut world, elsewhere(), &forged), (Some(Ignored::NotAccepted), 0));
    assert!(
        feed(&mut world, elsewhere(), &request).1 > 0,
        "a genuine check is answered wherever it comes from"
    );
}

#[test]
fn a_stun_flood_with_forged_integrity_leaves_no_trace() {
    let mut world = World::connected(lite());
    let ufrag = world.server.transport.local_ufrag().to_owned();
    let mut forged = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    forged.extend([1; 12]);
    let username = format!("{ufrag}:xxx");
    forged.extend([0, 6, 0, username.len() as u8]);
    forged.extend(username.as_bytes());
    forged.extend(vec![0; forged.len().next_multiple_of(4) - forged.len()]);
    forged.extend([0, 0x24, 0, 4, 1, 2, 3, 4]);
    forged.extend([0, 8, 0, 20]);
    forged.extend([7; 20]);
    forged[3] = (forged.len() - 20) as u8;
    for port in 0..5_000 {
        assert_eq!(feed(&mut world, ([10, 9, 9, 9], port).into(), &forged), (Some(Ignored::NotAccepted), 0));
    }
    let learnt = (0..5_000)
        .filter(|port| world.server.transport.heard(tuple(([10, 9, 9, 9], *port).into())).is_some());
    assert_eq!(learnt.count(), 0);
    alive(&mut world);
}

#[test]
fn a_retransmission_without_rtx_is_byte_identical() {
    let mut world = World::connected(lite());
    let header = header(SERVER_SSRC, 5);
    let out = RtpOut {
        header: &header,
        prefix: &[],
        payload: b"payload",
        padding_bytes: 0,
        extended_sequence: 5,
        transport_cc_offset: Some(TRANSPORT_CC_AT),
        abs_send_time_offset: Some(ABS_SEND_TIME_AT),
    };
    let now = world.now;
    let server = &mut world.server.transport;
    let mut batch = SendBatch::new();
    let first = server.send_rtp(now, &mut batch, &out).expect("sent");
    let later = fanlight_base::Now { unix_ns: now.unix_ns + 77_000_000, ..now };
    let other = server.send_rtp(later, &mut batch, &RtpOut { extended_sequence: 6, ..out }).expect("sent");
    assert_eq!((first.transport_cc, other.transport_cc), (Some(1), Some(2)));
    assert_ne!(first.stamps.abs_send_time, other.stamps.abs_send_time);
    let again = server.resend_rtp(&mut batch, &out, first.stamps).expect("sent");
    assert_eq!(again, first);
    let packets: Vec<_> = batch.runs().iter().flat_map(|run| run.packets()).collect();
    assert_eq!(packets[0], packets[2]);
    assert_eq!(batch.runs().len(), 1, "packets of one size to one address are one run");
    assert_eq!(first.bytes, packets[0].len());
    assert_eq!(server.next_transport_cc(), 3, "a retransmission takes no new number");
}

#[test]
fn a_packet_that_cannot_be_sealed_leaves_nothing_in_the_batch() {
    let mut world = World::connected(lite());
    let header = header(SERVER_SSRC, 5);
    let out = RtpOut {
        header: &header,
        prefix: &[],
        payload: b"payload",
        padding_bytes: 0,
        extended_sequence: 5,
        transport_cc_offset: Some(header.len() - 1),
        abs_send_time_offset: None,
    };
    let mut batch = SendBatch::new();
    let server = &mut world.server.transport;
    assert!(server.send_rtp(world.now, &mut batch, &out).is_none());
    let too_far = RtpOut { transport_cc_offset: None, extended_sequence: 1 << 48, ..out };
    assert!(server.resend_rtp(&mut batch, &too_far, Stamps::default()).is_none());
    assert_eq!(batch.runs().iter().map(|run| run.segments()).sum::<usize>(), 0);
    assert_eq!((server.counters().unsendable, server.next_transport_cc()), (2, 1));
}

/// An ECDSA certificate of more than 3 kB, which is more than our buffer usually holds.
fn large_certificate() -> Certificate {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "o".repeat(1_500));
    let certificate = parameters.self_signed(&key).expect("a certificate");
    assert!((3_000..4_096).contains(&certificate.der().len()));
    Certificate::from_der(certificate.der().to_vec(), key.serialize_der()).expect("usable")
}

#[test]
fn a_peer_with_a_large_certificate_is_no_danger() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let large = Options { role, foreign: false, certificate: large_certificate, ..lite() };
        let mut world = World::connected(large);
        let report = [0x80, 201, 0, 1, 0, 0, 0x20, 0];
        assert!(world.with_client(|client, _, batch| client.send_rtcp(batch, &report)));
        world.run_for(Duration::from_millis(50));
        assert_eq!(world.server.rtcp, [report]);
    }
}

#[test]
fn a_certificate_that_makes_no_flight_is_refused_at_the_start() {
    let refused = Certificate::from_der(vec![0x30; 4_097], Vec::new());
    assert_eq!(refused.map(|_| ()), Err(CertificateError::TooLong));
}

#[test]
fn rtcp_travels_both_ways() {
    let mut world = World::connected(Options { foreign: false, ..lite() });
    let report = [0x80, 201, 0, 1, 0, 0, 0x20, 0];
    assert!(world.with_server(|server, _, batch| server.send_rtcp(batch, &report)));
    assert!(world.with_client(|client, _, batch| client.send_rtcp(batch, &report)));
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.ours().rtcp, [report]);
    assert_eq!(world.server.rtcp, [report]);
}
