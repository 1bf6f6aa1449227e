//! What a connectivity check costs the media thread, of honest clients and of such that send them from everywhere.

use crate::Failure;
use crate::cpu::Stopwatch;
use crate::figures::{lower_quartile, print};
use crate::stun;
use fanlight_base::{Addresses, Mono, Now, Protocol, Random, Redacted, SendBatch};
use fanlight_transport::candidate::LocalCandidate;
use fanlight_transport::{
    Certificate, ClockAnchor, DtlsRole, RemoteParameters, Setup, Transport, TransportConfig,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), 7_882);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const UFRAG: &str = "client";
const PASSWORD: &str = "a password of the client";
/// Checks of one sample.
const SAMPLE: u16 = 100;
const SAMPLES: u16 = 20;
/// Addresses a hostile client has used before it is measured.
const FLOOD: u16 = 7_700;

pub(crate) fn run() -> Result<(), Failure> {
    for (agent, lite) in [("lite", true), ("full", false)] {
        for candidates in [1, 64] {
            let mut server = Server::new(lite)?;
            server.name(candidates);
            let ns = server.measure(|_| 50_000, Duration::from_millis(1));
            print(&format!("ice.check_ns.{agent}.candidates_{candidates}"), ns, "ns");
        }
        for (pace, step) in
            [("flood", Duration::from_micros(10)), ("paced_flood", Duration::from_millis(200))]
        {
            let mut server = Server::new(lite)?;
            for port in 0..FLOOD {
                server.check(1_000 + port, step);
            }
            let ns = server.measure(|check| 10_000 + check, step);
            print(&format!("ice.check_ns.{agent}.{pace}"), ns, "ns");
        }
    }
    Ok(())
}

struct Server {
    transport: Transport,
    now: Now,
    message: Vec<u8>,
    batch: SendBatch,
    watch: Stopwatch,
}

impl Server {
    fn new(lite: bool) -> Result<Self, Failure> {
        let config = TransportConfig {
            anchor: ClockAnchor::new(Instant::now(), Mono::default()),
            shard: 0,
            ice_lite: lite,
            offerer: false,
            role: DtlsRole::Passive,
            certificate: Certificate::generate()?,
        };
        let mut transport = Transport::new(config, &mut Random::from_seed([1; 32]));
        transport.add_local_candidate(LocalCandidate::new(SERVER.into(), Protocol::Udp));
        let remote = RemoteParameters {
            ufrag: UFRAG.to_owned(),
            password: Redacted::new(PASSWORD.to_owned()),
            fingerprint: transport.fingerprint().clone(),
            setup: Setup::Active,
        };
        let now = Now { mono_ns: 1_000_000_000, unix_ns: 1_800_000_000_000_000_000 };
        transport.set_remote(now, &remote)?;
        let message = check(&transport);
        Ok(Self { transport, now, message, batch: SendBatch::new(), watch: Stopwatch::new() })
    }

    fn name(&mut self, candidates: u16) {
        for port in 50_000..50_000 + candidates {
            let line = format!("candidate:1 1 udp 2130706431 {CLIENT} {port} typ host");
            let _ = self.transport.add_remote_candidate(self.now, &line);
        }
    }

    /// Takes one check and everything that follows at once.
    fn check(&mut self, port: u16, step: Duration) {
        let step_ns = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
        self.now = Now { mono_ns: self.now.mono_ns + step_ns, unix_ns: self.now.unix_ns + step_ns };
        let remote = SocketAddr::from((CLIENT, port));
        let addresses = Addresses { local: SERVER.into(), remote, protocol: Protocol::Udp };
        self.transport.handle_datagram(self.now, addresses, &mut self.message, &mut self.batch);
        while self.transport.poll_event().is_some() {}
        self.batch.clear();
    }

    /// Nanoseconds of a check.
    fn measure(&mut self, port: impl Fn(u16) -> u16, step: Duration) -> f64 {
        let samples = (0..SAMPLES).map(|sample| {
            for check in 0..SAMPLE {
                let mut watch = self.watch;
                watch.start();
                self.check(port(sample * SAMPLE + check), step);
                watch.stop();
                self.watch = watch;
            }
            self.watch.take() as f64 / f64::from(SAMPLE)
        });
        lower_quartile(samples.collect())
    }
}

/// A binding request of the client's with a correct integrity (RFC 8445 §7.2.2).
fn check(transport: &Transport) -> Vec<u8> {
    let username = format!("{}:{UFRAG}", transport.local_ufrag());
    stun::message(stun::REQUEST, [5; 12], &stun::check(&username), transport.local_password())
}
