//! Clients that signal faster than they may: they wait, and nobody else does.

use super::*;

/// `SignalRequest.mute`, which is for the shard.
const MUTE: &[u8] = &[0x2a, 2, 0x10, 1];
/// Small messages a connection may send at once, and small requests that its shard may hold of it.
const BURST: usize = 4096;
const HELD: usize = 16;

impl Node {
    /// Waits until the shard holds so many requests, and as long again for one too many.
    fn wait_held(&self, count: usize) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.told.lock().unwrap().held.len() < count {
            assert!(std::time::Instant::now() < end, "the shard was not asked");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_shard_holds_no_more_of_a_connection_than_its_credit_and_hears_of_its_end_last() {
    let node = Node::start();
    node.told.lock().unwrap().holds = true;
    let mut neighbour = node.join("neighbour");
    let mut eager = node.join("eager");
    for _ in 0..3 * HELD {
        eager.send(0x80 | BINARY, MUTE);
    }
    node.wait_held(HELD);
    neighbour.send(0x80 | BINARY, MUTE);
    node.wait_held(HELD + 1);
    assert!(neighbour.is_alive(), "who has credit is read");
    let held = std::mem::take(&mut node.told.lock().unwrap().held);
    let of = |peer: u64| held.iter().filter(|request| request.peer == PeerKey(peer)).count();
    assert_eq!((of(1), of(0)), (HELD, 1));
    // The shard goes on with what it has, and so does the connection.
    drop(held);
    node.wait_held(HELD);
    // It goes while the shard is busy with its requests.
    drop(eager);
    neighbour.send(0x80 | BINARY, MUTE);
    node.wait_held(HELD + 1);
    assert_eq!(node.told.lock().unwrap().closed, [], "its requests are not handled yet");
    let mut told = node.told.lock().unwrap();
    told.holds = false;
    let held = std::mem::take(&mut told.held);
    drop(told);
    drop(held);
    node.wait_closed(1);
    assert_eq!(node.told.lock().unwrap().closed, [PeerKey(1)]);
    assert!(neighbour.is_alive());
}

#[test]
fn a_connection_that_floods_is_read_as_far_as_its_bucket_goes() {
    // Time stands still here: nothing is refilled.
    let node = Node::start();
    let mut neighbour = node.join("neighbour");
    let flood = node.join("flood");
    let mut writing = Socket(flood.0.try_clone().unwrap());
    let writer = std::thread::spawn(move || {
        for _ in 0..BURST + 500 {
            writing.send(0x80 | BINARY, PING);
        }
    });
    let mut reading = flood;
    for answered in 0..=BURST {
        assert!(reading.read().is_some(), "answered {answered}");
    }
    writer.join().unwrap();
    reading.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(reading.read(), None, "what is more waits in the socket");
    assert!(neighbour.is_alive());
    assert_eq!(node.told.lock().unwrap().closed, [], "and nobody is closed");
}
