//! The real server as a child process, with ports and a data directory of its own.

use crate::Failure;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server that does not listen after this has failed.
const START_MAX: Duration = Duration::from_secs(20);
/// Neighbouring ports are tried so often.
const PORT_TRIES: usize = 100;

pub(crate) struct Server {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    /// Where its media threads listen, in their order.
    pub(crate) media: Vec<SocketAddr>,
    data_dir: PathBuf,
    /// The data directory, if it goes with the server.
    own: Option<TempDir>,
}

impl Server {
    /// Starts `fanlight` from the directory in which this program stands.
    pub(crate) fn start() -> Result<Self, Failure> {
        Self::start_with("")
    }

    /// The same with more in its configuration.
    pub(crate) fn start_with(more: &str) -> Result<Self, Failure> {
        Self::start_with_tcp(0, more)
    }

    /// The same with ICE over TCP on this port.
    pub(crate) fn start_with_tcp(tcp_port: u16, more: &str) -> Result<Self, Failure> {
        let own = TempDir::new()?;
        let mut server = Self::spawn(own.path(), "warn", tcp_port, more)?;
        server.own = Some(own);
        until_listening(server.address)?;
        Ok(server)
    }

    /// Starts it in a data directory that stays, and does not wait until it listens; it logs from `level` on.
    pub(crate) fn spawn_in(data_dir: &Path, level: &str, more: &str) -> Result<Self, Failure> {
        Self::spawn(data_dir, level, 0, more)
    }

    fn spawn(data_dir: &Path, level: &str, tcp_port: u16, more: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe()?.with_file_name("fanlight");
        if !program.exists() {
            return Err(format!("{} is missing; use: cargo xtask bench", program.display()).into());
        }
        let port = free_tcp_address()?.port();
        let shards = std::thread::available_parallelism()?.get();
        let config = data_dir.join("config.yaml");
        let first = free_udp_ports(shards)?;
        fs::write(&config, configuration(first, shards, tcp_port, level) + more)?;
        let child = spawn(&program, &config, port, data_dir)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let media = (first..).take(shards).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (pid, data_dir) = (child.id(), data_dir.to_owned());
        Ok(Self { pid, child, address, media: media.collect(), data_dir, own: None })
    }

    /// Waits until it has ended, whatever for.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Failure> {
        Ok(self.child.wait()?)
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its record and what it keeps beside that.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

/// Waits until the server takes connections there.
pub(crate) fn until_listening(address: SocketAddr) -> Result<(), Failure> {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        if started.elapsed() > START_MAX {
            return Err(format!("the server does not listen on {address}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is our child.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, config: &Path, port: u16, data_dir: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("--dev")
        .args(["--bind", "127.0.0.1", "--node-ip", "127.0.0.1", "--port", &port.to_string()])
        .arg("--config")
        .arg(config)
        .arg("--data-dir")
        .arg(data_dir)
        .stdout(Stdio::null())
        .spawn()
}

fn configuration(first: u16, shards: usize, tcp_port: u16, level: &str) -> String {
    let last = usize::from(first) + shards - 1;
    format!("rtc:\n  udp_port: {first}-{last}\n  tcp_port: {tcp_port}\nlogging:\n  level: {level}\n")
}

/// An address of this machine on whose port nobody listens: given to nobody else here, and below the ports that the kernel gives to
/// whoever connects.
pub(crate) fn free_tcp_address() -> Result<SocketAddr, Failure> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 100).unwrap_or(0) * 100;
    for _ in 0..10_000 {
        let offset = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000 + offset));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free TCP ports".into())
}

/// The first of so many free ports in a row.
fn free_udp_ports(count: usize) -> Result<u16, Failure> {
    for _ in 0..PORT_TRIES {
        let one = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let first = one.local_addr()?.port();
        let others = (1..count).map(|offset| {
            let port = u16::try_from(usize::from(first) + offset).ok()?;
            UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()
        });
        if others.collect::<Vec<_>>().iter().all(Option::is_some) {
            return Ok(first);
        }
    }
    Err("no free UDP ports".into())
}
