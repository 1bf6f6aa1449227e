//! The whole server as a TURN server, beside Debian's coturn, under the same load of coturn's own tools: processor time of
//! the process for a relayed packet. Everything is on loopback.

use crate::Failure;
use crate::figures::print;
use crate::process::Cpu;
use crate::server::Server;
use crate::turn_client::{REALM, SECRET};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where `turnutils_peer` echoes: no address of this node's, so that our server relays to it.
const PEER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Clients, messages of each, and milliseconds between two of them: 5,000 messages a second, each relayed out and back.
const CLIENTS: &str = "20";
const MESSAGES: &str = "1000";
const BETWEEN_MS: &str = "4";
/// A payload of Opus and one of video.
const PAYLOADS: [&str; 2] = ["160", "1200"];
/// How payload is sent, with the flag of `turnutils_uclient`.
const WAYS: [(&str, Option<&str>); 2] = [("channel", None), ("send", Some("-s"))];
/// Who is measured when, ours or theirs: whatever changes slowly on the machine meets both alike.
const ORDER: [usize; 4] = [0, 1, 1, 0];
/// Less came back than this part: then the load was not the same.
const RECEIVED_MIN: f64 = 0.99;
/// A server that does not listen after this has failed.
const START_MAX: Duration = Duration::from_secs(10);
/// What is queued when the client has ended is relayed by then.
const SETTLE: Duration = Duration::from_millis(300);

pub(crate) fn run() -> Result<(), Failure> {
    let peer_port = free_port()?;
    let _peer = Program::start(
        "turnutils_peer",
        &["-p", &peer_port.to_string(), "-L", &PEER.to_string()],
        &std::env::temp_dir(),
    )?;
    let fanlight_port = free_port()?;
    let fanlight = Server::start_with(&format!(
        "turn:\n  enabled: true\n  udp_port: {fanlight_port}\n  allow_restricted_peer_cidrs: [{PEER}/32]\n  \
         per_user_relay_allocation_limit: 0\nfanlight:\n  turn:\n    static_auth_secret: {SECRET}\n    realm: {REALM}\n",
    ))?;
    let coturn = Coturn::start()?;
    let servers = [("fanlight", fanlight.pid, fanlight_port), ("coturn", coturn.program.pid(), coturn.port)];
    for (way, flag) in WAYS {
        for bytes in PAYLOADS {
            let mut sums = [(0.0, 0.0); 2];
            for place in ORDER {
                let ((name, pid, port), (cpu_s, relayed)) = (servers[place], &mut sums[place]);
                let before = Cpu::of_threads(pid, "")?;
                *relayed += load(port, peer_port, flag, bytes).map_err(|error| format!("{name}: {error}"))?;
                std::thread::sleep(SETTLE);
                *cpu_s += Cpu::of_threads(pid, "")?.since(&before).total_s;
            }
            let [ours, theirs] = sums.map(|(cpu_s, relayed)| cpu_s * 1e6 / relayed);
            for ((name, ..), cost) in servers.iter().zip([ours, theirs]) {
                print(&format!("turn.{way}.{bytes}.{name}_us"), cost, "us");
            }
            print(&format!("turn.{way}.{bytes}.ratio"), ours / theirs, "of coturn's");
        }
    }
    Ok(())
}

/// Runs coturn's client; how many packets were relayed, out and back.
fn load(port: u16, peer_port: u16, flag: Option<&str>, bytes: &str) -> Result<f64, Failure> {
    let output = Command::new("turnutils_uclient")
        .args(["-c", "-u", "bench", "-W", SECRET, "-e", &PEER.to_string(), "-r", &peer_port.to_string()])
        .args(["-m", CLIENTS, "-n", MESSAGES, "-z", BETWEEN_MS, "-l", bytes, "-p", &port.to_string()])
        .args(flag)
        .arg(Ipv4Addr::LOCALHOST.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("turnutils_uclient: {error}; it is in Debian's package coturn"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let count = |name: &str| -> Option<f64> {
        let (_, rest) = said.rsplit_once(&format!("{name}="))?;
        rest.split(|end: char| !end.is_ascii_digit()).next()?.parse().ok()
    };
    let (Some(sent), Some(received)) = (count("tot_send_msgs"), count("tot_recv_msgs")) else {
        let tail: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(format!("turnutils_uclient did not say what it sent: {tail:?}").into());
    };
    if received < sent * RECEIVED_MIN || sent == 0.0 {
        return Err(format!("{received} of {sent} messages came back").into());
    }
    Ok(sent + received)
}

struct Coturn {
    program: Program,
    port: u16,
    folder: PathBuf,
}

impl Coturn {
    fn start() -> Result<Self, Failure> {
        let port = free_port()?;
        let folder = std::env::temp_dir().join(format!("fanlight-bench-coturn-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let address = Ipv4Addr::LOCALHOST.to_string();
        let secret = format!("--static-auth-secret={SECRET}");
        let listen = [
            format!("--listening-ip={address}"),
            format!("--relay-ip={address}"),
            format!("--listening-port={port}"),
            format!("--realm={REALM}"),
        ];
        let own =
            ["pidfile", "userdb", "log-file"].map(|name| format!("--{name}={}", folder.join(name).display()));
        let quiet = [
            "--use-auth-secret",
            "--no-cli",
            "--no-tls",
            "--no-dtls",
            "--allow-loopback-peers",
            "--simple-log",
        ];
        let arguments: Vec<&str> =
            listen.iter().chain(&own).chain([&secret]).map(String::as_str).chain(quiet).collect();
        // Without a configuration: that of the machine is somebody else's.
        let program = Program::start("turnserver", &[&arguments[..], &["-n"]].concat(), &folder)?;
        let coturn = Self { program, port, folder };
        let started = Instant::now();
        while UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            if started.elapsed() > START_MAX {
                return Err(format!("coturn does not listen on {address}:{port}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(coturn)
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        self.program.end();
        // Its log is thrown away with it.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A child that ends with us.
struct Program(Child);

impl Program {
    fn start(name: &str, arguments: &[&str], folder: &Path) -> Result<Self, Failure> {
        let child = Command::new(name)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{name}: {error}; it is in Debian's package coturn"))?;
        Ok(Self(child))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_port() -> Result<u16, Failure> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(socket.local_addr()?.port())
}
