//! Connections in virtual time against an independent stack.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanlight_base::{Addresses, Now, Protocol};
use fanlight_transport::{
    DtlsRole, DtlsVersion, FailReason, Fingerprint, IceState, RemoteError, RemoteParameters, RemoteSet,
    RtpOut, Setup, Transport, TransportEvent, Why,
};
use std::net::SocketAddr;
use std::time::Duration;
use support::{
    ABS_SEND_TIME_AT, Client, Options, SERVER_SSRC, TRANSPORT_CC_AT, World, client_address, header,
    server_address,
};

fn out(header: &[u8], sequence: u64) -> RtpOut<'_> {
    RtpOut {
        header,
        prefix: &[],
        payload: b"from the server",
        padding_bytes: 0,
        extended_sequence: sequence,
        transport_cc_offset: Some(TRANSPORT_CC_AT),
        abs_send_time_offset: Some(ABS_SEND_TIME_AT),
    }
}

fn send_from_server(world: &mut World, sequence: u64) -> bool {
    let header = header(SERVER_SSRC, sequence as u16);
    world.with_server(|server, now, batch| server.send_rtp(now, batch, &out(&header, sequence)).is_some())
}

fn media_flows(world: &mut World, first: u64) {
    let received = (world.server.rtp.len(), world.theirs().rtp.len());
    for sequence in first..first + 20 {
        assert!(send_from_server(world, sequence));
        let instant = world.instant();
        world.theirs().write(instant, sequence, b"from the client");
        world.collect();
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.server.rtp.len(), received.0 + 20);
    assert_eq!(world.theirs().rtp.len(), received.1 + 20);
    let payload = world.theirs().rtp.last().expect("received").payload.clone();
    assert_eq!(&payload[..], b"from the server");
    let (extended_sequence, packet) = world.server.rtp.last().expect("received").clone();
    assert_eq!(extended_sequence, first + 19);
    assert!(packet.ends_with(b"from the client"));
}

fn lite() -> Options {
    Options { lite: true, ..Options::default() }
}

#[test]
fn a_full_agent_connects_and_media_flows_both_ways() {
    let mut world = World::connected(Options::default());
    assert!(matches!(
        world.server.events.as_slice(),
        [
            ..,
            TransportEvent::Connected {
                profile: Some(_),
                version: DtlsVersion::Dtls13 | DtlsVersion::Dtls12
            }
        ]
    ));
    media_flows(&mut world, 1);
    assert_eq!(world.server.transport.ice_state(), IceState::Connected);
    assert!(world.server.transport.round_trip().is_some_and(|rtt| rtt >= Duration::from_millis(20)));
    let counters = world.server.transport.counters();
    assert_eq!((counters.rtp, counters.rtp_sent, counters.wrong_tag, counters.unsendable), (20, 20, 0, 0));
}

#[test]
fn a_lite_agent_connects_within_a_few_round_trips() {
    let mut world = World::new(lite());
    let time = world.run_until(Duration::from_secs(10), World::is_connected);
    assert!(time < Duration::from_millis(400), "{time:?} with a round trip of 20 ms");
    media_flows(&mut world, 1);
    assert_eq!(world.server.transport.round_trip(), None);
}

#[test]
fn a_server_that_offers_is_controlling_and_connects() {
    let mut world = World::connected(Options { server_offers: true, ..Options::default() });
    media_flows(&mut world, 1);
}

#[test]
fn we_can_be_the_dtls_client() {
    for lite in [false, true] {
        let mut world = World::connected(Options { lite, role: DtlsRole::Active, ..Options::default() });
        assert_eq!(world.server.transport.role(), Some(DtlsRole::Active));
        media_flows(&mut world, 1);
    }
}

#[test]
fn two_of_ours_connect_in_either_role() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let mut world = World::connected(Options { foreign: false, role, ..Options::default() });
        assert!(send_from_server(&mut world, 7));
        world.run_for(Duration::from_millis(50));
        assert_eq!(world.ours().rtp.len(), 1);
    }
}

