//! What releases of coturn say differently, in the words of each: 4.5, 4.6 and 4.17.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fanlight_telemetry::decode::coturn::{Message, read};
use fanlight_telemetry::decode::release::Release;
use fanlight_telemetry::turn_account::{
    AllocationRecord, Class, EndReason, Health, LegCounters, Output, Quality, SessionRecord, Settings,
    TurnAccount,
};

/// An accounting that hears one message after another.
struct Ear {
    account: TurnAccount,
    release: Option<Release>,
    /// Where the input names servers.
    node: Option<&'static str>,
    ms: u64,
    allocations: Vec<AllocationRecord>,
    sessions: Vec<SessionRecord>,
}

impl Ear {
    fn new(release: &str) -> Self {
        Self {
            account: TurnAccount::new(Settings::default(), 1),
            release: Some(release.parse().unwrap()),
            node: None,
            ms: 1_000_000,
            allocations: Vec::new(),
            sessions: Vec::new(),
        }
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.ms += ms;
        self.account.handle_timeout(self.ms);
        self.drain();
        self
    }

    fn hear(&mut self, channel: &str, payload: &str) -> &mut Self {
        let Ok(Message::Event(name, event)) = read(channel, payload) else {
            panic!("unreadable: {channel} {payload}")
        };
        let event = self.release.map_or(event.clone(), |release| release.correct(event));
        self.account.handle_event(self.ms, self.node, &name, event);
        self.drain();
        self
    }

