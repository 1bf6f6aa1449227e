//! Much of something that is allowed once: what it holds is bounded, and small requests go on beside it.

use super::*;
use fanlight_http::GateSnapshot;

const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Node {
    fn counted(&self) -> GateSnapshot {
        self.gate.snapshot()
    }

    /// Waits until what was counted is as it should be.
    fn wait_counted(&self, what: &str, is_so: impl Fn(&GateSnapshot) -> bool) {
        let end = std::time::Instant::now() + PATIENCE;
        while !is_so(&self.counted()) {
            assert!(std::time::Instant::now() < end, "{what}: {:?}", self.counted());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn connect_from(&self, ip: [u8; 4]) -> TcpStream {
        let stream = self.runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((ip, 0).into()).unwrap();
            socket.connect(self.address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// The status line of the next answer.
fn status_of(stream: &mut TcpStream) -> Option<u16> {
    let mut line = [0; 12];
    stream.read_exact(&mut line).ok()?;
    std::str::from_utf8(&line[9..]).ok()?.parse().ok()
}

/// An answer with its body, by its `Content-Length`.
fn whole_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head
}

fn token_with_metadata(bytes: usize) -> String {
    let video = VideoGrant { room_join: true, room: "room".to_owned(), ..VideoGrant::default() };
    let metadata = "m".repeat(bytes);
    let grants = Grants { identity: "large".to_owned(), metadata, video: Some(video), ..Grants::default() };
    let secret = Redacted::new("secret".to_owned());
    create("devkey", &secret, &grants, NOW, 600).unwrap().reveal().clone()
}

#[test]
fn a_token_with_500_kb_of_metadata_joins_in_the_query_and_in_the_header() {
    let node = Node::start();
    let token = token_with_metadata(500_000);
    assert!(token.len() > 650_000);
    let asked = [
        get(&format!("/rtc?access_token={token}&protocol=16"), UPGRADE),
        get("/rtc?protocol=16", &format!("{UPGRADE}Authorization: Bearer {token}\r\n")),
    ];
    for request in asked {
        let mut stream = node.connect();
        stream.write_all(&request).unwrap();
        assert_eq!(status_of(&mut stream), Some(101));
    }
    node.wait_counted("long heads are given back", |counted| counted.head_bytes.now == 0);
}

#[test]
fn bodies_of_strangers_are_answered_and_never_held() {
    let node = Node::start();
    let paths = ["/rtc/validate", "/rtc", "/api/v1/turn/sessions", "/nowhere", "/", "/meet/token"];
    let mut streams = Vec::new();
    for (number, path) in paths.iter().cycle().take(120).enumerate() {
        let length =
            if number % 2 == 0 { "Content-Length: 1073741824" } else { "Transfer-Encoding: chunked" };
        let mut stream = node.connect();
        write!(stream, "POST {path} HTTP/1.1\r\nHost: here\r\n{length}\r\n\r\nffffff\r\n").unwrap();
        // It may be closed already.
        let _ = stream.write_all(&[b'x'; 64 * 1024]);
        streams.push(stream);
    }
    for stream in &mut streams {
        assert!(status_of(stream).is_some_and(|status| status < 500));
    }
    assert_eq!(node.counted().body_bytes.most, 0, "nothing of a body was kept");
    assert_eq!(node.status(&get("/", "")), Some(200));
}

#[test]
fn long_heads_of_one_host_are_bounded_together_and_others_go_on() {
    let node = Node::start();
    let flood: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = node.connect();
            let _ =
                stream.write_all(&get("/rtc/validate", &format!("X: {}", "x".repeat(700_000)))[..700_000]);
            stream
        })
        .collect();
    node.wait_counted("the share is full", |counted| counted.head_bytes.refused >= 80);
    let counted = node.counted();
    assert!(counted.head_bytes.most <= 12 * MIB, "{counted:?}");
    assert_eq!(node.status(&get("/", "")), Some(200), "small heads need no share");
    let mut socket = node.join("neighbour");
    assert!(socket.is_alive());
    let mut elsewhere = node.connect_from(ELSEWHERE);
    let token = token_with_metadata(500_000);
    elsewhere.write_all(&get(&format!("/rtc/validate?access_token={token}"), "")).unwrap();
    assert_eq!(status_of(&mut elsewhere), Some(200), "another host has its own share");
    drop(flood);
    node.wait_counted("all is given back", |counted| counted.head_bytes.now == 0);
}

#[test]
fn a_head_without_end_is_refused_at_its_limit() {
    let node = Node::start();
    let mut stream = node.connect();
    let _ = stream.write_all(&get("/", &format!("X: {}", "x".repeat(2 * MIB))));
    assert_eq!(status_of(&mut stream), Some(431));
    assert!(node.counted().head_bytes.most <= MIB);
}

#[test]
fn a_websocket_is_a_connection_for_as_long_as_it_lives() {
    let node = Node::start();
    let sockets = [node.join("a"), node.join("b"), node.join("c")];
    assert_eq!(node.counted().connections.now, 3);
    drop(sockets);
    node.wait_counted("their places are free", |counted| counted.connections.now == 0);
}

#[test]
fn requests_of_one_connection_are_told_apart_however_they_come() {
    let node = Node::start();
    let three = [
        get("/", ""),
        // Of a path that reads its body: an answer before that would end the connection.
        b"POST /rtc/validate HTTP/1.1\r\nHost: here\r\nContent-Type: application/x-www-form-urlencoded\r\n\
          Content-Length: 5\r\n\r\nhello"
            .to_vec(),
        get("/", "Content-Length: 0\r\n"),
    ]
    .concat();
    for pieces in [1, 7, three.len()] {
        let mut stream = node.connect();
        stream.set_nodelay(true).unwrap();
        for piece in three.chunks(pieces) {
            stream.write_all(piece).unwrap();
        }
        for status in ["200", "401", "200"] {
            let answer = whole_answer(&mut stream);
            assert!(answer.starts_with(&format!("http/1.1 {status}")), "pieces of {pieces}: {answer}");
        }
    }
}

#[test]
fn a_second_request_hidden_in_a_body_is_not_answered() {
    let node = Node::start();
    for length in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 40",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: here\r\n{length}\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        let mut stream = node.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert!(all.starts_with("HTTP/1.1 400"), "{length}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{length}: {all}");
    }
}

#[test]
fn paths_with_control_characters_are_refused_and_redirects_stay_here() {
    let node = Node::start();
    for path in ["/a%00", "/%0d%0aX:y", "//%0aevil", "/meet%7f", "/a\u{1}b"] {
        assert_eq!(node.status(&get(path, "")), Some(400), "{path:?}");
    }
    for path in ["/x/..//\\evil.example", "///evil.example", "/%2F%5Cevil.example/.", "/.//\\/evil.example"] {
        let answer = node.ask(&get(path, "")).to_lowercase();
        let location = answer.split("location: ").nth(1).and_then(|rest| rest.lines().next());
        let stays = |to: &str| to.starts_with('/') && !to[1..].starts_with(['/', '\\']);
        assert!(location.is_none_or(stays), "{path}: {location:?}");
    }
}

#[test]
fn a_listener_that_is_told_to_stop_takes_nobody_in_and_ends_idle_connections() {
    let (say_stop, stop) = tokio::sync::oneshot::channel::<()>();
    let stop = async move {
        let _ = stop.await;
    };
    let node = Node::start_until(stop, false);
    let mut idle = node.connect();
    idle.write_all(&get("/", "")).unwrap();
    whole_answer(&mut idle);
    say_stop.send(()).unwrap();
    assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0, "an idle connection is closed");
    let end = std::time::Instant::now() + PATIENCE;
    while TcpStream::connect(node.address).is_ok() {
        assert!(std::time::Instant::now() < end, "still listening");
    }
}