#[test]
fn checks_of_ours_make_the_pair_when_the_client_sends_none_first() {
    // Firefox as shipped does not check a server on 127.0.0.1: the pair is made by our checks and its triggered ones.
    let mut world = World::new(Options { foreign: false, ..Options::default() });
    let mut seen = false;
    world.filter = Box::new(move |node, _| {
        seen |= node == 1;
        seen
    });
    world.run_until(Duration::from_secs(10), World::is_connected);
    let announced = world.server.count(|event| matches!(event, TransportEvent::Check(_)));
    assert!(announced >= 1, "demultiplexing has to know which answers will come");
}

#[test]
fn a_client_whose_candidates_never_come_is_found_by_its_checks() {
    for lite in [false, true] {
        let options = Options { lite, candidates_to_server: false, ..Options::default() };
        media_flows(&mut World::connected(options), 1);
    }
}

#[test]
fn a_connection_over_tcp_is_taken_up_on_the_clients_next_one() {
    for lite in [true, false] {
        let tcp = Options { lite, protocol: Protocol::Tcp, ..Options::default() };
        let mut world = World::connected(tcp);
        media_flows(&mut world, 1);
        let (local, protocol) = (server_address(), Protocol::Tcp);
        let first = Addresses { local, remote: client_address(), protocol };
        assert_eq!(world.server.transport.selected(), Some(first));

        world.with_server(|server, now, batch| server.remove_tuple(now, first, batch));
        assert_eq!(world.server.transport.selected(), None);
        assert!(!send_from_server(&mut world, 100));
        let next: SocketAddr = ([10, 0, 0, 2], 50_001).into();
        let (old, new) = (support::candidate(client_address(), protocol), support::candidate(next, protocol));
        world.theirs().rtc.add_local_candidate(new).expect("added");
        world.theirs().rtc.direct_api().invalidate_candidate(&old);
        let selected = Some(Addresses { local, remote: next, protocol });
        let time =
            world.run_until(Duration::from_secs(5), |world| world.server.transport.selected() == selected);
        assert!(time < Duration::from_secs(4), "{time:?}");
        world.run_for(Duration::from_secs(1));
        media_flows(&mut world, 101);
    }
}

#[test]
fn a_handshake_of_which_our_first_datagrams_are_lost_recovers_soon() {
    // Only ours: the other stack waits a second before it sends its own again.
    for lost in [1, 2, 3] {
        let mut world = World::new(lite());
        let mut dtls = 0;
        world.filter = Box::new(move |node, packet| {
            let ours = node == 1 && (20..64).contains(&packet.bytes[0]);
            dtls += usize::from(ours);
            !ours || dtls > lost
        });
        let time = world.run_until(Duration::from_secs(10), World::is_connected);
        assert!(time < Duration::from_millis(900), "{lost} lost: {time:?}");
    }
}

#[test]
fn a_false_fingerprint_ends_the_connection_before_any_key() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let mut world = World::new(Options { role, ..Options::default() });
        let anchor = world.anchor;
        let mut server =
            support::Ours::new(anchor, 1, Options { role, ..Options::default() }, server_address());
        let setup = if role == DtlsRole::Passive { Setup::Active } else { Setup::Passive };
        let mut remote = world.theirs().parameters(setup);
        remote.fingerprint = Fingerprint::sha256(b"somebody else");
        server.transport.set_remote(world.now, &remote).expect("taken");
        let line = support::candidate_line(client_address());
        server.transport.add_remote_candidate(world.now, &line).expect("taken");
        let parameters = server.parameters(Setup::ActPass);
        world.theirs().take(&parameters);
        world.server = server;
        world.filter = Box::new(|_, _| true);
        world.run_until(Duration::from_secs(10), |world| world.server.transport.is_ended());
        let failed = |event: &TransportEvent| *event == TransportEvent::Failed(FailReason::Fingerprint);
        assert_eq!(world.server.count(failed), 1);
        assert_eq!(world.server.count(|event| matches!(event, TransportEvent::Connected { .. })), 0);
        assert!(!send_from_server(&mut world, 1));
    }
}

