//! What becomes of the server when one of its threads does not go on.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod server;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, prlimit};
use server::*;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The thread of the server with this name.
fn thread(server: &Server, name: &str) -> Pid {
    let tasks = format!("/proc/{}/task", server.child.id());
    let thread = fs::read_dir(&tasks).expect("it runs").find_map(|task| {
        let task = task.expect("an entry");
        let found = fs::read_to_string(task.path().join("comm")).ok()?;
        (found.trim() == name).then(|| task.file_name().to_string_lossy().parse().expect("a number"))
    });
    Pid::from_raw(thread.expect("a thread of this name"))
}

/// A thread of the server that is kept from running, as by a loop that does not end; it runs again when this is dropped.
struct Held(Pid);

impl Held {
    fn new(server: &Server, name: &str) -> Self {
        let thread = thread(server, name);
        ptrace::seize(thread, ptrace::Options::empty()).expect("a child of ours");
        ptrace::interrupt(thread).expect("seized");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
    }
}

impl Held {
    /// Only who holds a thread can see the last of it.
    fn wait_for_its_end(&self) {
        let end = Instant::now() + PATIENCE;
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        while waitpid(self.0, Some(flags)).expect("it is held") == WaitStatus::StillAlive {
            assert!(Instant::now() < end, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Puts standard output in the place of what the thread waits with, so that it cannot wait for its sockets any more;
    /// `false` when it is not waiting just now.
    #[cfg(target_arch = "x86_64")]
    fn take_its_poll(&self) -> bool {
        /// `dup2` of x86-64.
        const DUP2: u64 = 33;
        /// `epoll_wait` and `epoll_pwait`.
        const WAITS: [u64; 2] = [232, 281];
        const STDOUT: u64 = 1;
        let waiting = ptrace::getregs(self.0).expect("it is stopped");
        if !WAITS.contains(&waiting.orig_rax) {
            return false;
        }
        let mut taking = waiting;
        // The instruction that it made its call with, again; its own call is not begun anew.
        (taking.rip, taking.rax, taking.orig_rax) = (waiting.rip - 2, DUP2, u64::MAX);
        (taking.rdi, taking.rsi) = (STDOUT, waiting.rdi);
        ptrace::setregs(self.0, taking).expect("it is stopped");
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = ptrace::detach(self.0, None);
    }
}

fn metrics(port: u16) -> String {
    let mut stream = TcpStream::connect((V4, port)).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Two shards when the machine has two cores.
fn shards(server: &Server) -> usize {
    server.greets_with("media over UDP").matches("127.0.0.1:").count()
}

/// What the server writes into files fails from now on, or does so no more: as with a disk that is full or read-only.
fn set_disk_full(server: &Server, full: bool) {
    let process = rustix::process::Pid::from_child(&server.child);
    let limit = Rlimit { current: full.then_some(1), maximum: None };
    prlimit(Some(process), Resource::Fsize, limit).expect("a child of ours");
}

#[test]
fn a_record_that_cannot_be_written_is_told_and_calls_go_on_and_it_is_written_when_there_is_room() {
    let port = free_tcp();
    let server = Server::start(&format!("prometheus: {{port: {port}}}\n"));
    set_disk_full(&server, true);
    server.wait_for_health(200, "OK\nthe record cannot be written");
    let told = metrics(port);
    for line in ["fanlight_store_failing 1", "fanlight_thread_up{thread=\"store\"} 1"] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    let (_alice, status) = server.join("r", "alice");
    assert_eq!(status, "HTTP/1.1 101");
    set_disk_full(&server, false);
    server.wait_for_health(200, "\r\n\r\nOK");
    let report = run(&["report", "--room", "r", "--data-dir", &server.folder.file("data")]);
    assert!(text(&report.stdout).contains("alice"), "{}", text(&report.stdout));
}

#[test]
fn a_stuck_shard_is_told_and_gets_nobody_until_it_works_again() {
    let port = free_tcp();
    let server = Server::start(&format!("prometheus: {{port: {port}}}\n"));
    let (_alice, status) = server.join("first", "alice");
    assert_eq!(status, "HTTP/1.1 101");
    server.wait_for_health(200, "\r\n\r\nOK");
    let held = Held::new(&server, "shard-0");
    server.wait_for_health(406, "\nthread shard-0 is stuck");
    let told = metrics(port);
    for line in ["fanlight_thread_up{thread=\"shard-0\"} 0", "fanlight_thread_up{thread=\"control\"} 1"] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    let began = Instant::now();
    assert_eq!(server.join("first", "bob").1, "HTTP/1.1 503", "its room is not to be had");
    let elsewhere = if shards(&server) > 1 { "HTTP/1.1 101" } else { "HTTP/1.1 503" };
    for room in ["second", "third", "fourth"] {
        assert_eq!(server.join(room, "carol").1, elsewhere);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(held);
    server.wait_for_health(200, "\r\n\r\nOK");
    assert_eq!(server.join("first", "dave").1, "HTTP/1.1 101");
    assert!(metrics(port).contains("fanlight_thread_stuck_total{thread=\"shard-0\"} 1"));
    for said in ["a thread is stuck", "a thread that was stuck works again"] {
        assert_eq!(server.log().matches(said).count(), 1, "{said}: {}", server.log());
    }
}

#[test]
fn a_join_is_answered_though_the_control_thread_is_stuck() {
    let server = Server::start("");
    let _held = Held::new(&server, "control");
    let began = Instant::now();
    assert_eq!(server.join("r", "alice").1, "HTTP/1.1 503");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    server.wait_for_health(406, "\nthread control is stuck");
}

#[test]
fn a_stuck_store_is_told_and_calls_go_on() {
    let server = Server::start("");
    let _held = Held::new(&server, "store");
    server.wait_for_health(200, "OK\nthread store is stuck");
    assert_eq!(server.join("r", "alice").1, "HTTP/1.1 101");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_shard_that_has_ended_ends_the_server_after_everybody_was_told_to_come_back() {
    let mut server = Server::start("");
    let mut sockets: Vec<_> = ["first", "second", "third"].map(|room| server.join(room, room).0).into();
    let end = Instant::now() + PATIENCE;
    while !Held::new(&server, "shard-0").take_its_poll() {
        assert!(Instant::now() < end, "the thread is never idle");
    }
    for socket in &mut sockets {
        let rest = rest_of(socket);
        // SERVER_SHUTDOWN, RECONNECT
        assert!(
            has_leave(&rest, 3, 2),
            "no leave in {:?}\n{}",
            &rest[rest.len().saturating_sub(40)..],
            server.log()
        );
    }
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
    let log = server.log();
    assert!(
        log.contains("a thread has ended before the server") && log.contains("thread shard-0 ended"),
        "{log}"
    );
    for (room, reason) in
        [("first", "crash"), ("second", if shards(&server) > 1 { "server_shutdown" } else { "crash" })]
    {
        let data = server.folder.file("data");
        let report = run(&["report", "--room", room, "--json", "--data-dir", &data]);
        let report = text(&report.stdout);
        assert!(report.contains(&format!("\"reason\": \"{reason}\"")), "{report}");
    }
}

#[test]
fn a_server_with_a_stuck_shard_ends_when_it_is_told_to() {
    let mut server = Server::start("");
    let held = Held::new(&server, "shard-0");
    server.signal("TERM");
    held.wait_for_its_end();
    assert!(server.wait().success(), "{}", server.log());
    assert!(server.log().contains("a media thread had panicked, or does not end"), "{}", server.log());
}
