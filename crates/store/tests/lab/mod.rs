//! Real components on loopback: coturn, its own test client, Redis.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod client;
pub(crate) mod log;
pub(crate) mod process;

use log::Log;
use process::Process;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub(crate) const SECRET: &str = "north";
pub(crate) const REALM: &str = "conf.example";
/// Longest lifetime that coturn grants here.
pub(crate) const LIFETIME_S: u32 = 8;
/// Relay ports of one coturn.
const RELAY_PORTS: u16 = 200;

/// A port of 127.0.0.1 that is free, and the one after it too, for UDP and TCP.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..500 {
        // Below the ports that the kernel gives out by itself, apart from other test processes.
        let start = 10_000 + u16::try_from(std::process::id() % 200).unwrap() * 50;
        let port = start + NEXT.fetch_add(2, Ordering::Relaxed) % 10_000;
        let is_free = |port: u16| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
                && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        };
        if is_free(port) && is_free(port + 1) {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1")
}

fn output(path: &Path) -> Stdio {
    File::create(path).unwrap().into()
}

/// A coturn with its log and an echo behind it.
pub(crate) struct Coturn {
    dir: PathBuf,
    statsdb: String,
    pub(crate) port: u16,
    relay: u16,
    process: Option<Process>,
    runs: usize,
}

impl Coturn {
    /// Reports to the Redis server, or what passes for one, that `statsdb` names.
    pub(crate) fn start(dir: &Path, statsdb: String) -> Self {
        static COTURNS: AtomicU16 = AtomicU16::new(0);
        let place =
            u16::try_from(std::process::id() % 30).unwrap() * 2 + COTURNS.fetch_add(1, Ordering::Relaxed) % 2;
        let relay = 20_000 + place * RELAY_PORTS;
        let mut coturn =
            Self { dir: dir.to_owned(), statsdb, port: free_port(), relay, process: None, runs: 0 };
        coturn.start_again();
        coturn
    }

    /// A new process on the same port.
    pub(crate) fn start_again(&mut self) {
        self.runs += 1;
        let log = self.log_file(self.runs);
        let mut command = Command::new("turnserver");
        command
            .args([
                "-n",
                "--verbose",
                "--log-file=stdout",
                "--simple-log",
                "--no-tls",
                "--no-dtls",
                "--no-cli",
            ])
            .args(["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--allow-loopback-peers"])
            .args(["--use-auth-secret", "--user-quota=4"])
            .arg(format!("--static-auth-secret={SECRET}"))
            .arg(format!("--realm={REALM}"))
            .arg(format!("--listening-port={}", self.port))
            .arg(format!("--min-port={}", self.relay))
            .arg(format!("--max-port={}", self.relay + RELAY_PORTS - 1))
            .arg(format!("--max-allocate-lifetime={LIFETIME_S}"))
            .arg(format!("--redis-statsdb={}", self.statsdb))
            .arg(format!("--pidfile={}", self.dir.join("turn.pid").display()))
            .arg(format!("--userdb={}", self.dir.join("turn.db").display()))
            .stdout(output(&log))
            .stderr(output(&self.dir.join("turn.err")));
        self.process = Some(Process::start("turnserver", "coturn", command));
        let address = self.address();
        process::wait_for(&format!("coturn answers on {address} (log: {})", log.display()), || {
            client::is_answered(address)
        });
    }

    /// As `kill -9` does it.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What each process said of its own.
    pub(crate) fn logs(&self) -> Vec<Log> {
        (1..=self.runs).map(|run| Log::read(&std::fs::read_to_string(self.log_file(run)).unwrap())).collect()
    }

    fn log_file(&self, run: usize) -> PathBuf {
        self.dir.join(format!("turn-{run}.log"))
    }

    /// coturn's own test client against an echo on `peer`.
    pub(crate) fn uclient(&self, user: &str, peer: u16, arguments: &[&str]) -> Process {
        let mut command = Command::new("turnutils_uclient");
        command
            .args(["-u", user, "-W", SECRET, "-e", "127.0.0.1", "-c"])
            .args(["-p", &self.port.to_string(), "-r", &peer.to_string()])
            .args(arguments)
            .arg("127.0.0.1")
            .stdout(output(&self.dir.join(format!("uclient-{user}.log"))))
            .stderr(Stdio::null());
        Process::start("turnutils_uclient", "coturn", command)
    }
}

/// Answers every datagram on the port and the one after it.
pub(crate) fn echo(dir: &Path) -> (Process, u16) {
    let port = free_port();
    let mut command = Command::new("turnutils_peer");
    command.args(["-L", "127.0.0.1", "-p", &port.to_string()]);
    command.stdout(output(&dir.join("peer.log"))).stderr(Stdio::null());
    (Process::start("turnutils_peer", "coturn", command), port)
}

/// A Redis server that keeps nothing on disk.
pub(crate) struct Redis {
    dir: PathBuf,
    arguments: Vec<String>,
    pub(crate) port: u16,
    process: Option<Process>,
}

impl Redis {
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        let mut redis = Self { dir: dir.to_owned(), arguments, port: free_port(), process: None };
        redis.start_again();
        redis
    }

    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&self.dir)
            .args(["--port", &self.port.to_string()])
            .args(&self.arguments)
            .stdout(output(&self.dir.join(format!("redis-{}.log", self.port))))
            .stderr(Stdio::null());
        self.process = Some(Process::start("redis-server", "redis-server", command));
        let port = self.port;
        process::wait_for(&format!("redis-server listens on {port}"), || {
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
    }

    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        client.get_connection_with_timeout(Duration::from_secs(5)).unwrap()
    }
}
