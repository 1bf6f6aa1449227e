//! What becomes of the server when one of its threads does not go on.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod server;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use server::*;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A thread of the server that is kept from running, as by a loop that does not end; it runs again when this is dropped.
struct Held(Pid);

impl Held {
    fn new(server: &Server, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", server.child.id());
        let thread = fs::read_dir(&tasks).expect("it runs").find_map(|task| {
            let task = task.expect("an entry");
            let found = fs::read_to_string(task.path().join("comm")).ok()?;
            (found.trim() == name).then(|| task.file_name().to_string_lossy().parse().expect("a number"))
        });
        let thread = Pid::from_raw(thread.expect("a thread of this name"));
        ptrace::seize(thread, ptrace::Options::empty()).expect("a child of ours");
        ptrace::interrupt(thread).expect("seized");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
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

#[test]
fn a_stuck_shard_is_told_and_gets_nobody_until_it_works_again() {
    let port = free_tcp();
    let server = Server::start(&format!("prometheus: {{port: {port}}}\n"));
    let (_alice, status) = server.join("first", "alice");
    assert_eq!(status, "HTTP/1.1 101");
    server.wait_for_health("200");
    let held = Held::new(&server, "shard-0");
    let answer = server.wait_for_health("406");
    assert!(answer.contains("\nthread shard-0 is stuck"), "{answer}");
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
    server.wait_for_health("200");
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
    assert!(server.wait_for_health("406").contains("\nthread control is stuck"));
}

#[test]
fn a_stuck_store_is_told_and_calls_go_on() {
    let server = Server::start("");
    let _held = Held::new(&server, "store");
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = server.get(V4, "/");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if answer.contains("OK\nthread store is stuck") {
            break;
        }
        assert!(Instant::now() < end, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.join("r", "alice").1, "HTTP/1.1 101");
}
