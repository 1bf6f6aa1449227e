//! A server as a process of its own.
#![allow(dead_code, reason = "each of the tests uses a part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fanlight");
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
pub(crate) const LONG_SECRET: &str = "0123456789012345678901234567890123456789";
/// What the machine may have set.
pub(crate) const VARIABLES: [&str; 3] = ["LIVEKIT_KEYS", "NODE_IP", "FANLIGHT_LOG"];

pub(crate) fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// `exec` keeps the process, so that signals reach the server. A file that may not grow is an error to it, not the end.
pub(crate) fn command_with_mask(mask: &str) -> Command {
    let mut command = Command::new("sh");
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command.args(["-c", &format!("umask {mask}; trap '' XFSZ; exec \"$0\" \"$@\""), PROGRAM]);
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("it starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of one test, removed with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fanlight-process-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).expect("written");
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn free_tcp() -> u16 {
    TcpListener::bind((V4, 0)).and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// The first of two free neighbours.
pub(crate) fn free_udp_pair() -> u16 {
    for _ in 0..100 {
        let Ok(first) = UdpSocket::bind((V4, 0)) else { continue };
        let port = first.local_addr().expect("bound").port();
        if port < u16::MAX && UdpSocket::bind((V4, port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two neighbouring UDP ports are free");
}

/// A server with what it prints; ended with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) greeting: String,
    pub(crate) folder: Folder,
}

impl Server {
    /// Starts it with `--dev` and this configuration besides its ports.
    pub(crate) fn start(configuration: &str) -> Self {
        let folder = Folder::new();
        let (port, udp) = (free_tcp(), free_udp_pair());
        let rtc = format!("rtc:\n  udp_port: {udp}-{}\n  tcp_port: {}\n", udp + 1, free_tcp());
        let config = folder.write("config.yaml", &format!("{rtc}{configuration}"));
        let log = fs::File::create(folder.file("log")).expect("a log");
        // The mask of most machines: what is to be private is so by itself.
        let mut child = command_with_mask("022")
            .args(["--dev", "--config", &config, "--port", &port.to_string()])
            .args(["--data-dir", &folder.file("data")])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut greeting = String::new();
        // The record is named last.
        while !greeting.contains("record ") {
            let Some(Ok(line)) = lines.next() else {
                let log = fs::read_to_string(folder.file("log")).unwrap_or_default();
                panic!("it ended before it served: {greeting}\n{log}");
            };
            greeting.push_str(&line);
            greeting.push('\n');
        }
        Self { child, port, greeting, folder }
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < end, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.file("log")).expect("a log")
    }

    pub(crate) fn greets_with(&self, what: &str) -> &str {
        self.greeting.lines().find(|line| line.contains(what)).expect("a line")
    }

    pub(crate) fn get(&self, ip: IpAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(SocketAddr::new(ip, self.port)).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        text(&answer)
    }

    /// Asks for a WebSocket of this participant; the connection, and the answer's first bytes.
    pub(crate) fn join(&self, room: &str, identity: &str) -> (TcpStream, String) {
        let token = run(&["token", "create", "--room", room, "--identity", identity]);
        let path =
            format!("/rtc?access_token={}&protocol=15&sdk=js&version=2.0.0", text(&token.stdout).trim());
        let mut socket = TcpStream::connect((V4, self.port)).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("written");
        let mut head = [0; 12];
        socket.read_exact(&mut head).expect("an answer");
        (socket, text(&head))
    }

    /// Waits until `/` answers with this status and this end.
    pub(crate) fn wait_for_health(&self, status: u16, end: &str) {
        let began = Instant::now();
        loop {
            let answer = self.get(V4, "/");
            if answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(end) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{answer}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// All that a connection says until it is closed.
pub(crate) fn rest_of(socket: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).expect("it closes the connection");
    rest
}

/// Whether these bytes of a WebSocket have a leave with this reason and this action.
pub(crate) fn has_leave(bytes: &[u8], reason: u8, action: u8) -> bool {
    // SignalResponse { leave (8): { can_reconnect (1)?, reason (2), action (3)? } }
    let leaves = bytes.windows(2).enumerate().filter(|(_, head)| head[0] == 0x42);
    let mut fields = leaves.filter_map(|(at, head)| bytes.get(at + 2..at + 2 + usize::from(head[1])));
    fields.any(|fields| {
        let field =
            |tag: u8| fields.chunks_exact(2).find(|field| field[0] == tag).map_or(0, |field| field[1]);
        field(0x10) == reason && field(0x18) == action
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
