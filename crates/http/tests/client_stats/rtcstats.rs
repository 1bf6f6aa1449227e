//! What pages with rtcstats may tell at `/api/v1/rtcstats`.

use super::{KEY, Kept, NOW, Node, OWN, PATIENCE, SECRET, administers, joins, token};
use fanlight_base::Redacted;
use fanlight_http::backend::NotStored;
use fanlight_livekit::token::{Grants, RtcStatsClaim, VideoGrant, create};
use fanlight_telemetry::collector::{ClientReport, Source};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::time::Instant;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocket;
use tungstenite::{Error, Message};

const V5: &str = "rtcstats#5.0";

/// A page with rtcstats.
struct Page(WebSocket<TcpStream>);

impl Page {
    fn open(node: &Node, query: &str, protocol: &str, origin: &str) -> Result<Self, Box<Error>> {
        let stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{}/api/v1/rtcstats{query}", node.address);
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Origin", origin.parse().unwrap());
        headers.insert("User-Agent", "UA".parse().unwrap());
        if !protocol.is_empty() {
            headers.insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("the handshake takes too long"),
        }
    }

    fn let_in(node: &Node, query: &str) -> Self {
        Self::open(node, query, V5, OWN).unwrap()
    }

    fn says(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// The code and the reason with which it is closed.
    fn closed(&mut self) -> (u16, String) {
        loop {
            match self.0.read().unwrap() {
                Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
                Message::Close(None) => panic!("closed without a reason"),
                _ => {}
            }
        }
    }
}

/// Waits until so many reports are stored.
fn stored(kept: &Kept, many: usize) -> Vec<ClientReport> {
    until(&format!("{many} reports are stored"), || kept.0.lock().unwrap().reports.len() >= many);
    std::mem::take(&mut kept.0.lock().unwrap().reports)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::yield_now();
    }
}

fn claim(room: &str, identity: &str, claim: (&str, &str, &str)) -> String {
    let (user, session, conference) = claim;
    let named = RtcStatsClaim { user: user.into(), session: session.into(), conference: conference.into() };
    let video = (!room.is_empty()).then(|| VideoGrant { ..joins(room) });
    let grants = Grants { identity: identity.into(), video, rtc_stats: Some(named), ..Grants::default() };
    create("key", &Redacted::new(SECRET.to_owned()), &grants, NOW, 60).unwrap().reveal().clone()
}

fn of_token(token: &str) -> String {
    format!("?rtcstats-token={token}")
}

const START_MS: u64 = NOW.unix_ns / 1_000_000;

fn whole() -> Value {
    json!(["g", "PC_0", { "t": 5.5, "0": { "type": 2, "10": 7, "79": 5 } }, START_MS])
}

fn changed() -> Value {
    json!(["g", "PC_0", { "t": 6.5, "0": { "79": 6 } }, START_MS + 1_000])
}