#[test]
fn an_ice_restart_of_the_client_keeps_media_flowing() {
    let mut world = World::connected(Options { foreign: false, ..Options::default() });
    let before =
        (world.server.transport.local_ufrag().to_owned(), world.server.transport.local_password().to_owned());
    world.with_client(|client, now, _| client.restart_ice(now));
    let remote = world.ours().parameters(Setup::ActPass);
    let outcome = world.with_server(|server, now, _| server.set_remote(now, &remote));
    assert_eq!(outcome, Ok(RemoteSet::Restarted));
    assert_ne!(before.0, world.server.transport.local_ufrag());
    assert_ne!(before.1, world.server.transport.local_password());
    assert!(send_from_server(&mut world, 1), "the old pair is used until there is a new one");
    world.run_for(Duration::from_millis(30));
    assert_eq!(world.ours().rtp.len(), 1);
    finish_restart(&mut world, false);
}

#[test]
fn an_ice_restart_of_ours_keeps_media_flowing() {
    let mut world = World::connected(Options { foreign: false, ..Options::default() });
    world.with_server(|server, now, _| server.restart_ice(now));
    assert!(send_from_server(&mut world, 1));
    let remote = world.server.parameters(Setup::ActPass);
    let outcome = world.with_client(|client, now, _| client.set_remote(now, &remote));
    assert_eq!(outcome, Ok(RemoteSet::Restarted));
    finish_restart(&mut world, true);
}

fn finish_restart(world: &mut World, to_server: bool) {
    if to_server {
        let remote = world.ours().parameters(Setup::Active);
        let outcome = world.with_server(|server, now, _| server.set_remote(now, &remote));
        assert_eq!(outcome, Ok(RemoteSet::RestartAnswered));
        assert_eq!(
            world.with_server(|server, now, _| server.set_remote(now, &remote)),
            Ok(RemoteSet::Unchanged)
        );
    } else {
        let remote = world.server.parameters(Setup::Passive);
        let outcome = world.with_client(|client, now, _| client.set_remote(now, &remote));
        assert_eq!(outcome, Ok(RemoteSet::RestartAnswered));
    }
    let line = support::candidate_line(client_address());
    world.with_server(|server, now, _| server.add_remote_candidate(now, &line)).expect("taken");
    let line = support::candidate_line(server_address());
    world.with_client(|client, now, _| client.add_remote_candidate(now, &line)).expect("taken");
    world
        .run_until(Duration::from_secs(5), |world| world.server.transport.ice_state() == IceState::Connected);
    world.run_for(Duration::from_secs(1));
    let received = world.ours().rtp.len();
    for sequence in 2..12 {
        assert!(send_from_server(world, sequence));
        world.run_for(Duration::from_millis(20));
    }
    assert_eq!(world.ours().rtp.len(), received + 10);
    assert!(world.is_connected());
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.server.transport.ice_state(), IceState::Connected, "the new pair is kept alive");
}

#[test]
fn a_restart_of_a_foreign_client_is_answered_with_new_credentials() {
    let mut world = World::connected(lite());
    let creds = str0m::IceCreds { ufrag: "fresh".into(), pass: "a fresh password of 22+".into() };
    world.theirs().rtc.direct_api().set_local_ice_credentials(creds);
    let remote = world.theirs().parameters(Setup::Active);
    let outcome = world.with_server(|server, now, _| server.set_remote(now, &remote));
    assert_eq!(outcome, Ok(RemoteSet::Restarted));
    let parameters = world.server.parameters(Setup::Passive);
    world.theirs().take(&parameters);
    media_flows(&mut world, 1);
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.server.transport.ice_state(), IceState::Connected);
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    let mut world = World::connected(Options::default());
    let mut remote = world.theirs().parameters(Setup::Active);
    let known = remote.fingerprint.clone();
    remote.fingerprint = Fingerprint::sha256(b"another");
    let set = |world: &mut World, remote: &RemoteParameters| {
        world.with_server(|server, now, _| server.set_remote(now, remote))
    };
    assert_eq!(set(&mut world, &remote), Err(RemoteError::FingerprintChanged));
    remote.fingerprint = known;
    remote.ufrag = "abc".into();
    assert_eq!(set(&mut world, &remote), Err(RemoteError::Credentials));
    media_flows(&mut world, 1);
}