    fn drain(&mut self) {
        loop {
            match self.account.poll_output() {
                Output::Allocation(record) => {
                    self.allocations.retain(|known| known.number != record.number);
                    self.allocations.push(*record);
                }
                Output::Session(record) => {
                    self.sessions.retain(|known| known.number != record.number);
                    self.sessions.push(*record);
                }
                Output::WhoIs(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }

    fn allocation(&self) -> &AllocationRecord {
        assert_eq!(self.allocations.len(), 1, "{:#?}", self.allocations);
        &self.allocations[0]
    }

    fn session(&self) -> &SessionRecord {
        assert_eq!(self.sessions.len(), 1, "{:#?}", self.sessions);
        &self.sessions[0]
    }

    fn health(&self) -> &Health {
        self.account.health()
    }
}

fn leg(rx_packets: u64, rx_bytes: u64, tx_packets: u64, tx_bytes: u64) -> LegCounters {
    LegCounters { rx_packets, rx_bytes, tx_packets, tx_bytes }
}

const STATUS_OF_4_6: &str = "type=UDP, local=10.0.0.1:3478, remote=10.9.9.9:4000, ssl=NONE, cipher=NONE";

#[test]
fn coturn_4_5_without_a_peer_leg_is_exact_for_what_it_tells_and_classed_by_the_client_leg() {
    for (packets, bytes, class) in [(5, 500, Class::Unused), (900, 150_000, Class::Relayed)] {
        let mut ear = Ear::new("4.5.1.1");
        let base = "turn/realm/r/user/1795231283:old/allocation/000000000000000001";
        let counters = format!("rcvp={packets}, rcvb={bytes}, sentp={packets}, sentb={bytes}");
        ear.hear(&format!("{base}/status"), "new lifetime=600");
        ear.after(60_000).hear(&format!("{base}/status"), "refreshed lifetime=0");
        ear.after(900).hear(&format!("{base}/traffic"), &counters);
        ear.hear(&format!("{base}/status"), "deleted").hear(&format!("{base}/total_traffic"), &counters);
        ear.after(5_000);
        let allocation = ear.allocation();
        assert_eq!(
            (allocation.client, allocation.quality),
            (leg(packets, bytes, packets, bytes), Quality::Exact)
        );
        assert_eq!((allocation.peer, allocation.class), (LegCounters::default(), class), "{packets} packets");
        assert_eq!((ear.session().class, ear.session().held_ms()), (class, 60_000), "{packets} packets");
    }
}

#[test]
fn coturn_4_5_2_tells_of_peers_but_not_of_addresses() {
    let mut ear = Ear::new("4.5.2");
    let base = "turn/user/ann/allocation/001000000000000007";
    ear.hear(&format!("{base}/status"), "new lifetime=600").after(30_000);
    ear.hear(&format!("{base}/traffic"), "rcvp=700, rcvb=120000, sentp=700, sentb=119000");
    ear.hear(&format!("{base}/traffic/peer"), "rcvp=690, rcvb=110400, sentp=690, sentb=110400");
    ear.hear(&format!("{base}/status"), "deleted");
    ear.hear(&format!("{base}/total_traffic"), "rcvp=700, rcvb=120000, sentp=700, sentb=119000");
    ear.hear(&format!("{base}/total_traffic/peer"), "rcvp=690, rcvb=110400, sentp=690, sentb=110400");
    let allocation = ear.allocation();
    assert_eq!((allocation.name.realm.as_str(), allocation.name.user.as_str()), ("", "ann"));
    assert_eq!((allocation.path.local.as_str(), allocation.path.tls.as_str()), ("", ""));
    assert_eq!((allocation.peer, allocation.quality), (leg(690, 110_400, 690, 110_400), Quality::Exact));
    assert_eq!(ear.session().class, Class::Relayed);
}

#[test]
fn coturn_4_6_garbles_names_with_percent_and_is_one_allocation_all_the_same() {
    let mut ear = Ear::new("4.6");
    let base = |garbled: &str| {
        format!("turn/realm/r/user/1795231299:me{garbled}xample.org/allocation/000000000000000009")
    };
    ear.hear(
        &format!("{}/status", base("          6.932456e-310")),
        &format!("new lifetime=600, {STATUS_OF_4_6}"),
    );
    ear.after(5_000)
        .hear(&format!("{}/traffic", base("     0.000000e+00")), "rcvp=9, rcvb=900, sentp=9, sentb=900");
    ear.hear(&format!("{}/traffic/peer", base("  1.5e-310")), "rcvp=4, rcvb=400, sentp=4, sentb=400");
    ear.hear(&format!("{}/status", base("   2.5e-310")), "deleted");
    ear.hear(&format!("{}/total_traffic", base("    3.5e-310")), "rcvp=9, rcvb=900, sentp=9, sentb=900");
    ear.hear(&format!("{}/total_traffic/peer", base(" 4.5e-310")), "rcvp=4, rcvb=400, sentp=4, sentb=400");
    let allocation = ear.allocation();
    assert_eq!((allocation.quality, allocation.peer), (Quality::Exact, leg(4, 400, 4, 400)));
    assert_eq!((ear.health().orphan_events, ear.health().ambiguous), (0, 0));
}

#[test]
fn coturn_4_17_counts_channel_headers_and_wraps_and_both_are_taken_back() {
    let mut ear = Ear::new("4.17");
    let base = "turn/realm/r/user/1795231283:pat/allocation/002000000000000001";
    let tls =
        "type=TLS/TCP, local=10.0.0.1:5349, remote=10.9.9.9:4000, ssl=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384";
    ear.hear(&format!("{base}/status"), &format!("new lifetime=600, {tls}"));
    // 31 million packets of 150 bytes to the peers, each counted with its channel's header.
    let (each_packets, each_bytes) = (1_000_000_u64, 154_000_000_u64);
    for _ in 0..31 {
        let counters = format!("rcvp=0, rcvb=0, sentp={each_packets}, sentb={each_bytes}");
        ear.after(10_000).hear(&format!("{base}/traffic/peer"), &counters);
        ear.hear(&format!("{base}/status"), &format!("refreshed lifetime=600, {tls}"));
    }
    ear.hear(&format!("{base}/status"), "deleted");
    ear.hear(&format!("{base}/total_traffic"), "rcvp=31000000, rcvb=4774000000, sentp=0, sentb=0");
    let wrapped = (31 * each_bytes) % (1 << 32);
    let counters = format!("rcvp=0, rcvb=0, sentp=31000000, sentb={wrapped}");
    ear.hear(&format!("{base}/total_traffic/peer"), &counters);
    let allocation = ear.allocation();
    assert_eq!(allocation.peer, leg(0, 0, 31_000_000, 4_650_000_000));
    assert_eq!(
        (allocation.quality, allocation.deltas_match),
        (Quality::Exact, Some(false)),
        "client reports are missing"
    );
    assert_eq!((allocation.path.tls.as_str(), allocation.path.transport.as_str()), ("TLSv1.3", "TLS/TCP"));
}

#[test]
fn a_lost_allocation_that_is_refreshed_lives_and_its_session_goes_on() {
    let mut ear = Ear::new("4.6");
    let base = "turn/realm/r/user/1795231283:una/allocation/000000000000000003";
    ear.hear(&format!("{base}/status"), &format!("new lifetime=60, {STATUS_OF_4_6}"));
    ear.after(10_000).hear(&format!("{base}/traffic/peer"), "rcvp=50, rcvb=5000, sentp=50, sentb=5000");
    // Its refreshes are lost on the way.
    ear.after(100_000);
    assert_eq!(ear.allocation().ended.map(|(_, reason)| reason), Some(EndReason::Lost));
    assert_eq!(ear.session().ended.map(|(_, reason)| reason), Some(EndReason::Lost));
    ear.hear(&format!("{base}/status"), &format!("refreshed lifetime=60, {STATUS_OF_4_6}"));
    assert_eq!((ear.allocation().ended, ear.session().ended), (None, None));
    ear.after(30_000).hear(&format!("{base}/status"), &format!("refreshed lifetime=0, {STATUS_OF_4_6}"));
    ear.hear(&format!("{base}/status"), "deleted");
    ear.hear(&format!("{base}/total_traffic"), "rcvp=90, rcvb=9900, sentp=90, sentb=9900");
    ear.hear(&format!("{base}/total_traffic/peer"), "rcvp=80, rcvb=8000, sentp=80, sentb=8000");
    let (allocation, session) = (ear.allocation(), ear.session());
    assert_eq!((allocation.quality, allocation.peer), (Quality::Exact, leg(80, 8_000, 80, 8_000)));
    assert_eq!((session.held_ms(), session.allocations, session.peer), (140_000, 1, allocation.peer));
    assert_eq!(session.ended.map(|(_, reason)| reason), Some(EndReason::Released));
}

#[test]
fn a_revived_allocation_without_further_words_is_lost_again_at_its_new_time() {
    let mut ear = Ear::new("4.6");
    let base = "turn/realm/r/user/1795231283:una/allocation/000000000000000003";
    ear.hear(&format!("{base}/status"), &format!("new lifetime=60, {STATUS_OF_4_6}"));
    ear.after(100_000).hear(&format!("{base}/status"), &format!("refreshed lifetime=60, {STATUS_OF_4_6}"));
    ear.after(89_000);
    assert_eq!(ear.allocation().ended, None);
    ear.after(2_000);
    let (end, reason) = ear.allocation().ended.unwrap();
    // What was missed before counts against its certainty.
    assert_eq!((end.low_ms, end.high_ms, reason), (1_100_000, 1_160_000, EndReason::Lost));
    assert_eq!((ear.session().allocations, ear.sessions.len()), (1, 1));
    ear.after(2 * 3_600_000);
    assert_eq!(ear.sessions.len(), 1);
}

#[test]
fn a_server_cut_off_for_a_while_goes_on_but_one_started_anew_does_not() {
    for (is_restart, allocations) in [(false, 1), (true, 2)] {
        let mut ear = Ear::new("4.6");
        ear.node = Some("turn-1");
        ear.account.handle_node_back("turn-1");
        let base = "turn/realm/r/user/1795231283:vic/allocation/000000000000000003";
        ear.hear(&format!("{base}/status"), &format!("new lifetime=600, {STATUS_OF_4_6}"));
        ear.after(10_000);
        if is_restart {
            ear.account.handle_node_started(ear.ms, "turn-1");
        } else {
            ear.account.handle_node_gone(ear.ms, "turn-1");
        }
        ear.after(20_000);
        let reason = if is_restart { EndReason::NodeRestart } else { EndReason::NodeDisconnect };
        assert_eq!(ear.allocation().ended.map(|(_, reason)| reason), Some(reason));
        ear.account.handle_node_back("turn-1");
        ear.hear(&format!("{base}/status"), &format!("refreshed lifetime=600, {STATUS_OF_4_6}"));
        assert_eq!(ear.allocations.len(), allocations, "restart: {is_restart}");
        assert_eq!(ear.allocations.last().map(|last| last.ended), Some(None));
        assert_eq!(ear.health().node_restarts, u64::from(is_restart));
    }
}