#[test]
fn a_token_says_whose_a_dump_is() {
    let node = Node::start(true);
    let mut page =
        Page::let_in(&node, &format!("/some/page.html{}", of_token(&token(joins("demo"), "alice", 0))));
    page.says(&whole());
    page.says(&json!(["nonsense"]));
    page.says(&changed());
    let reports = stored(&node.kept, 2);
    let connection = reports[0].connection.as_ref().unwrap();
    assert_eq!((connection.channel_id.as_str(), connection.client_id.as_str()), ("demo", "alice"));
    assert_eq!((reports[0].source, reports[0].objects[0].kind.as_str()), (Source::RtcStats, "outbound-rtp"));
    for word in ["\"clock_ms\":0", OWN, "\"UA\"", "/api/v1/rtcstats/some/page.html"] {
        assert!(reports[0].extra.contains(word), "{word}: {}", reports[0].extra);
    }
    assert!(
        reports[1].objects[0].json.contains(r#""packetsSent":6,"ssrc":7"#),
        "{}",
        reports[1].objects[0].json
    );
}

#[test]
fn the_claim_of_rtcstats_counts_where_it_contradicts_nothing() {
    let node = Node::start(true);
    for (room, identity, claimed, expected, more) in [
        ("", "", ("u", "s", "c"), ("c", "u", Some("s")), None),
        ("demo", "alice", ("alice", "s", "demo"), ("demo", "alice", Some("s")), None),
        ("demo", "alice", ("eve", "", "other"), ("demo", "alice", None), Some(r#""conference":"other""#)),
    ] {
        let mut page = Page::let_in(&node, &of_token(&claim(room, identity, claimed)));
        page.says(&whole());
        let report = stored(&node.kept, 1).remove(0);
        let connection = report.connection.as_ref().unwrap();
        assert_eq!((connection.channel_id.as_str(), connection.client_id.as_str()), (expected.0, expected.1));
        assert!(expected.2.is_none_or(|session| connection.session_id == session), "{connection:?}");
        assert!(more.is_none_or(|more| report.extra.contains(more)), "{}", report.extra);
    }
}

#[test]
fn a_key_is_for_its_origins_and_proves_nothing() {
    let node = Node::start(true);
    let mut page = Page::let_in(&node, &format!("?key={KEY}&room=r&user=u&at=/added/by/the/old/library"));
    page.says(&whole());
    let report = stored(&node.kept, 1).remove(0);
    let connection = report.connection.as_ref().unwrap();
    assert_eq!((report.source, connection.client_id.as_str()), (Source::RtcStatsByKey, "u"));
    let mut page = Page::open(&node, &format!("?key={KEY}"), V5, "https://evil.example").unwrap();
    let (code, reason) = page.closed();
    assert!(code == 1008 && reason.contains("not for pages of"), "{code} {reason}");
}

#[test]
fn who_may_not_is_told_why_by_closing() {
    let node = Node::start(true);
    for (query, words) in [
        (String::new(), "no token and no key"),
        (of_token("a.b.c"), "invalid authorization token"),
        (of_token(&token(joins("demo"), "alice", 25 * 3_600)), "expired"),
        (of_token(&administers("demo")), "needs roomJoin"),
        (of_token(&claim("", "", ("u", "s", ""))), "needs roomJoin"),
        ("?key=another-key-of-nobody".to_owned(), "none of fanlight.collector.keys"),
    ] {
        let mut page = Page::let_in(&node, &query);
        // It talks before it knows.
        page.says(&whole());
        let (code, reason) = page.closed();
        assert!(code == 1008 && reason.contains(words) && reason.len() <= 123, "{code} {reason}");
    }
    assert!(node.reports().is_empty());
    // A call may outlast its token.
    let mut page = Page::let_in(&node, &of_token(&token(joins("demo"), "alice", 20 * 3_600)));
    page.says(&whole());
    stored(&node.kept, 1);
}

#[test]
fn what_is_no_socket_of_rtcstats_is_refused_before_the_upgrade() {
    let node = Node::start(true);
    let get = node.ask("GET", "/api/v1/rtcstats", &[], "");
    assert!(get.status == 426 && get.body.contains(V5), "{}", get.body);
    let good = of_token(&token(joins("demo"), "alice", 0));
    for protocol in ["", "rtcstats#4.0", "3.0_STANDARD"] {
        let Err(error) = Page::open(&node, &good, protocol, OWN) else { panic!("let in with {protocol}") };
        let Error::Http(answer) = *error else { panic!("{error}") };
        assert_eq!(answer.status(), 400);
    }
    let off = Node::start(false).ask("GET", "/api/v1/rtcstats", &[], "");
    assert!(off.status == 404 && off.body.contains("fanlight.collector.enabled"), "{}", off.body);
}

#[test]
fn a_page_that_names_its_session_goes_on_after_a_break() {
    let node = Node::start(true);
    let query = format!("{}&session=one-life", of_token(&token(joins("demo"), "alice", 0)));
    let mut first = Page::let_in(&node, &query);
    first.says(&whole());
    stored(&node.kept, 1);
    // The old socket is dead, but nobody has noticed.
    let mut second = Page::let_in(&node, &query);
    assert_eq!(first.closed().0, 1001);
    second.says(&changed());
    let report = stored(&node.kept, 1).remove(0);
    assert!(report.objects[0].json.contains("\"ssrc\":7"), "{}", report.objects[0].json);
    // Without a name there is nothing to add to.
    let mut other = Page::let_in(&node, &of_token(&token(joins("demo"), "alice", 0)));
    other.says(&changed());
    let report = stored(&node.kept, 1).remove(0);
    assert_eq!((report.objects.len(), report.rejected_objects()), (0, 1));
}

#[test]
fn a_full_store_is_waited_for_and_an_ending_one_closes() {
    let node = Node::start(true);
    let query = of_token(&token(joins("demo"), "alice", 0));
    let mut page = Page::let_in(&node, &query);
    node.kept.0.lock().unwrap().refuses = Some(NotStored::Busy);
    page.says(&whole());
    page.says(&changed());
    until("the store is tried in vain", || node.kept.0.lock().unwrap().refused > 0);
    node.kept.0.lock().unwrap().refuses = None;
    assert_eq!(stored(&node.kept, 2).len(), 2);
    node.kept.0.lock().unwrap().refuses = Some(NotStored::Unfit("no such thing".to_owned()));
    page.says(&changed());
    until("a message is unfit", || node.rtcstats().bad_messages.contains(&("unfit", 1)));
    node.kept.0.lock().unwrap().refuses = Some(NotStored::Gone);
    page.says(&changed());
    let (code, reason) = page.closed();
    assert!(code == 1011 && reason.contains("shutting down"), "{code} {reason}");
    let counted = node.rtcstats();
    assert_eq!((counted.opened, counted.open_now, counted.messages), (1, 0, 4));
    assert!(counted.ended.contains(&("store", 1)) && counted.bytes > 100, "{counted:?}");
}

#[test]
fn one_person_has_a_few_sockets_and_messages_have_a_size() {
    let node = Node::start(true);
    let query = of_token(&token(joins("demo"), "alice", 0));
    let mut pages: Vec<_> = (0..8).map(|_| Page::let_in(&node, &query)).collect();
    let mut ninth = Page::let_in(&node, &query);
    let (code, reason) = ninth.closed();
    assert!(code == 1013 && reason.contains("too many"), "{code} {reason}");
    assert!(node.rtcstats().refused.contains(&("sockets", 1)));
    let long = Message::text("x".repeat((1 << 20) + 1));
    // The server may have closed before all of it was sent.
    let _ = pages[0].0.send(long);
    assert!(!matches!(pages[0].0.read(), Ok(Message::Text(_) | Message::Binary(_))));
    pages[1].says(&whole());
    assert_eq!(stored(&node.kept, 1).len(), 1);
}