#[test]
fn the_longest_ufrag_is_one_that_a_check_can_name() {
    for (letters, outcome) in [(111, Ok(RemoteSet::Started)), (112, Err(RemoteError::Credentials))] {
        let mut world = World::new(Options::default());
        let mut server = support::Ours::new(world.anchor, 1, Options::default(), server_address());
        let remote =
            RemoteParameters { ufrag: "u".repeat(letters), ..world.theirs().parameters(Setup::Active) };
        assert_eq!(server.transport.set_remote(world.now, &remote), outcome, "{letters}");
        let line = support::candidate_line(client_address());
        server.transport.add_remote_candidate(world.now, &line).expect("taken");
        world.server = server;
        world.run_for(Duration::from_secs(1));
        let checks = world.server.count(|event| matches!(event, TransportEvent::Check(_)));
        assert_eq!(checks > 0, outcome.is_ok(), "{letters}: {checks} checks");
    }
}

#[test]
fn our_close_is_seen_by_the_client_and_ends_everything() {
    let mut world = World::connected(Options { foreign: false, ..Options::default() });
    world.with_server(|server, now, batch| server.close(now, batch));
    assert!(world.server.transport.is_ended());
    assert_eq!(world.server.transport.poll_timeout().1, Why::Idle);
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.ours().count(|event| *event == TransportEvent::Closed), 1);
    assert!(world.ours().transport.is_ended());
    assert!(!send_from_server(&mut world, 1));
}

#[test]
fn a_client_that_vanishes_is_missed_after_fifteen_seconds() {
    for lite in [true, false] {
        let mut world = World::connected(Options { lite, foreign: false, ..Options::default() });
        world.run_for(Duration::from_secs(5));
        world.filter = Box::new(|_, _| false);
        let gone = |world: &World| world.server.transport.ice_state() == IceState::Disconnected;
        let time = world.run_until(Duration::from_secs(60), gone);
        assert!((11..19).contains(&time.as_secs()), "lite {lite}: {time:?}");
        world.filter = Box::new(|_, _| true);
        world.run_for(Duration::from_secs(5));
        let counters = world.server.transport.counters();
        assert_eq!(counters.events_refused, 0);
    }
}

#[test]
fn an_idle_transport_sleeps_most_of_the_time() {
    let mut world = World::connected(lite());
    world.run_for(Duration::from_secs(5));
    let mut wakes = 0;
    let end = world.now.mono_ns + 10_000_000_000;
    while world.server.transport.poll_timeout().0.ns < end {
        let at = world.server.transport.poll_timeout().0.ns;
        let time = at.saturating_sub(world.now.mono_ns).max(1);
        world.run_for(Duration::from_nanos(time));
        wakes += 1;
    }
    assert!(wakes <= 40, "{wakes} wakes in 10 s");
}

#[test]
fn the_client_is_served_at_once_and_not_when_the_agents_timer_says() {
    let mut world = World::new(lite());
    assert_eq!(world.server.transport.poll_timeout().0.ns, world.now.mono_ns, "set_remote asks to be called");
    world.run_until(Duration::from_millis(400), |world| world.server.transport.selected().is_some());
}

#[test]
fn both_ends_of_one_seed_have_the_same_credentials() {
    let options = Options::default();
    let anchor = support::anchor();
    let ours = |seed| support::Ours::new(anchor, seed, options, server_address()).transport;
    let text = |transport: &Transport| format!("{} {}", transport.local_ufrag(), transport.local_password());
    assert_eq!(text(&ours(5)), text(&ours(5)));
    assert_ne!(text(&ours(5)), text(&ours(6)));
    let transport = ours(5);
    assert_eq!((transport.local_ufrag().len(), transport.local_password().len()), (16, 32));
}

#[test]
fn a_timer_that_comes_late_does_no_harm() {
    let mut world = World::connected(Options::default());
    let late = Now { mono_ns: world.now.mono_ns + 3_600_000_000_000, ..world.now };
    let mut batch = fanlight_base::SendBatch::new();
    world.server.transport.handle_timeout(late, &mut batch);
    assert!(matches!(world.client, Client::Theirs(_)));
    assert_eq!(world.server.transport.counters().events_refused, 0);
}