#[test]
fn tokens_for_trying_out_are_given_to_this_machine_itself() {
    let node = Node::start_until(std::future::pending(), true);
    let ask = |headers: &str| {
        let body = r#"{"room":"r","name":"n"}"#;
        let length = body.len();
        format!("POST /meet/token HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    let own = "Host: localhost:7880\r\n";
    assert_eq!(node.status(&ask(own)), Some(200));
    assert_eq!(node.status(&ask(&format!("{own}Origin: http://localhost:7880\r\n"))), Some(200));
    for headers in [
        "Host: evil.example\r\n",
        "Host: evil.example\r\nOrigin: http://evil.example\r\n",
        "Host: localhost:7880\r\nX-Forwarded-For: 192.0.2.1\r\n",
        "Host: localhost:7880\r\nForwarded: for=192.0.2.1\r\n",
        "Host: localhost:7880\r\nOrigin: http://evil.example\r\n",
        "Host: localhost:7880\r\nSec-Fetch-Site: cross-site\r\n",
        "",
    ] {
        assert_eq!(node.status(&ask(headers)), Some(404), "{headers:?}");
    }
}

#[test]
fn long_joins_of_clients_that_do_not_read_are_bounded_together_and_others_go_on() {
    let node = Node::start();
    node.told.lock().unwrap().others = 40;
    let request = |name: &str| get(&format!("/rtc?access_token={}&protocol=16", token(name)), UPGRADE);
    // Twenty megabytes for each.
    let slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = node.connect();
            stream.write_all(&request("slow")).unwrap();
            assert_eq!(status_of(&mut stream), Some(101));
            stream
        })
        .collect();
    node.wait_counted("the share is full", |counted| counted.sent_bytes.refused > 0);
    let counted = node.counted();
    assert!(counted.sent_bytes.now > 0 && counted.sent_bytes.most <= 32 * MIB, "{counted:?}");
    let mut elsewhere = node.connect_from(ELSEWHERE);
    elsewhere.write_all(&request("elsewhere")).unwrap();
    assert_eq!(status_of(&mut elsewhere), Some(101));
    let mut whole = vec![0; 20 * MIB];
    elsewhere.read_exact(&mut whole).unwrap();
    node.told.lock().unwrap().others = 0;
    assert!(node.join("neighbour").is_alive(), "short messages need no share");
    drop(slow);
    node.wait_counted("all is given back", |counted| counted.sent_bytes.now == 0);
}
